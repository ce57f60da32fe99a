"""How far another laboratory's table of matrix products is from a shipped profile, before and after the one compute scale.

    python -m perfmodel.benchmarks.fit.checks.kernels TABLE.csv --gpu h100-sxm-80gb [--precision bf16]

TABLE has columns m, n, k and one or more columns of microseconds, one a library; of several the median counts. Times of 8-bit
products include the cast of their operand. Each library of products that the profile knows has its lines. A table of a serving
engine's operators (columns gpu, op, tokens, bytes, us and more) is shown class by class (benchmarks/fit/checks/serving.py).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfmodel.benchmarks.fit.checks.serving import SCALES, is_serving_table, print_classes
from perfmodel.benchmarks.fit.matmul.products import large_and_slices
from perfmodel.benchmarks.fit.memory_bound import CAST_BYTES
from perfmodel.benchmarks.fit.tables import SHAPE
from perfmodel.count.operators import Matmul, MemoryBound
from perfmodel.errors import InputError, PerfmodelError
from perfmodel.exchange.presets import gpu_preset, stack_preset
from perfmodel.spec.machines.coefficients import NEWEST
from perfmodel.timing.kernels import matmul_time_s, memory_bound_time_s


def read_products(path: Path) -> pd.DataFrame:
    """m, n, k and the median of all other columns, in seconds. Errors: InputError when a column is missing."""
    if not path.is_file():
        raise InputError(f"{path} is not a file")
    table = pd.read_csv(path)
    missing = [column for column in SHAPE if column not in table]
    times = table.drop(columns=SHAPE, errors="ignore").select_dtypes("number")
    if missing or times.empty:
        raise InputError(f"{path} needs columns m, n, k and at least one of microseconds; it has {', '.join(table.columns)}")
    twice = int(table.duplicated(SHAPE).sum())
    if twice:
        raise InputError(
            f"{path} has {twice} rows whose m, n, k stand there already; keep one GPU, one precision and one library a column"
        )
    return table[SHAPE].assign(seconds=times.median(axis=1) / 1e6).dropna()


def best_scale(
    table: pd.DataFrame, gpu: str, precision: str, library: str = NEWEST
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """The compute scale of least median error, and the relative errors of all rows with a scale of 1 and with that one."""
    m, n, k, seconds = (table[column].to_numpy(dtype=float) for column in (*SHAPE, "seconds"))
    product = Matmul(name="gemm", rows=m, columns=n, inner=k, precision=precision)
    known, scales = gpu_preset(gpu), SCALES[:, None]
    predicted = np.asarray(matmul_time_s(product, gpu=known, compute_scale=scales, library=library))
    if precision == "fp8":  # tables of 8-bit products time the cast of their operand with them
        cast = MemoryBound(name="cast", family="cast", moved_bytes=CAST_BYTES * m * k)
        predicted = predicted + memory_bound_time_s(cast, gpu=known, stack=stack_preset("megatron-core"))
    errors = predicted / seconds - 1.0
    best = int(np.argmin(np.median(np.abs(errors), axis=1)))
    plain = int(np.argmin(np.abs(SCALES - 1.0)))
    return float(SCALES[best]), errors[plain], errors[best]


def print_products(path: Path, gpu: str, precision: str) -> None:
    """Print the errors of large products and of the slices of tensor parallelism, for each library of products."""
    table, known = read_products(path), gpu_preset(gpu)
    large, slices = large_and_slices(*(table[column].to_numpy(dtype=float) for column in SHAPE))
    older = [name for name, each in known.kernels.matmul_libraries.items() if precision in each.matmul]
    for library in (NEWEST, *older):
        scale, plain, scaled = best_scale(table, gpu, precision, library)
        print(f"library {library}, compute scale of least median error: {scale:.3f}")
        for name, rows in (("n, k >= 1024, m 2048-16384", large), ("slices, n or k 256-1023", slices), ("all", large | True)):
            if rows.any():
                texts = [
                    f"median {np.median(e):.1%} p90 {np.quantile(e, 0.9):.1%}"
                    for e in (np.abs(plain[rows]), np.abs(scaled[rows]))
                ]
                print(f"{name:28} {rows.sum():6d} rows   scale 1: {texts[0]}   scale {scale:.3f}: {texts[1]}")


def main() -> None:
    """Print the errors of what the table holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--gpu", help="whose table it is; of a serving engine's table all of its GPUs without")
    parser.add_argument("--precision", default="bf16", choices=("bf16", "fp16", "fp8"))
    chosen = parser.parse_args()
    try:
        if is_serving_table(chosen.table):
            print_classes(chosen.table, chosen.gpu)
        elif chosen.gpu is None:
            sys.exit("check_kernels: --gpu is needed: the table does not say whose it is")
        else:
            print_products(chosen.table, chosen.gpu, chosen.precision)
    except PerfmodelError as error:
        sys.exit(f"check_kernels: {error}")


if __name__ == "__main__":
    main()
