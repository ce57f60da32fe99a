"""How many layers of each kind the pipeline stages hold, and how many of them are not run again.

Where all layers are alike, these are the numbers that a split deals out. Where there are several kinds, every piece of the
pipeline is walked through in the order of the model: pieces of one stage lie p pieces apart, and layers are run again from the
first of a stage on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from perfmodel.count.flops import layer_flop_per_token
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.fields import Numeric, whole
from perfmodel.spec.pipeline_layout import PipelinePieces, piece_layers, stage_layers
from perfmodel.spec.setup import Setup


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerNumbers:
    """How many layers of each kind, and how many of these are not run again."""

    every: Mapping[str, Numeric]
    plain: Mapping[str, Numeric]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageLayers:
    """Layers of the first stage, of the fullest between the ends, of the last, and of all between the ends together."""

    first: Numeric
    middle: Numeric
    last: Numeric
    between: Numeric
    stages_between: Numeric


@dataclass(frozen=True, slots=True, kw_only=True)
class NumbersOfStages:
    """How many layers of each kind each pipeline stage holds."""

    first: LayerNumbers
    middle: LayerNumbers
    last: LayerNumbers
    between: LayerNumbers


def numbers_of_one_kind(setup: Setup, dealt: StageLayers) -> NumbersOfStages:
    """Layers of each stage for a model with one kind of layer; plain ones are those beyond `recompute_layers`."""
    (kind,) = setup.model.kinds
    again = setup.layout.recompute_layers

    def numbers(layers: Numeric, stages: Numeric = 1) -> LayerNumbers:
        plain = 0 if again is None else np.maximum(layers - again * stages, 0)
        return LayerNumbers(every={kind: layers}, plain={kind: plain})

    return NumbersOfStages(
        first=numbers(dealt.first),
        middle=numbers(dealt.middle),
        last=numbers(dealt.last),
        between=numbers(dealt.between, dealt.stages_between),
    )


def numbers_by_kind(setup: Setup, dealt: StageLayers) -> NumbersOfStages:
    """Layers of each stage for a model with several kinds; each distinct split is walked through once.

    The fullest stage between the ends is the one whose layers have most FLOPs. How many layers there are does not depend on
    how many of them run again, so of many layouts these numbers have no axis for that.
    """
    layout, again = setup.layout, setup.layout.recompute_layers
    sizes = (dealt.first, dealt.between, dealt.last, layout.pipeline_parallel, layout.virtual_pipeline, *_costs(setup))
    walks: dict[tuple[float, ...], _Walk] = {}

    def walk(row: tuple[float, ...]) -> _Walk:
        if row not in walks:
            first, between, last, stages, virtual = (whole(each) for each in row[:5])
            pieces = piece_layers(stage_layers(first, between, last, stages), virtual)
            walks[row] = _Walk(setup, pieces, stages, row[5:])
        return walks[row]

    every = _of_distinct(sizes, lambda row: walk(row).every)
    plain = 0 * every if again is None else _of_distinct((*sizes, again), lambda row: walk(row[:-1]).plain(row[-1]))
    return _by_stage(setup, every, plain)


def numbers_as_written(setup: Setup, pieces: PipelinePieces) -> NumbersOfStages:
    """Layers of each stage of a single layout whose pieces are written down."""
    again = setup.layout.recompute_layers
    walk = _Walk(setup, pieces.layers, whole(np.max(setup.layout.pipeline_parallel)), tuple(map(float, _costs(setup))))
    return _by_stage(setup, walk.every, walk.plain(np.inf if again is None else float(again)))


def numbers_of_every_stage(setup: Setup, pieces: Sequence[int]) -> tuple[LayerNumbers, ...]:
    """Layers of each stage of a single layout, whose pieces hold so many layers, in the order of the stages."""
    again = setup.layout.recompute_layers
    walk = _Walk(setup, pieces, whole(setup.layout.pipeline_parallel), tuple(map(float, _costs(setup))))
    every, plain = walk.every_by_stage, walk.plain_by_stage(np.inf if again is None else float(again))
    kinds = tuple(setup.model.kinds)
    return tuple(
        LayerNumbers(every=dict(zip(kinds, of_every, strict=True)), plain=dict(zip(kinds, of_plain, strict=True)))
        for of_every, of_plain in zip(every.tolist(), plain.tolist(), strict=True)
    )


def _costs(setup: Setup) -> list[Numeric]:
    """FLOPs a token of a layer of each kind."""
    return [layer_flop_per_token(setup.model, kind, setup.layout.sequence_length) for kind in setup.model.kinds]


def _of_distinct(numbers: Sequence[Numeric], found: Callable[[tuple[float, ...]], NDArray[np.int64]]) -> NDArray[np.int64]:
    """What `found` gives for the numbers at each place of their broadcast shape, asked once for equal ones; its axes last."""
    if all(np.ndim(number) == 0 for number in numbers):
        return found(tuple(float(number) for number in numbers))
    rows = np.broadcast_arrays(*map(np.asarray, numbers))
    distinct, places = np.unique(np.stack([each.ravel() for each in rows]), axis=1, return_inverse=True)
    return np.asarray([found(tuple(row)) for row in distinct.T.tolist()])[places.reshape(rows[0].shape)]


def _by_stage(setup: Setup, every: NDArray[np.int64], plain: NDArray[np.int64]) -> NumbersOfStages:
    """The numbers of arrays whose last axes are those of `_Walk`."""

    def of(stage: int) -> LayerNumbers:
        both = ({kind: each[..., stage, at] for at, kind in enumerate(setup.model.kinds)} for each in (every, plain))
        return LayerNumbers(every=next(both), plain=next(both))

    return NumbersOfStages(first=of(0), middle=of(1), last=of(2), between=of(3))


class _Walk:
    """The way through all pieces of a pipeline in the order of the model: which layers each stage meets.

    Arrays have an axis for the first stage, the fullest between the ends, the last, and all between the ends together; then
    one for the kinds of layers.
    """

    def __init__(self, setup: Setup, pieces: Sequence[int], stages: int, costs: Sequence[float]) -> None:
        self.pieces = np.asarray(pieces, dtype=np.int64).reshape(-1, stages)  # of each stage one below the other
        self.ends = np.cumsum(self.pieces.ravel()).reshape(self.pieces.shape)
        layers = np.arange(self.ends[-1, -1] + 1)
        self.before = np.stack(
            [np.broadcast_to(setup.model.layers_of(kind, 0, layers), layers.shape) for kind in setup.model.kinds]
        )
        self.every_by_stage = by_stage = self._counted(self.ends - self.pieces)
        inner = range(1, max(stages - 1, 1))
        self.fullest = max(inner, key=lambda stage: float(by_stage[stage] @ np.asarray(costs)), default=0)
        self.every = self._chosen(by_stage)

    def plain(self, again: float) -> NDArray[np.int64]:
        """Layers that do not run again where the first `again` of every stage do."""
        return self._chosen(self.plain_by_stage(again))

    def plain_by_stage(self, again: float) -> NDArray[np.int64]:
        """Layers of each stage (rows) and kind that do not run again where the first `again` of every stage do."""
        met = np.cumsum(self.pieces, axis=0) - self.pieces  # by the stage, before each piece
        rerun = np.clip(np.minimum(again, self.ends[-1, -1]) - met, 0, self.pieces).astype(np.int64)
        return self._counted(self.ends - self.pieces + rerun)

    def _counted(self, begin: NDArray[np.int64]) -> NDArray[np.int64]:
        """Layers of each stage (rows) and kind that lie from `begin` to the end of each piece."""
        return np.asarray((self.before[:, self.ends] - self.before[:, begin]).sum(axis=1).T)

    def _chosen(self, by_stage: NDArray[np.int64]) -> NDArray[np.int64]:
        between = by_stage[1 : max(len(by_stage) - 1, 1)].sum(axis=0)
        return np.stack([by_stage[0], by_stage[self.fullest], by_stage[-1], between])
