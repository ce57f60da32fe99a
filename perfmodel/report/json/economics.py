"""How the outlook of a run looks as JSON: units in the names of keys, SI units but for days, GPU-hours and dollars."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from perfmodel.economics.outlook import Outlook, StageOutlook


def economics_document(outlook: Outlook) -> dict[str, Any]:
    """Totals, then every stage; null where the tokens, a price or the power of a node are not known."""
    return {
        "terms": outlook.terms.name,
        "billing": outlook.terms.billing,
        "stages": [_stage(stage) for stage in outlook.stages],
        "days": outlook.days,
        "calendar_days": outlook.calendar_days,
        "calendar_interval_days": _ends(outlook.calendar_interval_days),
        "gpu_hours": outlook.gpu_hours,
        "dollars": outlook.dollars,
        "dollars_interval": _ends(outlook.dollars_interval),
        "energy_j": outlook.energy_j,
        "energy_interval_j": _ends(outlook.energy_interval_j),
        "carbon_kg": outlook.carbon_kg,
        "failures": outlook.failures,
        "effective_share": outlook.effective_share,
    } | outlook.percentiles()


def _stage(stage: StageOutlook) -> dict[str, Any]:
    values = {entry.name: getattr(stage, entry.name) for entry in fields(stage)}
    shares = {entry.name: float(getattr(stage.shares, entry.name)) for entry in fields(stage.shares)}
    return values | {
        "calendar_interval_days": _ends(stage.calendar_interval_days),
        "shares": shares,
        "effective_share": stage.effective_share,
    }


def _ends(interval: tuple[float, float] | None) -> list[float] | None:
    return None if interval is None else list(interval)
