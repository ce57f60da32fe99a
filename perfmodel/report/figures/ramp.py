"""Iteration time and MFU of each stage with the 90 % interval, and what its source published beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from perfmodel.light_dataclass import dataclass
from perfmodel.prediction import Prediction, StagePrediction
from perfmodel.report.figures.drawing.captions import run_caption, source_text, stage_labels
from perfmodel.report.figures.drawing.lettering import shortened
from perfmodel.report.figures.drawing.palette import BLUE, VERMILION
from perfmodel.report.figures.drawing.style import TEXT, Drawing, grid, styled
from perfmodel.spec.run import RampStage

ROW_HEIGHT: Final = 34.0
APART: Final = 0.2  # of a row, predicted above published
BESIDE: Final = 40.0  # points of an axis with its label
LABEL_ROOM: Final = 110.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RampValue:
    """One number of one stage: predicted, both ends of its interval, and what was published (None where nothing was)."""

    predicted: float
    low: float
    high: float
    published: float | None


def times_s(stages: Sequence[tuple[RampStage, StagePrediction]]) -> list[RampValue]:
    """The iteration time of each stage [s]."""
    found = []
    for stage, predicted in stages:
        low, high = (float(end) for end in predicted.iteration_time_interval_s)
        seconds, published = float(predicted.iteration_time_s), stage.published.iteration_time_s
        found.append(RampValue(predicted=seconds, low=low, high=high, published=published))
    return found


def mfus(stages: Sequence[tuple[RampStage, StagePrediction]]) -> list[RampValue]:
    """The MFU of each stage: what takes longer by some factor has an MFU lower by it."""
    found = []
    for (stage, predicted), time in zip(stages, times_s(stages), strict=True):
        mfu = float(predicted.mfu)
        ends = [mfu * time.predicted / end for end in (time.high, time.low)]
        found.append(RampValue(predicted=mfu, low=ends[0], high=ends[1], published=stage.published.mfu))
    return found


@styled
def ramp_figure(prediction: Prediction) -> Drawing:
    """Two panels, one above the other, a row for each stage."""
    stages, times, rates = prediction.stages, times_s(prediction.stages), mfus(prediction.stages)
    is_published = any(each.published is not None for each in (*times, *rates))
    said = [
        f"{label}: {time.predicted:.3f} s ({time.low:.3f} to {time.high:.3f}), MFU {100 * rate.predicted:.1f} %"
        for label, time, rate in zip(stage_labels(prediction.run), times, rates, strict=True)
    ]
    drawing = Drawing(
        title=f"Iteration time and MFU, predicted{' and published' if is_published else ''}",
        subtitle=run_caption(prediction.run),
        plot_height=2.0 * (ROW_HEIGHT * len(stages) + BESIDE),
        description="; ".join(said),
    )
    upper, lower = drawing.subplots(2, 1)
    _panel(drawing, upper, times, scale=1.0, shape="{:.3f}", unit="s")
    _panel(drawing, lower, rates, scale=100.0, shape="{:.1f}", unit="%")
    upper.set_xlabel("iteration time [s]")
    lower.set_xlabel("MFU [%]")
    for axes in (upper, lower):
        axes.set_yticks(range(len(stages)), [shortened(label, LABEL_ROOM, TEXT) for label in stage_labels(prediction.run)])
        axes.set_ylim(len(stages) - 0.45, -0.55)
    drawing.key(_entries(is_published=is_published))
    drawing.source_line(source_text(prediction.run), "published figures as the run states them" if is_published else "")
    return drawing


def _entries(*, is_published: bool) -> list[tuple[Line2D, str]]:
    predicted = Line2D([], [], color=BLUE, marker="o", markersize=5)
    published = Line2D([], [], color=VERMILION, marker="D", markersize=5, linestyle="")
    return [(predicted, "predicted, 90 % interval"), *([(published, "published")] if is_published else [])]


def _panel(drawing: Drawing, axes: Axes, rows: Sequence[RampValue], *, scale: float, shape: str, unit: str) -> None:
    """A dot with its interval for each row, a diamond below for what was published."""
    for row, each in enumerate(rows):
        above = row - (APART if each.published is not None else 0.0)
        axes.plot([scale * each.low, scale * each.high], [above, above], color=BLUE, zorder=2)
        (dot,) = axes.plot([scale * each.predicted], [above], color=BLUE, marker="o", markersize=5, linestyle="", zorder=3)
        number, ends = shape.format(scale * each.predicted), [shape.format(scale * end) for end in (each.low, each.high)]
        drawing.hover(dot, f"predicted {number} {unit}, 90 % interval {ends[0]} to {ends[1]} {unit}")
        _write(axes, number, (scale * each.high, above))
        if each.published is not None:
            value, below = scale * each.published, row + APART
            (diamond,) = axes.plot([value], [below], color=VERMILION, marker="D", markersize=5, linestyle="", zorder=3)
            drawing.hover(diamond, f"published {value:g} {unit}")
            _write(axes, f"{value:g}", (value, below))
    ends_of_all = [end for each in rows for end in (each.low, each.high, each.published) if end is not None]
    low, high = scale * min(ends_of_all), scale * max(ends_of_all)
    span = max(high - low, 0.02 * high)
    axes.set_xlim(low - 0.08 * span, high + 0.3 * span)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    grid(axes, "x")


def _write(axes: Axes, text: str, at: tuple[float, float]) -> None:
    axes.annotate(text, at, (6, 0), textcoords="offset points", va="center", fontsize=TEXT)
