"""What a plan had to choose from: the time of the fastest layouts against the memory that they need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from matplotlib.lines import Line2D

from perfmodel import __version__
from perfmodel.errors import InputError
from perfmodel.report.figures.drawing.captions import NAME, PART, SHOWN
from perfmodel.report.figures.drawing.lettering import shortened
from perfmodel.report.figures.drawing.palette import BLUE, INK, MUTED, VERMILION
from perfmodel.report.figures.drawing.style import SMALL, TEXT, Drawing, grid, styled
from perfmodel.report.text.prediction import layout_words
from perfmodel.search.layouts.search import LayoutCandidate
from perfmodel.search.plan import Plan
from perfmodel.units import GIBIBYTE, gibibytes_text, gpus_text, seconds_text

HEIGHT: Final = 200.0
SLOWEST: Final = 1.5  # times the best: who would give more for memory?


@styled
def plan_front_figure(plan: Plan) -> Drawing:
    """The front of time against memory of the last ramp stage, the rivals of the best beside it, and the GPU's memory.

    Errors: InputError where no layout was found.
    """
    if plan.best is None:
        raise InputError("nothing fits or meets the limits: there is nothing to draw")
    stage, capacity = plan.stages[-1], float(plan.question.cluster.gpu.memory_bytes) / GIBIBYTE
    near = [each for each in stage.front if each.iteration_time_s <= SLOWEST * stage.best.iteration_time_s]
    drawing = Drawing(
        title="Time against memory of the fastest layouts",
        subtitle=plan_caption(plan),
        plot_height=HEIGHT,
        description=f"Best: {_told(stage.best)}",
    )
    axes = drawing.subplots()
    axes.plot(*_places(near), color=BLUE, drawstyle="steps-post", linewidth=1.0)
    for found, colour, marker in ((near, BLUE, "o"), (stage.rivals, MUTED, "s"), ([stage.best], VERMILION, "D")):
        for each in found:
            (dot,) = axes.plot(*_places([each]), color=colour, marker=marker, markersize=4.5, linestyle="")
            drawing.hover(dot, _told(each))
    axes.axvline(capacity, color=INK, linewidth=1.0)
    axes.set(xlabel="memory of one GPU [GiB]", ylabel="iteration time [s]")
    axes.set_xlim(0.0, 1.04 * capacity)
    grid(axes, "both")
    drawing.key(
        [
            (Line2D([], [], color=VERMILION, marker="D", linestyle=""), "the best"),
            (Line2D([], [], color=MUTED, marker="s", linestyle=""), "its nearest rivals"),
            (Line2D([], [], color=BLUE, marker="o"), "no other is faster with as little memory"),
            (Line2D([], [], color=INK), f"the GPU's {gibibytes_text(capacity * GIBIBYTE)}"),
        ]
    )
    drawing.source_line(plan_source(plan))
    return drawing


def plan_caption(plan: Plan) -> str:
    """What is planned, on how many GPUs where there is an answer."""
    where = "" if plan.best is None else f" on {gpus_text(plan.best.gpus)}"
    return f"{shortened(plan.question.model.name, NAME, TEXT)}{where}"


def plan_source(plan: Plan) -> str:
    """What was searched, with what."""
    parts = [shortened(name, PART, SMALL) for name in (plan.question.cluster.name, plan.question.stack.name)]
    return f"perfmodel {__version__}: {', '.join(parts)}"


def _places(found: Sequence[LayoutCandidate]) -> tuple[list[float], list[float]]:
    """Memory [GiB] and time [s], the least memory first."""
    ordered = sorted(found, key=lambda each: each.memory_bytes)
    return [each.memory_bytes / GIBIBYTE for each in ordered], [each.iteration_time_s for each in ordered]


def _told(each: LayoutCandidate) -> str:
    """What is said of a layout."""
    figures = f"{seconds_text(each.iteration_time_s)} an iteration, {gibibytes_text(each.memory_bytes)}"
    return f"{figures}: {', '.join(layout_words(each.layout, SHOWN))}"
