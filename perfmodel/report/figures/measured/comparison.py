"""Several runs or scenarios beside each other: where an iteration of each goes, and its memory against what its GPU has."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.lines import Line2D

from perfmodel import __version__
from perfmodel.prediction import StagePrediction
from perfmodel.report.figures.breakdown import iteration_bar, time_scale
from perfmodel.report.figures.drawing.bar_charts import THICK, bars_height, patches, stacked_bars
from perfmodel.report.figures.drawing.style import Drawing, styled
from perfmodel.report.figures.memory import CAPACITY, memory_bar
from perfmodel.units import GIBIBYTE, gibibytes_text, seconds_text

SOURCE = f"Predicted by perfmodel {__version__}"


@styled
def iterations_figure(labels: Sequence[str], stages: Sequence[StagePrediction], *, subtitle: str) -> Drawing:
    """A bar for each, with the same colours as in the figure of one run."""
    times = [float(each.iteration_time_s) for each in stages]
    scale, unit = time_scale(times)
    bars = [iteration_bar(label, each, scale=scale) for label, each in zip(labels, stages, strict=True)]
    drawing = Drawing(
        title="Where an iteration goes",
        subtitle=subtitle,
        plot_height=bars_height(bars),
        description="; ".join(f"{label}: {seconds_text(time)}" for label, time in zip(labels, times, strict=True)),
    )
    axes = drawing.subplots()
    stacked_bars(drawing, axes, bars, unit=unit)
    axes.set_xlabel(f"time of an iteration [{unit}]")
    drawing.key(patches(bars))
    drawing.source_line(SOURCE)
    return drawing


@styled
def memories_figure(
    labels: Sequence[str], stages: Sequence[StagePrediction], capacities_bytes: Sequence[float], *, subtitle: str
) -> Drawing:
    """A bar for each, and a line at the capacity of its own GPU."""
    bars = [memory_bar(label, each) for label, each in zip(labels, stages, strict=True)]
    capacities = [capacity / GIBIBYTE for capacity in capacities_bytes]
    told = [
        f"{bar.label}: {gibibytes_text(bar.total * GIBIBYTE)} of {gibibytes_text(capacity * GIBIBYTE)}"
        for bar, capacity in zip(bars, capacities, strict=True)
    ]
    drawing = Drawing(title="Memory of one GPU", subtitle=subtitle, plot_height=bars_height(bars), description="; ".join(told))
    axes = drawing.subplots()
    stacked_bars(drawing, axes, bars, unit="GiB", furthest=max(capacities))
    for row, capacity in enumerate(capacities):
        ends = [row - 0.62 * THICK, row + 0.62 * THICK]
        axes.plot([capacity, capacity], ends, **CAPACITY, zorder=4)
    axes.set_xlabel("memory of one GPU [GiB]")
    line = Line2D([], [], **CAPACITY)
    drawing.key([*patches(bars), (line, "capacity of the GPU")])
    drawing.source_line(SOURCE)
    return drawing
