"""The axes of parallelism: one table from which everything that speaks of an axis derives.

A row says what an axis is called, where in an iteration its ranks communicate, and what it does to the GPUs of a run. Groups of
ranks, parts of a breakdown, steps of a waterfall, terms, colours, streams of a timeline, moves and the space of a search follow
from it (ARCHITECTURE.md, "Where to add what").
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from perfmodel.errors import InputError, did_you_mean
from perfmodel.light_dataclass import dataclass

WITHIN_LAYERS: Final = "within layers"
BETWEEN_STAGES: Final = "between stages"
BETWEEN_REPLICAS: Final = "between replicas"
PLACES: Final = (WITHIN_LAYERS, BETWEEN_STAGES, BETWEEN_REPLICAS)
ATTENTION_MESH: Final = "attention"
EXPERT_MESH: Final = "experts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One way to spread a run over GPUs.

    `name` is the field of a layout that holds its degree. `communicates` is where its messages are: within layers they are
    operators of the passes, between stages they part the passes, between replicas they run beside all passes. `joins` are the
    axes whose ranks communicate in its group too: ranks that share a sequence hold the same parameters, so their gradients are
    reduced with those of the replicas. `fills` marks the axis that takes the GPUs which the others leave. `settings` are those
    of the layout, and of the stack (stack.name), that decide what its messages cost. `also_called` is what people type for it.
    `mesh` is which of two meshes it spans: the GPUs of a pipeline stage share tokens on the one and experts on the other.
    `same_as` is the axis of the attention mesh along which the ranks of one of experts lie.
    """

    name: str
    word: str
    short: str
    members: str  # what its ranks are called
    communicates: str
    settings: tuple[str, ...] = ()
    joins: tuple[str, ...] = ()
    fills: bool = False
    also_called: tuple[str, ...] = ()
    mesh: str = ATTENTION_MESH
    same_as: str = ""

    def __post_init__(self) -> None:
        if self.communicates not in PLACES:
            raise InputError(f"{self.communicates} is nowhere in an iteration; {did_you_mean(self.communicates, PLACES)}")

    @property
    def label(self) -> str:
        """The axis in words.

        >>> TENSOR.label
        'tensor parallel'
        """
        return f"{self.word} parallel"

    @property
    def exposed_part(self) -> str:
        """The part of a breakdown that its exposed messages are.

        >>> TENSOR.exposed_part
        'tensor_parallel_exposed_s'
        """
        return f"{self.name}_exposed_s"

    @property
    def meets(self) -> str:
        """The axis along which its ranks wait for each other in its messages; "" where that is a bubble.

        >>> EXPERT.meets, TENSOR.meets, PIPELINE.meets
        ('data_parallel', 'tensor_parallel', '')
        """
        return "" if self.bubble else self.same_as or self.name

    @property
    def bubble(self) -> str:
        """What its ranks wait for each other without a message under way is called; empty where they do not.

        >>> PIPELINE.bubble, TENSOR.bubble
        ('pipeline_bubble', '')
        """
        return f"{self.word}_bubble" if self.communicates == BETWEEN_STAGES else ""

    @property
    def bubble_part(self) -> str:
        """The part of a breakdown that this wait is; empty where there is none."""
        return f"{self.bubble}_s" if self.bubble else ""

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams of a timeline on which its messages lie; those between stages go both ways.

        >>> DATA.streams
        ('data parallel',)
        """
        if self.communicates == BETWEEN_STAGES:
            return f"{self.label}: activations", f"{self.label}: gradients"
        return (self.label,)


TENSOR: Final = Axis(
    name="tensor_parallel",
    word="tensor",
    short="TP",
    members="ranks",
    communicates=WITHIN_LAYERS,
    settings=("sequence_parallel", "stack.overlap.tensor_parallel"),
)
CONTEXT: Final = Axis(
    name="context_parallel",
    word="context",
    short="CP",
    members="ranks",
    communicates=WITHIN_LAYERS,
    settings=("stack.overlap.context_parallel_exchange", "stack.overlap.balanced_context_parallel"),
)
DATA: Final = Axis(
    name="data_parallel",
    word="data",
    short="DP",
    members="replicas",
    communicates=BETWEEN_REPLICAS,
    settings=("sharding", "stack.overlap.data_parallel", "stack.overlap.blocking_zero1", "stack.overlap.bucket_rule"),
    joins=("context_parallel",),
    fills=True,
    also_called=("replicas", "gpus"),
)
PIPELINE: Final = Axis(
    name="pipeline_parallel",
    word="pipeline",
    short="PP",
    members="stages",
    communicates=BETWEEN_STAGES,
    settings=("pipeline_schedule", "stack.overlap.pipeline", "stack.overlap.scatter_gather_pipeline"),
)
EXPERT_TENSOR: Final = Axis(
    name="expert_tensor_parallel",
    word="expert tensor",
    short="ETP",
    members="ranks",
    communicates=WITHIN_LAYERS,
    mesh=EXPERT_MESH,
    same_as="tensor_parallel",
)
EXPERT: Final = Axis(
    name="expert_parallel",
    word="expert",
    short="EP",
    members="ranks",
    communicates=WITHIN_LAYERS,
    settings=("expert_load", "stack.experts.dispatcher", "stack.experts.overlap"),
    also_called=("expert_model_parallel_size",),
    mesh=EXPERT_MESH,
    same_as="data_parallel",
)


def in_groups(*axes: Axis) -> tuple[Axis, ...]:
    """The axes, once it is sure that those which communicate in one group lie side by side: a group is ranks a stride apart."""
    names = [axis.name for axis in axes]
    for place, axis in enumerate(axes):
        for joined in axis.joins:
            if joined not in names:
                raise InputError(f"{axis.name} joins {joined}, which is no axis")
            between = [each for each in names[names.index(joined) + 1 : place] if each not in axis.joins]
            if between:
                raise InputError(f"{axis.name} joins {joined}, with {between[0]} between them, which it does not join")
    return axes


MESH: Final = in_groups(TENSOR, CONTEXT, DATA, PIPELINE)  # from the innermost, whose ranks are neighbours, to the outermost
OF_EXPERTS: Final = in_groups(EXPERT_TENSOR, EXPERT)  # the same, on the GPUs of a pipeline stage
AXES: Final = (*MESH, *OF_EXPERTS)
BY_NAME: Final[Mapping[str, Axis]] = MappingProxyType({axis.name: axis for axis in AXES})
REPORTED: Final = tuple(sorted(AXES, key=lambda axis: PLACES.index(axis.communicates)))  # as an iteration is made of them
(FILLING,) = (axis for axis in AXES if axis.fills)
CHOSEN: Final = tuple(axis for axis in REPORTED if not axis.fills)  # whose degrees a layout chooses; the filling one follows
REPLICA_AXES: Final = tuple(  # the product of their degrees: GPUs of one replica
    axis for axis in REPORTED if axis.mesh == ATTENTION_MESH and not axis.fills
)


def axes_that_communicate(place: str) -> tuple[Axis, ...]:
    """The axes whose messages are at one of PLACES.

    >>> [axis.short for axis in axes_that_communicate(WITHIN_LAYERS)]
    ['TP', 'CP', 'ETP', 'EP']
    """
    return tuple(axis for axis in AXES if axis.communicates == place)


def axis_named(name: str) -> Axis:
    """The axis called so. Errors: InputError with a did-you-mean.

    >>> axis_named("pipeline_parallel").short
    'PP'
    """
    if name not in BY_NAME:
        raise InputError(f"{name} is no axis of parallelism; {did_you_mean(name, BY_NAME)}")
    return BY_NAME[name]
