"""Pipelines whose time is asked of the closed form and of the simulation of their schedules."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType

from perfmodel.events.pipeline_events import Pieces, simulated
from perfmodel.events.pipeline_order import Order, pipeline_order
from perfmodel.exchange.presets import stack_preset
from perfmodel.spec.layout import Layout
from perfmodel.timing.breakdown import Breakdown
from perfmodel.timing.schedule import PassPair, pipelined
from perfmodel.timing.timed_operators import Pass
from tests.layouts import RAMP_STAGE
from tests.stacks import stack_with

CORE = stack_preset("megatron-core")
ALIKE = (1.0, 1.0, 1.0)  # forward, backward of the inputs, weight gradients
REAL = (1.0, 1.2, 0.8)  # attention has no weights
LIGHT = (1.0, 1.2, 0.4)  # of long sequences: weight gradients do not fill the gaps
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


def passes_of(seconds: float, weight_s: float = 0.0) -> Pass:
    """A pass that takes so long, of which weight gradients so much."""
    return Pass(parts=Breakdown(matmul_s=seconds), weight_gradient_s=weight_s)


def closed_form_s(case: Case) -> float:
    """What perfmodel says."""
    forward, inputs, weights = case.passes

    def both(length: float) -> PassPair:
        back = passes_of(length * (inputs + weights), length * weights)
        return PassPair(forward=passes_of(length * forward), backward=back)

    fullest = max(case.lengths[1:-1], default=case.lengths[0])
    stages = [both(length) for length in (case.lengths[0], fullest, case.lengths[-1])]
    stack = stack_with(CORE, {"overlap.pipeline": not case.waits})
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


def error_of(case: Case) -> float:
    """By how much of the simulation the closed form is longer."""
    return closed_form_s(case) / simulated_s(case) - 1.0


def worst_error(cases: list[Case]) -> float:
    """The largest difference of the two, as a share of the simulation."""
    return max(abs(error_of(case)) for case in cases)


LENGTHS = MappingProxyType({"last": (-1, 1.3), "first": (0, 1.3), "one more layer": (1, 1.25), "none": (0, 1.0)})


def lengths(stages: int, slow: str) -> tuple[float, ...]:
    """Even stages but for the slow one: with the head, with the embedding, or the first between them."""
    position, length = LENGTHS[slow]
    found = [1.0] * stages
    found[position] = length
    return tuple(found)
