"""Questions that people asked in public, with what they measured: is the answer right, and does it say what decides it?

Figures alone are taken from bug reports, questions and tables. Each stands for a kind of question; a bound is what the answer
must hold for its asker, not what it reaches today.
"""

from __future__ import annotations

from typing import Any

import pytest

from perfmodel.count.memory.fit import FITS, TIGHT
from perfmodel.exchange.questions.diagnosed_runs import run_diagnosis
from perfmodel.exchange.run_files import RunCandidate, read_candidates
from perfmodel.explanation.measured.diagnosis import Diagnosis
from perfmodel.prediction import Prediction, predict
from perfmodel.spec.precision import RECIPES

LLAMA_13B = {"extends": "llama-3.1-8b", "name": "13B", "layers": 40, "hidden_size": 5120, "attention_heads": 40, "kv_heads": 40}
LLAMA_13B |= {"head_size": 128, "ffn_hidden_size": 13824, "vocab_size": 32000}
SWIGLU_70B = {"extends": "llama-3.1-70b", "vocab_size": 131072}


def candidates(**run: Any) -> tuple[RunCandidate, ...]:
    """The runs that a question describes."""
    data_parallel, global_batch_size = run.pop("data_parallel"), run.pop("global_batch_size")
    stages = [{"data_parallel": data_parallel, "global_batch_size": global_batch_size}]
    return read_candidates({"micro_batch_size": 1, "sequence_length": 4096, "stages": stages, **run})


def answer(**run: Any) -> Prediction:
    """The prediction of the only one."""
    (candidate,) = candidates(**run)
    return predict(candidate.run)


def seconds(prediction: Prediction) -> float:
    """The iteration of its only stage."""
    ((_, stage),) = prediction.stages
    return float(stage.iteration_time_s)


def test_a_13b_model_on_one_node() -> None:
    """2,357 tokens/s/GPU on 8 A100, TP 4, selective recompute."""
    run: dict[str, Any] = {
        "model": LLAMA_13B,
        "cluster": "dgx-a100",
        "stack": "megatron-core",
        "tensor_parallel": 4,
        "sequence_parallel": True,
    }
    found = answer(**run, sharding="zero1", recompute="selective", data_parallel=2, global_batch_size=32)
    assert 32 * 4096 / 8 / seconds(found) == pytest.approx(2357, rel=0.1)


def test_software_decides_more_than_the_interval_says() -> None:
    """64.6 s on 32 A100 with some Megatron-LM: candidates of it are an envelope that is wider than any one interval."""
    some = ["megatron-lm-2022", "megatron-lm-2023", "megatron-lm", "megatron-core"]
    run: dict[str, Any] = {
        "model": LLAMA_13B,
        "cluster": "dgx-a100",
        "stack": some,
        "tensor_parallel": 2,
        "sequence_parallel": True,
    }
    found = candidates(
        **run, sharding="zero1", micro_batch_size=2, sequence_length=2048, data_parallel=16, global_batch_size=2048
    )
    times_s = [seconds(predict(each.run)) for each in found]
    assert len({each.run.stack.name for each in found}) == len(some)
    assert max(times_s) == pytest.approx(64.6, rel=0.05)
    assert max(times_s) / min(times_s) > 1.15


def test_a_70b_model_whose_software_is_not_stated() -> None:
    """MFU 30.0 % on 128 H100, TP 8, PP 8, all recomputed: one of the stacks of its time has it within 5 %."""
    run: dict[str, Any] = {
        "model": SWIGLU_70B,
        "cluster": "dgx-h100",
        "stack": ["megatron-core", "megatron-lm-2023", "nemo-2024"],
    }
    run |= {"tensor_parallel": 8, "pipeline_parallel": 8, "sequence_parallel": True, "sharding": "zero1", "recompute": "full"}
    predictions = [predict(each.run) for each in candidates(**run, data_parallel=2, global_batch_size=256)]
    mfu = [float(stage.mfu) for each in predictions for _, stage in each.stages]
    assert min(mfu) < 0.30 < max(mfu)
    assert min(abs(each / 0.30 - 1.0) for each in mfu) < 0.05


def diagnosed(measured: str, **run: Any) -> Diagnosis:
    """A measured speed of a run, diagnosed."""
    data_parallel, global_batch_size = run.pop("data_parallel"), run.pop("global_batch_size")
    stages = [{"data_parallel": data_parallel, "global_batch_size": global_batch_size}]
    return run_diagnosis({"micro_batch_size": 1, "sequence_length": 8192, "stages": stages, **run}, measured)


def test_the_network_explains_a_tenth_of_the_speed() -> None:
    """70B on 32 H200 at 200 tokens/s/GPU: the cause was between the nodes, which give a few percent of their rate."""
    run: dict[str, Any] = {"model": "llama-3.1-70b", "cluster": "dgx-h200", "stack": "torchtitan-eager", "tensor_parallel": 8}
    run |= {"sharding": "zero3", "recompute": "full", "micro_batch_size": 8, "data_parallel": 4, "global_batch_size": 32}
    found = diagnosed("200tokens/s/gpu", **run)
    network, slower = found.causes[:2]
    assert network.name == "network"
    assert network.best.after < 0.05
    assert slower.name in ("links inside the node", "precision")  # TF32 is nearly as slow; nccl-tests tell
    assert found.is_explained
    assert not found.is_expected


def test_software_without_overlap_explains_a_low_mfu() -> None:
    """70B on 128 H100 at 30.0 %: userbuffers were not in use (Megatron-LM#1031), and software without them has that MFU too.

    Attention that is not fused costs as much, so that either may come first.
    """
    run: dict[str, Any] = {"model": SWIGLU_70B, "cluster": "dgx-h100", "stack": "megatron-core", "sequence_length": 4096}
    run |= {"tensor_parallel": 8, "pipeline_parallel": 8, "sequence_parallel": True, "sharding": "zero1", "recompute": "full"}
    found = diagnosed("mfu=30.0%", **run, data_parallel=2, global_batch_size=256)
    places = {cause.name: place for place, cause in enumerate(found.causes)}
    assert {cause.name for cause in found.causes[:2]} == {"tensor-parallel overlap", "attention kernels"}
    assert places["other software"] < places["network"]
    assert any("Megatron-LM" in str(each.after) and each.explains for each in found.causes[places["other software"]].findings)


def test_a_fifth_of_the_speed_is_a_slower_format_where_the_gpu_has_one() -> None:
    """70B at 20 TFLOP/s on 16 A100: parameters and products were fp32; every recipe that the GPU can run is held against it."""
    run: dict[str, Any] = {"model": "llama-3.1-70b", "cluster": "dgx-a100", "stack": "megatron-core", "tensor_parallel": 8}
    run |= {"pipeline_parallel": 2, "sequence_parallel": True, "sharding": "zero1", "data_parallel": 1, "global_batch_size": 1}
    found = diagnosed("20TFLOP/s/gpu", **run)
    rates = found.run.cluster.gpu.peak_flop_per_s
    slower = {name for name, recipe in RECIPES.items() if recipe.products in rates and rates[recipe.products] < rates["bf16"]}
    held = {each.after for cause in found.causes if cause.name == "precision" for each in cause.findings}
    assert held == slower
    if slower:
        assert found.causes[0].name == "precision"
    assert found.causes[bool(slower)].name == "links inside the node"  # tensor parallelism without NVLink is as slow


def test_what_ran_out_of_memory_now_and_then_is_tight() -> None:
    """70B in FP8 on 32 H100: with 5 chunks a third of the runs failed or more, with 10 all passed."""
    run: dict[str, Any] = {"model": "llama-3.1-70b", "cluster": "dgx-h100", "stack": "megatron-bridge", "precision": "fp8"}
    run |= {"tensor_parallel": 4, "pipeline_parallel": 4, "sequence_parallel": True, "sharding": "zero1"}
    five, ten = (answer(**run, virtual_pipeline=chunks, data_parallel=2, global_batch_size=32) for chunks in (5, 10))
    assert (five.verdict, ten.verdict) == (TIGHT, FITS)
    assert five.fit_probability < ten.fit_probability


def test_layers_that_do_not_divide_are_said() -> None:
    """30 layers on 4 pipeline stages: the split is an assumption, not a silent one."""
    model = {"extends": "llama-3.1-8b", "layers": 30}
    run: dict[str, Any] = {
        "model": model,
        "cluster": "dgx-h100",
        "stack": "megatron-core",
        "tensor_parallel": 2,
        "pipeline_parallel": 4,
    }
    (candidate,) = candidates(**run, data_parallel=2, global_batch_size=64)
    assert any("7 on the first stage" in sentence for sentence in candidate.assumptions)


def test_a_70b_model_at_20_tflop_per_s() -> None:
    """20 TFLOP/s a GPU, on 16 A100 here; parameters were left in fp32: TF32 has it in its interval, bf16 and fp32 are far off.

    Software and layout are not stated; without recompute it would not have fit.
    """
    run: dict[str, Any] = {"model": "llama-3.1-70b", "cluster": "dgx-a100", "stack": "generic", "sequence_length": 8192}
    run |= {"tensor_parallel": 8, "pipeline_parallel": 2, "sequence_parallel": True, "sharding": "zero1", "recompute": "full"}
    rates = {}
    for precision in ("fp32", "tf32", "bf16"):
        ((_, stage),) = answer(**run, precision=precision, data_parallel=1, global_batch_size=1).stages
        work = float(stage.model_flop_per_token) * 8192 / 16 / 1e12
        low, high = (work / float(seconds) for seconds in reversed(stage.iteration_time_interval_s))
        rates[precision] = (low, high)
    assert rates["tf32"][0] < 20 < rates["tf32"][1]
    assert rates["fp32"][1] < 20 / 2
    assert rates["bf16"][0] > 20 * 2
