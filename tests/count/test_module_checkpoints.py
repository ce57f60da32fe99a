"""Software that checkpoints every module of a pipeline runs both ends of the model again, and copies what buckets exchange.

Symbols: T tokens of a micro-batch, h hidden_size, V the padded vocabulary, t tensor_parallel.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from perfmodel.count.iteration import Iteration, iteration
from perfmodel.count.operators import Collective, MemoryBound, hardware_flop, model_flop
from perfmodel.exchange.presets import model_preset, stack_preset
from perfmodel.spec.phases import RECOMPUTE
from perfmodel.spec.stack import SoftwareStack
from tests.layouts import RAMP_STAGE
from tests.setups import setup_of
from tests.stacks import stack_with

MODEL = model_preset("llama-3.1-8b")
STACK = stack_preset("aleph-alpha-scaling")
LAYERS_ALONE = stack_with(STACK, {"fusion.recomputes_ends": False})
LAYOUT = replace(RAMP_STAGE, tensor_parallel=4, micro_batch_size=2)
TOKENS = 2 * LAYOUT.sequence_length


def work_of(stack: SoftwareStack = STACK, **changes: Any) -> Iteration:
    """The operators of one iteration."""
    return iteration(setup_of(MODEL, replace(LAYOUT, **changes), stack))


@pytest.mark.parametrize("sequence_parallel", [False, True])
def test_the_head_and_the_embedding_run_again_up_to_the_loss(*, sequence_parallel: bool) -> None:
    """Norm, product and gathered logits, and the lookup with what ranks add up for it, each right before its own gradients."""
    work = work_of(recompute="full", sequence_parallel=sequence_parallel)
    plain = work_of(LAYERS_ALONE, recompute="full", sequence_parallel=sequence_parallel)
    for one, other in ((work.head, plain.head), (work.embedding, plain.embedding)):
        again = [op.name for op in one.backward if op.phase == RECOMPUTE]
        assert again == [op.name for op in one.forward if op.name != "head.loss"]
        assert one.forward == other.forward
        assert [op for op in one.backward if op.phase != RECOMPUTE] == list(other.backward)
    assert [op.name for op in work.head.backward][:1] == ["head.loss"]


def test_a_head_that_runs_again_costs_its_product_once_more() -> None:
    """2 * T * h * V/t FLOPs of the hardware a micro-batch, none of the model."""
    one, other = (work_of(stack, recompute="full") for stack in (STACK, LAYERS_ALONE))
    product = 2 * TOKENS * MODEL.hidden_size * MODEL.padded_vocab_size(4) / 4
    more = hardware_flop(one.operators) - hardware_flop(other.operators)
    assert more == pytest.approx(product * LAYOUT.micro_batches, rel=1e-9)
    assert model_flop(one.operators) == model_flop(other.operators)


@pytest.mark.parametrize("recompute", ["none", "selective"])
def test_ends_run_again_with_all_layers_alone(recompute: str) -> None:
    """Without recompute, or with parts of layers that run again, nothing of both ends does."""
    work = work_of(recompute=recompute)
    assert not [op for block in (work.head, work.embedding) for op in block.operators if op.phase == RECOMPUTE]


def test_the_loss_exchanges_three_numbers_or_all_logits() -> None:
    """Logits in 16 bits of every token on every rank, or 4 bytes a token in each of three all-reduces."""
    apart = stack_with(STACK, {"fusion.gathered_logits": False})
    (gather,), (reduce,) = (
        [op for op in work_of(stack).head.forward if isinstance(op, Collective) and "loss" in op.name]
        for stack in (STACK, apart)
    )
    assert (gather.kind, gather.payload_bytes) == ("all_gather", 2 * TOKENS * MODEL.padded_vocab_size(4))
    assert (reduce.kind, reduce.payload_bytes, reduce.repeats) == ("all_reduce", 4 * TOKENS, 3)


def copied(stack: SoftwareStack, **changes: Any) -> list[MemoryBound]:
    """The copies into and out of buckets, of a step."""
    return [
        op
        for op in work_of(stack, **changes).synchronisation
        if isinstance(op, MemoryBound) and op.name.endswith(".copy_buckets")
    ]


def test_buckets_that_are_no_views_are_filled_and_emptied() -> None:
    """28 bytes of every parameter that a rank holds; 24 of gradients and 4 of parameters."""
    (copies,) = copied(STACK, data_parallel=8)
    held = work_of(data_parallel=8).stages.first.parameters.total
    assert copies.moved_bytes == 28 * held
    assert not Counter(copied(stack_preset("megatron-core"), data_parallel=8))


def test_one_replica_copies_nothing() -> None:
    """Nothing is exchanged, so that nothing is put into buckets."""
    assert [op.moved_bytes for op in copied(STACK, data_parallel=1)] == [0.0]
