"""The operators of one training iteration, in the order of one micro-batch: the list that everything else folds over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from perfmodel.count.blocks import Block, with_recompute
from perfmodel.count.decoder import DecoderOperators
from perfmodel.count.operators import Operator
from perfmodel.count.parameters import layer_weights
from perfmodel.count.pipeline import PipelineStages, pipeline_stages
from perfmodel.count.synchronisation import synchronisation_operators
from perfmodel.spec.fields import Numeric
from perfmodel.spec.layout import Layout
from perfmodel.spec.model import TransformerModel
from perfmodel.spec.remembering import Remembers
from perfmodel.spec.stack import SoftwareStack


@dataclass(frozen=True, slots=True, kw_only=True)
class Iteration(Remembers):
    """The work of one GPU of every pipeline stage.

    `embedding`, `layer`, `plain_layer` and `head` are one execution each, `boundary` what passes from one piece of the pipeline
    to the next; `layers` are those of all stages together.
    """

    embedding: Block
    layer: Block
    plain_layer: Block
    head: Block
    boundary: Block
    write_synchronisation: Callable[[], tuple[Operator, ...]]
    stages: PipelineStages
    layers: Numeric
    recompute_layers: Numeric | None
    boundaries: Numeric
    micro_batches: Numeric
    pipeline_parallel: Numeric

    @property
    def synchronisation(self) -> tuple[Operator, ...]:
        """What an iteration does once, after its micro-batches: most of a million layouts are never asked for it."""
        return self.remembered("synchronisation", self.write_synchronisation)

    def plain(self, layers: Numeric, stages: Numeric = 1) -> Numeric:
        """Of the `layers` of some pipeline stages, those that are not run again."""
        return 0 if self.recompute_layers is None else np.maximum(layers - self.recompute_layers * stages, 0)

    @property
    def several(self) -> Numeric:
        """1 with several pipeline stages, 0 where the last is the first."""
        return np.minimum(self.stages.last.position, 1)

    @property
    def between(self) -> tuple[Numeric, Numeric]:
        """Layers of all pipeline stages between the ends, and how many of them are not run again."""
        first, middle, last = self.stages
        layers = self.layers - first.layers - last.layers * self.several
        return layers, self.plain(layers, middle.number)

    @property
    def plain_layers(self) -> Numeric:
        """Layers of all stages together that are not run again."""
        ends = self.plain(self.stages.first.layers) + self.plain(self.stages.last.layers) * self.several
        return ends + self.between[1]

    def executions(self) -> Iterator[tuple[Operator, Numeric]]:
        """Every operator with how often it runs on all pipeline stages together, in the order of one micro-batch.

        The optimizer step is that of one stage: all take theirs at the same time.
        """
        counts = (
            (self.embedding, 1),
            (self.layer, self.layers - self.plain_layers),
            (self.plain_layer, self.plain_layers),
            (self.boundary, self.boundaries),
            (self.head, 1),
        )
        blocks = [(block, times * self.micro_batches) for block, times in counts if np.any(times)]
        for block, times in blocks:
            yield from ((operator, operator.repeats * times) for operator in block.forward)
        for block, times in reversed(blocks):
            yield from ((operator, operator.repeats * times) for operator in block.backward)
        yield from ((operator, operator.repeats) for operator in self.synchronisation)

    @property
    def operators(self) -> tuple[Operator, ...]:
        """The same as operators whose `repeats` are those of the whole iteration."""
        return tuple(replace(operator, repeats=repeats) for operator, repeats in self.executions())

    def fold(self, count: Callable[[tuple[Operator, ...]], Numeric]) -> Numeric:
        """`count` of what a GPU does in its iteration, on average over the pipeline stages."""
        layers = count(self.layer.operators) * (self.layers - self.plain_layers)
        plain = count(self.plain_layer.operators) * self.plain_layers
        micro_batch = count(self.embedding.operators) + layers + plain + count(self.head.operators)
        return (micro_batch * self.micro_batches + count(self.synchronisation)) / self.pipeline_parallel


def iteration(model: TransformerModel, layout: Layout, stack: SoftwareStack) -> Iteration:
    """The operators of one iteration of `model` under `layout`."""
    write = DecoderOperators(model, layout, stack)
    plain = write.layer()
    return Iteration(
        embedding=write.embedding(),
        layer=with_recompute(plain, layout.recompute, stack.selective_recompute),
        plain_layer=plain,
        head=write.head(),
        boundary=write.boundary(),
        write_synchronisation=partial(synchronisation_operators, model, layout, stack),
        stages=pipeline_stages(model, layout, stack),
        layers=model.layers,
        recompute_layers=layout.recompute_layers,
        boundaries=layout.pipeline_parallel * layout.virtual_pipeline - 1,
        micro_batches=layout.micro_batches,
        pipeline_parallel=layout.pipeline_parallel,
    )


def sharded_otherwise(work: Iteration, model: TransformerModel, layout: Layout, stack: SoftwareStack) -> Iteration:
    """The iteration of a layout that differs from that of `work` in its sharding alone: only what it does once does."""
    return replace(work, write_synchronisation=partial(synchronisation_operators, model, layout, stack))


def model_flop_per_token(model: TransformerModel, sequence_length: Numeric) -> Numeric:
    """6 * (L * (h*(q + 2*v) + q*h + n*h*f) + V*h) + 12 * L * q * s, with n = 3 products of a gated MLP, else 2.

    The published convention (FLOPs forward and backward): attention counted in full, logits once, the lookup nothing.
    Source: arXiv:2205.05198, appendix A, extended to grouped KV heads and gated MLPs.

    >>> from perfmodel.exchange.presets import model_preset
    >>> float(model_flop_per_token(model_preset("nemotron-4-15b"), 4096)) / 1e9
    93.99435264
    """
    attention, mlp = layer_weights(model, kv_size=model.kv_size)
    linear = model.layers * (attention + mlp) + model.vocab_size * model.hidden_size
    return 6.0 * linear + attention_flop_per_token(model, sequence_length)


def attention_flop_per_token(model: TransformerModel, sequence_length: Numeric) -> Numeric:
    """12 * L * q * s: scores and weighted sum, 2 FLOPs a product, forward and twice backward, over the full square."""
    return 12.0 * model.layers * model.query_size * sequence_length
