"""Experts are counted once: parameters, FLOPs, rows, messages and kept bytes of a mixture, on one rank of any expert mesh.

Symbols: T tokens of a rank between linears, k experts a token meets, E experts, e expert_parallel, t expert_tensor_parallel.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from perfmodel.count.data_parallel import expert_state_shards, owned_parameters, shards
from perfmodel.count.declarations import ExpertShards
from perfmodel.count.flops import model_flop_per_token
from perfmodel.count.iteration import Iteration, iteration
from perfmodel.count.memory.needed import stage_memory_bytes
from perfmodel.count.operators import Collective, Matmul, MemoryBound, Operator, model_flop, ranks_met
from perfmodel.count.parameters import active_parameter_count, low_precision_parameters, parameter_count, shard_parameter_count
from perfmodel.count.parts.experts import paired_share
from perfmodel.count.pipeline import in_flight
from perfmodel.count.roles import Role
from perfmodel.errors import InputError
from perfmodel.spec.layout import expert_data_parallel_group, expert_parallel_group
from perfmodel.spec.refusals import check_setup
from tests.count.mixtures import DEEPSEEK, PUBLISHED, SMALL, STACK, layout_of, mixture_setup, of_role
from tests.stacks import stack_with

WIDTH, EXPERTS, CHOSEN, FFN = 64, 8, 2, 32


def work_of(**settings: object) -> Iteration:
    """Count an iteration of the small mixture."""
    return iteration(mixture_setup(SMALL, layout_of(**settings)))


def forward(work: Iteration) -> tuple[Operator, ...]:
    """Take the forward operators of the only kind of layer."""
    (blocks,) = work.layers.values()
    return blocks.plain.forward


def expert_products(work: Iteration) -> list[Matmul]:
    """Take both forward products of routed experts."""
    return [op for op in of_role(forward(work), Role.EXPERT, Role.EXPERT_OUTPUT) if isinstance(op, Matmul)]


def test_parameters_of_a_layer_are_router_experts_and_shared_expert() -> None:
    """h*E of the router, 3*h*f of every expert and 3*h*f_s of the shared one."""
    count = parameter_count(SMALL)
    assert count.experts == SMALL.layers * EXPERTS * 3 * WIDTH * FFN
    assert count.mlp == SMALL.layers * (WIDTH * EXPERTS + 3 * WIDTH * 48)


def test_a_token_passes_as_many_experts_as_it_meets() -> None:
    """Active parameters leave out E - k experts of every layer."""
    idle = SMALL.layers * (EXPERTS - CHOSEN) * 3 * WIDTH * FFN
    assert active_parameter_count(SMALL) == parameter_count(SMALL).total - idle


def test_ranks_of_the_expert_mesh_hold_their_experts_and_columns() -> None:
    """E/e experts with a t-th of their columns; all else does not depend on it."""
    whole, part = (
        shard_parameter_count(SMALL, tensor_parallel=1, experts=each)
        for each in (ExpertShards(), ExpertShards(ranks=4, tensor=2))
    )
    assert part.experts * 8 == whole.experts
    assert part.shared == whole.shared


@pytest.mark.parametrize(("expert", "tensor"), [(1, 1), (8, 1), (4, 2), (2, 4)])
def test_model_flops_are_those_of_the_model_on_any_expert_mesh(expert: int, tensor: int) -> None:
    """What operators count adds up to the closed form, whoever holds the experts."""
    layout = layout_of(expert_parallel=expert, expert_tensor_parallel=tensor)
    work = iteration(mixture_setup(SMALL, layout))
    total = work.fold(model_flop) * layout.gpus
    assert total == pytest.approx(model_flop_per_token(SMALL, 128) * layout.tokens_per_iteration, rel=1e-12)


def test_padding_and_load_are_no_model_flops() -> None:
    """A busy rank computes more, and the model counts no more of it."""
    even, busy = (work_of(expert_parallel=8, expert_load=load) for load in (1.0, 1.5))
    assert busy.fold(model_flop) == pytest.approx(even.fold(model_flop), rel=1e-12)
    assert expert_products(busy)[0].rows == 1.5 * expert_products(even)[0].rows


@pytest.mark.parametrize(("expert", "tensor"), [(1, 1), (8, 1), (4, 2)])
def test_rows_of_an_expert_come_from_all_ranks_that_share_experts(expert: int, tensor: int) -> None:
    """T*k*e*t/E rows meet each of E/e experts on f/t of its columns."""
    first, last = expert_products(work_of(expert_parallel=expert, expert_tensor_parallel=tensor))
    assert first.rows == 128 * CHOSEN * expert * tensor / EXPERTS
    assert (first.batch, first.inner, first.columns) == (EXPERTS / expert, WIDTH, 2 * FFN / tensor)
    assert (last.batch, last.inner, last.columns) == (EXPERTS / expert, FFN / tensor, WIDTH)


def test_capacity_pads_every_expert() -> None:
    """A capacity factor is rows that are computed, dropped or padded."""
    padded = replace(SMALL, mixture=replace(SMALL.mixture, capacity_factor=1.25))  # type: ignore[type-var]
    first, _ = expert_products(iteration(mixture_setup(padded, layout_of(expert_parallel=8))))
    assert first.rows == 1.25 * 128 * CHOSEN * 8 / EXPERTS


def test_narrow_products_pad_rows_to_whole_blocks() -> None:
    """30 rows become 32 where products have 8 bits; in 16 bits they stay."""
    few = {"expert_parallel": 8, "sequence_length": 120, "micro_batch_size": 1}
    first, _ = expert_products(work_of(precision="mxfp8", **few))
    assert first.rows == 240
    first, _ = expert_products(work_of(precision="mxfp8", expert_parallel=1, sequence_length=120))
    assert first.rows == 32


def exchanges(work: Iteration, dispatcher: str) -> list[Collective]:
    """Take dispatch and combine, forwards."""
    del dispatcher
    return [op for op in of_role(forward(work), Role.DISPATCH, Role.COMBINE) if isinstance(op, Collective)]


@pytest.mark.parametrize(
    ("dispatcher", "kind"), [("alltoall", "all_to_all"), ("deepep", "token_exchange"), ("hybridep", "token_exchange")]
)
def test_copies_of_tokens_travel_to_their_experts_and_back(dispatcher: str, kind: str) -> None:
    """T*k*h*2 bytes each way over the ranks that share experts, forwards and backwards."""
    stack = stack_with(STACK, {"experts.dispatcher": dispatcher})
    work = iteration(mixture_setup(SMALL, layout_of(expert_parallel=8), stack))
    (blocks,) = work.layers.values()
    calls = [op for op in of_role(blocks.plain.operators, Role.DISPATCH, Role.COMBINE) if isinstance(op, Collective)]
    assert [call.kind for call in calls] == [kind] * 4
    assert {float(call.payload_bytes) for call in calls} == {128 * CHOSEN * WIDTH * 2.0}


def test_gathering_all_tokens_costs_what_all_ranks_have() -> None:
    """T*e*h*2 bytes gathered, and added up again."""
    stack = stack_with(STACK, {"experts.dispatcher": "allgather"})
    calls = exchanges(iteration(mixture_setup(SMALL, layout_of(expert_parallel=8), stack)), "allgather")
    assert [(call.kind, float(call.payload_bytes)) for call in calls] == [
        ("all_gather", 128 * 8 * WIDTH * 2.0),
        ("reduce_scatter", 128 * 8 * WIDTH * 2.0),
    ]


def test_ranks_that_share_each_expert_gather_what_any_of_them_got() -> None:
    """With t ranks, t times as many copies are gathered, and added up behind the experts."""
    calls = exchanges(work_of(expert_parallel=2, expert_tensor_parallel=4), "alltoall")
    kinds = [call.kind for call in calls if call.group.name == "expert_tensor_parallel"]
    assert kinds == ["all_gather", "reduce_scatter"]
    assert float(calls[1].payload_bytes) == 128 * CHOSEN * WIDTH * 2.0 * 4


def test_a_latent_mixture_sends_narrow_tokens() -> None:
    """Routed experts act on latent_size numbers: products, messages and parameters shrink with them."""
    latent = replace(SMALL, mixture=replace(SMALL.mixture, latent_size=16))  # type: ignore[type-var]
    work = iteration(mixture_setup(latent, layout_of(expert_parallel=8)))
    assert float(exchanges(work, "alltoall")[0].payload_bytes) == 128 * CHOSEN * 16 * 2.0
    assert parameter_count(latent).experts * 4 == parameter_count(SMALL).experts


def test_expert_ranks_are_neighbours_whatever_replica_they_belong_to() -> None:
    """The expert mesh lies on the GPUs of a pipeline stage, expert tensor parallelism inside."""
    layout = layout_of(data_parallel=8, tensor_parallel=4, expert_parallel=8, expert_tensor_parallel=2)
    assert (expert_parallel_group(layout).ranks, expert_parallel_group(layout).stride) == (8, 2)
    assert (expert_data_parallel_group(layout).ranks, expert_data_parallel_group(layout).stride) == (2, 16)
    assert layout.gpus == 32


def test_states_of_experts_are_spread_over_the_ranks_that_hold_the_same() -> None:
    """Where one rank holds each expert, nothing of its state is sharded."""
    layout = layout_of(expert_parallel=8)
    held = shard_parameter_count(SMALL, tensor_parallel=1, experts=ExpertShards(ranks=8))
    assert (shards(layout, "optimizer"), expert_state_shards(layout, "optimizer")) == (8, 1)
    assert owned_parameters(held, layout, "optimizer") == held.shared / 8 + held.experts


def test_gradients_of_experts_are_reduced_over_their_own_group() -> None:
    """A collective of their own for experts, over e times fewer ranks; all gradients travel once."""
    calls = [op for op in work_of(expert_parallel=4).synchronisation if isinstance(op, Collective)]
    reductions = [call for call in calls if call.role is Role.GRADIENT_REDUCTION]
    assert [(call.group.name, float(call.group.ranks)) for call in reductions] == [
        ("data_parallel_shards", 8.0),
        ("expert_data_parallel", 2.0),
    ]
    held = shard_parameter_count(SMALL, tensor_parallel=1, experts=ExpertShards(ranks=4))
    sent = [float(call.payload_bytes * call.repeats) for call in reductions]
    assert sent == pytest.approx([2 * held.shared, 2 * held.experts])


def test_experts_are_launched_one_by_one_on_streams() -> None:
    """A kernel for each expert, and all of an expert's casts; one for all where products are grouped."""
    grouped = stack_with(STACK, {"experts.products": "grouped"})
    for stack, kernels in ((STACK, EXPERTS / 2), (grouped, 1)):
        work = iteration(mixture_setup(SMALL, layout_of(expert_parallel=2, precision="mxfp8"), stack))
        assert {float(op.kernels) for op in expert_products(work)} == {kernels}
        casts = [
            op
            for op in of_role(forward(work), Role.CAST)
            if isinstance(op, MemoryBound) and "fc" in op.name and "shared" not in op.name
        ]
        assert {float(op.calls) for op in casts} == ({2 * kernels} if kernels > 1 else {1.0})


def test_fused_products_take_in_what_lies_between_them() -> None:
    """The activation function moves nothing of its own, and keeps what it kept."""
    fused = stack_with(STACK, {"experts.products": "fused"})
    apart, inside = (iteration(mixture_setup(SMALL, layout_of(expert_parallel=2), stack)) for stack in (STACK, fused))
    for work, moved in ((apart, 3.0), (inside, 0.0)):
        (function,) = of_role(forward(work), Role.EXPERT_ACTIVATION)
        assert isinstance(function, MemoryBound)
        assert float(function.moved_bytes) == moved * 2 * 128 * CHOSEN * FFN
        assert float(function.saved_bytes) == 4.0 * 128 * CHOSEN * FFN


def test_clamps_and_biases_behind_experts_take_eager_kernels() -> None:
    """Clamps and their joining, 8 passes before a function of 3, and 28 bytes of bias; a compiler has the function alone."""
    biased = replace(SMALL, biases=True)
    moved, moved_backwards = {}, {}
    for fuses in (False, True):
        stack = stack_with(STACK, {"experts.fused_biases": fuses})
        (blocks,) = iteration(mixture_setup(biased, layout_of(expert_parallel=2), stack)).layers.values()
        forwards, backwards = (
            [op for op in operators if isinstance(op, MemoryBound) and op.role in (Role.EXPERT_ACTIVATION, Role.EXPERT_OUTPUT)]
            for operators in (blocks.plain.forward, blocks.plain.backward)
        )
        moved[fuses] = sum(float(op.moved_bytes) for op in forwards)
        moved_backwards[fuses] = sum(float(op.moved_bytes) for op in backwards)
    numbers, results = 128 * CHOSEN * FFN, 128 * CHOSEN * WIDTH
    assert moved[False] - moved[True] == 8 * 2 * numbers + 28 * results
    assert moved_backwards[False] - moved_backwards[True] == (6 + 4) * 2 * numbers + 40 * results


@pytest.mark.parametrize(("activation", "forwards", "backwards"), [("swiglu", 3, 5 + 3), ("squared_relu", 2, 3 + 2)])
def test_weighing_an_activation_reads_it_again_backwards(activation: str, forwards: int, backwards: int) -> None:
    """One kernel makes function and weights; the gradient of the weights reads input and gradient once more, in another."""
    model = replace(SMALL, activation=activation)
    (blocks,) = iteration(mixture_setup(model, layout_of(expert_parallel=8))).layers.values()
    (one,) = of_role(blocks.plain.forward, Role.EXPERT_ACTIVATION)
    (other,) = of_role(blocks.plain.backward, Role.EXPERT_ACTIVATION)
    assert isinstance(one, MemoryBound)
    assert isinstance(other, MemoryBound)
    numbers = 128 * CHOSEN * FFN
    assert (float(one.moved_bytes), float(other.moved_bytes)) == (2 * forwards * numbers, 2 * backwards * numbers)
    assert (one.kernels, other.kernels) == (1, 2)


def test_layers_that_predict_further_come_with_a_head_of_their_own() -> None:
    """DeepSeek-V3's multi-token layer: 11.61e9 parameters beside its embedding, and the FLOPs that NVIDIA prints."""
    alone = replace(DEEPSEEK, multi_token_layers=0)
    more = float(parameter_count(DEEPSEEK).total - parameter_count(alone).total)
    assert more == pytest.approx(11.61e9, rel=0.003)
    with_it, without = (model_flop_per_token(model, 4096, convention="causal") / 1e9 for model in (DEEPSEEK, alone))
    assert (float(with_it), float(without)) == pytest.approx((260.0, 249.7), rel=0.001)


def test_memory_of_deepseek_is_what_nvidia_prints() -> None:
    """arXiv:2603.07685, table 3: 32.1 GB of optimizer states over the stages' mean, 131.0 GB of activations on the first.

    Its weights and gradients (36.4 GB) lie between 4 and 6 bytes a parameter, which the source does not resolve.
    """
    work = iteration(mixture_setup(DEEPSEEK, PUBLISHED))
    stages = [stage_memory_bytes(work, stage) for stage in work.stages]
    counts = np.array([1, 2, 1])
    optimizer = float(np.dot(counts, [float(stage.optimizer_bytes) for stage in stages]) / 4)
    assert optimizer == pytest.approx(32.1e9, rel=0.02)
    assert float(stages[0].activations_bytes) == pytest.approx(131.0e9, rel=0.05)


def test_layers_in_flight_on_the_first_stage_are_those_of_the_published_account() -> None:
    """arXiv:2603.07685, table 4: 26.3 GB of experts' outputs are 56 of 0.47 GB; counted are 4.75 micro-batches of 13."""
    keeping = stack_with(STACK, {"experts.keeps_outputs": True})
    work = iteration(mixture_setup(DEEPSEEK, PUBLISHED, keeping))
    first = work.stages.first
    (outputs,) = [op for op in of_role(work.layers["experts"].plain.forward, Role.EXPERT_OUTPUT) if isinstance(op, MemoryBound)]
    held = in_flight(work.layout, first) * first.held.every["experts"] * outputs.saved_bytes
    assert float(held) == pytest.approx(26.3e9, rel=0.12)


@pytest.mark.parametrize(("stages", "virtual", "share"), [(1, 1, 1 - 1 / 32), (4, 1, 1 - 2.5 / 32), (4, 2, 1 - 8 / 64)])
def test_passes_without_a_partner_hide_nothing(stages: int, virtual: int, share: float) -> None:
    """The first forward and the last backward passes run alone."""
    layout = layout_of(pipeline_parallel=stages, virtual_pipeline=virtual, data_parallel=1)
    assert float(paired_share(layout)) == pytest.approx(share)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"expert_parallel": 3}, "expert_parallel"),
        ({"expert_parallel": 8, "expert_tensor_parallel": 2}, "expert_parallel"),
        ({"expert_tensor_parallel": 64}, "expert_tensor_parallel"),
        ({"tensor_parallel": 2, "sequence_parallel": False}, "sequence_parallel"),
        ({"recompute_modules": ("moe",)}, "recompute_modules"),
    ],
)
def test_an_expert_mesh_that_cannot_be_is_refused(settings: dict[str, object], key: str) -> None:
    """Degrees that do not divide, tokens that no rank owns, modules of no recompute."""
    with pytest.raises(InputError) as caught:
        check_setup(mixture_setup(SMALL, layout_of(**settings)))
    assert caught.value.key == key


def test_a_dense_model_has_no_experts_to_share() -> None:
    """Its expert_parallel is 1."""
    with pytest.raises(InputError, match="has none"):
        check_setup(mixture_setup(replace(SMALL, mixture=None), layout_of(expert_parallel=2)))


def test_no_rank_is_busier_than_all_of_them_together() -> None:
    """The busiest of e ranks has e times the mean at most: one rank that holds all experts has the mean."""
    alone, two = (work_of(expert_parallel=ranks, expert_load=4.0) for ranks in (1, 2))
    assert expert_products(alone)[0].rows == 128 * CHOSEN / EXPERTS
    assert expert_products(two)[0].rows == 2 * (2 * 128 * CHOSEN / EXPERTS)


def test_a_capacity_holds_whatever_the_load() -> None:
    """Experts take what they are padded to, and drop what is beyond."""
    padded = replace(SMALL, mixture=replace(SMALL.mixture, capacity_factor=1.25))  # type: ignore[type-var]
    rows = {
        float(expert_products(iteration(mixture_setup(padded, layout_of(expert_parallel=8, expert_load=load))))[0].rows)
        for load in (1.0, 3.0)
    }
    assert rows == {1.25 * 128 * CHOSEN * 8 / EXPERTS}


@pytest.mark.parametrize(
    ("products", "parts"),
    [
        ("mlp", ("mlp", "experts")),
        ("layer", ("attention", "mlp", "experts")),
        ("all", ("attention", "mlp", "experts", "head")),
    ],
)
def test_linears_in_low_precision_are_those_of_the_parts_that_a_stack_names(products: str, parts: tuple[str, ...]) -> None:
    """Experts are MLPs: of DeepSeek-V3 they hold most of the numbers whose operands are narrow."""
    setup = mixture_setup(DEEPSEEK, layout_of(precision="fp8"), stack_with(STACK, {"low_precision.products": products}))
    held = shard_parameter_count(DEEPSEEK, tensor_parallel=1)
    assert float(low_precision_parameters(held, setup)) == pytest.approx(sum(float(getattr(held, part)) for part in parts))
    assert all(float(getattr(held, part)) > 0 for part in parts)


def test_a_token_of_one_expert_goes_to_one_rank() -> None:
    """However many there are; copies for 8 experts that keep to no groups go to n * (1 - (1 - 1/n)^8) of n ranks."""
    group = expert_parallel_group(layout_of(expert_parallel=16))
    once = Collective(name="dispatch", kind="token_exchange", payload_bytes=1e6, group=group)
    for ranks in (2, 16, 64):
        assert ranks_met(once, ranks) == pytest.approx(1.0)
        assert ranks_met(replace(once, copies=8), ranks) == pytest.approx(ranks * (1 - (1 - 1 / ranks) ** 8))
    assert once.wire_bytes == pytest.approx(1e6 * 15 / 16)


def test_groups_share_the_experts_evenly() -> None:
    """Seven groups of eight experts are refused."""
    with pytest.raises(InputError, match="do not divide"):
        replace(SMALL.mixture, groups=7)  # type: ignore[type-var]


def test_rows_are_sorted_only_where_a_rank_has_several_experts() -> None:
    """Of layouts with one expert a rank and with two, each as it is alone: nothing moves where there is nothing to sort."""
    expert_parallel = np.array([4, 8])
    together = moved(work_of(expert_parallel=expert_parallel))
    alone = [moved(work_of(expert_parallel=int(each))) for each in expert_parallel]
    assert {name for name in together if name.endswith("sort")}
    for name, both in together.items():
        expected = [each.get(name, 0.0) for each in alone]
        assert np.broadcast_to(both, (2,)).tolist() == pytest.approx(expected), name


def moved(work: Iteration) -> dict[str, Any]:
    """What each permutation of a layer reads and writes."""
    return {op.name: op.moved_bytes for op in of_role(forward(work), Role.PERMUTE) if isinstance(op, MemoryBound)}
