"""Predicted beside measured: published runs, steps of one's own, the operators of one step (needs the extra `report`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import StrMethodFormatter

from perfmodel import __version__
from perfmodel.errors import InputError
from perfmodel.evidence.steps.step_comparison import ComparedOperator, StepComparison
from perfmodel.evidence.time_scores import TimeComparison
from perfmodel.light_dataclass import dataclass
from perfmodel.report.figures.drawing.captions import NAME
from perfmodel.report.figures.drawing.lettering import shortened
from perfmodel.report.figures.drawing.palette import BLUE, GRID, LINES, MARKERS, MUTED, VERMILION
from perfmodel.report.figures.drawing.style import TEXT, Drawing, grid, log_ticks, picture, styled
from perfmodel.report.text.operators import phase_text
from perfmodel.units import seconds_text

__all__ = ["accuracy_figure", "operators_figure", "picture", "steps_figure"]

BAND: Final = 0.1
DRAWN: Final = 0.95  # of the step: the operators that are drawn
MOST_BARS: Final = 24
MARGIN: Final = 1.25  # from the outermost points to the ends of the axes
SQUARE: Final = 430.0  # points
ROW_HEIGHT: Final = 25.0
LABEL_ROOM: Final = 190.0
PREDICTED, MEASURED = BLUE, VERMILION


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredMarker:
    """One run that was measured and predicted."""

    name: str
    measured_s: float
    predicted_s: float


@styled
def accuracy_figure(comparisons: Sequence[TimeComparison]) -> Drawing:
    """Predicted against measured iteration times, log-log, a colour and marker for each stack, with a 10 % band.

    Errors: InputError when no row is predicted.
    """
    stacks: dict[str, list[MeasuredMarker]] = {}
    for each in comparisons:
        if each.predicted_s is not None:
            run = MeasuredMarker(
                name=each.measured.run_id, measured_s=each.measured.iteration_time_s, predicted_s=each.predicted_s
            )
            stacks.setdefault(each.measured.labels.get("stack", "") or "(not stated)", []).append(run)
    if not stacks:
        raise InputError("no row is predicted: there is nothing to draw")
    number = sum(len(runs) for runs in stacks.values())
    drawing = _against(stacks, title="Predicted against measured iteration times", what=f"{number} measured runs by stack")
    drawing.source_line(f"perfmodel {__version__}; measured by those who published them, each row with its source")
    return drawing


@styled
def steps_figure(comparisons: Sequence[StepComparison]) -> Drawing:
    """Predicted against measured steps, log-log, a colour and marker for each model and number of bits."""
    groups: dict[str, list[MeasuredMarker]] = {}
    for each in comparisons:
        settings = each.record.settings
        run = MeasuredMarker(name=each.record.name, measured_s=each.step.measured, predicted_s=each.step.predicted)
        groups.setdefault(f"{settings['model']['name']}, {settings['layout']['precision']}", []).append(run)
    what = f"{len(comparisons)} runs by model and precision"
    drawing = _against(dict(sorted(groups.items())), title="Predicted against measured steps", what=what)
    drawing.source_line(f"perfmodel {__version__}; measured with perfmodel measure on this project's machines")
    return drawing


def _against(groups: Mapping[str, Sequence[MeasuredMarker]], *, title: str, what: str) -> Drawing:
    """A square of predicted over measured, the largest group below the others."""
    every = [run for runs in groups.values() for run in runs]
    inside = sum(abs(run.predicted_s / run.measured_s - 1.0) <= BAND for run in every)
    drawing = Drawing(
        title=title, subtitle=what, plot_height=SQUARE, description=f"{inside} of {len(every)} lie within {100 * BAND:.0f} %"
    )
    axes = drawing.subplots()
    _draw_band(axes, [seconds for run in every for seconds in (run.measured_s, run.predicted_s)])
    entries: list[tuple[Artist, str]] = []
    most_first = sorted(groups.items(), key=lambda entry: -len(entry[1]))
    for index, (name, runs) in enumerate(most_first):
        colour, marker = LINES[index % len(LINES)], MARKERS[(index + index // len(LINES)) % len(MARKERS)]
        _draw_runs(drawing, axes, runs, colour=colour, marker=marker)
        line = Line2D([], [], color=colour, marker=marker, markersize=5, linestyle="", markeredgewidth=0)
        entries.append((line, f"{name} ({len(runs)})"))
    entries.append((Rectangle((0, 0), 1, 1, facecolor=GRID, linewidth=0), f"within {100 * BAND:.0f} %"))
    _scale(axes)
    drawing.key(entries)
    return drawing


def _draw_band(axes: Axes, values: Sequence[float]) -> None:
    ends = np.array([min(values) / MARGIN, max(values) * MARGIN])
    axes.plot(ends, ends, color=MUTED, linewidth=0.8, zorder=0.5)
    axes.fill_between(ends, ends * (1 - BAND), ends * (1 + BAND), color=GRID, linewidth=0, zorder=0)
    axes.set_xlim(*ends)
    axes.set_ylim(*ends)


def _draw_runs(drawing: Drawing, axes: Axes, runs: Iterable[MeasuredMarker], *, colour: str, marker: str) -> None:
    for run in runs:
        at = [run.measured_s], [run.predicted_s]
        (point,) = axes.plot(*at, color=colour, marker=marker, linestyle="", markersize=4, markeredgewidth=0, alpha=0.8)
        error = 100 * (run.predicted_s / run.measured_s - 1.0)
        times = f"{seconds_text(run.predicted_s)} predicted, {seconds_text(run.measured_s)} measured"
        drawing.hover(point, f"{run.name}: {times}, {error:+.1f} %")


def _scale(axes: Axes) -> None:
    axes.set(xscale="log", yscale="log", xlabel="measured iteration time [s]", ylabel="predicted iteration time [s]")
    for axis in (axes.xaxis, axes.yaxis):
        log_ticks(axis, StrMethodFormatter("{x:g}"), most=12)
    axes.set_aspect("equal", anchor="W")


@styled
def operators_figure(comparison: StepComparison) -> Drawing:
    """The operators that make up most of a step, the longest on top: predicted and measured bars side by side."""
    pairs, step = comparison.largest(DRAWN)[:MOST_BARS], comparison.step
    name = shortened(comparison.record.name, NAME, TEXT)
    drawing = Drawing(
        title=f"The operators of a step, predicted and measured ({100 * (step.error or 0.0):+.1f} %)",
        subtitle=f"{name}: step of {seconds_text(step.predicted)} predicted, {seconds_text(step.measured)} measured",
        plot_height=ROW_HEIGHT * max(len(pairs), 1) + 40.0,
        description="; ".join(_told(pair) for pair in pairs[:3]),
    )
    axes = drawing.subplots()
    for row, pair in enumerate(pairs):
        for shift, seconds, colour, word in (
            (-0.2, pair.predicted, PREDICTED, "predicted"),
            (0.2, pair.measured, MEASURED, "measured"),
        ):
            (patch,) = axes.barh(row + shift, 1e3 * seconds, 0.38, color=colour, linewidth=0, zorder=2)
            drawing.hover(patch, f"{_label(pair)}: {seconds_text(seconds)} {word}")
        longest = 1e3 * max(pair.predicted, pair.measured)
        error = f"{100 * (pair.error or 0.0):+.0f} %"
        axes.annotate(error, (longest, row), (4, 0), textcoords="offset points", va="center", fontsize=TEXT)
    axes.set_yticks(range(len(pairs)), [shortened(_label(pair), LABEL_ROOM, TEXT) for pair in pairs])
    axes.set_ylim(max(len(pairs), 1) - 0.4, -0.6)
    axes.set_xlim(0.0, 1.12 * axes.get_xlim()[1])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    grid(axes, "x")
    axes.set_xlabel("time of an iteration [ms]")
    looks = ((PREDICTED, "predicted"), (MEASURED, "measured"))
    drawing.key([(Rectangle((0, 0), 1, 1, facecolor=colour, linewidth=0), label) for colour, label in looks])
    share = f"operators that make up {100 * DRAWN:.0f} % of the step" if len(pairs) < MOST_BARS else f"the {MOST_BARS} longest"
    drawing.source_line(f"perfmodel {__version__}; {share}, each with the error of its prediction")
    return drawing


def _label(pair: ComparedOperator) -> str:
    """layer.mlp.fc1 (wgrad)"""
    return f"{pair.name} ({phase_text(pair.phase)})"


def _told(pair: ComparedOperator) -> str:
    return f"{_label(pair)} {seconds_text(pair.predicted)} predicted, {seconds_text(pair.measured)} measured"
