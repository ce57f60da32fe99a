"""How many parameters a model has, by component, and how many of them one GPU of a tensor-parallel group holds.

Symbols: L layers, h hidden_size, q query_size, v kv_size, f ffn_hidden_size, V vocab_size, t tensor_parallel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial

import numpy as np

from perfmodel.count.pipeline import PipelineStage
from perfmodel.spec.fields import Numeric
from perfmodel.spec.model import TransformerModel
from perfmodel.spec.remembering import Remembers


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterCount(Remembers):
    """Parameters by component; `attention`, `mlp` and `norms` are sums over all layers (and the final norm)."""

    embedding: Numeric
    positions: Numeric
    attention: Numeric
    mlp: Numeric
    norms: Numeric
    head: Numeric

    @property
    def total(self) -> Numeric:
        """All of them, tied weights once."""
        return self.remembered("total", self._total)

    def _total(self) -> Numeric:
        return self.embedding + self.positions + self.attention + self.mlp + self.norms + self.head

    def times(self, factor: Numeric) -> ParameterCount:
        """Every component times a factor."""
        return ParameterCount(**{part.name: getattr(self, part.name) * factor for part in fields(self)})

    @property
    def non_embedding(self) -> Numeric:
        """What papers call non-embedding parameters: without either vocabulary matrix and learned positions."""
        return self.attention + self.mlp + self.norms


def parameter_count(model: TransformerModel) -> ParameterCount:
    """L*(2*h*q + 2*h*v) + L*(2 or 3)*h*f + norms + V*h (twice when untied): the whole model, without padding.

    >>> from perfmodel.exchange.presets import model_preset
    >>> int(parameter_count(model_preset("llama-3.1-8b")).total)
    8030261248
    """
    return _count(model, tensor_parallel=1, kv_size=model.kv_size, vocab_size=model.vocab_size)


def shard_parameter_count(model: TransformerModel, *, tensor_parallel: Numeric) -> ParameterCount:
    """What each GPU of a tensor-parallel group holds: matrices split, norms and row-parallel biases whole.

    The vocabulary is padded; KV heads are replicated when there are fewer of them than ranks.
    """
    return _count(
        model,
        tensor_parallel=tensor_parallel,
        kv_size=kv_size_per_shard(model, tensor_parallel) * tensor_parallel,
        vocab_size=model.padded_vocab_size(tensor_parallel),
    )


def stage_parameter_count(model: TransformerModel, stage: PipelineStage, *, tensor_parallel: Numeric) -> ParameterCount:
    """The same for one pipeline stage: its share of the layers, and the matrices of the vocabulary where it holds them.

    Tied embeddings lie on the first stage and, where that is another one, on the last. A stage remembers its own.
    """
    write = partial(_stage_parameter_count, model, stage, tensor_parallel)
    return stage.remembered("parameters", write, of=(model, tensor_parallel))


def _stage_parameter_count(model: TransformerModel, stage: PipelineStage, tensor_parallel: Numeric) -> ParameterCount:
    shard = shard_parameter_count(model, tensor_parallel=tensor_parallel)
    share = stage.layers / model.layers
    norm = _norm_size(model)
    copy = shard.embedding * (1 - stage.embedding) if model.tied_embeddings else shard.head
    return ParameterCount(
        embedding=stage.embedding * shard.embedding,
        positions=stage.embedding * shard.positions,
        attention=share * shard.attention,
        mlp=share * shard.mlp,
        norms=share * (shard.norms - norm) + stage.head * norm,
        head=stage.head * copy,
    )


def eight_bit_parameters(held: ParameterCount, products: str) -> Numeric:
    """Those of the products that take 8-bit operands: of the MLP, of the layer, or of the head too."""
    linears = held.mlp if products == "mlp" else held.attention + held.mlp
    return linears + held.head if products == "all" else linears


def most_parameters(counts: Sequence[ParameterCount]) -> ParameterCount:
    """The count with the largest total."""
    most = counts[0]
    for count in counts[1:]:
        larger = np.asarray(count.total > most.total)
        most = ParameterCount(
            **{part.name: np.where(larger, getattr(count, part.name), getattr(most, part.name)) for part in fields(most)}
        )
    return most


def kv_size_per_shard(model: TransformerModel, tensor_parallel: Numeric) -> Numeric:
    """Width of the key heads that one rank computes: max(kv_heads / t, 1) heads."""
    return np.maximum(model.kv_heads / tensor_parallel, 1) * model.head_size


def layer_weights(model: TransformerModel, *, kv_size: Numeric) -> tuple[Numeric, Numeric]:
    """The matrices of one layer: attention h*(q + 2*v) + q*h, and MLP h*f (twice when gated) + f*h; no biases."""
    hidden, query = model.hidden_size, model.query_size
    attention = hidden * (query + 2 * kv_size) + query * hidden
    return attention, hidden * into_mlp_size(model) + model.ffn_hidden_size * hidden


def into_mlp_size(model: TransformerModel) -> Numeric:
    """Columns of the first product of the MLP: two halves when it is gated."""
    return 2 * model.ffn_hidden_size if model.gated else model.ffn_hidden_size


def _count(model: TransformerModel, *, tensor_parallel: Numeric, kv_size: Numeric, vocab_size: Numeric) -> ParameterCount:
    hidden, query = model.hidden_size, model.query_size
    attention_weights, mlp_weights = layer_weights(model, kv_size=kv_size)
    norm = _norm_size(model)
    attention = attention_weights / tensor_parallel
    mlp = mlp_weights / tensor_parallel
    if model.biases:  # a column-parallel bias is split with its columns, a row-parallel one is whole on every rank
        attention = attention + (query + 2 * kv_size) / tensor_parallel + hidden
        mlp = mlp + into_mlp_size(model) / tensor_parallel + hidden
    vocabulary_matrix = vocab_size * hidden / tensor_parallel
    return ParameterCount(
        embedding=vocabulary_matrix,
        positions=(model.max_positions or 0) * hidden if model.position == "learned" else 0,
        attention=model.layers * attention,
        mlp=model.layers * mlp,
        norms=model.layers * 2 * norm + norm,
        head=0 if model.tied_embeddings else vocabulary_matrix,
    )


def _norm_size(model: TransformerModel) -> Numeric:
    return 2 * model.hidden_size if model.norm == "layernorm" else model.hidden_size
