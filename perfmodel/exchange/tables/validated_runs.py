"""The measured runs that predictions are validated with: a user's files or the shipped tables, and both sides compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from perfmodel.evidence.leave_out import left_out
from perfmodel.evidence.measured_rows import MeasuredRun, MeasuredTable, with_evidence
from perfmodel.evidence.time_scores import TimeComparison, compare_time
from perfmodel.exchange.measured.own_evidence import read_evidence
from perfmodel.exchange.presets import DATA
from perfmodel.exchange.tables.fitted_priors import fitted_priors
from perfmodel.exchange.tables.logged_runs import GivenBeside
from perfmodel.exchange.tables.measured_files import read_measured_files
from perfmodel.exchange.tables.published_runs import read_measured_runs

PUBLISHED: Final = "published_runs.csv"
MIXTURES: Final = "mixture_runs.csv"

Compare: TypeAlias = Callable[[Sequence[MeasuredRun]], list[TimeComparison]]


def validated_table(
    files: Sequence[Path], *, mixtures: bool = False, given: Mapping[str, str | None] | None = None
) -> MeasuredTable[MeasuredRun]:
    """The measured runs of some files, or those that are shipped where none is named: of dense models, or of mixtures.

    `given` are model, cluster and GPUs of logs that do not say them.
    """
    return read_measured_files(files or [DATA / (MIXTURES if mixtures else PUBLISHED)], GivenBeside(**(given or {})))


def with_own_runs(measured: Sequence[MeasuredRun], name: str) -> tuple[tuple[MeasuredRun, ...], int]:
    """The rows on clusters that somebody's own runs are known of, and how many of them are among these runs."""
    evidence = read_evidence(name)
    learned = len({each.run_id for each in measured} & {run.name for run in evidence.own_runs})
    return tuple(with_evidence(each, evidence) for each in measured), learned


def compared(measured: Sequence[MeasuredRun]) -> list[TimeComparison]:
    """Each row beside its prediction."""
    return [compare_time(each) for each in measured]


def without_own_source(
    comparisons: Sequence[TimeComparison], measured: Sequence[MeasuredRun], *, compare: Compare = compared
) -> list[TimeComparison]:
    """Each as it is without what was learned from its source; a user's table is scored beside the shipped one."""
    known = {each.run_id for each in measured}
    has_experts = any(each.model.mixture is not None for each in measured)
    names = (PUBLISHED, MIXTURES) if has_experts else (PUBLISHED,)
    shipped = [each for name in names for each in read_measured_runs(DATA / name).rows if each.run_id not in known]
    beside = compare(shipped) if shipped else []
    return left_out([*comparisons, *beside], fitted_priors())[: len(comparisons)]
