"""Fits memory-bound kernels: norms by class (fused, compiled, eager) on training tables; casts come with 8-bit products."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from perfmodel.benchmarks.fit.regression import Fit, Floats, Free, fit_of_few, rounded
from perfmodel.spec.machines.hardware import Gpu
from perfmodel.spec.precision import operand_bytes

FREE: Final = {
    "fixed_s": Free(start=3e-6, low=1e-7, high=6e-5),
    "efficiency": Free(start=0.6, low=0.03, high=1.2),
}
PASSES: Final = {"forward": 2, "backward": 3}  # over a stream of 2-byte numbers, as count/layer.py has it
CAST_SPREAD: Final = 0.3  # these are PyTorch's casts; Transformer Engine fuses its own with the norm or the transpose, or not
NARROWEST: Final = 2048  # columns; narrower norms belong to attention heads
CACHE_SHARE: Final = 0.3  # streams below this share of the cache are not timed by the memory
# bytes that a cast moves of one number: with the scale of a tensor of the moment, as the tables of 8-bit products have it, it
# reads 2 twice and writes 1; with scales of blocks it reads once
CAST_BYTES: Final = {"fp8": 5.0, "nvfp4": 2 + operand_bytes("nvfp4")}
TWINS: Final = {
    "b200": "gb200",
    "b300": "gb300",
    **dict.fromkeys(("h100-sxm-80gb", "a100-sxm-80gb", "l40s", "rtx-pro-6000-server"), "h200-sxm-141gb"),
}


def fit_norms(table: pd.DataFrame, gpu: Gpu) -> dict[str, dict[str, Fit]]:
    """The fit of each class and direction, each shape held out once."""
    wide = table[table["columns"] >= NARROWEST]
    stream = 2.0 * wide.rows * wide["columns"]
    wide = wide[stream > CACHE_SHARE * float(gpu.cache_bytes)]
    fits: dict[str, dict[str, Fit]] = {}
    for kernel_class in sorted(set(wide.kernel_class)):
        of_class = wide[wide.kernel_class == kernel_class]
        fits[kernel_class] = {}
        for direction, passes in PASSES.items():
            rows = of_class[of_class.direction == direction]
            moved = 2.0 * passes * rows.rows * rows["columns"]
            fits[kernel_class][direction] = fit_stream(rows, gpu, moved=moved, shape=["rows", "columns"])
    return fits


def fit_stream(rows: pd.DataFrame, gpu: Gpu, *, moved: Any, shape: list[str]) -> Fit:
    """t0 + bytes / (M*e)."""
    moved_bytes = np.asarray(moved, dtype=float)

    def seconds(values: Mapping[str, float]) -> Floats:
        return np.asarray(values["fixed_s"] + moved_bytes / (gpu.memory_bandwidth_bytes_per_s * values["efficiency"]))

    return fit_of_few(seconds, FREE, rows.seconds.to_numpy(dtype=float), rows.groupby(shape).ngroup().to_numpy())


def coefficients(forward: Fit, backward: Fit, *, basis: str, moved: str) -> dict[str, Any]:
    """The mapping of one class; `moved` is the range of bytes measured. Its spread is the error on shapes not seen."""
    return {
        "fixed_s": forward.found["fixed_s"],
        "efficiency": forward.found["efficiency"],
        "backward_fixed_s": backward.found["fixed_s"],
        "backward_efficiency": backward.found["efficiency"],
        "evidence": {"basis": basis, "sizes": {"moved_bytes": moved}},
        "spread": {
            "fixed_s": forward.spread.get("fixed_s", 0.0),
            "efficiency": forward.held_out_error()["p90"],
            "backward_fixed_s": backward.spread.get("fixed_s", 0.0),
            "backward_efficiency": backward.held_out_error()["p90"],
        },
    }


def moved_range(table: pd.DataFrame) -> str:
    """The least and the greatest traffic of the norms in a table [bytes]."""
    stream = 2.0 * table.rows * table["columns"]
    return f"{2 * stream[table['columns'] >= NARROWEST].min():.4g} {3 * stream.max():.4g}"


def alike(norms: Mapping[str, Any], spread: float) -> dict[str, Any]:
    """Elementwise chains and the optimizer: what was measured of fused norms, forward, whatever the direction."""
    fused = norms["fused"]
    return {
        "fixed_s": fused["fixed_s"],
        "efficiency": fused["efficiency"],
        "backward_fixed_s": fused["fixed_s"],
        "backward_efficiency": fused["efficiency"],
        "evidence": {"basis": "transferred"},
        "spread": {"efficiency": spread, "backward_efficiency": spread},
    }


def cast_coefficients(product: Fit, gpu: Gpu, precision: str) -> dict[str, Any]:
    """A cast to fewer than 16 bits: the start and the time an element that were fitted with the products."""
    rate = CAST_BYTES[precision] / product.found["cast_s_per_element"]
    fixed_s, efficiency = product.found["cast_fixed_s"], rounded(rate / float(gpu.memory_bandwidth_bytes_per_s), 4)
    spread = max(product.spread["cast_s_per_element"], CAST_SPREAD)
    return {
        "fixed_s": fixed_s,
        "efficiency": efficiency,
        "backward_fixed_s": fixed_s,
        "backward_efficiency": efficiency,
        "evidence": {"basis": "measured"},
        "spread": {"efficiency": spread, "backward_efficiency": spread},
    }
