"""Do the closed forms of pipelines take as long, and hold as many micro-batches, as a simulation of their schedules?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from types import MappingProxyType

import pytest

from perfmodel.count.pipeline import PipelineStage, in_flight
from perfmodel.events.pipeline_events import Pieces, simulated
from perfmodel.events.pipeline_order import BACKWARD, FORWARD, WEIGHTS, Order, Step, pipeline_order, zero_bubble_h2
from perfmodel.exchange.presets import stack_preset
from perfmodel.spec.layout import Layout
from perfmodel.timing.breakdown import Breakdown
from perfmodel.timing.passes import Pass
from perfmodel.timing.schedule import Both, pipelined
from tests.layouts import RAMP_STAGE

CORE = stack_preset("megatron-core")
ALIKE = (1.0, 1.0, 1.0)  # forward, backward of the inputs, weight gradients
REAL = (1.0, 1.2, 0.8)  # attention has no weights
APART = {"zb-h1", "zb-2p"}  # weight gradients are tasks of their own


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Stages whose passes are `lengths` times `passes`; `message` is a share of what a micro-batch takes on an even piece."""

    lengths: tuple[float, ...]
    micro_batches: int
    schedule: str = "1f1b"
    virtual: int = 1
    passes: tuple[float, float, float] = ALIKE
    message: float = 0.0
    waits: bool = False

    @property
    def stages(self) -> int:
        """How many there are."""
        return len(self.lengths)

    @property
    def message_s(self) -> float:
        """Seconds of one message, either way."""
        return self.message * sum(self.passes) / self.virtual

    @property
    def layout(self) -> Layout:
        """The same as a layout."""
        return replace(
            RAMP_STAGE,
            tensor_parallel=1,
            data_parallel=1,
            sequence_parallel=False,
            pipeline_parallel=self.stages,
            virtual_pipeline=self.virtual,
            pipeline_schedule=self.schedule,
            global_batch_size=self.micro_batches,
        )

    @property
    def order(self) -> Order:
        """What each stage runs."""
        return pipeline_order(self.layout)


def at(position: int) -> PipelineStage:
    """A stage that is told by its position."""
    return PipelineStage(layers=1, embedding=0, head=0, position=position)


def passes_of(seconds: float, weight_s: float = 0.0) -> Pass:
    """A pass that takes so long, of which weight gradients so much."""
    return Pass(parts=Breakdown(matmul_s=seconds), weight_gradient_s=weight_s)


def closed_form_s(case: Case) -> float:
    """What perfmodel says."""
    forward, inputs, weights = case.passes

    def both(length: float) -> Both:
        back = passes_of(length * (inputs + weights), length * weights)
        return Both(forward=passes_of(length * forward), backward=back)

    fullest = max(case.lengths[1:-1], default=case.lengths[0])
    stages = [both(length) for length in (case.lengths[0], fullest, case.lengths[-1])]
    stack = replace(CORE, pipeline_overlap=not case.waits)
    whole = both(sum(case.lengths))
    return float(pipelined(stages, whole, case.message_s, layout=case.layout, stack=stack).total_s)


def simulated_s(case: Case) -> float:
    """What the simulation says; zero-bubble schedules run the optimizer of a stage without waiting for the others."""
    forward, inputs, weights = case.passes
    backward = inputs if case.schedule in APART else inputs + weights
    lengths = [length / case.virtual for length in case.lengths * case.virtual]
    pieces = Pieces(
        forward_s=[length * forward for length in lengths],
        backward_s=[length * backward for length in lengths],
        weight_s=[length * weights for length in lengths] if case.schedule in APART else (),
    )
    return simulated(case.order, pieces, message_s=case.message_s, waits=case.waits).longest_s


def worst_error(cases: list[Case]) -> float:
    """The largest relative difference of the two."""
    return max(abs(closed_form_s(case) / simulated_s(case) - 1.0) for case in cases)


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


LENGTHS = MappingProxyType({"last": (-1, 1.3), "first": (0, 1.3), "one more layer": (1, 1.25), "none": (0, 1.0)})


def lengths(stages: int, slow: str) -> tuple[float, ...]:
    """Even stages but for the slow one: with the head, with the embedding, or the first between them."""
    position, length = LENGTHS[slow]
    found = [1.0] * stages
    found[position] = length
    return tuple(found)


@pytest.mark.parametrize(
    ("schedule", "virtual", "slow"),
    [
        ("1f1b", 1, "last"),
        ("1f1b", 1, "first"),
        ("1f1b", 1, "one more layer"),
        ("1f1b", 2, "last"),
        ("1f1b", 2, "first"),
        ("1f1b", 2, "one more layer"),
        ("zb-h1", 1, "last"),
        ("zb-h1", 1, "first"),
        ("zb-h1", 1, "one more layer"),
        ("zb-2p", 1, "last"),
        ("zb-2p", 1, "first"),
        ("zb-2p", 1, "one more layer"),
    ],
)
def test_stages_that_differ_take_what_their_slowest_path_takes(schedule: str, virtual: int, slow: str) -> None:
    """Within 3 %, from 2*p micro-batches on."""
    cases = [
        Case(lengths=lengths(stages, slow), micro_batches=rounds * stages, schedule=schedule, virtual=virtual, passes=REAL)
        for stages, rounds in product((4, 8), (2, 4))
    ]
    assert worst_error(cases) < 0.03


@pytest.mark.parametrize(
    ("schedule", "virtual", "waits", "slow", "stages"),
    [
        ("1f1b", 1, True, "none", (3, 4, 8)),
        ("1f1b", 1, True, "none", (2,)),
        ("1f1b", 1, True, "last", (2, 4, 8)),
        ("1f1b", 2, True, "none", (2, 4, 8)),
        ("1f1b", 4, True, "last", (2, 4, 8)),
        ("1f1b", 2, False, "none", (2, 4, 8)),
        ("1f1b", 2, False, "last", (2, 4, 8)),
        ("1f1b", 8, False, "none", (2, 4, 8)),
        ("zb-h1", 1, False, "none", (2, 4, 8)),
        ("zb-2p", 1, False, "none", (2, 4, 8)),
    ],
)
def test_messages_take_what_they_take_in_the_simulation(
    schedule: str, virtual: int, waits: bool, slow: str, stages: tuple[int, ...]
) -> None:
    """Within 3 %, where a message is a twentieth of what a micro-batch is on a piece."""
    cases = [
        Case(
            lengths=lengths(number, slow),
            micro_batches=rounds * number,
            schedule=schedule,
            virtual=virtual,
            passes=REAL,
            message=0.05,
            waits=waits,
        )
        for number, rounds in product(stages, (2, 4, 16))
    ]
    assert worst_error(cases) < 0.03


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
