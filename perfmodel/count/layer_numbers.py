"""How many layers of each kind the pipeline stages hold, and how many of them are not run again.

Where all layers are alike, these are the numbers that a split deals out. Where there are several kinds, every piece of the
pipeline is walked through in the order of the model: pieces of one stage lie p pieces apart, and layers are run again from the
first of a stage on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from perfmodel.count.flops import layer_flop_per_token
from perfmodel.spec.fields import Numeric, whole
from perfmodel.spec.pipeline_layout import PipelinePieces
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

    The fullest stage between the ends is the one whose layers have most FLOPs.
    """
    layout, kinds = setup.layout, tuple(setup.model.kinds)
    again = np.inf if layout.recompute_layers is None else layout.recompute_layers
    costs = [layer_flop_per_token(setup.model, kind, layout.sequence_length) for kind in kinds]
    numbers = (dealt.first, dealt.between, dealt.last, layout.pipeline_parallel, layout.virtual_pipeline, again, *costs)
    rows = np.broadcast_arrays(*map(np.asarray, numbers))
    distinct, places = np.unique(np.stack([each.ravel() for each in rows]), axis=1, return_inverse=True)
    walked = np.asarray([_walked(setup, row) for row in distinct.T])  # (splits, stages, every or plain, kinds)
    found = walked[places.reshape(rows[0].shape)]

    def of(stage: int) -> LayerNumbers:
        every, plain = ({kind: found[..., stage, which, at] for at, kind in enumerate(kinds)} for which in (0, 1))
        return LayerNumbers(every=every, plain=plain)

    return NumbersOfStages(first=of(0), middle=of(1), last=of(2), between=of(3))


def numbers_as_written(setup: Setup, pieces: PipelinePieces) -> NumbersOfStages:
    """Layers of each stage of a single layout whose pieces are written down."""
    layout, kinds = setup.layout, tuple(setup.model.kinds)
    again = np.inf if layout.recompute_layers is None else float(layout.recompute_layers)
    costs = [float(layer_flop_per_token(setup.model, kind, layout.sequence_length)) for kind in kinds]
    found = _dealt(setup, pieces.layers, whole(np.max(layout.pipeline_parallel)), again, costs)

    def of(stage: int) -> LayerNumbers:
        every, plain = (dict(zip(kinds, numbers, strict=True)) for numbers in found[stage])
        return LayerNumbers(every=every, plain=plain)

    return NumbersOfStages(first=of(0), middle=of(1), last=of(2), between=of(3))


def _walked(setup: Setup, row: Sequence[float]) -> list[list[list[int]]]:
    """`_dealt` of one split.

    A row holds the layers of the first stage, of those between and of the last; stages, pieces of each, how many layers of a
    stage run again, and what a layer of each kind costs.
    """
    first, between, last, stages, virtual = (whole(each) for each in row[:5])
    pieces = piece_layers(stage_layers(first, between, last, stages), virtual)
    return _dealt(setup, pieces, stages, row[5], row[6:])


def _dealt(setup: Setup, pieces: Sequence[int], stages: int, again: float, costs: Sequence[float]) -> list[list[list[int]]]:
    """First, fullest middle, last and all middle stages; all layers and those not run again; by kind."""
    model, kinds = setup.model, tuple(setup.model.kinds)
    left = [min(again, sum(pieces[stage::stages])) for stage in range(stages)]  # still to run again
    every, plain = np.zeros((2, stages, len(kinds)), dtype=np.int64)
    begin = 0
    for place, number in enumerate(pieces):
        stage = place % stages
        rerun = whole(min(left[stage], number))
        left[stage] -= rerun
        for at, kind in enumerate(kinds):
            every[stage, at] += whole(model.layers_of(kind, begin, number))
            plain[stage, at] += whole(model.layers_of(kind, begin + rerun, number - rerun))
        begin += number
    inner = range(1, max(stages - 1, 1))
    fullest = max(inner, key=lambda stage: float(every[stage] @ np.asarray(costs)), default=0)
    inside = slice(1, max(stages - 1, 1))
    chosen = [
        *([every[stage], plain[stage]] for stage in (0, fullest, stages - 1)),
        [every[inside].sum(axis=0), plain[inside].sum(axis=0)],
    ]
    return [[each.tolist() for each in pair] for pair in chosen]


def stage_layers(first: int, between: int, last: int, stages: int) -> list[int]:
    """Layers of each stage; between the ends the first ones are the fullest.

    >>> stage_layers(3, 7, 2, 4)
    [3, 4, 3, 2]
    """
    if stages == 1:
        return [first]
    inner = stages - 2
    return [first, *(between // inner + (place < between % inner) for place in range(inner)), last]


def piece_layers(layers: Sequence[int], virtual: int) -> list[int]:
    """Layers of each piece in the order of the model; what does not divide leaves the ends of the model a layer fewer.

    >>> piece_layers([3, 4], 2)
    [1, 2, 2, 2]
    """
    stages = len(layers)
    pieces = []
    for place in range(stages * virtual):
        stage, chunk = place % stages, place // stages
        least, more = divmod(layers[stage], virtual)
        pieces.append(least + (chunk >= virtual - more if stage == 0 else chunk < more))
    return pieces
