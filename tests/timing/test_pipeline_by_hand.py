"""Do the closed forms of a pipeline give what a person works out from them, stage by stage, with messages and without?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from perfmodel.spec.layout import Layout
from perfmodel.timing.pipeline import Messages, StageSeconds, StageTimes, pipeline_time_s
from tests.layouts import RAMP_STAGE


def layout_of(stages: Any, batches: int, **settings: Any) -> Layout:
    """So many stages and micro-batches."""
    alone: dict[str, Any] = {"tensor_parallel": 1, "data_parallel": 1, "sequence_parallel": False, "micro_batch_size": 1}
    return replace(RAMP_STAGE, pipeline_parallel=stages, global_batch_size=batches, **(alone | settings))


def seconds(stage: tuple[float, ...]) -> StageSeconds:
    """Forward, backward, and weight gradients where they are apart."""
    return StageSeconds(**dict(zip(("forward_s", "backward_s", "weight_s"), stage, strict=False)))


def time_s(
    stages: Sequence[tuple[float, ...]], batches: int, message_s: float = 0.0, *, waits: bool = False, **settings: Any
) -> float:
    """T of stages that take so long, of which the fullest between the ends is the longest."""
    each = [seconds(stage) for stage in stages]
    between = each[1:-1] or each[:1]
    middle = max(between, key=lambda stage: float(stage.total_s))
    whole = each[0]
    for stage in each[1:]:
        whole = whole + stage
    times = StageTimes(first=each[0], middle=middle, last=each[-1], whole=whole)
    layout = layout_of(len(stages), batches, **settings)
    return float(np.asarray(pipeline_time_s(times, layout, Messages(seconds=message_s, waits=waits))))


FULL_MIDDLE = [(1.0, 2.0), (2.0, 4.0), (1.0, 2.0)]


def test_a_full_stage_between_waits_at_its_start_and_for_the_end_of_the_first() -> None:
    """m*t = 24; 4.5 forwards, 2.25 back, less 1.25 before it and 4 of its own: 1.5; what is before it, 3, and two messages."""
    assert time_s(FULL_MIDDLE, 4, 0.25) == 24 + 1.5 + 3.5
    assert time_s(FULL_MIDDLE, 4) == 24 + 1 + 3


def test_a_stage_that_waits_for_its_messages_is_longer_by_one_each_way() -> None:
    """m*(t + 2*c) = 26; 1.5 less twice the longer forward pass: 1; 3.5 as before."""
    assert time_s(FULL_MIDDLE, 4, 0.25, waits=True) == 26 + 1 + 3.5


def test_the_ends_of_a_pipeline_wait_for_one_message_a_pass() -> None:
    """First: 4*(3 + c) and the trip of one micro-batch less what it runs ahead; last: 4*(3 + c), and all that is before it."""
    slow_first = [(2.0, 4.0), (1.0, 2.0)]
    # m*(t + c) = 25; F + b + c - a*(f + c) = 3.25 + 2.25 - 4.5, G + f + c - a*b = 6.25 + 1.25 - 8 < 0
    assert time_s(slow_first, 4, 0.25, waits=True) == 25 + 1
    slow_last = [(1.0, 2.0), (2.0, 4.0)]
    # m*(t + c) = 25; F - f - c - f = 0, G - b - c - (b + c) < 0, f + b + 2*c = 3.5
    assert time_s(slow_last, 4, 0.25, waits=True) == 25 + 3.5


def test_stages_between_that_are_alike_end_with_the_last_of_them() -> None:
    """Of two full ones the second waits longest: 24, and 7.5 of what lies before it; the first has 24 + 3.5 + 1.5."""
    assert time_s([(0.5, 1.0), (2.0, 4.0), (2.0, 4.0), (0.5, 1.0)], 4) == 31.5


def test_a_fuller_stage_among_others_is_taken_at_the_first_place_between() -> None:
    """24 + 2 + 3; the mean of both at the second has 18 + 1.5 + 7.5."""
    assert time_s([(1.0, 2.0), (2.0, 4.0), (1.0, 2.0), (1.0, 2.0)], 4) == 29


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("zb-h1", 36 + 0.5),  # a = 2, k = 2: first 4.5 + 1.25 - 1.25 - 4, last and ends below 0
        ("zb-1p", 36 + 0.5),
        ("zb-2p", 36),  # a = 3, k = 3: nothing to wait for
    ],
)
def test_weight_gradients_apart_fill_what_a_full_stage_would_wait(schedule: str, expected: float) -> None:
    """Of passes of 1 and 2, six micro-batches and messages of a quarter."""
    stages = [(1.0, 1.0, 1.0), (2.0, 2.0, 2.0), (1.0, 1.0, 1.0)]
    assert time_s(stages, 6, 0.25, pipeline_schedule=schedule) == expected


def test_the_first_stage_of_a_zero_bubble_pipeline_runs_ahead() -> None:
    """Slow first: 36, and until it may go back 3.25 + 1.25 - 2*2 = 0.5; twice as far ahead nothing is left of that."""
    stages = [(2.0, 2.0, 2.0), (1.0, 1.0, 1.0)]
    assert time_s(stages, 6, 0.25, pipeline_schedule="zb-h1") == 36 + 0.5
    assert time_s(stages, 6, 0.25, pipeline_schedule="zb-2p") == 36


def test_the_last_stage_of_a_zero_bubble_pipeline_keeps_weight_gradients_to_the_end() -> None:
    """Slow last: what is before it, 2, two messages and the first's weight gradient, less 2*0.5 that it kept."""
    stages = [(1.0, 1.0, 0.25), (2.0, 2.0, 0.5)]
    assert time_s(stages, 6, 0.25, pipeline_schedule="zb-h1") == 27 + 2 + 0.5 + 0.25 - 2 * 0.5


SLOW_FIRST = [(2.0, 4.0), (1.0, 2.0)]


@pytest.mark.parametrize(
    ("message_s", "waits", "expected"),
    [
        (0.5, False, 24 + 1),  # F = 1.5 + 0.5 + 2.5, b/v + c, less five pieces of 1
        (4.0, False, 24 + 1.5 + 2 * 3 * 4 + 4 * (2 * 4 * 2 - 6)),  # as if in step, and longer than a round
        (0.5, True, 24 + 1.5 + 2 * (4 * 2 + 2 - 2) * 0.5),  # in step
    ],
)
def test_two_chunks_a_stage_hide_short_messages_and_wait_for_long_ones(message_s: float, waits: bool, expected: float) -> None:
    """Two stages of 6 and 3, four micro-batches: 24 on the slower, and half of the other once."""
    assert time_s(SLOW_FIRST, 4, message_s, waits=waits, virtual_pipeline=2) == expected


def test_few_micro_batches_are_bound_by_one_way_through_all_pieces() -> None:
    """One micro-batch of even stages passes all of them and 2*(p - 1) messages; without weight gradients to fill gaps with."""
    even = [(1.0, 2.0)] * 4
    assert time_s(even, 1, 0.5) == 12 + 2 * 3 * 0.5
    assert time_s(even, 1, 0.5, waits=True) == 12 + 2 * (1 + 4 - 1) * 0.5
    assert time_s([(1.0, 1.0, 1.0)] * 4, 1, 0.5, pipeline_schedule="zb-h1") == 8 + 1 + 2 * 3 * 0.5
    # two of them: 2*3 of the slowest, (4*2*3 - 1*4)/4 of what no gap hides, six messages
    assert time_s([(1.0, 1.0, 1.0)] * 4, 2, 0.5, pipeline_schedule="zb-2p") == 6 + (4 * 2 * 3 - 4) / 4 + 3


def test_one_stage_sends_no_message() -> None:
    """In one piece or in two, whether it would wait or not."""
    for virtual in (1, 2):
        for waits in (False, True):
            assert time_s([(1.0, 2.0)], 4, 5.0, waits=waits, virtual_pipeline=virtual) == 12


def test_an_array_of_stages_takes_what_each_takes() -> None:
    """One, two, three and four even stages of as much work."""
    one = StageSeconds(forward_s=1.0, backward_s=2.0)
    degrees = np.array([1, 2, 3, 4])
    times = StageTimes(first=one, middle=one, last=one, whole=one * degrees)
    for waits in (False, True):
        together = pipeline_time_s(times, layout_of(degrees, 12), Messages(seconds=0.25, waits=waits))
        alone = [time_s([(1.0, 2.0)] * int(each), 12, 0.25, waits=waits) for each in degrees]
        assert np.asarray(together).tolist() == alone
