"""Do stages run their passes in the order that the papers of the schedules draw?"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest

from perfmodel.events.pipeline_events import Pieces, PipelineEvents, simulated
from perfmodel.events.pipeline_order import (
    Order,
    Step,
    interleaved,
    one_forward_one_backward,
    zero_bubble_h1,
    zero_bubble_h2,
)

STAGES, BATCHES = 4, 8  # of the figures


def words(steps: Sequence[Step]) -> str:
    """The passes of a stage as a figure writes them: F1 F2 B1, micro-batches from 1."""
    return " ".join(f"{task.kind}{task.micro_batch + 1}" for step in steps for task in step)


def test_1f1b_is_that_of_pipedream_flush() -> None:
    """arXiv:2104.04473, figure 4 (top): four forward passes on the first device, none ahead on the last."""
    order = one_forward_one_backward(STAGES, BATCHES)
    assert words(order[0]) == "F1 F2 F3 F4 B1 F5 B2 F6 B3 F7 B4 F8 B5 B6 B7 B8"
    assert words(order[3]) == "F1 B1 F2 B2 F3 B3 F4 B4 F5 B5 F6 B6 F7 B7 F8 B8"


def test_interleaved_1f1b_takes_as_many_micro_batches_as_stages_through_each_chunk() -> None:
    """The same, figure 4 (bottom): 1 2 3 4 of the first chunk, then of the second, then 5 to 8."""
    first, *_, last = interleaved(STAGES, 2, BATCHES)
    forward = [task for step in first for task in step if task.kind == "F"]
    assert [(task.micro_batch + 1, task.piece // STAGES + 1) for task in forward[:12]] == [
        *((batch, chunk) for chunk in (1, 2) for batch in (1, 2, 3, 4)),
        *((batch, 1) for batch in (5, 6, 7, 8)),
    ]
    warm_up = [next(place for place, step in enumerate(steps) if len(step) > 1) for steps in (first, last)]
    assert warm_up == [10, 4]  # (p - 1 - i) * 2 + (v - 1) * p


@pytest.mark.parametrize(
    ("order", "first", "last"),
    [
        (
            zero_bubble_h1,
            "F1 F2 F3 F4 B1 W1 F5 B2 W2 F6 B3 W3 F7 B4 W4 F8 B5 W5 B6 W6 B7 W7 B8 W8",
            "F1 B1 F2 B2 F3 B3 F4 B4 W1 F5 B5 W2 F6 B6 W3 F7 B7 W4 F8 B8 W5 W6 W7 W8",
        ),
        (
            zero_bubble_h2,
            "F1 F2 F3 F4 F5 F6 F7 B1 W1 F8 B2 W2 B3 W3 B4 W4 B5 W5 B6 W6 B7 W7 B8 W8",
            "F1 B1 F2 B2 F3 B3 F4 B4 F5 B5 F6 B6 F7 B7 W1 F8 B8 W2 W3 W4 W5 W6 W7 W8",
        ),
    ],
)
def test_zero_bubble_schedules_keep_weight_gradients_for_later_stages_bubbles(order: object, first: str, last: str) -> None:
    """arXiv:2401.10241, figures 2 and 3: twice as many forward passes ahead in ZB-H2."""
    assert callable(order)
    steps = order(STAGES, BATCHES)
    assert (words(steps[0]), words(steps[3])) == (first, last)


def evenly(order: Order, *, apart: bool, chunks: int = 1) -> PipelineEvents:
    """Passes of one unit each: forward, backward, weight gradients."""
    ones = [1.0 / chunks] * (STAGES * chunks)
    pieces = Pieces(forward_s=ones, backward_s=ones if apart else [2.0 / chunks] * len(ones), weight_s=ones if apart else ())
    return simulated(order, pieces)


@pytest.mark.parametrize(
    ("events", "bubble"),
    [
        (evenly(one_forward_one_backward(STAGES, BATCHES), apart=False), 9.0),  # (p - 1) * (f + b + w)
        (evenly(interleaved(STAGES, 2, BATCHES), apart=False, chunks=2), 4.5),  # the same over v
        (evenly(zero_bubble_h1(STAGES, BATCHES), apart=True), 3.0),  # (p - 1) * (f + b - w)
        (evenly(zero_bubble_h2(STAGES, BATCHES), apart=True), 0.0),  # (p - 1) * (f + b - 2*w)
    ],
)
def test_bubbles_are_those_of_the_papers(events: PipelineEvents, bubble: float) -> None:
    """Of passes of equal length, beyond the 24 units that 8 micro-batches take."""
    assert events.longest_s == pytest.approx(3 * BATCHES + bubble)


def test_passes_of_a_stage_never_overlap_and_start_when_their_input_is_there() -> None:
    """With messages that take a tenth of a pass, waited for or not."""
    order = one_forward_one_backward(STAGES, BATCHES)
    pieces = Pieces(forward_s=[1.0, 1.2, 0.9, 1.4], backward_s=[2.0, 2.1, 1.9, 2.4])
    for waits in (False, True):
        events = simulated(order, pieces, message_s=0.1, waits=waits)
        for steps in order:
            ran = [events.tasks[task] for step in steps for task in step]
            assert all(one.end_s <= other.start_s for one, other in pairwise(ran))
        for task, message in events.messages.items():
            needs = task._replace(piece=task.piece + (1 if task.kind == "F" else -1))
            assert events.tasks[task].end_s <= message.start_s < message.end_s <= events.tasks[needs].start_s
