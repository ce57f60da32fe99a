"""Do the marks of all ranks add up to the step, and tell what pipeline stages wait for each other from what messages take?"""

from __future__ import annotations

import pytest

from perfmodel.benchmarks.measure.steps.marked_steps import MarkedStep, median_interval, step_profile
from perfmodel.model.operators import BETWEEN, Label
from perfmodel.model.pipelines.messages import ACTIVATIONS, GRADIENTS, WAITS

PRODUCT: Label = ("product", "forward")
SUM: Label = ("sum", "forward")
NORM: Label = ("norm", "optimizer")
STEP = MarkedStep(  # two ranks of the first stage, two of the second, which has a product less
    ranks=[
        {PRODUCT: [2.0, 2.0], SUM: [1.0, 3.0], ACTIVATIONS: [0.25, 0.25], WAITS[GRADIENTS].arrival: [3.5, 0.5], NORM: [1.0]}
        | {BETWEEN: [0.5, 0.25]},
        {PRODUCT: [2.0, 3.0], SUM: [1.0, 2.0], ACTIVATIONS: [0.25, 0.25], WAITS[GRADIENTS].arrival: [3.5, 0.5], NORM: [1.0]}
        | {BETWEEN: [0.75]},
        {PRODUCT: [2.0], SUM: [1.0, 1.0], GRADIENTS: [0.25, 0.25], WAITS[ACTIVATIONS].arrival: [2.5, 0.5], NORM: [6.0]}
        | {BETWEEN: [0.75], WAITS[GRADIENTS].departure: [0.0, 0.0]},
        {PRODUCT: [2.0], SUM: [1.0, 1.0], GRADIENTS: [0.25, 0.25], WAITS[ACTIVATIONS].arrival: [2.5, 0.5], NORM: [5.0]}
        | {BETWEEN: [0.75], WAITS[GRADIENTS].departure: [0.5, 0.5]},
    ],
    messages={SUM: False, NORM: True, ACTIVATIONS: True, GRADIENTS: True},
    stages=2,
)


def test_operators_and_what_lies_between_add_up_to_the_mean_step() -> None:
    """What ranks wait for messages is part of the messages; an operator takes no time on a stage without it."""
    profile = step_profile([STEP, STEP])
    every = [sum(map(sum, rank.values())) for rank in STEP.ranks]
    assert profile.iteration_time_s == pytest.approx(sum(every) / 4)
    assert sum(each.seconds for each in profile.operators) + profile.between_s == pytest.approx(profile.iteration_time_s)
    seconds = {(each.name, each.phase): each.seconds for each in profile.operators}
    assert seconds == {PRODUCT: 3.25, SUM: 2.75, NORM: 3.25, ACTIVATIONS: 1.75, GRADIENTS: 2.5}


def test_the_fastest_rank_of_a_stage_or_of_all_does_not_wait() -> None:
    """In a collective of a stage its own fastest rank counts; messages are as fast as the shortest receipt of all."""
    fastest = {(each.name, each.phase): each.fastest_s for each in step_profile([STEP]).operators}
    assert fastest[SUM] == (3.0 + 2.0) / 2
    assert fastest[NORM] == 1.0
    waited = {(each.name, each.phase): each.seconds - each.fastest_s for each in step_profile([STEP]).operators}
    assert step_profile([STEP]).rank_waiting_s == waited[SUM]  # neither messages between stages nor products
    assert fastest[ACTIVATIONS] == fastest[GRADIENTS] == (0.5 + 2 * 0.5) / 2


def test_parts_of_every_stage_sum_to_the_step() -> None:
    """Operators, messages, waiting and the rest; and no stages are told where there is one."""
    profile = step_profile([STEP])
    for place, stage in enumerate(profile.pipeline_stages):
        step_s = sum(sum(map(sum, rank.values())) for rank in STEP.ranks[2 * place : 2 * place + 2]) / 2
        assert stage.operators_s + stage.messages_s + stage.waiting_s + stage.between_s == pytest.approx(step_s)
    assert [stage.waiting_s for stage in profile.pipeline_stages] == [3.0, 2.0 + 0.5 + 4.5]
    alone = MarkedStep(ranks=[{PRODUCT: [1.0], BETWEEN: [0.5]}], messages={}, stages=1)
    assert step_profile([alone]).pipeline_stages == []


def test_every_operator_has_the_interval_of_its_steps() -> None:
    """The least and the greatest of five steps hold their median with 94 %; fewer cannot say 90 %."""
    steps = [MarkedStep(ranks=[{PRODUCT: [seconds]} | {BETWEEN: [0.0]}], messages={}, stages=1) for seconds in (3, 1, 5, 2, 4)]
    (product,) = step_profile(steps).operators
    assert (product.seconds, product.interval_s) == (3, (1, 5))
    assert step_profile(steps[:4]).operators[0].interval_s == ()


@pytest.mark.parametrize(("number", "left_out"), [(5, 0), (7, 0), (8, 1), (11, 2), (20, 5)])
def test_intervals_of_a_median_are_those_of_the_sign_test(number: int, left_out: int) -> None:
    """Conover's table: of 20 values the sixth from both ends hold the median with 95.9 %, the seventh with 88.5 %."""
    values = list(range(number))
    assert median_interval(values) == (left_out, number - 1 - left_out)
