"""How errors of fine-tuning forecasts look as JSON and as rows of tables."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

from perfmodel.evidence.tuning.rows import FITS
from perfmodel.evidence.tuning.scores import TuningComparison, TuningScoreboard

SCHEMA_VERSION: Final = 1


def tuning_validation_document(scores: TuningScoreboard, *, leave_source_out: bool) -> dict[str, Any]:
    """The errors of each metric, of groups, and every row."""
    return {
        "schema_version": SCHEMA_VERSION,
        "leave_source_out": leave_source_out,
        "overall": {metric: asdict(each) for metric, each in scores.overall.items()},
        "groups": {
            group: {name: {metric: asdict(each) for metric, each in found.items()} for name, found in names.items()}
            for group, names in scores.groups.items()
        },
        "unsupported": dict(scores.unsupported),
        "rows": tuning_validation_rows(scores),
    }


def tuning_validation_rows(scores: TuningScoreboard) -> list[dict[str, Any]]:
    """A row for each metric of each run."""
    return [_row(each) for each in scores.comparisons]


def _row(each: TuningComparison) -> dict[str, Any]:
    measured = each.measured
    row: dict[str, Any] = {
        "run_id": measured.run_id,
        "metric": each.metric,
        "measured": _value(each.metric, each.value),
        "predicted": None if each.predicted is None else _value(each.metric, each.predicted),
        "interval": None if each.interval is None else list(each.interval),
        "relative_error": each.relative_error,
        "verdict": each.verdict or None,
        "source": measured.source,
        "groups": dict(measured.labels),
        "scored": each.is_scored,
    }
    return row | ({"reason": each.reason} if each.reason else {})


def _value(metric: str, value: float) -> float | str:
    """A number, and of verdicts yes or no."""
    return value if metric != FITS else "yes" if value else "no"
