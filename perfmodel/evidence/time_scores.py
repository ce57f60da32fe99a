"""How wrong predicted iteration times are on measured runs, one by one and in groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from perfmodel.count.flops import attention_flop_per_token, model_flop_per_token
from perfmodel.count.parameters import parameter_count
from perfmodel.evidence.groups import Scoreboard, by_group, unsupported_reasons
from perfmodel.evidence.measured_rows import MeasuredRun
from perfmodel.prediction import predict
from perfmodel.spec.fields import Numeric
from perfmodel.spec.model import TransformerModel
from perfmodel.timing.breakdown import PARTS, Breakdown

SCORES: Final = ("median", "p90", "bias")


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeComparison:
    """A measured run beside its prediction; all but `measured` is None where the run is not covered."""

    measured: MeasuredRun
    predicted_s: float | None = None
    interval_s: tuple[float, float] | None = None
    breakdown: Breakdown | None = None  # of single numbers: where the predicted time goes
    memory_bytes: float | None = None

    @property
    def relative_error(self) -> float | None:
        """predicted / measured - 1: positive where the prediction is too slow, None where the run is not covered."""
        return None if self.predicted_s is None else self.predicted_s / self.measured.iteration_time_s - 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorSummary:
    """The errors of a group of measured runs, and the share of measurements that lie in their 90 % interval."""

    rows: int
    median_abs_error: float
    p90_abs_error: float
    bias: float  # the median error with its sign
    interval_coverage: float

    @property
    def scores(self) -> Mapping[str, float | None]:
        """What a threshold can be set for, by its name in SCORES; the smaller the better."""
        return dict(zip(SCORES, (self.median_abs_error, self.p90_abs_error, abs(self.bias)), strict=True))


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
        breakdown=Breakdown(**{part: float(getattr(stage.breakdown, part)) for part in PARTS}),
        memory_bytes=float(stage.memory.total_bytes),
    )


def time_scoreboard(comparisons: Sequence[TimeComparison]) -> Scoreboard[TimeComparison, ErrorSummary]:
    """The comparisons with the summaries of all and of each group."""
    return Scoreboard(
        comparisons=comparisons,
        overall=summarise_times(comparisons),
        groups=by_group(comparisons, summarise_times),
        unsupported=unsupported_reasons(comparisons),
    )


def summarise_times(comparisons: Sequence[TimeComparison]) -> ErrorSummary | None:
    """The errors of the covered runs among `comparisons`; None where none is covered."""
    errors = np.asarray([c.relative_error for c in comparisons if c.relative_error is not None])
    if not errors.size:
        return None
    inside = [
        c.interval_s[0] <= c.measured.iteration_time_s <= c.interval_s[1] for c in comparisons if c.interval_s is not None
    ]
    return ErrorSummary(
        rows=errors.size,
        median_abs_error=float(np.median(np.abs(errors))),
        p90_abs_error=float(np.quantile(np.abs(errors), 0.9)),
        bias=float(np.median(errors)),
        interval_coverage=float(np.mean(inside)),
    )


def worst_times(comparisons: Sequence[TimeComparison], number: int) -> list[TimeComparison]:
    """The covered runs with the largest errors, at most `number`, the largest first."""
    predicted = [c for c in comparisons if c.relative_error is not None]
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
