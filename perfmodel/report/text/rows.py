"""Results that are tables, as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with a line of column names; what a row lacks, and what is not a number, is empty.

    >>> print(csv_text([{"gpus": 768, "days": 0.9}, {"gpus": 1536, "days": float("nan")}]), end="")
    gpus,days
    768,0.9
    1536,
    """
    columns, text = dict.fromkeys(name for row in rows for name in row), io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: value for name, value in row.items() if not _is_nothing(value)} for row in rows)
    return text.getvalue()


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
