"""Do the closed forms of pipelines take as long, and hold as many micro-batches, as a simulation of their schedules?"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from perfmodel.count.pipeline import PipelineStage, in_flight, pipeline_split
from perfmodel.events.pipeline_events import Pieces, simulated
from perfmodel.events.pipeline_order import BACKWARD, FORWARD, WEIGHTS, Step, zero_bubble_h2
from perfmodel.exchange.presets import model_preset
from tests.layouts import RAMP_STAGE
from tests.setups import setup_of
from tests.timing.pipeline_cases import (
    ALIKE,
    APART,
    LIGHT,
    REAL,
    Case,
    closed_form_s,
    error_of,
    lengths,
    simulated_s,
    worst_error,
)


def at(position: int) -> PipelineStage:
    """A stage that is told by its position."""
    stage = pipeline_split(setup_of(model_preset("llama-3.1-8b"), RAMP_STAGE)).stages.middle
    return replace(stage, layers=1, position=position)


@pytest.mark.parametrize("stages", [2, 3, 4, 8])
@pytest.mark.parametrize("virtual", [1, 2, 4])
@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_1f1b_of_even_stages_is_exact(stages: int, virtual: int, rounds: int) -> None:
    """(m + (p - 1) / v) * t, interleaved or not."""
    case = Case(lengths=(1.0,) * stages, micro_batches=rounds * stages, virtual=virtual, passes=REAL)
    assert closed_form_s(case) == pytest.approx(simulated_s(case), rel=1e-9)


@pytest.mark.parametrize("schedule", sorted(APART))
@pytest.mark.parametrize("passes", [ALIKE, REAL])
@pytest.mark.parametrize("stages", [2, 3, 4, 8])
@pytest.mark.parametrize("rounds", [2, 5])
def test_zero_bubble_schedules_of_even_stages_are_exact(
    schedule: str, passes: tuple[float, float, float], stages: int, rounds: int
) -> None:
    """Bubbles of (p - 1) * (f + b - w) and (p - 1) * (f + b - 2*w), from 2*p micro-batches on."""
    case = Case(lengths=(1.0,) * stages, micro_batches=rounds * stages, schedule=schedule, passes=passes)
    assert closed_form_s(case) == pytest.approx(simulated_s(case), rel=1e-9)


def test_without_bubbles_stages_must_not_wait_for_each_other_between_iterations() -> None:
    """With an optimizer step that all stages begin together, ZB-H2 is p - 1 forward passes longer."""
    pieces = Pieces(forward_s=[1.0] * 4, backward_s=[1.0] * 4, weight_s=[1.0] * 4)
    found = simulated(zero_bubble_h2(4, 8), pieces)
    assert (found.longest_s, found.total_s) == (3 * 8, 3 * 8 + 3)


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("virtual", [1, 3])
def test_one_round_of_one_stage_waits_for_nobody(virtual: int, waits: bool) -> None:
    """P = 1: every pass, no message."""
    case = Case(lengths=(2.0,), micro_batches=3, virtual=virtual, message=0.1, waits=waits)
    assert simulated_s(case) == pytest.approx(3 * 2 * 3)


@pytest.mark.parametrize("waits", [False, True])
def test_one_micro_batch_passes_every_stage_and_message_in_turn(waits: bool) -> None:
    """sum(t) + 2*(p - 1)*c, whatever the lengths."""
    case = Case(lengths=(1.0, 3.0, 2.0), micro_batches=1, message=0.1, waits=waits)
    assert simulated_s(case) == pytest.approx(3 * 6 + 2 * 2 * case.message_s)


SLOW = ("none", "last", "first", "one more layer")
MESSAGES = (0.0, 0.05)


def cases_of(schedule: str, virtual: int, slow: str, *, rounds: tuple[int, ...] = (2, 4), **changes: Any) -> list[Case]:
    """2 to 8 stages with a slow one among them, of a few rounds of micro-batches."""
    return [
        Case(
            lengths=lengths(stages, slow),
            micro_batches=each * stages,
            schedule=schedule,
            virtual=virtual,
            **{"passes": REAL, **changes},
        )
        for stages, each in product((2, 3, 4, 8), rounds)
    ]


@pytest.mark.parametrize("slow", SLOW)
@pytest.mark.parametrize("waits", [False, True])
def test_1f1b_without_messages_is_exact_whichever_stage_is_slow(slow: str, waits: bool) -> None:
    """The slowest stage in every round, and all others once."""
    assert worst_error(cases_of("1f1b", 1, slow, waits=waits)) < 1e-12


@pytest.mark.parametrize("slow", ["none", "last", "one more layer"])
@pytest.mark.parametrize("virtual", [2, 4, 8])
@pytest.mark.parametrize("message", MESSAGES)
def test_interleaved_pieces_are_exact_whose_messages_nobody_waits_for(slow: str, virtual: int, message: float) -> None:
    """Unless the first stage, which interleaving goes round to, is the slow one."""
    assert worst_error(cases_of("1f1b", virtual, slow, message=message, rounds=(2, 3))) < 1e-12


@pytest.mark.parametrize("virtual", [2, 4])
def test_one_round_of_interleaved_pieces_hides_no_message_of_its_ends(virtual: int) -> None:
    """S + 2*(p*v - 1)*c, of even stages: all micro-batches are under way before the first comes back."""
    for message in (0.05, 0.2):
        assert worst_error(cases_of("1f1b", virtual, "none", message=message, rounds=(1,))) < 1e-12


@pytest.mark.parametrize("schedule", sorted(APART))
@pytest.mark.parametrize("passes", [ALIKE, REAL, LIGHT])
@pytest.mark.parametrize("message", [0.0, 0.05, 0.2])
def test_one_micro_batch_has_no_weight_gradients_to_fill_gaps_with(
    schedule: str, passes: tuple[float, float, float], message: float
) -> None:
    """It passes every stage twice, and only the last stage to finish forms them in the end: exact, of even stages."""
    for stages in (2, 3, 4, 8):
        case = Case(lengths=(1.0,) * stages, micro_batches=1, schedule=schedule, passes=passes, message=message)
        forward, inputs, weights = passes
        expected_s = stages * (forward + inputs) + weights + 2 * (stages - 1) * case.message_s
        assert closed_form_s(case) == pytest.approx(expected_s, rel=1e-12)
        assert simulated_s(case) == pytest.approx(expected_s, rel=1e-12)


@pytest.mark.parametrize("passes", [ALIKE, REAL, LIGHT])
@pytest.mark.parametrize("message", [0.0, 0.05, 0.3])
def test_few_micro_batches_of_even_stages_put_every_weight_gradient_but_the_last_into_gaps(
    passes: tuple[float, float, float], message: float
) -> None:
    """With fewer of them than stages: exact where weight gradients may wait as long as they like."""
    for stages in (3, 4, 6, 8):
        for few in range(2, stages):
            case = Case(lengths=(1.0,) * stages, micro_batches=few, schedule="zb-2p", passes=passes, message=message)
            assert closed_form_s(case) == pytest.approx(simulated_s(case), rel=1e-12)


def test_plain_1f1b_waits_for_its_messages_whatever_runs_beside_them() -> None:
    """Only interleaved pieces have other work meanwhile."""
    for case in cases_of("1f1b", 1, "last", message=0.05, waits=True):
        assert closed_form_s(case) == closed_form_s(replace(case, waits=False))
    for case in cases_of("1f1b", 2, "last", message=0.05, waits=True):
        assert closed_form_s(case) > closed_form_s(replace(case, waits=False))


@pytest.mark.parametrize("slow", SLOW)
@pytest.mark.parametrize("passes", [ALIKE, REAL, LIGHT])
@pytest.mark.parametrize("message", MESSAGES)
@pytest.mark.parametrize("schedule", sorted(APART))
def test_weight_gradients_fill_what_they_fill_in_the_simulation(
    schedule: str, slow: str, passes: tuple[float, float, float], message: float
) -> None:
    """Exactly, whichever stage is slow, with messages and without: those of all but one micro-batch that a stage runs ahead.

    But for one layer more in the middle of many stages, with messages and light weight gradients: 0.3 %.
    """
    exact = (schedule, slow, passes, message) != ("zb-2p", "one more layer", LIGHT, 0.05)
    assert worst_error(cases_of(schedule, 1, slow, passes=passes, message=message, rounds=(2, 3))) < (1e-12 if exact else 0.003)


@pytest.mark.parametrize(
    ("virtual", "waits", "slow", "bound"),
    [
        (1, True, "none", 0.01),
        (1, True, "last", 0.008),
        (1, True, "first", 0.009),
        (1, True, "one more layer", 0.009),
        (2, True, "none", 0.012),
        (2, True, "last", 0.009),
        (4, True, "none", 0.006),
        (4, True, "last", 0.005),
        (2, False, "first", 0.025),
        (4, False, "first", 0.013),
    ],
)
def test_messages_take_what_they_take_in_the_simulation(virtual: int, waits: bool, slow: str, bound: float) -> None:
    """Within a bound, where a message is a twentieth of what a micro-batch is on a piece; in many rounds too."""
    assert worst_error(cases_of("1f1b", virtual, slow, message=0.05, waits=waits, rounds=(2, 8))) < bound


def sampled(seed: int, number: int) -> list[Case]:
    """Pipelines whose ends are 15 % shorter to 30 % longer than what lies between, where some stages have a layer more."""
    draw = random.Random(seed)  # noqa: S311 - no secret
    cases = []
    for schedule, virtual, waits in SCHEDULES * number:
        stages = draw.choice((2, 3, 4, 8))
        fuller, more = draw.randrange(stages), draw.choice((1.0, 1.1, 1.25))
        between = [more if place < fuller else 1.0 for place in range(stages - 2)]
        cases.append(
            Case(
                lengths=(draw.uniform(0.85, 1.3), *between, draw.uniform(0.85, 1.3)),
                micro_batches=stages * draw.choice((2, 3, 4)),
                schedule=schedule,
                virtual=virtual,
                waits=waits,
                passes=draw.choice((ALIKE, REAL, LIGHT)),
                message=draw.choice((0.0, 0.02, 0.05, 0.1)),
            )
        )
    return cases


SCHEDULES = (
    *(("1f1b", virtual, waits) for virtual in (1, 2, 3, 8) for waits in (False, True)),
    *((schedule, 1, False) for schedule in sorted(APART)),
)


def test_of_any_stages_the_closed_form_is_within_the_bound_that_it_states() -> None:
    """6 %; and 3 % of 19 in 20."""
    errors = sorted(abs(error_of(case)) for case in sampled(seed=14, number=12))
    assert errors[-1] < 0.06
    assert errors[int(0.95 * len(errors))] < 0.03


@pytest.mark.parametrize("schedule", sorted(APART))
@pytest.mark.parametrize("message", [0.5, 1.0, 2.0, 5.0])
def test_messages_longer_than_passes_set_the_pace_of_zero_bubble_schedules(schedule: str, message: float) -> None:
    """Of as many micro-batches as stages and of more; a closed form without them was up to 82 % too short."""
    for stages, rounds, passes in product((2, 3, 4, 8, 16), (1, 1.5, 4), (ALIKE, REAL, LIGHT)):
        case = Case(
            lengths=(1.0,) * stages,
            micro_batches=int(rounds * stages),
            schedule=schedule,
            passes=passes,
            message=message,
        )
        assert -0.12 < error_of(case) < 0.25, case


def test_messages_that_nobody_waits_for_are_never_slower() -> None:
    """A bound, for every schedule that has both."""
    for virtual, message in product((1, 2, 4), (0.02, 0.2)):
        case = Case(lengths=(1.0, 1.1, 1.0, 1.2), micro_batches=8, virtual=virtual, message=message)
        assert simulated_s(case) <= simulated_s(replace(case, waits=True))


def in_flight_peak(steps: Sequence[Step]) -> int:
    """The most pieces of micro-batches that a stage holds: each from its forward pass until its last gradient is formed."""
    tasks = [task for step in steps for task in step]
    last = WEIGHTS if any(task.kind == WEIGHTS for task in tasks) else BACKWARD
    held = peak = 0
    for task in tasks:
        held += (task.kind == FORWARD) - (task.kind == last)
        peak = max(peak, held)
    return peak


@pytest.mark.parametrize("stages", [2, 3, 4, 8])
@pytest.mark.parametrize("virtual", [1, 2, 4])
@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_1f1b_holds_as_many_micro_batches_as_the_simulation(stages: int, virtual: int, rounds: int) -> None:
    """On every stage, interleaved or not, with as few micro-batches as stages too."""
    case = Case(lengths=(1.0,) * stages, micro_batches=rounds * stages, virtual=virtual)
    for position, steps in enumerate(case.order):
        assert in_flight(case.layout, at(position)) == in_flight_peak(steps) / virtual


@pytest.mark.parametrize("micro_batches", [1, 2, 3])
def test_few_micro_batches_are_all_in_flight(micro_batches: int) -> None:
    """On the first of eight stages, under every schedule."""
    for schedule in ("1f1b", *APART):
        case = Case(lengths=(1.0,) * 8, micro_batches=micro_batches, schedule=schedule)
        assert in_flight(case.layout, at(0)) == in_flight_peak(case.order[0]) == micro_batches


@pytest.mark.parametrize(("schedule", "spare"), [("zb-h1", 0), ("zb-2p", 1)])
@pytest.mark.parametrize("stages", [2, 4, 8])
def test_zero_bubble_schedules_hold_the_same_on_every_stage(schedule: str, spare: int, stages: int) -> None:
    """ZB-H1 p; ZB-H2 one less than the 2*p that zb-2p may hold."""
    case = Case(lengths=(1.0,) * stages, micro_batches=4 * stages, schedule=schedule)
    for position, steps in enumerate(case.order):
        assert in_flight(case.layout, at(position)) == in_flight_peak(steps) + spare
