"""How measured steps look as JSON beside their prediction: SI units in the names of keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from perfmodel.evidence.steps.compared import ComparedValue
from perfmodel.evidence.steps.step_comparison import StepComparison
from perfmodel.report.json.prediction import SCHEMA_VERSION
from perfmodel.spec.axes import DATA
from perfmodel.spec.run import RampStage


def comparison_document(comparison: StepComparison) -> dict[str, Any]:
    """Prediction and measurement of one step."""
    low, high = (float(end) for end in comparison.predicted.iteration_time_interval_s)
    return {
        "schema_version": SCHEMA_VERSION,
        "name": comparison.record.name,
        "iteration_time_s": compared_pair(comparison.step),
        "iteration_time_interval_s": [low, high],
        "waiting_s": comparison.waiting_s,
        "predicted_waiting_s": comparison.predicted_waiting_s,
        "operators": comparison.rows(),
        "memory_bytes": {name.removesuffix("_bytes"): compared_pair(pair) for name, pair in comparison.memory.items()},
        "collectives": [
            group._asdict() | {"calls": compared_pair(calls), "payload_bytes": compared_pair(comparison.payload_bytes[group])}
            for group, calls in comparison.calls.items()
        ],
        "pipeline_stages": [asdict(stage) for stage in comparison.record.pipeline_stages],
        "warnings": list(comparison.record.warnings),
        "provenance": dict(comparison.record.provenance),
    }


def compared_pair(pair: ComparedValue) -> Mapping[str, float | None]:
    """Both numbers, and predicted / measured - 1."""
    return {"predicted": pair.predicted, "measured": pair.measured, "error": pair.error}


def counts_document(counted: Sequence[tuple[RampStage, Sequence[Any]]]) -> dict[str, Any]:
    """What torch counted on one rank of each pipeline stage of each ramp stage, and what the forecast has."""
    return {
        "schema_version": SCHEMA_VERSION,
        "stages": [
            {
                DATA.name: stage.data_parallel,
                "global_batch_size": stage.global_batch_size,
                "counts": [
                    {
                        "pipeline_stage": each.pipeline_stage,
                        "what": each.what,
                        "seen": each.seen,
                        "predicted": each.predicted,
                        "padding": each.padding,
                        "equal": each.equal,
                    }
                    for each in counts
                ],
            }
            for stage, counts in counted
        ],
    }
