"""The one quiet style of all figures: a title and a key on top, axes with units, the source at the bottom.

A Drawing is laid out from the top down in points: title, subtitle, key, plots, source. Text is drawn as it is written (report/
lettering.py) in colours of palette.py. `picture` makes a file of it, `svg_text` a part of a page.

A drawing is narrow, so that it can be read on a telephone: shown NARROW pixels wide, no letter is smaller than LEAST_LETTERS
pixels (tests/report/figures/test_figure_layout.py). What would be crowded side by side stands one above the other.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import wraps
from math import ceil, floor, log10
from typing import Any, Final, Literal, ParamSpec, TypeVar

from matplotlib import rcParams
from matplotlib import style as matplotlib_style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.legend import Legend
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, Formatter, LogLocator, MaxNLocator, NullLocator

from perfmodel.report.figures.drawing.lettering import families, lines_of, literal, shortened, strange_letters, text_width
from perfmodel.report.figures.drawing.palette import GRID, INK, LIGHT_PAGE, MUTED
from perfmodel.report.figures.drawing.svg import fragment

POINTS: Final = 72.0  # of an inch
DOTS_PER_INCH: Final = 200
WIDTH: Final = 360.0  # points
NARROW, LEAST_LETTERS = 400.0, 9.0  # pixels: of a figure on a telephone, and of its smallest letters there
EDGE: Final = 8.0
TITLE, TEXT, SMALL = 11.0, 9.0, 8.25  # sizes of letters
ROW: Final = 13.5  # from line to line of the key
MOST_LINES: Final = 2  # of a title and a subtitle
MOST_OF_SOURCE: Final = 3  # lines of a source
HANDLE, HANDLE_GAP, COLUMN_GAP = 1.4, 0.5, 1.6  # of the key, in letters
THIN: Final = 0.8
MOST_TICKS, LEAST_TICKS = 6, 3  # of a logarithmic axis

RULES: Final[dict[str, Any]] = {
    "font.size": TEXT,
    "axes.titlesize": TEXT,
    "axes.labelsize": TEXT,
    "xtick.labelsize": TEXT,
    "ytick.labelsize": TEXT,
    "legend.fontsize": TEXT,
    "legend.frameon": False,
    "text.color": INK,
    "text.parse_math": False,
    "text.usetex": False,
    "axes.titlelocation": "left",
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.linewidth": THIN,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": GRID,
    "grid.linewidth": THIN,
    "hatch.linewidth": THIN,
    "lines.linewidth": 1.4,
    "figure.facecolor": LIGHT_PAGE,
    "savefig.facecolor": LIGHT_PAGE,
    "svg.hashsalt": "perfmodel",
}
P = ParamSpec("P")
R = TypeVar("R")


@contextmanager
def _look(**rules: Any) -> Iterator[None]:
    """This style, whatever the settings of the user's matplotlib are."""
    with matplotlib_style.context(["default", RULES | {"font.family": list(families())} | rules]), strange_letters():
        yield


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """A function that draws, in this style."""

    @wraps(draw)
    def drawn(*arguments: P.args, **named: P.kwargs) -> R:
        with _look():
            return draw(*arguments, **named)

    return drawn


class Drawing(Figure):
    """A figure whose height follows from its plots, title and key; what `description` and `hover` say is for pages."""

    def __init__(
        self, *, title: str, plot_height: float, subtitle: str = "", description: str = "", width: float = WIDTH
    ) -> None:
        """`plot_height` and `width` are points."""
        super().__init__(figsize=(width / POINTS, plot_height / POINTS))
        self.heading, self.description = literal(title), literal(description)
        self.hover_texts: dict[str, str] = {}
        self.note = ""
        self._plot_height, self._width = plot_height, width
        self._top: list[tuple[float, Text]] = []  # how far below the upper edge
        self._bottom: list[tuple[float, Text]] = []  # how far above the lower one
        self._foot = 0.0
        self._key: Legend | None = None
        self._key_height = 0.0
        self._write(title, subtitle)
        self._arrange()

    @property
    def room(self) -> float:
        """The width between the edges [points]."""
        return self._width - 2 * EDGE

    def _write(self, title: str, subtitle: str) -> None:
        below = EDGE
        for line in lines_of(title, self.room, TITLE, most=MOST_LINES, bold=True):
            self._top.append((below, self.text(0, 0, line, va="top", fontsize=TITLE, fontweight="bold")))
            below += TITLE * 1.3
        for line in lines_of(subtitle, self.room, TEXT, most=MOST_LINES) if subtitle else ():
            self._top.append((below, self.text(0, 0, line, va="top", fontsize=TEXT, color=MUTED)))
            below += TEXT * 1.35
        self._head = below

    def key(self, entries: Sequence[tuple[Artist, str]]) -> None:
        """What the looks of bars, lines and points mean, above the plots: read along the rows."""
        labels = [shortened(label, self.room - 2.0 * HANDLE * TEXT, TEXT) for _, label in entries]
        columns = _columns([text_width(label, TEXT) for label in labels], self.room)
        order = [place for column in range(columns) for place in range(column, len(entries), columns)]
        # matplotlib leaves out labels that begin with _, unless something invisible stands before
        labels = [f"\u200b{label}" if label.startswith("_") else label for label in labels]
        self._key = self.legend(
            [entries[place][0] for place in order],
            [labels[place] for place in order],
            loc="upper left",
            borderpad=0,
            borderaxespad=0,
            ncols=columns,
            labelspacing=ROW / TEXT - 1.0,
            handlelength=HANDLE,
            handletextpad=HANDLE_GAP,
            columnspacing=COLUMN_GAP,
            handleheight=0.8,
        )
        self._key.set_in_layout(False)
        self._key_height = ROW * -(-len(entries) // columns) + 4.0
        self._arrange()

    def source_line(self, source: str, note: str = "") -> None:
        """Where the numbers come from, at the bottom, and behind it how the figure is to be read."""
        self.note = literal(note)
        lines = lines_of(f"{source}; {note}" if note else source, self.room, SMALL, most=MOST_OF_SOURCE)
        for place, line in enumerate(reversed(lines)):
            written = self.text(0, 0, line, va="bottom", fontsize=SMALL, color=MUTED)
            self._bottom.append((0.5 * EDGE + place * SMALL * 1.35, written))
        self._arrange()

    @contextmanager
    def bare(self) -> Iterator[tuple[float, float]]:
        """Without title and source, which a page writes around it; the heights it is drawn between [points from above]."""
        words = [text for _, text in (*self._top, *self._bottom)]
        for text in words:
            text.set_visible(False)
        try:
            yield self._head - 1.0, POINTS * self.get_size_inches()[1] - self._foot + 1.0
        finally:
            for text in words:
                text.set_visible(True)

    def hover(self, artist: Artist, text: str) -> None:
        """What a page shows of a bar or a point under the pointer."""
        name = f"hover-{len(self.hover_texts)}"
        artist.set_gid(name)
        self.hover_texts[name] = literal(text)

    def settle(self) -> None:
        """Give every panel its place, once: what is drawn after that moves nothing.

        The solver of the layout goes through its constraints in an order that differs from time to time, and so do the last
        bits of places: they are rounded, so that the same numbers give the same bytes.
        """
        engine = self.get_layout_engine()
        if engine is not None and self.axes:
            engine.execute(self)
            for axes in self.axes:
                place = axes.get_position(original=True)
                axes.set_position((round(place.x0, 6), round(place.y0, 6), round(place.width, 6), round(place.height, 6)))
        self.set_layout_engine(None)

    def draw(self, renderer: RendererBase) -> None:
        """Draw it in this style, also where a notebook or a window asks for it."""
        if rcParams["svg.hashsalt"] == RULES["svg.hashsalt"]:
            super().draw(renderer)
            return
        with _look():
            self.settle()
            super().draw(renderer)

    def _arrange(self) -> None:
        """Everything at its height, and the plots between."""
        head = self._head + self._key_height
        self._foot = foot = 0.5 * EDGE + SMALL * 1.35 * len(self._bottom)
        height = head + self._plot_height + foot
        self.set_size_inches(self._width / POINTS, height / POINTS)
        for below, text in self._top:
            text.set_position((EDGE / self._width, 1.0 - below / height))
        for above, text in self._bottom:
            text.set_position((EDGE / self._width, above / height))
        if self._key is not None:
            self._key.set_bbox_to_anchor((EDGE / self._width, 1.0 - (self._head + 3.0) / height), self.transFigure)
        side = 0.5 * EDGE / self._width
        self.set_layout_engine(ConstrainedLayoutEngine(rect=(side, foot / height, 1.0 - 2 * side, self._plot_height / height)))


def _columns(widths: Sequence[float], room: float) -> int:
    """The most columns that entries with texts of these widths have room for, filled row by row."""
    beside = (HANDLE + HANDLE_GAP + COLUMN_GAP) * TEXT
    for columns in range(len(widths), 1, -1):
        if sum(max(widths[column::columns]) + beside for column in range(columns)) <= room:
            return columns
    return 1


def grid(axes: Axes, direction: Literal["x", "y", "both"]) -> None:
    """Lines to read values by."""
    axes.grid(visible=True, axis=direction)
    axes.tick_params(axis=direction, length=0)


def log_ticks(axis: Axis, formatter: Formatter, *, most: int = MOST_TICKS, least: int = LEAST_TICKS) -> None:
    """Ticks of a logarithmic axis that a reader can name: 1, 2, 5 of each decade, or round values where these are too few."""
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(formatter)
    low, high = sorted(axis.get_view_interval())
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        exponents = range(floor(log10(low)), ceil(log10(high)) + 1)
        ticks = [step * 10.0**exponent for exponent in exponents for step in steps if low <= step * 10.0**exponent <= high]
        if least <= len(ticks) <= most:
            axis.set_major_locator(FixedLocator(ticks))
            return
    if high / low < 10:  # less than a decade: as on a linear axis
        axis.set_major_locator(
            FixedLocator([tick for tick in MaxNLocator(least + 1).tick_values(low, high) if low <= tick <= high])
        )
    else:
        axis.set_major_locator(LogLocator(subs=(1,), numticks=most))


def picture(figure: Drawing, kind: str) -> bytes:
    """A figure as the content of a file of a kind (png, svg); the same figure gives the same bytes."""
    content = io.BytesIO()
    undated = {"Software": None} if kind == "png" else {"Date": None}
    with _look():
        figure.settle()
        figure.savefig(content, format=kind, dpi=DOTS_PER_INCH, metadata=undated)
    return content.getvalue()


def svg_text(figure: Drawing, name: str = "", *, bare: bool = False) -> str:
    """A figure as an element of a page: text stays text, colours of text and grid are those of the page around it.

    `name` begins its ids; a page that shows the same figure twice needs two. Of a `bare` one the page writes title and source.
    """
    content = io.StringIO()
    with _look(**{"svg.fonttype": "none"}), figure.bare() if bare else nullcontext() as heights:
        figure.settle()
        figure.savefig(content, format="svg", transparent=True, metadata={"Date": None})
    return fragment(
        content.getvalue(),
        title=figure.heading,
        description=figure.description,
        hover=figure.hover_texts,
        name=name,
        heights=heights,
    )
