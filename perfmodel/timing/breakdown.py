"""The parts that the time of an iteration is made of."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

import numpy as np
from numpy.typing import NDArray

from perfmodel.spec.fields import Numeric


@dataclass(frozen=True, slots=True, kw_only=True)
class Breakdown:
    """Seconds of one iteration by part; they sum to the total."""

    matmul_s: Numeric = 0.0
    attention_s: Numeric = 0.0
    memory_bound_s: Numeric = 0.0
    tensor_parallel_exposed_s: Numeric = 0.0
    context_parallel_exposed_s: Numeric = 0.0
    pipeline_parallel_exposed_s: Numeric = 0.0
    pipeline_bubble_s: Numeric = 0.0  # the slowest stage waiting for the others to fill and drain the pipeline
    data_parallel_exposed_s: Numeric = 0.0
    communication_slowdown_s: Numeric = 0.0  # compute that waits for SMs which communication took
    launch_s: Numeric = 0.0  # the GPU waiting for the CPU
    unlisted_s: Numeric = 0.0  # work of the passes that no operator stands for, as the stack states it
    optimizer_s: Numeric = 0.0

    @property
    def total_s(self) -> Numeric:
        """The sum of the parts."""
        total: Numeric = 0.0
        for part in PARTS:
            total = added(total, getattr(self, part))
        return total

    def __add__(self, other: Breakdown) -> Breakdown:
        return Breakdown(**{part: added(getattr(self, part), getattr(other, part)) for part in PARTS})

    def __mul__(self, times: Numeric) -> Breakdown:
        return Breakdown(**{part: multiplied(getattr(self, part), times) for part in PARTS})


PARTS: Final = tuple(part.name for part in fields(Breakdown))


def added(one: Numeric, other: Numeric) -> Numeric:
    """one + other, at no cost where one of them is the number 0: of a million layouts, most parts are nothing."""
    if isinstance(other, float) and other == 0.0:
        return one
    return other if isinstance(one, float) and one == 0.0 else one + other


def multiplied(one: Numeric, times: Numeric) -> Numeric:
    """one * times, at no cost where `one` is the number 0."""
    return one if isinstance(one, float) and one == 0.0 else one * times


def slower(one: Breakdown, other: Breakdown) -> Breakdown:
    """The parts of whichever takes longer, element by element."""
    longer = np.asarray(other.total_s > one.total_s)
    return Breakdown(**{part: _chosen(longer, getattr(other, part), getattr(one, part)) for part in PARTS})


def _chosen(condition: NDArray[np.bool_], yes: Numeric, no: Numeric) -> Numeric:
    return no if isinstance(yes, float) and isinstance(no, float) and yes == no else np.where(condition, yes, no)
