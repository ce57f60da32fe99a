"""Does the MFU that a source prints belong to the time beside it, and of which peak rate is it?"""

from __future__ import annotations

from typing import Final

from perfmodel.evidence.measured_rows import MeasuredRun
from perfmodel.evidence.time_scores import recomputed_mfu
from perfmodel.exchange.syntax.slips import highest_mfu
from perfmodel.spec.precision import RECIPES

MFU_FACTOR: Final = 1.25  # conventions of counting FLOPs lie within it; a slip of a column, or another peak, does not


def other_denominator(measured: MeasuredRun) -> str:
    """Of which format's peak rate a printed MFU is, where products in 4 or 8 bits are not counted against their own."""
    meant, printed = recomputed_mfu(measured), measured.printed_mfu
    if measured.run is None or meant is None or printed is None or not RECIPES[measured.run.precision].casts:
        return ""
    gpu = measured.run.cluster.gpu
    own = gpu.peak(RECIPES[measured.run.precision].products)
    for name, peak in gpu.peak_flop_per_s.items():
        if peak != own and not _agree(printed, meant) and _agree(printed, float(meant * own / peak)):
            rate = f"{float(peak) / 1e12:,.0f} TFLOP/s"
            return f"mfu_pct: {100 * printed:.3g} is of the dense {name} peak, {rate}, not of that of its products"
    return ""


def contradiction(measured: MeasuredRun) -> str:
    """A printed MFU that cannot belong to the time beside it: one of both is a slip."""
    meant = recomputed_mfu(measured)
    if measured.printed_mfu is None or meant is None or _agree(measured.printed_mfu, meant):
        return _unheard_of(measured, meant)
    printed = f"{100 * measured.printed_mfu:.3g}"
    return f"mfu_pct: {printed} stands beside a time of {measured.iteration_time_s:g} s, which means {100 * meant:.3g}"


def _unheard_of(measured: MeasuredRun, meant: float | None) -> str:
    """A time that means more MFU than any published run reached: that, the GPUs or the batch is a slip."""
    known = highest_mfu(measured.run.precision) if measured.run else None
    if meant is None or known is None or meant <= known:
        return ""
    time = f"{measured.iteration_time_s:g} s means an MFU of {100 * meant:.3g}"
    return f"iteration_time_s: {time}, above the {100 * known:.3g} of the fastest published run in its precision"


def _agree(printed: float, meant: float) -> bool:
    """Whether a printed MFU is the one meant, as far as conventions of counting FLOPs leave it open."""
    return meant < MFU_FACTOR * printed and printed < MFU_FACTOR * meant
