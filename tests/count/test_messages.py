"""The collectives of an iteration: how many, of how many bytes, between which GPUs, in how many buckets.

Symbols: b micro_batch_size, s sequence_length, h hidden_size, L layers, t tensor_parallel, P parameters of one GPU.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest

from perfmodel.count.iteration import Iteration, iteration
from perfmodel.count.operators import Collective, Operator
from perfmodel.count.parameters import mean_excess, shard_parameter_count
from perfmodel.exchange.presets import model_preset, stack_preset
from perfmodel.spec.axes import AXES, Axis
from perfmodel.spec.fields import Numeric
from perfmodel.spec.layout import Layout, ProcessGroup
from perfmodel.spec.phases import DATA_GRADIENT, FORWARD, RECOMPUTE, WEIGHT_GRADIENT
from tests.count.mixtures import SMALL, layout_of, mixture_setup
from tests.layouts import RAMP_STAGE
from tests.setups import GRADIENT_REDUCTION, PARAMETER_GATHER, layer_of, setup_of
from tests.stacks import stack_with

NEMOTRON = model_preset("nemotron-4-15b")
FUSED = stack_preset("megatron-core")
CUT = stack_with(FUSED, {"overlap.overfills_buckets": False})
PARAMETERS = 1_954_295_808  # of one GPU: (15,628,775,424 + 7 * 65 norms of 2 * 6144) / 8
LAYOUT = replace(RAMP_STAGE, micro_batch_size=2, global_batch_size=768)
STREAM_BYTES = 2 * 4096 * 6144 * 2  # b * s * h numbers of 2 bytes
BOTH = pytest.mark.parametrize("sequence_parallel", [False, True])


def collectives(operators: Iterable[Operator], *phases: str) -> list[Collective]:
    """Pick the collectives of the given phases, of all phases when none is given."""
    return [op for op in operators if isinstance(op, Collective) and op.phase in (phases or (op.phase,))]


def kinds(operators: Iterable[Operator], *phases: str) -> Counter[str]:
    """Count the collectives of the given phases by kind."""
    return Counter(op.kind for op in collectives(operators, *phases))


def wire(operators: Iterable[Operator], *phases: str) -> Numeric:
    """Add up what each rank sends."""
    return sum(op.repeats * op.wire_bytes for op in collectives(operators, *phases))


def work_of(layout: Layout) -> Iteration:
    """List the operators of one iteration of Nemotron-4 15B."""
    return iteration(setup_of(NEMOTRON, layout, FUSED))


def synchronisation(layout: Layout) -> dict[str, Collective]:
    """Find the collectives of the optimizer step by name."""
    return {op.name: op for op in collectives(iteration(setup_of(NEMOTRON, layout, FUSED)).synchronisation)}


@pytest.mark.parametrize(
    ("sequence_parallel", "forward", "backward"),
    [
        (False, {"all_reduce": 2}, {"all_reduce": 2}),
        (True, {"all_gather": 2, "reduce_scatter": 2}, {"all_gather": 4, "reduce_scatter": 2}),
    ],
)
def test_collectives_of_a_layer(forward: dict[str, int], backward: dict[str, int], *, sequence_parallel: bool) -> None:
    """Two all-reduces a pass; with sequence parallelism two gathers and two scatters, and two inputs gathered again backwards.

    Source: arXiv:2205.05198, figures 4 and 5 and section 4.2.2.
    """
    layer = layer_of(work_of(replace(LAYOUT, sequence_parallel=sequence_parallel))).again
    assert kinds(layer.forward) == forward
    assert kinds(layer.backward) == backward


@BOTH
def test_every_collective_of_a_layer_carries_the_whole_stream(*, sequence_parallel: bool) -> None:
    """Each joins or reduces b*s*h numbers of 2 bytes over the tensor-parallel group, whatever t."""
    layout = replace(LAYOUT, sequence_parallel=sequence_parallel, tensor_parallel=np.array([2, 4, 8]))
    found = collectives(layer_of(work_of(layout)).again.operators)
    assert {op.payload_bytes for op in found} == {STREAM_BYTES}
    assert {op.group.name for op in found} == {"tensor_parallel"}


def test_sequence_parallelism_sends_no_more_bytes_forwards() -> None:
    """An all-gather and a reduce-scatter send what one all-reduce sends (arXiv:2205.05198, section 4.2.2)."""
    with_it, without = (layer_of(work_of(replace(LAYOUT, sequence_parallel=sp))).again for sp in (True, False))
    assert wire(with_it.forward) == wire(without.forward) == 2 * 2 * STREAM_BYTES * 7 / 8


@BOTH
def test_full_recompute_sends_the_forward_messages_again(*, sequence_parallel: bool) -> None:
    """The layer that runs again needs its collectives again, the same ones."""
    layer = layer_of(work_of(replace(LAYOUT, recompute="full", sequence_parallel=sequence_parallel))).again
    assert kinds(layer.backward, RECOMPUTE) == kinds(layer.forward)
    assert wire(layer.backward, RECOMPUTE) == wire(layer.forward)


@BOTH
def test_selective_recompute_sends_nothing(*, sequence_parallel: bool) -> None:
    """The attention core works on what a rank has."""
    layer = layer_of(work_of(replace(LAYOUT, recompute="selective", sequence_parallel=sequence_parallel))).again
    assert not collectives(layer.backward, RECOMPUTE)


@BOTH
def test_the_embedding_reduces_once_and_gathers_only_what_it_scattered(*, sequence_parallel: bool) -> None:
    """Rows of other ranks are summed in; only a scattered sum needs its gradient gathered."""
    embedding = work_of(replace(LAYOUT, sequence_parallel=sequence_parallel)).embedding
    assert kinds(embedding.forward) == {"reduce_scatter" if sequence_parallel else "all_reduce": 1}
    assert kinds(embedding.backward) == ({"all_gather": 1} if sequence_parallel else {})
    assert {op.payload_bytes for op in collectives(embedding.operators)} == {STREAM_BYTES}


def test_the_loss_exchanges_three_numbers_a_token() -> None:
    """Largest logit, logit of the target and sum of exponentials: three all-reduces of 4 bytes a token."""
    exchanges = [op for op in collectives(work_of(LAYOUT).head.operators) if op.name.startswith("head.loss")]
    assert sum(op.repeats * op.payload_bytes for op in exchanges) == 3 * 4 * 2 * 4096


@BOTH
def test_an_iteration_repeats_the_messages_of_its_blocks(*, sequence_parallel: bool) -> None:
    """micro_batches * (embedding + L * layer + head) + synchronisation is what an iteration sends."""
    work = work_of(replace(LAYOUT, sequence_parallel=sequence_parallel))
    micro_batch = wire(work.embedding.operators) + 32 * wire(layer_of(work).again.operators) + wire(work.head.operators)
    assert wire(work.operators) == pytest.approx(4 * micro_batch + wire(work.synchronisation), rel=1e-14)


def test_one_gpu_sends_nothing() -> None:
    """Groups of one send no bytes."""
    alone = replace(LAYOUT, tensor_parallel=1, data_parallel=1, global_batch_size=2)
    assert wire(work_of(alone).operators) == 0


@pytest.mark.parametrize(("kind", "times"), [("all_gather", 1), ("reduce_scatter", 1), ("all_reduce", 2)])
def test_each_rank_sends_all_but_its_own_share(kind: str, times: int) -> None:
    """(p - 1) / p of the payload, twice for an all-reduce, which is a reduce-scatter and an all-gather."""
    ranks = np.array([1, 2, 8, 1024])
    group = ProcessGroup(name="ring", ranks=ranks, stride=1)
    sent = Collective(name="message", kind=kind, payload_bytes=4096.0, group=group).wire_bytes
    assert np.array_equal(sent, times * 4096 * np.array([0, 1 / 2, 7 / 8, 1023 / 1024]))


def filled(tensors: list[int], size: float) -> int:
    """The buckets of Megatron-Core's loop (param_and_grad_buffer.py): one ends with the tensor that fills it."""
    number, held = 0, 0
    for tensor in tensors:
        held += tensor
        if held >= size:
            number, held = number + 1, 0
    return number + (held > 0)


def test_buckets_are_those_that_tensors_fill() -> None:
    """Head, 32 layers backwards and embedding of Nemotron-4 15B, tensor by tensor, into 40e6 parameters or 1e6 a rank."""
    hidden, matrix = 6144, 256_000 * 6144 // 8
    layer = [4 * hidden * hidden // 8, 4 * hidden * hidden // 8, hidden * hidden // 8, hidden * (hidden + 2 * 1024) // 8]
    data_parallel = np.array([1, 96, 192, 288, 384, 1000, 4096])
    layout = replace(LAYOUT, data_parallel=data_parallel, global_batch_size=data_parallel * 2)
    found = iteration(setup_of(NEMOTRON, layout, FUSED)).buckets.count
    exact = [filled([matrix, *layer * 32, matrix], max(40e6, 1e6 * ranks)) for ranks in data_parallel]
    assert np.abs(found - np.array(exact)).max() <= 1


def test_what_lies_beyond_a_point_inside_a_tensor_is_half_of_it_on_average() -> None:
    """Two matrices of a half, two of a sixth and an eighth: each weighed by how likely a point lies in it."""
    hidden = 6144
    sizes = np.array([4 * hidden * hidden, 4 * hidden * hidden, hidden * hidden, hidden * (hidden + 2 * 1024)]) / 8
    expected = sum(size / sizes.sum() * size / 2 for size in sizes)
    assert mean_excess(NEMOTRON, LAYOUT, routed=False) == pytest.approx(expected, rel=1e-12)
    assert mean_excess(NEMOTRON, LAYOUT, routed=True) == 0


def test_buckets_hold_40_million_parameters_or_1_million_a_rank() -> None:
    """Where they end before the tensor that would fill them they are counted as ceil(P / max(40e6, 1e6 * data_parallel))."""
    shard = shard_parameter_count(NEMOTRON, tensor_parallel=8)
    assert shard.total == PARAMETERS
    data_parallel = np.array([1, 40, 41, 100, 1954, 1955, 4096])
    layout = replace(LAYOUT, data_parallel=data_parallel, global_batch_size=data_parallel * 2)
    assert np.array_equal(iteration(setup_of(NEMOTRON, layout, CUT)).buckets.count, [49, 49, 48, 20, 2, 1, 1])


def test_shares_of_buckets_are_of_all_parameters() -> None:
    """A full bucket is at most everything; the embedding is one tensor that no bucket cuts."""
    shard = shard_parameter_count(NEMOTRON, tensor_parallel=8)
    layout = replace(LAYOUT, data_parallel=np.array([1, 100, 4096]), global_batch_size=np.array([2, 200, 8192]))
    embedding = 256_000 * 6144 / 8
    found = iteration(setup_of(NEMOTRON, layout, FUSED)).buckets
    beyond = mean_excess(NEMOTRON, layout, routed=False)
    assert found.share == pytest.approx([(40e6 + beyond) / shard.total, (100e6 + beyond) / shard.total, 1.0], rel=1e-14)
    assert found.uncut_share == pytest.approx(embedding / shard.total, rel=1e-14)


def test_buckets_by_layer_hold_a_layer_each() -> None:
    """A full one is a layer's share, whatever the ranks; the embeddings come after all layers."""
    stack = stack_with(FUSED, {"overlap.bucket_rule": "layer"})
    data_parallel = np.array([1, 100, 4096])
    found = iteration(
        setup_of(NEMOTRON, replace(LAYOUT, data_parallel=data_parallel, global_batch_size=data_parallel * 2), stack)
    ).buckets
    shard = shard_parameter_count(NEMOTRON, tensor_parallel=8)
    assert found.share == pytest.approx((1 - 2 * 256_000 * 6144 / 8 / shard.total) / 32, rel=1e-14)
    assert found.uncut_share == pytest.approx(256_000 * 6144 / 8 / shard.total, rel=1e-14)
    assert np.ndim(found.count) == 0
    assert found.count > NEMOTRON.layers


def test_deeper_models_have_more_buckets_by_layer() -> None:
    """One more for every layer, since the embeddings take what they take."""
    stack = stack_with(FUSED, {"overlap.bucket_rule": "layer"})
    few, many = (iteration(setup_of(replace(NEMOTRON, layers=layers), LAYOUT, stack)).buckets for layers in (32, 64))
    assert many.count - few.count == 32


@pytest.mark.parametrize("rule", ["size", "layer"])
def test_the_rule_of_buckets_moves_no_bytes(rule: str) -> None:
    """As many in all, in other pieces."""
    stack = stack_with(FUSED, {"overlap.bucket_rule": rule})
    found = {op.name: op for op in collectives(iteration(setup_of(NEMOTRON, LAYOUT, stack)).synchronisation)}
    for name in (GRADIENT_REDUCTION, PARAMETER_GATHER):
        assert found[name].repeats == iteration(setup_of(NEMOTRON, LAYOUT, stack)).buckets.count
        assert found[name].payload_bytes * found[name].repeats == pytest.approx(PARAMETERS * 2, rel=1e-14)


@pytest.mark.parametrize(("sharding", "kind"), [("none", "all_reduce"), ("zero1", "reduce_scatter")])
@pytest.mark.parametrize("gradient_bytes", [2, 4])
def test_buckets_add_up_to_all_gradients(gradient_bytes: int, sharding: str, kind: str) -> None:
    """Payload times number is P * reduced_gradient_bytes, over the GPUs that hold the same shard, t apart."""
    stack = stack_with(FUSED, {"states.reduced_gradient_bytes": gradient_bytes})
    layout = replace(LAYOUT, sharding=sharding)
    found = {op.name: op for op in collectives(iteration(setup_of(NEMOTRON, layout, stack)).synchronisation)}[
        GRADIENT_REDUCTION
    ]
    assert found.payload_bytes * found.repeats == pytest.approx(PARAMETERS * gradient_bytes, rel=1e-14)
    assert found.repeats == 17  # buckets of 96 million and more
    assert (found.kind, found.group.ranks, found.group.stride) == (kind, 96, 8)


def test_sharded_optimizers_gather_all_parameters() -> None:
    """Each rank steps its own share and all share the results: P * 2 bytes, in as many buckets."""
    gather = synchronisation(LAYOUT)[PARAMETER_GATHER]
    assert gather.payload_bytes * gather.repeats == pytest.approx(PARAMETERS * 2, rel=1e-14)
    assert (gather.kind, gather.repeats, gather.group.ranks, gather.group.stride) == ("all_gather", 17, 96, 8)


def test_whole_optimizers_gather_nothing() -> None:
    """Replicas that all step everything have nothing to share."""
    assert PARAMETER_GATHER not in synchronisation(replace(LAYOUT, sharding="none"))


def test_sharding_the_optimizer_sends_no_more_bytes() -> None:
    """ZeRO-1 scatters 2-byte gradients and gathers 2-byte parameters: what one all-reduce sends (arXiv:1910.02054, 7.2)."""
    sharded, whole = (wire(synchronisation(replace(LAYOUT, sharding=sharding)).values()) for sharding in ("zero1", "none"))
    assert sharded == pytest.approx(whole, rel=1e-14)


@BOTH
def test_ranks_add_up_the_gradients_of_norms_that_saw_other_tokens(*, sequence_parallel: bool) -> None:
    """Under sequence parallelism a norm sees 1/t of the tokens: (2 L + 1) * 2 h gradients are all-reduced over t."""
    found = [
        op for name, op in synchronisation(replace(LAYOUT, sequence_parallel=sequence_parallel)).items() if "norm_grad" in name
    ]
    expected = [("all_reduce", (2 * 32 + 1) * 2 * 6144 * 2, 8)] if sequence_parallel else []
    assert [(op.kind, op.payload_bytes, op.group.ranks) for op in found] == expected


@BOTH
def test_the_gradients_of_row_parallel_biases_travel_with_those_of_norms(*, sequence_parallel: bool) -> None:
    """They were added to 1/t of the tokens too: two of h numbers a layer, beside (2 L + 1) * 2 h of the norms."""
    layout = replace(LAYOUT, sequence_parallel=sequence_parallel)
    operators = iteration(setup_of(replace(NEMOTRON, biases=True), layout, FUSED)).synchronisation
    found = [op.payload_bytes for op in collectives(operators) if "norm_grad" in op.name]
    assert found == ([((2 * 32 + 1) * 2 + 2 * 32) * 6144 * 2] if sequence_parallel else [])


def test_one_gradient_norm_is_agreed_on_by_all_gpus() -> None:
    """Clipping needs one number of 4 bytes from every GPU."""
    norm = synchronisation(LAYOUT)["optimizer.gradient_norm.all_reduce"]
    assert (norm.kind, norm.payload_bytes, norm.group.ranks) == ("all_reduce", 4, 768)


def test_backward_messages_are_of_backward_phases() -> None:
    """Nothing of a layer's backward pass calls itself forward."""
    layer = layer_of(work_of(LAYOUT)).again
    assert {op.phase for op in layer.forward} == {FORWARD}
    assert {op.phase for op in layer.backward} <= {RECOMPUTE, DATA_GRADIENT, WEIGHT_GRADIENT}


@pytest.mark.parametrize("axis", AXES, ids=[axis.name for axis in AXES])
def test_ranks_of_every_axis_exchange_messages(axis: Axis) -> None:
    """Two ranks along an axis that no operator answers for would be priced as free."""
    work = iteration(mixture_setup(SMALL, layout_of(**{axis.name: 2})))
    groups = [op.group for op in collectives(work.operators) if op.repeats > 0]
    assert any(group.axis is axis and group.ranks >= 2 for group in groups)
