"""The axes of parallelism: one table from which everything that speaks of an axis derives.

A row says what an axis is called and what it does to the GPUs of a run. Groups of ranks, parts of a breakdown, steps of a
waterfall, terms, colours, streams of a timeline, moves and the space of a search follow from it (ARCHITECTURE.md, "Where to add
what"). AXES goes from the innermost axis, whose ranks are neighbours, to the outermost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from perfmodel.errors import InputError, did_you_mean


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One way to spread a run over GPUs.

    `name` is the field of a layout that holds its degree. `joins` are the axes whose ranks communicate in its group too: ranks
    that share a sequence hold the same parameters, so their gradients are reduced with those of the replicas. `fills` marks the
    axis that takes the GPUs which the others leave. `waits` is the part of a breakdown in which its ranks wait for each other
    without a message under way, "" where there is none.
    """

    name: str
    short: str
    label: str
    members: str  # what its ranks are called
    exposed_label: str  # of its messages that nothing hides
    stream: str  # of a timeline, on which its messages lie
    joins: tuple[str, ...] = ()
    fills: bool = False
    waits: str = ""

    @property
    def exposed_part(self) -> str:
        """The part of a breakdown that its exposed messages are.

        >>> TENSOR.exposed_part
        'tensor_parallel_exposed_s'
        """
        return f"{self.name}_exposed_s"


TENSOR: Final = Axis(
    name="tensor_parallel",
    short="TP",
    label="tensor parallel",
    members="ranks",
    exposed_label="exposed tensor parallel",
    stream="tensor parallel",
)
CONTEXT: Final = Axis(
    name="context_parallel",
    short="CP",
    label="context parallel",
    members="ranks",
    exposed_label="exposed context parallel",
    stream="context parallel",
)
DATA: Final = Axis(
    name="data_parallel",
    short="DP",
    label="data parallel",
    members="replicas",
    exposed_label="exposed data parallel",
    stream="data parallel",
    joins=("context_parallel",),
    fills=True,
)
PIPELINE: Final = Axis(
    name="pipeline_parallel",
    short="PP",
    label="pipeline parallel",
    members="stages",
    exposed_label="exposed pipeline messages",
    stream="pipeline parallel",
    waits="pipeline_bubble_s",
)
AXES: Final = (TENSOR, CONTEXT, DATA, PIPELINE)
BY_NAME: Final[Mapping[str, Axis]] = MappingProxyType({axis.name: axis for axis in AXES})


def axis_named(name: str) -> Axis:
    """The axis called so. Errors: InputError with a did-you-mean.

    >>> axis_named("pipeline_parallel").short
    'PP'
    """
    if name not in BY_NAME:
        raise InputError(f"{name} is no axis of parallelism; {did_you_mean(name, BY_NAME)}")
    return BY_NAME[name]
