"""How scoreboards look as JSON: every row, the scores of groups of them and of all (DESIGN, section 6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from perfmodel.count.memory.fit import fit_verdict
from perfmodel.evidence.groups import Scoreboard, group_names
from perfmodel.evidence.interval_scores import Reliability
from perfmodel.evidence.measured_rows import UnreadRow
from perfmodel.evidence.memory_scores import FitComparison, FitSummary
from perfmodel.evidence.time_scores import ErrorSummary, TimeComparison, time_reliability
from perfmodel.report.json.prediction import SCHEMA_VERSION


def validation_document(
    scoreboard: Scoreboard[TimeComparison, ErrorSummary], *, complete: bool = True, leave_source_out: bool = False
) -> dict[str, Any]:
    """The scoreboard of iteration times; `complete` is false when not all rows of the table are in it."""
    overall = scoreboard.overall
    return {
        "schema_version": SCHEMA_VERSION,
        "complete": complete,
        "leave_source_out": leave_source_out,
        "overall": None if overall is None else asdict(overall),
        "reliability": _reliability(time_reliability(scoreboard.comparisons)),
        "groups": {group: {name: asdict(each) for name, each in names.items()} for group, names in scoreboard.groups.items()},
        "unsupported": dict(scoreboard.unsupported),
        "rows": _in_order(scoreboard),
    }


def _reliability(found: Reliability | None) -> list[dict[str, float]]:
    """Observed shares of measurements by the share that their intervals state."""
    levels = () if found is None else found.rows
    return [
        {"stated": level, "rows": found.rows[level], "by_source": found.by_source[level]}
        for level in levels
        if found is not None
    ]


def _in_order(scoreboard: Scoreboard[TimeComparison, ErrorSummary]) -> list[dict[str, Any]]:
    """Rows that are predicted and rows that cannot be read, as their table has them."""
    rows = [((each.measured.file, each.measured.line), _comparison_document(each)) for each in scoreboard.comparisons]
    rows += [((each.file, each.line), _unread_document(each)) for each in scoreboard.unread]
    return [document for _, document in sorted(rows, key=lambda row: row[0])]


def _unread_document(row: UnreadRow) -> dict[str, Any]:
    """A row that cannot be read, as one that is not predicted."""
    return {"run_id": row.run_id, "source": row.source, "line": row.line, "predicted_s": None, "reason": row.reason}


def _comparison_document(comparison: TimeComparison) -> dict[str, Any]:
    flat, measured = comparison.row(), comparison.measured
    del flat["interval_low_s"], flat["interval_high_s"]
    if comparison.predicted_s is not None:
        del flat["reason"]
    return flat | {
        "groups": group_names(measured),
        "interval_s": None if comparison.interval_s is None else list(comparison.interval_s),
        "breakdown_s": _parts(comparison.breakdown, "_s"),
        "assumptions": list(measured.assumptions),
    }


def memory_document(scoreboard: Scoreboard[FitComparison, FitSummary], *, complete: bool = True) -> dict[str, Any]:
    """The scoreboard of what fits; `complete` is false when not all rows of the table are in it."""
    return {
        "schema_version": SCHEMA_VERSION,
        "complete": complete,
        **_shares(scoreboard.overall),
        "groups": {
            group: {name: {"rows": each.rows, **_shares(each)} for name, each in names.items()}
            for group, names in scoreboard.groups.items()
        },
        "unsupported": dict(scoreboard.unsupported),
        "rows": [*map(_fit_document, scoreboard.comparisons), *map(_unread_fit_document, scoreboard.unread)],
    }


def _unread_fit_document(row: UnreadRow) -> dict[str, Any]:
    return {"run_id": row.run_id, "source": row.source, "line": row.line, "predicted_fits": None, "reason": row.reason}


def _shares(summary: FitSummary | None) -> dict[str, Any]:
    shares = ("agreement", "fits_called_impossible", "impossible_called_fits")
    counts = ("fitted", "fits_refused", "did_not_fit", "misfits_passed")
    return {name: None if summary is None else getattr(summary, name) for name in shares} | {
        "counts": {name: 0 if summary is None else getattr(summary, name) for name in counts}
    }


def _fit_document(comparison: FitComparison) -> dict[str, Any]:
    measured, memory = comparison.measured, comparison.memory
    document: dict[str, Any] = {
        "run_id": measured.run_id,
        "source": measured.source,
        "model": measured.model_name,
        "groups": group_names(measured),
        "fits": measured.fits,
        "predicted_fits": comparison.predicted_fits,
        "verdict": None if comparison.fit_probability is None else fit_verdict(comparison.fit_probability),
        "fit_probability": comparison.fit_probability,
        "total_bytes": None if memory is None else float(memory.total_bytes),
        "headroom_bytes": comparison.headroom_bytes,
        "memory": _parts(memory, ""),
        "assumptions": list(measured.assumptions),
    }
    return document if memory is not None else document | {"reason": measured.reason}


def _parts(parts: Any, suffix: str) -> Mapping[str, float] | None:
    """A breakdown, or the parts of memory, as `predict --json` names them."""
    return None if parts is None else {name.removesuffix(suffix): value for name, value in parts.items()}


def memory_rows(scoreboard: Scoreboard[FitComparison, FitSummary]) -> list[dict[str, Any]]:
    """The rows of a table of what fits, with their predictions, for CSV."""
    return [_flat(_fit_document(comparison)) for comparison in scoreboard.comparisons]


def _flat(document: Mapping[str, Any]) -> dict[str, Any]:
    """Single values as they are; tables and lists of words are for JSON."""
    return {name: value for name, value in document.items() if not isinstance(value, Mapping | list | tuple)}
