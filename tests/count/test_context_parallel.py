"""Context parallelism: its ranks share the attention of a sequence out, and pass keys and values on.

Symbols: b micro_batch_size, s sequence_length, c context_parallel, v width of the KV heads of a rank, L layers.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from perfmodel.count.iteration import Iteration, iteration
from perfmodel.count.operators import Collective, FusedAttention, MemoryBound, Operator, hardware_flop, model_flop, saved_bytes
from perfmodel.exchange.presets import model_preset, stack_preset
from perfmodel.spec.layout import Layout
from perfmodel.spec.phases import DATA_GRADIENT, FORWARD, RECOMPUTE
from perfmodel.spec.stack import SoftwareStack
from tests.layouts import RAMP_STAGE
from tests.setups import layer_of, setup_of
from tests.stacks import stack_with

MODEL = model_preset("llama-3.1-8b")  # 8 KV heads of 128
RING = stack_with(
    stack_preset("megatron-core"),
    {
        "overlap.context_parallel_exchange": "ring",
        "overlap.balanced_context_parallel": True,
        "fusion.selective_recompute": "attention",
    },
)
GATHER = stack_with(RING, {"overlap.context_parallel_exchange": "all_gather"})
UNBALANCED = stack_with(RING, {"overlap.balanced_context_parallel": False})
STACKS = pytest.mark.parametrize("stack", [RING, GATHER, UNBALANCED], ids=["ring", "all-gather", "unbalanced"])
RANKS = [2, 4, 16]


def layout_of(context: int, *, tensor: int = 2, recompute: str = "none") -> Layout:
    """Sequences of 16,384 tokens, two at a time."""
    return replace(
        RAMP_STAGE,
        tensor_parallel=tensor,
        context_parallel=context,
        data_parallel=4,
        micro_batch_size=2,
        global_batch_size=32,
        sequence_length=16384,
        recompute=recompute,
    )


def work_of(context: int, stack: SoftwareStack = RING, *, tensor: int = 2, recompute: str = "none") -> Iteration:
    """The operators of one iteration."""
    return iteration(setup_of(MODEL, layout_of(context, tensor=tensor, recompute=recompute), stack))


def kernels(work: Iteration, phase: str = FORWARD) -> list[FusedAttention]:
    """The attention kernels of one pass over a layer, own keys first."""
    found = [op for op in layer_of(work).again.operators if isinstance(op, FusedAttention) and op.phase == phase]
    return sorted(found, key=lambda op: not op.causal)


def exchanges(work: Iteration, *phases: str) -> list[Collective]:
    """What context-parallel ranks pass on in a layer."""
    return [
        op
        for op in layer_of(work).again.operators
        if isinstance(op, Collective) and op.group.name == "context_parallel" and op.phase in (phases or (op.phase,))
    ]


def again(work: Iteration) -> list[Operator]:
    """What of a layer runs again."""
    return [op for op in layer_of(work).again.operators if op.phase == RECOMPUTE]


def wire_bytes(found: list[Collective]) -> float:
    """What each rank sends."""
    return float(sum(op.repeats * op.wire_bytes for op in found))


@STACKS
@pytest.mark.parametrize("phase", [FORWARD, DATA_GRADIENT])
@pytest.mark.parametrize("context", RANKS)
def test_ranks_share_the_attention_of_a_sequence_out(context: int, phase: str, stack: SoftwareStack) -> None:
    """The FLOPs of a rank times c are those of one rank that has the whole sequence."""
    apart, (whole,) = kernels(work_of(context, stack), phase), kernels(work_of(1, stack), phase)
    assert context * sum(op.repeats * op.flop for op in apart) == pytest.approx(whole.flop, rel=1e-15)


@pytest.mark.parametrize("stack", [RING, GATHER], ids=["ring", "all-gather"])
@pytest.mark.parametrize("context", RANKS)
def test_a_balanced_rank_meets_its_share_of_the_pairs_that_the_mask_leaves(context: int, stack: SoftwareStack) -> None:
    """A causal kernel meets half of its square: s/c * s/(2*c) + (c - 1) * s/c * s/(2*c) are s^2/(2*c) pairs."""
    own, others = kernels(work_of(context, stack))
    assert (own.causal, others.causal) == (True, False)
    assert (own.repeats, others.repeats) == (1, context - 1 if stack is RING else 1)
    pairs = own.query_length * own.key_length / 2 + others.repeats * others.query_length * others.key_length
    assert pairs == 16384**2 / 2 / context


@pytest.mark.parametrize("context", RANKS)
def test_an_unbalanced_last_rank_meets_all_that_came_before(context: int) -> None:
    """Its s/c queries meet the keys of c - 1 ranks whole: nearly twice its share, once there are many ranks."""
    own, others = kernels(work_of(context, UNBALANCED))
    pairs = own.query_length * own.key_length / 2 + others.repeats * others.query_length * others.key_length
    assert pairs / (16384**2 / 2 / context) == pytest.approx(2 - 1 / context)


@STACKS
def test_one_rank_has_one_kernel_and_passes_nothing_on(stack: SoftwareStack) -> None:
    """Nor adds anything up."""
    work = work_of(1, stack)
    (core,) = kernels(work)
    assert (core.query_length, core.key_length, core.counted) == (16384, 16384, 1)
    assert exchanges(work) == []
    assert not [op for op in layer_of(work).again.operators if op.name == "layer.attention.join"]


@pytest.mark.parametrize("tensor", [1, 2, 8])
@pytest.mark.parametrize("context", RANKS)
def test_a_ring_passes_keys_and_values_to_every_other_rank(context: int, tensor: int) -> None:
    """C - 1 messages of the 2 * b*s/c * v numbers of 2 bytes; backwards as many again, and their gradients the other way."""
    work = work_of(context, tensor=tensor)
    both = 2 * 2 * (2 * 16384 / context) * (1024 / tensor)
    (there,), (back,) = exchanges(work, FORWARD), exchanges(work, DATA_GRADIENT)
    assert (there.kind, there.repeats, there.payload_bytes) == ("point_to_point", context - 1, both)
    assert (back.kind, back.repeats, back.payload_bytes) == ("point_to_point", context - 1, 2 * both)
    assert there.wire_bytes == both


@pytest.mark.parametrize("context", RANKS)
def test_ring_messages_run_beside_the_kernels_of_the_keys_before(context: int) -> None:
    """Those of the same pass; the first kernel has its own keys."""
    work = work_of(context)
    named = {(op.name, op.phase) for op in layer_of(work).again.operators if isinstance(op, FusedAttention)}
    assert {op.partner for op in exchanges(work)} == {("layer.attention.core_ring", each) for each in (FORWARD, DATA_GRADIENT)}
    assert {op.partner for op in exchanges(work)} <= named


@pytest.mark.parametrize("context", RANKS)
def test_an_all_gather_joins_keys_and_values_before_the_kernels(context: int) -> None:
    """Once forwards, once more backwards, and then their gradients are scattered: 2 * b*s * v numbers each, behind nothing."""
    work = work_of(context, GATHER)
    whole = 2 * 2 * (2 * 16384) * 512
    assert [(op.kind, op.repeats, op.payload_bytes) for op in exchanges(work, FORWARD)] == [("all_gather", 1, whole)]
    backward = [(op.kind, op.repeats, op.payload_bytes) for op in exchanges(work, DATA_GRADIENT)]
    assert backward == [("all_gather", 1, whole), ("reduce_scatter", 1, whole)]
    assert {op.partner for op in exchanges(work)} == {("", "")}
    names = [op.name for op in layer_of(work).again.forward]
    assert names.index("layer.attention.exchange") < names.index("layer.attention.core")


@pytest.mark.parametrize("context", RANKS)
def test_a_ring_and_a_gather_send_the_same_bytes(context: int) -> None:
    """(c - 1)/c of all keys and values forwards, three times that in all: the ring is what an all-gather is made of."""
    ring, gather = (exchanges(work_of(context, stack), FORWARD) for stack in (RING, GATHER))
    assert wire_bytes(ring) == pytest.approx(wire_bytes(gather), rel=1e-15)
    ring, gather = (exchanges(work_of(context, stack)) for stack in (RING, GATHER))
    assert wire_bytes(ring) == pytest.approx(wire_bytes(gather), rel=1e-15)


def test_more_ranks_of_a_ring_send_little_more_each() -> None:
    """(c - 1)/c of one tensor, whatever c: that is why long sequences are cut, and not batches."""
    sent = [wire_bytes(exchanges(work_of(context), FORWARD)) for context in (2, 4, 8, 16)]
    assert sent == pytest.approx([2 * 2 * 2 * 16384 * 512 * (c - 1) / c for c in (2, 4, 8, 16)])


@pytest.mark.parametrize("context", RANKS)
def test_context_parallel_ranks_are_a_tensor_parallel_group_apart(context: int) -> None:
    """And as many as c."""
    assert {(op.group.ranks, op.group.stride) for op in exchanges(work_of(context))} == {(context, 2)}


@pytest.mark.parametrize("context", RANKS)
def test_full_recompute_exchanges_again(context: int) -> None:
    """The layer that runs again needs the keys of others again, beside its own kernels."""
    work = work_of(context, recompute="full")
    second, first = exchanges(work, RECOMPUTE), exchanges(work, FORWARD)
    assert wire_bytes(second) == wire_bytes(first) > 0
    assert [op.partner for op in second] == [("layer.attention.core_ring", RECOMPUTE)]
    assert sum(op.repeats * op.flop for op in kernels(work, RECOMPUTE)) == sum(op.repeats * op.flop for op in kernels(work))


@pytest.mark.parametrize("stack", [RING, GATHER], ids=["ring", "all-gather"])
def test_selective_recompute_of_attention_exchanges_again(stack: SoftwareStack) -> None:
    """Keys of other ranks are not kept: attention that runs again fetches them again, and adds up again."""
    work = work_of(4, stack, recompute="selective")
    assert wire_bytes(exchanges(work, RECOMPUTE)) == wire_bytes(exchanges(work, FORWARD))
    joins = [sum(op.name == "layer.attention.join" for op in ops) for ops in (layer_of(work).again.forward, again(work))]
    assert joins == ([1, 1] if stack is RING else [0, 0])


@pytest.mark.parametrize("context", RANKS)
def test_tokens_of_every_other_operator_are_shared_out(context: int) -> None:
    """Linears, norms and residuals do 1/c of the work of one rank, forwards and backwards."""
    apart, whole = layer_of(work_of(context)).again.operators, layer_of(work_of(1)).again.operators
    rest = [[op for op in each if not isinstance(op, FusedAttention)] for each in (apart, whole)]
    assert hardware_flop(rest[0]) == pytest.approx(hardware_flop(rest[1]) / context, rel=1e-15)
    moved = [
        {
            (op.name, op.phase): op.moved_bytes
            for op in each
            if isinstance(op, MemoryBound) and op.name != "layer.attention.join"
        }
        for each in (apart, whole)
    ]
    assert moved[0] == pytest.approx({name: each / context for name, each in moved[1].items()}, rel=1e-15)


@STACKS
@pytest.mark.parametrize("context", RANKS)
def test_what_a_layer_keeps_is_shared_out(context: int, stack: SoftwareStack) -> None:
    """Keys of other ranks are not kept."""
    apart, whole = (saved_bytes(layer_of(work_of(each, stack)).again.forward) for each in (context, 1))
    assert apart == pytest.approx(whole / context, rel=1e-15)


@pytest.mark.parametrize("context", RANKS)
def test_what_the_kernels_of_a_ring_found_is_added_up(context: int) -> None:
    """14 bytes a number of each kernel's output: of one whole, of the others three quarters on average."""
    (join,) = [op for op in layer_of(work_of(context)).again.forward if op.name == "layer.attention.join"]
    assert isinstance(join, MemoryBound)
    assert join.moved_bytes == pytest.approx(14 * 2 * 16384 / context * 2048 * (1 + 0.75 * (context - 1)))
    assert join.kernels == 3 * context
    (back,) = [op for op in layer_of(work_of(context)).again.backward if op.name == "layer.attention.join"]
    assert isinstance(back, MemoryBound)
    assert back.moved_bytes == pytest.approx(7 * 2 * join.moved_bytes / 14)
    assert back.kernels == 3 * context


def test_after_an_all_gather_nothing_is_added_up() -> None:
    """A query meets all its keys in one softmax (arXiv:2407.21783, section 3.3.2)."""
    assert not [op for op in layer_of(work_of(4, GATHER)).again.operators if op.name == "layer.attention.join"]


@STACKS
def test_an_array_of_context_parallel_counts_what_each_counts(stack: SoftwareStack) -> None:
    """One rank among others has no ring, and adds nothing up."""
    context = np.array([1, 2, 16])
    together = iteration(setup_of(MODEL, replace(layout_of(1), context_parallel=context), stack))
    for index, each in enumerate(context):
        alone = work_of(int(each), stack)
        for fold in (model_flop, hardware_flop, saved_bytes):
            assert np.broadcast_to(fold(layer_of(together).again.operators), (3,))[index] == fold(
                layer_of(alone).again.operators
            )
        both = [
            sum(np.broadcast_to(op.repeats * op.moved_bytes, (3,))[index] for op in ops if isinstance(op, MemoryBound))
            for ops in (layer_of(together).again.operators, layer_of(alone).again.operators)
        ]
        assert both[0] == both[1]
