"""Draws achieved against fitted rates of one GPU's kernels over their shapes."""

from __future__ import annotations

from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.fit.gpus import GpuFits
from benchmarks.fit.products import ProductFit
from perfmodel.report.figures import COLOURS

TERA: Final = 1e12
SIDES: Final = (1024, 2048, 4096, 8192, 16384)  # of the square weights that are drawn


def rate_figure(fits: GpuFits) -> Figure:
    """Rates of products over m, one line a weight, measured and fitted; below, the error of every held-out shape."""
    precisions = list(fits.matmul)
    figure = Figure(figsize=(5.2 * len(precisions), 7.2), layout="constrained")
    panels = figure.subplots(2, len(precisions), squeeze=False)
    for column, precision in enumerate(precisions):
        _rates(panels[0][column], fits.matmul[precision], f"{fits.gpu.name}, {precision}")
        _errors(panels[1][column], fits.matmul[precision])
    return figure


def _rates(axes: Axes, found: ProductFit, title: str) -> None:
    rows = found.rows
    for colour, side in zip(COLOURS, SIDES, strict=False):
        chosen = ((rows.n == side) & (rows.k == side)).to_numpy()
        order = np.argsort(rows.m[chosen].to_numpy())
        m = rows.m[chosen].to_numpy(dtype=float)[order]
        flop = 2.0 * m * side * side
        axes.plot(m, flop / found.fit.measured_s[chosen][order] / TERA, "o", ms=3, color=colour, label=f"n = k = {side}")
        axes.plot(m, flop / found.fit.predicted_s[chosen][order] / TERA, "-", lw=1.2, color=colour)
    axes.set(xlabel="m (rows)", ylabel="TFLOP/s", title=title, ylim=(0, 1.3 * axes.get_ylim()[1]))
    axes.set_xscale("log", base=2)
    axes.legend(title="dots measured, lines fitted", fontsize=7, title_fontsize=7, loc="upper center", ncols=3)
    axes.grid(alpha=0.25)


def _errors(axes: Axes, found: ProductFit) -> None:
    rows, out = found.rows, found.fit.out
    flop = 2.0 * rows.m * rows.n * rows.k
    for name, mask, colour in (("n, k >= 1024", found.large, COLOURS[0]), ("slices", found.slices, COLOURS[1])):
        chosen = out & mask
        error = found.fit.held_out_error(mask)
        label = f"{name}: median {100 * error['median']:.1f} %, p90 {100 * error['p90']:.1f} %"
        axes.plot(flop[chosen], 100 * found.fit.error[chosen], ".", ms=2.5, color=colour, label=label)
    axes.set(xscale="log", xlabel="FLOPs of the product", ylabel="fitted against measured time, %", ylim=(-30, 30))
    axes.axhline(0, color="black", lw=0.8)
    axes.set_title("held-out shapes", fontsize=9)
    axes.legend(fontsize=7, loc="lower right")
    axes.grid(alpha=0.25)
