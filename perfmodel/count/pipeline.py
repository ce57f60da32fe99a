"""Which part of the model each pipeline stage holds, and how many micro-batches it has in flight.

Symbols: L layers, p pipeline_parallel, v virtual_pipeline, i = 0 .. p - 1 a stage.

Layers are dealt out as spec/pipeline_layout.py says. Other software counts the embedding, the last norm and the head as
modules like any layer, and gives the first stages what is left over, or follows the weights of layers and head.
"""

from __future__ import annotations

from functools import cached_property, reduce
from typing import Final, NamedTuple

import numpy as np

from perfmodel.count.declarations import expert_shards
from perfmodel.count.layer_numbers import (
    LayerNumbers,
    StageLayers,
    numbers_as_written,
    numbers_by_kind,
    numbers_of_every_stage,
    numbers_of_one_kind,
)
from perfmodel.count.parameters import ParameterCount, held_parameters, most_parameters
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.fields import Numeric, chosen, whole
from perfmodel.spec.layout import EVEN, Layout
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.pipeline_layout import (
    PipelinePieces,
    layers_of_ends,
    piece_layers,
    pipeline_pieces,
    stage_layers,
)
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
    number: Numeric


class PipelineStages(NamedTuple):
    """The first stage, the fullest of those between (`number` 0 where there is none), and the last; all equal for p = 1."""

    first: PipelineStage
    middle: PipelineStage
    last: PipelineStage


@dataclass(frozen=True, kw_only=True)
class PipelineSplit:
    """The distinct stages of a layout, and the layers of all that lie between the ends."""

    stages: PipelineStages
    between: LayerNumbers

    @cached_property
    def most_parameters(self) -> ParameterCount:
        """Those of the stage that has most of them."""
        return most_parameters([stage.parameters.times(there) for stage, there in self._present])

    @cached_property
    def most_layers(self) -> Numeric:
        """Those of the stage that has most of them."""
        return reduce(np.maximum, (stage.layers * there for stage, there in self._present))

    @property
    def _present(self) -> list[tuple[PipelineStage, Numeric]]:
        """Each stage with 1, or with 0 where there is no such one."""
        return [(stage, chosen(stage.number > 0, 1.0, 0.0)) for stage in self.stages]


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
    first, middle, last = SPLITS[setup.stack.states.pipeline_split](model, layout)
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


def every_stage(setup: Setup) -> tuple[PipelineStage, ...]:
    """All pipeline stages of a single layout, in their order.

    >>> from dataclasses import replace
    >>> from perfmodel.exchange.run_files import read_candidates
    >>> run = read_candidates("nemotron-4-15b")[0].run
    >>> setup = run.setup(run.stages[0])
    >>> uneven = replace(setup, model=replace(run.model, layers=30), layout=replace(setup.layout, pipeline_parallel=4))
    >>> [stage.layers for stage in every_stage(uneven)]
    [7, 8, 8, 7]
    """
    layout, split = setup.layout, pipeline_split(setup)
    number = whole(layout.pipeline_parallel)
    if layout.pipeline_layout != EVEN:
        pieces = pipeline_pieces(layout.pipeline_layout).layers
    else:
        between = sum(whole(each) for each in split.between.every.values())
        dealt = stage_layers(whole(split.stages.first.layers), between, whole(split.stages.last.layers), number)
        pieces = tuple(piece_layers(dealt, whole(layout.virtual_pipeline)))
    return tuple(
        _stage(
            setup,
            held,
            layers=sum(held.every.values()),
            embedding=int(position == 0),
            head=int(position == number - 1),
            position=position,
        )
        for position, held in enumerate(numbers_of_every_stage(setup, pieces))
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


def _split_by_layers(model: TransformerModel, layout: Layout) -> tuple[Numeric, Numeric, Numeric]:
    """Layers of the first, the fullest middle and the last stage, where layers alone are dealt out."""
    return layers_of_ends(model.layers, layout.pipeline_parallel, layout.virtual_pipeline)


def _split_by_modules(model: TransformerModel, layout: Layout) -> tuple[Numeric, Numeric, Numeric]:
    """Layers of the first, the fullest middle and the last stage, where embedding, last norm and head count as a layer each."""
    pipeline = np.asarray(layout.pipeline_parallel)
    modules = np.asarray(model.layers) + 3
    least = np.floor(modules / pipeline)
    longer = modules - least * pipeline  # stages with a module more, from the first on
    first = np.maximum(least + (longer > 0) - 1, 0)
    middle = np.minimum(least + (longer > 1), np.maximum(np.asarray(model.layers) - first, 0))
    return first, middle, np.maximum(least - 2, 0)


def _split_by_products(model: TransformerModel, layout: Layout) -> tuple[Numeric, Numeric, Numeric]:
    """Layers of the first, the fullest middle and the last stage, where each stage ends with what takes it past its share.

    A head weighs c = V*h / (4*h*a*d + 3*h*f) layers, whatever their KV heads and activation are. With x = (L + c)/p, stages up
    to the i-th have floor((i + 1)*x) + 1 layers. Source: huggingface/nanotron, models/base.py, build_model: the next block
    goes to the next rank once the costs of all blocks before it exceed the share of the ranks so far.
    """
    layers, pipeline = np.asarray(model.layers), np.asarray(layout.pipeline_parallel)
    heads = np.asarray(model.attention_heads) * model.head_size
    share = (layers + model.vocab_size / (4.0 * heads + 3.0 * model.ffn_hidden_size)) / pipeline
    first = np.minimum(np.floor(share) + 1, layers)
    before_last = np.where(pipeline > 1, np.minimum(np.floor((pipeline - 1) * share) + 1, layers), 0)
    least = np.floor(share)
    longer = before_last - first > np.maximum(pipeline - 2, 0) * least
    return first, np.minimum(least + longer, layers - first), layers - before_last


SPLITS: Final = {"layers": _split_by_layers, "modules": _split_by_modules, "products": _split_by_products}


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
