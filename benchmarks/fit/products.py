"""Fits matrix products: one law a GPU and precision (timing/kernels.py, matmul_time_s), and for 8 bits the cast with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product as combinations
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.fit.regression import Fit, Floats, Free, fit, spread_of_sums
from benchmarks.fit.tables import SHAPE
from perfmodel.count.operators import Matmul
from perfmodel.spec.coefficients import MatmulCoefficients, Tile
from perfmodel.spec.hardware import Gpu
from perfmodel.timing.kernels import plain_matmul_time_s

FREE: Final = {
    "efficiency": Free(start=0.85, low=0.3, high=1.1),
    "fixed_s": Free(start=3e-6, low=1e-7, high=2e-5),
    "k_half": Free(start=150.0, low=1.0, high=1000.0),
    "wave_weight": Free(start=0.1, low=1e-3, high=1.0),
    "fill_weight": Free(start=0.3, low=1e-3, high=1.0),
    "padding_weight": Free(start=0.3, low=1e-3, high=1.0),
    "split_inner": Free(start=300.0, low=1.0, high=20000.0),
    "slowdown": Free(start=0.1, low=1e-3, high=1.0),
    "slowdown_flop": Free(start=2e12, low=1e10, high=1e15),
    "memory_efficiency": Free(start=0.8, low=0.3, high=1.0),
    "overlap_power": Free(start=3.0, low=1.0, high=20.0),
}
CAST: Final = {
    "cast_fixed_s": Free(start=5e-6, low=1e-7, high=5e-5),
    "cast_s_per_element": Free(start=2e-12, low=1e-14, high=1e-11),
}
STARTS: Final = {"rate_1": (0.95, 0.5), "fill_weight": (0.3, 0.7)}  # the least over tiles has more than one valley
TILES: Final = ((128, 256), (256, 256), (128, 192), (128, 128), (64, 128), (64, 64))
RATES: Final = (0.95, 0.9, 0.99, 0.9, 0.6)  # where the fit starts, of all tiles but the first
MOST_SPLITS: Final = 6
FP8_KERNEL: Final = "torch_flow"  # TensorRT-LLM's torch._scaled_mm, that is cuBLASLt: what Transformer Engine calls
PRODUCTS_OF_A_LAYER: Final = 4
KEPT: Final = {"weight_gradient_factor": 1.05}  # not in these tables
KEPT_SOURCE: Final = "fp32 accumulation of weight gradients measured about 5 % slower than the forward product"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductFit:
    """A fit with the shapes it was made on."""

    fit: Fit
    rows: pd.DataFrame
    large: NDArray[np.bool_]
    slices: NDArray[np.bool_]

    def coefficients(self) -> dict[str, Any]:
        """The mapping of a profile: without the cast, which is an operator of its own."""
        values = {name: value for name, value in self.fit.values.items() if name in FREE}
        sizes = {
            name: " ".join(f"{value:g}" for value in sorted(set(self.rows[column])))
            for name, column in zip(("rows", "columns", "inner"), SHAPE, strict=True)
        }
        spread = {name: value for name, value in self.fit.spread.items() if name in FREE}
        return {
            **values,
            **KEPT,
            "most_splits": MOST_SPLITS,
            "tiles": _tiles(self.fit.values),
            "evidence": {"basis": "measured", "sizes": sizes},
            "spread": spread | {"efficiency": self.layer_spread()},
        }

    def layer_spread(self) -> float:
        """90 % of sums of four held-out products, weighted by their time, are off by less."""
        chosen = self.fit.out & self.large
        return spread_of_sums(self.fit.error[chosen], PRODUCTS_OF_A_LAYER)

    def errors(self) -> dict[str, dict[str, float]]:
        """On held-out shapes: m 2048 to 16384 with n and k of at least 1024, and the slices of tensor parallelism."""
        return {"large": self.fit.held_out_error(self.large), "slices": self.fit.held_out_error(self.slices)}


def fit_products(table: pd.DataFrame, gpu: Gpu, precision: str) -> ProductFit:
    """The law of one precision. The target is the median over libraries: they call the same kernels, on other days.

    The split is by shape: one in five pairs (n, k) is held out with all its m. For 8 bits the time of casting the (m x k)
    operand, a start and a time an element, is fitted with the product and left to the cast.
    """
    chosen = table[table.precision == precision]
    if precision == "fp8":
        chosen = chosen[chosen.kernel == FP8_KERNEL]
    chosen = chosen[(chosen.m >= 512) & (chosen.m <= 32768) & (chosen.n >= 256) & (chosen.k >= 256)]
    rows = _median_of_libraries(chosen)
    m, n, k, seconds = (rows[column].to_numpy(dtype=float) for column in (*SHAPE, "seconds"))
    call = Matmul(name="gemm", rows=m, columns=n, inner=k, precision=precision)
    tiles = {f"rate_{index}": Free(start=RATES[index - 1], low=0.3, high=1.05) for index in range(1, len(TILES))}
    free = FREE | tiles | (CAST if precision == "fp8" else {})

    def equation(values: Mapping[str, float]) -> Floats:
        known = MatmulCoefficients(
            **{name: values[name] for name in FREE},
            **KEPT,
            most_splits=MOST_SPLITS,
            tiles=tuple(Tile(**tile) for tile in _tiles(values)),
        )
        cast_s = values.get("cast_fixed_s", 0.0) + values.get("cast_s_per_element", 0.0) * m * k
        return np.asarray(plain_matmul_time_s(call, known, gpu=gpu, compute_scale=1.0) + cast_s)

    pairs = rows.groupby(["n", "k"]).ngroup().to_numpy()
    fits = []
    for chosen_starts in combinations(*STARTS.values()):
        start = {name: replace(free[name], start=value) for name, value in zip(STARTS, chosen_starts, strict=True)}
        fits.append(fit(equation, free | start, seconds, pairs))
    best = min(fits, key=lambda each: each.cost)
    large = (m >= 2048) & (m <= 16384) & (n >= 1024) & (k >= 1024)
    slices = (m <= 16384) & ((n < 1024) | (k < 1024))
    return ProductFit(fit=best, rows=rows, large=large, slices=slices)


def _median_of_libraries(table: pd.DataFrame) -> pd.DataFrame:
    """The median over libraries of each shape's time, after each library's own speed on large products is divided out.

    They call the same kernels, but were measured on other days, at other clocks: up to 3 % apart.
    """
    wide = table.pivot_table(index=SHAPE, columns="library", values="seconds")
    apart = np.log(wide).sub(np.log(wide.median(axis=1)), axis=0)
    large = (wide.index.get_level_values("m") >= 2048) & (wide.index.get_level_values("n") >= 1024)
    return np.exp(np.log(wide) - apart[large].median()).median(axis=1).rename("seconds").reset_index()


def _tiles(values: Mapping[str, float]) -> list[dict[str, Any]]:
    rates = [1.0, *(float(values[f"rate_{index}"]) for index in range(1, len(TILES)))]
    return [{"rows": high, "columns": wide, "rate": rate} for (high, wide), rate in zip(TILES, rates, strict=True)]
