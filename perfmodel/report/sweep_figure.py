"""How a sweep looks as a picture: a scaling curve, an axis of values, or a map of two (needs the extra `report`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import EngFormatter, FixedLocator, NullFormatter, NullLocator, StrMethodFormatter

if TYPE_CHECKING:
    from matplotlib.axes import Axes

from perfmodel.errors import InputError
from perfmodel.planning.scaling import Scaling
from perfmodel.planning.sweep import Sweep, SweptPoint
from perfmodel.report.figures import COLOURS, MARKERS, picture
from perfmodel.report.sweep_tables import heading, scaling_title

__all__ = ["picture", "sweep_figure"]

GROWING: Final = ("gpus", "data_parallel", "run")  # axes that are asked for to see how speed grows
MOST_CELLS: Final = 400  # with a number in each
REFUSED: Final = "0.85"
HATCH: Final = "////"
LUMINANCE: Final = (0.2126, 0.7152, 0.0722)  # of red, green and blue (ITU-R BT.709)


def sweep_figure(result: Sweep) -> Figure:
    """The scaling curve where GPUs grow, a map of the MFU for two other axes, times and MFU along a single one.

    Errors: InputError when there is nothing to draw.
    """
    if not any(point.numbers for point in result.points):
        raise InputError("every point is refused: there is nothing to draw")
    curve = result.scaling
    if curve is not None and (len(result.axes) == 1 or result.axes[curve.axis].key in GROWING):
        return _scaling_figure(result, curve)
    return _map_figure(result) if len(result.axes) > 1 else _axis_figure(result)


def _titled(result: Sweep, axes: Axes, title: str) -> None:
    stage = f", stage {result.stage} of {result.stages}" if result.stages > 1 and result.axes[0].key != "run" else ""
    axes.set_title(f"{result.name}{stage}\n{title}", fontsize=10, loc="left")


def _scaling_figure(result: Sweep, curve: Scaling) -> Figure:
    """Tokens/s against GPUs with their interval and the ideal, and the efficiency below."""
    figure = Figure(figsize=(6.4, 6.4), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    for index, (name, places) in enumerate(curve.series.items()):
        points = sorted((result.points[place].numbers for place in places), key=lambda numbers: numbers["gpus"])
        gpus, rate = (np.array([numbers[key] for numbers in points], dtype=float) for key in ("gpus", "tokens_per_s"))
        time, low, high = (np.array([numbers[f"iteration_time{end}_s"] for numbers in points]) for end in ("", "_low", "_high"))
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        upper.fill_between(gpus, rate * time / high, rate * time / low, color=colour, alpha=0.15, linewidth=0)
        upper.plot(gpus, rate[0] * gpus / gpus[0], color=colour, linewidth=0.8, linestyle="--")
        upper.plot(gpus, rate, color=colour, marker=marker, markersize=4, label=name or "predicted, with its 90 % interval")
        efficiency = 100 * (rate / rate[0]) / (gpus / gpus[0])
        lower.plot(gpus, efficiency, color=colour, marker=marker, markersize=4)
    upper.plot([], [], color="0.35", linewidth=0.8, linestyle="--", label="ideal")
    lower.axhline(100, color="0.35", linewidth=0.8, linestyle="--")
    upper.set(xscale="log", yscale="log", ylabel="tokens/s")
    upper.yaxis.set_major_formatter(EngFormatter(sep=""))
    upper.yaxis.set_minor_formatter(NullFormatter())
    lower.set(xlabel="GPUs", ylabel="efficiency [%]")
    lower.set_ylim(0, max(105.0, lower.get_ylim()[1]))
    _ticks(lower, sorted({float(point.numbers["gpus"]) for point in result.points if point.fits}))
    upper.legend(frameon=False, fontsize=8, loc="upper left")
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
    _titled(result, upper, scaling_title(result, curve))
    return figure


def _ticks(axes: Axes, places: Sequence[float], *, most: int = 10) -> None:
    """A tick at every point, or at evenly chosen ones of many."""
    step = -(-len(places) // most)
    axes.xaxis.set_major_locator(FixedLocator(places[::step]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))


def _axis_figure(result: Sweep) -> Figure:
    """Iteration times with their intervals, and the MFU, at each value of the only axis; hollow where it does not fit."""
    figure = Figure(figsize=(6.4, 5.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    for place, point in enumerate(result.points):
        if not point.numbers:
            upper.annotate("refused", (place, 0), (0, 4), textcoords="offset points", ha="center", fontsize=8, color="0.35")
            continue
        seconds = point.numbers["iteration_time_s"]
        ends = [[seconds - point.numbers["iteration_time_low_s"]], [point.numbers["iteration_time_high_s"] - seconds]]
        face = COLOURS[0] if point.fits else "white"
        style: dict[str, Any] = {"color": COLOURS[0], "marker": "o", "markerfacecolor": face, "linestyle": ""}
        upper.errorbar([place], [seconds], yerr=ends, capsize=3, **style)
        lower.plot([place], [100 * point.numbers["mfu"]], **style)
    upper.set_ylabel("iteration time [s]")
    lower.set(ylabel="MFU [%]", xlabel=heading(result.axes[0].key))
    for axes in (upper, lower):
        axes.set_ylim(0, None)
        axes.spines[["top", "right"]].set_visible(False)
    labels = result.axes[0].labels
    step = -(-len(labels) // 12)
    lower.set_xticks(range(0, len(labels), step), labels[::step])
    lower.set_xlim(-0.5, len(labels) - 0.5)
    is_hollow = any(point.numbers and not point.fits for point in result.points)
    _titled(result, upper, f"with 90 % intervals{'; hollow: does not fit' if is_hollow else ''}")
    return figure


def _map_figure(result: Sweep) -> Figure:
    """The MFU of two axes: hatched where it does not fit, grey where it is refused."""
    down, across = result.axes
    points = [result.points[at : at + len(across.labels)] for at in range(0, len(result.points), len(across.labels))]
    mfu = np.array([[100 * point.numbers["mfu"] if point.numbers else np.nan for point in row] for row in points])
    width, height = (max(4, len(axis.labels)) for axis in (across, down))
    figure = Figure(figsize=(2.2 + 0.75 * width, 1.8 + 0.45 * height), layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor(REFUSED)
    image = axes.pcolormesh(mfu, cmap="viridis", edgecolors="white", linewidth=1)
    for row, column in np.ndindex(mfu.shape):
        if points[row][column].numbers:
            colour = image.to_rgba(mfu[row, column])
            _cell(axes, points[row][column], row, column, colour=colour, is_numbered=mfu.size <= MOST_CELLS)
    axes.set_xticks(np.arange(len(across.labels)) + 0.5, across.labels)
    axes.set_yticks(np.arange(len(down.labels)) + 0.5, down.labels)
    axes.invert_yaxis()
    axes.set(xlabel=heading(across.key), ylabel=heading(down.key))
    axes.tick_params(length=0)
    figure.colorbar(image, label="MFU [%]")
    if handles := _meanings(result):
        figure.legend(handles=handles, frameon=False, fontsize=8, ncols=2, loc="outside lower left")
    _titled(result, axes, "MFU, in %")
    return figure


def _meanings(result: Sweep) -> list[Patch]:
    """What the looks of cells mean that are there."""
    is_hatched = any(point.numbers and not point.fits for point in result.points)
    is_refused = any(not point.numbers for point in result.points)
    hatched = [Patch(facecolor="white", edgecolor="black", hatch=HATCH, label="does not fit")] if is_hatched else []
    return hatched + ([Patch(color=REFUSED, label="refused")] if is_refused else [])


def _cell(axes: Axes, point: SweptPoint, row: int, column: int, *, colour: Any, is_numbered: bool) -> None:
    """Its hatch where it does not fit, and its number."""
    ink = "black" if np.dot(colour[:3], LUMINANCE) > 0.5 else "white"
    if not point.fits:
        axes.add_patch(Rectangle((column, row), 1, 1, facecolor="none", edgecolor=ink, linewidth=0.0, hatch=HATCH))
    if is_numbered:
        text, behind = f"{100 * point.numbers['mfu']:.1f}", {"facecolor": colour, "edgecolor": "none", "pad": 1.5}
        axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=8, color=ink, bbox=behind)
