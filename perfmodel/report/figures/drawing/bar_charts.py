"""Stacked horizontal bars: each part in its own colour, its number in it where there is room, the total behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import StrMethodFormatter

from perfmodel.light_dataclass import dataclass
from perfmodel.report.figures.drawing.lettering import shortened, text_width
from perfmodel.report.figures.drawing.palette import INK, PAPER, text_on
from perfmodel.report.figures.drawing.style import SMALL, TEXT, Drawing, grid

THICK: Final = 0.72  # of a row
ROW_HEIGHT: Final = 25.0  # points
TALL_ROW: Final = 33.0  # with its label above
THIN: Final = 0.45  # of such a row
ABOVE: Final = 0.4  # of such a row: the middle of the label over that of the bar
BESIDE: Final = 46.0  # what an axis with its label needs beside the rows
LABEL_ROOM: Final = 125.0  # points of the label of a row
SEAM: Final = 0.7
LEAST: Final = 3.0  # points left and right of a number in a bar


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One part of a bar."""

    label: str
    value: float
    colour: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One row: its label, its parts from the left, what is written behind it, and its interval where it has one."""

    label: str
    segments: tuple[Segment, ...]
    end: str = ""
    interval: tuple[float, float] | None = None

    @property
    def total(self) -> float:
        """The sum of its parts."""
        return sum(segment.value for segment in self.segments)

    @property
    def reach(self) -> float:
        """As far as it or its interval goes."""
        return max(self.total, self.interval[1] if self.interval else 0.0)


def bars_height(bars: Sequence[Bar], *, is_tall: bool = False) -> float:
    """Points of the plot of so many rows; `is_tall` ones have their labels above."""
    return (TALL_ROW if is_tall else ROW_HEIGHT) * len(bars) + BESIDE


def number_text(value: float) -> str:
    """Three digits, or all before the point.

    >>> number_text(1234.5), number_text(62.84), number_text(0.01234)
    ('1,234', '62.8', '0.0123')
    """
    return f"{value:,.0f}" if abs(value) >= 100.0 else f"{value:.3g}"


def stacked_bars(
    drawing: Drawing, axes: Axes, bars: Sequence[Bar], *, unit: str, furthest: float = 0.0, is_tall: bool = False
) -> None:
    """The bars from the top down, in their `unit`; `furthest` is a value that must be in view.

    Labels stand left of the bars, or above those that are tall.
    """
    room = drawing.room - (10.0 if is_tall else label_width(bars))
    thick = THIN if is_tall else THICK
    behind = max(text_width(bar.end, TEXT) for bar in bars) + 10.0
    point = max([furthest, *(bar.reach for bar in bars)]) / max(room - behind, 1.0) or 1.0  # of the axis, in values
    for row, bar in enumerate(bars):
        left = 0.0
        for segment in bar.segments:
            _segment(drawing, axes, segment, (left, row), bar=bar, unit=unit, point=point, thick=thick)
            left += segment.value
        if bar.interval:
            axes.plot(bar.interval, [row, row], color=INK, linewidth=1.2, marker="|", markersize=7, zorder=4)
        if bar.end:
            axes.annotate(bar.end, (bar.reach, row), (5, 0), textcoords="offset points", va="center", fontsize=TEXT)
    if is_tall:
        for row, bar in enumerate(bars):
            label = shortened(bar.label, room, TEXT)
            axes.text(0.0, row - ABOVE, label, transform=axes.get_yaxis_transform(), va="center", fontsize=TEXT)
    names = [] if is_tall else [shortened(bar.label, LABEL_ROOM, TEXT) for bar in bars]
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(bars) - (0.7 if is_tall else 0.5), -0.7 if is_tall else -0.5)
    axes.set_xlim(0.0, point * room)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    grid(axes, "x")


def label_width(bars: Sequence[Bar]) -> float:
    """What the labels of the rows take beside the plot [points]."""
    return max(text_width(shortened(bar.label, LABEL_ROOM, TEXT), TEXT) for bar in bars) + 18.0


def _segment(
    drawing: Drawing, axes: Axes, segment: Segment, at: tuple[float, int], *, bar: Bar, unit: str, point: float, thick: float
) -> None:
    left, row = at
    seam = SEAM if segment.value > 4.0 * SEAM * point else 0.0
    (patch,) = axes.barh(row, segment.value, thick, left, color=segment.colour, edgecolor=PAPER, linewidth=seam, zorder=2)
    number = number_text(segment.value)
    drawing.hover(patch, f"{bar.label}, {segment.label}: {number} {unit}")
    is_told = len(bar.segments) == 1 and bool(bar.end)
    if not is_told and text_width(number, SMALL) + 2 * LEAST <= segment.value / point:
        middle, colour = left + segment.value / 2.0, text_on(segment.colour)
        behind = {"facecolor": segment.colour, "edgecolor": "none", "pad": 0.8}  # above a hatch, too
        axes.text(
            *(middle, row, number), ha="center", va="center_baseline", fontsize=SMALL, color=colour, zorder=5, bbox=behind
        )


def patches(bars: Sequence[Bar]) -> list[tuple[Patch, str]]:
    """The entries of a key: every part that any bar has, in their order."""
    colours = {segment.label: segment.colour for bar in bars for segment in bar.segments if segment.value}
    return [(Rectangle((0, 0), 1, 1, facecolor=colour, linewidth=0), label) for label, colour in colours.items()]
