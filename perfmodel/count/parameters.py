"""How many parameters a model has, by component, and how many of them one GPU of a tensor-parallel group holds.

Everything folds over the declarations of layer parts (count/declarations.py) and of the vocabulary (count/parts/vocabulary.py).

Symbols: L layers, h hidden_size, q query_size, v kv_size, f ffn_hidden_size, V vocab_size, t tensor_parallel.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from typing import Final

import numpy as np

from perfmodel.count.declarations import (
    LOW_PRECISION_COMPONENTS,
    UNSHARDED,
    Component,
    ExpertShards,
    expert_shards,
    takes_low_precision,
)
from perfmodel.count.layer import layer_parts
from perfmodel.count.parts.layer_embeddings import has_layer_embeddings, layer_projection, layer_table
from perfmodel.count.parts.vocabulary import embedding_matrix, multi_token_linear
from perfmodel.light_dataclass import dataclass, replace
from perfmodel.spec.arithmetic import either, multiplied
from perfmodel.spec.fields import Numeric, anywhere, chosen
from perfmodel.spec.layout import Layout
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.setup import Setup

OF_LAYERS: Final = (Component.ATTENTION, Component.FEED_FORWARD, Component.EXPERTS)


@dataclass(frozen=True, kw_only=True)
class ParameterCount:
    """Parameters by component; `attention`, `mlp`, `experts` and `norms` are sums over all layers (and the final norm).

    `mlp` holds what all tokens pass: MLPs, routers and shared experts; `experts` the routed ones, those of multi-token layers
    too, whose other parameters are `multi_token`. Of all these the `replicated` ones are matrices that every tensor-parallel
    rank holds whole.
    """

    embedding: Numeric
    positions: Numeric
    attention: Numeric
    mlp: Numeric
    norms: Numeric
    head: Numeric
    experts: Numeric
    multi_token: Numeric = 0
    replicated: Numeric

    @cached_property
    def total(self) -> Numeric:
        """Parameters of the whole model; tied weights count once."""
        return self.shared + self.experts

    @cached_property
    def shared(self) -> Numeric:
        """All but the routed experts: what data-parallel replicas hold alike."""
        dense = self.embedding + self.positions + self.attention + self.mlp + self.norms + self.head
        return dense + self.multi_token

    @property
    def only_experts(self) -> ParameterCount:
        """The routed experts alone."""
        return replace(self.times(0), experts=self.experts)

    def times(self, factor: Numeric) -> ParameterCount:
        """Every component times a factor."""
        return ParameterCount(**{part.name: multiplied(getattr(self, part.name), factor) for part in fields(self)})

    @property
    def non_embedding(self) -> Numeric:
        """What papers call non-embedding parameters: without either vocabulary matrix and learned positions."""
        return self.attention + self.mlp + self.norms + self.experts


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerParameters:
    """Parameters of one layer on one GPU."""

    attention: Numeric
    mlp: Numeric
    norms: Numeric
    experts: Numeric
    replicated: Numeric  # of the matrices, those that every tensor-parallel rank holds whole

    @property
    def matrices(self) -> Numeric:
        """Parameters of a layer's linears, which are gathered together where parameters are sharded."""
        return self.attention + self.mlp + self.experts

    @property
    def total(self) -> Numeric:
        """Parameters of the linears and the norms of a layer."""
        return self.matrices + self.norms


def layer_parameters(
    model: TransformerModel, kind: str, *, tensor_parallel: Numeric, experts: ExpertShards = UNSHARDED
) -> LayerParameters:
    """h*(q + 2*v) + q*h of attention, (1 or 2)*h*f + f*h of the MLP, with t-th parts on each GPU; norms are whole.

    Of experts a GPU holds a t-th part of each of its own.
    """
    parts = layer_parts(model, model.kinds[kind], tensor_parallel, experts=experts)
    counted = {each: _sum(part.parameters_of(each) for part in parts) for each in OF_LAYERS}
    norms = _sum(part.norms * norm_size(model) + part.inner_norms for part in parts)
    return LayerParameters(
        attention=counted[Component.ATTENTION] + _sum(part.inner_vectors for part in parts),
        mlp=counted[Component.FEED_FORWARD],
        norms=norms,
        experts=counted[Component.EXPERTS],
        replicated=_sum(part.replicated_parameters for part in parts),
    )


def _sum(terms: Iterable[Numeric]) -> Numeric:
    total: Numeric = 0
    for term in terms:
        total = total + term
    return total


def parameter_tensors(model: TransformerModel, layers: Numeric) -> Numeric:
    """Tensors of so many mean layers, with the last norm and the matrices of the vocabulary, two unless they are tied.

    >>> from perfmodel.exchange.presets import model_preset
    >>> parameter_tensors(model_preset("llama-3.1-8b"), 32)
    195.0
    """
    parts = {kind: layer_parts(model, each, 1) for kind, each in model.kinds.items()}
    every = _sum(model.layers_of(kind, 0, model.layers) * sum(part.tensors for part in each) for kind, each in parts.items())
    return layers * every / model.layers + (2 if model.tied_embeddings else 3)


def mean_excess(model: TransformerModel, layout: Layout, *, routed: bool) -> Numeric:
    """sum(s*s) / (2 * sum(s)): what of a tensor lies beyond a point inside it, on average over matrices of s parameters.

    Those of all layers on one GPU, of routed experts or of all else; 0 where there are none.
    """
    squares: Numeric = 0.0
    total: Numeric = 0.0
    for kind, each in model.kinds.items():
        layers = model.layers_of(kind, 0, model.layers)
        parts = layer_parts(model, each, layout.tensor_parallel, experts=expert_shards(layout))
        for linear in (linear for part in parts for linear in part.linears):
            if (linear.component is Component.EXPERTS) == routed:
                squares = squares + layers * linear.parameters * linear.parameters / linear.number
                total = total + layers * linear.parameters
    there = np.asarray(total) > 0
    return chosen(there, squares / chosen(there, 2.0 * total, 1.0), 0.0)


def multi_token_projection(model: TransformerModel) -> Numeric:
    """2*h*h, and three norms: of the stream, of the next token's embedding, and behind the layer."""
    return multi_token_linear(model).parameters + 3 * norm_size(model)


def norm_size(model: TransformerModel) -> Numeric:
    """Parameters of one norm of the stream: a weight for each of its numbers, and a bias in a layer norm."""
    return model.norm_kind.vectors * model.hidden_size


def parameter_count(model: TransformerModel) -> ParameterCount:
    """L*(2*h*q + 2*h*v) + L*(2 or 3)*h*f + norms + V*h (twice when untied): the whole model, without padding.

    >>> from perfmodel.exchange.presets import model_preset
    >>> int(parameter_count(model_preset("llama-3.1-8b")).total)
    8030261248
    """
    return _counted(model, _all_layers(model), tensor_parallel=1, matrix=model.vocab_size * model.hidden_size)


def active_parameter_count(model: TransformerModel) -> Numeric:
    """Parameters that a token passes: all but the experts that it is not sent to, without multi-token layers.

    >>> from perfmodel.exchange.presets import model_preset
    >>> int(active_parameter_count(model_preset("llama-3.1-8b")))
    8030261248
    """
    every = parameter_count(replace(model, multi_token_layers=0))
    share = 1 if model.mixture is None else model.mixture.experts_per_token / model.mixture.experts
    return every.shared + every.experts * share


def shard_parameter_count(
    model: TransformerModel, *, tensor_parallel: Numeric, experts: ExpertShards = UNSHARDED
) -> ParameterCount:
    """What each GPU of a tensor-parallel group holds: matrices split, norms and row-parallel biases whole.

    The vocabulary is padded; KV heads are replicated when there are fewer of them than ranks.
    """
    return held_parameters(model, _all_layers(model), tensor_parallel=tensor_parallel, experts=experts)


def held_parameters(
    model: TransformerModel,
    layers: Mapping[str, Numeric],
    *,
    embedding: Numeric = 1,
    head: Numeric = 1,
    tensor_parallel: Numeric,
    experts: ExpertShards = UNSHARDED,
) -> ParameterCount:
    """Parameters of some layers of each kind, and of the vocabulary's matrices as often as they are held.

    Tied embeddings lie on the first pipeline stage and, where that is another one, on the last; so do multi-token layers, whose
    embedding is one more copy there.
    """
    matrix = embedding_matrix(model, tensor_parallel)
    return _counted(
        model, layers, embedding=embedding, head=head, tensor_parallel=tensor_parallel, matrix=matrix, shards=experts
    )


def _all_layers(model: TransformerModel) -> dict[str, Numeric]:
    return {kind: model.layers_of(kind, 0, model.layers) for kind in model.kinds}


def _counted(
    model: TransformerModel,
    layers: Mapping[str, Numeric],
    *,
    embedding: Numeric = 1,
    head: Numeric = 1,
    tensor_parallel: Numeric,
    matrix: Numeric,
    shards: ExpertShards = UNSHARDED,
) -> ParameterCount:
    attention: Numeric = 0
    mlp: Numeric = 0
    experts: Numeric = 0
    replicated: Numeric = 0
    norms: Numeric = (head + embedding if model.embedding_norm else head) * norm_size(model)
    for kind, number in layers.items():
        layer = layer_parameters(model, kind, tensor_parallel=tensor_parallel, experts=shards)
        attention, mlp, norms = attention + number * layer.attention, mlp + number * layer.mlp, norms + number * layer.norms
        experts, replicated = experts + number * layer.experts, replicated + number * layer.replicated
    of_layers: Numeric = 0
    if has_layer_embeddings(model):
        of_layers = layer_table(model, tensor_parallel)
        mlp = mlp + embedding * layer_projection(model, tensor_parallel).parameters
        norms = norms + embedding * model.layer_embedding_size
    positions = _learned_positions(model) * model.hidden_size
    copies = head * (1 - embedding) if model.tied_embeddings else head
    head_bias = head * matrix / model.hidden_size if model.has_bias("head") else 0
    count = ParameterCount(
        embedding=embedding * (matrix + of_layers),
        positions=embedding * positions,
        attention=attention,
        mlp=mlp,
        norms=norms,
        head=copies * matrix + head_bias,
        experts=experts,
        replicated=replicated,
    )
    if not anywhere(np.asarray(model.multi_token_layers) > 0):
        return count
    parts = [layer_parameters(model, kind, tensor_parallel=tensor_parallel, experts=shards) for kind in model.multi_token_parts]
    further = head * model.multi_token_layers
    own_embedding = np.minimum(further, 1) * (1 - embedding) * (1 - int(model.tied_embeddings)) * matrix
    deeper = _sum(part.total - part.experts for part in parts) + multi_token_projection(model)
    return replace(
        count,
        experts=experts + further * _sum(part.experts for part in parts),
        replicated=replicated + further * _sum(part.replicated for part in parts),
        multi_token=further * deeper + own_embedding,
    )


def _learned_positions(model: TransformerModel) -> Numeric:
    """Rows of the table of positions, spare ones too; 0 where positions are not learned."""
    return (model.max_positions or 0) + model.spare_positions if model.position == "learned" else 0


def low_precision_parameters(held: ParameterCount, setup: Setup) -> Numeric:
    """Parameters of the linears that take low-precision operands: the MLP's, the layer's, or the head's too, of some layers."""
    low = setup.stack.low_precision
    every = LOW_PRECISION_COMPONENTS["all"]
    first, *others = [getattr(held, each) for each in every if takes_low_precision(each, low.products)]
    total: Numeric = sum(others, first)
    return total * low.narrow_layers(setup.layout.recipe)


def most_parameters(counts: Sequence[ParameterCount]) -> ParameterCount:
    """The count with the largest total."""
    most = counts[0]
    for count in counts[1:]:
        larger = np.asarray(count.total > most.total)
        most = ParameterCount(
            **{part.name: either(larger, getattr(count, part.name), getattr(most, part.name)) for part in fields(most)}
        )
    return most
