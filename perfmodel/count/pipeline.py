"""Which part of the model each pipeline stage holds, and how many micro-batches it has in flight.

Symbols: L layers, p pipeline_parallel, v virtual_pipeline, i = 0 .. p - 1 a stage.

Layers that do not divide over the stages leave the ends one layer fewer than those between where that is enough: what
Megatron-Core does where the head, or the embedding and the head, count as layers (account_for_embedding_in_pipeline_split and
account_for_loss_in_pipeline_split). Where more are missing, they are missing in the last piece, and in the first what is more
than it has: the layouts that NVIDIA writes down for the 61 layers of DeepSeek-V3, whose last piece has the loss and the layer
that predicts a further token (Megatron-Bridge, recipes/deepseek: Et*4|(tttt|)*14tmL of 16 pieces, Et|(tt|)*30mL of 32). Other
software counts the embedding, the last norm and the head as modules like any layer, and gives the first stages what is left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from perfmodel.count.declarations import expert_shards
from perfmodel.count.layer_numbers import (
    LayerNumbers,
    StageLayers,
    numbers_as_written,
    numbers_by_kind,
    numbers_of_one_kind,
)
from perfmodel.count.parameters import ParameterCount, held_parameters
from perfmodel.spec.fields import Numeric, chosen, whole
from perfmodel.spec.layout import EVEN, Layout
from perfmodel.spec.model import TransformerModel
from perfmodel.spec.pipeline_layout import PipelinePieces, pipeline_pieces
from perfmodel.spec.setup import Setup


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineStage:
    """What one pipeline stage holds: layers of each kind, 1 or 0 embeddings and heads; `number` is how many are like it."""

    layers: Numeric
    held: LayerNumbers
    embedding: Numeric
    head: Numeric
    position: Numeric  # i, from 0
    parameters: ParameterCount  # on one GPU
    number: Numeric = 1


class PipelineStages(NamedTuple):
    """The first stage, the fullest of those between (`number` 0 where there is none), and the last; all equal for p = 1."""

    first: PipelineStage
    middle: PipelineStage
    last: PipelineStage


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineSplit:
    """The distinct stages of a layout, and the layers of all that lie between the ends."""

    stages: PipelineStages
    between: LayerNumbers


def pipeline_split(setup: Setup) -> PipelineSplit:
    """How the layers of a model are dealt out over the pipeline stages of a layout.

    >>> from dataclasses import replace
    >>> from perfmodel.exchange.run_files import read_candidates
    >>> run = read_candidates("nemotron-4-15b")[0].run
    >>> setup = run.setup(run.stages[0])
    >>> uneven = replace(setup, model=replace(run.model, layers=30), layout=replace(setup.layout, pipeline_parallel=8))
    >>> [float(stage.layers) for stage in pipeline_split(uneven).stages]
    [3.0, 4.0, 3.0]
    """
    model, layout = setup.model, setup.layout
    if layout.pipeline_layout != EVEN:
        return _split_as_written(setup, pipeline_pieces(layout.pipeline_layout))
    split = _split_by_layers if setup.stack.states.pipeline_split == "layers" else _split_by_modules
    first, middle, last = split(model, layout)
    layers, pipeline = np.asarray(model.layers), np.asarray(layout.pipeline_parallel)
    several = pipeline > 1
    alone, number = chosen(several, 0, 1), np.maximum(pipeline - 2, 0)
    ends = chosen(several, first, layers), chosen(several, last, layers)
    between = model.layers - ends[0] - ends[1] * np.minimum(pipeline - 1, 1)
    dealt = StageLayers(first=ends[0], middle=middle, last=ends[1], between=between, stages_between=number)
    held = (numbers_of_one_kind if len(model.kinds) == 1 else numbers_by_kind)(setup, dealt)

    return PipelineSplit(
        stages=PipelineStages(
            first=_stage(setup, held.first, layers=ends[0], embedding=1, head=alone, position=0),
            middle=_stage(setup, held.middle, layers=middle, embedding=0, head=0, position=1, number=number),
            last=_stage(setup, held.last, layers=ends[1], embedding=alone, head=1, position=pipeline - 1),
        ),
        between=held.between,
    )


def _split_as_written(setup: Setup, pieces: PipelinePieces) -> PipelineSplit:
    """The stages of a single layout whose pieces are written down."""
    stages = whole(np.max(setup.layout.pipeline_parallel))
    held = numbers_as_written(setup, pieces)
    alone = 1 if stages == 1 else 0
    first, middle, last, _ = (sum(numbers.every.values()) for numbers in (held.first, held.middle, held.last, held.between))
    return PipelineSplit(
        stages=PipelineStages(
            first=_stage(setup, held.first, layers=first, embedding=1, head=alone, position=0),
            middle=_stage(setup, held.middle, layers=middle, embedding=0, head=0, position=1, number=max(stages - 2, 0)),
            last=_stage(setup, held.last, layers=last, embedding=alone, head=1, position=stages - 1),
        ),
        between=held.between,
    )


def _stage(
    setup: Setup,
    held: LayerNumbers,
    *,
    layers: Numeric,
    embedding: Numeric,
    head: Numeric,
    position: Numeric,
    number: Numeric = 1,
) -> PipelineStage:
    """One stage with the parameters of what it holds."""
    parameters = held_parameters(
        setup.model,
        held.every,
        embedding=embedding,
        head=head,
        tensor_parallel=setup.layout.tensor_parallel,
        experts=expert_shards(setup.layout),
    )
    return PipelineStage(
        layers=layers,
        held=held,
        embedding=embedding,
        head=head,
        position=position,
        parameters=parameters,
        number=number,
    )


def _split_by_modules(model: TransformerModel, layout: Layout) -> tuple[Numeric, Numeric, Numeric]:
    """Layers of the first, the fullest middle and the last stage, where embedding, last norm and head count as a layer each."""
    pipeline = np.asarray(layout.pipeline_parallel)
    modules = np.asarray(model.layers) + 3
    least = np.floor(modules / pipeline)
    longer = modules - least * pipeline  # stages with a module more, from the first on
    first = np.maximum(least + (longer > 0) - 1, 0)
    middle = np.minimum(least + (longer > 1), np.maximum(np.asarray(model.layers) - first, 0))
    return first, middle, np.maximum(least - 2, 0)


def _split_by_layers(model: TransformerModel, layout: Layout) -> tuple[Numeric, Numeric, Numeric]:
    """Layers of the first stage, of the fullest middle one and of the last, as `stages_by_layers` deals them out."""
    return stages_by_layers(model.layers, layout.pipeline_parallel, layout.virtual_pipeline)


def stages_by_layers(layers: Numeric, stages: Numeric, virtual: Numeric) -> tuple[Numeric, Numeric, Numeric]:
    """Layers of the first stage, of the fullest between the ends, and of the last.

    Longer stages lie in the middle if they can. Where all would be as full as the fullest but for three layers or more, the
    last piece lacks them, and the first what the last has not got.

    >>> [[int(layers) for layers in stages_by_layers(*numbers)] for numbers in ((62, 8, 1), (61, 16, 1), (61, 8, 4))]
    [[7, 8, 7], [4, 4, 1], [7, 8, 6]]
    """
    pipeline = np.asarray(stages)
    least = np.floor(layers / pipeline)
    longer = layers - least * pipeline
    between = np.maximum(pipeline - 2, 0)
    fullest = least + (longer > 0)
    first = least + (longer > between)
    last = layers - first - between * least - np.minimum(longer, between)
    missing, piece = fullest * pipeline - layers, fullest / virtual
    spared = np.minimum(missing, piece)
    is_filled = (missing > 2) & (piece == np.floor(piece)) & (missing - spared < piece) & (pipeline > 1)
    return chosen(is_filled, fullest - missing + spared, first), fullest, chosen(is_filled, fullest - spared, last)


def in_flight(layout: Layout, stage: PipelineStage) -> Numeric:
    """How many micro-batches' activations a stage holds at its peak; pieces of one count as their share.

    1f1b          min(p - i, m)
    interleaved   min(((v - 1)*p + 2*(p - 1 - i) + 1) / v, m)    arXiv:2104.04473, section 2.2, Megatron's warm-up
    zb-h1, zb-1p  min(p, m)       a stage that waits to form weight gradients keeps what they need
    zb-2p         min(2*p, m)     arXiv:2401.10241, section 2

    >>> from perfmodel.exchange.run_files import read_candidates
    >>> from dataclasses import replace
    >>> run = read_candidates("nemotron-4-15b")[0].run
    >>> setup = run.setup(run.stages[0])
    >>> layout = replace(setup.layout, pipeline_parallel=4, virtual_pipeline=2, global_batch_size=96 * 64)
    >>> float(in_flight(layout, pipeline_split(replace(setup, layout=layout)).stages.first))
    5.5
    """
    pipeline, virtual = np.asarray(layout.pipeline_parallel), np.asarray(layout.virtual_pipeline)
    after = pipeline - 1 - stage.position
    if layout.pipeline_schedule == "1f1b":
        held = chosen(virtual > 1, ((virtual - 1) * pipeline + 2 * after + 1) / virtual, after + 1)
    else:
        held = (2 if layout.pipeline_schedule == "zb-2p" else 1) * pipeline
    return np.minimum(held, layout.micro_batches)
