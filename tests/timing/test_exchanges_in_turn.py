"""Stages that receive and send one after the other wait for two messages where others wait for one.

The schedule of Aleph-Alpha/scaling (and of DeepSpeed, from which it is) is run here message by message: both ends come to a
message, which then takes its time, and neither does anything else meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest

from perfmodel.count.iteration import iteration
from perfmodel.count.operators import Collective
from perfmodel.events.pipeline_order import FORWARD, Task
from perfmodel.exchange.presets import cluster_preset, model_preset, stack_preset
from perfmodel.prediction import predict_stage
from perfmodel.timing.collectives import collective_time_s
from perfmodel.timing.passes import both_directions
from tests.layouts import RAMP_STAGE
from tests.setups import setup_of
from tests.stacks import stack_with
from tests.timing.pipeline_cases import Case, closed_form_s

SCALING = stack_preset("aleph-alpha-scaling")
MODEL = model_preset("nemotron-4-15b")
CLUSTER = cluster_preset("dgx-a100")


def instructions(tasks: Sequence[Task], last_piece: int) -> list[tuple[str, Task]]:
    """Tasks with the messages between them: an activation is received before a gradient is sent, else sent first."""
    made = [("run", task) for task in tasks]
    if last_piece == 0:
        return made
    found: list[tuple[str, Task]] = []
    for before, after in pairwise([None, *tasks, None]):
        sends = [] if before is None or _ends(before, last_piece) else [("send", before)]
        receives = [] if after is None or _begins(after, last_piece) else [("receive", _source(after))]
        goes_on = before is not None and after is not None and before.kind != FORWARD and after.kind == FORWARD
        found += [*receives, *sends] if goes_on else [*sends, *receives]
        found += [("run", after)] if after is not None else []
    return found


def _ends(task: Task, last_piece: int) -> bool:
    return task.piece == (last_piece if task.kind == FORWARD else 0)


def _begins(task: Task, last_piece: int) -> bool:
    return task.piece == (0 if task.kind == FORWARD else last_piece)


def _source(task: Task) -> Task:
    return task._replace(piece=task.piece + (-1 if task.kind == FORWARD else 1))


def message_by_message_s(case: Case) -> float:
    """How long all passes take where each message holds up both of its ends."""
    forward, inputs, weights = case.passes
    programs = [instructions([task for step in steps for task in step], case.stages - 1) for steps in case.order]
    clocks, places = [0.0] * case.stages, [0] * case.stages
    while any(place < len(program) for place, program in zip(places, programs, strict=True)):
        before = list(places)
        for stage, program in enumerate(programs):
            while places[stage] < len(program):
                what, task = program[places[stage]]
                if what == "run":
                    clocks[stage] += case.lengths[stage] * (forward if task.kind == FORWARD else inputs + weights)
                    places[stage] += 1
                    continue
                other = stage + (1 if (what == "send") == (task.kind == FORWARD) else -1)
                meets = places[other] < len(programs[other]) and programs[other][places[other]] == (
                    "receive" if what == "send" else "send",
                    task,
                )
                if not meets:
                    break
                clocks[stage] = clocks[other] = max(clocks[stage], clocks[other]) + case.message_s
                places[stage], places[other] = places[stage] + 1, places[other] + 1
        assert places != before, "the stages wait for each other"
    return max(clocks)


@pytest.mark.parametrize("stages", [2, 3, 4, 8])
@pytest.mark.parametrize("micro_batches", [16, 64])
@pytest.mark.parametrize("message", [0.0, 0.01, 0.05])
def test_messages_in_turn_cost_what_exchanges_of_twice_their_time_do(stages: int, micro_batches: int, message: float) -> None:
    """Two messages between each two passes; while a pipeline fills and drains, fewer than the closed form waits for."""
    case = Case(lengths=(1.0,) * stages, micro_batches=micro_batches, message=message, waits=True)
    in_turn_s, once_s = (closed_form_s(replace(case, message=times * message)) for times in (2, 1))
    simulated_s = message_by_message_s(case)
    assert abs(in_turn_s - simulated_s) <= 2 * stages * case.message_s * (1 + 1e-9) + 1e-9
    if message:
        assert abs(in_turn_s - simulated_s) < abs(once_s - simulated_s)


def test_a_stage_waits_for_four_messages_a_micro_batch_or_for_two_at_an_end() -> None:
    """Activation and gradient of either neighbour; T grows by so many messages with each micro-batch more."""
    for stages, messages in ((2, 2), (4, 4), (8, 4)):
        more, fewer = (
            message_by_message_s(Case(lengths=(1.0,) * stages, micro_batches=number, message=0.02)) for number in (65, 64)
        )
        assert more - fewer == pytest.approx(3.0 + messages * 0.06)


def test_software_that_sends_and_receives_in_turn_waits_twice_as_long() -> None:
    """What it waits for its messages doubles; nothing else changes."""
    layout = replace(RAMP_STAGE, tensor_parallel=1, pipeline_parallel=4, sequence_parallel=False, global_batch_size=96 * 16)
    one, other = (
        predict_stage(setup_of(MODEL, layout, stack, cluster=CLUSTER)).breakdown
        for stack in (SCALING, stack_with(SCALING, {"overlap.pipeline_in_turn": False}))
    )
    assert one.pipeline_parallel_exposed_s == pytest.approx(2 * other.pipeline_parallel_exposed_s)
    assert one.total_s - other.total_s == pytest.approx(other.pipeline_parallel_exposed_s)


def test_slices_are_joined_of_what_is_received_alone() -> None:
    """DeepSpeed's ranks send a slice each: two slices in turn, and one join of what the neighbour sent (engine.py)."""
    stack = stack_preset("megatron-deepspeed")
    layout = replace(RAMP_STAGE, tensor_parallel=8, pipeline_parallel=4, sequence_parallel=False, global_batch_size=96 * 16)
    work = iteration(setup_of(MODEL, layout, stack))
    forward, _ = both_directions(work, CLUSTER, stack)
    send, join = (collective_time_s(call, cluster=CLUSTER) for call in work.boundary.forward if isinstance(call, Collective))
    assert forward.message_s == pytest.approx(2 * send + join)


def test_one_stage_exchanges_nothing() -> None:
    """There is no neighbour."""
    setup = setup_of(MODEL, replace(RAMP_STAGE, pipeline_parallel=1), SCALING)
    forward, _ = both_directions(iteration(setup), CLUSTER, SCALING)
    assert forward.message_s == 0
