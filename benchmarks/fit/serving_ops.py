"""Reads and fits another laboratory's table of a serving engine's operators: products, activations, residual additions.

Columns: gpu (h100, a100), model, op, tokens, tp, bytes, us, and m, n, k of products (microsoft/vidur, MIT).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from perfmodel.benchmarks.fit.regression import Fit, Floats, Free, fit_of_few
from perfmodel.benchmarks.fit.tables import Source
from perfmodel.count.operators import MemoryBound
from perfmodel.errors import InputError
from perfmodel.spec.machines.coefficients import MemoryBoundCoefficients
from perfmodel.spec.machines.hardware import Gpu
from perfmodel.timing.kernels import plain_memory_bound_time_s

TABLE: Final = "serving_ops_h100_a100"
SOURCE: Final = Source(table="microsoft/vidur", version="profiles of a serving engine, H100 and A100, 2024", licence="MIT")
GPUS: Final = {"h100-sxm-80gb": "h100", "a100-sxm-80gb": "a100"}
COLUMNS: Final = ("gpu", "model", "op", "tokens", "tp", "bytes", "us", "m", "n", "k")
PRODUCT: Final = "gemm:"
UNGATED: Final = ("phi-",)  # models whose MLP is a GELU; both branches of their layers are added at once, in two kernels
KERNELS: Final = {  # an operator of the engine -> what it computes; rotary and norms stand in fuller tables
    "add": "residual",
    "mlp_act": "fused_swiglu",
    "attn_rope": "fused_rotary",
    **dict.fromkeys(("input_layernorm", "post_attention_layernorm"), "norm"),
}
SHORT_S: Final = 1e-5  # the table counts whole microseconds: shorter kernels say nothing of the memory rate
FREE: Final = {
    "fixed_s": Free(start=2e-6, low=1e-7, high=2e-5),
    "efficiency": Free(start=0.7, low=0.05, high=1.2),
}
CACHED: Final = {"cached_speedup": Free(start=0.5, low=1e-3, high=2.0)}  # of additions, whose operands the kernel before wrote


def read_serving_ops(path: Path) -> pd.DataFrame:
    """The table at `path` with a column of seconds and the kernel of each row. Errors: InputError without a column."""
    table = pd.read_csv(path)
    missing = [column for column in COLUMNS if column not in table]
    if missing:
        raise InputError(f"{path} has no column {missing[0]}; it needs {', '.join(COLUMNS)}")
    ungated = table.model.str.contains("|".join(UNGATED))
    kernel = table.op.map(KERNELS).fillna("").where(~(ungated & (table.op == "mlp_act")), "gelu")
    twice = np.where(ungated & (table.op == "add"), 2.0, 1.0)
    return table.assign(seconds=table.us / 1e6, kernel=kernel, launches=twice, bytes=table.bytes * twice)


def serving_products(table: pd.DataFrame, gpu: str) -> pd.DataFrame:
    """m, n, k and seconds of the products of one GPU; the median where a shape was measured more than once."""
    rows = table[(table.gpu == gpu) & table.op.str.startswith(PRODUCT)]
    return rows.groupby(["m", "n", "k"]).seconds.median().reset_index()


def serving_kernels(table: pd.DataFrame, gpu: str) -> pd.DataFrame:
    """Memory-bound kernels of one GPU: kernel, model, tp, tokens, launches, bytes and median seconds."""
    rows = table[(table.gpu == gpu) & (table.kernel != "")]
    return rows.groupby(["kernel", "model", "tp", "tokens", "launches", "bytes"]).seconds.median().reset_index()


def fit_kernel(rows: pd.DataFrame, gpu: Gpu, kernel: str) -> tuple[dict[str, Any], Fit]:
    """The mapping of one memory-bound kernel of a profile, and its fit; either half of the layouts is predicted by the other.

    The tables hold forward kernels; backward ones, which move their bytes the same way, take the same numbers.
    """
    chosen = rows[(rows.kernel == kernel) & (rows.launches == 1)].reset_index(drop=True)
    free = FREE | (CACHED if kernel == "residual" else {})
    moved = MemoryBound(name=kernel, moved_bytes=chosen.bytes.to_numpy(dtype=float))

    def equation(values: Mapping[str, Any]) -> Floats:
        return np.asarray(plain_memory_bound_time_s(moved, MemoryBoundCoefficients(**_both_ways(values)), gpu=gpu))

    layouts = chosen.groupby(["model", "tp"]).ngroup()
    halves = (layouts if layouts.max() > 0 else chosen.groupby("tokens").ngroup()).to_numpy() % 2
    found = fit_of_few(equation, free, chosen.seconds.to_numpy(dtype=float), halves)
    spread = found.held_out_error(found.measured_s > SHORT_S)["p90"]
    return {
        **{name: float(value) for name, value in _both_ways(found.found).items()},
        "evidence": {"basis": "measured", "sizes": {"moved_bytes": f"{chosen.bytes.min():.4g} {chosen.bytes.max():.4g}"}},
        "spread": {"efficiency": spread, "backward_efficiency": spread},
    }, found


def _both_ways(values: Mapping[str, Any]) -> dict[str, Any]:
    return dict(values) | {f"backward_{name}": value for name, value in values.items()}
