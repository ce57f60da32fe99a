"""Is a run bound by the CPU where the GPU has little to do, and by nothing of it where the GPU has much?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from perfmodel.exchange.presets import cluster_preset, stack_preset
from perfmodel.exchange.run_files import read_candidates
from perfmodel.prediction import predict_stage
from perfmodel.spec.run import Run
from tests.stacks import stack_with
from tests.tunings import tuned_setup

STACK = stack_preset("megatron-core")
GPT = (
    "model={{name: gpt, layers: 12, hidden_size: {hidden}, attention_heads: 8, kv_heads: 8, head_size: {head}, "
    "ffn_hidden_size: {ffn}, activation: gelu, norm: layernorm, position: learned, max_positions: 1024, biases: true, "
    "tied_embeddings: true, vocab_size: 51200}}"
)


def run_of(hidden: int, *settings: str) -> Run:
    """A GPT of twelve layers of some width on one GPU, unless settings say otherwise."""
    model = GPT.format(hidden=hidden, head=hidden // 8, ffn=4 * hidden)
    alone = ("tensor_parallel=1", "sequence_parallel=false", "sharding=none", "micro_batch_size=1", "sequence_length=1024")
    stage = "stages=[{data_parallel: 1, global_batch_size: 8}]"
    return read_candidates("nemotron-4-15b", (model, *alone, stage, *settings))[0].run


def seconds(run: Run, **host: Any) -> float:
    """An iteration of it, with some numbers of the host changed."""
    stack = stack_with(STACK, {f"host.{name}": value for name, value in host.items()})
    changed = replace(run, stack=stack)
    return float(predict_stage(changed.setup(changed.stages[0])).iteration_time_s)


def test_a_pass_waits_for_each_matrix_of_an_adapter_that_is_gathered_by_itself() -> None:
    """32 layers of four linears forwards, when they run again and backwards: 32 * 4 * 2 * 3 * 1 ms more than with no wait."""
    apart = {"gpus": 2, "sharding": "zero3", "adapter_targets": "query key value projection", "cluster.host_scale": 1}
    apart |= {"stack.host.unlisted_work": 1}
    waiting, hurried = (
        float(predict_stage(tuned_setup(**apart, stack__tuning__adapter_wait_s=each)).iteration_time_s) for each in (1e-3, 0.0)
    )
    assert waiting - hurried == pytest.approx(32 * 4 * 2 * 3 * 1e-3, rel=1e-9)


def test_a_toy_takes_what_the_cpu_takes() -> None:
    """A layer of 128 numbers is the same time as one of 256, and twice the CPU's time is nearly twice the iteration."""
    narrow, wide = seconds(run_of(128)), seconds(run_of(256))
    assert narrow == pytest.approx(wide, rel=0.01)
    assert seconds(run_of(128), operator_s=100e-6, launch_s=12e-6, iteration_s=0.0) == pytest.approx(
        2 * seconds(run_of(128), operator_s=50e-6, launch_s=6e-6, iteration_s=0.0), rel=0.01
    )


def test_a_large_layer_hides_the_cpu() -> None:
    """The same coefficients, with and without which nothing changes."""
    large = run_of(12288, "recompute=full")
    assert seconds(large) == pytest.approx(seconds(large, operator_s=0.0, launch_s=0.0), rel=1e-12)


def test_graphs_take_the_cpu_away() -> None:
    """What is left is what the GPU takes; of a layer that was bound by the GPU nothing changes."""
    toy, large = run_of(128), run_of(12288)
    assert seconds(toy, cuda_graphs=True) == pytest.approx(seconds(toy, operator_s=0.0, launch_s=0.0), rel=1e-12)
    assert seconds(toy, cuda_graphs=True) < 0.5 * seconds(toy)
    assert seconds(large, cuda_graphs=True) == pytest.approx(seconds(large), rel=1e-12)


def test_a_slower_cpu_takes_longer_by_its_scale() -> None:
    """The iteration of a toy, less what runs once."""
    toy = run_of(128)
    slow = replace(toy, cluster=replace(toy.cluster, host_scale=1.5))
    assert seconds(slow, iteration_s=0.0) == pytest.approx(1.5 * seconds(toy, iteration_s=0.0), rel=0.02)
    assert cluster_preset("dgx-a100").host_scale > cluster_preset("dgx-h100").host_scale == 1.0


@pytest.mark.parametrize(("virtual", "chunks"), [(1, 1), (3, 3)])
def test_each_pass_of_a_chunk_leaves_the_gpu_idle(virtual: int, chunks: int) -> None:
    """m micro-batches, two directions, v chunks, on the slowest stage; what fills and drains the pipeline besides."""
    run = run_of(
        4096, "pipeline_parallel=4", f"virtual_pipeline={virtual}", "stages=[{data_parallel: 1, global_batch_size: 64}]"
    )
    steady = replace(run, cluster=replace(run.cluster, gpu=replace(run.cluster.gpu, full_load_slowdown=0.0)))
    more = seconds(steady, pass_s=1e-3) - seconds(steady, pass_s=0.0)
    assert more == pytest.approx((64 + 3 / chunks) * 2 * chunks * 1e-3, rel=0.02)


def test_replayed_passes_leave_the_gpu_no_more_idle() -> None:
    """A graph needs no schedule: what the CPU takes for each pass of a chunk is gone with its launches."""
    run = run_of(4096, "pipeline_parallel=4", "virtual_pipeline=3", "stages=[{data_parallel: 1, global_batch_size: 64}]")
    assert seconds(run, cuda_graphs=True, pass_s=1e-3) == seconds(run, cuda_graphs=True, pass_s=0.0)
    assert seconds(run, cuda_graphs=True) < seconds(run)


def test_without_a_pipeline_no_pass_waits() -> None:
    """Nothing is synchronised between micro-batches."""
    assert seconds(run_of(4096), pass_s=1e-3) == seconds(run_of(4096), pass_s=0.0)
