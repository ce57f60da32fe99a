"""Are tables that are broken in places read as far as they are whole, and does no cell run anything?"""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.exchange.tables.csv_tables import read_table
from perfmodel.printable import as_cell, of_cell
from perfmodel.report.text.rows import csv_text

COLUMNS = ("run_id", "value")


def read(path: Path, text: str) -> tuple[list[str], list[str]]:
    """The first cells of the rows that are read, and why others are not."""
    table = path / "table.csv"
    table.write_bytes(text.encode())
    found = read_table(table, COLUMNS, lambda _, cells: cells["run_id"])
    return list(found.rows), [each.reason for each in found.unread]


@pytest.mark.parametrize(
    ("text", "rows", "reason"),
    [
        ("run_id,value\na,1\nb,2,3\nc,4\n", ["a", "c"], "line 3 has 1 more cells than there are columns"),
        ("run_id,value\na,1\nb", ["a"], "line 3 breaks off after 1 of 2 cells"),
        ("run_id,value\na,1\nb\rx,2\nc,4\n", ["a", "c"], "line 3 is not comma-separated values"),
        ('run_id,value\na,1\nb,"2\nc,4\n', ["a"], "line 3 is not comma-separated values"),
    ],
)
def test_a_broken_row_is_named_and_the_others_are_read(tmp_path: Path, text: str, rows: list[str], reason: str) -> None:
    """As a full disk, an editor or a lost quote leaves a table."""
    read_rows, reasons = read(tmp_path, text)
    assert read_rows == rows
    assert len(reasons) == 1
    assert reasons[0].startswith(reason)


def test_a_last_line_without_an_end_is_read_where_all_its_cells_are_there(tmp_path: Path) -> None:
    """As many editors write it."""
    assert read(tmp_path, "run_id,value\na,1\nb,2") == (["a", "b"], [])


@given(st.text(max_size=20))
def test_no_cell_is_a_formula_and_each_reads_back_as_it_was(text: str) -> None:
    """Whatever a spreadsheet would run has an apostrophe before it, which reading takes away; plain numbers stay numbers."""
    cell = as_cell(text)
    assert of_cell(cell) == text
    is_number = text[:1] in {"+", "-"} and text[1:].replace(".", "", 1).isascii() and text[1:2].isdigit()
    assert cell[:1] not in {"=", "+", "-", "@", "\t", "\r"} or is_number


def test_tables_that_are_written_hold_no_formula() -> None:
    """Neither in a cell nor in the name of a column."""
    text = csv_text([{"=name": "=cmd|' /C calc'!A1", "error": -0.25, "note": "-0.25"}])
    assert list(csv.reader(io.StringIO(text))) == [["'=name", "error", "note"], ["'=cmd|' /C calc'!A1", "-0.25", "-0.25"]]
