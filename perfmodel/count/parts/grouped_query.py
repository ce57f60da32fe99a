"""Grouped-query attention: its linears, and what lies between them and the core, on one rank.

Keys and values have fewer heads than queries, or as many. Values may be of another size than keys, or the keys themselves, and
a layer may take over keys and values of another.

Symbols: h hidden_size, q query_size, v kv_size, a attention_heads, d head_size, t tensor_parallel.
"""

from __future__ import annotations

import numpy as np

from perfmodel.count.blocks import Block, local
from perfmodel.count.declarations import Component, LayerPart, Linear, Projections
from perfmodel.count.operators import MemoryBound
from perfmodel.count.parts.attention import Heads, as_values, attention_core
from perfmodel.count.parts.stream import StreamOperators
from perfmodel.count.roles import Role
from perfmodel.light_dataclass import replace
from perfmodel.spec.fields import Numeric
from perfmodel.spec.models.layer_kinds import BORROWED, LayerKind
from perfmodel.spec.models.layer_parts import described
from perfmodel.spec.models.model import QK_NORMS, TransformerModel


def grouped_query_attention(model: TransformerModel, tensor_parallel: Numeric, name: str) -> LayerPart:
    """Queries, keys and values as one matrix, h x (q + 2*v), and the projection of the weighted values, q x h.

    KV heads are copied where there are fewer of them than ranks; the published convention counts no copies. Where values are of
    another size than keys, so is what heads give. Tied values have no columns of their own, and borrowed keys have none either.
    """
    query, width = model.query_size / tensor_parallel, kv_size_per_shard(model, tensor_parallel)
    given = as_values(query, model.head_size, model.value_head_size)
    keys, values = _formed(model, width, as_values(width, model.head_size, model.value_head_size))
    of_keys, of_values = _formed(model, model.head_size, model.value_size)
    gate = gate_columns(model, given, tensor_parallel)
    without_copies = (model.query_size + model.kv_heads * (of_keys + of_values)) / tensor_parallel + gate
    hidden = model.hidden_size
    joined = Linear(
        name=f"{name}.qkv",
        component=Component.ATTENTION,
        role=Role.PRODUCT,
        inner=hidden,
        columns=query + gate + (keys + values),
        useful=without_copies / (query + gate + (keys + values)),
        has_bias=model.has_bias("qkv"),
        called="qkv",
    )
    formed = {"own": {"key": keys, "value": values}, "tied": {"key": keys}, BORROWED: {}}[model.kv]
    return LayerPart(
        into=Projections(joined=joined, apart={"query": query + gate, **formed}),
        out=Linear(
            name=f"{name}.projection",
            component=Component.ATTENTION,
            role=Role.OUTPUT_PRODUCT,
            inner=given,
            columns=hidden,
            has_bias=model.has_bias("projection"),
            called="projection",
        ),
        norm_before=model.pre_norms,
        norm_behind=model.post_norms,
        inner_norms=qk_norm_parameters(model, query, keys),
        inner_vectors=model.attention_heads / tensor_parallel if model.sinks else 0,
    )


def _formed(model: TransformerModel, keys: Numeric, values: Numeric) -> tuple[Numeric, Numeric]:
    """Columns of the keys and of the values that a layer has products for: neither where it borrows both, no tied values."""
    if model.kv == BORROWED:
        return 0, 0
    return keys, 0 if model.kv == "tied" else values


def gate_columns(model: TransformerModel, given: Numeric, tensor_parallel: Numeric) -> Numeric:
    """Numbers of a token by which what heads give is multiplied: one for each number, or for each head."""
    if not model.attention_gate:
        return 0
    return model.attention_heads / tensor_parallel if model.gate_by_head else given


def qk_norm_parameters(model: TransformerModel, query: Numeric, kv: Numeric) -> Numeric:
    """2*d or 4*d where all heads of size d share one weight (and bias) for queries and one for keys, else q + v.

    Without keys of its own a layer has the norm of queries alone. Ignored: ranks that share heads average over all of them
    where the norm is of the whole width, 8 bytes a token.
    """
    vectors, of_width = QK_NORMS[model.qk_norm]
    normed = 1 if model.kv == BORROWED else 2
    return vectors * ((query + kv) if of_width else normed * model.head_size)


def kv_size_per_shard(model: TransformerModel, tensor_parallel: Numeric) -> Numeric:
    """Width of the key heads that one rank computes: max(kv_heads / t, 1) heads."""
    return np.maximum(model.kv_heads / tensor_parallel, 1) * model.head_size


def rank_heads(model: TransformerModel, kind: LayerKind, tensor_parallel: Numeric, name: str) -> Heads:
    """The heads of one rank of a tensor-parallel group."""
    query, kv = model.query_size / tensor_parallel, kv_size_per_shard(model, tensor_parallel)
    borrows = model.kv == BORROWED
    return Heads(name=name, query=query, kv=kv, window=kind.window, value_size=model.value_head_size, borrows=borrows)


def indexed_attention(model: TransformerModel, tensor_parallel: Numeric, name: str) -> LayerPart:
    """Grouped-query attention, and an indexer of it: h*a_i*d_i + h*d_i on every rank, with norms of its queries and keys."""
    index = described(model.indexer, "indexer")
    sizes = {"index_query": (index.heads * index.head_size, Role.INDEX_QUERY), "index_key": (index.head_size, Role.INDEX_KEY)}
    own = {
        what: Linear(
            name=f"{name}.{what}",
            component=Component.ATTENTION,
            role=role,
            inner=model.hidden_size,
            columns=columns,
            is_replicated=True,
        )
        for what, (columns, role) in sizes.items()
    }
    declared = grouped_query_attention(model, tensor_parallel, name)
    norms = 2 * model.norm_kind.vectors * index.head_size
    return replace(declared, others=own, inner_norms=declared.inner_norms + norms)


def indexed_inside(write: StreamOperators, declared: LayerPart, kind: LayerKind, name: str) -> Block:
    """Grouped queries, which see all tokens in training; beside them the products of their indexer, of each rank's tokens."""
    block = Block()
    for linear in declared.others.values():  # what they read is kept for the projections beside them
        block = block + write.own_linear(linear, write.tokens / write.token_shards, kept_rows=0)
    return block + grouped_query_inside(write, declared, kind, name)


def grouped_query_inside(write: StreamOperators, declared: LayerPart, kind: LayerKind, name: str) -> Block:
    """Projections, what heads go through, their core, the projection back into the stream."""
    heads = rank_heads(write.model, kind, write.tensor, name)
    core = _around_heads(write, heads, kind) + attention_core(write, heads)
    if write.model.attention_gate:
        core = core + _gate(write, heads)
    return write.projections(declared.projections) + core + write.row_linear(declared.output)


def _around_heads(write: StreamOperators, heads: Heads, kind: LayerKind) -> Block:
    """What queries and keys go through before they meet: norms, of values too, and rotation; keys that are borrowed have."""
    width = heads.query if heads.borrows else heads.query + heads.kv
    rotary = write.rotary(heads.name, width) if kind.rotary else Block()
    if write.model.qk_norm == "none":
        return rotary
    normed, kernels = width, 1 if heads.borrows else 2
    if write.model.qk_norm == "head_and_values" and not heads.borrows:
        normed, kernels = normed + heads.values(write.model.head_size, heads.kv), kernels + 1
    numbers = write.tokens * normed
    return write.norm_of(f"{heads.name}.qk_norm", numbers, write.activation_bytes * numbers, kernels=kernels) + rotary


def _gate(write: StreamOperators, heads: Heads) -> Block:
    """The output of heads times the sigmoid of a gate: reads both and writes one; backwards reads three and writes two.

    A gate by head is of no size beside what it multiplies.
    """
    size = write.activation_bytes * write.tokens * heads.values(write.model.head_size, heads.query)
    gates = 0 if write.model.gate_by_head else 1
    return local(
        MemoryBound(
            name=f"{heads.name}.gate",
            moved_bytes=(2 + gates) * size,
            backward_bytes=(3 + 2 * gates) * size,
            kernels=2,
            saved_bytes=(1 + gates) * size,
        )
    )


def attention_core_flop(model: TransformerModel, kind: LayerKind, seen: Numeric) -> Numeric:
    """6 * a * 2 * d * k for k keys seen, where queries, keys and values have d numbers each."""
    del kind  # of which the window is in `seen`
    return 6.0 * model.attention_heads * (model.head_size + model.value_size) * seen
