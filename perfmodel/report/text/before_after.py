"""How numbers before and after a change stand beside each other: three tables, by how many changes have to fit 80 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from rich.console import RenderableType
from rich.table import Table

from perfmodel.light_dataclass import dataclass
from perfmodel.report.text.terminal import percent_text, plain_table
from perfmodel.units import large_text

Numbers: TypeAlias = Mapping[str, Any]  # by name, in SI units; None where one is not known
SIDE_BY_SIDE: Final = 2  # changes with a column of differences each
MOST_COLUMNS: Final = 4  # changes in one table
TOO_WIDE: Final = 1e7


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One row: which number, what it is called, times what and with how many decimals it is shown.

    A number that is itself a share (`is_share`) changes by points, all others by a ratio.
    """

    name: str
    label: str
    scale: float = 1.0
    decimals: int = 0
    is_share: bool = False

    def is_shown(self, columns: Sequence[Numbers]) -> bool:
        """Whether there is anything to show: a number that is neither zero nor unknown everywhere."""
        return any(numbers.get(self.name) for numbers in columns)

    def value(self, numbers: Numbers) -> str:
        """The number as people read it."""
        number = numbers.get(self.name)
        return "" if number is None else self._text(number)

    def _text(self, number: float, sign: str = "") -> str:
        """Every digit of it, or four of what would be too wide."""
        shown = number * self.scale
        plus = sign if shown > 0 else ""
        return f"{plus}{large_text(shown)}" if abs(shown) >= TOO_WIDE else f"{shown:{sign},.{self.decimals}f}"

    def difference(self, before: Numbers, after: Numbers) -> str:
        """What is added; "=" for nothing, and nothing where one of both is not known."""
        one, other = before.get(self.name), after.get(self.name)
        if one is None or other is None:
            return ""
        change = self._text(other - one, "+")
        return change if any(digit in "123456789" for digit in change) else "="

    def ratio(self, before: Numbers, after: Numbers) -> str:
        """The change as a share of the value before."""
        if self.is_share or not before.get(self.name) or self.difference(before, after) in ("", "="):
            return ""
        return percent_text(after[self.name] / before[self.name] - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class IntervalLine(Line):
    """A row for the interval of a number, from `name` to `high`: it has no difference."""

    high: str

    def value(self, numbers: Numbers) -> str:
        """Both ends of the interval, as in 0.55-0.73."""
        ends = [numbers.get(end) for end in (self.name, self.high)]
        return "-".join("" if end is None else f"{end * self.scale:,.{self.decimals}f}" for end in ends).strip("-")

    def difference(self, before: Numbers, after: Numbers) -> str:  # noqa: ARG002 - it has none
        """Always empty: two intervals have no difference."""
        return ""


def table_of_changes(lines: Sequence[Line], before: Numbers, after: Mapping[str, Numbers], *, results: bool) -> RenderableType:
    """Rows of numbers before and after each change, by its heading.

    One or two changes have their differences beside them. Of more, `results` have them below, and of parts of a whole they are
    all that is shown.
    """
    shown = [line for line in lines if line.is_shown([before, *after.values()])]
    table = plain_table("result" if results else "part")
    table.add_column("before", justify="right", no_wrap=True)
    if len(after) <= SIDE_BY_SIDE:
        _beside(table, shown, before, after)
    elif results:
        _below(table, shown, before, after)
    else:
        _instead(table, shown, before, after)
    return table


def _beside(table: Table, lines: Sequence[Line], before: Numbers, after: Mapping[str, Numbers]) -> None:
    for heading in after:
        for each in (heading, "change", *(["change %"] if len(after) == 1 else [])):
            table.add_column(each, justify="right", no_wrap=True)
    for line in lines:
        cells = []
        for numbers in after.values():
            cells += [line.value(numbers), line.difference(before, numbers)]
            cells += [line.ratio(before, numbers)] if len(after) == 1 else []
        _add(table, line, line.value(before), cells)


def _below(table: Table, lines: Sequence[Line], before: Numbers, after: Mapping[str, Numbers]) -> None:
    for heading in after:
        table.add_column(heading, justify="right", no_wrap=True)
    for line in lines:
        table.add_row(line.label, line.value(before), *(line.value(numbers) for numbers in after.values()))
        changes = [line.ratio(before, numbers) or line.difference(before, numbers) for numbers in after.values()]
        if any(changes):
            table.add_row("  difference", "", *changes)


def _instead(table: Table, lines: Sequence[Line], before: Numbers, after: Mapping[str, Numbers]) -> None:
    for heading in after:
        table.add_column(heading, justify="right", no_wrap=True)
    for line in lines:
        _add(table, line, line.value(before), [line.difference(before, numbers) for numbers in after.values()])


def _add(table: Table, line: Line, before: str, cells: Sequence[str]) -> None:
    if line.label == "total":
        table.add_section()
    table.add_row(line.label, before, *cells)
