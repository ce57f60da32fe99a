"""Fits FlashAttention-2 on Hopper: the law of timing/attention.py with numbers of its own, on the speeds that a paper prints.

Its kernels start cheaply and never reach the rate of those written for Hopper: as fast for short sequences, half as fast for
long ones. Every second sequence length is predicted by a fit of the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import yaml

from perfmodel.benchmarks.fit.regression import Fit, Floats, Free, fit_of_few
from perfmodel.benchmarks.fit.tables import Source
from perfmodel.count.operators import FusedAttention
from perfmodel.spec.machines.coefficients import AttentionCoefficients
from perfmodel.spec.machines.hardware import Gpu
from perfmodel.spec.phases import DATA_GRADIENT, FORWARD
from perfmodel.timing.attention import plain_attention_time_s

POINTS: Final = Path(__file__).with_name("flash_points.yaml")
NAME: Final = "flash2"
FREE: Final = {
    "forward": {
        "sequence_half": Free(start=80.0, low=1.0, high=500.0),
        "sequence_half_full": Free(start=40.0, low=0.5, high=500.0),
        "exposed_load": Free(start=0.2, low=1e-3, high=1.0),
    },
    "backward": {"sequence_half_full": Free(start=80.0, low=0.5, high=1500.0)},
}
TILE: Final = 128  # rows of queries of one block
FILL_POWER: Final = {"forward": 1.0, "backward": 2.717}  # forward the longest tiles of a head come last, and are waited for
KEPT: Final = {  # what the points do not tell
    "fixed_s": 5e-6,
    "exposed_load": 1.0,
    "longest_rows": float(TILE),
    "growth": 0.0,
    "growth_s": 3e-3,
    "wave_weight": 0.0,
    "memory_efficiency": 0.9,
    "tile_rows": TILE,
}
KEPT_SOURCE: Final = "kept: kernels of a batch of 16,384 tokens are too long and too many to tell it"
FILL_POWER_SOURCES: Final = {
    "forward": "FlashAttention 2, flash_fwd_kernel.h, blocks of queries start in order; where it is free, longest_rows is 105",
    "backward": KEPT_SOURCE,
}
DIAGONAL: Final = 64.0  # keys: half a block of 128, which the causal mask hides and the kernel computes
LEAST_SPREAD: Final = 0.05


def read_points() -> tuple[pd.DataFrame, Source]:
    """A row a kernel: direction, mask, sequences, heads, head_size, sequence_length, seconds; and where they are printed."""
    file = yaml.safe_load(POINTS.read_text(encoding="utf-8"))
    tokens, hidden = float(file["tokens"]), float(file["hidden_size"])
    rows = []
    for series in file["points"]:
        for length, speed in zip(file["sequence_lengths"], series["speeds"], strict=True):
            flop = 4.0 * tokens * length * hidden * (0.5 if series["mask"] == "causal" else 1.0)
            seconds = flop * (2.5 if series["direction"] == "backward" else 1.0) / (speed * 1e12)
            row = {key: series[key] for key in ("direction", "mask", "head_size")}
            sizes = {"sequences": tokens / length, "heads": hidden / series["head_size"], "sequence_length": float(length)}
            rows.append(row | sizes | {"seconds": seconds})
    return pd.DataFrame(rows), Source(table="FlashAttention-3 paper", version=file["source"], licence="figures cited")


def fit_flash(rows: pd.DataFrame, gpu: Gpu, direction: str) -> tuple[dict[str, Any], Fit]:
    """The mapping of one direction, and its fit."""
    chosen = rows[rows.direction == direction].reset_index(drop=True)
    sizes = sorted({int(size) for size in chosen.head_size})
    free = FREE[direction] | {f"efficiency_{size}": Free(start=0.35, low=0.05, high=1.0) for size in sizes}
    parts = [((chosen["mask"] == mask).to_numpy(), mask == "causal") for mask in sorted(set(chosen["mask"]))]

    def equation(values: Mapping[str, Any]) -> Floats:
        known = AttentionCoefficients(**_mapping(values, sizes, direction))
        seconds = np.zeros(len(chosen))
        for where, causal in parts:
            call = _call(chosen[where], causal=causal, backward=direction == "backward")
            seconds[where] = plain_attention_time_s(call, known, gpu=gpu, compute_scale=1.0)
        return seconds

    lengths = chosen.groupby("sequence_length").ngroup().to_numpy()
    found = fit_of_few(equation, free, chosen.seconds.to_numpy(dtype=float), lengths % 2)
    spread = max(found.held_out_error()["p90"], LEAST_SPREAD)
    evidence = {
        "head_size": " ".join(map(str, sizes)),
        "sequence_length": " ".join(f"{length:g}" for length in sorted(set(chosen.sequence_length))),
    }
    known = _mapping(found.found, sizes, direction) | {
        "evidence": {"basis": "measured", "sizes": evidence},
        "spread": {"efficiency": spread},
    }
    return known, found


def _mapping(values: Mapping[str, Any], sizes: list[int], direction: str) -> dict[str, Any]:
    reference = float(values["efficiency_128"])
    own = {name: float(value) for name, value in values.items() if not name.startswith("efficiency_")}
    full = own["sequence_half_full"]
    return {
        "efficiency": reference,
        "by_head_size": {str(size): float(values[f"efficiency_{size}"]) / reference for size in sizes},
        **KEPT,
        "fill_power": FILL_POWER[direction],
        "sequence_half": full + DIAGONAL,
        **own,
    }


def _call(rows: pd.DataFrame, *, causal: bool, backward: bool) -> FusedAttention:
    heads, length = rows.heads.to_numpy(dtype=float), rows.sequence_length.to_numpy(dtype=float)
    return FusedAttention(
        name="core",
        phase=DATA_GRADIENT if backward else FORWARD,
        sequences=rows.sequences.to_numpy(dtype=float),
        heads=heads,
        kv_heads=heads,
        head_size=rows.head_size.to_numpy(dtype=float),
        query_length=length,
        key_length=length,
        causal=causal,
        precision="bf16",
    )
