"""Fits the memory-bound kernels of one machine: a class for every kernel of the reference model, in each precision.

What works on the stream of activations, or adds up gradients, finds in the cache what the operator before it has just written,
where that fits; what walks through the parameters of the whole model (the optimizer) finds nothing there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from perfmodel.benchmarks.fit.regression import MOST_SPREAD, Fit, Floats, Free, fit_of_few, rounded
from perfmodel.benchmarks.measure.kernels.plan import cache_state
from perfmodel.benchmarks.measure.kernels.points import key_of
from perfmodel.benchmarks.measure.kernels.traffic import operator_of
from perfmodel.count.operators import MemoryBound
from perfmodel.errors import InputError
from perfmodel.evidence.steps.records import Record
from perfmodel.spec.machines.coefficients import MEMORY_BOUND_KERNELS, MemoryBoundCoefficients
from perfmodel.spec.machines.hardware import Gpu
from perfmodel.spec.phases import DATA_GRADIENT
from perfmodel.timing.kernels import plain_memory_bound_time_s

FREE: Final = {
    "fixed_s": Free(start=3e-6, low=1e-8, high=3e-4),
    "efficiency": Free(start=0.4, low=0.005, high=1.2),
    "cached_speedup": Free(start=0.5, low=1e-3, high=20.0),
}
STANDS_FOR: Final = {  # of the classes that every profile has: the kernel that was measured
    "fused": "layernorm",
    "compiled": "layernorm",
    "eager": "rmsnorm",
    "elementwise": "residual",
    "optimizer": "adam",
}
LEAST_SPREAD: Final = 0.03


def memory_bound_entries(records: Sequence[Record], gpu: Gpu, sources: dict[str, Any]) -> dict[str, Any]:
    """The coefficients of every kernel and precision; where each comes from goes into `sources`."""
    entries: dict[str, Any] = {}
    busy = {key_of(_alone(each)): each.seconds for each in records if "busy" in each.labels}
    records = [each for each in records if "busy" not in each.labels and {"rows", "columns"} <= each.sizes.keys()]
    for kernel in MEMORY_BOUND_KERNELS:
        for precision in ("bf16", "fp32"):
            chosen = [
                each
                for each in records
                if each.labels["operator"] == kernel
                and each.labels.get("precision") == precision
                and each.labels.get("cache", "cold") == cache_state(kernel)
            ]
            if chosen:
                name = "-".join(filter(None, (kernel, memory_bound_of(chosen[0]).precision)))
                entries[name], sources[f"gpu.kernels.memory_bound.{name}"] = _entry(chosen, gpu, busy)
    if not entries:
        raise InputError("there are no memory_bound records of kernels that models run, such as layernorm and adam, to fit")
    for name, kernel in STANDS_FOR.items():
        like = next((f"{kernel}-{each}" for each in ("bf16", "fp32") if f"{kernel}-{each}" in entries), next(iter(entries)))
        entries[name] = entries[like] | {"evidence": {"basis": "transferred"}}
        sources[f"gpu.kernels.memory_bound.{name}"] = (
            f"{like}, which stands for it: {sources[f'gpu.kernels.memory_bound.{like}']}"
        )
    return entries


def _alone(each: Record) -> Record:
    """The point of a record as it is called when one device alone is measured."""
    return replace(each, labels={name: word for name, word in each.labels.items() if name != "busy"})


def _busy_factor(records: Sequence[Record], busy: Mapping[str, float]) -> float:
    """How much longer kernels take with all devices of the machine at work: the median of what was measured both ways."""
    ratios = [busy[key_of(each)] / each.seconds for each in records if key_of(each) in busy]
    return rounded(max(float(np.median(ratios)), 1.0), 3) if ratios else 1.0


def _entry(records: Sequence[Record], gpu: Gpu, busy: Mapping[str, float]) -> tuple[dict[str, Any], str]:
    """One class: backwards as forwards where only one direction was measured."""
    backward = [each for each in records if each.labels["phase"] == DATA_GRADIENT]
    forward = [each for each in records if each.labels["phase"] != DATA_GRADIENT]
    directions = {"": forward or backward, "backward_": backward or forward}
    once = _fit(directions[""], gpu)
    fits = {"": once, "backward_": _fit(backward, gpu) if forward and backward else once}
    values = {f"{prefix}{name}": value for prefix, found in fits.items() for name, value in found.found.items()}
    values |= {f"{prefix}busy_factor": _busy_factor(rows, busy) for prefix, rows in directions.items()}
    moved = [each.sizes["moved_bytes"] for each in records]
    spread = {f"{prefix}efficiency": min(_error(found, 0.9), MOST_SPREAD) for prefix, found in fits.items()}
    evidence = {"basis": "measured", "sizes": {"moved_bytes": f"{min(moved):.4g} {max(moved):.4g}"}}
    words = ", ".join(
        f"{name} {_error(found, 0.5):.1%} / {_error(found, 0.9):.1%}"
        for name, found in zip(("forward", "backward"), fits.values(), strict=True)
    )
    cache = records[0].labels.get("cache", "cold")
    source = f"{len(records)} kernels of this machine, {cache}; sizes held out, median / p90: {words}"
    return values | {"evidence": evidence, "spread": spread}, source


def _error(found: Fit, share: float) -> float:
    return max(rounded(float(np.quantile(np.abs(found.error), share)), 2), LEAST_SPREAD if share > 0.5 else 0.0)


def _fit(records: Sequence[Record], gpu: Gpu) -> Fit:
    """The law of timing/kernels.py, each size held out once."""
    moved = np.array([each.sizes["moved_bytes"] for each in records])
    seconds = np.array([each.seconds for each in records])
    call = MemoryBound(
        name="kernel", moved_bytes=moved, kernels=np.array([memory_bound_of(each).kernels for each in records], dtype=float)
    )

    def equation(values: Mapping[str, Any]) -> Floats:
        backward: dict[str, Any] = {f"backward_{name}": value for name, value in values.items()}
        return np.asarray(plain_memory_bound_time_s(call, MemoryBoundCoefficients(**values, **backward), gpu=gpu))

    groups = np.unique(np.round(np.log2(moved)), return_inverse=True)[1]
    return fit_of_few(equation, FREE, seconds, groups)


def memory_bound_of(each: Record) -> MemoryBound:
    """The forecast's operator of a record."""
    sizes, labels = each.sizes, each.labels
    return operator_of(
        labels["operator"],
        labels["phase"],
        precision=labels["precision"],
        rows=int(sizes["rows"]),
        columns=int(sizes["columns"]),
        table_rows=int(sizes.get("table_rows", 1)),
        rotary_fraction=sizes.get("rotary_fraction", 1.0),
    )
