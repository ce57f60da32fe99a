"""Where an iteration goes: a bar for each stage, a colour for each part, and their sum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from perfmodel.prediction import Prediction, StagePrediction
from perfmodel.report.figures.drawing.bar_charts import Bar, Segment, bars_height, number_text, patches, stacked_bars
from perfmodel.report.figures.drawing.captions import run_caption, source_text, stage_labels
from perfmodel.report.figures.drawing.palette import ITERATION
from perfmodel.report.figures.drawing.style import Drawing, styled
from perfmodel.report.words import PARTS
from perfmodel.units import seconds_text

LONG_S: Final = 10.0  # iterations that are drawn in seconds


def iteration_bar(label: str, predicted: StagePrediction, *, scale: float = 1.0) -> Bar:
    """The parts of one stage's iteration [s, or what `scale` makes of it]; they sum to its time."""
    values = {part: float(seconds) for part, seconds in predicted.breakdown.items()}
    segments = tuple(
        Segment(label=PARTS[part], value=scale * value, colour=ITERATION[part]) for part, value in values.items() if value
    )
    return Bar(label=label, segments=segments, end=seconds_text(float(predicted.iteration_time_s)))


def time_scale(times_s: Sequence[float]) -> tuple[float, str]:
    """What times are multiplied with to be drawn, and their unit then.

    >>> time_scale([0.6, 0.7]), time_scale([0.6, 20.0])
    ((1000.0, 'ms'), (1.0, 's'))
    """
    return (1.0, "s") if max(times_s) >= LONG_S else (1e3, "ms")


@styled
def breakdown_figure(prediction: Prediction) -> Drawing:
    """Stacked bars in milliseconds, or in seconds where iterations are long."""
    scale, unit = time_scale([float(predicted.iteration_time_s) for _, predicted in prediction.stages])
    stages = zip(stage_labels(prediction.run), prediction.stages, strict=True)
    bars = [iteration_bar(label, predicted, scale=scale) for label, (_, predicted) in stages]
    most = max(bars[-1].segments, key=lambda segment: segment.value)
    drawing = Drawing(
        title="Where an iteration goes",
        subtitle=run_caption(prediction.run),
        plot_height=bars_height(bars),
        description=f"{bars[-1].label}: {bars[-1].end}; most of it is {most.label}, {number_text(most.value)} {unit}",
    )
    axes = drawing.subplots()
    stacked_bars(drawing, axes, bars, unit=unit)
    axes.set_xlabel(f"time of an iteration [{unit}]")
    drawing.key(patches(bars))
    drawing.source_line(source_text(prediction.run))
    return drawing
