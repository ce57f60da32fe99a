"""Does one pass over a stage sum its blocks, part by part, and wait for the CPU where it must?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from perfmodel.count.iteration import iteration
from perfmodel.exchange.presets import cluster_preset, model_preset, stack_preset
from perfmodel.spec.stack import SoftwareStack
from perfmodel.timing.breakdown import PARTS, Breakdown, slower
from perfmodel.timing.passes import Direction, both_directions
from perfmodel.timing.timed_operators import Pass
from tests.layouts import RAMP_STAGE
from tests.setups import setup_of
from tests.stacks import stack_with

MODEL = model_preset("llama-3.1-8b")
CLUSTER = cluster_preset("dgx-h100")
CLUSTER = replace(CLUSTER, gpu=replace(CLUSTER.gpu, full_load_slowdown=0.0))  # what waits for its CPU raises no clocks
STACK = stack_with(
    stack_preset("megatron-core"), {"host.launch_s": 0.0, "host.unlisted_work": 1.0, "states.pipeline_split": "layers"}
)
BOTH = pytest.mark.parametrize("direction", ["forward", "backward"])


def direction_of(name: str, stack: SoftwareStack = STACK, *, vocab_size: int = 128256, **changes: Any) -> Direction:
    """One direction of a micro-batch through a pipeline of four stages."""
    layout = replace(RAMP_STAGE, pipeline_parallel=4, **changes)
    work = iteration(setup_of(replace(MODEL, vocab_size=vocab_size), layout, stack))
    return dict(zip(("forward", "backward"), both_directions(work, CLUSTER, stack), strict=True))[name]


@BOTH
@pytest.mark.parametrize(
    "recompute", [{"recompute": "none"}, {"recompute": "full"}, {"recompute": "full", "recompute_layers": 3}]
)
@pytest.mark.parametrize("host_s", [0.0, 6e-5])
def test_stages_sum_to_the_whole(host_s: float, recompute: dict[str, Any], direction: str) -> None:
    """Each part of them, whatever runs again; also where layers wait for the CPU and a large head does not."""
    stack = stack_with(STACK, {"host.launch_s": host_s, "host.unlisted_work": 1.1})
    found = direction_of(direction, stack, vocab_size=2_000_000, **recompute)
    total, whole = Breakdown(), found.whole()
    for stage in found.work.stages:
        total = total + found.stage(stage).parts * stage.number
    for part in PARTS:
        assert getattr(total, part) == pytest.approx(getattr(whole.parts, part), rel=1e-12), part


@BOTH
def test_only_the_backward_pass_has_weight_gradients(direction: str) -> None:
    """Less than half of it: those of its inputs take as long, and attention and norms have none."""
    found = direction_of(direction, pipeline_schedule="zb-h1").whole()
    assert 0 <= found.weight_gradient_s < 0.5 * found.parts.total_s
    assert (found.weight_gradient_s > 0) == (direction == "backward")


@BOTH
def test_weight_gradients_are_no_part_of_their_own_where_no_schedule_runs_them_apart(direction: str) -> None:
    """They are in the backward pass, which takes as long as with them apart."""
    plain, apart = (direction_of(direction, pipeline_schedule=schedule).whole() for schedule in ("1f1b", "zb-h1"))
    assert plain.weight_gradient_s == 0.0
    assert plain.parts.total_s == apart.parts.total_s


def layer_pass(name: str) -> Pass:
    """One direction of a layer with what it runs again."""
    ((again, _),) = direction_of(name).layers.values()
    return again


def test_layers_that_run_again_make_the_backward_pass_longer() -> None:
    """In equal steps, and leave the forward pass as it is."""
    passes = {
        name: [float(direction_of(name, recompute="full", recompute_layers=each).whole().parts.total_s) for each in (0, 4, 8)]
        for name in ("forward", "backward")
    }
    assert len(set(passes["forward"])) == 1
    none, half, full = passes["backward"]
    assert half - none == pytest.approx(full - half)
    assert full - none == pytest.approx(32 * layer_pass("forward").parts.total_s, rel=0.01)


def test_a_stage_waits_for_the_cpu_where_that_takes_longer() -> None:
    """The larger of what the GPU computes and the CPU launches."""
    without = {"host.operator_s": 0.0, "host.pass_s": 0.0}
    stage = direction_of("forward").work.stages.middle
    for host_s in (1e-6, 1e-3):
        alone = direction_of("forward", stack_with(STACK, without)).stage(stage).parts.total_s
        found = direction_of("forward", stack_with(STACK, without | {"host.launch_s": host_s})).stage(stage)
        assert found.parts.total_s == pytest.approx(max(float(alone), float(found.host_s)))
        assert found.parts.launch_s == pytest.approx(max(float(found.host_s - alone), 0.0))


def test_passes_add_up_in_all_that_they_take() -> None:
    """Parts, weight gradients, and what the CPU launches."""
    one = Pass(parts=Breakdown(matmul_s=3.0), weight_gradient_s=1.0, host_s=0.5)
    other = Pass(parts=Breakdown(matmul_s=1.0, attention_s=2.0), weight_gradient_s=0.25, host_s=0.125)
    both = one + other * 2
    assert (both.parts.matmul_s, both.parts.attention_s, both.weight_gradient_s, both.host_s) == (5.0, 4.0, 1.5, 0.75)


def test_the_slower_of_two_breakdowns_is_taken_whole() -> None:
    """No part of one is mixed with a part of the other."""
    one, other = Breakdown(matmul_s=3.0, launch_s=1.0), Breakdown(matmul_s=2.0, attention_s=2.5)
    for pair in ((one, other), (other, one)):
        assert {part: float(getattr(slower(*pair), part)) for part in PARTS} == {part: getattr(other, part) for part in PARTS}
