"""How a what-if looks as JSON: the run before, each scenario, and the difference in every number."""

from __future__ import annotations

from typing import Any

from perfmodel.report.json.prediction import SCHEMA_VERSION
from perfmodel.variation.scenarios import Scenario, WhatIf


def whatif_document(result: WhatIf) -> dict[str, Any]:
    """Numbers of the shown stage and totals of the run, before and in each scenario; differences are after less before."""
    before = result.quantities(result.before)
    run = result.before.prediction.run
    return {
        "schema_version": SCHEMA_VERSION,
        "name": run.name,
        "stage": len(run.stages) if result.place < 0 else result.place + 1,
        "stages": len(run.stages),
        "before": _fit(result.before) | {"assumptions": list(result.before.assumptions)} | _without_fit(before),
        "scenarios": [_scenario_document(result, each, before) for each in result.scenarios],
        "fits": result.fits,
        "taken": list(result.taken),
    }


def _scenario_document(result: WhatIf, scenario: Scenario, before: dict[str, Any]) -> dict[str, Any]:
    after = _without_fit(result.quantities(scenario))
    known = [name for name, value in after.items() if value is not None and before[name] is not None]
    return {
        "name": scenario.name,
        "settings": list(scenario.settings),
        **_fit(scenario),
        "assumptions": list(scenario.assumptions),
        **after,
        "difference": {name: after[name] - before[name] for name in known},
        "time_ratio": result.time_ratio(scenario),
        "time_ratio_interval": list(result.time_ratio_interval(scenario)),
    }


def _fit(scenario: Scenario) -> dict[str, Any]:
    """Whether all stages of a scenario fit."""
    predicted = scenario.prediction
    return {"fits": predicted.fits, "verdict": predicted.verdict, "fit_probability": predicted.fit_probability}


def _without_fit(numbers: dict[str, Any]) -> dict[str, Any]:
    """What is said of all stages beside them is left out."""
    return {name: value for name, value in numbers.items() if name not in ("fits", "fit_probability")}
