"""Does the schedule hide what it may, expose what it must, and add up?"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel.count.iteration import iteration
from perfmodel.count.operators import Collective, MemoryBound
from perfmodel.exchange.presets import cluster_preset, model_preset, stack_preset
from perfmodel.prediction import predict_stage
from perfmodel.spec.phases import OPTIMIZER
from perfmodel.spec.stack import SoftwareStack
from perfmodel.timing.breakdown import Breakdown
from perfmodel.timing.collectives import collective_time_s
from perfmodel.timing.kernels import at_cluster_load, kernel_time_s
from perfmodel.timing.ledger import seconds_of_a_gpu
from perfmodel.timing.pipeline import StageSeconds
from perfmodel.timing.schedule import mean_waiting_s, optimizer_steps
from tests.counted import counted, named, predicted
from tests.layouts import RAMP_STAGE
from tests.setups import setup_of
from tests.stacks import stack_with

MODEL = model_preset("nemotron-4-15b")
CLUSTER = cluster_preset("dgx-h100")
CORE = stack_preset("megatron-core")


def parts(stack: SoftwareStack = CORE, **changes: Any) -> Breakdown:
    """The breakdown of the first ramp stage, or of a changed one."""
    return predict_stage(setup_of(MODEL, replace(RAMP_STAGE, **changes), stack, cluster=CLUSTER)).breakdown


PIPELINES = [
    {},
    {"pipeline_parallel": 2},
    {"pipeline_parallel": 8},
    {"pipeline_parallel": 3},  # stages of 11, 11 and 10 layers
    {"pipeline_parallel": 4, "virtual_pipeline": 2},
    {"pipeline_parallel": 2, "virtual_pipeline": 16},
    *({"pipeline_parallel": 4, "pipeline_schedule": schedule} for schedule in ("zb-h1", "zb-1p", "zb-2p")),
]
SHARDED = [{"sharding": each} for each in ("none", "zero1", "zero2", "zero3")]
RECOMPUTED = [{"recompute": each} for each in ("none", "selective", "full")]


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(["megatron-core", "megatron-lm", "ideal", "torchtitan", "generic"]),
    st.sampled_from([1, 2, 8]),
    st.sampled_from([1, 8, 96]),
    st.sampled_from([1, 2]),
    st.sampled_from([1, 4]),
    st.sampled_from(PIPELINES),
    st.sampled_from([*SHARDED, {"sharding": "hsdp", "data_parallel_replicas": 2}]),
    st.sampled_from([*RECOMPUTED, {"recompute": "full", "recompute_layers": 1}]),
    st.booleans(),
    st.sampled_from(["bf16", "fp8"]),
)
def test_the_parts_sum_to_the_iteration(
    stack: str,
    tensor: int,
    data: int,
    micro: int,
    context: int,
    pipeline: dict[str, Any],
    sharding: dict[str, Any],
    recompute: dict[str, Any],
    sequence_parallel: bool,
    precision: str,
) -> None:
    """And none of them is negative, whatever the layout."""
    layout = replace(RAMP_STAGE, tensor_parallel=tensor, data_parallel=data, micro_batch_size=micro, context_parallel=context)
    layout = replace(layout, **pipeline, **recompute, sequence_parallel=sequence_parallel, precision=precision)
    if data > 1 or "data_parallel_replicas" not in sharding:
        layout = replace(layout, **sharding)
    predicted = predict_stage(
        setup_of(MODEL, replace(layout, global_batch_size=8 * micro * data), stack_preset(stack), cluster=CLUSTER)
    )
    values = [float(seconds) for _, seconds in predicted.breakdown.items()]
    assert sum(values) == pytest.approx(float(predicted.iteration_time_s), rel=1e-12)
    assert min(values) >= 0


def test_only_the_axes_of_a_layout_are_exposed() -> None:
    """No messages without stages, no exchange without ranks of a sequence, no bubble in one stage."""
    waiting = ("context_parallel_exposed_s", "pipeline_parallel_exposed_s", "pipeline_bubble_s")
    core = stack_with(
        CORE,
        {
            "overlap.balanced_context_parallel": True,
            "overlap.context_parallel_exchange": "all_gather",
            "overlap.pipeline": False,
        },
    )
    for changes, present in (({}, ()), ({"context_parallel": 2}, waiting[:1]), ({"pipeline_parallel": 4}, waiting[1:])):
        found = parts(core, **changes)
        assert tuple(part for part in waiting if getattr(found, part) > 0) == present


def test_the_ideal_stack_exposes_nothing() -> None:
    """A bound: no communication, no lost SMs, no launches, on whatever axes; a pipeline still fills and drains."""
    layout = {"context_parallel": 2, "pipeline_parallel": 4, "sharding": "zero3"}
    ideal = parts(stack_with(stack_preset("ideal"), {"host.launch_s": 0.0}), **layout)
    exposed = [getattr(ideal, f"{axis}_parallel_exposed_s") for axis in ("tensor", "context", "pipeline", "data")]
    assert exposed == [0] * 4
    assert ideal.communication_slowdown_s == ideal.launch_s == 0
    assert ideal.pipeline_bubble_s > 0


def test_no_parallelism_needs_no_communication() -> None:
    """One GPU."""
    alone = parts(tensor_parallel=1, data_parallel=1, global_batch_size=4)
    assert alone.tensor_parallel_exposed_s == alone.data_parallel_exposed_s == 0


def test_more_overlap_is_never_slower() -> None:
    """None, backward, pipelined, everything."""
    modes = [stack_with(CORE, {"overlap.tensor_parallel": mode}) for mode in ("none", "backward", "pipelined")]
    times = [parts(stack).total_s for stack in [*modes, stack_with(CORE, {"overlap.hide_all": True})]]
    assert times == sorted(times, reverse=True)


def test_a_slow_host_makes_a_small_micro_batch_wait() -> None:
    """A millisecond a kernel: the launches decide."""
    slow = parts(stack_with(CORE, {"host.launch_s": 1e-3}))
    assert slow.launch_s > 0.5 * slow.total_s
    assert parts(stack_with(CORE, {"host.launch_s": 0.0})).launch_s == 0


@pytest.mark.parametrize("host_s", [6e-6, 1e-3])
def test_unlisted_work_is_a_share_of_both_passes(host_s: float) -> None:
    """(u - 1) times all that a pass takes, waiting for launches too; nothing of the optimizer, nothing at u = 1."""
    alone = {"data_parallel": 1, "global_batch_size": 4}  # else a longer pass hides more of the reduction
    listed, more = (
        parts(stack_with(CORE, {"host.launch_s": host_s, "host.unlisted_work": work}), **alone) for work in (1.0, 1.25)
    )
    assert listed.unlisted_s == 0
    assert more.unlisted_s == pytest.approx(0.25 * (listed.total_s - listed.optimizer_s))
    assert more.total_s - more.unlisted_s == pytest.approx(listed.total_s)
    assert more.optimizer_s == listed.optimizer_s


def test_gradients_that_are_added_by_kernels_of_their_own_take_longer() -> None:
    """Memory-bound work grows by them; products lose the factor of adding to fp32."""
    steady = replace(CLUSTER, gpu=replace(CLUSTER.gpu, full_load_slowdown=0.0))  # else a lower duty raises the clocks
    stacks = [stack_with(CORE, {"states.gradient_bytes": 4, "fusion.gradient_accumulation": each}) for each in (True, False)]
    fused, apart = (predict_stage(setup_of(MODEL, RAMP_STAGE, stack, cluster=steady)).breakdown for stack in stacks)
    assert apart.memory_bound_s > fused.memory_bound_s
    assert apart.matmul_s < fused.matmul_s
    assert apart.attention_s == fused.attention_s


def test_tensor_parallelism_over_two_nodes_has_all_their_nics() -> None:
    """16 ranks: with one NIC a node instead of eight the exposed traffic is about eight times as long."""
    plain = stack_with(CORE, {"overlap.tensor_parallel": "none"})
    layout = replace(RAMP_STAGE, tensor_parallel=16, data_parallel=1, global_batch_size=4, micro_batch_size=4)
    all_nics, one_nic = (
        predict_stage(
            setup_of(MODEL, layout, plain, cluster=replace(CLUSTER, nics_per_node=nics))
        ).breakdown.tensor_parallel_exposed_s
        for nics in (8, 1)
    )
    assert 5 < one_nic / all_nics < 8


def test_full_recompute_adds_about_a_third_of_the_layers_work() -> None:
    """The forward pass runs again: products, attention and collectives."""
    none, full = parts(), parts(recompute="full")
    assert 1.25 < full.matmul_s / none.matmul_s < 1.34
    assert full.tensor_parallel_exposed_s > none.tensor_parallel_exposed_s


@pytest.mark.parametrize(("stages", "virtual", "batches"), [(4, 2, 8), (8, 4, 16)])
def test_interleaved_stages_in_step_wait_for_every_message(stages: int, virtual: int, batches: int) -> None:
    """2*(m*v + p - 2) messages of b*s*h numbers, each over the network."""
    layout = replace(RAMP_STAGE, pipeline_parallel=stages, virtual_pipeline=virtual, data_parallel=1, global_batch_size=batches)
    stack = stack_with(CORE, {"overlap.pipeline": False})
    send = named(counted(MODEL, layout, stack), "pipeline.send_activations", Collective)
    waited_s = 2 * (batches * virtual + stages - 2) * collective_time_s(send, cluster=CLUSTER)
    found = predicted(MODEL, CLUSTER, stack, layout).breakdown
    assert found.pipeline_parallel_exposed_s == pytest.approx(waited_s, rel=1e-9)


def test_collectives_take_sms_by_the_links_they_cross() -> None:
    """Those of node links wherever a step stays in a node; those of the network where each rank has a node of its own."""
    inside = parts(tensor_parallel=1, data_parallel=8, global_batch_size=32)
    narrow = parts(
        stack_with(CORE, {"overlap.node_link_sm_fraction": 0.0}), tensor_parallel=1, data_parallel=8, global_batch_size=32
    )
    assert inside.communication_slowdown_s > narrow.communication_slowdown_s == 0
    both = parts(
        stack_with(CORE, {"overlap.network_sm_fraction": 0.0}), tensor_parallel=1, data_parallel=16, global_batch_size=64
    )
    assert both.communication_slowdown_s > 0
    whole = {"tensor_parallel": 8, "data_parallel": 2, "global_batch_size": 8}
    ring = [
        parts(stack_with(CORE, {"overlap.network_sm_fraction": share}), **whole).communication_slowdown_s
        for share in (0.0, 0.1)
    ]
    assert ring[0] < ring[1]


@pytest.mark.parametrize(("launch_s", "host_scale"), [(0.0, 1.0), (1.0, 1.0), (1.0, 1.5)])
def test_the_optimizer_waits_for_the_cpu_to_launch_its_kernels(launch_s: float, host_scale: float) -> None:
    """H * launch_s for each kernel where that is longer; collectives are not kernels of the step."""
    stack = stack_with(CORE, {"host.launch_s": launch_s})
    work = iteration(setup_of(MODEL, RAMP_STAGE, stack))
    cluster = replace(CLUSTER, host_scale=host_scale)
    for step in optimizer_steps(work, cluster, stack):
        if isinstance(step.operator, MemoryBound):
            kernels = float(step.operator.repeats * step.operator.kernels)
            own_s = float(step.operator.repeats * kernel_time_s(step.operator, cluster=cluster, stack=stack))
            assert step.free_s == (host_scale * kernels * launch_s or own_s)


def test_what_a_step_repeats_is_launched_as_often() -> None:
    """Three times two kernels: six launches, where the GPU needs no time for them."""
    stack = stack_with(CORE, {"host.launch_s": 1.0})
    (one,) = (op for op in iteration(setup_of(MODEL, RAMP_STAGE, stack)).synchronisation if op.name == "optimizer.adam")
    assert isinstance(one, MemoryBound)
    work: Any = SimpleNamespace(synchronisation=(replace(one, repeats=3, kernels=2),))
    (step,) = optimizer_steps(work, CLUSTER, stack)
    assert step.free_s == 6.0 * CLUSTER.host_scale


@pytest.mark.parametrize("changes", [{"pipeline_parallel": 4}, {"pipeline_parallel": 3}, {"pipeline_parallel": 8}])
def test_stages_wait_on_average_for_all_that_they_do_not_run(changes: dict[str, Any]) -> None:
    """The iteration less its optimizer step and what a GPU runs of the passes, on average over the stages."""
    nothing = {f"host.{name}": 0.0 for name in ("operator_s", "launch_s", "pass_s", "iteration_s")}
    bare = stack_with(CORE, {"overlap.hide_all": True, "host.unlisted_work": 1.0} | nothing)
    steady = replace(CLUSTER, gpu=replace(CLUSTER.gpu, full_load_slowdown=0.0))
    setup = setup_of(MODEL, replace(RAMP_STAGE, **changes), bare, cluster=steady)
    predicted = predict_stage(setup)
    busy_s = sum(
        float(seconds)
        for operator, seconds in seconds_of_a_gpu(predicted.work, gpus=setup.layout.gpus, cluster=steady, stack=bare)
        if operator.phase != OPTIMIZER and not isinstance(operator, Collective)
    )
    waiting_s = float(mean_waiting_s(predicted.work, cluster=at_cluster_load(steady, setup.layout.gpus), stack=bare))
    assert waiting_s > 0
    assert waiting_s == pytest.approx(float(predicted.breakdown.total_s - predicted.breakdown.optimizer_s) - busy_s)


def test_seconds_of_stages_add_and_stretch_part_by_part() -> None:
    """Forward, backward and weight gradients, each on its own."""
    one, other = (StageSeconds(forward_s=a, backward_s=b, weight_s=c) for a, b, c in ((1.0, 2.0, 4.0), (8.0, 16.0, 32.0)))
    assert one + other == StageSeconds(forward_s=9.0, backward_s=18.0, weight_s=36.0)
    assert other - one == StageSeconds(forward_s=7.0, backward_s=14.0, weight_s=28.0)
    assert one * 3.0 == StageSeconds(forward_s=3.0, backward_s=6.0, weight_s=12.0)
    assert one.total_s == 7.0
