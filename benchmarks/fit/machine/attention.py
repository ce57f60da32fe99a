"""Fits the attention kernels of one machine, by precision and direction; head sizes and lengths have rates of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from perfmodel.benchmarks.fit.regression import MOST_SPREAD, Floats, Free, fit_of_few, rounded
from perfmodel.count.operators import FusedAttention
from perfmodel.errors import InputError
from perfmodel.evidence.steps.records import Record
from perfmodel.spec.machines.coefficients import AttentionCoefficients
from perfmodel.spec.machines.hardware import Gpu
from perfmodel.spec.phases import DATA_GRADIENT, FORWARD
from perfmodel.timing.attention import plain_attention_time_s

DIRECTIONS: Final = {FORWARD: "attention_forward", DATA_GRADIENT: "attention_backward"}
SIZES: Final = ("sequences", "heads", "kv_heads", "head_size")
CORE: Final = {  # a core runs one tile after the other: no fill, no waves, no power limit
    "sequence_half_full": 0.0,
    "longest_rows": 0.0,
    "fill_power": 1.0,
    "wave_weight": 0.0,
    "tile_rows": 1,
    "memory_efficiency": 1.0,
    "growth": 0.0,
    "growth_s": 1.0,
}
FREE: Final = {
    "fixed_s": Free(start=2e-5, low=1e-7, high=1e-3),
    "sequence_half": Free(start=20.0, low=1e-2, high=1500.0),
}
LEAST_SPREAD: Final = 0.03
KEPT: Final = tuple(CORE)


def attention_entries(records: Sequence[Record], gpu: Gpu, device: str, sources: dict[str, Any]) -> dict[str, Any]:
    """The coefficients of both directions of every precision; where each comes from goes into `sources`."""
    entries = {}
    for precision in sorted({each.labels["precision"] for each in records}):
        for phase, name in DIRECTIONS.items():
            chosen = [each for each in records if (each.labels["precision"], each.labels["phase"]) == (precision, phase)]
            if not chosen:
                raise InputError(f"there are no attention records of {precision}, {phase} to fit")
            key = f"{name}_fp32" if precision == "fp32" else name
            entries[key], errors = _fit(chosen, gpu, precision, phase, _kept(gpu, device, phase))
            sources[f"gpu.kernels.{key}"] = (
                f"{len(chosen)} kernels of this machine; each length held out, without its own rate: median error "
                f"{np.median(errors):.1%}, 90th percentile {np.quantile(errors, 0.9):.1%}"
            )
    return entries


def _kept(gpu: Gpu, device: str, phase: str) -> dict[str, Any]:
    """What records of single kernels do not tell: of a GPU that of its kind."""
    if device == "cpu":
        return CORE
    known = gpu.kernels.attention_backward if phase == DATA_GRADIENT else gpu.kernels.attention_forward
    return {name: getattr(known, name) for name in KEPT}


def _fit(
    records: Sequence[Record], gpu: Gpu, precision: str, phase: str, kept: Mapping[str, Any]
) -> tuple[dict[str, Any], Floats]:
    """The law, and then how much faster each length is than it."""
    sizes: dict[str, Any] = {name: np.array([each.sizes[name] for each in records], dtype=float) for name in SIZES}
    lengths = np.array([each.sizes["sequence_length"] for each in records], dtype=float)
    seconds = np.array([each.seconds for each in records])
    call = FusedAttention(name="core", phase=phase, query_length=lengths, key_length=lengths, precision=precision, **sizes)
    heads = sorted({int(size) for size in sizes["head_size"]})

    def coefficients(values: Mapping[str, Any], by_length: Mapping[str, float]) -> dict[str, Any]:
        largest = float(values[f"efficiency_{heads[-1]}"])
        return {
            "efficiency": largest,
            "by_head_size": {str(size): float(values[f"efficiency_{size}"]) / largest for size in heads},
            "by_sequence_length": dict(by_length),
            **{name: float(values[name]) for name in FREE},
            **kept,
        }

    def times(values: Mapping[str, Any], by_length: Mapping[str, float]) -> Floats:
        known = AttentionCoefficients(**coefficients(values, by_length))
        return np.asarray(plain_attention_time_s(call, known, gpu=gpu, compute_scale=1.0))

    free = FREE | {f"efficiency_{size}": Free(start=0.2, low=0.005, high=1.0) for size in heads}
    law = fit_of_few(lambda values: times(values, {}), free, seconds, np.unique(lengths, return_inverse=True)[1])
    alone = times(law.found, {}) / seconds
    by_length = {f"{length:g}": rounded(float(np.median(alone[lengths == length])), 4) for length in np.unique(lengths)}
    left = np.abs(times(law.found, by_length) / seconds - 1.0)
    evidence = {
        "basis": "measured",
        "sizes": {
            "head_size": " ".join(str(size) for size in heads),
            "sequence_length": " ".join(by_length),
        },
    }
    spread = {"efficiency": min(max(rounded(float(np.quantile(left, 0.9)), 2), LEAST_SPREAD), MOST_SPREAD)}
    return coefficients(law.found, by_length) | {"evidence": evidence, "spread": spread}, np.abs(law.error)
