"""How far another laboratory's table of a serving engine's operators is from the shipped profiles, class by class.

    python -m perfmodel.benchmarks.fit.checks.kernels serving_ops_h100_a100.csv.gz [--gpu h100-sxm-80gb]

For each GPU of the table: products with each library of products, and each class of memory-bound kernels; the errors as the
profile has them, and with the one scale of all its rates that makes the median least.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfmodel.benchmarks.fit.serving_ops import COLUMNS, GPUS, read_serving_ops, serving_kernels, serving_products
from perfmodel.count.operators import Matmul, MemoryBound
from perfmodel.errors import InputError
from perfmodel.exchange.presets import gpu_preset, stack_preset
from perfmodel.spec.machines.coefficients import MATMUL_LIBRARIES
from perfmodel.spec.machines.hardware import Gpu
from perfmodel.timing.kernels import matmul_time_s, memory_bound_time_s

SCALES: Final = np.linspace(0.6, 1.2, 121)
EAGER: Final = "torchtitan-eager"  # a stack whose norms are PyTorch's own, as the engine's are


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassErrors:
    """Errors of one class of a table: predicted / measured - 1, as the profile stands and at the best scale."""

    name: str
    scale: float
    plain: NDArray[np.float64]
    scaled: NDArray[np.float64]

    def __str__(self) -> str:
        plain, scaled = (f"median {_median(each):5.1%} p90 {_p90(each):5.1%}" for each in (self.plain, self.scaled))
        return f"{self.name:24} {len(self.plain):6d} rows   scale 1: {plain}   scale {self.scale:.3f}: {scaled}"


def product_errors(table: pd.DataFrame, gpu: Gpu, library: str) -> ClassErrors:
    """The errors of all products of one GPU, timed with one library."""
    m, n, k, seconds = (table[column].to_numpy(dtype=float) for column in ("m", "n", "k", "seconds"))
    product = Matmul(name="gemm", rows=m, columns=n, inner=k, precision="bf16")
    times = [np.asarray(matmul_time_s(product, gpu=gpu, compute_scale=scale, library=library)) for scale in SCALES]
    return _best(f"products, {library}", np.stack(times), seconds)


def kernel_errors(table: pd.DataFrame, gpu: Gpu, kernel: str) -> ClassErrors:
    """The errors of one class of memory-bound kernels of one GPU."""
    rows = table[table.kernel == kernel]
    family = "norm" if kernel == "norm" else "elementwise"
    call = MemoryBound(
        name=kernel,
        family=family,
        kernel=kernel,
        moved_bytes=rows.bytes.to_numpy(dtype=float),
        kernels=rows.launches.to_numpy(dtype=float),
    )
    times = np.asarray(memory_bound_time_s(call, gpu=gpu, stack=stack_preset(EAGER)))
    return _best(kernel, times / SCALES[:, None], rows.seconds.to_numpy(dtype=float))


def table_errors(table: pd.DataFrame, gpu: str) -> Iterator[ClassErrors]:
    """All classes of one GPU of a table."""
    known, products, kernels = gpu_preset(gpu), serving_products(table, GPUS[gpu]), serving_kernels(table, GPUS[gpu])
    if len(products):
        yield from (product_errors(products, known, library) for library in MATMUL_LIBRARIES)
    yield from (kernel_errors(kernels, known, kernel) for kernel in sorted(set(kernels.kernel)))


def _best(name: str, times: NDArray[np.float64], seconds: NDArray[np.float64]) -> ClassErrors:
    errors = times / seconds - 1.0
    best, plain = int(np.argmin(np.median(np.abs(errors), axis=1))), int(np.argmin(np.abs(SCALES - 1.0)))
    return ClassErrors(name=name, scale=float(SCALES[best]), plain=errors[plain], scaled=errors[best])


def _median(errors: NDArray[np.float64]) -> float:
    return float(np.median(np.abs(errors)))


def _p90(errors: NDArray[np.float64]) -> float:
    return float(np.quantile(np.abs(errors), 0.9))


def is_serving_table(path: Path) -> bool:
    """Whether the file is a table of a serving engine's operators."""
    return path.is_file() and set(COLUMNS) <= set(pd.read_csv(path, nrows=0).columns)


def print_classes(path: Path, gpu: str | None) -> None:
    """Print a line a class of each GPU. Errors: InputError for a GPU that the table does not hold."""
    if gpu is not None and gpu not in GPUS:
        raise InputError(f"the table holds {', '.join(GPUS)}, not {gpu}")
    table = read_serving_ops(path)
    for name in (gpu,) if gpu else GPUS:
        print(gpu_preset(name).name)
        for errors in table_errors(table, name):
            print(f"  {errors}")
