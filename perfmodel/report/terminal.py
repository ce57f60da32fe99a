"""How text is laid out on a terminal: plain tables and lists that fit 80 columns, for all reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from perfmodel.spec.fields import Numeric
from perfmodel.units import large_text

BAR: Final = 20  # characters of a whole bar


def as_text(content: RenderableType, *, width: int) -> str:
    """`content` as plain text of `width` columns, ASCII but for the letters of names."""
    console = Console(width=width, no_color=True, markup=False, highlight=False, emoji=False, force_terminal=False)
    with console.capture() as captured:
        console.print(content)
    ruled = captured.get().replace("\u2500", "-")
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
class Titled:
    """Something under a title."""

    title: str
    content: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(f"\n{self.title}", style="bold")
        yield self.content


def titled(title: str, content: RenderableType) -> Titled:
    """`content` under a title."""
    return Titled(title, content)


def bar_text(share: float, width: int = BAR) -> str:
    """A share as a bar of so many characters at most.

    >>> bar_text(0.5, 8)
    '####'
    """
    return "#" * min(max(round(width * share), 0), width)


def section(title: str, lines: Sequence[tuple[str, str]]) -> RenderableType:
    """A title and a list; the second column wraps under itself."""
    grid = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for line in lines:
        grid.add_row(*line)
    return titled(title, grid)


def value_text(value: Any) -> str:
    """A value as a run file would have it."""
    if isinstance(value, bool):
        return str(value).lower()
    return large_text(value) if isinstance(value, int) and value >= 1_000_000 else str(value)
