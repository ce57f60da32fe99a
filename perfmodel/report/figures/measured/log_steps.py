"""The time of steps over a run, as its log tells it, with the band of the prediction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from perfmodel import __version__
from perfmodel.errors import InputError
from perfmodel.exchange.questions.measured_logs import LogComparison
from perfmodel.report.figures.drawing.palette import BLUE, SKY, VERMILION
from perfmodel.report.figures.drawing.style import Drawing, grid, picture, styled
from perfmodel.units import seconds_text

__all__ = ["log_steps_figure", "picture"]

HEIGHT: Final = 230.0  # points
ROOM: Final = 1.5  # times the higher of band and median, to which the axis reaches: starts and evaluations may take minutes


@styled
def log_steps_figure(found: LogComparison) -> Drawing:
    """Measured steps as points, the median of the steady ones, and the 90 % interval of the prediction.

    Errors: InputError where the log does not say how long its steps took.
    """
    if not found.record.series:
        raise InputError(f"{found.log} does not say how long each step took: there is nothing to draw")
    low, high = found.interval_s
    drawing = Drawing(
        title="Time of steps over the run, and as predicted",
        subtitle=f"{found.name}, {found.log}",
        plot_height=HEIGHT,
        description=f"measured {seconds_text(found.measured_s)}, predicted {seconds_text(low)} to {seconds_text(high)}",
    )
    axes = drawing.subplots()
    band = axes.axhspan(low, high, color=SKY, alpha=0.35, linewidth=0)
    iterations, times = zip(*found.record.series, strict=True)
    (points,) = axes.plot(iterations, times, linestyle="none", marker=".", markersize=2.5, color=BLUE)
    line = axes.axhline(found.measured_s, color=VERMILION, linewidth=1.2)
    top = ROOM * max(high, found.measured_s)
    axes.set_ylim(0.0, top)
    axes.set_xlabel("iteration")
    axes.set_ylabel("time of an iteration [s]")
    grid(axes, "y")
    drawing.key([(points, "steps of the log"), (line, "median of steady steps"), (band, "90 % interval of the prediction")])
    drawing.source_line(f"Predicted by perfmodel {__version__}{_beyond(times, top)}")
    return drawing


def _beyond(times: Sequence[float], top: float) -> str:
    """A sentence on the steps that lie above the axis; empty where there are none."""
    longer = [each for each in times if each > top]
    if not longer:
        return ""
    steps = "One step lies" if len(longer) == 1 else f"{len(longer):,} steps lie"
    return f". {steps} above, at up to {seconds_text(max(longer))}."
