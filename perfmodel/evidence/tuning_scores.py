"""How wrong predictions of fine-tuning are on measured runs: memory, speed, and whether a run fits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from perfmodel.count.memory.needed import MemoryBytes
from perfmodel.evidence.measured_rows import UnreadRow
from perfmodel.evidence.tuning_rows import FITS, MEMORY, TUNING_METRICS, MeasuredTuning
from perfmodel.prediction import StagePrediction, predict_stage
from perfmodel.spec.serving_evidence import ServingEvidence, model_class
from perfmodel.units import GIBIBYTE

GROUPS: Final = ("stack", "gpu", "method")
FEWEST_SOURCES: Final = 2  # that a discrepancy is estimated on


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningComparison:
    """One metric of a run beside its prediction; `predicted` is None where the run is not covered."""

    measured: MeasuredTuning
    metric: str
    value: float
    predicted: float | None = None
    interval: tuple[float, float] | None = None
    known_widths: tuple[float, float] = (0.0, 0.0)  # of the interval without its discrepancy, in logarithms

    @property
    def relative_error(self) -> float | None:
        """predicted / measured - 1; of verdicts the difference."""
        if self.predicted is None:
            return None
        return self.predicted - self.value if self.metric == FITS else self.predicted / self.value - 1.0

    @property
    def models(self) -> str:
        """Whether its model is dense or has experts."""
        run = self.measured.run
        return model_class(has_experts=run is not None and run.model.mixture is not None)

    @property
    def reason(self) -> str:
        """Why it is not scored, or ""."""
        return self.measured.reason or self.measured.context.get(self.metric, "")

    @property
    def is_scored(self) -> bool:
        """Whether it counts."""
        return self.predicted is not None and not self.reason

    def with_discrepancy(self, half_width: float) -> TuningComparison:
        """The same prediction in an interval with another discrepancy."""
        if self.predicted is None or self.metric == FITS:
            return self
        low, high = (float(np.hypot(each, half_width)) for each in self.known_widths)
        return replace(self, interval=(self.predicted * float(np.exp(-low)), self.predicted * float(np.exp(high))))


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningErrors:
    """The errors of one metric in a group of rows; the bias is the median error with its sign."""

    rows: int
    median_abs_error: float
    p90_abs_error: float
    bias: float
    interval_coverage: float | None  # None of verdicts


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningScoreboard:
    """All comparisons, the errors of each metric, and of each in groups."""

    comparisons: Sequence[TuningComparison]
    overall: Mapping[str, TuningErrors]
    groups: Mapping[str, Mapping[str, Mapping[str, TuningErrors]]]  # group -> its name -> metric
    unsupported: Mapping[str, int]
    unread: Sequence[UnreadRow] = ()


def compare_tuning(rows: Sequence[MeasuredTuning], evidence: ServingEvidence) -> Iterator[TuningComparison]:
    """Every metric of every run beside its prediction."""
    for row in rows:
        predicted = None if row.run is None else predict_stage(row.run.setup(row.run.stages[0]))
        for metric in TUNING_METRICS:
            if metric not in row.values:
                continue
            plain = TuningComparison(measured=row, metric=metric, value=row.values[metric])
            if predicted is None:
                yield plain
                continue
            value, widths = _predicted(predicted, metric, row.memory_kind)
            lack = evidence.discrepancy(metric, plain.models, "any")
            known = replace(plain, predicted=value, known_widths=widths)
            yield known.with_discrepancy(float(lack.half_width))


def _predicted(stage: StagePrediction, metric: str, kind: str) -> tuple[float, tuple[float, float]]:
    """A predicted metric, and how wide its interval is without a discrepancy."""
    if metric == FITS:
        return float(bool(stage.fits)), (0.0, 0.0)
    if metric == MEMORY:
        return memory_of_kind(stage.memory, kind) / GIBIBYTE, (0.0, 0.0)
    halves = [float(each) for each in stage.uncertainty.half_widths_s.values()]
    width = float(np.sqrt(np.sum(np.square(halves)))) / float(stage.iteration_time_s)
    return float(stage.tokens_per_s), (width, width)


def memory_of_kind(memory: MemoryBytes, kind: str) -> float:
    """Memory as a measurement of a kind (MEMORY_KINDS) has it [bytes]."""
    by_kind = {"allocated": memory.allocated_bytes, "reserved": memory.reserved_bytes, "device": memory.total_bytes}
    return float(by_kind[kind])


def tuning_scoreboard(comparisons: Sequence[TuningComparison], unread: Sequence[UnreadRow] = ()) -> TuningScoreboard:
    """The comparisons with their errors."""
    scored = [each for each in comparisons if each.is_scored]
    groups: dict[str, dict[str, Mapping[str, TuningErrors]]] = {}
    for group in GROUPS:
        names = sorted({each.measured.labels[group] for each in scored})
        groups[group] = {name: _errors([each for each in scored if each.measured.labels[group] == name]) for name in names}
    return TuningScoreboard(
        comparisons=comparisons,
        overall=_errors(scored),
        groups=groups,
        unsupported=dict(Counter(each.reason for each in comparisons if each.reason).most_common()),
        unread=unread,
    )


def _errors(scored: Sequence[TuningComparison]) -> dict[str, TuningErrors]:
    by_metric = {metric: [each for each in scored if each.metric == metric] for metric in TUNING_METRICS}
    return {metric: _summary(rows) for metric, rows in by_metric.items() if rows}


def _summary(rows: Sequence[TuningComparison]) -> TuningErrors:
    errors = np.asarray([each.relative_error for each in rows], dtype=float)
    inside = [each.interval[0] <= each.value <= each.interval[1] for each in rows if each.interval is not None]
    return TuningErrors(
        rows=len(rows),
        median_abs_error=float(np.median(np.abs(errors))) if rows[0].metric != FITS else float(np.mean(np.abs(errors))),
        p90_abs_error=float(np.quantile(np.abs(errors), 0.9)),
        bias=float(np.median(errors)),
        interval_coverage=float(np.mean(inside)) if inside else None,
    )
