"""Is a layout said in words without what is 1 or off, and are the stages of a ramp told apart?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from perfmodel.exchange.run_files import read_candidates
from perfmodel.prediction import predict
from perfmodel.report.text.prediction import layout_words, stage_labels, verdict
from tests.layouts import RAMP_STAGE

PLAIN = replace(RAMP_STAGE, tensor_parallel=1, sequence_parallel=False, sharding="none")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ["bf16", "micro-batch 4"]),
        ({"sequence_parallel": True}, ["bf16", "micro-batch 4"]),
        ({"tensor_parallel": 2, "sequence_parallel": True}, ["bf16", "TP 2", "micro-batch 4", "sequence parallel"]),
        ({"pipeline_parallel": 4, "pipeline_schedule": "zb-h1"}, ["bf16", "zb-h1", "micro-batch 4"]),
        ({"sharding": "zero3", "recompute": "selective"}, ["bf16", "micro-batch 4", "zero3", "selective recompute"]),
        ({"recompute": "full", "recompute_layers": 3}, ["bf16", "micro-batch 4", "full recompute of 3 layers a stage"]),
    ],
)
def test_words_of_a_layout(changes: dict[str, Any], expected: list[str]) -> None:
    """Only the degrees that are asked for, and none of what is switched off."""
    layout = replace(PLAIN, micro_batch_size=4, **changes)
    assert layout_words(layout, {"tensor_parallel": "TP", "context_parallel": "CP"}) == expected


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        ([(96, 384), (192, 768)], ["DP 96", "DP 192"]),
        ([(96, 384), (96, 768)], ["batch 384", "batch 768"]),
        ([(96, 384), (96, 384)], ["stage 1", "stage 2"]),
    ],
)
def test_stages_are_told_apart(stages: list[tuple[int, int]], expected: list[str]) -> None:
    """By what differs: data parallelism, else the batch, else nothing but their place."""
    ramp = [{"data_parallel": replicas, "global_batch_size": batch} for replicas, batch in stages]
    run = read_candidates("nemotron-4-15b", [("stages", ramp)])[0].run
    assert stage_labels(predict(run)) == expected


def test_days_are_said_with_their_interval() -> None:
    """Both ends of the total; without tokens there is neither."""
    known = predict(read_candidates("nemotron-4-15b")[0].run)
    days = known.total_training_days
    assert days is not None
    assert f" days predicted (90 %: {float(days.low):.1f} to {float(days.high):.1f}), 13.1 published" in verdict(known).plain
    unknown = predict(read_candidates("nemotron-4-15b", ["stages[0].tokens=null"])[0].run)
    assert "predicted" not in verdict(unknown).plain


def test_the_verdict_comes_first_then_speed_then_the_whole() -> None:
    """Fit; time, MFU with its convention, FLOPs and tokens a GPU; days, GPUs and parameters."""
    run = read_candidates("nemotron-4-15b")[0].run
    last = predict(run).stages[-1][1]
    fits, speed, whole = verdict(predict(run)).plain.splitlines()
    assert fits == "Nemotron-4 15B: fits in memory, 14.4 GiB of the GPU's 79.1 GiB."
    assert f"MFU {100 * float(last.mfu):.1f} % (attention counted in full)" in speed
    rate = float(last.mfu) * float(last.peak_flop_per_s) / 1e12
    assert f"{rate:,.0f} TFLOP/s/GPU, {float(last.tokens_per_s_per_gpu):,.0f} tokens/s/GPU" in speed
    assert whole.endswith("2,304 GPUs, 15.63B parameters.")
    half = verdict(predict(run), convention="causal").plain
    assert f"MFU {100 * float(last.mfu_in('causal')):.1f} % (causal half of attention counted)" in half
