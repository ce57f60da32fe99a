"""Results that are tables, as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from perfmodel.printable import as_cell


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with a line of column names; what a row lacks, and what is not a number, is empty; no text is a formula.

    >>> print(csv_text([{"gpus": 768, "days": 0.9}, {"gpus": 1536, "days": float("nan")}]), end="")
    gpus,days
    768,0.9
    1536,
    """
    columns, text = dict.fromkeys(name for row in rows for name in row), io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writerow({name: as_cell(name) for name in columns})
    writer.writerows({name: _cell(value) for name, value in row.items() if not _is_nothing(value)} for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    return as_cell(value) if isinstance(value, str) else value


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))
