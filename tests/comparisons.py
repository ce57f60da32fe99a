"""The shipped runs beside their predictions, worked out once for all tests."""

from __future__ import annotations

from functools import cache

from perfmodel.evidence.measured_rows import MeasuredRun
from perfmodel.evidence.time_scores import TimeComparison, compare_time
from perfmodel.exchange.presets import DATA
from perfmodel.exchange.tables.published_runs import read_measured_runs


@cache
def measured() -> tuple[MeasuredRun, ...]:
    """All rows of the table."""
    return read_measured_runs(DATA / "published_runs.csv").rows


@cache
def measured_mixtures() -> tuple[MeasuredRun, ...]:
    """All rows of the table of mixtures of experts."""
    return read_measured_runs(DATA / "mixture_runs.csv").rows


@cache
def compared_mixtures() -> tuple[TimeComparison, ...]:
    """The shipped runs of mixtures of experts beside their predictions."""
    return tuple(compare_time(each) for each in measured_mixtures())


@cache
def compared() -> tuple[TimeComparison, ...]:
    """All of them beside their predictions."""
    return tuple(compare_time(each) for each in measured())
