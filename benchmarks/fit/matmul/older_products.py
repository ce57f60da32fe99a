"""Fits the matrix products of an older library on a serving engine's table: the law of timing/kernels.py, other numbers.

Libraries of 2023 and early 2024 compute nearly all of their outer tiles, lose a third and more of a wave that is not full, and
their smaller tiles are slower; libraries since then cut the inner size or the waves so that little of that shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pandas as pd

from perfmodel.benchmarks.fit.matmul.products import KEPT, KEPT_SPREAD, PRODUCTS_OF_A_LAYER
from perfmodel.benchmarks.fit.regression import Fit, Floats, Free, fit_of_few, spread_of_sums
from perfmodel.benchmarks.fit.tables import SHAPE
from perfmodel.count.operators import Matmul
from perfmodel.spec.machines.coefficients import MatmulCoefficients, Tile
from perfmodel.spec.machines.hardware import Gpu
from perfmodel.timing.kernels import plain_matmul_time_s

NAME: Final = "cublas_2023"
TILES: Final = ((128, 256), (128, 128), (64, 128), (64, 64))
FREE: Final = {
    "efficiency": Free(start=0.82, low=0.3, high=1.0),
    "fixed_s": Free(start=5e-6, low=1e-7, high=2e-5),
    "wave_weight": Free(start=0.35, low=1e-3, high=1.0),
    "fill_weight": Free(start=0.5, low=1e-3, high=1.0),
    "padding_weight": Free(start=0.8, low=1e-3, high=1.0),
    "rate_1": Free(start=0.9, low=0.1, high=1.05),
    "rate_2": Free(start=0.75, low=0.1, high=1.05),
    "rate_3": Free(start=0.65, low=0.1, high=1.05),
}
LONG: Final = {  # what a table of kernels of milliseconds, on slower memory, tells beside
    "slowdown": Free(start=0.1, low=1e-3, high=1.0),
    "slowdown_s": Free(start=3e-4, low=5e-5, high=5e-3),
    "memory_efficiency": Free(start=0.9, low=0.5, high=1.0),
    "overlap_power": Free(start=2.0, low=1.0, high=20.0),
    "split_traffic": Free(start=2.0, low=0.5, high=60.0),
}
LONG_S: Final = 2e-3  # the longest kernel of a table that tells them
MOST_SPLITS: Final = {False: 1, True: 3}
NUMBERS: Final = (*(name for name in FREE if not name.startswith("rate_")), *LONG, "k_half", "cached_share")


def fit_older(table: pd.DataFrame, gpu: Gpu) -> tuple[dict[str, Any], Fit]:
    """The mapping of a profile, and the fit of all rows; each half of the shapes (n, k) is predicted by the other."""
    rows = table.groupby(SHAPE).seconds.median().reset_index()
    seconds = rows.seconds.to_numpy(dtype=float)
    has_long = bool(seconds.max() > LONG_S)
    free = FREE | (LONG if has_long else {})
    like = gpu.kernels.matmul["bf16"]
    m, n, k = (rows[column].to_numpy(dtype=float) for column in SHAPE)
    call = Matmul(name="gemm", rows=m, columns=n, inner=k, precision="bf16")

    def equation(values: Mapping[str, Any]) -> Floats:
        known = _coefficients(values, like, has_long=has_long)
        return np.asarray(plain_matmul_time_s(call, known, gpu=gpu, compute_scale=1.0))

    halves = rows.groupby(["n", "k"]).ngroup().to_numpy() % 2
    found = fit_of_few(equation, free, seconds, halves)
    known = _coefficients(found.found, like, has_long=has_long)
    sizes = {
        name: " ".join(f"{value:g}" for value in _thinned(rows[column]))
        for name, column in zip(("rows", "columns", "inner"), SHAPE, strict=True)
    }
    return {
        **{name: float(getattr(known, name)) for name in NUMBERS},
        **KEPT,
        "most_splits": MOST_SPLITS[has_long],
        "tiles": [{"rows": tile.rows, "columns": tile.columns, "rate": float(tile.rate)} for tile in known.tiles],
        "evidence": {"basis": "measured", "sizes": sizes},
        "spread": {
            "efficiency": spread_of_sums(found.error[found.out & (m >= 2048)], PRODUCTS_OF_A_LAYER),
            "weight_gradient_factor": KEPT_SPREAD,
        },
    }, found


def _thinned(sizes: pd.Series) -> list[float]:
    """The values of a column, those left out that are within a fifth of the one before; the largest stays."""
    values = sorted(set(sizes))
    kept = values[:1]
    for value in values[1:]:
        if value > 1.2 * kept[-1] or value == values[-1]:
            kept.append(value)
    return kept


def kept_numbers(mapping: Mapping[str, Any], found: Fit) -> list[str]:
    """The numbers of a mapping that were not fitted."""
    return [name for name in NUMBERS if name in mapping and name not in found.found]


def _coefficients(values: Mapping[str, Any], like: MatmulCoefficients, *, has_long: bool) -> MatmulCoefficients:
    """The law with fitted numbers; what the table does not tell is that of the newest library."""
    rates = (1.0, *(values[f"rate_{index}"] for index in range(1, len(TILES))))
    tiles = tuple(Tile(rows=high, columns=wide, rate=rate) for (high, wide), rate in zip(TILES, rates, strict=True))
    own = {name: value for name, value in values.items() if not name.startswith("rate_")}
    return replace(like, most_splits=MOST_SPLITS[has_long], tiles=tiles, **own)
