"""What data parallelism moves of a mixture of experts, and what its optimizer step does, against sums by hand.

A small mixture on eight GPUs: four layers of h = 64 with eight experts each, of which a rank holds four where there are two
expert-parallel ranks. Per layer 12,288 parameters of attention, 512 of the router, 9,216 of the shared expert, 128 of norms and
6,144 of each expert; 16,384 of either matrix of the vocabulary and 64 of the last norm.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import pytest

from perfmodel.count.data_parallel import Buckets, expert_state_shards, owned_parameters
from perfmodel.count.iteration import Iteration, iteration
from perfmodel.count.operators import Collective, MemoryBound
from perfmodel.spec.models.layer_kinds import LayerKind
from perfmodel.spec.models.model import TransformerModel
from tests.count.mixtures import SMALL, STACK, layout_of, mixture_setup
from tests.stacks import stack_with

VOCABULARY, LAST_NORM, EXPERT = 2 * 16_384, 64, 6_144
SHARED: Final = VOCABULARY + LAST_NORM + 4 * (12_288 + 512 + 9_216 + 128)
EXPERTS: Final = 4 * 4 * EXPERT  # of a rank, with two expert-parallel ranks
PLAIN: Final = {
    "overlap.bucket_rule": "size",
    "overlap.bucket_parameters": 1_000.0,
    "overlap.bucket_parameters_per_rank": 0.0,
    "overlap.blocking_zero1": False,
    "states.scatters_gradients": True,
    "states.parameter_bytes": 2.0,
    "states.gradient_bytes": 4.0,
    "states.reduced_gradient_bytes": 3.0,
    "states.optimizer_bytes": 12.0,
    "states.overwrites_gradients": False,
    "low_precision.products": "layer",
    "low_precision.parameter_gather": False,
    "overlap.overfills_buckets": False,
    "low_precision.scaling": "delayed",
}


def work(settings: dict[str, Any] | None = None, model: TransformerModel = SMALL, **layout: Any) -> Iteration:
    """The iteration of the mixture over two expert-parallel ranks, on eight replicas unless told otherwise."""
    stack = stack_with(STACK, PLAIN | (settings or {}))
    return iteration(mixture_setup(model, layout_of(**({"expert_parallel": 2} | layout)), stack, "dgx-h100"))


def calls(of: Iteration) -> dict[str, Collective]:
    """The collectives of the optimizer step by the last word of their names."""
    return {op.name.removeprefix("optimizer."): op for op in of.synchronisation if isinstance(op, Collective)}


def moved(of: Iteration) -> dict[str, float]:
    """The bytes of the other operators of the step."""
    return {
        op.name.removeprefix("optimizer."): float(op.moved_bytes) for op in of.synchronisation if isinstance(op, MemoryBound)
    }


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        ({}, 1_000),
        ({"overlap.bucket_parameters_per_rank": 100.0}, 1_000),
        ({"overlap.bucket_parameters_per_rank": 200.0}, 1_600),
        ({"overlap.bucket_rule": "layer"}, 12_288 + 512 + 9_216 + 128 + 16),
    ],
)
def test_experts_lie_in_buckets_of_the_size_of_the_others(settings: dict[str, Any], size: int) -> None:
    """A number for all, or more with every rank, or a layer without its experts (and a quarter of the last norm)."""
    assert work(settings).buckets == Buckets(
        count=-(-SHARED // size), share=size / SHARED, uncut_share=16_384 / SHARED, of_experts=-(-EXPERTS // size)
    )


def test_a_bucket_larger_than_all_experts_holds_them_all() -> None:
    """One bucket at least."""
    assert work({"overlap.bucket_parameters": 1e9}).buckets.of_experts == 1


def test_gradients_of_experts_are_reduced_and_parameters_gathered_among_their_own_ranks() -> None:
    """3 bytes of each gradient and 2 of each parameter in 99 buckets, over the four ranks with the same experts."""
    found = calls(work())
    for name, width, ranks, number, held in (
        ("reduce_gradients", 3, 8, 122, SHARED),
        ("gather_parameters", 2, 8, 122, SHARED),
        ("reduce_gradients_of_experts", 3, 4, 99, EXPERTS),
        ("gather_parameters_of_experts", 2, 4, 99, EXPERTS),
    ):
        call = found[name]
        assert (call.repeats, call.group.ranks) == (number, ranks)
        assert float(call.payload_bytes) == pytest.approx(width * held / number, rel=1e-12)


@pytest.mark.parametrize(("experts_over", "shards", "copies"), [(2, 2, 2), (4, 1, 2), (8, 1, 1)])
def test_copies_of_shards_of_experts_are_among_their_own_ranks(experts_over: int, shards: int, copies: int) -> None:
    """8 GPUs over so many expert-parallel ranks have the same experts; two copies of them where there are two ranks."""
    of = work(sharding="hsdp", data_parallel_replicas=2, expert_parallel=experts_over)
    found = calls(of)
    assert found["reduce_gradients_of_experts"].group.ranks == shards
    assert found["gather_parameters_of_experts"].group.ranks == shards
    assert found["reduce_gradients_over_replicas_of_experts"].group.ranks == copies
    assert found["reduce_gradients_of_experts"].group.name == "expert_data_parallel_shards"
    assert found["reduce_gradients_over_replicas_of_experts"].group.name == "expert_data_parallel_replicas"
    assert expert_state_shards(of.layout, "optimizer") == shards


def test_states_of_experts_are_spread_over_fewer_ranks_than_the_others() -> None:
    """A fourth of a rank's experts and an eighth of the rest; with two copies half and a fourth."""
    copies: dict[str, Any] = {"sharding": "hsdp", "data_parallel_replicas": 2}
    for of, own, other in ((work(), 4, 8), (work(**copies), 2, 4)):
        held = of.stages.first.parameters
        assert owned_parameters(held, of.layout, "optimizer") == EXPERTS / own + SHARED / other


def test_stages_without_experts_neither_reduce_nor_gather_any() -> None:
    """Of one and of two pipeline stages: the first of two holds both dense layers."""
    kinds = MappingProxyType({"experts": LayerKind(feed_forward="experts"), "dense": LayerKind(feed_forward="dense")})
    mixed = replace(SMALL, layer_kinds=kinds, layer_pattern=("experts",), first_layers=("dense", "dense"))
    found = calls(
        work({"states.pipeline_split": "layers"}, mixed, pipeline_parallel=np.array([1, 2]), data_parallel=np.array([8, 4]))
    )
    assert np.broadcast_to(found["reduce_gradients_of_experts"].repeats, 2).tolist() == [50, 0]
    assert np.broadcast_to(found["gather_parameters_of_experts"].repeats, 2).tolist() == [50, 0]


def test_a_step_reads_and_writes_what_a_rank_owns() -> None:
    """Gradients are scaled and zeroed whole; of a share of them norm and Adam: 4 + 2 * 12 + 2 bytes a parameter."""
    owned = SHARED / 8 + EXPERTS / 4
    every = SHARED + EXPERTS
    assert moved(work()) == pytest.approx(
        {
            "scale_gradients": 2 * 4 * every,
            "gradient_norm": 4 * owned,
            "adam": (4 + 2 * 12 + 2) * owned,
            "zero_gradients": 4 * every,
        },
        rel=1e-12,
    )
    assert "zero_gradients" not in moved(work({"states.overwrites_gradients": True}))


def test_matrices_that_ranks_hold_whole_travel_with_the_norms() -> None:
    """Norms and routers of four layers and the last norm, 4 bytes a number; biases of what ends a part, where there are any."""
    plain = calls(work(tensor_parallel=2, data_parallel=4))["norm_gradients.all_reduce"]
    assert (plain.payload_bytes, plain.group.ranks) == (4 * (4 * (128 + 512) + 64), 2)
    biased = calls(work({}, replace(SMALL, biases=True), tensor_parallel=2, data_parallel=4))["norm_gradients.all_reduce"]
    assert biased.payload_bytes - plain.payload_bytes == 4 * 4 * 2 * 64
    assert "norm_gradients.all_reduce" not in calls(work(tensor_parallel=2, data_parallel=4, sequence_parallel=False))


NARROW: Final = 4 * (12_288 + 512 + 9_216)  # of linears of layers beside the experts


def test_weights_are_cast_whole_where_16_bits_are_gathered() -> None:
    """2 bytes read, one written and one of the transpose, of every linear of a layer; in four kernels a layer."""
    (cast,) = [op for op in work(precision="fp8").synchronisation if op.name == "optimizer.quantise_weights"]
    assert isinstance(cast, MemoryBound)
    assert (cast.moved_bytes, cast.kernels, cast.repeats) == ((2 + 2) * (NARROW + EXPERTS), 16, 1)


@pytest.mark.parametrize(("scaling", "reads"), [("delayed", 1), ("current", 2)])
def test_a_rank_casts_its_shard_where_copies_of_a_byte_are_gathered(scaling: str, reads: int) -> None:
    """fp32 masters of what it owns, experts among fewer ranks; then what came is transposed, a byte read and one written."""
    settings = {"low_precision.parameter_gather": True, "low_precision.scaling": scaling}
    of = work(settings, precision="fp8")
    owned = NARROW / 8 + EXPERTS / 4
    assert moved(of)["quantise_weights"] == pytest.approx(owned * (reads * 4 + 1) + 2 * (NARROW + EXPERTS), rel=1e-12)
    found = calls(of)
    assert float(found["gather_parameters"].payload_bytes * 122) == pytest.approx(NARROW + 2 * (SHARED - NARROW), rel=1e-12)
    assert float(found["gather_parameters_of_experts"].payload_bytes * 99) == pytest.approx(EXPERTS, rel=1e-12)


def test_two_stages_of_a_pipeline_gather_nothing_again() -> None:
    """Parameters stay where there are stages; without them every backward pass gathers, of each of four micro-batches."""
    for stages, times in ((1, 4 * 122), (2, 0)):
        found = calls(work(sharding="zero3", pipeline_parallel=stages, data_parallel=8 // stages, expert_parallel=1))
        again = found["gather_parameters_again"]
        assert again.repeats == (0 if times == 0 else 4 * float(work(sharding="zero3", expert_parallel=1).buckets.count))


def test_ranks_of_one_meet_nobody_beside_those_of_two() -> None:
    """An array of tensor-parallel degrees."""
    found = work(tensor_parallel=np.array([1, 2]), data_parallel=np.array([8, 4]), expert_parallel=1).meetings
    ranks, times = found["tensor_parallel"]
    assert np.asarray(ranks).tolist() == [1, 2]
    assert np.asarray(times)[0] == 0 < np.asarray(times)[1]


def test_a_step_launches_its_kernels_and_sums_one_number_over_all_gpus() -> None:
    """Two of the norm, four of Adam, one of each pass over the gradients; 4 bytes of the norm."""
    of = work()
    kernels = {op.name.removeprefix("optimizer."): op.kernels for op in of.synchronisation if isinstance(op, MemoryBound)}
    assert kernels == {"scale_gradients": 1, "gradient_norm": 2, "adam": 4, "zero_gradients": 1}
    norm = calls(of)["gradient_norm.all_reduce"]
    assert (norm.payload_bytes, norm.group.ranks, norm.kind) == (4, 8, "all_reduce")
