"""The parts that the time of an iteration is made of: kernels, what is exposed of each axis of parallelism, and the rest."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from typing import Final

import numpy as np

from perfmodel.errors import did_you_mean
from perfmodel.spec.arithmetic import added, either, is_nothing
from perfmodel.spec.axes import REPORTED, Axis
from perfmodel.spec.fields import Numeric, Truth

KERNELS: Final = ("matmul_s", "attention_s", "memory_bound_s")
COMMUNICATION: Final = tuple(part for axis in REPORTED for part in (axis.exposed_part, axis.bubble_part) if part)
SLOWDOWN: Final = "communication_slowdown_s"  # compute that waits for SMs which communication took
LAUNCH: Final = "launch_s"  # the GPU waiting for the CPU
UNLISTED: Final = "unlisted_s"  # work of the passes that no operator stands for, as the stack states it
OPTIMIZER: Final = "optimizer_s"
OFFLOAD: Final = "offload_s"  # waiting for what lies in the host's memory, and for what the host computes
RANKS: Final = "rank_waiting_s"  # for the last of the ranks that meet
PARTS: Final = (*KERNELS, *COMMUNICATION, SLOWDOWN, LAUNCH, UNLISTED, OPTIMIZER, OFFLOAD, RANKS)
SOMETIMES: Final = (OFFLOAD, RANKS)  # parts that most iterations do not have
WAITING: Final = (*COMMUNICATION, LAUNCH, OFFLOAD, RANKS)  # in which a GPU computes nothing
_KNOWN: Final = frozenset(PARTS)


class Breakdown:
    """Seconds of one iteration by part; they sum to the total. Parts that are not there are 0.0, and cost nothing.

    >>> parts = Breakdown(matmul_s=3.0, launch_s=1.0) + Breakdown(matmul_s=2.0)
    >>> parts.matmul_s, parts.optimizer_s, parts.total_s
    (5.0, 0.0, 6.0)
    """

    __slots__ = ("_seconds", "_total_s")
    _seconds: dict[str, Numeric]
    _total_s: Numeric | None  # once it was asked for: one breakdown is compared with several others

    def __init__(self, **seconds: Numeric) -> None:
        for part in seconds:
            if part not in _KNOWN:
                raise TypeError(f"{part} is no part of an iteration; {did_you_mean(part, PARTS)}")
        self._seconds = {part: value for part, value in seconds.items() if not is_nothing(value)}
        self._total_s = None

    @classmethod
    def _of(cls, seconds: dict[str, Numeric]) -> Breakdown:
        """A breakdown of parts that are known to be right."""
        self = cls.__new__(cls)
        self._seconds, self._total_s = seconds, None
        return self

    def __getattr__(self, part: str) -> Numeric:
        if part not in _KNOWN:
            raise AttributeError(f"{part} is no part of an iteration")
        return self._seconds.get(part, 0.0)

    def items(self) -> Iterator[tuple[str, Numeric]]:
        """Every part with its seconds, in the order of PARTS; those of SOMETIMES where there is any of them."""
        known = (part for part in PARTS if part not in SOMETIMES or part in self._seconds)
        return ((part, self._seconds.get(part, 0.0)) for part in known)

    @property
    def total_s(self) -> Numeric:
        """The sum of the parts, always in the same order, so that one layout and many give the same bits."""
        if self._total_s is None:
            present = [self._seconds[part] for part in PARTS if part in self._seconds]
            nothing: Numeric = 0.0
            self._total_s = reduce(added, present, nothing)
        return self._total_s

    def __add__(self, other: Breakdown) -> Breakdown:
        sums = dict(self._seconds)
        for part, value in other._seconds.items():
            sums[part] = sums[part] + value if part in sums else value
        return self._of(sums)

    def __mul__(self, times: Numeric) -> Breakdown:
        return self._of({part: value * times for part, value in self._seconds.items()})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Breakdown) and self._seconds == other._seconds

    def __hash__(self) -> int:
        return hash(frozenset(self._seconds.items()))

    def __repr__(self) -> str:
        return f"Breakdown({', '.join(f'{part}={value!r}' for part, value in self.items() if part in self._seconds)})"


def exposed_part(axis: Axis | None) -> str:
    """The part that exposed messages of an axis count to; those of all GPUs together belong to the optimizer step.

    >>> exposed_part(None)
    'optimizer_s'
    """
    return OPTIMIZER if axis is None else axis.exposed_part


def slower(one: Breakdown, other: Breakdown, *, there: Truth = True) -> Breakdown:
    """The parts of whichever takes longer, element by element; of `one` where the other is not `there`."""
    longer = np.asarray(other.total_s > one.total_s) & there
    return Breakdown(**{part: either(longer, getattr(other, part), seconds) for part, seconds in one.items()})
