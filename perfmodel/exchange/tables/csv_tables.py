"""How a table of comma-separated values is read: columns by name, with a sentence for each way it can be broken."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from perfmodel.errors import InputError, PerfmodelError, did_you_mean
from perfmodel.evidence.measured_rows import MeasuredTable, UnreadRow
from perfmodel.exchange.documents import read_text
from perfmodel.printable import of_cell

R = TypeVar("R")

LARGEST_BYTES: Final = 100_000_000


def read_table(path: Path, columns: Sequence[str], read: Callable[[int, dict[str, str]], R]) -> MeasuredTable[R]:
    """Every row of the table at `path` as `read` makes it of its line number and cells; what it refuses is kept as unread.

    Errors: InputError for a file that is no such table, or in which no row can be read.
    """
    rows, unread = [], []
    for line, cells in table_rows(path, columns):
        named = {name: cells.get(name, "") for name in ("run_id", "source")}
        try:
            rows.append(read(line, cells))
        except PerfmodelError as error:
            unread.append(UnreadRow(line=line, reason=f"line {line}, column {error}", **named))
    if unread and not rows:
        more = f" (and {len(unread) - 1} other rows)" if len(unread) > 1 else ""
        raise InputError(f"{path}, {unread[0].reason}{more}")
    return MeasuredTable(rows=tuple(rows), unread=tuple(unread))


def table_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """The line number and the cells (without surrounding blanks) of each row of the table at `path`.

    Errors: InputError for a file that is not a table, lacks one of `columns`, has a column twice, or cells without a column.
    """
    text = read_text(path, largest_bytes=LARGEST_BYTES)
    try:
        reader = csv.DictReader(io.StringIO(text), strict=True)
        _check_header(path, list(reader.fieldnames or ()), columns)
        rows: list[tuple[int, dict[Any, Any]]] = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise InputError(f"{path} is not a table of comma-separated values: {error}") from None
    for line, row in rows:
        if None in row:
            raise InputError(f"{path}, line {line} has {len(row[None])} more cells than there are columns")
        yield line, {column: of_cell((cell or "").strip()) for column, cell in row.items() if column}


def _check_header(path: Path, header: Sequence[str], columns: Sequence[str]) -> None:
    twice = [column for column in header if header.count(column) > 1]
    if twice:
        raise InputError(f"{path} has two columns {twice[0]}")
    missing = [column for column in columns if column not in header]
    if missing:
        near = did_you_mean(missing[0], header) if header else "the file is empty"
        raise InputError(f"{path} has no column {missing[0]}; {near}")
