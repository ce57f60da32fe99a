"""Do the fits of mixers that keep a state find again what made their tables?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from perfmodel.benchmarks.fit import scans
from perfmodel.exchange.presets import gpu_preset

GPU = gpu_preset("gb200")


def rules() -> pd.DataFrame:
    """Shapes of delta rules, without their times."""
    shapes = [(16, heads, n, length, n * length) for heads in (16, 32, 64) for n in (1, 4) for length in (4096, 8192)]
    return pd.DataFrame(shapes, columns=["key_heads", "value_heads", "sequences", "sequence_length", "tokens"])


def test_scans_that_take_a_third_longer_are_found_so() -> None:
    """What chunks wait for each other is known beside that, and short calls play no part."""
    rows = rules()
    work_s, chain_s = scans.rule_times_s(rows, GPU)
    rows = rows.assign(seconds=4 / 3 * work_s + chain_s)
    short = rows.assign(sequence_length=64, tokens=64 * rows.sequences, seconds=1.0)
    found, fit = scans.scan(pd.concat([rows, short]), GPU)
    assert found["work"] == pytest.approx(4 / 3, rel=1e-3)
    assert fit.held_out_error()["p90"] < 1e-3


def test_rows_of_a_table_are_timed_as_each_alone() -> None:
    """Arrays of heads, sequences and lengths give what single shapes do."""
    rows = rules()
    together = scans.rule_times_s(rows, GPU)
    alone = [scans.rule_times_s(rows[place : place + 1], GPU) for place in range(len(rows))]
    for part in (0, 1):
        assert together[part] == pytest.approx(np.concatenate([each[part] for each in alone]))


def test_a_convolution_of_half_the_memory_rate_is_found_so() -> None:
    """Both ways alike; calls that the cache holds are left out."""
    tokens, channels = (each.ravel() for each in np.meshgrid([8192, 32768, 131072], [6144, 10240]))
    moved = 4.0 * tokens * channels
    rows = pd.DataFrame({"tokens": tokens, "channels": channels, "seconds": 3e-6 + moved / (0.5 * 8e12)})
    cached = rows.assign(tokens=4096, channels=2048, seconds=1e-6)
    found, _ = scans.convolution(pd.concat([rows, cached]), replace(GPU, memory_bandwidth_bytes_per_s=8e12))
    assert found["efficiency"] == found["backward_efficiency"] == pytest.approx(0.5, rel=1e-3)
    assert found["fixed_s"] == pytest.approx(3e-6, rel=0.02)
    assert found["spread"]["backward_efficiency"] == scans.BACKWARD_SPREAD


def test_a_profile_keeps_all_else() -> None:
    """What a GPU had of these kernels makes way, with its sources."""
    before = {"memory_bound": {"fused": {}, "convolution": {"old": 1}}, "scan": {"old": 1}, "sources": {"scan": "", "cast": ""}}
    after = scans.with_state_kernels(before, {"memory_bound": {"convolution": {"new": 1}}, "sources": {}})
    assert after == {"memory_bound": {"fused": {}, "convolution": {"new": 1}}, "sources": {"cast": ""}}
