"""Fits the shipped coefficients of collectives inside a node and of matrix products, and prints them as YAML.

    python -m benchmarks.fit_kernels nccl TABLES/nccl_single_node.csv.gz --gpu h100_sxm
    python -m benchmarks.fit_kernels bf16 TABLES/gemm_bf16_h100_sxm.csv.gz --gpu h100_sxm
    python -m benchmarks.fit_kernels fp8 TABLES/gemm_fp8_fp4_h100_b200.csv.gz --gpu h100_sxm

The tables are NVIDIA AIConfigurator's (aiconfigurator-core 0.12.0, Copyright (c) 2025-2026 NVIDIA CORPORATION & AFFILIATES,
Apache-2.0). Held-out error: one shape in five is kept out of the fit (seed 0); median / 90th percentile.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray
from scipy.optimize import least_squares

from perfmodel.count.operators import Collective, Matmul
from perfmodel.exchange.presets import gpu_preset
from perfmodel.spec.coefficients import CollectiveCoefficients, MatmulCoefficients
from perfmodel.spec.layout import ProcessGroup
from perfmodel.timing.collectives import root_model_s
from perfmodel.timing.kernels import plain_matmul_time_s

Floats = NDArray[np.float64]
KINDS = ("all_reduce", "all_gather", "reduce_scatter")
PRESETS = {
    "h100_sxm": "h100-sxm-80gb",
    "h200_sxm": "h200-sxm-141gb",
    "a100_sxm": "a100-sxm-80gb",
    "b200_sxm": "b200",
    "gb200": "gb200",
}
BOUNDS = {
    "efficiency": (0.3, 1.1),
    "fixed_s": (0.0, 2e-5),
    "k_half": (0.0, 1000.0),
    "wave_weight": (0.0, 1.0),
    "fill_weight": (0.0, 1.0),
    "padding_weight": (0.0, 1.0),
    "size_exponent": (0.0, 0.2),
    "memory_efficiency": (0.3, 1.0),
    "overlap_power": (1.0, 20.0),
    "cast_fixed_s": (0.0, 5e-5),
    "cast_s_per_element": (0.0, 1e-11),
}
START = {
    "efficiency": 0.85,
    "fixed_s": 3e-6,
    "k_half": 150.0,
    "wave_weight": 0.1,
    "fill_weight": 0.1,
    "padding_weight": 0.3,
    "size_exponent": 0.03,
    "memory_efficiency": 0.8,
    "overlap_power": 3.0,
    "cast_fixed_s": 5e-6,
    "cast_s_per_element": 2e-12,
}
FREE = tuple(name for name in START if not name.startswith("cast"))
FP8_LIBRARY = "trtllm"  # its kernel_source torch_flow is torch._scaled_mm, that is cuBLASLt: what Transformer Engine calls


def fit(model: Callable[[Floats], Floats], measured: Floats, start: list[float]) -> Floats:
    """Coefficients (all positive) that make the logarithm of `model` nearest to that of `measured`, outliers damped."""
    found = least_squares(lambda logs: np.log(model(np.exp(logs)) / measured), np.log(start), loss="soft_l1", f_scale=0.1)
    fitted: Floats = np.exp(found.x)
    return fitted


def held_out(rows: int) -> NDArray[np.bool_]:
    """One row in five."""
    return np.random.default_rng(0).random(rows) < 0.2


def error_text(predicted: Floats, measured: Floats) -> str:
    """Median and 90th percentile of the absolute relative error."""
    error = np.abs(predicted / measured - 1)
    return f"{np.median(error):.1%} / {np.quantile(error, 0.9):.1%} of {len(error)} rows"


def fit_collectives(table: pd.DataFrame, gpu: str) -> dict[str, Any]:
    """The groups of a NodeLink: latency, bandwidth and root of each collective at each group size."""
    groups, errors = [], []
    rows = table[(table.gpu == gpu) & (table.nccl_dtype == "half")]
    for ranks in sorted(set(rows.num_gpus) & {2, 4, 8}):
        group: dict[str, Any] = {"ranks": int(ranks)}
        for kind in KINDS:
            chosen = rows[(rows.num_gpus == ranks) & (rows.op_name == kind)].groupby("bytes").us.median()
            if chosen.empty:
                continue
            payload, measured = chosen.index.to_numpy(dtype=float), chosen.to_numpy() * 1e-6
            call = Collective(
                name=kind, kind=kind, payload_bytes=payload, group=ProcessGroup(name="node", ranks=ranks, stride=1)
            )
            wire = np.asarray(call.wire_bytes)
            out = held_out(len(wire))
            values = fit(partial(_collective_s, wire=wire[~out]), measured[~out], [1e-5, 3e11, 5e-9])
            errors.append(f"{kind} {ranks}: {error_text(_collective_s(values, wire=wire[out]), measured[out])}")
            group[kind] = dict(zip(("latency_s", "bandwidth_bytes_per_s", "s_per_root_byte"), _rounded(values), strict=True))
        groups.append(group)
    return {"groups": groups, "held_out_error": errors}


def _collective_s(values: Floats, *, wire: Floats) -> Floats:
    known = CollectiveCoefficients(latency_s=values[0], bandwidth_bytes_per_s=values[1], s_per_root_byte=values[2])
    return np.asarray(root_model_s(known, wire, 1.0))


def bf16_rows(path: Path) -> pd.DataFrame:
    """m, n, k and the median of the serving libraries' times [us]: they call the same kernels, on other days."""
    table = pd.read_csv(path)
    libraries = [column for column in table if column not in {"m", "n", "k"}]
    return table.assign(us=table[libraries].median(axis=1)).dropna(subset=["us"])


def fp8_rows(path: Path, gpu: str) -> pd.DataFrame:
    """m, n, k and the time [us] of one library's 8-bit product with the cast of its bf16 operand."""
    table = pd.read_csv(path)
    return table[(table.gpu == gpu) & (table.gemm_dtype == "fp8") & (table.src_backend == FP8_LIBRARY)]


def fit_matmul(rows: pd.DataFrame, gpu: str, precision: str) -> dict[str, Any]:
    """Coefficients of a matrix product; for 8 bits also what casting an operand costs: a start, and a time an element.

    The split is by shape: one in five pairs (n, k) is held out with all its m. The slices of tensor parallelism are the
    shapes with n or k of 256 to 1023, down to m = 512.
    """
    rows = rows[(rows.m >= 512) & (rows.m <= 32768) & (rows.n >= 256) & (rows.k >= 256)]
    m, n, k, measured_s = (rows[column].to_numpy(dtype=float) for column in ("m", "n", "k", "us"))
    measured_s = measured_s * 1e-6
    spec = gpu_preset(PRESETS[gpu])
    product = Matmul(name="gemm", rows=m, columns=n, inner=k, precision=precision)
    names = FREE if precision == "bf16" else (*FREE, "cast_fixed_s", "cast_s_per_element")
    fixed = dataclasses.asdict(spec.kernels.matmul["bf16"])

    def seconds(values: Floats) -> Floats:
        found = fixed | dict(zip(names, values, strict=True))
        cast_s = found.pop("cast_fixed_s", 0.0) + found.pop("cast_s_per_element", 0.0) * m * k
        return np.asarray(plain_matmul_time_s(product, MatmulCoefficients(**found), gpu=spec, compute_scale=1.0) + cast_s)

    pair = rows.groupby(["n", "k"]).ngroup().to_numpy()
    out = held_out(int(pair.max()) + 1)[pair]
    ends = np.array([BOUNDS[name] for name in names])
    found = least_squares(
        lambda values: np.log(seconds(values) / measured_s)[~out],
        [START[name] for name in names],
        bounds=(ends[:, 0], ends[:, 1]),
        x_scale=np.maximum([START[name] for name in names], 1e-15),
        loss="soft_l1",
        f_scale=0.03,
    )
    large = (m >= 2048) & (m <= 16384) & (n >= 1024) & (k >= 1024)
    slices = (m <= 16384) & ((n < 1024) | (k < 1024))
    predicted_s = seconds(found.x)
    return dict(zip(names, _rounded(found.x), strict=True)) | {
        "held_out_error": error_text(predicted_s[out & large], measured_s[out & large]),
        "held_out_error_of_slices": error_text(predicted_s[out & slices], measured_s[out & slices]),
    }


def _rounded(values: Floats) -> list[float]:
    return [float(f"{value:.4g}") for value in values]


def main() -> None:
    """Fit what was asked for and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("nccl", "bf16", "fp8"))
    parser.add_argument("table", type=Path)
    parser.add_argument("--gpu", required=True, choices=PRESETS)
    chosen = parser.parse_args()
    if chosen.what == "nccl":
        found = fit_collectives(pd.read_csv(chosen.table), chosen.gpu)
    else:
        rows = bf16_rows(chosen.table) if chosen.what == "bf16" else fp8_rows(chosen.table, chosen.gpu)
        found = fit_matmul(rows, chosen.gpu, chosen.what)
    print(yaml.safe_dump(found, sort_keys=False))


if __name__ == "__main__":
    main()
