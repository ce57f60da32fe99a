"""What numbers of GPUs come to: how long each takes against what it costs, the front of both, and the one that is best."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator

from perfmodel.errors import InputError
from perfmodel.report.figures.drawing.palette import BLUE, INK, MUTED, VERMILION
from perfmodel.report.figures.drawing.point_labels import LabelledPoint, name_points
from perfmodel.report.figures.drawing.style import Drawing, grid, styled
from perfmodel.report.figures.plans.plan_front import plan_source
from perfmodel.search.option import SizeOption
from perfmodel.search.plan import Plan
from perfmodel.units import SECONDS_PER_DAY, dollars_text, gpus_text, seconds_text

HEIGHT: Final = 210.0
RADIUS: Final = 2.5
MOST_NAMES: Final = 10
SURE: Final = 0.9


@styled
def plan_options_figure(plan: Plan) -> Drawing:
    """A point for each number of GPUs: calendar days with those of nine in ten, over dollars or GPU-hours.

    Without tokens, iteration times over GPUs. Errors: InputError where there are fewer than two.
    """
    options = plan.options
    if len(options) < 2:
        raise InputError("only one number of GPUs was searched: there is nothing to compare")
    drawing = Drawing(
        title=f"{'Calendar' if plan.question.has_tokens else 'Iteration'} against {_cost_name(plan).partition(' [')[0]}",
        subtitle=f"{plan.question.model.name} on {len(options)} numbers of GPUs",
        plot_height=HEIGHT,
        description=f"Best: {'' if plan.best is None else _told(plan.best)}",
    )
    axes = drawing.subplots()
    front = sorted(plan.front, key=lambda each: cost_of(plan, each))
    axes.plot([cost_of(plan, each) for each in front], [time_of(each) for each in front], color=BLUE, linewidth=1.0)
    for each in options:
        colour, marker = _look(plan, each)
        at = cost_of(plan, each)
        if each.odds is not None:
            axes.plot([at, at], [time_of(each), each.calendar_days_at(SURE)], color=colour, linewidth=1.0)
        (dot,) = axes.plot([at], [time_of(each)], color=colour, marker=marker, markersize=2 * RADIUS, linestyle="")
        drawing.hover(dot, _told(each))
    if plan.question.deadline_s is not None:
        axes.axhline(plan.question.deadline_s / SECONDS_PER_DAY, color=INK, linewidth=1.0)
    if plan.question.budget_dollars is not None:
        axes.axvline(plan.question.budget_dollars, color=INK, linewidth=1.0)
    axes.set(xlabel=_cost_name(plan), ylabel="calendar [days]" if plan.question.has_tokens else "iteration time [s]")
    axes.set_ylim(0.0, 1.08 * axes.get_ylim()[1])
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.margins(x=0.12)
    grid(axes, "both")
    drawing.key(_entries(plan))
    drawing.source_line(plan_source(plan), "numbers at points: GPUs")
    name_points(drawing, axes, _points(plan, options), most=MOST_NAMES)
    return drawing


def cost_of(plan: Plan, option: SizeOption) -> float:
    """Dollars where there is a price, else GPU-hours, or GPUs where no tokens are known."""
    if not plan.question.has_tokens:
        return float(option.gpus)
    return option.gpu_hours if option.dollars is None else option.dollars


def time_of(option: SizeOption) -> float:
    """Calendar days, or seconds of an iteration where no tokens are known."""
    return option.calendar_days or option.iteration_time_s


def _cost_name(plan: Plan) -> str:
    if not plan.question.has_tokens:
        return "GPUs"
    return "cost [$]" if any(each.dollars is not None for each in plan.options) else "use [GPU-hours]"


def _look(plan: Plan, option: SizeOption) -> tuple[str, str]:
    if option is plan.best:
        return VERMILION, "D"
    if all(option is not each for each in plan.allowed):
        return MUTED, "x"
    return (BLUE, "o") if any(option is each for each in plan.front) else (MUTED, "o")


def _told(option: SizeOption) -> str:
    words = [gpus_text(option.gpus), f"{seconds_text(option.iteration_time_s)} an iteration"]
    if option.days:
        words += [
            f"{option.calendar_days:,.1f} days (p90 {option.calendar_days_at(SURE):,.1f})",
            f"{option.gpu_hours:,.0f} GPU-hours",
        ]
    return ", ".join([*words, *([] if option.dollars is None else [dollars_text(option.dollars)])])


def _entries(plan: Plan) -> list[tuple[Line2D, str]]:
    looks = {_look(plan, each) for each in plan.options}
    known = {
        (VERMILION, "D"): "the best",
        (BLUE, "o"): "no other is sooner for less",
        (MUTED, "o"): "slower and dearer",
        (MUTED, "x"): "odds of the limits too low",
    }
    entries = [
        (Line2D([], [], color=colour, marker=marker, linestyle=""), words)
        for (colour, marker), words in known.items()
        if (colour, marker) in looks
    ]
    if plan.question.has_tokens:
        entries.append((Line2D([], [], color=BLUE, linewidth=1.0), "up to nine in ten"))
    if plan.question.deadline_s is not None or plan.question.budget_dollars is not None:
        entries.append((Line2D([], [], color=INK, linewidth=1.0), "limit"))
    return entries


def _points(plan: Plan, options: Sequence[SizeOption]) -> list[LabelledPoint]:
    """The best first, then the front."""
    ranked = sorted(options, key=lambda each: (each is not plan.best, all(each is not one for one in plan.front)))
    return [LabelledPoint(x=cost_of(plan, each), y=time_of(each), radius=RADIUS, name=f"{each.gpus:,}") for each in ranked]
