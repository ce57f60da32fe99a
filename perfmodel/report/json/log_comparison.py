"""How a log beside a prediction looks as JSON."""

from __future__ import annotations

from typing import Any

from perfmodel.exchange.questions.measured_logs import LogComparison, tokens_of_a_gpu
from perfmodel.exchange.translation.logs.log_records import record_document
from perfmodel.report.json.prediction import SCHEMA_VERSION
from perfmodel.units import GIBIBYTE


def log_comparison_document(found: LogComparison) -> dict[str, Any]:
    """Times, rates and memory, predicted and measured, and the record of the log."""
    memory = found.predicted_memory_bytes
    return {
        "schema_version": SCHEMA_VERSION,
        "run": found.name,
        "log": found.log,
        "stage": found.stage,
        "predicted_s": float(found.predicted.iteration_time_s),
        "interval_s": list(found.interval_s),
        "measured_s": found.measured_s,
        "relative_error": found.relative_error,
        "inside_interval": found.is_inside,
        "predicted_tokens_per_s_per_gpu": tokens_of_a_gpu(found.predicted) / float(found.predicted.iteration_time_s),
        "measured_tokens_per_s_per_gpu": found.measured_rate,
        "predicted_memory_gib": None if memory is None else memory / GIBIBYTE,
        "record": record_document(found.record),
        "doubts": list(found.doubts),
    }
