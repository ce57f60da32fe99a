"""How the kernels of a profile beside a prediction look as JSON."""

from __future__ import annotations

from typing import Any

from perfmodel.evidence.steps.kernel_comparison import KernelComparison, KernelRow
from perfmodel.exchange.questions.profiled_runs import ProfileComparison
from perfmodel.report.json.prediction import SCHEMA_VERSION


def profile_document(found: ProfileComparison) -> dict[str, Any]:
    """The times of both, and the kernels of the profile by kind; null of a trace without kernels."""
    low_s, high_s = (float(end) for end in found.predicted.iteration_time_interval_s)
    predicted_s = float(found.predicted.iteration_time_s)
    return {
        "schema_version": SCHEMA_VERSION,
        "name": found.name,
        "stage": found.stage,
        "iteration_time_s": predicted_s,
        "iteration_time_interval_s": [low_s, high_s],
        "profiled_step_s": found.step.duration_s,
        "error": predicted_s / found.step.duration_s - 1.0,
        "doubts": list(found.doubts),
        "kernels": None if found.kernels is None else _kernels(found.kernels),
    }


def _kernels(found: KernelComparison) -> dict[str, Any]:
    return {
        "gpus": found.gpus,
        "is_marked": found.is_marked,
        "kinds": [_row(each) | {"predicted_s": each.predicted_s, "error": each.error} for each in found.kinds],
        "unmatched": [_row(each) for each in found.unmatched],
        "unmatched_s": found.unmatched_s,
        "copies_s": found.copies_s,
        "overlapped_s": found.overlapped_s,
        "idle_s": found.idle_s,
    }


def _row(each: KernelRow) -> dict[str, Any]:
    return {"name": each.name, "measured_s": each.measured_s, "launches": each.launches}
