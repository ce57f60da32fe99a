"""What one operator takes, hides and costs the CPU, and what a pass makes of them, in numbers by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from perfmodel.count.iteration import iteration
from perfmodel.count.layer_numbers import LayerNumbers
from perfmodel.count.operators import Collective, FusedAttention, Matmul, MemoryBound, Operator
from perfmodel.count.roles import Role
from perfmodel.exchange.presets import cluster_preset, model_preset, stack_preset
from perfmodel.spec.axes import EXPERT, TENSOR, Axis
from perfmodel.spec.layout import ProcessGroup
from perfmodel.spec.phases import DATA_GRADIENT, FORWARD, RECOMPUTE, WEIGHT_GRADIENT
from perfmodel.timing.breakdown import Breakdown
from perfmodel.timing.collectives import collective_time_s, placement
from perfmodel.timing.kernels import kernel_time_s
from perfmodel.timing.passes import Direction
from perfmodel.timing.timed_operators import (
    HostSeconds,
    Pass,
    TimedOperator,
    added_up,
    expert_time_s,
    hidden_beside_passes,
    host_seconds,
    sm_fraction,
    timed_blocks,
)
from tests.layouts import RAMP_STAGE
from tests.setups import setup_of
from tests.stacks import stack_with

CLUSTER = cluster_preset("dgx-h100")
STACK = stack_with(
    stack_preset("megatron-core"),
    {
        "host.operator_s": 1.0,
        "host.launch_s": 0.01,
        "host.cuda_graphs": False,
        "experts.expert_wait_s": 100.0,
        "experts.dispatch_s": 7.0,
        "experts.link_share": 0.5,
        "experts.product_work": 3.0,
        "experts.movement_work": 5.0,
        "experts.dispatch_sm_fraction": 0.2,
        "experts.hidden_share": 0.5,
        "fusion.scan_work": 2.0,
        "fusion.delta_rule_work": 4.0,
        "fusion.scan_step_s": 0.25,
        "overlap.hide_all": False,
        "overlap.tensor_parallel": "pipelined",
        "overlap.independent": True,
        "overlap.node_link_sm_fraction": 0.2,
        "overlap.network_sm_fraction": 0.1,
    },
)


def product(name: str = "fc1", **settings: Any) -> Matmul:
    """A large product."""
    plain: dict[str, Any] = {"name": name, "rows": 8192, "columns": 8192, "inner": 8192, "precision": "bf16"}
    return Matmul(**(plain | settings))


def moves(**settings: Any) -> MemoryBound:
    """A kernel that moves a megabyte."""
    plain: dict[str, Any] = {"name": "norm", "moved_bytes": 1e6}
    return MemoryBound(**(plain | settings))


def call(ranks: int = 8, axis: Axis = TENSOR, payload: float = 1e8, **settings: Any) -> Collective:
    """A gather over neighbours."""
    group = ProcessGroup(name=axis.name, ranks=ranks, stride=1, axis=axis)
    plain: dict[str, Any] = {"name": "gather", "kind": "all_gather", "payload_bytes": payload, "group": group}
    return Collective(**(plain | settings))


def attention() -> FusedAttention:
    """One head."""
    return FusedAttention(
        name="core", sequences=1, heads=1, kv_heads=1, head_size=64, query_length=64, key_length=64, precision="bf16"
    )


@pytest.mark.parametrize(
    ("operator", "calls", "kernels"),
    [
        (product(repeats=3, kernels=2), 3, 6),
        (product(kernels=0), 1, 0),
        (moves(repeats=2, kernels=5, calls=4), 8, 10),
        (moves(kernels=0, calls=4), 0, 0),
        (attention(), 1, 1),
        (call(repeats=4), 0, 4),
        (call(ranks=1), 0, 0),
        (moves(kernels=5, replayed=True), 0, 0),
    ],
)
def test_the_cpu_runs_code_for_each_call_and_launches_each_kernel(operator: Operator, calls: int, kernels: int) -> None:
    """A second for each, and a hundredth; messages have no code, groups of one no kernel, graphs neither."""
    alone = host_seconds([operator], STACK)
    assert (alone.launch_s, alone.wait_s) == pytest.approx((calls + 0.01 * kernels, 0.0))
    together = host_seconds([operator, product()], STACK)
    assert together.launch_s == pytest.approx(calls + 1 + 0.01 * (kernels + 1))


@pytest.mark.parametrize(("phase", "waits"), [(FORWARD, 2), (RECOMPUTE, 2), (DATA_GRADIENT, 0)])
def test_the_cpu_waits_for_the_number_of_tokens_before_it_launches_experts(phase: str, waits: int) -> None:
    """At every dispatch that is not a gradient's, and at no gather of ranks that share an expert."""
    dispatch = call(axis=EXPERT, role=Role.DISPATCH, repeats=2, phase=phase)
    assert host_seconds([dispatch], STACK).wait_s == 100 * waits
    assert host_seconds([dispatch, dispatch], STACK).wait_s == 2 * 100 * waits
    assert host_seconds([call(role=Role.DISPATCH), call(axis=EXPERT, role=Role.COMBINE)], STACK).wait_s == 0
    replayed = stack_with(STACK, {"host.cuda_graphs": True})
    assert host_seconds([dispatch, moves()], replayed) == HostSeconds(0.0, 0.0)


def test_a_kernel_of_which_nothing_else_is_said_is_called_and_launched_once() -> None:
    """The CPU runs the code around it, then launches it."""
    assert host_seconds([moves(repeats=3)], STACK).launch_s == pytest.approx(3 * (STACK.host.operator_s + STACK.host.launch_s))


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        (call(role=Role.DISPATCH), 7 + 10 / 0.5),
        (call(role=Role.COMBINE), 7 + 10 / 0.5),
        (call(ranks=1, role=Role.DISPATCH), 0),
        (call(), 10),
        (product(role=Role.EXPERT), 3 * 10),
        (product(role=Role.EXPERT_OUTPUT), 3 * 10),
        (product(role=Role.SHARED_EXPERT), 10),
        (moves(role=Role.PERMUTE), 5 * 10),
        (moves(role=Role.EXPERT_ACTIVATION), 5 * 10),
        (moves(role=Role.EXPERT_OUTPUT), 5 * 10),
        (moves(role=Role.EXPERT), 10),
        (attention(), 10),
        (product(role=Role.SCAN), 2 * 6 * 10),
        (moves(role=Role.DELTA_RULE, chained=8), 4 * 6 * 10 + 8 * 0.25),
    ],
)
def test_what_runs_on_copies_of_tokens_or_scans_takes_longer_by_a_factor(operator: Operator, expected: float) -> None:
    """Links are shared and begin late; a chain of steps adds what each waits for the one before."""
    gpu = replace(CLUSTER.gpu, kernels=replace(CLUSTER.gpu.kernels, scan=replace(known_scan(), work=6.0)))
    assert float(expert_time_s(operator, 10.0, STACK, gpu)) == pytest.approx(expected)


def known_scan() -> Any:
    """What is known of scans on an H100."""
    scan = CLUSTER.gpu.kernels.scan
    assert scan is not None
    return scan


@pytest.mark.parametrize(("longer", "fits"), [(1.0, 1.0), (10.0, 13 / 0.8 / 100)])
def test_messages_beside_another_micro_batch_hide_what_its_kernels_leave_room_for(longer: float, fits: float) -> None:
    """Kernels of 3 and 2 * 5 seconds, less a fifth of the SMs; half of the passes have a partner, half of that is hidden."""
    timed = [
        TimedOperator(operator=product(), free_s=3.0),
        TimedOperator(operator=call(beside_passes=0.5), free_s=4.0 * longer),
        TimedOperator(operator=attention(), free_s=5.0, longer=2.0),
        TimedOperator(operator=call(beside_passes=0.25), free_s=6.0 * longer),
        TimedOperator(operator=call(), free_s=1000.0),
    ]
    found = hidden_beside_passes(timed, STACK)
    hidden = [each.hidden_s for each in found]
    assert hidden == pytest.approx([0, 4 * longer * 0.5 * 0.5 * fits, 0, 6 * longer * 0.25 * 0.5 * fits, 0])
    assert [each.sm_fraction for each in found] == [0, 0.2, 0, 0.2, 0]
    everything = hidden_beside_passes(timed, stack_with(STACK, {"overlap.hide_all": True}))
    assert [each.hidden_s for each in everything] == [0, 4 * longer, 0, 6 * longer, 0]


def test_messages_that_take_nothing_hide_nothing() -> None:
    """Of groups of one rank."""
    timed = [TimedOperator(operator=product(), free_s=3.0), TimedOperator(operator=call(1, beside_passes=0.5), free_s=0.0)]
    assert [each.hidden_s for each in hidden_beside_passes(timed, STACK)] == [0, 0]


def hidden_s(collective: Collective, settings: dict[str, Any] | None = None) -> tuple[float, float]:
    """What of a collective hides beside a product called fc1, and the share of the SMs that it takes."""
    (timed,), _ = timed_blocks([[product(), collective]], CLUSTER, stack_with(STACK, settings or {}))
    return float(timed[1].hidden_s), float(timed[1].sm_fraction)


BESIDE: dict[str, Any] = {"partner": ("fc1", FORWARD)}


def test_a_collective_hides_as_long_as_its_product_takes_on_the_sms_that_it_leaves() -> None:
    """All of a short one; of a long one g / (1 - f); cut into pieces for 8 ranks seven eighths of either."""
    product_s = float(kernel_time_s(product(), cluster=CLUSTER, stack=STACK))
    for payload, alone in ((1e6, True), (1e10, False)):
        for pipelined, share in ((False, 1.0), (True, 7 / 8)):
            collective = call(payload=payload, pipelined=pipelined, **BESIDE)
            long_s = float(collective_time_s(collective, cluster=CLUSTER))
            expected = share * (long_s if alone else product_s / 0.8)
            assert hidden_s(collective) == pytest.approx((expected, 0.2), rel=1e-12)
            assert (long_s < product_s) == alone


def test_what_copy_engines_move_takes_no_sms() -> None:
    """The product beside it is as fast as without."""
    product_s = float(kernel_time_s(product(), cluster=CLUSTER, stack=STACK))
    found = hidden_s(call(payload=1e11, pipelined=True, stepwise=True, **BESIDE))
    assert found == pytest.approx((7 / 8 * product_s, 0), rel=1e-12)


@pytest.mark.parametrize(
    ("settings", "mode", "independent", "hides"),
    [
        ({"pipelined": True}, "pipelined", True, True),
        ({"pipelined": True}, "backward", True, False),
        ({"pipelined": True}, "none", True, False),
        ({"pipelined": False}, "pipelined", True, True),
        ({"pipelined": False}, "pipelined", False, False),
        ({"pipelined": False}, "backward", True, True),
        ({"pipelined": False}, "none", True, False),
        ({"partner": ("", "")}, "pipelined", True, False),
        ({"partner": ("fc2", FORWARD)}, "pipelined", True, False),
        ({"axis": EXPERT}, "none", False, True),
    ],
)
def test_software_hides_what_it_overlaps(settings: dict[str, Any], mode: str, independent: bool, hides: bool) -> None:
    """Pieces where it cuts products, others where it overlaps any; calls of other axes wherever a kernel runs beside them."""
    stack = {"overlap.tensor_parallel": mode, "overlap.independent": independent}
    found, _ = hidden_s(call(payload=1e6, **(BESIDE | settings)), stack)
    assert (found > 0) == hides


@pytest.mark.parametrize(
    ("ranks", "stride", "fraction"), [(8, 1, 0.2), (16, 1, 0.2), (16, 8, 0.1), (16, 4, 0.2), (1, 1, 0.2), (2, 8, 0.1)]
)
def test_only_groups_with_one_rank_in_each_of_several_nodes_leave_the_links_of_nodes_alone(
    ranks: int, stride: int, fraction: float
) -> None:
    """They take the share of SMs that the network needs."""
    where = placement(ProcessGroup(name="any", ranks=ranks, stride=stride), CLUSTER)
    assert float(sm_fraction(where, STACK)) == fraction


def test_a_pass_adds_up_what_is_exposed_and_what_is_slower_call_by_call() -> None:
    """Calls of one group that take different shares of the SMs are not added up as one; weight gradients are told apart."""
    timed = [
        TimedOperator(operator=product(), free_s=3.0, longer=2.0),
        TimedOperator(operator=product(phase=WEIGHT_GRADIENT), free_s=5.0, longer=2.0),
        TimedOperator(operator=product(precision="fp8"), free_s=7.0, longer=1.0),
        TimedOperator(operator=attention(), free_s=11.0, longer=3.0),
        TimedOperator(operator=moves(), free_s=13.0),
        TimedOperator(operator=call(stepwise=True), free_s=4.0, hidden_s=1.0),
        TimedOperator(operator=call(), free_s=6.0, hidden_s=2.0, sm_fraction=0.25),
        TimedOperator(operator=call(beside_passes=0.5), free_s=8.0, hidden_s=4.0, sm_fraction=0.5),
    ]
    found = added_up(timed, HostSeconds(17.0, 19.0), weights_apart=True)
    assert found.parts == Breakdown(
        matmul_s=2 * 3 + 2 * 5 + 7.0,
        attention_s=33.0,
        memory_bound_s=13.0,
        tensor_parallel_exposed_s=3 + 4 + 4.0,
        communication_slowdown_s=0.25 * 2 + 0.5 * 4,
    )
    assert (found.weight_gradient_s, found.host_s, found.wait_s) == (10, 17, 19)
    gpu_alone = added_up(timed, weights_apart=True)
    assert (gpu_alone.parts, gpu_alone.host_s, gpu_alone.wait_s) == (found.parts, 0, 0)


def direction(settings: dict[str, Any] | None = None, **layout: Any) -> Direction:
    """A way through layers of one second that take the CPU two and make it wait a tenth, an embedding and a head."""
    stack = stack_with(STACK, {"host.pass_s": 0.125, "host.unlisted_work": 1.5} | (settings or {}))
    cluster = replace(CLUSTER, host_scale=1.5)
    return Direction(
        work=iteration(setup_of(model_preset("llama-3.1-8b"), replace(RAMP_STAGE, **layout), stack)),
        cluster=cluster,
        stack=stack,
        embedding=Pass(parts=Breakdown(memory_bound_s=0.5), host_s=1.0),
        head=Pass(parts=Breakdown(matmul_s=0.25), weight_gradient_s=0.125, host_s=0.5),
        layers={"": (Pass(parts=Breakdown(matmul_s=1.0), weight_gradient_s=0.5, host_s=2.0, wait_s=0.1), None)},
        messages=(),
    )


FOUR = LayerNumbers(every={"": 4.0}, plain={"": 0.0})


def test_a_stage_waits_for_a_slower_cpu_and_at_the_end_of_each_chunk() -> None:
    """1.5 * 11.5 s of launches against 5.75 of kernels and 0.6 of waiting, which is waited for too; half as much unlisted."""
    launched, kernels, asked = 1.5 * (4 * 2 + 2 * 1 + 3 * 0.5), 4 + 2 * 0.5 + 3 * 0.25, 1.5 * 4 * 0.1
    waiting = launched - (kernels + asked) + asked
    piped: dict[str, Any] = {"pipeline_parallel": 4, "virtual_pipeline": 2, "global_batch_size": 96 * 8}
    alone: dict[str, Any] = {}
    for layout, chunks in ((alone, 0), (piped, 2 * 3)):
        found = direction(**layout).through(FOUR, 2, 3, stages=3)
        assert found.parts.matmul_s == pytest.approx(4 + 3 * 0.25)
        assert found.parts.memory_bound_s == pytest.approx(2 * 0.5)
        assert found.parts.launch_s == pytest.approx(waiting + chunks * 1.5 * 0.125)
        assert found.parts.unlisted_s == pytest.approx(0.5 * (kernels + waiting))
        assert (found.weight_gradient_s, found.host_s) == pytest.approx((4 * 0.5 + 3 * 0.125, launched / 1.5))


def test_a_stage_that_outlasts_its_cpu_waits_for_what_it_was_asked_alone() -> None:
    """Nothing of launches, where layers take ten seconds each; graphs leave no chunk idle."""
    slow = replace(direction(), layers={"": (Pass(parts=Breakdown(matmul_s=10.0), host_s=2.0, wait_s=0.1), None)})
    assert slow.through(FOUR).parts.launch_s == pytest.approx(0.6)
    piped = {"pipeline_parallel": 4, "virtual_pipeline": 2, "global_batch_size": 96 * 8}
    graphs = direction({"host.cuda_graphs": True}, **piped)
    fast = direction({"host.pass_s": 0.0}, **piped)
    assert graphs.through(FOUR).parts.launch_s == fast.through(FOUR).parts.launch_s


def test_layers_that_do_not_run_again_are_passed_as_they_are() -> None:
    """Three of four with what runs again, one without."""
    plain = Pass(parts=Breakdown(matmul_s=0.25))
    found = replace(direction(), layers={"": (Pass(parts=Breakdown(matmul_s=1.0)), plain)})
    assert found.through(LayerNumbers(every={"": 4.0}, plain={"": 1.0})).parts.matmul_s == 3.25
