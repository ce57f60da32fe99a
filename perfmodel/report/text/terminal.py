"""How text is laid out on a terminal: plain tables and lists that fit 80 columns, for all reports."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from perfmodel.light_dataclass import dataclass
from perfmodel.printable import printable
from perfmodel.spec.fields import Numeric
from perfmodel.units import typed_text

BAR: Final = 20  # characters of a whole bar
PIECES: Final = (r"\S*\s*", r"[^./]*[./]*", r"[^_-]*[_-]*")  # of a name: words, their parts if they are too long, and theirs


def as_text(content: RenderableType, *, width: int) -> str:
    """`content` as plain text of `width` columns, ASCII but for the letters of names."""
    written = io.StringIO()
    console = Console(
        file=written, width=width, no_color=True, markup=False, highlight=False, emoji=False, force_terminal=False
    )
    console.print(Seen(content))
    ruled = written.getvalue().replace("\u2500", "-")
    return "\n".join(line.rstrip() for line in ruled.splitlines()) + "\n"


def percent_text(ratio: Numeric) -> str:
    """A ratio with its sign."""
    return f"{100 * float(ratio):+.1f} %"


def plain_table(first: str = "") -> Table:
    """A table with a rule under its head and nothing else; `first` heads a column of labels."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 0, 0, 1))
    if first:
        table.add_column(first, no_wrap=True)
    return table


@dataclass(frozen=True, slots=True)
class Seen:
    """Something without what a terminal would obey in its texts: its styles alone say how it looks."""

    content: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self.content, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


@dataclass(frozen=True, slots=True)
class TitledBlock:
    """Something under a title."""

    title: str
    content: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(f"\n{self.title}", style="bold")
        yield self.content


def titled(title: str, content: RenderableType) -> TitledBlock:
    """`content` under a title."""
    return TitledBlock(title, content)


@dataclass(frozen=True, slots=True)
class Name:
    """A cell with an operator, a key path or the name of a run: in a narrow column it breaks after a mark, not anywhere."""

    text: str

    def __str__(self) -> str:
        return self.text

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        widest = max(cell_len(line) for line in self.text.split("\n"))
        return Measurement(max(cell_len(piece.rstrip()) for piece in _pieces(self.text, 0, PIECES)), widest)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = [part for line in self.text.split("\n") for part in broken_lines(line, options.max_width)]
        yield Text("\n".join(lines), overflow="fold")


def broken_lines(name: str, width: int) -> Iterator[str]:
    """A name in lines of `width`, broken after spaces; in longer words after dots, and in longer parts of those after dashes.

    >>> list(broken_lines("collectives.scale_exponent", 20))
    ['collectives.', 'scale_exponent']
    """
    indent = " " * (len(name) - len(name.lstrip()))
    line = ""
    for piece in _pieces(name, width, PIECES):
        if line.strip() and cell_len((line + piece).rstrip()) > width:
            yield line.rstrip()
            line = indent
        line += piece
    yield line


def _pieces(text: str, width: int, finer: Sequence[str]) -> Iterator[str]:
    if not finer or cell_len(text.rstrip()) <= width:
        yield text
        return
    for piece in re.findall(finer[0], text):
        yield from _pieces(piece, width, finer[1:])


def bar_text(share: float, width: int = BAR) -> str:
    """A share as a bar of so many characters at most.

    >>> bar_text(0.5, 8)
    '####'
    """
    return "#" * min(max(round(width * share), 0), width)


def section(title: str, lines: Sequence[tuple[str, str]]) -> RenderableType:
    """A title and a list; the second column wraps under itself."""
    gap = 2 if any(first[:1].isalpha() for first, _ in lines) else 1  # words stand farther from words than dashes and marks do
    grid = Table(box=None, show_header=False, pad_edge=False, padding=(0, gap, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for line in lines:
        grid.add_row(*line)
    return titled(title, grid)


def value_text(value: Any) -> str:
    """A value as a run file would have it: without separators, so that it can be copied into one."""
    return typed_text(value)


def setting_text(value: Any) -> str:
    """A value as people say it: on, off, none, else as a run file would have it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value is None else value_text(value)
