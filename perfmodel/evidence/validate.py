"""How wrong the predictions are on measured runs: one comparison a run, and the errors of groups of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from perfmodel.count.iteration import model_flop_per_token
from perfmodel.predict import predict
from perfmodel.spec.fields import Numeric
from perfmodel.spec.model import TransformerModel
from perfmodel.spec.run import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One measured iteration; `run` is None when it is not covered, for the `reason`."""

    run_id: str
    source: str
    labels: Mapping[str, str]
    measured_s: float
    run: Run | None
    reason: str
    assumptions: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A measurement beside its prediction; `predicted_s` is None when the measurement is not covered."""

    measurement: Measurement
    predicted_s: float | None
    interval_s: tuple[float, float] | None

    @property
    def relative_error(self) -> float | None:
        """predicted / measured - 1: positive when the prediction is too slow."""
        return None if self.predicted_s is None else self.predicted_s / self.measurement.measured_s - 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorSummary:
    """The errors of a group: medians over its predicted rows, and how many measurements lie in their 90 % interval."""

    rows: int
    median_abs_error: float
    p90_abs_error: float
    bias: float  # the median error with its sign
    interval_coverage: float


def compare(measurement: Measurement) -> Comparison:
    """The prediction of a one-stage run beside what was measured."""
    if measurement.run is None:
        return Comparison(measurement=measurement, predicted_s=None, interval_s=None)
    (_, stage), *_ = predict(measurement.run).stages
    low, high = stage.iteration_time_interval_s
    return Comparison(measurement=measurement, predicted_s=float(stage.iteration_time_s), interval_s=(float(low), float(high)))


def summarise(comparisons: Sequence[Comparison]) -> ErrorSummary | None:
    """The errors of all predicted rows among `comparisons`, or None when there is none."""
    errors = np.asarray([c.relative_error for c in comparisons if c.relative_error is not None])
    if not errors.size:
        return None
    inside = [c.interval_s[0] <= c.measurement.measured_s <= c.interval_s[1] for c in comparisons if c.interval_s is not None]
    return ErrorSummary(
        rows=errors.size,
        median_abs_error=float(np.median(np.abs(errors))),
        p90_abs_error=float(np.quantile(np.abs(errors), 0.9)),
        bias=float(np.median(errors)),
        interval_coverage=float(np.mean(inside)),
    )


def grouped(comparisons: Sequence[Comparison]) -> dict[str, dict[str, ErrorSummary]]:
    """Summaries by source, and by each label, of the groups with a predicted row."""
    keys: dict[str, Callable[[Comparison], str]] = {"source": lambda c: c.measurement.source}
    for label in comparisons[0].measurement.labels if comparisons else ():
        keys[label] = lambda c, label=label: c.measurement.labels[label]  # type: ignore[misc]
    result: dict[str, dict[str, ErrorSummary]] = {}
    for name, key in keys.items():
        members = {value: summarise([c for c in comparisons if key(c) == value]) for value in sorted({key(c) for c in comparisons})}
        result[name] = {value: summary for value, summary in members.items() if summary is not None}
    return result


def unsupported(comparisons: Sequence[Comparison]) -> dict[str, int]:
    """How many rows are not covered, by reason, most frequent first."""
    return dict(Counter(c.measurement.reason for c in comparisons if c.predicted_s is None).most_common())


def recomputed_mfu(
    model: TransformerModel, *, sequence_length: Numeric, global_batch_size: Numeric, iteration_time_s: Numeric, gpus: Numeric, peak: Numeric
) -> Numeric:
    """Model FLOPs per token * tokens / (time * GPUs * peak): what a source should print for its own time.

    >>> from perfmodel.exchange.presets import model_preset
    >>> nemotron = model_preset("nemotron-4-15b")
    >>> mfu = recomputed_mfu(nemotron, sequence_length=4096, global_batch_size=384, iteration_time_s=0.57, gpus=768, peak=989.4e12)
    >>> round(float(mfu), 3)  # the paper prints 0.343
    0.341
    """
    tokens = global_batch_size * sequence_length
    return model_flop_per_token(model, sequence_length) * tokens / (iteration_time_s * gpus * peak)
