"""How predictions look as pictures (needs the extra `report`; nothing that predicts imports this)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

if TYPE_CHECKING:
    from matplotlib.axes import Axes

from perfmodel.errors import InputError
from perfmodel.evidence.step_comparison import StepComparison
from perfmodel.evidence.validate import Comparison

# Okabe and Ito's colours, told apart by people with any colour vision; black is left to axes and text
COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X")
BAND: Final = 0.1
DOTS_PER_INCH: Final = 120
DRAWN: Final = 0.95  # of the step: the operators that are drawn
MOST_BARS: Final = 24
MARGIN: Final = 1.25  # from the outermost points to the ends of the axes


def picture(figure: Figure, kind: str) -> bytes:
    """A figure as the content of a file of a kind (png, svg); the same figure gives the same bytes."""
    content = io.BytesIO()
    undated = {"Software": None} if kind == "png" else {"Date": None}
    with rc_context({"svg.hashsalt": "perfmodel"}):
        figure.savefig(content, format=kind, dpi=DOTS_PER_INCH, metadata=undated)
    return content.getvalue()


def accuracy_figure(comparisons: Sequence[Comparison]) -> Figure:
    """Predicted against measured iteration times, log-log, a colour for each stack, with a 10 % band.

    Errors: InputError when no row is predicted.
    """
    stacks: dict[str, list[tuple[float, float]]] = {}
    for each in comparisons:
        if each.predicted_s is not None:
            name = each.measured.labels.get("stack", "") or "(not stated)"
            stacks.setdefault(name, []).append((each.measured.iteration_time_s, each.predicted_s))
    if not stacks:
        raise InputError("no row is predicted: there is nothing to draw")
    figure = Figure(figsize=(6.0, 6.0), layout="constrained")
    axes = figure.subplots()
    _draw_band(axes, [value for points in stacks.values() for point in points for value in point])
    most_first = sorted(stacks.items(), key=lambda entry: (-len(entry[1]), entry[0]))  # few points lie above many
    for index, (name, points) in enumerate(most_first):
        measured, predicted = zip(*points, strict=True)
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[(index + index // len(COLOURS)) % len(MARKERS)]
        label = f"{name} ({len(points)})"
        axes.scatter(measured, predicted, s=16, alpha=0.7, linewidths=0, label=label, color=colour, marker=marker)
    _name_axes(axes)
    return figure


def _draw_band(axes: Axes, values: Sequence[float]) -> None:
    ends = np.array([min(values) / MARGIN, max(values) * MARGIN])
    axes.plot(ends, ends, color="0.35", linewidth=0.8, zorder=0.5)
    axes.fill_between(ends, ends * (1 - BAND), ends * (1 + BAND), color="0.88", linewidth=0, label="within 10 %", zorder=0)
    axes.set_xlim(*ends)
    axes.set_ylim(*ends)


def _name_axes(axes: Axes, title: str = "stack (runs)") -> None:
    axes.set(xscale="log", yscale="log", xlabel="measured iteration time [s]", ylabel="predicted iteration time [s]")
    for axis in (axes.xaxis, axes.yaxis):
        low, high = axis.get_view_interval()
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 300 else (1,)))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.set_aspect("equal")
    band, *stacks = axes.get_legend_handles_labels()[0]
    axes.legend(
        handles=[*stacks, band],
        frameon=False,
        fontsize=8,
        loc="upper left",
        title=title,
        title_fontsize=8,
        alignment="left",
    )
    axes.spines[["top", "right"]].set_visible(False)


def operators_figure(comparison: StepComparison) -> Figure:
    """The operators that make up most of a step, the longest on top: predicted and measured bars side by side."""
    pairs = comparison.largest(DRAWN)[:MOST_BARS]
    figure = Figure(figsize=(8.0, 1.6 + 0.36 * len(pairs)), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(pairs))[::-1].astype(float)
    for shift, name, colour in ((0.2, "predicted", COLOURS[0]), (-0.2, "measured", COLOURS[1])):
        axes.barh(places + shift, [1e3 * getattr(pair, name) for pair in pairs], height=0.38, color=colour, label=name)
    for place, pair in zip(places, pairs, strict=True):
        longest = 1e3 * max(pair.predicted, pair.measured)
        axes.annotate(
            f"{100 * (pair.error or 0.0):+.0f} %", (longest, place), (4, 0), textcoords="offset points", va="center", fontsize=8
        )
    phases = {"data_gradient": "dgrad", "weight_gradient": "wgrad"}
    axes.set_yticks(places, [f"{pair.name} ({phases.get(pair.phase, pair.phase)})" for pair in pairs], fontsize=8)
    axes.margins(x=0.1)
    axes.set_ylim(-0.7, len(pairs) - 0.3)
    axes.set_xlabel("time of an iteration [ms]")
    step = comparison.step
    title = f"{comparison.record.name}: {1e3 * step.predicted:.0f} ms predicted, {1e3 * step.measured:.0f} ms measured"
    axes.set_title(title, fontsize=10, loc="left")
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def steps_figure(comparisons: Sequence[StepComparison]) -> Figure:
    """Predicted against measured steps, log-log, a colour for each number of bits and a marker for each model."""
    figure = Figure(figsize=(6.0, 6.0), layout="constrained")
    axes = figure.subplots()
    _draw_band(axes, [value for each in comparisons for value in (each.step.measured, each.step.predicted)])
    groups: dict[str, list[StepComparison]] = {}
    for each in comparisons:
        settings = each.record.settings
        groups.setdefault(f"{settings['model']['name']}, {settings['layout']['precision']}", []).append(each)
    for index, (name, members) in enumerate(sorted(groups.items())):
        axes.scatter(
            [each.step.measured for each in members],
            [each.step.predicted for each in members],
            s=24,
            alpha=0.8,
            linewidths=0,
            label=f"{name} ({len(members)})",
            color=COLOURS[index % len(COLOURS)],
            marker=MARKERS[index % len(MARKERS)],
        )
    _name_axes(axes, "model and precision (runs)")
    return figure
