"""How a sweep looks as a picture: a scaling curve, an axis of values, or a map of two (needs the extra `report`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FixedLocator, NullLocator, StrMethodFormatter

from perfmodel import __version__
from perfmodel.errors import InputError
from perfmodel.report.figures.drawing.captions import NAME, axis_name
from perfmodel.report.figures.drawing.cells import Cell, CellGrid, draw_grid, meanings
from perfmodel.report.figures.drawing.lettering import shortened, text_width
from perfmodel.report.figures.drawing.palette import BLUE, INK, LINES, MARKERS, MUTED, PAPER
from perfmodel.report.figures.drawing.style import SMALL, TEXT, Drawing, grid, log_ticks, picture, styled
from perfmodel.report.text.sweep import point_name, scaling_title
from perfmodel.spec.axes import FILLING
from perfmodel.units import gibibytes_text, seconds_text
from perfmodel.variation.scaling_curve import PointNumbers, ScalingCurve
from perfmodel.variation.sweep import Sweep, SweptPoint

__all__ = ["picture", "sweep_figure"]

GROWING: Final = ("gpus", FILLING.name, "run")  # axes that are asked for to see how speed grows
TALL, SHORT = 190.0, 110.0  # points of a panel
LABEL: Final = 150.0  # points of the name of an axis
MOST_TOLD: Final = 8  # points in a description
DASHED: Final[Any] = (0, (4, 2))
INTERVAL: Final = 0.3  # how dark the band of an interval is


@styled
def sweep_figure(result: Sweep, *, source: str = "", here: int | None = None) -> Drawing:
    """The scaling curve where GPUs grow, a map of the MFU for two other axes, times and MFU along a single one.

    `source` stands at the bottom in place of what was swept; on a curve, the point of `here` GPUs is marked as the run itself.
    Errors: InputError when there is nothing to draw.
    """
    if not any(point.numbers for point in result.points):
        raise InputError("every point is refused: there is nothing to draw")
    curve = result.scaling
    if curve is not None and result.axes[curve.axis].key in GROWING:
        drawing = _scaling_figure(result, curve, here)
    else:
        drawing = _map_figure(result) if len(result.axes) > 1 else _axis_figure(result)
    models = dict.fromkeys(point.model for point in result.points if point.model)
    words = [shortened(", ".join(models), NAME, SMALL), *result.taken]
    drawing.source_line(source or f"perfmodel {__version__}: {', '.join(words)}")
    return drawing


def _caption(result: Sweep, more: str = "") -> str:
    """Which run and stage it is, and what is to be seen of it."""
    is_stage = result.stages > 1 and result.axes[0].key != "run"
    stage = f": stage {result.stage} of {result.stages}" if is_stage else ""
    return f"{shortened(result.name, NAME, TEXT)}{stage}{f'; {more}' if more else ''}"


def _scaling_figure(result: Sweep, curve: ScalingCurve, here: int | None) -> Drawing:
    """Tokens/s against GPUs with their interval and the ideal, and the efficiency below."""
    title, _, more = scaling_title(result, curve).partition(": ")
    drawing = Drawing(
        title=title, subtitle=_caption(result, more), plot_height=TALL + SHORT, description=_growth(result, curve)
    )
    upper, lower = drawing.subplots(2, 1, sharex=True, height_ratios=(TALL, SHORT))
    entries: list[tuple[Artist, str]] = []
    for index, (name, places) in enumerate(curve.series.items()):
        look = LINES[index % len(LINES)], MARKERS[index % len(MARKERS)]
        points = sorted((result.points[place].numbers for place in places), key=lambda numbers: numbers["gpus"])
        _series(drawing, (upper, lower), points, look)
        line = Line2D([], [], color=look[0], marker=look[1], markersize=4)
        entries.append((line, name or "predicted, with its 90 % interval"))
        for numbers in points if here is not None else ():
            if numbers["gpus"] == here:
                upper.plot([here], [numbers["tokens_per_s"]], marker="o", markersize=10, markerfacecolor="none", color=INK)
    if here is not None:
        entries.append((Line2D([], [], marker="o", markersize=8, markerfacecolor="none", color=INK, linestyle=""), "this run"))
    entries.append((Line2D([], [], color=MUTED, linewidth=1.0, linestyle=DASHED), "ideal"))
    lower.axhline(100.0, color=MUTED, linewidth=1.0, linestyle=DASHED)
    upper.set(xscale="log", yscale="log", ylabel="speed [tokens/s]")
    log_ticks(upper.yaxis, EngFormatter(sep=""))
    lower.set(xlabel="GPUs", ylabel="efficiency [%]")
    lower.set_ylim(0.0, max(105.0, lower.get_ylim()[1]))
    _ticks(lower, sorted({float(point.numbers["gpus"]) for point in result.points if point.fits}))
    for axes in (upper, lower):
        grid(axes, "y")
    drawing.key(entries)
    return drawing


def _growth(result: Sweep, curve: ScalingCurve) -> str:
    """The efficiency of the largest point of each series."""
    ends = {name: max(places, key=lambda place: result.points[place].numbers["gpus"]) for name, places in curve.series.items()}
    told = [
        f"{f'{name}: ' if name else ''}{100.0 * curve.efficiency[place]:.0f} % on {result.points[place].numbers['gpus']:,} GPUs"
        for name, place in ends.items()
    ]
    return f"Efficiency against the first point: {'; '.join(told)}"


def _series(drawing: Drawing, panels: tuple[Axes, Axes], points: Sequence[PointNumbers], look: tuple[str, str]) -> None:
    """One line in both panels, with a marker to point at for each number of GPUs."""
    (upper, lower), (colour, marker) = panels, look
    gpus, rate = (np.array([numbers[key] for numbers in points], dtype=float) for key in ("gpus", "tokens_per_s"))
    time, low, high = (np.array([numbers[f"iteration_time{end}_s"] for numbers in points]) for end in ("", "_low", "_high"))
    efficiency = 100.0 * (rate / rate[0]) / (gpus / gpus[0])
    upper.fill_between(gpus, rate * time / high, rate * time / low, color=colour, alpha=INTERVAL, linewidth=0)
    upper.plot(gpus, rate[0] * gpus / gpus[0], color=MUTED, linewidth=1.0, linestyle=DASHED)
    for axes, values in ((upper, rate), (lower, efficiency)):
        axes.plot(gpus, values, color=colour)
        for numbers, value, share in zip(points, values, efficiency, strict=True):
            (dot,) = axes.plot([numbers["gpus"]], [value], color=colour, marker=marker, markersize=4.5, linestyle="")
            speed = f"{numbers['tokens_per_s']:,.0f} tokens/s, efficiency {share:.0f} %"
            drawing.hover(dot, f"{numbers['gpus']:,} GPUs: {seconds_text(numbers['iteration_time_s'])} an iteration, {speed}")


def _ticks(axes: Axes, places: Sequence[float], *, most: int = 10) -> None:
    """A tick at every point, or at evenly chosen ones of many."""
    step = -(-len(places) // most)
    axes.xaxis.set_major_locator(FixedLocator(places[::step]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def _axis_figure(result: Sweep) -> Drawing:
    """Iteration times with their intervals, and the MFU, at each value of the only axis; hollow where it does not fit."""
    (axis,) = result.axes
    drawing = Drawing(
        title=f"Iteration time and MFU by {axis_name(axis.key).partition(' [')[0]}",
        subtitle=_caption(result),
        plot_height=2 * SHORT + 40.0,
        description="; ".join(_told(result, point) for point in result.points[:MOST_TOLD] if point.numbers),
    )
    upper, lower = drawing.subplots(2, 1, sharex=True)
    for place, point in enumerate(result.points):
        if not point.numbers:
            upper.annotate("refused", (place, 0), (0, 4), textcoords="offset points", ha="center", fontsize=SMALL, rotation=90)
            continue
        seconds, low, high = (point.numbers[f"iteration_time{end}_s"] for end in ("", "_low", "_high"))
        face = BLUE if point.fits else PAPER
        upper.plot([place, place], [low, high], color=BLUE)
        for axes, value in ((upper, seconds), (lower, 100.0 * point.numbers["mfu"])):
            (dot,) = axes.plot([place], [value], color=BLUE, marker="o", linestyle="", markerfacecolor=face)
            drawing.hover(dot, _told(result, point))
    upper.set_ylabel("iteration time [s]")
    lower.set(ylabel="MFU [%]", xlabel=shortened(axis_name(axis.key), 0.9 * drawing.room, TEXT))
    for axes in (upper, lower):
        axes.set_ylim(0.0, 1.05 * axes.get_ylim()[1])
        grid(axes, "y")
    labels = [shortened(label, max(0.8 * drawing.room / len(axis.labels), 60.0), TEXT) for label in axis.labels]
    step = -(-len(labels) // max(int(0.8 * drawing.room / (max(text_width(label, TEXT) for label in labels) + 6.0)), 1))
    lower.set_xticks(range(0, len(labels), step), labels[::step])
    lower.set_xlim(-0.5, len(labels) - 0.5)
    drawing.key(_axis_entries(result))
    return drawing


def _axis_entries(result: Sweep) -> list[tuple[Artist, str]]:
    entries: list[tuple[Artist, str]] = [(Line2D([], [], color=BLUE, marker="o"), "predicted, with its 90 % interval")]
    if any(point.numbers and not point.fits for point in result.points):
        hollow = Line2D([], [], color=BLUE, marker="o", linestyle="", markerfacecolor=PAPER)
        entries.append((hollow, "does not fit"))
    return entries


def _told(result: Sweep, point: SweptPoint) -> str:
    """What is said of a point."""
    numbers = point.numbers
    fits = "" if point.fits else ", does not fit"
    return (
        f"{point_name(result, point)}: MFU {100.0 * numbers['mfu']:.1f} %, {seconds_text(numbers['iteration_time_s'])} an "
        f"iteration, {gibibytes_text(numbers['memory_bytes'])}{fits}"
    )


def _map_figure(result: Sweep) -> Drawing:
    """The MFU of two axes: hatched where it does not fit, blank where it is refused."""
    down, across = result.axes
    cells = []
    for at, point in enumerate(result.points):
        row, column = divmod(at, len(across.labels))
        if point.numbers:
            mfu = 100.0 * point.numbers["mfu"]
            told = _told(result, point)
            cells.append(Cell(row=row, column=column, mfu=mfu, fits=point.fits, lines=(f"{mfu:.1f}",), hover=told))
    whole = CellGrid(
        row_name=shortened(axis_name(down.key), LABEL, TEXT),
        rows=down.labels,
        column_name=shortened(axis_name(across.key), LABEL, TEXT),
        columns=across.labels,
        cells=tuple(cells),
    )
    best = max(cells, key=lambda cell: (cell.fits, cell.mfu))
    rows, columns = (axis_name(axis.key).partition(" [")[0] for axis in result.axes)
    drawing = Drawing(
        title=f"MFU [%] by {rows} and {columns}",
        subtitle=_caption(result),
        plot_height=whole.plot_height,
        description=f"Highest: {best.hover}",
    )
    draw_grid(drawing, drawing.subplots(), whole)
    drawing.key(meanings(whole, is_whole=len(cells) == len(result.points)))
    return drawing
