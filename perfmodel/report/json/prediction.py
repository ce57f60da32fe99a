"""How predictions look as JSON: SI units in the names of keys, one schema version (DESIGN, section 6)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

from perfmodel.count.operators import Collective
from perfmodel.count.parameters import active_parameter_count, parameter_count
from perfmodel.count.parts.expert_figures import expert_figures
from perfmodel.count.tuning.trained import tuned_numbers
from perfmodel.prediction import Prediction, StagePrediction
from perfmodel.spec.axes import REPORTED
from perfmodel.spec.fields import Numeric
from perfmodel.spec.machines.hardware import Cluster
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.run import PublishedFigures, RampStage, Run
from perfmodel.timing.collectives import crossed_link
from perfmodel.timing.ledger import ledger
from perfmodel.timing.uncertainty import Estimate, Uncertainty
from perfmodel.units import HOURS_PER_DAY

SCHEMA_VERSION: Final = 1


def prediction_document(
    prediction: Prediction,
    *,
    assumptions: Sequence[str],
    candidates: Sequence[tuple[Mapping[str, Any], Prediction]] = (),
    consequences: Sequence[str] = (),
    remedies: Sequence[str] = (),
    verbose: bool = False,
) -> dict[str, Any]:
    """One run's prediction; with candidates, those of each combination of values, and the envelope over them by stage.

    `consequences` are what settings changed beside what was asked, `remedies` options with which it would fit. `verbose` adds
    every operator of each stage, with its time alone and how far that is from what was measured. MFU and FLOPs count attention
    in full; keys that end in `_causal` half.
    """
    run = _run_document(prediction, assumptions, verbose=verbose)
    told = {"consequences": list(consequences), "remedies": list(remedies)}
    document = {"schema_version": SCHEMA_VERSION, "name": prediction.run.name} | told | run
    if len(candidates) > 1:
        document["candidates"] = [
            {"values": dict(values)} | _run_document(each, assumptions, verbose=False) for values, each in candidates
        ]
        document["envelope"] = envelope([each for _, each in candidates])
    return document


def envelope(predictions: Sequence[Prediction]) -> list[dict[str, Any]]:
    """For each stage the smallest and largest iteration time and MFU over the candidates."""
    result = []
    for alternatives in zip(*(each.stages for each in predictions), strict=True):
        stages = [stage for _, stage in alternatives]
        result.append(
            {
                "iteration_time_s": _range(stage.iteration_time_s for stage in stages),
                "mfu": _range(stage.mfu for stage in stages),
                "memory_bytes": _range(stage.memory.total_bytes for stage in stages),
            }
        )
    return result


def _range(values: Iterable[Numeric]) -> list[float]:
    numbers = [float(value) for value in values]
    return [min(numbers), max(numbers)]


def _run_document(prediction: Prediction, assumptions: Sequence[str], *, verbose: bool) -> dict[str, Any]:
    run = prediction.run
    return (
        model_size(run.model)
        | {
            "stages": [
                _stage_document(stage, predicted, run.cluster, assumptions)
                | ({"operators": _operators(predicted, run)} if verbose else {})
                for stage, predicted in prediction.stages
            ],
            "total_tokens": _optional(prediction.total_tokens),
            "total_days": _optional(prediction.total_days),
            "total_days_interval": _ends(prediction.total_training_days),
            "gpu_hours": _optional(prediction.gpu_hours),
            "fits": prediction.fits,
            "verdict": prediction.verdict,
            "fit_probability": prediction.fit_probability,
        }
        | _fine_tuning(prediction)
        | _economics(prediction)
    )


def _fine_tuning(prediction: Prediction) -> dict[str, Any]:
    """What is trained, and how many parameters that is; no key where all of the model is trained as its stack does."""
    run, (_, predicted) = prediction.run, prediction.stages[-1]
    tuning, stage = run.fine_tuning, predicted.work.stages.first
    if tuning is None:
        return {}
    numbers = tuned_numbers(run.model, stage.parameters, stage.held.every, tuning)
    hours = None if prediction.total_days is None else float(prediction.total_days) * HOURS_PER_DAY
    return {
        "fine_tuning": {
            **{name: getattr(tuning, name) for name in ("training", "weights", "optimizer")},
            **{name: list(getattr(tuning, name)) for name in ("adapter_targets", "trained_parts", "frozen_parts", "offload")},
            "adapter_rank": int(tuning.adapter_rank) if tuning.has_adapters else None,
            "trained_parameters": float(numbers.trained),
            "frozen_parameters": float(numbers.narrow + numbers.wide),
            "hours": hours,
        }
    }


def model_size(model: TransformerModel) -> dict[str, float]:
    """Parameters of a model, and those that a token passes: all of them but in a mixture of experts."""
    return {"parameters": float(parameter_count(model).total), "active_parameters": float(active_parameter_count(model))}


def _economics(prediction: Prediction) -> dict[str, Any]:
    """The outlook under the terms of the run, where it has some; runs without do not wait for its modules."""
    if prediction.run.economics is None:
        return {}
    from perfmodel.economics.outlook import outlook
    from perfmodel.report.json.economics import economics_document

    return {"economics": economics_document(outlook(prediction, prediction.run.economics))}


def _stage_document(
    stage: RampStage, predicted: StagePrediction, cluster: Cluster, assumptions: Sequence[str]
) -> dict[str, Any]:
    low, high = predicted.iteration_time_interval_s
    numbers_s = predicted.uncertainty.numbers_s
    return {
        "gpus": int(predicted.layout.gpus),
        **{axis.name: int(predicted.layout.degree(axis)) for axis in REPORTED},
        "global_batch_size": int(predicted.layout.global_batch_size),
        "micro_batches": int(predicted.layout.micro_batches),
        "iteration_time_s": float(predicted.iteration_time_s),
        "iteration_time_interval_s": [float(low), float(high)],
        "uncertainty": [
            {"number": path, "half_width_s": float(numbers_s[path]), "share": float(share)}
            for path, share in predicted.uncertainty.shares.items()
        ],
        "uncertainty_parts": uncertainty_parts(predicted.uncertainty),
        "mfu": float(predicted.mfu),
        "mfu_causal": float(predicted.mfu_in("causal")),
        "hfu": float(predicted.hfu),
        "mfu_peak_flop_per_s": float(predicted.peak_flop_per_s),
        "model_flop_per_token": float(predicted.model_flop_per_token),
        "model_flop_per_token_causal": float(predicted.model_flop_per_token * predicted.convention_factor("causal")),
        "flop_per_s_per_gpu": float(predicted.flop_per_s_per_gpu()),
        "flop_per_s_per_gpu_causal": float(predicted.flop_per_s_per_gpu("causal")),
        "tokens_per_s": float(predicted.tokens_per_s),
        "tokens_per_s_per_gpu": float(predicted.tokens_per_s_per_gpu),
        "tokens": _optional(stage.tokens),
        "days": None if stage.tokens is None else float(predicted.days(stage.tokens)),
        "days_interval": _ends(None if stage.tokens is None else predicted.training_days(stage.tokens)),
        "memory": {
            "total_bytes": float(predicted.memory.total_bytes),
            "fits": bool(predicted.fits),
            "headroom_bytes": float(predicted.headroom_bytes),
        }
        | {part: float(used) for part, used in predicted.memory.items()},
        "verdict": predicted.verdict,
        "fit_probability": float(predicted.fit_probability),
        "breakdown_s": {part.removesuffix("_s"): float(seconds) for part, seconds in predicted.breakdown.items()},
        "published": {name: value for name, value in _figures(stage.published) if value is not None},
        "own_runs": _own_runs(predicted),
        "communication": _communication(predicted, cluster),
        "assumptions": list(assumptions),
    } | _experts(predicted)


def _experts(predicted: StagePrediction) -> dict[str, Any]:
    """What a mixture of experts makes of a stage; no key where the model is dense."""
    setup = predicted.work.setup
    figures, work = expert_figures(setup), setup.stack.experts
    if figures is None:
        return {}
    numbers = {entry.name: float(getattr(figures, entry.name)) for entry in fields(figures)}
    data_parallel = float(setup.layout.expert_data_parallel)
    how = {"load": float(setup.layout.expert_load), "dispatcher": work.dispatcher, "overlap": work.overlap}
    return {"mixture": numbers | {"expert_data_parallel": data_parallel} | how}


def uncertainty_parts(uncertainty: Uncertainty) -> dict[str, Any]:
    """Each part of an interval: the half width that it alone would have, its share of the variance, and what it rests on."""
    parts = {part: float(half_s) for part, half_s in uncertainty.parts_s.items()}
    total = sum(half_s * half_s for half_s in parts.values())
    document: dict[str, Any] = {
        part: {"half_width_s": half_s, "share": half_s * half_s / total if total else 0.0} for part, half_s in parts.items()
    }
    known = uncertainty.discrepancy
    rests_on = {"cell": known.cell, "pooled": known.pooled, "rows": int(known.rows), "sources": int(known.sources)}
    return document | {"discrepancy": document["discrepancy"] | rests_on}


def _operators(predicted: StagePrediction, run: Run) -> list[dict[str, Any]]:
    entries = ledger(predicted.work, gpus=predicted.layout.gpus, cluster=run.cluster, stack=run.stack)
    return [
        {
            "name": entry.operator.name,
            "phase": entry.operator.phase,
            "repeats": float(entry.repeats),
            "seconds": float(entry.seconds),
            "confidence": entry.confidence,
        }
        for entry in entries
    ]


def _own_runs(predicted: StagePrediction) -> dict[str, Any] | None:
    """What own runs did to a time and its interval; None without any."""
    group = predicted.work.setup.own_shift.group
    if group is None:
        return None
    evidence = predicted.work.setup.cluster.evidence
    return {
        "evidence": evidence.name,
        "version": evidence.version,
        "runs": group.runs,
        "group": group.kin,
        "time_factor": group.factor,
        "interval_factor": group.remaining,
    }


def _figures(published: PublishedFigures) -> list[tuple[str, float | None]]:
    return [(entry.name, getattr(published, entry.name)) for entry in fields(published)]


def _communication(predicted: StagePrediction, cluster: Cluster) -> list[dict[str, Any]]:
    """Every collective of one GPU in one iteration, with its group and the slowest link that it crosses.

    Calls in the passes are those of one GPU of every pipeline stage together.
    """
    calls = [(operator, repeats) for operator, repeats in predicted.work.executions() if isinstance(operator, Collective)]
    return [
        {
            "name": call.name,
            "phase": call.phase,
            "kind": call.kind,
            "group": call.group.name,
            "ranks": int(call.group.ranks),
            "link": crossed_link(call, cluster=cluster).name,
            "calls": int(repeats),
            "payload_bytes": float(call.payload_bytes),
            "wire_bytes": float(call.wire_bytes),
        }
        for call, repeats in calls
        if call.group.ranks > 1
    ]


def _ends(estimate: Estimate | None) -> list[float] | None:
    """Both ends of a 90 % interval."""
    return None if estimate is None else [float(estimate.low), float(estimate.high)]


def _optional(value: Numeric | None) -> float | None:
    return None if value is None else float(value)
