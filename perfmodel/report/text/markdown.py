"""Reports as Markdown, for wikis and tickets: titles, sentences and tables as GitHub reads them."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from perfmodel.report.text.terminal import TitledBlock, as_text

WIDTH = 1000  # of a line of words, which is not broken
SPECIAL = str.maketrans({mark: f"\\{mark}" for mark in "\\`*_[]<>|"} | {"\n": " "})


def as_markdown(content: RenderableType) -> str:
    """A report in Markdown, ending with a newline.

    >>> from perfmodel.report.text.terminal import plain_table, titled
    >>> table = plain_table("part")
    >>> table.add_column("ms", justify="right")
    >>> table.add_row("attention", "35.9")
    >>> print(as_markdown(titled("Where an iteration goes", table)), end="")
    ## Where an iteration goes
    <BLANKLINE>
    | part | ms |
    | :--- | ---: |
    | attention | 35.9 |
    """
    return "\n\n".join(_blocks(content)) + "\n"


def _blocks(content: RenderableType) -> Iterator[str]:
    """Paragraphs, titles and tables, one after the other."""
    match content:
        case Group():
            for part in content.renderables:
                yield from _blocks(part)
        case TitledBlock():
            yield f"## {_escaped(content.title)}"
            yield from _blocks(content.content)
        case Table(show_header=True):
            yield _table(content)
        case Padding():
            yield from _blocks(content.renderable)
        case Table():
            yield "\n".join(_item(row) for row in _rows(content))
        case Text() | str():
            yield from (_escaped(line) for line in _plain(content).splitlines() if line.strip())
        case _:
            yield from (_escaped(line) for line in as_text(content, width=WIDTH).splitlines() if line.strip())


def _table(table: Table) -> str:
    heads = [_escaped(_plain(column.header)) for column in table.columns]
    rules = ["---:" if column.justify == "right" else ":---" for column in table.columns]
    rows = [heads, rules, *([_escaped(cell) for cell in row] for row in _rows(table) if any(row))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def _item(row: list[str]) -> str:
    """A line of a list: its first cell is a dash, or what the others are about."""
    first, *others = row
    words = _escaped(" ".join(others))
    return f"- {words}" if first in ("", "-") else f"- {_escaped(first)}: {words}"


def _rows(table: Table) -> Iterator[list[str]]:
    yield from ([_plain(cell) for cell in row] for row in zip(*(column.cells for column in table.columns), strict=True))


def _plain(cell: RenderableType) -> str:
    return cell.plain if isinstance(cell, Text) else str(cell)


def _escaped(text: str) -> str:
    return text.strip().translate(SPECIAL)
