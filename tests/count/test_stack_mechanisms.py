"""What a software stack does with the same layer: products apart or joined, in 8 bits or 16, what it runs again, its loss.

Symbols: T tokens of a micro-batch, h hidden_size, V the padded vocabulary, t tensor_parallel.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from perfmodel.count.iteration import Iteration, iteration
from perfmodel.count.memory.needed import memory_bytes
from perfmodel.count.memory.storage import state_bytes
from perfmodel.count.operators import Collective, FusedAttention, Matmul, MemoryBound, Operator, hardware_flop, saved_bytes
from perfmodel.count.parameters import shard_parameter_count
from perfmodel.count.roles import Role
from perfmodel.exchange.presets import model_preset, stack_preset
from perfmodel.spec.phases import DATA_GRADIENT, FORWARD, OPTIMIZER, RECOMPUTE, WEIGHT_GRADIENT
from perfmodel.spec.stack import SoftwareStack
from tests.counted import named
from tests.layouts import RAMP_STAGE
from tests.setups import layer_of, setup_of
from tests.stacks import stack_with

MODEL = model_preset("llama-3.1-8b")
STACK = stack_with(
    stack_preset("megatron-core"),
    {
        "fusion.separate_projections": False,
        "low_precision.products": "layer",
        "low_precision.scaling": "delayed",
        "fusion.selective_recompute": "attention",
        "fusion.gathered_logits": False,
        "fusion.norms": "fused",
        "fusion.loss_forward_bytes": 22,
        "fusion.gradient_accumulation": True,
    },
)
TOKENS, HIDDEN, RANKS = 2 * 4096, 4096, 4
LAYOUT = replace(RAMP_STAGE, tensor_parallel=RANKS, micro_batch_size=2)


def work_of(stack: SoftwareStack = STACK, **changes: Any) -> Iteration:
    """The operators of one iteration."""
    return iteration(setup_of(MODEL, replace(LAYOUT, **changes), stack))


def products(operators: Sequence[Operator], *phases: str) -> dict[str, Matmul]:
    """The products of the given phases by name."""
    return {op.name: op for op in operators if isinstance(op, Matmul) and op.phase in phases}


def moved_bytes(operators: Sequence[Operator], ending: str, *phases: str) -> float:
    """What operators of a name move."""
    found = [op for op in operators if isinstance(op, MemoryBound) and op.name.endswith(ending) and op.phase in phases]
    assert found
    return float(sum(op.moved_bytes for op in found))


APART = stack_with(STACK, {"fusion.separate_projections": True})
BOTH = pytest.mark.parametrize("sequence_parallel", [True, False])


def test_projections_apart_are_five_products_of_the_same_work() -> None:
    """Queries, keys, values, gate and input of the MLP, of 1/t of their heads and columns each."""
    joined, apart = (products(layer_of(work_of(stack)).again.forward, FORWARD) for stack in (STACK, APART))
    assert set(joined) - set(apart) == {"layer.attention.qkv"}
    columns = {name: op.columns * RANKS for name, op in apart.items() if name not in joined or name == "layer.mlp.fc1"}
    assert columns == {
        "layer.attention.query": 4096,
        "layer.attention.key": 1024,
        "layer.attention.value": 1024,
        "layer.mlp.gate": 14336,
        "layer.mlp.fc1": 14336,
    }
    flop = [hardware_flop(layer_of(work_of(stack)).again.operators) for stack in (STACK, APART)]
    assert flop[0] == pytest.approx(flop[1], rel=1e-15)


@BOTH
def test_products_of_one_input_keep_it_once(*, sequence_parallel: bool) -> None:
    """However many read it."""
    kept = [
        saved_bytes(layer_of(work_of(stack, sequence_parallel=sequence_parallel)).again.forward) for stack in (STACK, APART)
    ]
    assert kept[0] == kept[1]


def test_products_of_one_gathered_input_share_its_collectives() -> None:
    """Sequence parallelism gathers it once, and scatters the sum of their gradients."""
    found = [
        Counter((op.kind, op.phase) for op in layer_of(work_of(stack)).again.operators if isinstance(op, Collective))
        for stack in (STACK, APART)
    ]
    assert found[0] == found[1]


def test_without_sequence_parallelism_each_product_reduces_its_input_gradient() -> None:
    """Three all-reduces of the stream more: two of attention, one of the MLP."""
    found = [
        sum(isinstance(op, Collective) for op in layer_of(work_of(stack, sequence_parallel=False)).again.backward)
        for stack in (STACK, APART)
    ]
    assert found == [2, 5]


@pytest.mark.parametrize(
    ("kv_heads", "attention", "reduced"), [(32, {"qkv", "projection"}, 3), (8, {"query", "key", "value", "projection"}, 5)]
)
def test_heads_are_joined_where_keys_have_as_many_as_queries(kv_heads: int, attention: set[str], reduced: int) -> None:
    """One product and one all-reduce of queries, keys and values then; the MLP has its products apart in any case."""
    stack, layout = stack_with(APART, {"fusion.joined_heads": True}), replace(LAYOUT, sequence_parallel=False)
    layer = layer_of(iteration(setup_of(replace(MODEL, kv_heads=kv_heads), layout, stack))).again
    found = [name.split(".")[1:] for name in products(layer.forward, FORWARD)]
    assert {name for part, name in found if part == "attention"} == attention
    assert {name for part, name in found if part == "mlp"} == {"gate", "fc1", "fc2"}
    assert sum(isinstance(op, Collective) for op in layer.backward) == reduced


@pytest.mark.parametrize(
    ("chosen", "named"),
    [("mlp", {"layer.mlp"}), ("layer", {"layer.mlp", "layer.attention"}), ("all", {"layer.mlp", "layer.attention", "head"})],
)
def test_a_stack_chooses_the_products_that_take_8_bits(chosen: str, named: set[str]) -> None:
    """Of the MLP, of the layer, or the logits too; every other stays in 16 bits, and each has its casts."""
    work = work_of(stack_with(STACK, {"low_precision.products": chosen}), precision="fp8")
    operators = (*layer_of(work).again.operators, *work.head.operators)
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
            moved_bytes(layer_of(work_of(each, precision="fp8")).again.operators, ".quantise", phase) for each in (STACK, APART)
        )
        assert joined == apart


def test_scaling_by_the_tensor_itself_reads_every_number_once_more() -> None:
    """2 bytes a number that is cast, to find the largest: inputs forwards, gradients backwards."""
    delayed, current = (
        layer_of(work_of(stack_with(STACK, {"low_precision.scaling": each}), precision="fp8")).again.operators
        for each in ("delayed", "current")
    )
    column, row = 4096 + 2 * 1024 + 2 * 14336, 4096 + 14336
    extra = moved_bytes(current, ".quantise", FORWARD) - moved_bytes(delayed, ".quantise", FORWARD)
    assert extra == pytest.approx(2 * TOKENS * (2 * HIDDEN + row) / RANKS)
    extra = moved_bytes(current, ".quantise", DATA_GRADIENT) - moved_bytes(delayed, ".quantise", DATA_GRADIENT)
    assert extra == pytest.approx(2 * TOKENS * (column + 2 * HIDDEN) / RANKS)


def test_every_second_product_runs_again_and_all_that_is_no_product() -> None:
    """torchtitan's selective recompute: the projection, the second product of the MLP, gathers, and what is memory-bound."""
    work = work_of(stack_with(STACK, {"fusion.selective_recompute": "every_second_product"}), recompute="selective")
    again = [op for op in layer_of(work).again.backward if op.phase == RECOMPUTE]
    assert set(products(again, RECOMPUTE)) == {"layer.attention.projection", "layer.mlp.fc2"}
    assert [op.name for op in again if not isinstance(op, Matmul)] == [
        op.name
        for op in layer_of(work).again.forward
        if isinstance(op, MemoryBound) or (isinstance(op, Collective) and op.kind == "all_gather")
    ]
    assert saved_bytes(again) == 0


BATCH_FIRST = stack_with(STACK, {"fusion.batch_first": True, "fusion.gathered_inputs": True, "overlap.tensor_parallel": "none"})


def test_sequences_before_their_tokens_are_copied_around_each_call() -> None:
    """PyTorch's all_gather_tensor and reduce_scatter_tensor along the second dimension: all is read and written."""
    layer = layer_of(work_of(BATCH_FIRST, sequence_parallel=True)).again
    for operators in (layer.forward, layer.backward):
        calls = [op for op in operators if isinstance(op, Collective)]
        copies = [op for op in operators if op.role is Role.REORDER]
        assert [op.name for op in copies] == [f"{op.name}.copy" for op in calls]
        assert [op.moved_bytes for op in copies if isinstance(op, MemoryBound)] == [2 * op.payload_bytes for op in calls]
        for call, copy in zip(calls, copies, strict=True):  # after a gather, before a scatter
            assert operators.index(copy) - operators.index(call) == (1 if call.kind == "all_gather" else -1)


def test_one_rank_copies_nothing_and_parts_that_share_their_input_copy_it_once() -> None:
    """Nor does software whose tokens come first."""
    alone = layer_of(work_of(BATCH_FIRST, sequence_parallel=True, tensor_parallel=1)).again
    assert sum(op.moved_bytes for op in alone.operators if op.role is Role.REORDER and isinstance(op, MemoryBound)) == 0
    for separate in (False, True):
        stack = stack_with(BATCH_FIRST, {"fusion.separate_projections": separate})
        layer = layer_of(work_of(stack, sequence_parallel=True)).again
        assert len([op for op in layer.operators if op.role is Role.REORDER]) == 8
    assert not [op for op in layer_of(work_of(sequence_parallel=True)).again.operators if op.role is Role.REORDER]


def test_pieces_of_cut_products_are_not_copied_but_added() -> None:
    """PyTorch's symmetric memory: the rank's share of a scattered product is the sum of a piece from each rank."""
    cut = {"overlap.tensor_parallel": "pipelined", "overlap.sums_pieces": True}
    layer = layer_of(work_of(stack_with(BATCH_FIRST, cut), sequence_parallel=True)).again
    payload = 2 * TOKENS * HIDDEN
    sums = [op for op in layer.operators if isinstance(op, MemoryBound) and op.name.endswith(".sum")]
    assert [op.name for op in sums] == ["layer.attention.projection.scatter.sum", "layer.mlp.fc2.scatter.sum"]
    assert [op.moved_bytes for op in sums] == [payload * (1 + 1 / RANKS)] * 2
    copies = [op.name for op in layer.operators if op.role is Role.REORDER]
    assert copies == ["layer.mlp.fc1.reduce_input_gradient.copy", "layer.attention.qkv.reduce_input_gradient.copy"]


def test_attention_that_runs_again_is_the_core_alone() -> None:
    """arXiv:2205.05198, section 5."""
    again = [op.name for op in layer_of(work_of(recompute="selective")).again.backward if op.phase == RECOMPUTE]
    assert again == ["layer.attention.core"]


def test_logits_may_be_gathered_on_every_rank() -> None:
    """2 bytes of each of T * V logits travel instead of three numbers a token, and every rank takes the whole loss."""
    shared, gathered = (work_of(stack_with(STACK, {"fusion.gathered_logits": each})).head for each in (False, True))
    padded = MODEL.padded_vocab_size(RANKS)
    exchanges = [
        [(op.kind, op.repeats, op.payload_bytes) for op in head.forward if isinstance(op, Collective) and "loss" in op.name]
        for head in (shared, gathered)
    ]
    assert exchanges == [[("all_reduce", 3, 4 * TOKENS)], [("all_gather", 1, 2 * TOKENS * padded)]]
    for head, columns in ((shared, padded / RANKS), (gathered, padded)):
        assert moved_bytes(head.forward, "head.loss", FORWARD) == 22 * TOKENS * columns


@pytest.mark.parametrize(
    ("kernels", "precision", "moved", "launched", "kept"),
    [
        ("fused", "bf16", (4, 6), (1, 1), 2),
        ("eager_fp32", "bf16", (36, 84), (6, 12), 10),
        ("eager_fp32", "fp32", (28, 84), (4, 10), 8),
    ],
)
def test_norms_of_eager_operators_in_fp32_are_chains_of_kernels(
    kernels: str, precision: str, moved: tuple[int, int], launched: tuple[int, int], kept: int
) -> None:
    """Bytes a number and kernels forwards and backwards, and bytes of it kept."""
    numbers = TOKENS * HIDDEN / RANKS
    work = work_of(stack_with(STACK, {"fusion.norms": kernels}), precision=precision)
    norm = named(work, "layer.mlp.norm", MemoryBound)
    assert (norm.moved_bytes, norm.backward_bytes) == (moved[0] * numbers, moved[1] * numbers)
    assert (norm.kernels, norm.backward_kernels) == launched
    assert norm.saved_bytes == kept * numbers


def test_an_optimizer_step_moves_what_a_rank_owns_in_a_few_kernels() -> None:
    """All parameters lie in one buffer. Scaling reads and writes all gradients, zeroing writes them; the others see a shard."""
    work = work_of(stack_with(STACK, {"states.gradient_bytes": 4}))
    gradients = 4 * shard_parameter_count(MODEL, tensor_parallel=RANKS).total
    found: dict[str, Any] = {
        op.name: (op.kernels, op.moved_bytes) for op in work.synchronisation if isinstance(op, MemoryBound)
    }
    assert found == {
        "optimizer.scale_gradients": (1, pytest.approx(2 * gradients)),
        "optimizer.gradient_norm": (2, pytest.approx(gradients / 96)),
        "optimizer.adam": (4, pytest.approx(30 / 4 * gradients / 96)),
        "optimizer.zero_gradients": (1, pytest.approx(gradients)),
    }


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize(
    ("kernels", "beside"), [("torchtitan", 52), ("llm-foundry", 60), ("torchtitan-2025", 0), ("megatron-core", 0)]
)
def test_a_step_of_several_kernels_moves_more_and_keeps_no_more(kernels: str, beside: int, precision: str) -> None:
    """Per parameter of a rank's: what each kernel of PyTorch's foreach AdamW and of Composer's reads and writes, less one's."""
    stack = stack_preset(kernels)
    alone = stack_with(stack, {"states.unfused_step_bytes": 0})
    moved, least = (
        moved_bytes(work_of(each, precision=precision).synchronisation, "optimizer.adam", OPTIMIZER) for each in (stack, alone)
    )
    assert stack.states.unfused_step_bytes == beside
    one = state_bytes(replace(LAYOUT, precision=precision), alone)
    assert moved / least == pytest.approx((one.adam + beside) / one.adam)
    assert replace(state_bytes(replace(LAYOUT, precision=precision), stack), adam=one.adam) == one


@pytest.mark.parametrize(("fused", "passes", "kernels"), [(True, 2, 2), (False, 11, 12)])
def test_queries_and_keys_are_rotated_in_one_pass_each_or_in_a_chain(fused: bool, passes: int, kernels: int) -> None:
    """2 bytes a number of both, in every pass, backwards as forwards."""
    rotary = named(work_of(stack_with(STACK, {"fusion.rotary": fused})), "layer.attention.rotary", MemoryBound)
    numbers = TOKENS * (4096 + 1024) / RANKS
    assert rotary.moved_bytes == rotary.backward_bytes == 2 * passes * numbers
    assert (rotary.kernels, rotary.backward_kernels) == (kernels, kernels)


@pytest.mark.parametrize(
    ("fused", "precision", "moved", "kernels", "kept"),
    [
        (True, "bf16", (4, 6), 1, 2),
        (True, "fp32", (8, 12), 1, 4),
        (False, "bf16", (20, 24), 4, 6),
        (False, "fp32", (24, 28), 3, 4),
    ],
)
def test_a_softmax_beside_unfused_attention_moves_every_score(
    fused: bool, precision: str, moved: tuple[int, int], kernels: int, kept: int
) -> None:
    """Bytes a score forwards and backwards, in how many kernels, and bytes kept; eager chains scale, mask and cast as well."""
    wide = "fused_softmax" if fused else "unfused"
    stack = stack_with(STACK, {"fusion.attention": False, "fusion.softmax": fused, "fusion.wide_attention": wide})
    softmax = named(work_of(stack, precision=precision), "layer.attention.softmax", MemoryBound)
    scores = 2 * 32 / RANKS * 4096**2
    assert (softmax.moved_bytes, softmax.backward_bytes) == (moved[0] * scores, moved[1] * scores)
    assert (softmax.kernels, softmax.backward_kernels, softmax.saved_bytes) == (kernels, kernels, kept * scores)


@pytest.mark.parametrize(("precision", "moved"), [("bf16", (28, 40)), ("fp32", (24, 28))])
def test_scores_that_are_cast_first_are_masked_in_fp32(precision: str, moved: tuple[int, int]) -> None:
    """Cast 6, mask 8, softmax 8, cast 6; backwards 6, 12, a masked copy 16, 6; in fp32 there is nothing to cast."""
    eager = {"fusion.attention": False, "fusion.softmax": False, "fusion.wide_attention": "unfused"}
    stack = stack_with(STACK, {**eager, "fusion.fp32_scores": True})
    softmax = named(work_of(stack, precision=precision), "layer.attention.softmax", MemoryBound)
    scores = 2 * 32 / RANKS * 4096**2
    assert (softmax.moved_bytes, softmax.backward_bytes) == (moved[0] * scores, moved[1] * scores)
    assert softmax.saved_bytes == (6 if precision == "bf16" else 4) * scores


@pytest.mark.parametrize("chosen", ["mlp", "layer", "all"])
def test_weights_are_cast_where_products_take_8_bits(chosen: str) -> None:
    """Once an iteration: 2 bytes read and two copies of 1 written of each; memory holds both copies."""
    stack, layout = stack_with(STACK, {"low_precision.products": chosen}), replace(LAYOUT, precision="fp8")
    count = shard_parameter_count(MODEL, tensor_parallel=RANKS)
    weights = {"mlp": count.mlp, "layer": count.mlp + count.attention, "all": count.mlp + count.attention + count.head}[chosen]
    work = iteration(setup_of(MODEL, layout, stack))
    assert moved_bytes(work.synchronisation, ".quantise_weights", OPTIMIZER) == 4 * weights
    assert named(work, "optimizer.quantise_weights", MemoryBound, OPTIMIZER).kernels == 4 * MODEL.layers
    held = memory_bytes(work).parameters_bytes
    assert held == count.total * stack.states.parameter_bytes + 2 * weights


@pytest.mark.parametrize(("scaling", "reads"), [("delayed", 1), ("current", 2)])
def test_weights_that_are_gathered_in_8_bits_are_cast_by_their_owners(scaling: str, reads: int) -> None:
    """4 bytes of each master copy of a shard read, 1 written; then all of them are transposed, 1 read and 1 written."""
    changes = {"low_precision.scaling": scaling, "low_precision.parameter_gather": True}
    layout = replace(LAYOUT, precision="fp8")
    count = shard_parameter_count(MODEL, tensor_parallel=RANKS)
    weights, ranks = count.mlp + count.attention, layout.data_parallel * layout.context_parallel
    work = iteration(setup_of(MODEL, layout, stack_with(STACK, changes)))
    expected = weights / ranks * (4 * reads + 1) + 2 * weights
    assert moved_bytes(work.synchronisation, ".quantise_weights", OPTIMIZER) == pytest.approx(expected)


@pytest.mark.parametrize("ranks", [8, 512])
def test_buckets_of_the_containers_of_2025_have_one_size(ranks: int) -> None:
    """128 * 1024 * 1024 parameters, however many replicas."""
    layout = replace(LAYOUT, data_parallel=ranks, global_batch_size=2 * ranks)
    stack = stack_with(stack_preset("megatron-core-2025"), {"overlap.overfills_buckets": False})
    held = iteration(setup_of(MODEL, layout, stack))
    total = shard_parameter_count(MODEL, tensor_parallel=RANKS).total
    assert held.buckets.count == -(-total // 2**27)


def test_the_reference_stack_is_what_the_torch_model_runs() -> None:
    """Nothing is fused but attention, every product leaves its addition to another kernel, one call reduces all gradients."""
    stack = stack_preset("reference")
    work = iteration(setup_of(MODEL, LAYOUT, stack))
    count = shard_parameter_count(MODEL, tensor_parallel=RANKS)
    added = moved_bytes(layer_of(work).again.backward, ".accumulate", WEIGHT_GRADIENT)
    assert added == 10 * (count.attention + count.mlp) / MODEL.layers
    assert any(isinstance(op, FusedAttention) for op in layer_of(work).again.forward)
    assert (
        iteration(setup_of(MODEL, replace(LAYOUT, data_parallel=1), stack)).buckets.count
        == iteration(setup_of(MODEL, LAYOUT, stack)).buckets.count
        == 1
    )
    assert (stack.overlap.tensor_parallel, stack.overlap.data_parallel, stack.overlap.pipeline) == ("none", False, False)


STOPS_EARLY = stack_with(STACK, {"fusion.recompute_stops_early": True})


@pytest.mark.parametrize("sequence_parallel", [False, True])
def test_recompute_that_stops_early_sends_and_adds_nothing_behind_the_last_product(*, sequence_parallel: bool) -> None:
    """Of a layer that runs again, the second product of the MLP, what ranks send after it and the residual are left out."""
    every, fewer = (
        [op.name for op in layer_of(work_of(stack, recompute="full", sequence_parallel=sequence_parallel)).again.backward]
        for stack in (STACK, STOPS_EARLY)
    )
    sent = "layer.mlp.fc2.scatter" if sequence_parallel else "layer.mlp.fc2.all_reduce"
    assert list((Counter(every) - Counter(fewer)).elements()) == ["layer.mlp.fc2", sent, "layer.mlp.residual"]
    assert not Counter(fewer) - Counter(every)


def test_a_mask_of_dropout_needs_the_last_product_again() -> None:
    """It is kept, and formed behind that product, so that nothing is left out."""
    setups = (
        setup_of(replace(MODEL, dropout=True), replace(LAYOUT, recompute="full"), stack) for stack in (STACK, STOPS_EARLY)
    )
    one, other = (hardware_flop(iteration(setup).operators) for setup in setups)
    assert one == other
