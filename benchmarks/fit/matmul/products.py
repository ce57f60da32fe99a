"""Fits matrix products: one law a GPU and precision (timing/kernels.py, matmul_time_s), with the cast to 4 or 8 bits beside."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfmodel.benchmarks.fit.memory_bound import CAST_BYTES
from perfmodel.benchmarks.fit.memory_bound import FREE as MEMORY_BOUND
from perfmodel.benchmarks.fit.regression import Fit, Floats, Free, fit, spread_of_sums
from perfmodel.benchmarks.fit.tables import LOW_KERNELS, SHAPE
from perfmodel.count.operators import Matmul
from perfmodel.errors import InputError
from perfmodel.spec.machines.coefficients import MatmulCoefficients, Tile
from perfmodel.spec.machines.hardware import Gpu
from perfmodel.spec.precision import number_format
from perfmodel.timing.kernels import plain_matmul_time_s

FREE: Final = {
    "efficiency": Free(start=0.83, low=0.3, high=1.0),
    "fixed_s": Free(start=2.7e-6, low=1e-7, high=2e-5),
    "k_half": Free(start=150.0, low=1.0, high=4000.0),
    "wave_weight": Free(start=0.1, low=1e-3, high=1.0),
    "fill_weight": Free(start=0.5, low=0.1, high=1.0),
    "padding_weight": Free(start=0.3, low=1e-3, high=1.0),
    "split_traffic": Free(start=3.0, low=1.0, high=60.0),
    "slowdown": Free(start=0.1, low=1e-3, high=1.0),
    "slowdown_s": Free(start=1e-3, low=5e-5, high=5e-3),
    "memory_efficiency": Free(start=0.85, low=0.4, high=1.0),
    "cached_share": Free(start=0.6, low=1e-3, high=1.0),
    "overlap_power": Free(start=3.5, low=1.0, high=20.0),
}
CAST: Final = {
    "cast_fixed_s": Free(start=5e-6, low=1e-7, high=5e-5),
    "cast_s_per_element": Free(start=2e-12, low=1e-14, high=1e-11),
}
COLD: Final[tuple[dict[str, float], ...]] = (
    {},
    {"wave_weight": 0.9, "fill_weight": 0.8, "padding_weight": 0.98, "split_traffic": 1.01},
)  # where fits start
TILES: Final = ((128, 256), (128, 192), (128, 128), (64, 128), (64, 64))
RATES: Final = (1.0, 0.93, 0.8, 0.57, 0.43)  # where the fit starts
NEVER: Final = 1e-3  # the rate of a tile that no shape chooses
MOST_SPLITS: Final = 8
MOST_EFFICIENCY: Final = MEMORY_BOUND["efficiency"].high  # of the memory rate, that a memory-bound kernel can have
FEWEST_SHAPES: Final = 10
PRODUCTS_OF_A_LAYER: Final = 4
# the largest products fitted, by format: numbers of the result, FLOPs. 4-bit ones with larger results, or that last more than
# 8 ms, take up to 1.7 times in every library and on every GPU, where 8-bit ones lose nothing: it is not the power limit
LARGEST: Final = {"nvfp4": (1e9, 3e13)}
KEPT: Final = {"weight_gradient_factor": 1.05}  # not in these tables
KEPT_SPREAD: Final = 0.04  # by judgement: between nothing and twice that factor
KEPT_SOURCE: Final = "fp32 accumulation of weight gradients measured about 5 % slower than the forward product"
SPLIT_ACCUMULATION: Final = {("hopper", "fp8"): 1.08}  # of gradients, where the tables are of fast accumulation
SPLIT_SPREAD: Final = 0.04  # by judgement: from 1.04 to 1.12, towards what was measured of kernels alone
SPLIT_SOURCE: Final = (
    "the table is of fast accumulation (NVIDIA/TensorRT-LLM, cublasScaledMM.cpp), which gradients of linears do without "
    "(TransformerEngine, _2X_ACC_DGRAD and _2X_ACC_WGRAD; torchao, gemm_config_grad_input) and which is 1.1 to 1.2 times as "
    "fast (pytorch/ao#2377); fitted on runs of published_runs.csv in FP8 on Hopper, each source weighing one, without any one "
    "of them 1.07 to 1.08"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductFit:
    """A fit with the shapes it was made on."""

    fit: Fit
    rows: pd.DataFrame
    large: NDArray[np.bool_]
    slices: NDArray[np.bool_]
    tiles: list[dict[str, Any]]  # those that are the best for some shape

    def coefficients(self) -> dict[str, Any]:
        """The mapping of a profile: without the cast, which is an operator of its own."""
        values = {name: value for name, value in self.fit.found.items() if name in FREE}
        sizes = {
            name: " ".join(f"{value:g}" for value in sorted(set(self.rows[column])))
            for name, column in zip(("rows", "columns", "inner"), SHAPE, strict=True)
        }
        spread = {name: value for name, value in self.fit.spread.items() if name in FREE}
        return {
            **values,
            **KEPT,
            "most_splits": MOST_SPLITS,
            "tiles": self.tiles,
            "evidence": {"basis": "measured", "sizes": sizes},
            "spread": spread | {"efficiency": self.layer_spread(), "weight_gradient_factor": KEPT_SPREAD},
        }

    def law(self) -> MatmulCoefficients:
        """What the profile holds of it, as the equation takes it."""
        return _law(self.fit.found, [Tile(**tile) for tile in self.tiles])

    def layer_spread(self) -> float:
        """90 % of sums of four held-out products are off by less."""
        chosen = self.fit.out & self.large
        return spread_of_sums(self.fit.error[chosen], PRODUCTS_OF_A_LAYER)

    def errors(self) -> dict[str, dict[str, float]]:
        """On held-out shapes: m 2048 to 16384 with n and k of at least 1024, and the slices of tensor parallelism."""
        return {"large": self.fit.held_out_error(self.large), "slices": self.fit.held_out_error(self.slices)}


def large_and_slices(m: Floats, n: Floats, k: Floats) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which products are large (n, k >= 1024, m 2048 to 16384), and which slices of tensor parallelism (n or k 256 to 1023)."""
    least = np.minimum(n, k)
    return (m >= 2048) & (m <= 16384) & (least >= 1024), (m >= 512) & (m <= 16384) & (least >= 256) & (least < 1024)


def fit_products(table: pd.DataFrame, gpu: Gpu, precision: str) -> ProductFit:
    """The law of one precision. The target is the median over libraries: they call the same kernels, on other days.

    The split is by shape: one in five pairs (n, k) is held out with all its m. For 4 and 8 bits the time of casting the (m x k)
    operand, a start and a time an element, is fitted with the product and left to the cast.
    """
    chosen = table[table.precision == precision]
    is_cast = number_format(precision).low
    if is_cast:
        chosen = chosen[chosen.kernel == LOW_KERNELS[precision]]
    chosen = chosen[(chosen.m >= 512) & (chosen.m <= 32768) & (chosen.n >= 256) & (chosen.k >= 256)]
    result, flop = LARGEST.get(precision, (np.inf, np.inf))
    chosen = chosen[(1.0 * chosen.m * chosen.n <= result) & (2.0 * chosen.m * chosen.n * chosen.k <= flop)]
    rows = chosen.groupby(SHAPE).seconds.median().reset_index()
    shapes = rows.groupby(["n", "k"]).ngroups if len(rows) else 0
    if shapes < FEWEST_SHAPES:
        raise InputError(
            f"{shapes} shapes (n, k) of {precision} products with m >= 512 and n, k >= 256; at least {FEWEST_SHAPES} are needed"
        )
    m, n, k, seconds = (rows[column].to_numpy(dtype=float) for column in (*SHAPE, "seconds"))
    call = Matmul(name="gemm", rows=m, columns=n, inner=k, precision=precision)
    tiles = {f"rate_{index}": Free(start=RATES[index], low=0.1, high=1.05) for index in range(1, len(TILES))}
    free = FREE | tiles | (_cast_free(gpu, precision) if is_cast else {})

    def equation(values: Mapping[str, Any]) -> Floats:
        known = _law(values, [Tile(**tile) for tile in _tiles(values)])
        cast_s = values.get("cast_fixed_s", 0.0) + values.get("cast_s_per_element", 0.0) * m * k
        return np.asarray(plain_matmul_time_s(call, known, gpu=gpu, compute_scale=1.0) + cast_s)

    pairs = rows.groupby(["n", "k"]).ngroup().to_numpy()
    fits = []
    for start in (*COLD, _shipped(gpu, precision)):
        begun = {name: replace(each, start=_inside(each, start.get(name, each.start))) for name, each in free.items()}
        fits.append(fit(equation, begun, seconds, pairs))
    best = min(fits, key=lambda each: each.cost)
    large, slices = large_and_slices(m, n, k)
    return ProductFit(fit=best, rows=rows, large=large, slices=slices, tiles=_chosen_tiles(equation, best))


def _law(values: Mapping[str, Any], tiles: Sequence[Tile]) -> MatmulCoefficients:
    return MatmulCoefficients(
        **{name: values[name] for name in FREE},
        weight_gradient_factor=KEPT["weight_gradient_factor"],
        most_splits=MOST_SPLITS,
        tiles=tuple(tiles),
    )


def _cast_free(gpu: Gpu, precision: str) -> dict[str, Free]:
    """The free numbers of a cast: no class of kernels is faster than the memory by more, whatever lies in the cache."""
    least_s = CAST_BYTES[precision] / (MOST_EFFICIENCY * float(gpu.memory_bandwidth_bytes_per_s))
    return CAST | {"cast_s_per_element": replace(CAST["cast_s_per_element"], low=least_s)}


def _shipped(gpu: Gpu, precision: str) -> dict[str, float]:
    """The coefficients that the GPU's profile has now: the least over tiles has many valleys, and this is in a deep one."""
    known = gpu.kernels.matmul.get(precision) or gpu.matmul("fp8")
    rates = {(tile.rows, tile.columns): float(tile.rate) for tile in known.tiles}
    tiles = {f"rate_{index}": rates.get(TILES[index], RATES[index]) for index in range(1, len(TILES))}
    return {name: float(getattr(known, name)) for name in FREE} | tiles


def _inside(free: Free, value: float) -> float:
    """`value`, moved off the bounds, where a fit could not take a step."""
    return min(max(value, free.low * 1.01), free.high * 0.99)


def _chosen_tiles(equation: Callable[[Mapping[str, Any]], Floats], best: Fit) -> list[dict[str, Any]]:
    """The first tile, and those without which some shape would take longer: what no shape chooses costs time to weigh."""
    tiles = _tiles(best.found)
    without = {index: np.asarray(equation(best.found | {f"rate_{index}": NEVER})) for index in range(1, len(TILES))}
    return [tiles[0], *(tiles[index] for index, times in without.items() if np.any(times > best.predicted_s * (1 + 1e-9)))]


def _tiles(values: Mapping[str, float]) -> list[dict[str, Any]]:
    rates = [1.0, *(float(values[f"rate_{index}"]) for index in range(1, len(TILES)))]
    return [{"rows": high, "columns": wide, "rate": rate} for (high, wide), rate in zip(TILES, rates, strict=True)]
