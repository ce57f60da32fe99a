"""Why rivals lost: the parts of an iteration of the best layout and of the nearest others, and what each change costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from matplotlib.patches import Rectangle

from perfmodel.errors import InputError
from perfmodel.report.figures.breakdown import iteration_bar, time_scale
from perfmodel.report.figures.drawing.bar_charts import bars_height, patches, stacked_bars
from perfmodel.report.figures.drawing.lettering import shortened, text_width
from perfmodel.report.figures.drawing.palette import ITERATION, MUTED
from perfmodel.report.figures.drawing.style import SMALL, TEXT, Drawing, grid, styled
from perfmodel.report.figures.plans.plan_front import plan_caption, plan_source
from perfmodel.report.text.plans.plan import MOST_RIVALS, Rejection, differing, rejections
from perfmodel.report.words import LABELS
from perfmodel.search.alternatives import candidate_prediction
from perfmodel.search.plan import Plan

ROW_HEIGHT: Final = 30.0
THICK: Final = 0.4
ABOVE: Final = 0.42  # of a row: the middle of a label over that of its bar


@styled
def rivals_figure(plan: Plan) -> Drawing:
    """Stacked bars of the last ramp stage. Errors: InputError where there is no answer."""
    if plan.best is None:
        raise InputError("nothing fits or meets the limits: there is nothing to draw")
    stage, work = plan.stages[-1], plan.best.workloads[-1]
    every = [stage.best, *stage.rivals[:MOST_RIVALS]]
    predictions = [stage.prediction, *(candidate_prediction(each, work) for each in every[1:])]
    scale, unit = time_scale([each.iteration_time_s for each in every])
    labels = [differing(stage.best, each) for each in every]
    bars = [iteration_bar(label, each, scale=scale) for label, each in zip(labels, predictions, strict=True)]
    drawing = Drawing(
        title="The best layout and its nearest rivals",
        subtitle=plan_caption(plan),
        plot_height=bars_height(bars, is_tall=True),
        description="; ".join(f"{bar.label}: {bar.end}" for bar in bars),
    )
    axes = drawing.subplots()
    stacked_bars(drawing, axes, bars, unit=unit, is_tall=True)
    axes.set_xlabel(f"time of an iteration [{unit}]")
    drawing.key(patches(bars))
    drawing.source_line(plan_source(plan), "each is called by what differs from the best")
    return drawing


@styled
def rejections_figure(plan: Plan) -> Drawing:
    """What each other value of each setting costs, and in which part. Errors: InputError where there is none."""
    rows = rejections(plan.stages[-1]) if plan.stages else []
    fitting = [each for each in rows if each.slower_by is not None]
    if not fitting:
        raise InputError("no other layout fits: there is nothing to draw")
    drawing = Drawing(
        title="What each other choice costs, all else chosen anew",
        subtitle=plan_caption(plan),
        plot_height=ROW_HEIGHT * len(rows) + 42.0,
        description="; ".join(f"{each.change}: {each.time}" for each in rows[:3]),
    )
    axes, far = drawing.subplots(), max(100.0 * (each.slower_by or 0.0) for each in fitting)
    for row, each in enumerate(rows):
        percent = 100.0 * (each.slower_by or 0.0)
        colour = ITERATION.get(each.part, MUTED)
        (patch,) = axes.barh(row, max(percent, 0.004 * far), THICK, color=colour, linewidth=0, zorder=2)
        drawing.hover(patch, ", ".join(word for word in (each.change, each.time, each.because) if word))
        label = shortened(each.change, drawing.room, TEXT)
        axes.text(0.0, row - ABOVE, label, transform=axes.get_yaxis_transform(), va="center", fontsize=TEXT)
        axes.annotate(_words(each), (percent, row), (4, 0), textcoords="offset points", va="center", fontsize=SMALL)
    axes.set_xlim(0.0, _end(rows, drawing.room))
    axes.set_ylim(len(rows) - 0.6, -0.75)
    axes.set_yticks([])
    axes.set_xticks([tick for tick in axes.get_xticks() if tick <= 1.2 * far])
    axes.spines["left"].set_visible(False)
    grid(axes, "x")
    axes.set_xlabel("time of an iteration over that of the best [%]", loc="left")
    drawing.key(_parts(fitting))
    drawing.source_line(plan_source(plan))
    return drawing


def _words(row: Rejection) -> str:
    return f"{row.time} ({row.because})" if row.because else row.time


def _end(rows: Sequence[Rejection], room: float) -> float:
    """Where the axis ends [%]: every bar has room for its words behind it."""
    behind = [(100.0 * (each.slower_by or 0.0), min((text_width(_words(each), SMALL) + 12.0) / room, 0.9)) for each in rows]
    return max(percent / (1.0 - share) for percent, share in behind)


def _parts(rows: Sequence[Rejection]) -> list[tuple[Rectangle, str]]:
    """The parts that lose most, each in its colour."""
    names = dict.fromkeys(each.part for each in rows if each.because)
    return [(Rectangle((0, 0), 1, 1, facecolor=ITERATION[name], linewidth=0), LABELS[name]) for name in names]
