"""Do the passes of an iteration lie in time as their schedule says, and take what was predicted?"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from perfmodel.events.iteration_events import IterationEvents, iteration_events
from perfmodel.events.stage_passes import StagePasses
from perfmodel.exchange.presets import cluster_preset, model_preset, stack_preset
from perfmodel.prediction import StagePrediction, predict_stage
from perfmodel.timing.data_parallel import DataParallel
from perfmodel.timing.kernels import at_cluster_load
from tests.layouts import RAMP_STAGE
from tests.setups import setup_of

MODEL = model_preset("nemotron-4-15b")
CLUSTER = cluster_preset("dgx-h100")
CORE = stack_preset("megatron-core")
SMALL: dict[str, Any] = {"data_parallel": 8, "global_batch_size": 128, "pipeline_parallel": 4}
SCHEDULES: dict[str, dict[str, Any]] = {
    "1f1b": SMALL,
    "interleaved": SMALL | {"virtual_pipeline": 2},
    "zb-h1": SMALL | {"pipeline_schedule": "zb-h1"},
    "zb-2p": SMALL | {"pipeline_schedule": "zb-2p"},
    "three stages": SMALL | {"pipeline_parallel": 3},  # of 11, 11 and 10 layers
}


def placed(stack: str = "megatron-core", **changes: Any) -> tuple[StagePrediction, StagePasses, IterationEvents]:
    """The events of a changed first stage of the ramp."""
    layout, software = replace(RAMP_STAGE, **changes), stack_preset(stack)
    predicted = predict_stage(setup_of(MODEL, layout, software, cluster=CLUSTER))
    cluster = at_cluster_load(CLUSTER, layout.gpus)
    passes = StagePasses(predicted.work, cluster=cluster, stack=software)
    moved = DataParallel(work=predicted.work, cluster=cluster, stack=software)
    first_s = [direction.first.parts.total_s for direction in (passes.forward, passes.backward)]
    events = iteration_events(
        passes,
        list(moved.windows(forward_s=first_s[0], backward_s=first_s[1])),
        layout=layout,
        stack=software,
        optimizer_s=float(predicted.breakdown.optimizer_s),
        iteration_time_s=float(predicted.iteration_time_s),
    )
    return predicted, passes, events


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_stage_runs_one_pass_at_a_time_and_all_end_within_its_iteration(name: str) -> None:
    """From the start of its window until the optimizer steps."""
    _, passes, events = placed(**SCHEDULES[name])
    for stage in range(passes.stages):
        for one, other in pairwise(events.passes[stage]):
            assert one.end_s + one.exposed_after_s <= other.start_s - other.exposed_before_s
        first, last = events.passes[stage][0], events.passes[stage][-1]
        assert events.start_s[stage] <= first.start_s - first.exposed_before_s
        assert last.end_s + last.exposed_after_s <= events.optimizer_s[stage] * (1.0 + 1e-12)


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_pass_takes_what_its_operators_add_up_to(name: str) -> None:
    """Kernels never take up what the closed form and the order of passes differ by."""
    _, _, events = placed(**SCHEDULES[name])
    for each in (each for of_stage in events.passes for each in of_stage):
        assert each.end_s - each.start_s == pytest.approx(each.plan.duration_s, rel=1e-9)
        assert float(each.plan.parts.total_s) == pytest.approx(each.plan.duration_s, rel=1e-9)


@pytest.mark.parametrize("name", SCHEDULES)
def test_inputs_are_there_when_passes_start(name: str) -> None:
    """Where the closed form takes less than the order of passes, as much earlier as is said, which is less than a pass."""
    _, _, events = placed(**SCHEDULES[name])
    ran = {each.task: each for of_stage in events.passes for each in of_stage}
    for task, message in events.messages.items():
        target = ran[task._replace(piece=task.piece + (1 if task.kind == "F" else -1))]
        needed_s = message.start_s + message.sharing * (events.message_s - events.early_s)
        assert ran[task].end_s <= message.start_s
        assert target.start_s >= needed_s - 1e-12
    assert events.early_s < 0.5 * min(each.plan.duration_s for each in ran.values() if each.task.kind != "W")


@pytest.mark.parametrize("name", ["1f1b", "zb-h1", "zb-2p"])
def test_where_pieces_are_alike_the_closed_form_takes_as_long_as_the_events(name: str) -> None:
    """Within a thousandth: nothing is early, and next to nothing waits for the closed form."""
    predicted, _, events = placed(**SCHEDULES[name])
    assert events.early_s == 0.0
    assert 0.0 <= events.longer_s < 1e-3 * float(predicted.iteration_time_s)


@pytest.mark.parametrize("stack", ["megatron-core", "torchtitan", "generic", "ideal"])
@pytest.mark.parametrize("sharding", ["none", "zero1", "zero2", "zero3"])
def test_one_stage_takes_exactly_what_was_predicted(stack: str, sharding: str) -> None:
    """Its passes, what data parallelism exposes around them and the optimizer step, part by part."""
    predicted, _, events = placed(stack, sharding=sharding)
    (passes,) = events.passes
    parts = predicted.breakdown
    exposed_s = sum(each.exposed_before_s + each.exposed_after_s for each in passes)
    assert exposed_s == pytest.approx(float(parts.data_parallel_exposed_s), rel=1e-9, abs=1e-15)
    for part in ("matmul_s", "attention_s", "tensor_parallel_exposed_s", "communication_slowdown_s", "launch_s", "unlisted_s"):
        in_passes = sum(float(getattr(each.plan.parts, part)) for each in passes)
        assert in_passes == pytest.approx(float(getattr(parts, part)), rel=1e-9, abs=1e-15)
    assert (events.longer_s, events.early_s, events.staggered) == (0.0, 0.0, False)
    assert events.optimizer_s[0] + float(parts.optimizer_s) == pytest.approx(float(predicted.iteration_time_s), rel=1e-12)


def test_stages_of_zb_2p_begin_and_end_one_after_the_other() -> None:
    """arXiv:2401.10241, section 4: none waits for the others between two iterations."""
    _, _, events = placed(**SCHEDULES["zb-2p"])
    assert events.staggered
    assert list(events.start_s) == sorted(events.start_s)
    assert events.start_s[0] == 0.0
    assert not placed(**SCHEDULES["zb-h1"])[2].staggered


def test_data_parallelism_makes_passes_of_the_first_stage_longer() -> None:
    """The first forward and the last backward pass, by what its collectives take from kernels."""
    predicted, passes, events = placed(**SMALL)
    forward, backward = events.passes[0][0], events.passes[0][-1]
    usual_s = [passes.plan(0, kind).duration_s for kind in ("F", "B")]
    longer_s = forward.plan.duration_s - usual_s[0] + backward.plan.duration_s - usual_s[1]
    alone_s = float(predicted.layout.micro_batches) * sum(
        float(passes.plan(3, kind).parts.communication_slowdown_s) for kind in ("F", "B")
    )
    assert longer_s == pytest.approx(float(predicted.breakdown.communication_slowdown_s) - alone_s, rel=1e-9)
    assert events.passes[0][1].plan.duration_s == usual_s[0]


def test_layers_lie_on_the_stages_that_hold_them() -> None:
    """Piece by piece; with the head and the embedding counted as layers, the ends of the model have one less."""
    _, passes, _ = placed(**(SMALL | {"virtual_pipeline": 4}))
    assert [(piece.first_layer, piece.layers) for piece in passes.pieces] == [(2 * place, 2) for place in range(16)]
    model = replace(MODEL, layers=30)
    layout = replace(RAMP_STAGE, **(SMALL | {"virtual_pipeline": 4}))
    work = predict_stage(setup_of(model, layout, CORE, cluster=CLUSTER)).work
    pieces = StagePasses(work, cluster=CLUSTER, stack=CORE).pieces
    assert [piece.layers for piece in pieces] == [1, *[2] * 14, 1]
    assert [piece.first_layer for piece in pieces[:3]] == [0, 1, 3]
    assert (pieces[0].embedding, pieces[-1].head) == (True, True)


def test_the_first_layers_of_a_stage_are_run_again() -> None:
    """As many of each stage as the layout says."""
    _, passes, _ = placed(**(SMALL | {"recompute": "full", "recompute_layers": 3}))
    assert [piece.run_again for piece in passes.pieces] == [3] * 4
    blocks = passes.plan(1, "B").blocks
    repeated = [any(span.timed.operator.phase == "recompute" for span in block.laid.operators) for block in blocks]
    assert repeated == [False] * 5 + [True] * 3  # backwards, from the last layer to the first
