"""Fits what fused attention gains from numbers of fewer than 16 bits: pairs of training kernels of the same shape.

    python -m perfmodel.benchmarks.fit.attention.low_attention --tables FOLDER    # adds it to the shipped profiles

FOLDER holds cudnn_sdpa_fwd_bwd.csv.gz. Each pair says how much faster the kernel is than that on 16 bits, and the law says the
same of both, so that errors of the law of 16 bits cancel. Every sequence length is held out once. A head size whose causal
forward and backward kernels together take longer is left out: software leaves such kernels off. So it is on H200 (0.90 of the
rate of bf16 at head size 128). Kernels of head size 64 were measured with a window alone, which their backward pass does not
make use of: on GB200 it takes as long as without one, 0.04 to 0.44 of the rate of bf16.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from perfmodel.benchmarks.fit.attention.kernels import TWINS
from perfmodel.benchmarks.fit.profile import source_entry, write_profile
from perfmodel.benchmarks.fit.regression import Fit, Floats, Free, fit_of_few
from perfmodel.benchmarks.fit.tables import CUDNN_NAMES, CUDNN_SOURCE, Folder
from perfmodel.count.operators import FusedAttention
from perfmodel.errors import PerfmodelError
from perfmodel.exchange.presets import DATA, gpu_preset
from perfmodel.exchange.syntax.documents import read_mapping
from perfmodel.spec.machines.coefficients import AttentionCoefficients, LowAttentionCoefficients
from perfmodel.spec.machines.hardware import Gpu
from perfmodel.spec.phases import DATA_GRADIENT, FORWARD
from perfmodel.spec.precision import LOW_ATTENTION, result_format
from perfmodel.timing.attention import low_attention_time_s, plain_attention_time_s

SECTION: Final = "low_attention"
BESIDE_LAW: Final = ("evidence", "spread")  # keys of a mapping of coefficients that are none
PHASES: Final = {"forward": FORWARD, "backward": DATA_GRADIENT}
REFERENCE: Final = 128  # the head size that speed-ups at others stand against
SPEEDUP: Final = Free(start=1.3, low=0.1, high=4.0)
SEQUENCE_HALF: Final = Free(start=100.0, low=1.0, high=3000.0)
TRAINED: Final = "causal"  # the mask of training, whose kernels decide which head sizes are worth it
LEAST_SPREAD: Final = 0.04  # as of attention on 16 bits: tables of a few shapes understate the error on other shapes
TRANSFERRED_SPREAD: Final = 0.10  # as of other kernels that are carried over from the same chip


def low_attention(name: str, laws: Mapping[str, Mapping[str, Any]], tables: Folder) -> dict[str, Any]:
    """low_attention and sources of a GPU; those of its twin are marked transferred. Nothing without kernels that gain anything.

    `laws` are the coefficients of its attention on 16 bits, or of that of its twin, by direction.
    """
    origin = origin_of(name)
    if origin not in CUDNN_NAMES:
        return {}
    section: dict[str, Any] = {}
    sources: dict[str, Any] = {}
    gpu, pairs, is_own = gpu_preset(origin), tables.low_attention(origin), origin == name
    for precision in LOW_ATTENTION:
        rows = pairs[pairs.precision == precision].reset_index(drop=True)
        chosen = rows[rows.head_size.isin(worthwhile_sizes(rows))]
        if chosen.empty:
            continue
        section[precision] = {}
        for direction in PHASES:
            law = AttentionCoefficients(**{key: value for key, value in laws[direction].items() if key not in BESIDE_LAW})
            section[precision][direction], found = fit_low_attention(chosen, law, gpu, precision, direction)
            what = f"cuDNN training kernels, {precision} over bf16, {direction}{'' if is_own else f'; on {origin}'}"
            sources[f"{SECTION}.{precision}.{direction}"] = source_entry(CUDNN_SOURCE, found, what=what)
            if not is_own:
                _mark_transferred(section[precision][direction])
    return {SECTION: section, "sources": sources} if section else {}


def origin_of(name: str) -> str:
    """The GPU whose tables say what a GPU gains: itself, or its chip's twin."""
    return name if name in CUDNN_NAMES else TWINS.get(name, name)


def gains_of_sizes(rows: pd.DataFrame) -> dict[float, float]:
    """By head size, the mean of a key and a value, how much faster both directions are together: medians of causal kernels."""
    rows = rows[rows["mask"] == TRAINED]
    shape = ["head_size", "sequences", "heads", "kv_heads", "sequence_length"]
    both = rows.groupby(shape)[["seconds", "wide_seconds"]].sum()
    ratio = both.wide_seconds / both.seconds
    medians = ratio.groupby("head_size").median()
    return dict(zip(medians.index.astype(float), medians.astype(float), strict=True))


def worthwhile_sizes(rows: pd.DataFrame) -> list[float]:
    """Head sizes for which both directions together take less time than on 16 bits.

    >>> shape = {"mask": "causal", "sequences": 1, "heads": 8, "kv_heads": 8, "sequence_length": 4096}
    >>> times = [(64, 1.0, 0.5), (64, 2.0, 10.0), (128, 2.0, 1.3), (128, 4.0, 4.2)]  # head size, on 16 bits, on 8
    >>> worthwhile_sizes(pd.DataFrame([shape | {"head_size": d, "wide_seconds": w, "seconds": s} for d, w, s in times]))
    [128.0]
    """
    return [size for size, gain in gains_of_sizes(rows).items() if gain > 1.0]


def fit_low_attention(
    rows: pd.DataFrame, law: AttentionCoefficients, gpu: Gpu, precision: str, direction: str
) -> tuple[dict[str, Any], Fit]:
    """The mapping of one direction, and its fit; `law` is that of 16 bits."""
    chosen = rows[rows.direction == direction].reset_index(drop=True)
    sizes = sorted({int(size) for size in chosen.head_size})
    free = {f"speedup_{size}": SPEEDUP for size in sizes} | {f"sequence_half_{size}": SEQUENCE_HALF for size in sizes}
    lengths = chosen.groupby("sequence_length").ngroup().to_numpy()
    equation = _Equation(chosen, law, gpu, precision, sizes)
    found = fit_of_few(equation, free, chosen.seconds.to_numpy(dtype=float), lengths)
    evidence = {
        "head_size": " ".join(f"{size:g}" for size in sorted(set(chosen.key_size))),
        "sequence_length": " ".join(f"{length:g}" for length in sorted(set(chosen.sequence_length))),
    }
    spread = {"speedup": max(found.held_out_error()["p90"], LEAST_SPREAD)}
    return _coefficients(found.found, sizes) | {"evidence": {"basis": "measured", "sizes": evidence}, "spread": spread}, found


class _Equation:
    """Seconds of every row: what the kernel on 16 bits took, at the ratio of both laws."""

    def __init__(self, rows: pd.DataFrame, law: AttentionCoefficients, gpu: Gpu, precision: str, sizes: list[int]) -> None:
        self.rows, self.law, self.gpu, self.precision, self.sizes = rows, law, gpu, precision, sizes
        self.peaks = gpu.peak(result_format(precision)) / gpu.peak(precision)
        self.parts = [((rows["mask"] == mask).to_numpy(), mask == "causal") for mask in sorted(set(rows["mask"]))]
        self.wide_s = self._wide_s()

    def __call__(self, values: Mapping[str, Any]) -> Floats:
        low = LowAttentionCoefficients(**_coefficients(values, self.sizes))
        known, seconds = low.law(self.law, peaks=self.peaks), np.zeros(len(self.rows))
        for chosen, causal in self.parts:
            call = _call(self.rows[chosen], self.precision, causal=causal)
            seconds[chosen] = low_attention_time_s(call, known, low, gpu=self.gpu, compute_scale=1.0)
        return np.asarray(self.rows.wide_seconds.to_numpy(dtype=float) * seconds / self.wide_s)

    def _wide_s(self) -> Floats:
        seconds = np.zeros(len(self.rows))
        for chosen, causal in self.parts:
            call = _call(self.rows[chosen], result_format(self.precision), causal=causal)
            seconds[chosen] = plain_attention_time_s(call, self.law, gpu=self.gpu, compute_scale=1.0)
        return seconds


def _call(rows: pd.DataFrame, precision: str, *, causal: bool) -> FusedAttention:
    columns = ("sequences", "heads", "kv_heads", "key_size", "value_size", "sequence_length")
    sequences, heads, kv_heads, key_size, value_size, length = (rows[name].to_numpy(dtype=float) for name in columns)
    return FusedAttention(
        name="core",
        phase=PHASES[rows.direction.iloc[0]],
        sequences=sequences,
        heads=heads,
        kv_heads=kv_heads,
        head_size=key_size,
        value_size=value_size,
        query_length=length,
        key_length=length,
        causal=causal,
        precision=precision,
    )


def _coefficients(values: Mapping[str, Any], sizes: list[int]) -> dict[str, Any]:
    reference = float(values[f"speedup_{REFERENCE if REFERENCE in sizes else sizes[0]}"])
    return {
        "speedup": reference,
        "by_head_size": {str(size): float(values[f"speedup_{size}"]) / reference for size in sizes},
        "sequence_half": {str(size): float(values[f"sequence_half_{size}"]) for size in sizes},
    }


def _mark_transferred(coefficients: dict[str, Any]) -> None:
    coefficients["evidence"]["basis"] = "transferred"
    coefficients["spread"]["speedup"] = max(coefficients["spread"]["speedup"], TRANSFERRED_SPREAD)


def with_low_attention(profile: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """`profile` with the section and its sources in place of those that it had, the rest as it stands."""
    rest = {key: value for key, value in profile.items() if key not in (SECTION, "sources")}
    sources = {key: value for key, value in profile["sources"].items() if not key.startswith(f"{SECTION}.")}
    section = {SECTION: known[SECTION]} if known else {}
    return rest | section | {"sources": sources | dict(known.get("sources", {}))}


def shipped_laws(name: str) -> dict[str, Any]:
    """The coefficients of attention on 16 bits of a shipped profile, by direction."""
    profile = read_mapping(DATA / "kernels" / f"{name}.yaml")
    return {direction: profile[f"attention_{direction}"] for direction in PHASES}


def main() -> None:
    """Add the section to every shipped profile whose GPU, or whose twin, has a table of such kernels."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=Path, required=True, metavar="FOLDER")
    chosen = parser.parse_args()
    try:
        tables = Folder(chosen.tables)
        for name in (*CUDNN_NAMES, *TWINS):
            path, laws = DATA / "kernels" / f"{name}.yaml", shipped_laws(origin_of(name))
            write_profile(path, with_low_attention(read_mapping(path), low_attention(name, laws, tables)))
    except PerfmodelError as error:
        sys.exit(f"low attention: {error}")


if __name__ == "__main__":
    main()
