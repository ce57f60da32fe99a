"""How measured passes of a served model look as JSON beside their forecast: SI units in the names of keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perfmodel.evidence.steps.pass_comparison import InferComparison, PassComparison
from perfmodel.report.json.measured.step import compared_pair
from perfmodel.report.json.prediction import SCHEMA_VERSION


def passes_document(comparison: InferComparison) -> dict[str, Any]:
    """Forecast and measurement of prefill and decode."""
    record = comparison.record
    return {
        "schema_version": SCHEMA_VERSION,
        "name": record.name,
        "sequences": record.sequences,
        "input_tokens": record.input_tokens,
        "output_tokens": record.output_tokens,
        "passes": {name: _pass(each) for name, each in comparison.passes.items()},
        "memory_bytes": {name.removesuffix("_bytes"): compared_pair(pair) for name, pair in comparison.memory.items()},
        "warnings": list(record.warnings),
        "provenance": dict(record.provenance),
    }


def _pass(found: PassComparison) -> Mapping[str, Any]:
    return {
        "time_s": compared_pair(found.whole),
        "interval_s": list(found.interval_s),
        "spread": found.record.spread,
        "repeats": found.record.repeats,
        "operators": [pair.row() for pair in found.operators],
        "collectives": [
            {"kind": group.kind, "ranks": group.ranks, "calls": compared_pair(calls)}
            | {"payload_bytes": compared_pair(found.payload_bytes[group])}
            for group, calls in found.calls.items()
        ],
    }
