"""How wrong predictions are, run by run: the signed relative error of each, in groups, with the 90 % intervals.

    error = predicted / measured - 1

A row is a run; its line reaches from one end of its interval to the other: over 0 where the measurement lies inside.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import ceil
from statistics import median
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from perfmodel import __version__
from perfmodel.errors import InputError
from perfmodel.evidence.steps.step_comparison import StepComparison
from perfmodel.evidence.time_scores import TimeComparison
from perfmodel.light_dataclass import dataclass
from perfmodel.report.figures.drawing.lettering import shortened
from perfmodel.report.figures.drawing.palette import BLUE, GRID, INK, VERMILION
from perfmodel.report.figures.drawing.style import TEXT, Drawing, grid, picture, styled
from perfmodel.units import seconds_text

__all__ = ["accuracy_figure", "picture", "steps_figure"]

BAND: Final = 10.0  # percent to either side
WIDEST: Final = 50.0  # percent at the ends of the axis: what is beyond is drawn there
SEEN: Final = 0.98  # of the errors lie within the axis
ROWS: Final = 520.0  # points of all rows, where they are many
ROW: Final = (1.0, 7.0)  # points of one, least and most
LEAST: Final = 14.0  # points of all rows of a group, where it is small
HEADING: Final = 19.0  # points of the name of a group
AXIS: Final = 42.0  # points of the axis with its label
UNSAID: Final = "(not stated)"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunError:
    """One run that was measured and predicted."""

    name: str
    measured_s: float
    predicted_s: float
    interval_s: tuple[float, float]

    @property
    def percent(self) -> float:
        """Error with its sign [%]: positive where the prediction is too slow."""
        return 100.0 * (self.predicted_s / self.measured_s - 1.0)

    @property
    def ends(self) -> tuple[float, float]:
        """Both ends of the 90 % interval, as errors [%]."""
        low, high = (100.0 * (end / self.measured_s - 1.0) for end in self.interval_s)
        return low, high

    @property
    def is_inside(self) -> bool:
        """Whether the measurement lies in the interval."""
        low, high = self.interval_s
        return low <= self.measured_s <= high

    @property
    def told(self) -> str:
        """What is said of it."""
        times = f"{seconds_text(self.predicted_s)} predicted, {seconds_text(self.measured_s)} measured"
        low, high = self.ends
        return f"{self.name}: {times}, {self.percent:+.1f} % (90 %: {low:+.1f} to {high:+.1f} %)"


@styled
def accuracy_figure(comparisons: Sequence[TimeComparison]) -> Drawing:
    """The error of every run that is scored, by the software that it ran. Errors: InputError when no row is predicted."""
    stacks: dict[str, list[RunError]] = {}
    for each in comparisons:
        if each.predicted_s is not None and each.interval_s is not None and each.measured.scored:
            run = RunError(
                name=each.measured.run_id,
                measured_s=each.measured.iteration_time_s,
                predicted_s=each.predicted_s,
                interval_s=each.interval_s,
            )
            stacks.setdefault(each.measured.labels.get("stack", "") or UNSAID, []).append(run)
    if not stacks:
        raise InputError("no row is predicted: there is nothing to draw")
    return _drawing(stacks, title="Errors of predicted iteration times", what="measured runs by software")


@styled
def steps_figure(comparisons: Sequence[StepComparison]) -> Drawing:
    """The error of measured steps, by model and number of bits."""
    groups: dict[str, list[RunError]] = {}
    for each in comparisons:
        settings = each.record.settings
        low, high = (float(end) for end in each.predicted.iteration_time_interval_s)
        run = RunError(
            name=each.record.name,
            measured_s=each.step.measured,
            predicted_s=each.step.predicted,
            interval_s=(low, high),
        )
        groups.setdefault(f"{settings['model']['name']}, {settings['layout']['precision']}", []).append(run)
    return _drawing(groups, title="Errors of predicted steps", what="steps measured by perfmodel measure")


def _drawing(groups: Mapping[str, Sequence[RunError]], *, title: str, what: str) -> Drawing:
    """Groups from the top down, the largest first; in each the runs from too fast to too slow."""
    ordered = sorted(groups.items(), key=lambda entry: (-len(entry[1]), entry[0]))
    every = [run for _, runs in ordered for run in runs]
    row = min(max(ROWS / len(every), ROW[0]), ROW[1])
    heights = {name: max(row, min(LEAST / len(runs), ROW[1])) for name, runs in ordered}
    drawing = Drawing(
        title=title,
        subtitle=f"{len(every):,} {what}: {summary_text(every)}",
        plot_height=sum(heights[name] * len(runs) + HEADING for name, runs in ordered) + AXIS,
        description="; ".join(f"{name}: {summary_text(runs)}" for name, runs in ordered),
    )
    axes, far = drawing.subplots(), reach(every)
    axes.axvspan(-BAND, BAND, color=GRID, alpha=0.5, linewidth=0, zorder=0)
    down = 0.0
    for name, runs in ordered:
        _heading(drawing, axes, (name, runs), down)
        down += HEADING
        height = heights[name]
        axes.plot([0.0, 0.0], [down, down + height * len(runs)], color=INK, linewidth=0.8, zorder=1)
        for run in sorted(runs, key=lambda each: each.percent):
            _row(drawing, axes, run, down + height / 2.0, (height, far))
            down += height
    axes.set_xlim(-far, far)
    axes.set_ylim(down, 0.0)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+g}" if value else "0"))
    grid(axes, "x")
    axes.set_xlabel("error: predicted against measured time [%]")
    drawing.key(_entries(every, far))
    drawing.source_line(f"perfmodel {__version__}", "left of 0 the prediction is too fast, right of it too slow")
    return drawing


def reach(runs: Iterable[RunError]) -> float:
    """Where the axis ends [%], tens: nearly all errors lie within, as far as it may go."""
    errors = [abs(run.percent) for run in runs]
    return min(max(10.0 * ceil(float(np.quantile(errors, SEEN)) / 10.0), 2.0 * BAND), WIDEST)


def summary_text(runs: Sequence[RunError]) -> str:
    """The median of the errors without their signs, and how many measurements lie in their intervals."""
    inside = sum(run.is_inside for run in runs) / len(runs)
    return f"median {median(abs(run.percent) for run in runs):.1f} %, {100.0 * inside:.0f} % inside"


def _heading(drawing: Drawing, axes: Axes, group: tuple[str, Sequence[RunError]], down: float) -> None:
    name, runs = group
    words = f" ({len(runs):,}): {summary_text(runs)}"
    text = f"{shortened(name, 0.5 * drawing.room, TEXT)}{words}"
    axes.text(
        *(0.0, down + 0.62 * HEADING, text),
        transform=axes.get_yaxis_transform(),
        va="center",
        fontsize=TEXT,
        color=INK,
        zorder=5,
    )


def _row(drawing: Drawing, axes: Axes, run: RunError, down: float, sizes: tuple[float, float]) -> None:
    """The interval as a line, the error as a dot on it; at the end of the axis where it lies beyond."""
    height, far = sizes
    colour = BLUE if run.is_inside else VERMILION
    low, high = (min(max(end, -far), far) for end in run.ends)
    thick = min(0.55 * height, 1.4)
    axes.plot([low, high], [down, down], color=colour, linewidth=thick, alpha=0.45, solid_capstyle="butt", zorder=2)
    at = min(max(run.percent, -far), far)
    marker = "o" if at == run.percent else "<" if at < 0 else ">"
    size = min(max(0.75 * height, 1.7), 4.0) * (1.0 if marker == "o" else 1.8)
    (dot,) = axes.plot(
        [at], [down], color=colour, marker=marker, markersize=size, markeredgewidth=0, linestyle="", zorder=3, clip_on=False
    )
    drawing.hover(dot, run.told)


def _entries(runs: Sequence[RunError], far: float) -> list[tuple[Line2D | Rectangle, str]]:
    """The looks that are there."""
    looks: list[tuple[Line2D | Rectangle, str]] = []
    for colour, inside, words in ((BLUE, True, "measured inside the 90 % interval"), (VERMILION, False, "outside")):
        if any(run.is_inside is inside for run in runs):
            looks.append((Line2D([], [], color=colour, marker="o", markersize=4), words))
    looks.append((Rectangle((0, 0), 1, 1, facecolor=GRID, linewidth=0), f"within {BAND:.0f} %"))
    beyond = sum(abs(run.percent) > far for run in runs)
    if beyond:
        looks.append((Line2D([], [], color=INK, marker=">", markersize=5, linestyle=""), f"beyond {far:.0f} % ({beyond})"))
    return looks
