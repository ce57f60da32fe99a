"""The operators of one training iteration, in the order of one micro-batch: the list that everything else folds over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from perfmodel.count.decoder import Block, DecoderOperators, with_recompute
from perfmodel.count.operators import Operator
from perfmodel.count.parameters import layer_weights
from perfmodel.count.synchronisation import synchronisation_operators
from perfmodel.spec.fields import Numeric
from perfmodel.spec.layout import Layout
from perfmodel.spec.model import TransformerModel
from perfmodel.spec.stack import SoftwareStack


@dataclass(frozen=True, slots=True, kw_only=True)
class Iteration:
    """One GPU's work. `embedding`, `layer` and `head` are one execution each; `layers` and `micro_batches` repeat them."""

    embedding: Block
    layer: Block
    head: Block
    synchronisation: tuple[Operator, ...]
    layers: Numeric
    micro_batches: Numeric

    def executions(self) -> Iterator[tuple[Operator, Numeric]]:
        """Every operator of the whole iteration with how often it runs, in the order of one micro-batch."""
        layers = self.layers * self.micro_batches
        blocks = ((self.embedding, self.micro_batches), (self.layer, layers), (self.head, self.micro_batches))
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
        """`count` of the whole iteration, from that of each block: micro_batches * (embedding + layers * layer + head)."""
        layers = count(self.layer.operators) * self.layers
        micro_batch = count(self.embedding.operators) + layers + count(self.head.operators)
        return micro_batch * self.micro_batches + count(self.synchronisation)


def iteration(model: TransformerModel, layout: Layout, stack: SoftwareStack) -> Iteration:
    """The operators of one iteration of `model` under `layout`, on every GPU alike (there are no pipeline stages yet)."""
    write = DecoderOperators(model, layout, stack)
    return Iteration(
        embedding=write.embedding(),
        layer=with_recompute(write.layer(), layout.recompute),
        head=write.head(),
        synchronisation=synchronisation_operators(model, layout, stack),
        layers=model.layers,
        micro_batches=layout.micro_batches,
    )


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
