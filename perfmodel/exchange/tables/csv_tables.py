"""How a table of comma-separated values is read: columns by name, with a sentence for each way it can be broken."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from perfmodel.errors import InputError, PerfmodelError, did_you_mean
from perfmodel.evidence.measured_rows import MeasuredTable, UnreadRow
from perfmodel.exchange.syntax.documents import read_text
from perfmodel.printable import of_cell

R = TypeVar("R")

LARGEST_BYTES: Final = 100_000_000


def read_table(path: Path, columns: Sequence[str], read: Callable[[int, dict[str, str]], R]) -> MeasuredTable[R]:
    """Every row of the table at `path` as `read` makes it of its line number and cells; what it refuses is kept as unread.

    So is a row that is cut, or has more cells than there are columns: the others are used.
    Errors: InputError for a file that is no such table, or in which no row can be read.
    """
    rows, unread = [], []
    for line, cells in _rows(path, columns):
        try:
            if isinstance(cells, InputError):
                raise cells
            rows.append(read(line, cells))
        except PerfmodelError as error:
            named = {name: "" if isinstance(cells, InputError) else cells.get(name, "") for name in ("run_id", "source")}
            reason = f"line {line} {error}" if error is cells else f"line {line}, column {error}"
            unread.append(UnreadRow(line=line, reason=reason, **named))
    if unread and not rows:
        more = f" (and {len(unread) - 1} other rows)" if len(unread) > 1 else ""
        raise InputError(f"{path}, {unread[0].reason}{more}")
    return MeasuredTable(rows=tuple(rows), unread=tuple(unread))


def table_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """The line number and the cells (without surrounding blanks) of each row of the table at `path`.

    Errors: InputError for a file that is not a table, lacks one of `columns`, has a column twice, or a broken row.
    """
    for line, cells in _rows(path, columns):
        if isinstance(cells, InputError):
            raise InputError(f"{path}, line {line} {cells}")
        yield line, cells


def _rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str] | InputError]]:
    """The line number and the cells of each row, or what is wrong with it."""
    text = read_text(path, largest_bytes=LARGEST_BYTES)
    reader = csv.DictReader(io.StringIO(text), strict=True)
    try:
        _check_header(path, list(reader.fieldnames or ()), columns)
    except csv.Error as error:
        raise InputError(f"{path} is not a table of comma-separated values: {error}") from None
    cut_line = 0 if text.endswith(("\n", "\r")) else text.count("\n") + 1
    while True:
        before = reader.reader.line_num
        try:
            row: dict[Any, Any] = next(reader)
        except StopIteration:
            return
        except csv.Error as error:  # the reader goes on after it; quotes that are never closed reach to the end
            yield before + 1, InputError(f"is not comma-separated values: {error}")
            continue
        yield reader.line_num, _cells(row, is_cut=reader.line_num == cut_line)


def _cells(row: dict[Any, Any], *, is_cut: bool) -> dict[str, str] | InputError:
    """The cells of a row by column; what is wrong with it where it has too many, or is the last and breaks off."""
    if None in row:
        return InputError(f"has {len(row[None])} more cells than there are columns")
    if is_cut and None in row.values():
        there = sum(cell is not None for cell in row.values())
        return InputError(f"breaks off after {there} of {len(row)} cells")
    return {column: of_cell((cell or "").strip()) for column, cell in row.items() if column}


def _check_header(path: Path, header: Sequence[str], columns: Sequence[str]) -> None:
    twice = [column for column, times in Counter(header).items() if times > 1]
    if twice:
        raise InputError(f"{path} has two columns {twice[0]}")
    missing = [column for column in columns if column not in header]
    if missing:
        near = did_you_mean(missing[0], header) if header else "the file is empty"
        raise InputError(f"{path} has no column {missing[0]}; {near}")
