"""What the steps of a log say: a record of its steady ones, with what was left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any, Final

from perfmodel.light_dataclass import dataclass
from perfmodel.units import GIBIBYTE

CONVENTIONS: Final = ("full", "causal", "unknown")  # how attention counts in a printed TFLOP/s


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRecord:
    """The steady steps of a log. What it does not print is None.

    `steps` are those behind the median; `interval_s` are the ends between which nine of ten of them lie. `left_out` counts, by
    reason, the steps that are no part of it; `restarts` how often the run began again. `series` are iterations with their
    times, steady or not, evenly over the log.
    """

    iteration_time_s: float | None
    interval_s: tuple[float, float] | None
    steps: int
    tokens_per_s_per_gpu: float | None = None
    samples_per_s: float | None = None  # of all GPUs
    memory_bytes: float | None = None
    memory_kind: str = ""  # allocated | reserved
    printed_tflop_per_s_per_gpu: float | None = None
    tflop_convention: str = "unknown"
    global_batch_size: int | None = None
    gpus: int | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)
    restarts: int = 0
    series: tuple[tuple[float, float], ...] = field(default=(), repr=False)
    notes: tuple[str, ...] = ()

    def time_s(self, *, tokens_of_a_gpu: float, batch: float) -> float | None:
        """The time of an iteration of so much work: as it is printed, or as a rate has it; None where it says neither."""
        if self.iteration_time_s is not None:
            return self.iteration_time_s
        if self.tokens_per_s_per_gpu:
            return tokens_of_a_gpu / self.tokens_per_s_per_gpu
        return batch / self.samples_per_s if self.samples_per_s else None


def record_document(record: LogRecord) -> dict[str, Any]:
    """The record as JSON has it."""
    memory = record.memory_bytes
    return {
        "iteration_time_s": record.iteration_time_s,
        "iteration_time_interval_s": None if record.interval_s is None else list(record.interval_s),
        "steps": record.steps,
        "tokens_per_s_per_gpu": record.tokens_per_s_per_gpu,
        "memory_gib": None if memory is None else memory / GIBIBYTE,
        "memory_kind": record.memory_kind or None,
        "printed_tflop_per_s_per_gpu": record.printed_tflop_per_s_per_gpu,
        "tflop_convention": record.tflop_convention if record.printed_tflop_per_s_per_gpu is not None else None,
        "global_batch_size": record.global_batch_size,
        "gpus": record.gpus,
        "left_out": dict(record.left_out),
        "restarts": record.restarts,
        "notes": list(record.notes),
    }
