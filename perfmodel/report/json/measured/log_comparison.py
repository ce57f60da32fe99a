"""How a log beside a prediction looks as JSON."""

from __future__ import annotations

from typing import Any

from perfmodel.exchange.questions.measured_logs import LogComparison
from perfmodel.exchange.translation.logs.log_records import record_document
from perfmodel.report.json.prediction import SCHEMA_VERSION


def log_comparison_document(found: LogComparison) -> dict[str, Any]:
    """Times, rates and memory, predicted and measured, and the record of the log."""
    (row,) = found.rows()
    ends = [row.pop("predicted_low_s"), row.pop("predicted_high_s")]
    return {
        "schema_version": SCHEMA_VERSION,
        **row,
        "interval_s": ends,
        "record": record_document(found.record),
        "doubts": list(found.doubts),
    }
