"""How a plan looks as JSON, and as the run file that the other commands take."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from perfmodel.exchange.presets import economics_preset
from perfmodel.exchange.run_files import TYPICAL
from perfmodel.exchange.spec_mappings import mapping_of
from perfmodel.report.json.prediction import SCHEMA_VERSION
from perfmodel.search.alternatives import Alternative, setting_differences
from perfmodel.search.hardware import HardwarePlans
from perfmodel.search.layouts.search import LayoutCandidate
from perfmodel.search.option import SizeOption
from perfmodel.search.plan import Plan, StagePlan
from perfmodel.search.remedies import Obstacle
from perfmodel.spec.run import OF_A_STAGE, SETTINGS
from perfmodel.units import gpus_text

OF_A_RUN: Final = tuple(name for name in SETTINGS if name not in OF_A_STAGE)  # what all stages of one run share


def plan_document(plan: Plan) -> dict[str, Any]:
    """The best option with its layouts, every other option, and what stands in the way where there is none."""
    return {
        "schema_version": SCHEMA_VERSION,
        "model": plan.question.model.name,
        "cluster": plan.question.cluster.name,
        "stack": plan.question.stack.name,
        "complete": plan.complete,
        "layouts": plan.layouts,
        "layouts_that_fit": plan.fitting,
        "deadline_s": plan.question.deadline_s,
        "least_gpus": plan.least_gpus,
        "budget_dollars": plan.question.budget_dollars,
        "confidence": plan.question.confidence,
        "best": None if plan.best is None else _option(plan.best, plan),
        "best_by": {
            name: None if option is None else option.gpus
            for name, option in (("time", plan.by_time), ("cost", plan.by_cost), ("gpus", plan.by_gpus))
        },
        "stages": [_stage(stage) for stage in plan.stages],
        "options": [_option(option, plan) for option in plan.options],
        "front_gpus": [option.gpus for option in plan.front],
        "obstacle": None if plan.obstacle is None else _obstacle(plan.obstacle),
        "assumptions": list(plan.question.assumptions),
    }


def hardware_document(found: HardwarePlans) -> dict[str, Any]:
    """A row of figures for each cluster, the fastest and the cheapest, and each plan whole."""
    return {
        "schema_version": SCHEMA_VERSION,
        "fastest": found.fastest,
        "as_fast": list(found.as_fast),
        "cheapest": found.cheapest,
        "clusters": found.rows(),
        "plans": {name: plan_document(plan) for name, plan in found.plans.items()},
    }


def run_documents(plan: Plan) -> list[dict[str, Any]]:
    """The plan as what run files hold: one, or one for each stage where their layouts differ. Empty without a best option."""
    if plan.best is None:
        return []
    layouts = [layout.settings for layout in plan.best.chain.layouts]
    stages = [
        {name: settings[name] for name in OF_A_STAGE}
        | ({} if stage.tokens is None else {"tokens": int(stage.tokens) if float(stage.tokens).is_integer() else stage.tokens})
        for settings, stage in zip(layouts, plan.question.stages, strict=True)
    ]
    title = f"{plan.question.model.name}, planned for {gpus_text(plan.best.gpus)}"
    shared = [{name: settings[name] for name in OF_A_RUN if name in settings} for settings in layouts]
    parts, terms = dict(plan.question.names), _economics(plan)
    if all(each == shared[0] for each in shared):
        return [{"name": title} | parts | shared[0] | {"stages": stages} | terms]
    return [
        {"name": f"{title}, stage {number}"} | parts | each | {"stages": [stage]} | terms
        for number, (each, stage) in enumerate(zip(shared, stages, strict=True), start=1)
    ]


def _economics(plan: Plan) -> dict[str, Any]:
    """The terms of the plan as a run file has them: what differs from the typical ones, or all where they are others."""
    given, typical = mapping_of(plan.question.terms), mapping_of(economics_preset(TYPICAL))
    if given["name"] == typical["name"]:
        given = {key: value for key, value in given.items() if value != typical[key]}
    return {"economics": given} if given else {}


def _option(option: SizeOption, plan: Plan) -> dict[str, Any]:
    known = plan.question.has_tokens
    return {
        "gpus": option.gpus,
        "within_limits": option in plan.allowed,
        "days": option.days if known else None,
        "calendar_days": option.calendar_days if known else None,
        "gpu_hours": option.gpu_hours if known else None,
        "dollars": option.dollars if known else None,
        **option.odds_figures(),
        "switches": option.chain.switches,
        "stages": [_candidate(layout) for layout in option.chain.layouts],
    }


def _candidate(candidate: LayoutCandidate) -> dict[str, Any]:
    figures = {"iteration_time_s": _finite(candidate.iteration_time_s), "memory_bytes": candidate.memory_bytes}
    return figures | {"layout": dict(candidate.settings)}


def _stage(stage: StagePlan) -> dict[str, Any]:
    low, high = (float(end) for end in stage.prediction.iteration_time_interval_s)
    first, *others = stage.robustness.first_share
    return _candidate(stage.best) | {
        "iteration_time_interval_s": [low, high],
        "mfu": float(stage.prediction.mfu),
        "verdict": stage.prediction.verdict,
        "fit_probability": float(stage.prediction.fit_probability),
        "first_share": first,
        "behind": stage.robustness.mean_regret,
        "behind_most": stage.robustness.regret_p95,
        "rivals": [
            _candidate(rival)
            | {
                "slower_by": rival.iteration_time_s / stage.best.iteration_time_s - 1.0,
                "first_share": share,
                "differs": {
                    name: value for name, (_, value) in setting_differences(stage.best.settings, rival.settings).items()
                },
            }
            for rival, share in zip(stage.rivals, others, strict=True)
        ],
        "alternatives": [_alternative(each) for each in stage.alternatives],
        "front": [_candidate(each) for each in stage.front],
    }


def _alternative(each: Alternative) -> dict[str, Any]:
    return {
        "setting": each.setting,
        "value": each.value,
        "fits": each.candidate is not None,
        "slower_by": _finite(each.slower_by),
        "needed_bytes": each.needed_bytes,
        "loses_most_in": each.part.removesuffix("_s") or None,
        "loses_s": each.part_s,
    }


def _obstacle(found: Obstacle) -> dict[str, Any]:
    return {
        "nearest": _candidate(found.nearest),
        "missing_bytes": found.missing_bytes,
        "largest_part": found.part.removesuffix("_bytes"),
        "remedies": [{"change": remedy.kind, "gpus": remedy.gpus} | _candidate(remedy.candidate) for remedy in found.remedies],
    }


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
