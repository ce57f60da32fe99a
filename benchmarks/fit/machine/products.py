"""Fits the products of one machine: the forward law, and what both gradients take against it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from perfmodel.benchmarks.fit.matmul.products import fit_products
from perfmodel.benchmarks.fit.regression import Floats, Free, fit_of_few, rounded, spread_of_sums
from perfmodel.count.operators import Matmul, gradients
from perfmodel.errors import InputError
from perfmodel.evidence.steps.records import Record
from perfmodel.spec.machines.coefficients import MatmulCoefficients, Tile
from perfmodel.spec.machines.hardware import Gpu
from perfmodel.spec.phases import DATA_GRADIENT, FORWARD, WEIGHT_GRADIENT
from perfmodel.timing.kernels import plain_matmul_time_s

SIDES: Final = ("rows", "columns", "inner")
FEWEST_ROWS: Final = 256  # of tokens: what training has; BLAS libraries have other kernels below
FEWEST_PAIRS: Final = 3
CORE: Final[dict[str, Any]] = {  # one core packs its operands and multiplies them: no tiles, no waves, no power limit
    "wave_weight": 0.0,
    "fill_weight": 0.0,
    "padding_weight": 0.0,
    "split_traffic": 1.0,
    "slowdown": 0.0,
    "slowdown_s": 1.0,
    "cached_share": 0.0,
}
FREE: Final = {
    "efficiency": Free(start=0.9, low=0.2, high=1.2),
    "fixed_s": Free(start=5e-6, low=1e-8, high=2e-4),
    "k_half": Free(start=2.0, low=1e-3, high=500.0),
    "memory_efficiency": Free(start=0.5, low=0.02, high=1.0),
    "overlap_power": Free(start=1.5, low=1.0, high=20.0),
}
FACTORS: Final = {DATA_GRADIENT: "data_gradient_factor", WEIGHT_GRADIENT: "transposed_factor"}
FREE_FACTORS: Final = dict.fromkeys(FACTORS.values(), Free(start=1.0, low=0.5, high=3.0))
PRODUCTS_OF_A_LAYER: Final = 4


def product_entries(records: Sequence[Record], gpu: Gpu, device: str, sources: dict[str, Any]) -> dict[str, Any]:
    """The coefficients of every precision in `records`; where each comes from goes into `sources`."""
    entries = {}
    for precision in sorted({each.labels["precision"] for each in records}):
        chosen = [each for each in records if each.labels["precision"] == precision and each.sizes["rows"] >= FEWEST_ROWS]
        pairs = {(each.sizes["columns"], each.sizes["inner"]) for each in chosen}
        if len(pairs) < FEWEST_PAIRS:
            raise InputError(
                f"{len(pairs)} pairs of columns and inner size of {precision} products with {FEWEST_ROWS} rows or more; "
                f"{FEWEST_PAIRS} at least are needed"
            )
        fitted = _fit_core if device == "cpu" else _fit_gpu
        entry, errors = fitted(chosen, gpu, precision)
        sizes = {side: " ".join(f"{size:g}" for size in sorted({each.sizes[side] for each in chosen})) for side in SIDES}
        entries[precision] = entry | {"evidence": {"basis": "measured", "sizes": sizes}}
        sources[f"gpu.kernels.matmul.{precision}"] = (
            f"{len(chosen)} products of this machine, forward and both gradients; pairs of columns and inner size held out: "
            f"median error {errors[0]:.1%}, 90th percentile {errors[1]:.1%}"
        )
    return entries


def _products(records: Sequence[Record], precision: str) -> tuple[Matmul, Floats]:
    """The records of one phase as one product of arrays, and their times."""
    sizes: dict[str, Any] = {side: np.array([each.sizes[side] for each in records], dtype=float) for side in SIDES}
    return Matmul(name="product", precision=precision, accumulates=False, **sizes), np.array([each.seconds for each in records])


def _fit_core(records: Sequence[Record], gpu: Gpu, precision: str) -> tuple[dict[str, Any], tuple[float, float]]:
    """All three passes at once."""
    phases = [phase for phase in (FORWARD, *FACTORS) if any(each.labels["phase"] == phase for each in records)]
    parts = [[each for each in records if each.labels["phase"] == phase] for phase in phases]
    calls, seconds = zip(*(_products(part, precision) for part in parts), strict=True)
    passes = [_pass(call, phase) for call, phase in zip(calls, phases, strict=True)]

    def equation(values: Mapping[str, Any]) -> Floats:
        known = MatmulCoefficients(
            **{name: values[name] for name in FREE},
            **CORE,
            weight_gradient_factor=1.0,
            most_splits=1,
            tiles=(Tile(rows=1, columns=1, rate=1.0),),
        )
        factors = [values.get(FACTORS.get(phase, ""), 1.0) for phase in phases]
        times = [plain_matmul_time_s(call, known, gpu=gpu, compute_scale=1.0) for call in passes]
        return np.concatenate([np.asarray(time) * factor for time, factor in zip(times, factors, strict=True)])

    pairs = [f"{each.sizes['columns']:g} {each.sizes['inner']:g}" for part in parts for each in part]
    groups = np.unique(pairs, return_inverse=True)[1]
    present = {FACTORS[phase]: FREE_FACTORS[FACTORS[phase]] for phase in phases if phase in FACTORS}
    found = fit_of_few(equation, FREE | present, np.concatenate(seconds), groups)
    errors = np.abs(found.error)
    spread = {name: value for name, value in found.spread.items() if name in FREE}
    return {
        **found.found,
        **CORE,
        "weight_gradient_factor": 1.0,
        "most_splits": 1,
        "tiles": [{"rows": 1, "columns": 1, "rate": 1.0}],
        "spread": spread | {"efficiency": spread_of_sums(found.error, PRODUCTS_OF_A_LAYER)},
    }, (float(np.median(errors)), float(np.quantile(errors, 0.9)))


def _pass(forward: Matmul, phase: str) -> Matmul:
    """The product of one pass over the same weight."""
    if phase == FORWARD:
        return forward
    found = next(each for each in gradients(forward) if each.phase == phase)
    if not isinstance(found, Matmul):
        raise InputError(f"the {phase} of a product is no product")
    return found


def _fit_gpu(records: Sequence[Record], gpu: Gpu, precision: str) -> tuple[dict[str, Any], tuple[float, float]]:
    """The law with tiles and waves on the forward products; each gradient is a factor of it."""
    forward = [each for each in records if each.labels["phase"] == FORWARD]
    table = pd.DataFrame(
        {
            "m": [int(each.sizes["rows"]) for each in forward],
            "n": [int(each.sizes["columns"]) for each in forward],
            "k": [int(each.sizes["inner"]) for each in forward],
            "precision": precision,
            "kernel": "",
            "library": "records",
            "seconds": [each.seconds for each in forward],
        }
    )
    found = fit_products(table, gpu, precision)
    entry = {name: value for name, value in found.coefficients().items() if name != "evidence"}
    known = MatmulCoefficients(
        **{name: value for name, value in entry.items() if name not in ("spread", "tiles")},
        tiles=tuple(Tile(**tile) for tile in entry["tiles"]),
    )
    for phase, factor in FACTORS.items():
        of_phase = [each for each in records if each.labels["phase"] == phase]
        if of_phase:
            call, seconds = _products(of_phase, precision)
            alone = np.asarray(plain_matmul_time_s(_pass(call, phase), known, gpu=gpu, compute_scale=1.0))
            entry[factor] = rounded(float(np.median(seconds / alone)), 4)
    errors = found.errors()["large"]
    return entry, (errors["median"], errors["p90"])
