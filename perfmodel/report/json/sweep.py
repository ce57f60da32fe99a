"""How a sweep looks as JSON."""

from __future__ import annotations

from typing import Any

from perfmodel.report.json.prediction import SCHEMA_VERSION
from perfmodel.variation.sweep import Sweep


def sweep_document(result: Sweep) -> dict[str, Any]:
    """Axes, points with every number (null and a `refusal` where one cannot be), and which scaling it is."""
    curve = result.scaling
    return {
        "schema_version": SCHEMA_VERSION,
        "name": result.name,
        "stage": result.stage,
        "stages": result.stages,
        "axes": [{"key": axis.key, "labels": list(axis.labels)} for axis in result.axes],
        "points": result.rows(),
        "scaling": None if curve is None else {"kind": curve.kind, "axis": result.axes[curve.axis].key},
        "fits": result.fits,
        "complete": result.complete,
        "taken": list(result.taken),
    }
