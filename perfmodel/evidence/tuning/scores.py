"""How wrong predictions of fine-tuning are on measured runs: memory, speed, and whether a run fits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from perfmodel.count.memory.needed import MemoryBytes
from perfmodel.evidence.groups import by_label, publication
from perfmodel.evidence.interval_scores import winkler_scores
from perfmodel.evidence.measured_rows import UnreadRow
from perfmodel.evidence.tuning.rows import FITS, MEMORY, TUNING_METRICS, MeasuredTuning
from perfmodel.evidence.widths import Lack, widths_without_each
from perfmodel.light_dataclass import dataclass, replace
from perfmodel.prediction import StagePrediction, predict_stage
from perfmodel.spec.evidence.run_evidence import pooled_cell
from perfmodel.units import GIBIBYTE

GROUPS: Final = ("stack", "gpu", "method")
ALLOCATED: Final = "allocated"  # the kind of memory that tensors take
POOLED_ROWS: Final = 40.0  # effective rows of all memories that weigh on each kind; of 10 and 40 the better Winkler score


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningComparison:
    """One metric of a run beside its prediction; `predicted` is None where the run is not covered."""

    measured: MeasuredTuning
    metric: str
    value: float
    predicted: float | None = None
    interval: tuple[float, float] | None = None
    verdict: str = ""  # of the run: fits, tight, does not fit

    @property
    def relative_error(self) -> float | None:
        """predicted / measured - 1; of verdicts the difference."""
        if self.predicted is None:
            return None
        return self.predicted - self.value if self.metric == FITS else self.predicted / self.value - 1.0

    @property
    def reason(self) -> str:
        """Why it is not scored, or ""."""
        return self.measured.reason or self.measured.context.get(self.metric, "")

    @property
    def is_scored(self) -> bool:
        """Whether it counts."""
        return self.predicted is not None and not self.reason

    def within(self, error: float) -> TuningComparison:
        """The same prediction of memory in an interval of another half width: p / (1 + w) .. p * (1 + w)."""
        if self.predicted is None or self.metric != MEMORY:
            return self
        return replace(self, interval=(self.predicted / (1.0 + error), self.predicted * (1.0 + error)))


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningErrors:
    """The errors of one metric in a group of rows; the bias is the median error with its sign.

    Verdicts have no intervals, so neither coverage nor a Winkler score; `by_source` each publication weighs one.
    """

    rows: int
    median_abs_error: float
    p90_abs_error: float
    bias: float
    interval_coverage: float | None
    interval_coverage_by_source: float | None
    winkler_score: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningScoreboard:
    """All comparisons, the errors of each metric, and of each in groups."""

    comparisons: Sequence[TuningComparison]
    overall: Mapping[str, TuningErrors]
    groups: Mapping[str, Mapping[str, Mapping[str, TuningErrors]]]  # group -> its name -> metric
    unsupported: Mapping[str, int]
    unread: Sequence[UnreadRow] = ()


def compare_tuning(row: MeasuredTuning) -> list[TuningComparison]:
    """Every metric of a run beside its prediction."""
    plain = [
        TuningComparison(measured=row, metric=each, value=row.values[each]) for each in TUNING_METRICS if each in row.values
    ]
    if row.run is None:
        return plain
    stage = predict_stage(row.run.setup(row.run.stages[0]))
    return [_compared(each, stage) for each in plain]


def _compared(plain: TuningComparison, stage: StagePrediction) -> TuningComparison:
    known = replace(plain, verdict=stage.verdict)
    if plain.metric == FITS:
        return replace(known, predicted=float(bool(stage.fits)))
    if plain.metric == MEMORY:
        value = memory_of_kind(stage.memory, plain.measured.memory_kind) / GIBIBYTE
        return replace(known, predicted=value).within(float(stage.work.setup.stack.states.memory_error))
    low_s, high_s = (float(each) for each in stage.iteration_time_interval_s)
    tokens = float(stage.layout.tokens_per_iteration)
    return replace(known, predicted=float(stage.tokens_per_s), interval=(tokens / high_s, tokens / low_s))


def without_own_source(comparisons: Sequence[TuningComparison]) -> list[TuningComparison]:
    """Each prediction of memory in an interval that is as wide as the errors of other publications ask for.

    Those count most that measured the same: tensors alone, or also what the allocator holds beyond them, which hangs on the
    order in which tensors come and go. Where no other publication is scored it stays. Intervals of speeds hold nothing learned
    from such tables.
    """
    found = widths_without_each(memory_lacks(comparisons), pooled_rows=POOLED_ROWS, by_publication=False)

    def known(comparison: TuningComparison) -> TuningComparison:
        cells = found.get(publication(comparison.measured.source))
        if not cells:
            return comparison
        cell = _cell(comparison)
        return comparison.within(float(np.expm1((cells.get(cell) or cells[pooled_cell(cell)])[0])))

    return [known(each) for each in comparisons]


def memory_lacks(comparisons: Sequence[TuningComparison]) -> list[Lack]:
    """|ln(measured / predicted)| of each scored memory, whose intervals hold nothing else."""
    return [
        Lack(
            value=abs(float(np.log(each.value / (each.predicted or 1.0)))),
            cell=_cell(each),
            publication=publication(each.measured.source),
            series=(publication(each.measured.source), *(each.measured.labels[name] for name in GROUPS)),
        )
        for each in comparisons
        if each.is_scored and each.metric == MEMORY
    ]


def _cell(comparison: TuningComparison) -> str:
    """Whether its memory is that of tensors alone."""
    return f"memory/{'tensors' if comparison.measured.memory_kind == ALLOCATED else 'allocator'}"


def memory_of_kind(memory: MemoryBytes, kind: str) -> float:
    """Memory as a measurement of a kind (MEMORY_KINDS) has it [bytes]."""
    by_kind = {ALLOCATED: memory.allocated_bytes, "reserved": memory.reserved_bytes, "device": memory.total_bytes}
    return float(by_kind[kind])


def tuning_scoreboard(comparisons: Sequence[TuningComparison], unread: Sequence[UnreadRow] = ()) -> TuningScoreboard:
    """The comparisons with their errors."""
    scored = [each for each in comparisons if each.is_scored]
    return TuningScoreboard(
        comparisons=comparisons,
        overall=_errors(scored),
        groups=by_label(scored, GROUPS, _errors),
        unsupported=dict(Counter(each.reason for each in comparisons if each.reason).most_common()),
        unread=unread,
    )


def _errors(scored: Sequence[TuningComparison]) -> dict[str, TuningErrors]:
    by_metric = {metric: [each for each in scored if each.metric == metric] for metric in TUNING_METRICS}
    return {metric: _summary(rows) for metric, rows in by_metric.items() if rows}


def _summary(rows: Sequence[TuningComparison]) -> TuningErrors:
    errors = np.asarray([each.relative_error for each in rows], dtype=float)
    known = [(each, each.interval) for each in rows if each.interval is not None]
    coverage, by_source, winkler = _interval_scores(known) if known else (None, None, None)
    return TuningErrors(
        rows=len(rows),
        median_abs_error=float(np.median(np.abs(errors))) if rows[0].metric != FITS else float(np.mean(np.abs(errors))),
        p90_abs_error=float(np.quantile(np.abs(errors), 0.9)),
        bias=float(np.median(errors)),
        interval_coverage=coverage,
        interval_coverage_by_source=by_source,
        winkler_score=winkler,
    )


def _interval_scores(known: Sequence[tuple[TuningComparison, tuple[float, float]]]) -> tuple[float, float, float]:
    """The share of measurements inside, of rows and with each publication weighing one, and the mean Winkler score."""
    low, high = np.asarray([ends for _, ends in known]).T
    values = np.asarray([each.value for each, _ in known])
    inside = (low <= values) & (values <= high)
    owners = [publication(each.measured.source) for each, _ in known]
    number = Counter(owners)
    weights = np.asarray([1.0 / (number[each] * len(number)) for each in owners])
    winkler = winkler_scores(low_s=low, high_s=high, measured_s=values)
    return float(np.mean(inside)), float(weights @ inside), float(np.mean(winkler))
