"""Fits what serving adds to the profile of one machine: products with few rows, attention over a cache, kernels between them.

The equations are those of timing/serving/forward_pass.py; the laws of products with many rows and of prompts are fitted before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from perfmodel.benchmarks.fit.regression import MOST_SPREAD, Fit, Floats, Free, fit_of_few, rounded
from perfmodel.count.operators import CachedAttention, MemoryBound
from perfmodel.count.roles import Role
from perfmodel.count.serving.forward_pass import ServedProduct
from perfmodel.evidence.steps.records import Record
from perfmodel.exchange.presets import cluster_preset
from perfmodel.exchange.questions.serving.served_models import serving_setup
from perfmodel.spec.evidence.spread import with_numbers
from perfmodel.spec.machines.hardware import Gpu
from perfmodel.spec.serving.formats import WIDE, WIDE_BYTES, cache_format
from perfmodel.spec.serving.profile import MOST_CACHED, CachedKernel, ServedKernel, ServingProfile, StreamedKernel
from perfmodel.spec.serving.setup import ServingSetup
from perfmodel.timing.serving.forward_pass import cached_attention_time_s, small_kernel_time_s
from perfmodel.timing.serving.products import product_time_s

KINDS: Final = ("few_rows", "cached", "served", "host")
CACHE: Final = cache_format(WIDE)
PRODUCT: Final = {
    "fixed_s": Free(start=1e-5, low=1e-8, high=3e-4),
    "efficiency": Free(start=0.3, low=0.005, high=1.0),
    "computing": Free(start=0.9, low=0.2, high=1.2),
    "overlap_power": Free(start=1.5, low=1.0, high=20.0),
    "inner_half": Free(start=100.0, low=0.1, high=5000.0),
}
EXPERTS: Final = PRODUCT | {"each_s": Free(start=1e-5, low=1e-8, high=3e-4)}
ATTENTION: Final = {
    "fixed_s": Free(start=3e-5, low=1e-8, high=1e-3),
    "efficiency": Free(start=0.3, low=0.005, high=1.0),
    "computing": Free(start=1.0, low=0.02, high=50.0),
    "score_s": Free(start=1e-9, low=1e-13, high=1e-6),
}
KERNEL: Final = {
    "fixed_s": Free(start=1e-5, low=1e-7, high=1e-2),
    "efficiency": Free(start=0.2, low=1e-4, high=MOST_CACHED),
}
LEAST_SPREAD: Final = 0.03
CLUSTER, MODEL, GPU = (
    "dgx-h100",
    "llama-3.1-8b",
    "h100-sxm-80gb",
)  # any: each time is that of a kernel on the GPU that is fitted


def serving_entries(records: Sequence[Record], gpu: Gpu, sources: dict[str, Any]) -> dict[str, Any]:
    """The profile of serving of a machine whose other kernels are known; where each number comes from goes into `sources`."""
    by_kind = {kind: [each for each in records if each.kind == kind] for kind in KINDS}
    base = _setup(gpu)
    single = [each for each in by_kind["few_rows"] if each.sizes["matrices"] == 1]
    several = [each for each in by_kind["few_rows"] if each.sizes["matrices"] > 1]
    kernels = _kernels(by_kind["served"], base, sources)
    fixed = [entry["fixed_s"] for entry in kernels.values()]
    between = [each.seconds for each in by_kind["host"]]
    if between:
        sources["gpu.serving.between_s"] = "decode passes of a small model on this machine, what they spend in no operator"
    return {
        "name": f"Serving kernels of {gpu.name}",
        "small_products": {WIDE: _products(single, base, sources, "small_products")},
        "expert_products": {WIDE: _products(several, base, sources, "expert_products")},
        "cached_attention": {CACHE.law: _attention(by_kind["cached"], base, sources)},
        "small_kernels": kernels,
        "small_kernel_s": rounded(float(np.median(fixed)), 4),
        "between_s": rounded(float(np.median(between)), 4) if between else 0.0,
    }


def _setup(gpu: Gpu) -> ServingSetup:
    """Some model on the machine, whose times are those of its kernels."""
    cluster = with_numbers(cluster_preset(CLUSTER), {"gpu": gpu, "compute_scale": 1.0})
    return replace(serving_setup(MODEL, gpu=GPU, engine="reference"), cluster=cluster)


def _with(base: ServingSetup, **tables: Any) -> ServingSetup:
    """The same with other laws of some kernels."""
    unknown: dict[str, Any] = {"small_products": {WIDE: ServedKernel(fixed_s=0.0, efficiency=1.0)}}
    unknown |= {"cached_attention": {CACHE.law: CachedKernel(fixed_s=0.0, efficiency=1.0)}}
    return replace(base, profile=ServingProfile(name="fitted", small_kernel_s=0.0, **unknown | tables))


def _sizes(records: Sequence[Record]) -> dict[str, Any]:
    """The sizes of records of one kind as arrays."""
    names = [name for name in records[0].sizes if name != "moved_bytes"]
    return {name: np.array([each.sizes[name] for each in records], dtype=float) for name in names}


def _products(records: Sequence[Record], base: ServingSetup, sources: dict[str, Any], table: str) -> dict[str, Any]:
    """Products of one matrix, or of those of several experts; pairs of columns and inner size are held out."""
    sizes = _sizes(records)
    of_experts = table == "expert_products"
    product = ServedProduct(
        name="product",
        role=Role.EXPERT if of_experts else Role.PRODUCT,
        rows=sizes["rows"],
        columns=sizes["columns"],
        inner=sizes["inner"],
        batch=sizes["matrices"],
        precision=WIDE,
        weight_bytes=WIDE_BYTES,
        law=WIDE,
        beside=False,
    )

    def equation(values: Mapping[str, Any]) -> Floats:
        setup = _with(base, **{table: {WIDE: ServedKernel(**values)}})
        return np.asarray(product_time_s(product, setup)[0])

    groups = np.unique([f"{a:g} {b:g}" for a, b in zip(sizes["columns"], sizes["inner"], strict=True)], return_inverse=True)[1]
    found = fit_of_few(equation, EXPERTS if of_experts else PRODUCT, _seconds(records), groups)
    sources[f"gpu.serving.{table}.{WIDE}"] = _words(records, found, "pairs of columns and inner size")
    return found.found | {"spread": {"efficiency": _p90(found), "computing": _p90(found)}}


def _attention(records: Sequence[Record], base: ServingSetup, sources: dict[str, Any]) -> dict[str, Any]:
    """One query of each sequence over a cache; lengths are held out."""
    sizes = _sizes(records)
    held = np.where(sizes["value_size"] < sizes["head_size"], sizes["head_size"], sizes["head_size"] + sizes["value_size"])
    attention = CachedAttention(
        repeats=1,
        name="core",
        sequences=sizes["sequences"],
        context=sizes["context"],
        window=None,
        heads=sizes["heads"],
        head_size=sizes["head_size"],
        value_size=sizes["value_size"],
        cache_bytes=CACHE.bytes * sizes["kv_heads"] * held,
        law=CACHE.law,
    )

    def equation(values: Mapping[str, Any]) -> Floats:
        setup = _with(base, cached_attention={CACHE.law: CachedKernel(**values)})
        return np.asarray(cached_attention_time_s(attention, setup))

    found = fit_of_few(equation, ATTENTION, _seconds(records), np.unique(sizes["context"], return_inverse=True)[1])
    sources[f"gpu.serving.cached_attention.{CACHE.law}"] = _words(records, found, "lengths")
    return found.found | {"spread": {"efficiency": _p90(found)}}


def _kernels(records: Sequence[Record], base: ServingSetup, sources: dict[str, Any]) -> dict[str, Any]:
    """Every kernel that stands between products; numbers of rows are held out."""
    entries = {}
    for kernel in dict.fromkeys(each.labels["operator"] for each in records):
        chosen = [each for each in records if each.labels["operator"] == kernel]
        moved = MemoryBound(name=kernel, moved_bytes=np.array([each.sizes["moved_bytes"] for each in chosen]), kernel=kernel)

        def equation(values: Mapping[str, Any], kernel: str = kernel, moved: MemoryBound = moved) -> Floats:
            return np.asarray(small_kernel_time_s(moved, _with(base, small_kernels={kernel: StreamedKernel(**values)})))

        rows = np.array([each.sizes["rows"] for each in chosen])
        found = fit_of_few(equation, KERNEL, _seconds(chosen), np.unique(rows, return_inverse=True)[1])
        sources[f"gpu.serving.small_kernels.{kernel}"] = _words(chosen, found, "numbers of rows")
        entries[kernel] = found.found | {"spread": {"fixed_s": _p90(found), "efficiency": _p90(found)}}
    return entries


def _seconds(records: Sequence[Record]) -> Floats:
    return np.array([each.seconds for each in records])


def _p90(found: Fit) -> float:
    return float(np.clip(rounded(float(np.quantile(np.abs(found.error), 0.9)), 2), LEAST_SPREAD, MOST_SPREAD))


def _words(records: Sequence[Record], found: Fit, held_out: str) -> str:
    """How many kernels a law was fitted on, and how wrong it is on those that a fit did not see."""
    errors = np.abs(found.error)
    median, p90 = np.median(errors), np.quantile(errors, 0.9)
    return f"{len(records)} kernels of this machine; {held_out} held out: median error {median:.1%}, 90th percentile {p90:.1%}"
