"""Memory of one GPU by part against what it has: whether a run fits is to be seen before anything is read."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from perfmodel.count.memory.fit import DOES_NOT_FIT, FITS, TIGHT
from perfmodel.prediction import Prediction, StagePrediction
from perfmodel.report.figures.drawing.bar_charts import THICK, Bar, Segment, bars_height, patches, stacked_bars
from perfmodel.report.figures.drawing.captions import run_caption, source_text, stage_labels
from perfmodel.report.figures.drawing.palette import INK, MEMORY
from perfmodel.report.figures.drawing.style import Drawing, styled
from perfmodel.report.words import LABELS
from perfmodel.units import GIBIBYTE, gibibytes_text

CAPACITY: Final[dict[str, Any]] = {"color": INK, "linewidth": 1.2, "linestyle": (0, (4, 2))}  # the line of what a GPU has


def memory_bar(label: str, predicted: StagePrediction) -> Bar:
    """The parts of one stage's memory [GiB] on the worst pipeline stage; they sum to its total."""
    values = {part.name: float(getattr(predicted.memory, part.name)) for part in fields(predicted.memory)}
    segments = tuple(
        Segment(label=LABELS[part], value=value / GIBIBYTE, colour=MEMORY[part]) for part, value in values.items() if value
    )
    return Bar(label=label, segments=segments, end=_end(predicted))


def _end(predicted: StagePrediction) -> str:
    total = f"{float(predicted.memory.total_bytes) / GIBIBYTE:.1f}"
    return total if predicted.verdict == FITS else f"{total}: {predicted.verdict}"


@styled
def memory_figure(prediction: Prediction) -> Drawing:
    """Stacked bars in GiB and a line at the GPU's capacity; what lies beyond is hatched."""
    run, stages = prediction.run, prediction.stages
    capacity = float(run.cluster.gpu.memory_bytes) / GIBIBYTE
    bars = [memory_bar(label, predicted) for label, (_, predicted) in zip(stage_labels(run), stages, strict=True)]
    most = max(float(predicted.memory.total_bytes) for _, predicted in stages)
    need = f"{gibibytes_text(most)} of {gibibytes_text(capacity * GIBIBYTE)}"
    fits = {FITS: "It fits", TIGHT: "It is tight", DOES_NOT_FIT: "It does not fit"}[prediction.verdict]
    drawing = Drawing(
        title="Memory of one GPU" if prediction.may_fit else f"Memory of one GPU: does not fit, needs {need}",
        subtitle=run_caption(run),
        plot_height=bars_height(bars),
        description=f"{fits}: {need}",
    )
    axes = drawing.subplots()
    stacked_bars(drawing, axes, bars, unit="GiB", furthest=capacity)
    axes.axvline(capacity, **CAPACITY, zorder=4)
    for row, bar in enumerate(bars):
        _overflow(axes, row, bar.total, capacity)
    axes.set_xlabel("memory of one GPU [GiB]")
    line = Line2D([], [], **CAPACITY)
    drawing.key([*patches(bars), (line, f"capacity of a GPU, {capacity:.1f} GiB")])
    drawing.source_line(source_text(run))
    return drawing


def _overflow(axes: Axes, row: int, total: float, capacity: float) -> None:
    """Hatched and framed: what the GPU does not have."""
    if total > capacity:
        edge: dict[str, Any] = {"facecolor": "none", "edgecolor": INK, "linewidth": 1.2, "zorder": 3}
        axes.add_patch(Rectangle((capacity, row - THICK / 2.0), total - capacity, THICK, hatch="////", **edge))
