"""Is a move of the layout the run that --set would make of it, and does one that cannot be, or does not fit, say so?"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from perfmodel.exchange.presets import cluster_preset, model_preset, stack_preset
from perfmodel.exchange.run_files import read_candidates
from perfmodel.explanation.moves import Move, Moves, moves
from perfmodel.prediction import predict, predict_stage
from perfmodel.spec.layout import Layout
from tests.search.layouts.layouts import CLUSTER, LAYOUTS, MODEL, PIPELINE, predicted
from tests.setups import setup_of

CORE = stack_preset("megatron-core")


@cache
def moves_of(layout: str) -> Moves:
    """All moves from one layout."""
    return moves(predicted(layout))


def move_to(found: Moves, key: str, after: object) -> Move:
    """One of them, possible or not."""
    return next(move for move in (*found.possible, *found.refused) if (move.key, move.after) == (key, after))


@pytest.mark.parametrize(
    ("key", "after", "settings"),
    [
        ("tensor_parallel", 4, ["tensor_parallel=4", "stages.0.data_parallel=192"]),
        ("pipeline_parallel", 2, ["pipeline_parallel=2", "stages.0.data_parallel=48"]),
        ("micro_batch_size", 2, ["micro_batch_size=2"]),
        ("recompute", "full", ["recompute=full"]),
        ("sharding", "none", ["sharding=none"]),
        ("sequence_parallel", False, ["sequence_parallel=false"]),
        ("precision", "fp8", ["precision=fp8"]),
    ],
)
def test_a_move_is_the_run_that_set_makes(key: str, after: object, settings: list[str]) -> None:
    """Time, MFU and memory of the same equations."""
    run = read_candidates("nemotron-4-15b", ["stages=[{data_parallel: 96, global_batch_size: 384}]"])[0].run
    before = predict(run).stages[0][1]
    move = move_to(moves(before), key, after)
    stage = ["stages=[{data_parallel: 96, global_batch_size: 384}]"]
    there = predict(read_candidates("nemotron-4-15b", stage + settings)[0].run).stages[0][1]
    assert move.predicted is not None
    assert move.predicted.iteration_time_s == there.iteration_time_s
    assert move.predicted.memory.total_bytes == there.memory.total_bytes
    assert move.time_change == pytest.approx(float(there.iteration_time_s / before.iteration_time_s) - 1.0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_moves_keep_the_gpus_and_the_global_batch(layout: str) -> None:
    """Data parallelism gives or takes; those that can be made are ranked by time."""
    found = moves_of(layout)
    for move in found.possible:
        assert move.layout is not None
        assert move.layout.gpus == LAYOUTS[layout].gpus
        assert move.layout.global_batch_size == LAYOUTS[layout].global_batch_size
        assert move.after != move.before
    changes = [move.time_change for move in found.possible]
    assert changes == sorted(changes)


def test_a_move_that_cannot_be_made_says_why() -> None:
    """One GPU cannot be two tensor-parallel ranks, nor one stage be interleaved."""
    alone = moves_of("one GPU")
    assert "a replica would need 2 GPUs, which do not divide the 1 of the run" in move_to(alone, "tensor_parallel", 2).refusal
    assert "more than one pipeline stage" in move_to(moves_of("dense"), "virtual_pipeline", 2).refusal
    assert all(move.predicted is None and move.refusal for move in alone.refused)


def test_a_move_that_does_not_fit_is_still_predicted() -> None:
    """340B parameters on 192 GPUs need all of their tensor parallelism."""
    model, cluster = model_preset("nemotron-4-340b"), cluster_preset("dgx-h100")
    layout = replace(PIPELINE, pipeline_parallel=12, virtual_pipeline=1, data_parallel=2, global_batch_size=64)
    before = predict_stage(setup_of(model, layout, CORE, cluster=cluster))
    move = move_to(moves(before), "tensor_parallel", 4)
    assert move.predicted is not None
    assert not move.predicted.fits
    assert move.predicted.memory.total_bytes > cluster.gpu.memory_bytes


def test_degrees_are_halved_and_doubled() -> None:
    """Of a pipeline of 4 stages, 2 and 8; of one piece a stage, two."""
    found = moves_of("pipeline")
    values = {(move.key, move.after) for move in (*found.possible, *found.refused)}
    assert {("pipeline_parallel", 2), ("pipeline_parallel", 8), ("virtual_pipeline", 2), ("tensor_parallel", 4)} <= values
    assert not any(key == "context_parallel" and after != 2 for key, after in values)


def test_layers_that_run_again_are_halved_where_all_do() -> None:
    """16 of 32 layers; of 5 there is no half, but 10."""
    assert move_to(moves_of("full recompute"), "recompute_layers", 16).before == 32
    some = [(move.before, move.after) for move in moves_of("some layers").possible if move.key == "recompute_layers"]
    assert some == [(5, 10)]


def test_leaving_full_recompute_leaves_the_number_of_its_layers() -> None:
    """It would be refused otherwise."""
    move = move_to(moves_of("some layers"), "recompute", "none")
    assert move.layout is not None
    assert move.layout.recompute_layers is None


def test_hsdp_keeps_a_copy_in_each_node() -> None:
    """Two tensor-parallel ranks leave four shards in a node of eight."""
    torchtitan = stack_preset("torchtitan")
    layout = replace(LAYOUTS["zero3"], tensor_parallel=2, data_parallel=384)
    found = moves(predict_stage(setup_of(MODEL, layout, torchtitan, cluster=CLUSTER)))
    move = move_to(found, "sharding", "hsdp")
    assert move.layout is not None
    assert move.layout.data_parallel_replicas == 384 // 4


def test_only_what_the_stack_offers_and_the_gpu_has_is_tried() -> None:
    """Megatron-Core shards no gradients; an A100 has no 8-bit products; 16-bit formats run alike."""
    shardings = {move.after for move in moves_of("dense").possible if move.key == "sharding"}
    assert shardings <= set(CORE.offers.shardings)
    assert [move.after for move in moves_of("fp8").possible if move.key == "precision"] == ["bf16"]
    a100 = cluster_preset("dgx-a100")
    found = moves(predict_stage(setup_of(MODEL, LAYOUTS["dense"], CORE, cluster=a100)))
    assert "fp8" not in {move.after for move in found.possible}


def test_no_move_adds_ranks_along_an_axis_that_the_stack_does_not_offer() -> None:
    """PyTorch FSDP has data parallelism alone; a degree may still go back to 1."""
    fsdp = stack_preset("pytorch-fsdp")
    for tensor in (1, 2):
        layout = replace(LAYOUTS["zero3"], tensor_parallel=tensor, data_parallel=768 // tensor)
        found = moves(predict_stage(setup_of(MODEL, layout, fsdp, cluster=CLUSTER)))
        degrees = ("tensor_parallel", "pipeline_parallel", "context_parallel")
        taken = [(move.key, move.after) for move in (*found.possible, *found.refused) if move.key in degrees]
        assert taken == ([] if tensor == 1 else [("tensor_parallel", 1)])


def test_rows_have_a_reason_or_numbers() -> None:
    """Never both."""
    for row in moves_of("one GPU").rows():
        assert (row["time_change"] is None) == bool(row["refusal"])


def test_a_layout_of_one_gpu_has_few_moves() -> None:
    """Nothing to share."""
    keys = {move.key for move in moves_of("one GPU").possible}
    assert not keys & {"tensor_parallel", "pipeline_parallel", "context_parallel", "sequence_parallel"}


def test_moves_from_an_impossible_number_of_gpus_do_not_break() -> None:
    """Whatever the layout, each value is tried or refused."""
    layout: Layout = replace(LAYOUTS["dense"], tensor_parallel=6, data_parallel=3, global_batch_size=12)
    found = moves(predict_stage(setup_of(MODEL, layout, CORE, cluster=CLUSTER)))
    assert found.refused


@pytest.mark.parametrize(
    ("precision", "others"),
    [("bf16", {"fp8"}), ("fp8", {"bf16"}), ("tf32", {"bf16", "fp8"}), ("fp32", {"bf16", "fp8", "tf32"})],
)
def test_nobody_trades_16_bits_for_more(precision: str, others: set[str]) -> None:
    """From fp32 all are offered that the GPU has, TF32 first of all: nothing but a switch of PyTorch's."""
    found = moves(predict_stage(setup_of(MODEL, replace(LAYOUTS["dense"], precision=precision), CORE, cluster=CLUSTER)))
    tried = {move.after: move.time_change for move in found.possible if move.key == "precision"}
    assert tried.keys() == others
    if precision in ("tf32", "fp32"):
        assert max(tried.values()) < 0
