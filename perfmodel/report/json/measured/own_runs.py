"""How own runs look as JSON: what they do to one prediction, and what `perfmodel calibrate --from-runs` found."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from perfmodel.evidence.own_calibration import OwnCalibration
from perfmodel.report.json.prediction import SCHEMA_VERSION


def own_calibration_document(found: OwnCalibration, *, table: str) -> dict[str, Any]:
    """The runs, the groups with their shifts (logarithms of a ratio of times), and the rows that were left out."""
    return {
        "schema_version": SCHEMA_VERSION,
        "table": table,
        "median_shift": found.median_shift,
        "stretch": found.stretch,
        "runs": found.rows(),
        "shifts": [asdict(each) | {"settings": list(each.settings)} for each in found.shifts],
        "left_out": [asdict(each) for each in found.left_out],
    }
