"""How wrong predicted iteration times are on measured runs, one by one and in groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from perfmodel.count.flops import attention_flop_per_token, model_flop_per_token
from perfmodel.count.memory.fit import DOES_NOT_FIT, fit_verdict
from perfmodel.count.memory.needed import MemoryBytes
from perfmodel.count.parameters import parameter_count
from perfmodel.evidence.groups import Scoreboard, publication, scoreboard
from perfmodel.evidence.interval_scores import LEVEL, Intervals, Reliability, reliability
from perfmodel.evidence.measured_rows import MeasuredRun, UnreadRow
from perfmodel.frames import Tabular
from perfmodel.light_dataclass import dataclass, replace
from perfmodel.prediction import predict
from perfmodel.spec.evidence.error_law import NORMAL, ErrorLaw
from perfmodel.spec.fields import Numeric
from perfmodel.spec.models.model import TransformerModel
from perfmodel.timing.breakdown import PARTS, Breakdown
from perfmodel.units import GIBIBYTE

SCORES: Final = ("median", "p90", "bias")


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeComparison:
    """A measured run beside its prediction; all but `measured` is None where the run is not covered."""

    measured: MeasuredRun
    predicted_s: float | None = None
    interval_s: tuple[float, float] | None = None
    discrepancy: float = 0.0  # half width of the part of the interval that only runs tell, of the logarithm of the time
    law: ErrorLaw = NORMAL  # how errors of the logarithm are distributed in the interval
    breakdown: Breakdown | None = None  # of single numbers: where the predicted time goes
    memory: MemoryBytes | None = None  # parts are single numbers
    fit_probability: float | None = None

    def row(self) -> dict[str, Any]:
        """Times [s], errors and memory of the run by name; those of the prediction are None where `reason` says why."""
        low_s, high_s = self.interval_s or (None, None)
        measured = self.measured
        return {
            "run_id": measured.run_id,
            "source": measured.source,
            "measured_s": measured.iteration_time_s,
            "predicted_s": self.predicted_s,
            "relative_error": self.relative_error,
            "interval_low_s": low_s,
            "interval_high_s": high_s,
            "memory_bytes": None if self.memory is None else float(self.memory.total_bytes),
            "fit_probability": self.fit_probability,
            "predicted_memory_gib": None if self.seen_bytes is None else self.seen_bytes / GIBIBYTE,
            "measured_memory_gib": None if measured.memory_bytes is None else measured.memory_bytes / GIBIBYTE,
            "memory_kind": measured.memory_kind,
            "scored": measured.scored,
            "stack": None if measured.run is None else measured.run.stack.name,
            "printed_mfu": measured.printed_mfu,
            "recomputed_mfu": recomputed_mfu(measured),
            "reason": measured.reason,
        }

    @property
    def stated_precision(self) -> str:
        """The number format as the row states it, whatever recipe it is predicted in."""
        return self.measured.labels.get("precision", "")

    @property
    def known_widths(self) -> tuple[float, float]:
        """ln(T / low) and ln(high / T) of the interval without its discrepancy; zeros where the run is not covered."""
        if self.interval_s is None or self.predicted_s is None:
            return 0.0, 0.0
        low, high = (abs(float(np.log(end / self.predicted_s))) for end in self.interval_s)
        square = self.discrepancy**2
        return float(np.sqrt(max(low**2 - square, 0.0))), float(np.sqrt(max(high**2 - square, 0.0)))

    def with_discrepancy(self, half_width: float) -> TimeComparison:
        """The same prediction in an interval with another discrepancy."""
        if self.predicted_s is None:
            return self
        low, high = (float(np.hypot(each, half_width)) for each in self.known_widths)
        ends = (self.predicted_s * float(np.exp(-low)), self.predicted_s * float(np.exp(high)))
        return replace(self, interval_s=ends, discrepancy=half_width)

    @property
    def memory_error(self) -> float | None:
        """Predicted memory of the measured kind over the measured memory, less 1; None where either is not known."""
        if self.seen_bytes is None or self.measured.memory_bytes is None:
            return None
        return self.seen_bytes / self.measured.memory_bytes - 1.0

    @property
    def seen_bytes(self) -> float | None:
        """Predicted memory, as far as a measurement of its kind sees it."""
        return None if self.memory is None else float(seen_bytes(self.memory, self.measured.memory_kind))

    @property
    def may_fit(self) -> bool:
        """Whether it is predicted to fit, or tight; also where nothing is predicted: what is in a table ran."""
        return self.fit_probability is None or fit_verdict(self.fit_probability) != DOES_NOT_FIT

    @property
    def relative_error(self) -> float | None:
        """predicted / measured - 1: positive where the prediction is too slow, None where the run is not covered."""
        return None if self.predicted_s is None else self.predicted_s / self.measured.iteration_time_s - 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """Relative errors in three numbers; the bias is the median error with its sign."""

    median_abs_error: float
    p90_abs_error: float
    bias: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryErrors(Errors):
    """The errors of predicted memory in the rows of a group that state a measured one."""

    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeErrors(Errors):
    """Errors of times, the share of measurements in their 90 % interval, and the mean Winkler score of those intervals."""

    interval_coverage: float
    winkler_score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorSummary(TimeErrors):
    """The errors of a group of measured runs; `half_width` is that of the median interval, as a share of its time."""

    rows: int
    half_width: float
    by_source: TimeErrors  # the same rows, each publication weighing one
    memory: MemoryErrors | None

    @property
    def scores(self) -> Mapping[str, float | None]:
        """What a threshold can be set for, by its name in SCORES; the smaller the better."""
        return dict(zip(SCORES, (self.median_abs_error, self.p90_abs_error, abs(self.bias)), strict=True))


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TimeScores(Tabular, Scoreboard[TimeComparison, ErrorSummary]):
    """Measured runs beside their predictions, with the scores of all and of each group."""

    @property
    def summary(self) -> str:
        """The scores of all rows."""
        if self.overall is None:
            return f"{len(self.comparisons)} rows, none of which is scored"
        scores = self.overall
        errors = f"median error {100 * scores.median_abs_error:.1f} %, p90 {100 * scores.p90_abs_error:.1f} %"
        inside = f"{100 * scores.interval_coverage:.0f} % inside the 90 % interval"
        return f"{scores.rows} runs, {errors}, bias {100 * scores.bias:+.1f} %, {inside}"

    def rows(self) -> list[dict[str, Any]]:
        """A row for each measured run."""
        return [each.row() for each in self.comparisons]


def compare_time(measured: MeasuredRun) -> TimeComparison:
    """The measured run beside the prediction of its only stage."""
    if measured.run is None:
        return TimeComparison(measured=measured)
    (_, stage), *_ = predict(measured.run).stages
    low, high = stage.iteration_time_interval_s
    return TimeComparison(
        measured=measured,
        predicted_s=float(stage.iteration_time_s),
        interval_s=(float(low), float(high)),
        discrepancy=float(stage.uncertainty.discrepancy.half_width),
        law=stage.uncertainty.law,
        breakdown=Breakdown(**{part: float(getattr(stage.breakdown, part)) for part in PARTS}),
        memory=MemoryBytes(**{part: float(size) for part, size in stage.memory.items()}),
        fit_probability=float(stage.fit_probability),
    )


def seen_bytes(memory: MemoryBytes, kind: str) -> Numeric:
    """The part of predicted memory that a measurement of this kind sees.

    allocated  what tensors hold
    reserved   what PyTorch's allocator holds for them
    device     everything on the GPU, as nvidia-smi shows it
    """
    return {"allocated": memory.allocated_bytes, "reserved": memory.reserved_bytes, "device": memory.total_bytes}[kind]


def time_scoreboard(comparisons: Sequence[TimeComparison], unread: Sequence[UnreadRow] = ()) -> TimeScores:
    """The comparisons with the summaries of all and of each group."""
    found = scoreboard(comparisons, summarise_times, unread)
    return TimeScores(**{entry.name: getattr(found, entry.name) for entry in fields(found)})


def summarise_times(comparisons: Sequence[TimeComparison]) -> ErrorSummary | None:
    """The errors of the covered and scored runs among `comparisons`; None where there is none."""
    scored = _scored(comparisons)
    if not scored:
        return None
    errors = np.asarray([each.relative_error for each in scored])
    intervals = _intervals(scored)
    inside, winkler = intervals.inside(LEVEL), intervals.winkler_scores
    return ErrorSummary(
        rows=len(scored),
        **_median_p90_bias(errors),
        interval_coverage=float(np.mean(inside)),
        winkler_score=float(np.mean(winkler)),
        half_width=float(np.median((intervals.high_s - intervals.low_s) / (2.0 * intervals.predicted_s))),
        by_source=TimeErrors(
            **_median_p90_bias(errors, intervals.sources),
            interval_coverage=float(intervals.weights @ inside),
            winkler_score=float(intervals.weights @ winkler),
        ),
        memory=_memory_errors(scored),
    )


def time_reliability(comparisons: Sequence[TimeComparison]) -> Reliability | None:
    """Stated against observed coverage over the covered and scored runs among `comparisons`; None where there is none."""
    scored = _scored(comparisons)
    return reliability(_intervals(scored)) if scored else None


def _scored(comparisons: Sequence[TimeComparison]) -> list[TimeComparison]:
    return [each for each in comparisons if each.measured.scored and each.relative_error is not None]


def _intervals(scored: Sequence[TimeComparison]) -> Intervals:
    low, high = np.asarray([each.interval_s for each in scored]).T
    return Intervals(
        predicted_s=np.asarray([each.predicted_s for each in scored]),
        low_s=low,
        high_s=high,
        measured_s=np.asarray([each.measured.iteration_time_s for each in scored]),
        sources=[publication(each.measured.source) for each in scored],
        laws=[each.law for each in scored],
    )


def _median_p90_bias(errors: NDArray[np.float64], sources: Sequence[str] | None = None) -> dict[str, float]:
    """Median and 90th percentile of absolute errors, and the bias: the median error. Sources, if given, weigh one each."""
    if sources is None:
        weights, method = None, "linear"
    else:
        weights, method = np.asarray([1.0 / sources.count(each) for each in sources]), "inverted_cdf"
    sizes = ((np.abs(errors), 0.5), (np.abs(errors), 0.9), (errors, 0.5))
    names = ("median_abs_error", "p90_abs_error", "bias")
    found = [float(np.quantile(values, share, weights=weights, method=method)) for values, share in sizes]  # type: ignore[call-overload]
    return dict(zip(names, found, strict=True))


def _memory_errors(scored: Sequence[TimeComparison]) -> MemoryErrors | None:
    errors = [error for each in scored if (error := each.memory_error) is not None]
    return MemoryErrors(rows=len(errors), **_median_p90_bias(np.asarray(errors))) if errors else None


def worst_times(comparisons: Sequence[TimeComparison], number: int) -> list[TimeComparison]:
    """The covered and scored runs with the largest errors, at most `number`, the largest first."""
    predicted = [c for c in comparisons if c.relative_error is not None and c.measured.scored]
    return sorted(predicted, key=lambda c: abs(c.relative_error or 0.0), reverse=True)[:number]


def recomputed_mfu(measured: MeasuredRun) -> float | None:
    """Model FLOPs per token * tokens / (time * GPUs * peak): what a source should print for its own time.

    None where the batch is not stated or the GPU's peak is not known.
    """
    if measured.global_batch_size is None or measured.peak_flop_per_s is None:
        return None
    tokens = measured.global_batch_size * measured.sequence_length
    flop = printed_flop_per_token(measured.model, measured.sequence_length, convention=measured.mfu_convention) * tokens
    return float(flop / (measured.iteration_time_s * measured.gpus * measured.peak_flop_per_s))


def printed_flop_per_token(model: TransformerModel, sequence_length: Numeric, *, convention: str) -> Numeric:
    """Model FLOPs of a token as a source counts them.

    products    every matrix product (count/iteration.py): most papers
    multi_head  the same, with as many KV heads as heads
    parameters  6 for each parameter, whether it is multiplied or not, and attention in full: 6*N + 12*L*q*s
    """
    match convention:
        case "parameters":
            return 6.0 * parameter_count(model).total + attention_flop_per_token(model, sequence_length)
        case "multi_head":
            model = replace(model, kv_heads=model.attention_heads)
    return model_flop_per_token(model, sequence_length)
