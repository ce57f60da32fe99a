"""Fits the shipped coefficients of collectives inside a node and of 8-bit matrix products, and prints them as YAML.

    python -m benchmarks.fit_kernels nccl TABLES/nccl_single_node.csv.gz --gpu h100_sxm
    python -m benchmarks.fit_kernels fp8 TABLES/gemm_fp8_fp4_h100_b200.csv.gz --gpu h100_sxm

The tables are NVIDIA AIConfigurator's (aiconfigurator-core 0.12.0, Copyright (c) 2025-2026 NVIDIA CORPORATION & AFFILIATES,
Apache-2.0). Held-out error: one shape in five is kept out of the fit (split by shape, seed 0); median / 90th percentile.
"""

from __future__ import annotations

import argparse
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
from perfmodel.timing.kernels import compute_bound_time_s, operand_bound_time_s

Floats = NDArray[np.float64]
KINDS = ("all_reduce", "all_gather", "reduce_scatter")
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


def fit_fp8(table: pd.DataFrame, gpu: str) -> dict[str, Any]:
    """Coefficients of one library's 8-bit product, and what casting its bf16 operand costs for each element."""
    rows = table[(table.gpu == gpu) & (table.gemm_dtype == "fp8") & (table.src_backend == FP8_LIBRARY)]
    rows = rows[(rows.m >= 512) & (rows.m <= 32768) & (rows.n >= 256) & (rows.k >= 256)]
    m, n, k, measured = (rows[column].to_numpy(dtype=float) for column in ("m", "n", "k", "us"))
    measured = measured * 1e-6
    product = Matmul(name="gemm", rows=m, columns=n, inner=k, precision="fp8")
    spec = gpu_preset({"h100_sxm": "h100-sxm-80gb", "b200_sxm": "b200"}[gpu])
    known = spec.kernels.matmul["bf16"]

    def seconds(values: Floats) -> Floats:
        efficiency, k_half, wave_weight, exponent, cast_fixed_s, cast_s = values
        coefficients = MatmulCoefficients(
            efficiency=efficiency,
            k_half=k_half,
            wave_weight=wave_weight,
            size_exponent=exponent,
            fixed_s=known.fixed_s,
            size_reference_flop=known.size_reference_flop,
            tile_rows=known.tile_rows,
            tile_columns=known.tile_columns,
            memory_efficiency=known.memory_efficiency,
            weight_gradient_factor=1.0,
        )
        compute = compute_bound_time_s(product, coefficients, gpu=spec, compute_scale=1.0)
        operands = operand_bound_time_s(product, coefficients, gpu=spec)
        return np.asarray(np.maximum(compute, operands) + cast_fixed_s + cast_s * m * k)

    out = held_out(len(m))
    values = fit(lambda v: seconds(v)[~out], measured[~out], [0.75, 200.0, 0.1, 0.02, 5e-6, 2e-12])
    large = out & (m >= 2048) & (m <= 16384) & (n >= 1024) & (k >= 1024)
    names = ("efficiency", "k_half", "wave_weight", "size_exponent", "quantise_fixed_s", "quantise_s_per_element")
    return dict(zip(names, _rounded(values), strict=True)) | {
        "held_out_error": error_text(seconds(values)[large], measured[large])
    }


def _rounded(values: Floats) -> list[float]:
    return [float(f"{value:.4g}") for value in values]


def main() -> None:
    """Fit what was asked for and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("nccl", "fp8"))
    parser.add_argument("table", type=Path)
    parser.add_argument("--gpu", required=True)
    chosen = parser.parse_args()
    table = pd.read_csv(chosen.table)
    found = fit_collectives(table, chosen.gpu) if chosen.what == "nccl" else fit_fp8(table, chosen.gpu)
    print(yaml.safe_dump(found, sort_keys=False))


if __name__ == "__main__":
    main()
