"""The shipped runs beside their predictions, worked out once for all tests."""

from __future__ import annotations

from functools import cache

from perfmodel.evidence.validate import Comparison, compare
from perfmodel.exchange.presets import DATA
from perfmodel.exchange.tables.published_runs import read_measured_runs


@cache
def compared() -> tuple[Comparison, ...]:
    """All rows of the table."""
    return tuple(compare(each) for each in read_measured_runs(DATA / "published_runs.csv"))
