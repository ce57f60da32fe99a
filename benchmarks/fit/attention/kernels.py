"""Fits fused attention: what bounds small kernels on a serving library's forward tables, the rest on training tables.

A GPU without training tables takes its chip's twin, at the ratio of both on the serving tables; A100 has no twin: its forward
kernel is that of the serving tables, and its backward one is to it as that of H200 is to H200's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from perfmodel.benchmarks.fit.regression import Fit, Floats, Free, fit, fit_of_few, rounded
from perfmodel.count.operators import FusedAttention
from perfmodel.spec.machines.coefficients import AttentionCoefficients
from perfmodel.spec.machines.hardware import Gpu
from perfmodel.spec.phases import DATA_GRADIENT, FORWARD
from perfmodel.timing.attention import plain_attention_time_s

TWINS: Final = {"h100-sxm-80gb": "h200-sxm-141gb", "b200": "gb200", "b300": "gb300"}
BLACKWELL: Final = ("b200", "gb200", "b300", "gb300")  # whose tensor cores take tiles of 256 rows; RTX Blackwell has Ampere's
LIBRARY: Final = dict.fromkeys(BLACKWELL, "vllm")  # trtllm-gen kernels there, FlashAttention-2 and 3 of SGLang elsewhere
HEAD_SIZES: Final = (64, 128, 192, 256)
TILE_ROWS: Final = dict.fromkeys(BLACKWELL, 256)
SHARED: Final = {
    "fixed_s": Free(start=8e-6, low=1e-6, high=4e-5),
    "sequence_half": Free(start=100.0, low=1.0, high=1500.0),
    "longest_rows": Free(start=100.0, low=5.0, high=600.0),
    "fill_power": Free(start=2.0, low=1.5, high=6.0),
    "growth": Free(start=0.03, low=1e-4, high=0.3),
}
TRAINED: Final = ("sequence_half", "growth")  # refitted on training tables; their kernels are too long to tell the others
GROWTH_S: Final = 3e-3
MEMORY_EFFICIENCY: Final = 0.9  # kept: serving kernels also write their caches, so their tables say nothing of it
WAVE_WEIGHT: Final = 0.6  # of encoders' kernels without a mask, 0.57 on H200 and 0.84 on GB200; the tables hold few small ones


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionFit:
    """Coefficients of one direction by name, and the fit they come from (None for those that are carried over)."""

    coefficients: dict[str, Any]
    fit: Fit | None
    rows: pd.DataFrame


def fit_serving(table: pd.DataFrame, name: str, gpu: Gpu) -> AttentionFit:
    """The forward law of one serving library: causal, s >= 512, up to 8 sequences; held out by (head size, heads, KV heads).

    Small batches of few heads are left out where libraries split the keys between tiles, which training kernels do not.
    """
    rows = table[table.library.str.startswith(LIBRARY.get(name, "sglang")) & (table["mask"] == "causal")]
    rows = rows[(rows.sequence_length >= 512) & (rows.sequences <= 8) & rows.head_size.isin(HEAD_SIZES)]
    queries = rows.sequences * rows.heads * rows.sequence_length
    rows = rows[(queries >= 4096 * 128 / 8) | (rows.sequence_length <= 1024)].reset_index(drop=True)
    groups = rows.groupby(["head_size", "heads", "kv_heads"]).ngroup().to_numpy()
    found = fit(_equation(rows, gpu, name, {}), SHARED | _efficiencies(rows), rows.seconds.to_numpy(dtype=float), groups)
    return AttentionFit(coefficients=_coefficients(found.found, name), fit=found, rows=rows)


def fit_training(table: pd.DataFrame, name: str, gpu: Gpu, serving: AttentionFit, direction: str) -> AttentionFit:
    """The law of training kernels of one direction; each sequence length is held out once."""
    rows = table[table.direction == direction].reset_index(drop=True)
    free = {key: SHARED[key] for key in TRAINED} | _efficiencies(rows)
    if (rows["mask"] == "none").any():
        free["sequence_half_full"] = Free(start=100.0, low=0.5, high=1500.0)
    kept = {key: serving.coefficients[key] for key in SHARED if key not in TRAINED}
    groups = rows.groupby("sequence_length").ngroup().to_numpy()
    found = fit_of_few(_equation(rows, gpu, name, kept), free, rows.seconds.to_numpy(dtype=float), groups)
    return AttentionFit(coefficients=_coefficients(kept | found.found, name, serving), fit=found, rows=rows)


def carried_over(twin: AttentionFit, ratio: float) -> AttentionFit:
    """The twin's law with its efficiency times `ratio`."""
    efficiency = rounded(twin.coefficients["efficiency"] * ratio, 4)
    return AttentionFit(coefficients=twin.coefficients | {"efficiency": efficiency}, fit=None, rows=twin.rows)


def backward_like(forward: AttentionFit, twin_forward: AttentionFit, twin_backward: AttentionFit) -> AttentionFit:
    """A backward law from a forward one, as the twin's backward is to its forward."""
    ahead, there, back = forward.coefficients, twin_forward.coefficients, twin_backward.coefficients
    scaled = {key: rounded(ahead[key] * back[key] / there[key], 4) for key in ("efficiency", "sequence_half", "fixed_s")}
    taken = {key: back[key] for key in ("by_head_size", "growth", "sequence_half_full")}
    return AttentionFit(coefficients=ahead | scaled | taken, fit=None, rows=forward.rows)


def speed_ratio(one: pd.DataFrame, other: pd.DataFrame, name: str) -> float:
    """Median of time of `other` over time of `one` for the same long kernels of the same library."""
    keys = ["library", "mask", "sequences", "heads", "kv_heads", "head_size", "sequence_length"]
    both = one.merge(other, on=keys, suffixes=("", "_other"))
    both = both[both.library.str.startswith(LIBRARY.get(name, "sglang")) & (both.seconds > 1e-3) & (both.head_size == 128)]
    return float((both.seconds_other / both.seconds).median())


def _efficiencies(rows: pd.DataFrame) -> dict[str, Free]:
    """One free efficiency for each head size in `rows` that is one of the known, or near it."""
    present = sorted({int(size) for size in rows.head_size})
    return {f"efficiency_{size}": Free(start=0.6, low=0.03, high=1.0) for size in present}


def _equation(rows: pd.DataFrame, gpu: Gpu, name: str, kept: Mapping[str, float]) -> Any:
    """Seconds of every row, by mask and direction: categories are not arrays."""
    parts = []
    for mask in sorted(set(rows["mask"])):
        for direction in sorted(set(rows.direction)):
            chosen = ((rows["mask"] == mask) & (rows.direction == direction)).to_numpy()
            parts.append((chosen, rows[chosen], mask == "causal", direction == "backward"))

    def seconds(values: Mapping[str, float]) -> Floats:
        known = AttentionCoefficients(**_plain(_coefficients(dict(kept) | dict(values), name)))
        result = np.zeros(len(rows))
        for chosen, part, causal, backward in parts:
            call = FusedAttention(
                name="core",
                phase=DATA_GRADIENT if backward else FORWARD,
                sequences=part.sequences.to_numpy(dtype=float),
                heads=part.heads.to_numpy(dtype=float),
                kv_heads=part.kv_heads.to_numpy(dtype=float),
                head_size=part.head_size.to_numpy(dtype=float),
                query_length=part.sequence_length.to_numpy(dtype=float),
                key_length=part.sequence_length.to_numpy(dtype=float),
                causal=causal,
                precision="bf16",
            )
            result[chosen] = plain_attention_time_s(call, known, gpu=gpu, compute_scale=1.0)
        return result

    return seconds


def _plain(coefficients: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in coefficients.items() if key not in ("evidence", "spread")}


def _coefficients(values: Mapping[str, float], name: str, like: AttentionFit | None = None) -> dict[str, Any]:
    """The mapping of a profile. Head sizes that were not measured take the ratio of `like`, or of their neighbour."""
    known = {int(key.removeprefix("efficiency_")): value for key, value in values.items() if key.startswith("efficiency_")}
    reference = known.get(128, next(iter(known.values()), 0.6))
    ratios = dict(like.coefficients["by_head_size"]) if like else {}
    ratios |= {str(size): value / reference for size, value in known.items()}
    return {
        "efficiency": reference,
        "by_head_size": {str(size): float(ratios[_neighbour(size, ratios)]) for size in HEAD_SIZES},
        **{key: float(values[key]) for key in SHARED},
        "sequence_half_full": float(values.get("sequence_half_full", values["sequence_half"] / 2.0)),
        "wave_weight": WAVE_WEIGHT,
        "memory_efficiency": MEMORY_EFFICIENCY,
        "tile_rows": TILE_ROWS.get(name, 128),
        "growth_s": GROWTH_S,
    }


def _neighbour(size: int, ratios: Mapping[str, Any]) -> str:
    return min(ratios, key=lambda known: abs(int(known) - size))
