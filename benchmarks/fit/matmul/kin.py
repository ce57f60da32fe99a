"""At which clocks the products of a GPU's laws ran: laws of both formats against those of the chips made of the same circuits.

Under a power limit such chips differ by one factor, whatever the number format: a product costs them the same energy, and
what they may spend is the chip's. Tables of three libraries in two formats agree on that factor for Blackwell, and both
formats reach one share of their peaks there. Their short products do neither, as each table was timed at clocks of its own.
Symbols, over products that last on every chip: t = time on a chip over that on the first one, of tables; r = share of the
peak rate that the law of a chip and format gives, where no limit holds it down, in units of the first chip's peak;

    b = r*t / (geometric mean of r*t over chips and formats)

is how much faster the products of a law are than those of its kin, at the clocks that a limit leaves each chip. Between H100
and H200, format by format, it is 1 within 0.5 %.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import pandas as pd

from perfmodel.benchmarks.fit.tables import SHAPE
from perfmodel.count.operators import Matmul
from perfmodel.exchange.presets import gpu_preset
from perfmodel.spec.evidence.spread import with_numbers
from perfmodel.spec.machines.coefficients import MatmulCoefficients
from perfmodel.spec.machines.hardware import Gpu
from perfmodel.timing.kernels import plain_matmul_time_s

KIN: Final = ("b200", "gb200", "b300", "gb300")
FORMATS: Final = ("bf16", "fp8")  # 4-bit products of B300 and GB300 have circuits of their own, half as many again
LAST_S: Final = 1e-3  # what a product takes on every chip: a power limit takes hold within it (slowdown_s of the laws)
BURST_SPREAD: Final = 0.03  # 2.5 times the median distance of a chip's six tables from their median, 1 to 1.6 %
BURST_SOURCE: Final = (
    "products of 1 ms and longer take 0.94 of B200's time on GB200, 0.95 on B300 and 0.81 on GB300, in bf16 and in FP8 alike "
    "(medians of six tables of aiconfigurator-core 0.12.0, three libraries in both formats), and products of cuBLASLt in FP8 "
    "half of what they take in bf16 (0.49 to 0.51); what this law gives over that, against the mean of the eight laws of four "
    "chips (benchmarks/fit/matmul/kin.py)"
)


def lasting_products(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Seconds of products that last on every chip, a column a chip, a row a shape, library and format."""
    rows = pd.concat([table.assign(chip=chip) for chip, table in tables.items()])
    rows = rows[rows.precision.isin(FORMATS) & (rows.m >= 512) & (rows.m <= 32768) & (rows.n >= 256) & (rows.k >= 256)]
    wide = rows.pivot_table(index=[*SHAPE, "library", "precision"], columns="chip", values="seconds").dropna()
    return wide[wide.min(axis=1) >= LAST_S][list(tables)]


def limited_times(lasting: pd.DataFrame) -> dict[str, float]:
    """t by chip: the median over libraries and formats of the medians over shapes."""
    times = lasting.div(lasting.iloc[:, 0], axis=0)
    over_tables = times.groupby(["library", "precision"]).median().median()
    return {str(chip): float(time) for chip, time in over_tables.items()}


def burst_clocks(
    laws: Mapping[tuple[str, str], MatmulCoefficients], gpus: Mapping[str, Gpu], lasting: pd.DataFrame
) -> dict[tuple[str, str], float]:
    """b by chip and format, of their laws: the median over the shapes that last in every format."""
    formats = lasting.reset_index().groupby(SHAPE).precision.nunique()
    shapes = formats[formats == len(FORMATS)].index.to_frame(index=False)
    rows, columns, inner = (shapes[side].to_numpy(dtype=float) for side in SHAPE)
    limited = limited_times(lasting)
    logs = {}
    for (chip, precision), law in laws.items():
        product = Matmul(name="gemm", rows=rows, columns=columns, inner=inner, precision=precision)
        unlimited = with_numbers(law, {"slowdown": 0.0})
        seconds = np.asarray(plain_matmul_time_s(product, unlimited, gpu=gpus[chip], compute_scale=1.0))
        of_first = gpus[next(iter(limited))].peak(precision)
        logs[chip, precision] = np.log(limited[chip] / (seconds * of_first))
    mean = np.mean(list(logs.values()), axis=0)
    return {law: float(np.exp(np.median(each - mean))) for law, each in logs.items()}


def burst_clocks_among_kin(
    name: str, new: Mapping[str, MatmulCoefficients], products: Callable[[str], pd.DataFrame]
) -> dict[str, float]:
    """b by format, of the `new` laws of one chip among those that its kin have now; `products` gives the table of a chip."""
    gpus = {chip: gpu_preset(chip) for chip in KIN}
    laws = {(chip, each): gpu.matmul(each) for chip, gpu in gpus.items() for each in FORMATS}
    laws |= {(name, each): law for each, law in new.items()}
    found = burst_clocks(laws, gpus, lasting_products({chip: products(chip) for chip in KIN}))
    return {each: found[name, each] for each in FORMATS}
