"""How sure a plan is to meet its deadline and its budget, in sentences: the odds, p50 and p90, and what would help."""

from __future__ import annotations

from collections.abc import Iterator
from math import floor
from typing import Final

from rich.text import Text

from perfmodel.search.option import SizeOption
from perfmodel.search.plan import Plan
from perfmodel.search.question import PlanQuestion
from perfmodel.units import SECONDS_PER_DAY, dollars_text, gpus_text

MEDIAN, SURE = 0.5, 0.9  # the probabilities whose days and dollars are always said
LEAST_ODDS: Final = 0.01  # lower ones are no plan


def limits(plan: Plan, option: SizeOption) -> Iterator[Text]:
    """The odds of the best option for each limit that there is."""
    question, alone = plan.question, plan.is_sized and plan.complete
    asked = f"({confidence_text(question.confidence)} asked for)"
    if option.deadline_probability is not None:
        which = ", on the fewest GPUs that do" if alone else ""
        yield Text(f"Meets {deadline_text(question)} with {odds_text(option.deadline_probability)} odds {asked}{which}.")
        yield from _cheaper(plan, option)
    if option.budget_probability is not None:
        which = ", and no other does so sooner" if alone and question.deadline_s is None else ""
        yield Text(f"Costs at most {budget_text(question)} with {odds_text(option.budget_probability)} odds {asked}{which}.")


def percentiles(option: SizeOption, confidence: float) -> Iterator[Text]:
    """What the calendar and the bill come to at most with even odds, with nine in ten, and with those that are asked for."""
    if option.odds is not None:
        words = percentile_words(option, confidence)
        yield Text(f"{words[0].upper()}{words[1:]}.")


def percentile_words(option: SizeOption, confidence: float) -> str:
    """calendar p50 12.9 days, p90 13.7 days; cost p50 $1.100M, p90 $1.170M."""
    levels = sorted({MEDIAN, SURE, confidence})
    days = ", ".join(f"p{_percent(level)} {days_text(option.calendar_days_at(level))}" for level in levels)
    paid = [(level, option.dollars_at(level)) for level in levels]
    cost = ", ".join(f"p{_percent(level)} {dollars_text(amount)}" for level, amount in paid if amount is not None)
    return f"calendar {days}" + (f"; cost {cost}" if cost else "")


def limits_missed(plan: Plan, nearest: SizeOption) -> Iterator[Text]:
    """No option meets the limits: the best odds that were reached, and what would be met."""
    question = plan.question
    asked = f"{limits_text(question)} with {confidence_text(question.confidence)} odds"
    reached = f"the best odds are {odds_text(nearest.limits_probability)}, on {gpus_text(nearest.gpus)}"
    words = percentile_words(nearest, question.confidence)
    yield Text(f"Nothing meets {asked}: {reached} ({words}).", style="bold red")
    yield Text(f"{gpus_text(nearest.gpus)} would meet {', or '.join(_what_is_met(nearest))}.")
    if question.deadline_s is not None:
        more, sizing = "More GPUs than --most-gpus allows may meet it.", "Without --gpus, the deadline decides how many."
        yield Text(more if plan.is_sized else sizing)


def _what_is_met(option: SizeOption) -> Iterator[str]:
    """Other limits that the option meets with the odds that are asked for, and the odds with which it meets the given ones."""
    question, confidence = option.question, option.question.confidence
    figures = []
    if question.deadline_s is not None:
        figures.append(days_text(option.calendar_days_at(confidence)))
    if question.budget_dollars is not None:
        figures.append(dollars_text(option.dollars_at(confidence) or 0.0))
    yield f"{' and '.join(figures)} with {confidence_text(confidence)} odds"
    if option.limits_probability >= LEAST_ODDS:
        yield f"{limits_text(question)} at --confidence {floor(100 * option.limits_probability)}%"


def limits_text(question: PlanQuestion) -> str:
    """The limits of a question: 14.0 days, or $1M, or 14.0 days and $1M."""
    given = []
    if question.deadline_s is not None:
        given.append(deadline_text(question))
    if question.budget_dollars is not None:
        given.append(budget_text(question))
    return " and ".join(given)


def deadline_text(question: PlanQuestion) -> str:
    """The time until the deadline."""
    return days_text((question.deadline_s or 0.0) / SECONDS_PER_DAY)


def budget_text(question: PlanQuestion) -> str:
    """The dollars of the budget."""
    return dollars_text(question.budget_dollars or 0.0)


def confidence_text(confidence: float) -> str:
    """The probability that is asked for, with every digit that was typed: 99.999 % is not 100 %.

    >>> confidence_text(0.9), confidence_text(0.99999), confidence_text(0.07)
    ('90 %', '99.999 %', '7 %')
    """
    return f"{_percent(confidence)} %"


def _percent(probability: float) -> str:
    return f"{100 * probability:.14g}"  # the digits that are more come from binary numbers


def odds_text(probability: float) -> str:
    """Odds for people: whole percent, rounded down, as a promise is.

    >>> [odds_text(probability) for probability in (0.9997, 0.97, 0.899, 0.002)]
    ['over 99 %', '97 %', '89 %', 'under 1 %']
    """
    if probability < LEAST_ODDS:
        return "under 1 %"
    return "over 99 %" if probability > 1.0 - LEAST_ODDS else f"{floor(100 * probability)} %"


def short_odds(probability: float) -> str:
    """Odds in a column of a table.

    >>> short_odds(0.9997), short_odds(0.97)
    ('>99 %', '97 %')
    """
    return odds_text(probability).replace("over ", ">").replace("under ", "<")


def days_text(days: float) -> str:
    """A duration for people.

    >>> days_text(13.94), days_text(0.12), days_text(0.001)
    ('13.9 days', '2.9 hours', '1.4 minutes')
    """
    for least, parts, unit in ((1.0, 1, "days"), (1 / 24, 24, "hours")):
        if days >= least:
            return f"{parts * days:,.1f} {unit}"
    return f"{1440 * days:.1f} minutes"


def _cheaper(plan: Plan, option: SizeOption) -> Iterator[Text]:
    """More GPUs may divide better, and cost less."""
    other = plan.by_cost
    if other is None or other is option:
        return
    less = f"{option.gpu_hours - other.gpu_hours:,.0f} GPU-hours"
    if option.dollars is not None and other.dollars is not None:
        less = dollars_text(option.dollars - other.dollars)
    yield Text(f"More would cost less: {gpus_text(other.gpus)} are done in {days_text(other.calendar_days)}, for {less} less.")
