"""How a table of comma-separated values is read: columns by name, with a sentence for each way it can be broken."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from perfmodel.errors import InputError, did_you_mean
from perfmodel.exchange.documents import read_text

LARGEST_BYTES: Final = 100_000_000


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
        yield line, {column: (cell or "").strip() for column, cell in row.items() if column}


def _check_header(path: Path, header: Sequence[str], columns: Sequence[str]) -> None:
    twice = [column for column in header if header.count(column) > 1]
    if twice:
        raise InputError(f"{path} has two columns {twice[0]}")
    missing = [column for column in columns if column not in header]
    if missing:
        near = did_you_mean(missing[0], header) if header else "the file is empty"
        raise InputError(f"{path} has no column {missing[0]}; {near}")
