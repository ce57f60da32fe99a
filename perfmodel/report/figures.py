"""How predictions look as pictures (needs the extra `report`; nothing that predicts imports this)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

if TYPE_CHECKING:
    from matplotlib.axes import Axes

from perfmodel.evidence.validate import Comparison

# Okabe and Ito's colours, told apart by people with any colour vision; black is left to axes and text
COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X")
BAND: Final = 0.1


def accuracy_figure(comparisons: Sequence[Comparison]) -> Figure:
    """Predicted against measured iteration times, log-log, a colour for each stack, GPU and precision; with a 10 % band."""
    groups: dict[str, list[tuple[float, float]]] = {}
    for each in comparisons:
        if each.predicted_s is not None:
            labels = each.measured.labels
            name = f"{labels['stack']}, {labels['gpu']}, {labels['precision']}"
            groups.setdefault(name, []).append((each.measured.iteration_time_s, each.predicted_s))
    figure = Figure(figsize=(6.0, 6.0), layout="constrained")
    axes = figure.subplots()
    for index, (name, points) in enumerate(sorted(groups.items())):
        measured, predicted = zip(*points, strict=True)
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[(index + index // len(COLOURS)) % len(MARKERS)]
        label = f"{name} ({len(points)})"
        axes.scatter(measured, predicted, s=22, alpha=0.75, linewidths=0, label=label, color=colour, marker=marker)
    _draw_band(axes, [value for points in groups.values() for point in points for value in point])
    axes.set(xscale="log", yscale="log", xlabel="measured iteration time [s]", ylabel="predicted iteration time [s]")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.set_aspect("equal")
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_band(axes: Axes, values: Sequence[float]) -> None:
    ends = np.array([min(values) / 1.2, max(values) * 1.2])
    axes.plot(ends, ends, color="0.35", linewidth=0.8)
    axes.fill_between(ends, ends * (1 - BAND), ends * (1 + BAND), color="0.88", linewidth=0, label="within 10 %", zorder=0)
    axes.set_xlim(*ends)
    axes.set_ylim(*ends)
