"""What each sharding moves in an iteration, over which GPUs, and what it leaves on each of them.

Symbols: P parameters of the first stage on one GPU, m micro-batches, n data_parallel * context_parallel, R replicas of hsdp.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from perfmodel.count.data_parallel import shards
from perfmodel.count.iteration import iteration
from perfmodel.count.operators import Collective, MemoryBound
from perfmodel.count.parameters import shard_parameter_count
from perfmodel.count.pipeline import pipeline_split
from perfmodel.exchange.presets import model_preset, stack_preset
from perfmodel.spec.fields import Numeric
from perfmodel.spec.layout import SHARDINGS, Layout
from perfmodel.spec.stack import SoftwareStack
from tests.layouts import RAMP_STAGE
from tests.setups import BACKWARD_GATHER, GRADIENT_REDUCTION, PARAMETER_GATHER, REPLICA_REDUCTION, data_parallel_calls, setup_of
from tests.stacks import stack_with

MODEL = model_preset("llama-3.1-8b")
PARAMETERS = shard_parameter_count(MODEL, tensor_parallel=2).total
STACK = stack_with(
    stack_preset("megatron-core"),
    {
        "states.parameter_bytes": 2,
        "states.reduced_gradient_bytes": 4,
        "states.gradient_bytes": 4,
        "states.scatters_gradients": True,
        "low_precision.parameter_gather": False,
        "overlap.bucket_rule": "size",
        "states.pipeline_split": "layers",
        "overlap.bucket_parameters": 40e6,
        "overlap.bucket_parameters_per_rank": 0,
    },
)
MICRO_BATCHES = 4
LAYOUT = replace(RAMP_STAGE, tensor_parallel=2, data_parallel=16, global_batch_size=16 * MICRO_BATCHES)
SHARDED = pytest.mark.parametrize("sharding", ["zero2", "zero3", "hsdp"])


def layout_of(sharding: str, **changes: Any) -> Layout:
    """Sixteen replicas of two GPUs, four micro-batches each; hsdp keeps two copies of its shards."""
    copies = {"data_parallel_replicas": 2} if sharding == "hsdp" else {}
    return replace(LAYOUT, **{"sharding": sharding, **copies, **changes})


def calls(layout: Layout, stack: SoftwareStack = STACK) -> dict[str, Collective]:
    """The data-parallel collectives by name."""
    return {op.name: op for op in data_parallel_calls(setup_of(MODEL, layout, stack))}


def moved_bytes(sharding: str, stack: SoftwareStack = STACK, **changes: Any) -> dict[str, float]:
    """Payload of all calls of an iteration, by name, for each parameter."""
    found = calls(layout_of(sharding, **changes), stack)
    return {name: float(op.payload_bytes * op.repeats / PARAMETERS) for name, op in found.items()}


def wire_bytes(layout: Layout) -> float:
    """What each rank sends in an iteration."""
    return float(sum(op.repeats * op.wire_bytes for op in calls(layout).values()))


@pytest.mark.parametrize(
    ("sharding", "expected"),
    [
        ("none", {GRADIENT_REDUCTION: 4}),
        ("zero1", {GRADIENT_REDUCTION: 4, PARAMETER_GATHER: 2}),
        ("zero2", {GRADIENT_REDUCTION: 4 * 4, PARAMETER_GATHER: 2}),
        ("zero3", {GRADIENT_REDUCTION: 4 * 4, PARAMETER_GATHER: 4 * 2, BACKWARD_GATHER: 4 * 2}),
        (
            "hsdp",  # eight shards
            {GRADIENT_REDUCTION: 4 * 4, REPLICA_REDUCTION: 4 * 4 / 8, PARAMETER_GATHER: 4 * 2, BACKWARD_GATHER: 4 * 2},
        ),
    ],
)
def test_bytes_a_parameter_that_an_iteration_moves(sharding: str, expected: dict[str, float]) -> None:
    """4 of its gradient and 2 of itself, once or for each of 4 micro-batches; zero3 has parameters twice in each."""
    assert moved_bytes(sharding) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize(
    ("sharding", "expected"),
    [
        ("none", {GRADIENT_REDUCTION: 4}),
        ("zero1", {GRADIENT_REDUCTION: 4, PARAMETER_GATHER: 2}),
        ("zero2", {GRADIENT_REDUCTION: 4, PARAMETER_GATHER: 2}),
        ("zero3", {GRADIENT_REDUCTION: 4, PARAMETER_GATHER: 2, BACKWARD_GATHER: 0}),
        ("hsdp", {GRADIENT_REDUCTION: 4, REPLICA_REDUCTION: 4 / 8, PARAMETER_GATHER: 2, BACKWARD_GATHER: 0}),
    ],
)
def test_stages_of_a_pipeline_move_everything_once(sharding: str, expected: dict[str, float]) -> None:
    """Parameters stay gathered, and gradients whole, over the micro-batches (PyTorch, torch.distributed.pipelining)."""
    layout = layout_of(sharding, pipeline_parallel=4)
    first = pipeline_split(setup_of(MODEL, layout, STACK)).stages.first.parameters.total
    found = {name: float(op.payload_bytes * op.repeats / first) for name, op in calls(layout).items()}
    assert found == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize(
    ("sharding", "kinds"),
    [
        ("none", ["all_reduce"]),
        ("zero1", ["reduce_scatter", "all_gather"]),
        ("zero2", ["reduce_scatter", "all_gather"]),
        ("zero3", ["reduce_scatter", "all_gather", "all_gather"]),
        ("hsdp", ["reduce_scatter", "all_reduce", "all_gather", "all_gather"]),
    ],
)
def test_kinds_of_collectives_of_a_sharding(sharding: str, kinds: list[str]) -> None:
    """What is sharded is scattered and gathered, what is copied is reduced."""
    assert [op.kind for op in calls(layout_of(sharding)).values()] == kinds


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_the_optimizer_step_has_each_of_them_once(sharding: str) -> None:
    """Reduced before it, gathered after it, by names of their own."""
    layout = layout_of(sharding)
    names = [op.name for op in iteration(setup_of(MODEL, layout, STACK)).synchronisation]
    assert all(names.count(name) == 1 for name in calls(layout))
    assert names[0] == GRADIENT_REDUCTION
    assert PARAMETER_GATHER not in names or names.index(PARAMETER_GATHER) > names.index("optimizer.adam")


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_ranks_of_a_sequence_hold_the_same_parameters(sharding: str) -> None:
    """Every data-parallel group is data times context: FSDP shards over both, and over a part of them under hsdp."""
    found = calls(layout_of(sharding, context_parallel=4))
    ranks = {name: op.group.ranks for name, op in found.items()}
    over = 16 * 4 / 2 if sharding == "hsdp" else 16 * 4
    assert ranks.pop(REPLICA_REDUCTION, 2) == 2
    assert set(ranks.values()) == {over}
    assert {op.group.stride for name, op in found.items() if name != REPLICA_REDUCTION} == {2}


def test_context_parallelism_shards_like_data_parallelism() -> None:
    """32 ranks send what 32 ranks send, whether they share sequences or have their own."""
    data, context = (
        wire_bytes(layout_of("zero3", data_parallel=d, context_parallel=c, global_batch_size=4 * d))
        for d, c in ((32, 1), (8, 4))
    )
    assert data == pytest.approx(context, rel=1e-15)


@pytest.mark.parametrize("stages", [1, 4])
def test_gathering_for_each_pass_sends_half_as_much_again_as_an_all_reduce(stages: int) -> None:
    """arXiv:1910.02054, section 7.2.2: 3 P against 2 P numbers a micro-batch, of equal size; in a pipeline no more."""
    stack = stack_with(STACK, {"states.reduced_gradient_bytes": 2})
    changes = {"global_batch_size": 16, "pipeline_parallel": stages}
    zero3, none = (
        sum(op.repeats * op.wire_bytes for op in calls(layout_of(sharding, **changes), stack).values())
        for sharding in ("zero3", "none")
    )
    assert zero3 / none == pytest.approx(1.5 if stages == 1 else 1.0)


@SHARDED
def test_more_micro_batches_move_more(sharding: str) -> None:
    """In proportion, but for what zero2 gathers once."""
    one, four = (wire_bytes(layout_of(sharding, global_batch_size=16 * m)) for m in (1, 4))
    gather = calls(layout_of(sharding))[PARAMETER_GATHER]
    once = gather.repeats * gather.wire_bytes if sharding == "zero2" else 0.0
    assert four - once == pytest.approx(4 * (one - once), rel=1e-14)


@pytest.mark.parametrize("sharding", ["none", "zero1"])
def test_what_is_moved_once_does_not_know_micro_batches(sharding: str) -> None:
    """Gradients are added up on the GPU."""
    one, four = (wire_bytes(layout_of(sharding, global_batch_size=16 * m)) for m in (1, 4))
    assert one == four


def test_one_copy_of_the_shards_is_zero3() -> None:
    """A group of one reduces nothing (and is refused where a run is read)."""
    assert wire_bytes(layout_of("hsdp", data_parallel_replicas=1)) == wire_bytes(layout_of("zero3"))


def test_as_many_copies_as_ranks_reduce_everything_as_without_sharding() -> None:
    """Nothing is gathered; every micro-batch all-reduces all gradients (and that is refused where a run is read)."""
    layout = layout_of("hsdp", data_parallel_replicas=16)
    assert wire_bytes(layout) == pytest.approx(MICRO_BATCHES * wire_bytes(layout_of("none")), rel=1e-14)
    assert shards(layout, "parameters") == 1


@pytest.mark.parametrize(
    ("most", "per_copy", "number"), [(1e9, 1e9, 3), (1e9, 1e8, 11), (1e12, 1e12, 1), (1.0, 1.0, 37), (0, 1, 37)]
)
def test_all_reduces_over_copies_are_joined_up_to_so_many_bytes(most: float, per_copy: float, number: int) -> None:
    """2.008 GB of shards in ceil(n / min(b, R*c)) calls, in 37 buckets where those move less; the bytes are the same."""
    joins = {"overlap.joined_reduction_bytes": most, "overlap.joined_reduction_bytes_per_copy": per_copy}
    layout = layout_of("hsdp", data_parallel_replicas=2)
    joined, apart = (calls(layout, stack)[REPLICA_REDUCTION] for stack in (stack_with(STACK, joins), STACK))
    assert joined.repeats == MICRO_BATCHES * number
    assert joined.repeats * joined.wire_bytes == pytest.approx(apart.repeats * apart.wire_bytes)


def test_more_copies_send_less_over_more_nodes() -> None:
    """The gathers have fewer ranks, the reduction over copies smaller shards: (R - 1)/R * 2 P R/n numbers."""
    for copies in (2, 4, 8):
        found = calls(layout_of("hsdp", data_parallel_replicas=copies))
        over = found[REPLICA_REDUCTION]
        assert over.repeats * over.wire_bytes == pytest.approx(2 * (copies - 1) / copies * 4 * 4 * PARAMETERS * copies / 16)
        assert found[PARAMETER_GATHER].group.ranks == 16 / copies
        assert (over.group.ranks, over.group.stride) == (copies, 2 * 16 / copies)


@pytest.mark.parametrize(
    ("sharding", "optimizer", "gradients", "parameters"),
    [
        ("none", 1, 1, 1),
        ("zero1", 32, 1, 1),
        ("zero2", 32, 32, 1),
        ("zero3", 32, 32, 32),
        ("hsdp", 16, 16, 16),
    ],
)
def test_what_is_spread_over_how_many_gpus(sharding: str, optimizer: int, gradients: int, parameters: int) -> None:
    """Data times context, over the copies of hsdp; in a pipeline gradients and parameters stay whole."""
    layout = layout_of(sharding, context_parallel=2)
    assert [shards(layout, part) for part in ("optimizer", "gradients", "parameters")] == [optimizer, gradients, parameters]
    layout = replace(layout, pipeline_parallel=4)
    assert [shards(layout, part) for part in ("optimizer", "gradients", "parameters")] == [optimizer, 1, 1]


def test_a_stack_may_reduce_what_it_could_scatter() -> None:
    """Each rank of a sharded optimizer then has all gradients, and twice the bytes of them to send."""
    whole, scattered = (
        calls(layout_of("zero1"), stack_with(STACK, {"states.scatters_gradients": each})) for each in (False, True)
    )
    assert whole[GRADIENT_REDUCTION].kind == "all_reduce"
    assert whole[GRADIENT_REDUCTION].wire_bytes == 2 * scattered[GRADIENT_REDUCTION].wire_bytes
    assert whole[PARAMETER_GATHER] == scattered[PARAMETER_GATHER]


@pytest.mark.parametrize("chosen", ["mlp", "layer", "all"])
def test_parameters_travel_in_8_bits_where_products_take_them(chosen: str) -> None:
    """A byte less of each weight that its product takes in 8 bits; gradients never do."""
    count = shard_parameter_count(MODEL, tensor_parallel=2)
    weights = {"mlp": count.mlp, "layer": count.attention + count.mlp, "all": count.attention + count.mlp + count.head}[chosen]
    stack = stack_with(STACK, {"low_precision.parameter_gather": True, "low_precision.products": chosen})
    found = moved_bytes("zero1", stack, precision="fp8")
    assert found == pytest.approx({GRADIENT_REDUCTION: 4, PARAMETER_GATHER: 2 - weights / count.total}, rel=1e-13)


@pytest.mark.parametrize(("precision", "travels"), [("fp8", False), ("bf16", True)])
def test_parameters_travel_in_16_bits_where_a_stack_or_a_run_has_no_others(precision: str, travels: bool) -> None:
    """Both have to agree."""
    found = moved_bytes("zero1", stack_with(STACK, {"low_precision.parameter_gather": travels}), precision=precision)
    assert found == pytest.approx({GRADIENT_REDUCTION: 4, PARAMETER_GATHER: 2}, rel=1e-13)


@pytest.mark.parametrize("sharding", ["zero3", "hsdp"])
def test_what_is_gathered_for_each_pass_goes_layer_by_layer(sharding: str) -> None:
    """Whatever the rule of the stack for buckets."""
    by_size, by_layer = (
        iteration(setup_of(MODEL, layout_of(sharding), stack_with(STACK, {"overlap.bucket_rule": rule}))).buckets
        for rule in ("size", "layer")
    )
    assert by_size == by_layer
    shard = shard_parameter_count(MODEL, tensor_parallel=2)
    assert by_size.share == pytest.approx(shard.non_embedding / MODEL.layers / shard.total)


def test_a_stage_has_the_buckets_of_its_own_parameters() -> None:
    """A quarter of the layers, and the embedding: fewer of the same size."""
    layout = layout_of("zero1", pipeline_parallel=4)
    stack = stack_with(STACK, {"overlap.overfills_buckets": False})
    first = pipeline_split(setup_of(MODEL, layout, stack)).stages.first.parameters
    found = iteration(setup_of(MODEL, layout, stack)).buckets
    assert found.count == np.ceil(first.total / 40e6) < iteration(setup_of(MODEL, layout_of("zero1"), stack)).buckets.count
    assert found.share == pytest.approx(40e6 / first.total)
    assert found.uncut_share == pytest.approx(first.embedding / first.total)


@pytest.mark.parametrize(
    ("sharding", "changes", "times"), [("zero3", {}, 8), ("hsdp", {}, 8), ("zero3", {"pipeline_parallel": 4}, 1)]
)
def test_what_is_gathered_is_copied_out_of_its_buffer(sharding: str, changes: dict[str, Any], times: int) -> None:
    """Two bytes a parameter read and written, for both passes of four micro-batches; in a pipeline once, and not by all."""
    setup = setup_of(MODEL, layout_of(sharding, **changes), stack_with(STACK, {"states.copies_gathered": True}))
    (copy,) = (op for op in iteration(setup).synchronisation if op.name == "optimizer.copy_gathered")
    assert isinstance(copy, MemoryBound)
    assert copy.repeats == times
    assert copy.moved_bytes == 4 * pipeline_split(setup).most_parameters.total
    assert copy.kernels == pipeline_split(setup).most_layers + 1  # one a gather: those of the layers, and the embedding's
    for layout, stack in ((layout_of(sharding, **changes), STACK), (layout_of("zero2"), setup.stack)):
        assert all(op.name != copy.name for op in iteration(setup_of(MODEL, layout, stack)).synchronisation)


def test_what_stays_gathered_is_copied_once() -> None:
    """Software that keeps what the forward pass gathered has nothing to copy for the backward pass."""
    stack = stack_with(STACK, {"states.copies_gathered": True, "states.regathers_parameters": False})
    found = iteration(setup_of(MODEL, layout_of("zero3"), stack)).synchronisation
    (copy,) = (op for op in found if op.name == "optimizer.copy_gathered")
    assert copy.repeats == MICRO_BATCHES


@pytest.mark.parametrize(("stages", "matrices"), [(1, 2), (4, 1)])
def test_a_shared_root_moves_the_head_with_the_embedding(stages: int, matrices: int) -> None:
    """Where both lie on one stage: 128,256 rows of 4,096 numbers over two ranks each. Alone, the embedding is moved apart."""
    layout, matrix = layout_of("zero3", pipeline_parallel=stages), 128_256 * 4096 / 2
    apart, shared = (
        iteration(setup_of(MODEL, layout, stack_with(STACK, {"overlap.shared_root": root}))) for root in (False, True)
    )
    held = shared.stages.first.parameters.total
    assert shared.buckets.uncut_share * held == pytest.approx(matrices * matrix)
    assert apart.buckets.uncut_share * held == pytest.approx(matrix)


@pytest.mark.parametrize("sharding", ["zero1", "zero3"])
def test_a_first_stage_without_layers_has_buckets_too(sharding: str) -> None:
    """34 stages of 32 layers: the embedding is alone, and never cut; a bucket would hold a layer."""
    shard = shard_parameter_count(MODEL, tensor_parallel=2)
    found = iteration(
        setup_of(MODEL, layout_of(sharding, pipeline_parallel=34), stack_with(STACK, {"overlap.bucket_rule": "layer"}))
    ).buckets
    assert found.uncut_share == 1
    assert found.share == pytest.approx(shard.non_embedding / 32 / shard.embedding)
    assert found.count == np.ceil(1 / found.share)


def test_an_array_of_shardable_layouts_moves_what_each_moves() -> None:
    """Stages down, replicas across."""
    stages, data = np.array([[1], [4]]), np.array([8, 16, 32])
    together = replace(LAYOUT, sharding="zero3", pipeline_parallel=stages, data_parallel=data, global_batch_size=4 * data)
    for name, many in calls(together).items():
        for index in np.ndindex(2, 3):
            sizes = {"pipeline_parallel": int(stages[index[0], 0]), "data_parallel": int(data[index[1]])}
            alone = calls(layout_of("zero3", **sizes, global_batch_size=4 * sizes["data_parallel"]))[name]
            sent: Numeric = np.broadcast_to(many.repeats * many.wire_bytes, (2, 3))[index]
            assert sent == alone.repeats * alone.wire_bytes


BLOCKING = stack_with(STACK, {"overlap.blocking_zero1": True})


def test_a_blocking_zero1_moves_everything_in_one_call_each() -> None:
    """All gradients added up whole, all parameters gathered; without sharded states there are buckets as before."""
    found = calls(layout_of("zero1"), BLOCKING)
    reduction, gather = found[GRADIENT_REDUCTION], found[PARAMETER_GATHER]
    assert (reduction.kind, reduction.repeats, gather.kind, gather.repeats) == ("all_reduce", 1, "all_gather", 1)
    assert (reduction.payload_bytes, gather.payload_bytes) == (4 * PARAMETERS, 2 * PARAMETERS)
    assert calls(layout_of("none"), BLOCKING) == calls(layout_of("none"))


@pytest.mark.parametrize("ranks", [1, 2, 16])
def test_a_blocking_gather_is_put_in_place_slice_by_slice(ranks: int) -> None:
    """Six matrices and norms a layer, two matrices of the vocabulary and a norm; of every rank, with two copies of all."""
    layout = layout_of("zero1", data_parallel=ranks, global_batch_size=ranks * MICRO_BATCHES)
    operators = {op.name: op for op in iteration(setup_of(MODEL, layout, BLOCKING)).synchronisation}
    placed = operators["optimizer.place_parameters"]
    assert isinstance(placed, MemoryBound)
    assert (placed.kernels, placed.moved_bytes) == ((0, 0) if ranks == 1 else (ranks * (32 * 6 + 3 + 2), 3 * 4 * PARAMETERS))
    plain = iteration(setup_of(MODEL, layout, STACK)).synchronisation
    assert {op.name for op in plain} == operators.keys() - {"optimizer.place_parameters"}
