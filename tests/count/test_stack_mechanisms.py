"""What a software stack does with the same layer: products apart or joined, in 8 bits or 16, what it runs again, its loss.

Symbols: T tokens of a micro-batch, h hidden_size, V the padded vocabulary, t tensor_parallel.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from perfmodel.count.data_parallel import buckets
from perfmodel.count.iteration import Iteration, iteration
from perfmodel.count.memory import memory_bytes
from perfmodel.count.operators import Collective, FusedAttention, Matmul, MemoryBound, Operator, hardware_flop, saved_bytes
from perfmodel.count.parameters import shard_parameter_count
from perfmodel.exchange.presets import model_preset, stack_preset
from perfmodel.spec.phases import DATA_GRADIENT, FORWARD, OPTIMIZER, RECOMPUTE, WEIGHT_GRADIENT
from perfmodel.spec.stack import SoftwareStack
from tests.layouts import RAMP_STAGE

MODEL = model_preset("llama-3.1-8b")
STACK = replace(
    stack_preset("megatron-core"),
    separate_projections=False,
    fp8_products="layer",
    fp8_scaling="delayed",
    selective_recompute="attention",
    gathered_logits=False,
    norm_kernels="fused",
    loss_forward_bytes=22,
    fused_gradient_accumulation=True,
)
TOKENS, HIDDEN, RANKS = 2 * 4096, 4096, 4
LAYOUT = replace(RAMP_STAGE, tensor_parallel=RANKS, micro_batch_size=2)


def work_of(stack: SoftwareStack = STACK, **changes: Any) -> Iteration:
    """The operators of one iteration."""
    return iteration(MODEL, replace(LAYOUT, **changes), stack)


def products(operators: Sequence[Operator], *phases: str) -> dict[str, Matmul]:
    """The products of the given phases by name."""
    return {op.name: op for op in operators if isinstance(op, Matmul) and op.phase in phases}


def moved_bytes(operators: Sequence[Operator], ending: str, *phases: str) -> float:
    """What operators of a name move."""
    found = [op for op in operators if isinstance(op, MemoryBound) and op.name.endswith(ending) and op.phase in phases]
    assert found
    return float(sum(op.moved_bytes for op in found))


APART = replace(STACK, separate_projections=True)
BOTH = pytest.mark.parametrize("sequence_parallel", [True, False])


def test_projections_apart_are_five_products_of_the_same_work() -> None:
    """Queries, keys, values, gate and input of the MLP, of 1/t of their heads and columns each."""
    joined, apart = (products(work_of(stack).layer.forward, FORWARD) for stack in (STACK, APART))
    assert set(joined) - set(apart) == {"layer.attention.qkv"}
    columns = {name: op.columns * RANKS for name, op in apart.items() if name not in joined or name == "layer.mlp.fc1"}
    assert columns == {
        "layer.attention.query": 4096,
        "layer.attention.key": 1024,
        "layer.attention.value": 1024,
        "layer.mlp.gate": 14336,
        "layer.mlp.fc1": 14336,
    }
    flop = [hardware_flop(work_of(stack).layer.operators) for stack in (STACK, APART)]
    assert flop[0] == pytest.approx(flop[1], rel=1e-15)


@BOTH
def test_products_of_one_input_keep_it_once(*, sequence_parallel: bool) -> None:
    """However many read it."""
    kept = [saved_bytes(work_of(stack, sequence_parallel=sequence_parallel).layer.forward) for stack in (STACK, APART)]
    assert kept[0] == kept[1]


def test_products_of_one_gathered_input_share_its_collectives() -> None:
    """Sequence parallelism gathers it once, and scatters the sum of their gradients."""
    found = [
        Counter((op.kind, op.phase) for op in work_of(stack).layer.operators if isinstance(op, Collective))
        for stack in (STACK, APART)
    ]
    assert found[0] == found[1]


def test_without_sequence_parallelism_each_product_reduces_its_input_gradient() -> None:
    """Three all-reduces of the stream more: two of attention, one of the MLP."""
    found = [
        sum(isinstance(op, Collective) for op in work_of(stack, sequence_parallel=False).layer.backward)
        for stack in (STACK, APART)
    ]
    assert found == [2, 5]


@pytest.mark.parametrize(
    ("chosen", "named"),
    [("mlp", {"layer.mlp"}), ("layer", {"layer.mlp", "layer.attention"}), ("all", {"layer.mlp", "layer.attention", "head"})],
)
def test_a_stack_chooses_the_products_that_take_8_bits(chosen: str, named: set[str]) -> None:
    """Of the MLP, of the layer, or the logits too; every other stays in 16 bits, and each has its casts."""
    work = work_of(replace(STACK, fp8_products=chosen), precision="fp8")
    operators = (*work.layer.operators, *work.head.operators)
    narrow = {op.name for op in operators if isinstance(op, Matmul) and op.precision == "fp8"}
    casts = {op.name.removesuffix(".quantise") for op in operators if op.name.endswith(".quantise")}
    assert {name.rsplit(".", 1)[0] for name in narrow} == named
    assert casts == narrow
    assert {op.precision for op in operators if isinstance(op, Matmul) and op.name not in narrow} <= {"bf16"}
    assert {op.precision for op in operators if isinstance(op, FusedAttention)} == {"bf16"}


def test_products_of_one_input_cast_it_once() -> None:
    """Backwards too, where its transpose is formed; their gradients are as many numbers as those of one product."""
    for phase in (FORWARD, DATA_GRADIENT):
        joined, apart = (
            moved_bytes(work_of(each, precision="fp8").layer.operators, ".quantise", phase) for each in (STACK, APART)
        )
        assert joined == apart


def test_scaling_by_the_tensor_itself_reads_every_number_once_more() -> None:
    """2 bytes a number that is cast, to find the largest: inputs forwards, gradients backwards."""
    delayed, current = (
        work_of(replace(STACK, fp8_scaling=each), precision="fp8").layer.operators for each in ("delayed", "current")
    )
    column, row = 4096 + 2 * 1024 + 2 * 14336, 4096 + 14336
    extra = moved_bytes(current, ".quantise", FORWARD) - moved_bytes(delayed, ".quantise", FORWARD)
    assert extra == pytest.approx(2 * TOKENS * (2 * HIDDEN + row) / RANKS)
    extra = moved_bytes(current, ".quantise", DATA_GRADIENT) - moved_bytes(delayed, ".quantise", DATA_GRADIENT)
    assert extra == pytest.approx(2 * TOKENS * (column + 2 * HIDDEN) / RANKS)


def test_every_second_product_runs_again_and_all_that_is_no_product() -> None:
    """torchtitan's selective recompute: the projection, the second product of the MLP, and every memory-bound operator."""
    work = work_of(replace(STACK, selective_recompute="every_second_product"), recompute="selective")
    again = [op for op in work.layer.backward if op.phase == RECOMPUTE]
    assert set(products(again, RECOMPUTE)) == {"layer.attention.projection", "layer.mlp.fc2"}
    assert [op.name for op in again if not isinstance(op, Matmul)] == [
        op.name for op in work.layer.forward if isinstance(op, MemoryBound)
    ]
    assert saved_bytes(again) == 0


def test_attention_that_runs_again_is_the_core_alone() -> None:
    """arXiv:2205.05198, section 5."""
    again = [op.name for op in work_of(recompute="selective").layer.backward if op.phase == RECOMPUTE]
    assert again == ["layer.attention.core"]


def test_logits_may_be_gathered_on_every_rank() -> None:
    """2 bytes of each of T * V logits travel instead of three numbers a token, and every rank takes the whole loss."""
    shared, gathered = (work_of(replace(STACK, gathered_logits=each)).head for each in (False, True))
    padded = MODEL.padded_vocab_size(RANKS)
    exchanges = [
        [(op.kind, op.repeats, op.payload_bytes) for op in head.forward if isinstance(op, Collective) and "loss" in op.name]
        for head in (shared, gathered)
    ]
    assert exchanges == [[("all_reduce", 3, 4 * TOKENS)], [("all_gather", 1, 2 * TOKENS * padded)]]
    for head, columns in ((shared, padded / RANKS), (gathered, padded)):
        assert moved_bytes(head.forward, "head.loss", FORWARD) == 22 * TOKENS * columns


def test_norms_of_eager_operators_in_fp32_are_chains_of_kernels() -> None:
    """36 bytes a number forwards, 84 backwards, and 10 of it kept; a fused one moves 4 and 6 and keeps 2."""
    numbers = TOKENS * HIDDEN / RANKS
    for kernels, forward, backward, kept in (("fused", 4, 6, 2), ("eager_fp32", 36, 84, 10)):
        layer = work_of(replace(STACK, norm_kernels=kernels)).layer
        norm = next(op for op in layer.forward if op.name == "layer.mlp.norm")
        assert isinstance(norm, MemoryBound)
        assert (norm.moved_bytes, norm.backward_bytes, norm.saved_bytes) == (
            forward * numbers,
            backward * numbers,
            kept * numbers,
        )


@pytest.mark.parametrize("chosen", ["mlp", "layer", "all"])
def test_weights_are_cast_where_products_take_8_bits(chosen: str) -> None:
    """Once an iteration: 2 bytes read and two copies of 1 written of each; memory holds both copies."""
    stack, layout = replace(STACK, fp8_products=chosen), replace(LAYOUT, precision="fp8")
    count = shard_parameter_count(MODEL, tensor_parallel=RANKS)
    weights = {"mlp": count.mlp, "layer": count.mlp + count.attention, "all": count.mlp + count.attention + count.head}[chosen]
    work = iteration(MODEL, layout, stack)
    assert moved_bytes(work.synchronisation, ".quantise_weights", OPTIMIZER) == 4 * weights
    held = memory_bytes(MODEL, layout, stack, work).parameters_bytes
    assert held == count.total * stack.parameter_bytes + 2 * weights


def test_the_reference_stack_is_what_the_torch_model_runs() -> None:
    """Nothing is fused but attention, every product leaves its addition to another kernel, one call reduces all gradients."""
    stack = stack_preset("reference")
    work = iteration(MODEL, LAYOUT, stack)
    count = shard_parameter_count(MODEL, tensor_parallel=RANKS)
    added = moved_bytes(work.layer.backward, ".accumulate", WEIGHT_GRADIENT)
    assert added == 10 * (count.attention + count.mlp) / MODEL.layers
    assert any(isinstance(op, FusedAttention) for op in work.layer.forward)
    assert buckets(MODEL, replace(LAYOUT, data_parallel=1), stack).count == buckets(MODEL, LAYOUT, stack).count == 1
    assert (stack.tensor_parallel_overlap, stack.data_parallel_overlap, stack.pipeline_overlap) == ("none", False, False)
