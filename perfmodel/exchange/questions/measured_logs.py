"""How a log stands beside the prediction of its run: the stage that it is of, times, rates and memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from perfmodel.errors import InputError, PerfmodelError
from perfmodel.evidence.time_scores import seen_bytes
from perfmodel.exchange.importers.registry import conversion_at
from perfmodel.exchange.questions.varied_runs import stage_index
from perfmodel.exchange.translation.logs.log_records import LogRecord
from perfmodel.frames import Tabular
from perfmodel.light_dataclass import dataclass
from perfmodel.prediction import Prediction, StagePrediction
from perfmodel.units import GIBIBYTE, gpus_text, seconds_text


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class LogComparison(Tabular):
    """The steady steps of a log beside the prediction of one ramp stage, counted from 1."""

    name: str
    log: str
    stage: int
    predicted: StagePrediction
    record: LogRecord
    measured_s: float
    doubts: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """Predicted beside measured time of the steady steps."""
        predicted_s = float(self.predicted.iteration_time_s)
        return f"{self.name}: {seconds_text(predicted_s)} predicted, {seconds_text(self.measured_s)} measured ({self.log})"

    def rows(self) -> list[dict[str, Any]]:
        """One row: times and rates, predicted and measured."""
        low_s, high_s = self.interval_s
        memory, predicted_s = self.predicted_memory_bytes, float(self.predicted.iteration_time_s)
        return [
            {
                "run": self.name,
                "log": self.log,
                "stage": self.stage,
                "predicted_s": predicted_s,
                "predicted_low_s": low_s,
                "predicted_high_s": high_s,
                "measured_s": self.measured_s,
                "relative_error": self.relative_error,
                "inside_interval": self.is_inside,
                "predicted_tokens_per_s_per_gpu": tokens_of_a_gpu(self.predicted) / predicted_s,
                "measured_tokens_per_s_per_gpu": self.measured_rate,
                "predicted_memory_gib": None if memory is None else memory / GIBIBYTE,
            }
        ]

    @property
    def interval_s(self) -> tuple[float, float]:
        """Between which times the prediction lies with 90 %."""
        low, high = (float(end) for end in self.predicted.iteration_time_interval_s)
        return low, high

    @property
    def relative_error(self) -> float:
        """Predicted over measured, less one."""
        return float(self.predicted.iteration_time_s) / self.measured_s - 1.0

    @property
    def is_inside(self) -> bool:
        """Whether the measured time lies in the interval of the prediction."""
        low, high = self.interval_s
        return low <= self.measured_s <= high

    @property
    def predicted_memory_bytes(self) -> float | None:
        """What is predicted of the kind of memory that the log prints; None where it prints none."""
        if self.record.memory_bytes is None:
            return None
        return float(np.max(seen_bytes(self.predicted.memory, self.record.memory_kind)))

    @property
    def measured_rate(self) -> float:
        """Measured tokens/s a GPU."""
        return tokens_of_a_gpu(self.predicted) / self.measured_s


def tokens_of_a_gpu(predicted: StagePrediction) -> float:
    """Tokens of an iteration, a GPU."""
    return float(predicted.layout.tokens_per_iteration) / float(predicted.layout.gpus)


def log_record(path: Path) -> LogRecord:
    """The record of the log at `path`. Errors: InputError for a file that is no log, or has no steps."""
    found = conversion_at(path)
    if found is None:
        raise InputError(f"{path} is no log that is recognised by its content")
    if found.record is None:
        raise InputError(f"{path} is a {found.format} without the line of a step")
    return found.record


def log_comparison(prediction: Prediction, path: Path, *, stage: int | None = None) -> LogComparison:
    """The log at `path` beside a prediction: of a named stage (from 1), else of the one with its batch, else the last.

    Errors: InputError for a file that is no log, or does not say how long an iteration takes.
    """
    record, run = log_record(path), prediction.run
    place = stage_index(run, stage) if stage is not None else _stage_of(prediction, record)
    predicted = prediction.stages[place][1]
    batch = float(predicted.layout.global_batch_size)
    measured_s = record.time_s(tokens_of_a_gpu=tokens_of_a_gpu(predicted), batch=batch)
    if not measured_s:
        raise InputError(f"{path} does not say how long an iteration takes")
    return LogComparison(
        name=run.name,
        log=path.name,
        stage=place + 1,
        predicted=predicted,
        record=record,
        measured_s=measured_s,
        doubts=tuple(_doubts(predicted, record)),
    )


def _stage_of(prediction: Prediction, record: LogRecord) -> int:
    """The last stage with the batch of the log, or the last of all."""
    batches = [int(stage.global_batch_size) for stage, _ in prediction.stages]
    places = [place for place, batch in enumerate(batches) if batch == record.global_batch_size]
    return places[-1] if places else len(batches) - 1


def _doubts(predicted: StagePrediction, record: LogRecord) -> Iterator[str]:
    """What of the log is another run than the predicted one."""
    gpus, batch = int(predicted.layout.gpus), int(predicted.layout.global_batch_size)
    if record.gpus is not None and record.gpus != gpus:
        yield f"the log is of {gpus_text(record.gpus)}, the prediction of {gpus_text(gpus)}"
    if record.global_batch_size is not None and record.global_batch_size != batch:
        yield f"the log has a global batch of {record.global_batch_size:,}, the prediction one of {batch:,}"


def is_log(path: Path) -> bool:
    """Whether a file is the log of a training, with the lines of steps."""
    try:
        return path.is_file() and bool(log_record(path))
    except PerfmodelError:
        return False


def measured_text(path: Path) -> str:
    """The speed that a log tells, as `--measured` takes it: a time, tokens/s a GPU, or samples/s. Errors: InputError."""
    record = log_record(path)
    if record.iteration_time_s is not None:
        return f"{record.iteration_time_s:.7g}s"
    if record.tokens_per_s_per_gpu is not None:
        return f"{record.tokens_per_s_per_gpu:.7g}tokens/s/gpu"
    if record.samples_per_s is not None:
        return f"{record.samples_per_s:.7g}samples/s"
    raise InputError(f"{path} does not say how long an iteration takes")
