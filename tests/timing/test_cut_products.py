"""Do tensor-parallel overlap, sustained load and interleaved chunks cost and hide what they should?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from perfmodel.count.iteration import iteration
from perfmodel.count.operators import Collective, Matmul
from perfmodel.exchange.presets import cluster_preset, gpu_preset, stack_preset
from perfmodel.exchange.run_files import read_candidates
from perfmodel.prediction import predict_stage
from perfmodel.spec.axes import TENSOR
from perfmodel.spec.layout import ProcessGroup
from perfmodel.spec.run import Run
from perfmodel.timing.data_parallel import DataParallel
from perfmodel.timing.kernels import kernel_time_s, matmul_time_s
from perfmodel.timing.timed_operators import TimedOperator, timed_operators
from tests.stacks import stack_with

H100 = replace(gpu_preset("h100-sxm-80gb"), full_load_slowdown=0.0)  # what is hidden raises no duty
CLUSTER, STACK = replace(cluster_preset("dgx-h100"), gpu=H100), stack_preset("megatron-core")
FC1 = Matmul(name="fc1", rows=4096, columns=3072, inner=6144, precision="bf16")


def gather(ranks: int) -> Collective:
    """The gather beside a column-parallel product."""
    group = ProcessGroup(name="tensor_parallel", ranks=ranks, stride=1, axis=TENSOR)
    beside = {"partner": ("fc1", "forward"), "pipelined": True, "stepwise": True}
    return Collective(name="fc1.gather", kind="all_gather", payload_bytes=50e6, group=group, **beside)  # type: ignore[arg-type]


def timed(ranks: int) -> list[TimedOperator]:
    """Both, under a stack that overlaps them piece by piece."""
    return timed_operators((gather(ranks), replace(FC1, pieces=ranks)), 1.0, CLUSTER, STACK)


def products(mode: str, ranks: int = 8) -> dict[tuple[str, str], float]:
    """The pieces of each product of a layer, by name and phase, under a stack that overlaps so."""
    run = read_candidates("nemotron-4-15b", (f"tensor_parallel={ranks}",))[0].run
    work = iteration(replace(run, stack=stack_with(STACK, {"overlap.tensor_parallel": mode})).setup(run.stages[0]))
    layer = next(iter(work.layers.values())).again
    listed = (*layer.forward, *layer.backward)
    return {(each.name, each.phase): float(each.pieces) for each in listed if isinstance(each, Matmul)}


def test_a_product_that_is_cut_takes_longer_and_one_rank_cuts_nothing() -> None:
    """The more pieces, the more rows are rounded up to tiles and the more often the weights are read."""
    whole = float(kernel_time_s(FC1, cluster=CLUSTER, stack=STACK))
    alone = [float(timed(ranks)[1].alone_s) for ranks in (1, 8, 64)]
    assert alone[0] == whole
    assert whole <= alone[1] < alone[2]


def test_only_overlap_by_pieces_cuts() -> None:
    """Gathered products into one a rank, scattered ones into four; weight gradients, and all without it, into one."""
    assert set(products("none").values()) == set(products("backward").values()) == {1.0}
    pieces = products("pipelined")
    assert pieces["layer.mlp.fc1", "forward"] == pieces["layer.mlp.fc2", "data_gradient"] == 8.0
    assert pieces["layer.mlp.fc2", "forward"] == 4.0
    assert pieces["layer.mlp.fc1", "data_gradient"] == pieces["layer.mlp.fc2", "weight_gradient"] == 1.0
    assert set(products("pipelined", 1).values()) == {1.0}


def test_copy_engines_take_no_multiprocessor_and_pass_a_piece_at_a_time() -> None:
    """p - 1 messages of n / p, and nothing of the product is slowed down."""
    call, _ = timed(8)
    message = CLUSTER.links.node.collectives.point_to_point
    assert message is not None
    step_s = message.latency_s + 50e6 / 8 / (message.efficiency * CLUSTER.links.node.bandwidth_bytes_per_s)
    assert float(call.alone_s) == pytest.approx(7 * float(step_s))
    assert float(call.slowdown_s) == 0.0
    by_kernels = replace(gather(8), stepwise=False)
    assert float(timed_operators((by_kernels, FC1), 1.0, CLUSTER, STACK)[0].slowdown_s) > 0


def test_a_sustained_load_slows_short_products_as_it_slows_long_ones() -> None:
    """A benchmark's short product ends before the power limit acts; a long one meets it either way."""
    long, short = replace(FC1, rows=262144, columns=12288, inner=12288), FC1
    for product, slower in ((short, 1.0 + H100.matmul("bf16").slowdown), (long, 1.0)):
        burst = float(matmul_time_s(product, gpu=H100, compute_scale=1.0))
        assert float(matmul_time_s(product, gpu=H100, compute_scale=1.0, sustained=True)) / burst == pytest.approx(
            slower, rel=0.02
        )


def interleaved(virtual: int, data_parallel: int) -> Run:
    """GPT-3 175B on a pipeline of 8 with few micro-batches."""
    settings = ("model=gpt-3-175b", "tensor_parallel=4", "pipeline_parallel=8", f"virtual_pipeline={virtual}")
    stage = f"stages=[{{data_parallel: {data_parallel}, global_batch_size: {8 * data_parallel}}}]"
    return read_candidates("nemotron-4-15b", (*settings, "sequence_length=2048", "micro_batch_size=1", stage))[0].run


def exposed_s(run: Run) -> float:
    """What data parallelism leaves exposed."""
    found = predict_stage(run.setup(run.stages[0])).breakdown
    return float(found.data_parallel_exposed_s)


def test_chunks_hide_gradients_behind_the_groups_that_follow() -> None:
    """Nothing changes without interleaving; with it less is exposed, and never more than without."""
    plain, chunked = exposed_s(interleaved(1, 64)), exposed_s(interleaved(12, 64))
    assert 0 < chunked < plain


def test_interleaving_hides_no_more_the_more_replicas_there_are() -> None:
    """What is exposed grows with the replicas, chunk by chunk as without chunks."""
    for virtual in (1, 12):
        found = [exposed_s(interleaved(virtual, ranks)) for ranks in (4, 32, 256)]
        assert np.all(np.diff(found) > 0)


def window_parts(run: Run, *, forward_s: float, backward_s: float, **overlap: float) -> dict[bool, float]:
    """What the window of a forward pass (True) and of a backward pass (False) of given length leave exposed."""
    stack = stack_with(STACK, {f"overlap.{name}": value for name, value in overlap.items()})
    work = iteration(replace(run, stack=stack).setup(run.stages[0]))
    moved = DataParallel(work=work, cluster=CLUSTER, stack=stack)
    found = moved.windows(forward_s=forward_s, backward_s=backward_s)
    return {window.forward: float(window.parts.data_parallel_exposed_s) for window in found}


def test_gradients_of_chunks_have_the_window_of_the_groups_that_follow() -> None:
    """(g*(v - 1) + 1)/v backward passes, with g = 8 and v = 12; parameters have one forward pass, as without chunks."""
    chunked = window_parts(interleaved(12, 64), forward_s=0.01, backward_s=0.01)
    plain = window_parts(interleaved(1, 64), forward_s=0.01, backward_s=0.01 * (8 * 11 + 1) / 12)
    assert chunked == pytest.approx(plain)
    assert window_parts(interleaved(12, 64), forward_s=0.01, backward_s=0.005)[False] > chunked[False]


def test_a_bucket_holds_a_chunk_at_most() -> None:
    """Where one would hold all gradients, chunks still leave no more than their own to the end."""
    everything = {"bucket_parameters": 1e12}
    chunked = window_parts(interleaved(12, 64), forward_s=0.01, backward_s=10.0, **everything)
    plain = window_parts(interleaved(1, 64), forward_s=0.01, backward_s=10.0 * (8 * 11 + 1) / 12, **everything)
    assert chunked[False] < 0.5 * plain[False]


def test_training_is_a_sustained_load() -> None:
    """What a step's product takes is what it takes at sustained clocks."""
    scale = CLUSTER.compute_scale
    assert kernel_time_s(FC1, cluster=CLUSTER, stack=STACK) == matmul_time_s(FC1, gpu=H100, compute_scale=scale, sustained=True)
