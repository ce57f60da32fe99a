"""A plan by other deadlines: the odds of each number of GPUs that was searched, and which are the fewest that do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from perfmodel.report.html.live import days_text
from perfmodel.report.text.plans.plan_odds import confidence_text, short_odds
from perfmodel.report.text.terminal import plain_table
from perfmodel.search.option import SizeOption
from perfmodel.search.plan import Plan
from perfmodel.units import HOURS_PER_DAY, SECONDS_PER_DAY, dollars_text

STEPS: Final = (1.0, 1.2, 1.4, 1.6, 1.8, 2.1, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 7.0, 8.0, 9.0)  # of days, times powers of ten
HOURS: Final = (1, 2, 3, 4, 6, 8, 10, 12, 15, 18, 21)
ROOM: Final = 1.25  # of the earliest and the latest end that is likely, to either side


def deadlines_days(plan: Plan) -> tuple[float, ...]:
    """Round deadlines among which the options differ, and the plan's own; none where no tokens are known.

    From somewhat before the fastest is done to somewhat after the slowest is, at the odds that are asked for.
    """
    ends = [option.calendar_days_at(plan.question.confidence) for option in plan.options if option.odds is not None]
    if not ends:
        return ()
    rounded = [hours / HOURS_PER_DAY for hours in HOURS]
    rounded += [step * 10**power for power in range(4) for step in STEPS if (step * 10**power).is_integer()]
    own = [] if plan.question.deadline_s is None else [plan.question.deadline_s / SECONDS_PER_DAY]
    return tuple(sorted({*own, *(each for each in rounded if min(ends) / ROOM <= each <= max(ends) * ROOM)}))


def deadline_label(days: float) -> str:
    """A deadline as it is typed.

    >>> deadline_label(14.0), deadline_label(0.25)
    ('14 days', '6 hours')
    """
    return f"{days:g} days" if days >= 1.0 else f"{HOURS_PER_DAY * days:g} hours"


def odds_by(option: SizeOption, days: float) -> float:
    """The odds that an option is done in so many days, and keeps the budget where there is one."""
    done = 0.0 if option.odds is None else float(option.odds.days.probability_at_most(days))
    return done if option.budget_probability is None else min(done, option.budget_probability)


def fewest_by(plan: Plan, days: float) -> SizeOption | None:
    """The option on the fewest GPUs that is done by a deadline with the odds that are asked for."""
    meeting = [option for option in plan.options if odds_by(option, days) >= plan.question.confidence]
    return min(meeting, key=lambda option: option.gpus, default=None)


def deadlines_report(plan: Plan, deadlines: Sequence[float]) -> RenderableType:
    """The fewest GPUs for each deadline, of those that were searched: a line where they, or the deadline, are others."""
    table = plain_table("deadline")
    has_price = any(option.dollars is not None for option in plan.options)
    for heading in ("GPUs", "days", "odds", "cost" if has_price else "GPU-hours"):
        table.add_column(heading, justify="right")
    for days in deadlines:
        option = fewest_by(plan, days)
        table.add_row(deadline_label(days), *(("more", "", "", "") if option is None else _cells(option, days)))
    ends = sorted(option.calendar_days_at(plan.question.confidence) for option in plan.options)
    asked = f"with {confidence_text(plan.question.confidence)} odds"
    words = f"Of {', '.join(f'{gpus:,}' for gpus in sorted(option.gpus for option in plan.options))} GPUs, {asked}"
    fewer = f"; with more than {days_text(ends[-1])} days fewer may do" if plan.is_sized else ""
    return Group(table, Text(f"{words}{fewer}.", style="dim"))


def _cells(option: SizeOption, days: float) -> tuple[str, ...]:
    paid = f"{option.gpu_hours:,.0f}" if option.dollars is None else dollars_text(option.dollars)
    return (f"{option.gpus:,}", days_text(option.calendar_days), short_odds(odds_by(option, days)), paid)
