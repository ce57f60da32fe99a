"""Draws achieved against fitted rates of one GPU's kernels over their shapes."""

from __future__ import annotations

from math import log10
from typing import Final

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator, StrMethodFormatter

from perfmodel import __version__
from perfmodel.benchmarks.fit.gpus import GpuFits
from perfmodel.benchmarks.fit.matmul.products import ProductFit
from perfmodel.benchmarks.fit.tables import AIC_SOURCE, RECORDS_SOURCE
from perfmodel.report.figures.drawing.palette import INK, LINES, MUTED
from perfmodel.report.figures.drawing.style import SMALL, Drawing, grid, styled

TERA: Final = 1e12
SIDES: Final = (1024, 2048, 4096, 8192, 16384)  # of the square weights that are drawn
HEIGHTS: Final = (190.0, 170.0)  # points of both panels of a precision
MOST_ERROR, BELOW = 30.0, 12.0  # percent, and what the medians need below


@styled
def rate_figure(fits: GpuFits) -> Drawing:
    """For each precision rates of products over m, one line a weight, then the error of every held-out shape."""
    precisions = list(fits.matmul)
    drawing = Drawing(
        title=f"Matrix products of {fits.gpu.name}, measured and fitted",
        subtitle="square weights, then shapes that the fit did not see",
        plot_height=len(precisions) * sum(HEIGHTS),
    )
    panels = drawing.subplots(2 * len(precisions), 1, height_ratios=HEIGHTS * len(precisions))
    for place, precision in enumerate(precisions):
        _rates(panels[2 * place], fits.matmul[precision], precision)
        _errors(panels[2 * place + 1], fits.matmul[precision])
    drawing.key(_entries())
    drawing.source_line(f"perfmodel {__version__}; products measured: {_source(fits)}")
    return drawing


def _source(fits: GpuFits) -> str:
    own = fits.records is not None and len(fits.records.products())
    source = RECORDS_SOURCE if own else AIC_SOURCE
    return f"{source.table}, {source.version}"


def _entries() -> list[tuple[Artist, str]]:
    weights = [Line2D([], [], color=colour, marker="o", markersize=3) for colour, _ in zip(LINES, SIDES, strict=False)]
    entries: list[tuple[Artist, str]] = [(line, f"n = k = {side}") for line, side in zip(weights, SIDES, strict=True)]
    entries.append((Line2D([], [], color=INK, marker="o", markersize=3, linestyle=""), "measured"))
    return [*entries, (Line2D([], [], color=INK), "fitted")]


def _rates(axes: Axes, found: ProductFit, precision: str) -> None:
    rows = found.rows
    for colour, side in zip(LINES, SIDES, strict=False):
        chosen = ((rows.n == side) & (rows.k == side)).to_numpy()
        order = np.argsort(rows.m[chosen].to_numpy())
        m = rows.m[chosen].to_numpy(dtype=float)[order]
        flop = 2.0 * m * side * side
        axes.plot(m, flop / found.fit.measured_s[chosen][order] / TERA, "o", markersize=3, markeredgewidth=0, color=colour)
        axes.plot(m, flop / found.fit.predicted_s[chosen][order] / TERA, "-", linewidth=1.2, color=colour)
    axes.set(xlabel="m [rows]", ylabel="rate [TFLOP/s]", title=precision)
    axes.set_ylim(0.0, None)
    axes.set_xscale("log", base=2)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    grid(axes, "y")


def _errors(axes: Axes, found: ProductFit) -> None:
    """Whole products and slices of them; what lies outside the panel is in the medians."""
    rows, out = found.rows, found.fit.out
    flop = 2.0 * rows.m * rows.n * rows.k
    told = []
    for name, mask, colour in (("n, k >= 1024", found.large, LINES[0]), ("slices", found.slices, LINES[1])):
        chosen = out & mask
        error = found.fit.held_out_error(mask)
        told.append((f"{name}: median {100 * error['median']:.1f} %, p90 {100 * error['p90']:.1f} %", colour))
        axes.plot(flop[chosen], 100 * found.fit.error[chosen], ".", markersize=3, markeredgewidth=0, color=colour)
    axes.set(
        xscale="log", xlabel="work of a product [FLOP]", ylabel="error of the fit [%]", ylim=(-MOST_ERROR - BELOW, MOST_ERROR)
    )
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"1e{round(log10(value))}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.axhline(0, color=MUTED, linewidth=0.8)
    handles = [Line2D([], [], color=colour, marker="o", markersize=3, linestyle="") for _, colour in told]
    axes.legend(handles, [text for text, _ in told], loc="lower left", fontsize=SMALL, borderpad=0, handletextpad=0.2)
    grid(axes, "y")
