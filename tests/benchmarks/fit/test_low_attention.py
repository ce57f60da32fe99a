"""Does the fit of attention on 8-bit numbers find again what made its table, and leave out what gains nothing?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from perfmodel.benchmarks.fit.attention import low_attention
from perfmodel.benchmarks.fit.tables import Folder
from perfmodel.exchange.presets import DATA, gpu_preset
from perfmodel.exchange.syntax.documents import read_mapping
from perfmodel.spec.machines.coefficients import LowAttentionCoefficients
from perfmodel.spec.phases import DATA_GRADIENT
from perfmodel.timing.attention import low_attention_time_s, plain_attention_time_s

GPU = gpu_preset("gb300")
LAW = GPU.kernels.attention_backward
KNOWN = LowAttentionCoefficients(
    speedup=1.4, by_head_size={"128": 1.0, "160": 1.25}, sequence_half={"128": 700.0, "160": 200.0}
)


def table_of(known: LowAttentionCoefficients = KNOWN) -> pd.DataFrame:
    """Backward kernels whose times on 16 bits are off the law by up to a fifth, and on 8 bits as much."""
    shapes = [
        (mask, heads, key, length)
        for mask in ("causal", "none")
        for heads, key in ((64, 128), (128, 192))
        for length in (2048, 4096, 8192, 16384)
    ]
    rows = pd.DataFrame(shapes, columns=["mask", "heads", "key_size", "sequence_length"])
    rows = rows.assign(sequences=2, kv_heads=rows.heads, value_size=128, head_size=(rows.key_size + 128) / 2)
    rows = rows.assign(direction="backward", precision="fp8")
    off, parts = np.linspace(0.8, 1.2, len(rows)), []
    for mask, group in rows.groupby("mask"):
        calls = [low_attention._call(group, each, causal=mask == "causal") for each in ("bf16", "fp8")]
        wide_s = plain_attention_time_s(calls[0], LAW, gpu=GPU, compute_scale=1.0)
        law = known.law(LAW, peaks=0.5)
        low_s = low_attention_time_s(calls[1], law, known, gpu=GPU, compute_scale=1.0)
        assert calls[0].phase == DATA_GRADIENT
        here = off[group.index]
        parts.append(group.assign(wide_seconds=here * wide_s, seconds=here * low_s))
    return pd.concat(parts, ignore_index=True)


def test_a_table_made_by_its_law_is_fitted_again_however_wrong_the_law_of_16_bits_is() -> None:
    """Its errors cancel: both kernels of a pair share them."""
    found, fit = low_attention.fit_low_attention(table_of(), LAW, GPU, "fp8", "backward")
    assert found["speedup"] == pytest.approx(1.4, rel=1e-3)
    assert found["by_head_size"] == pytest.approx({"128": 1.0, "160": 1.25}, rel=1e-3)
    assert found["sequence_half"] == pytest.approx({"128": 700.0, "160": 200.0}, rel=0.01)
    assert fit.held_out_error()["p90"] < 1e-3
    assert found["spread"]["speedup"] == low_attention.LEAST_SPREAD
    assert found["evidence"]["sizes"]["head_size"] == "128 192"


def written(folder: Path, *, backward_ms: float, gpu: str = "NVIDIA GB300") -> Folder:
    """A table of causal kernels of head size 128, whose backward kernel in 8 bits takes so long; one has a window."""
    shape = {
        "gpu_name": gpu,
        "attn_mask": "top_left",
        "batch_size": 2,
        "num_q_heads": 64,
        "num_kv_heads": 8,
        "head_dim_qk": 128,
        "head_dim_vo": 128,
        "deterministic_bwd": False,
        "cudnn_version": "1",
        "sliding_window_size": None,
    }
    rows = []
    for length in (4096, 8192, 16384):
        work = (length / 4096) ** 2
        times = [("bfloat16", "fwd", 0.39), ("bfloat16", "bwd", 1.2), ("fp8", "fwd", 0.3), ("fp8", "bwd", backward_ms)]
        for kind, way, ms in times:
            rows.append(shape | {"data_type": kind, "profile_pass": way, "q_seqlen": length, "time_ms": ms * work})
    rows.append(rows[-1] | {"sliding_window_size": 128, "time_ms": 99.0})
    frame = pd.DataFrame(rows)
    frame.assign(kv_seqlen=frame.q_seqlen).to_csv(folder / "cudnn_sdpa_fwd_bwd.csv.gz", index=False)
    return Folder(folder)


@pytest.mark.parametrize(("backward_ms", "is_worth_it"), [(1.1, True), (1.25, True), (1.4, False)])
def test_a_head_size_is_worth_it_where_both_directions_together_are_faster(
    tmp_path: Path, backward_ms: float, *, is_worth_it: bool
) -> None:
    """Forwards 0.09 ms are won: backwards less may be lost. A kernel with a window plays no part."""
    found = low_attention.low_attention(
        "gb300", low_attention.shipped_laws("gb300"), written(tmp_path, backward_ms=backward_ms)
    )
    assert bool(found) == is_worth_it
    if is_worth_it:
        assert set(found["low_attention"]) == {"fp8"}
        assert set(found["sources"]) == {"low_attention.fp8.forward", "low_attention.fp8.backward"}


def test_a_twin_takes_the_numbers_of_its_chip_marked_transferred(tmp_path: Path) -> None:
    """With the spread of what is carried over; the source says whose they are."""
    tables, laws = written(tmp_path, backward_ms=1.0), low_attention.shipped_laws("gb300")
    own, carried = (low_attention.low_attention(name, laws, tables) for name in ("gb300", "b300"))
    mine, theirs = (each["low_attention"]["fp8"]["forward"] for each in (carried, own))
    assert mine["speedup"] == theirs["speedup"]
    assert mine["evidence"]["basis"] == "transferred"
    assert mine["spread"]["speedup"] == low_attention.TRANSFERRED_SPREAD
    assert carried["sources"]["low_attention.fp8.forward"]["what"].endswith("on gb300")


def test_a_gpu_without_a_table_or_a_twin_gets_nothing(tmp_path: Path) -> None:
    """A100: its tables are of serving kernels."""
    assert low_attention.low_attention("a100-sxm-80gb", {}, written(tmp_path, backward_ms=1.0)) == {}


def test_the_section_is_all_that_changes_in_a_profile() -> None:
    """Numbers and sources of the rest stand; a section of before is replaced, or goes."""
    profile: dict[str, Any] = {"name": "x", "matmul": {"a": 1.0}, "sources": {"matmul": "kept"}}
    known = {"low_attention": {"fp8": {"forward": {}}}, "sources": {"low_attention.fp8.forward": "fitted"}}
    with_it = low_attention.with_low_attention(profile, known)
    assert with_it == profile | {"low_attention": known["low_attention"], "sources": profile["sources"] | known["sources"]}
    assert low_attention.with_low_attention(with_it, known) == with_it
    assert low_attention.with_low_attention(with_it, {}) == profile


@pytest.mark.parametrize("gpu", ["gb200", "gb300"])
def test_shipped_fits_are_right_to_a_twelfth_on_lengths_that_they_have_not_seen(gpu: str) -> None:
    """90 % of the rows of every direction and format."""
    sources = read_mapping(DATA / "kernels" / f"{gpu}.yaml")["sources"]
    errors = [each["held_out"]["all"]["p90"] for key, each in sources.items() if key.startswith("low_attention.")]
    assert len(errors) == 4
    assert max(errors) < 1 / 12
