"""Multi-head latent attention on one GPU: keys and values of all heads come out of one narrow vector a token.

Symbols: h hidden_size, a attention_heads, t tensor_parallel, l_q query_rank, l query and key rank, n, r, v the head sizes of
queries and keys without and with positions, and of values; T tokens of a micro-batch, S ranks that share them between linears.

The narrow vectors are made by every rank of a tensor-parallel group, of its own tokens, and gathered; heads are split behind
them (Megatron-Core, MLASelfAttention). Training attends over whole keys and values: heads are as many as queries.
"""

from __future__ import annotations

from perfmodel.count.blocks import Block, local
from perfmodel.count.declarations import Component, LayerPart, Linear
from perfmodel.count.operators import MemoryBound
from perfmodel.count.parts.attention import STATISTICS_BYTES, Heads, attention_core
from perfmodel.count.parts.stream import StreamOperators
from perfmodel.count.roles import INDEX_PRODUCTS, Role
from perfmodel.light_dataclass import replace
from perfmodel.spec.fields import Numeric
from perfmodel.spec.models.layer_kinds import LayerKind
from perfmodel.spec.models.layer_parts import LatentAttention, described
from perfmodel.spec.models.model import TransformerModel

__all__ = ["STATISTICS_BYTES", "latent_attention", "latent_core_flop", "latent_inside"]


def _latent(model: TransformerModel) -> LatentAttention:
    return described(model.latent, "latent")


def latent_attention(model: TransformerModel, tensor_parallel: Numeric, name: str) -> LayerPart:
    """h*l_q + l_q*a*(n + r)/t of queries (h*a*(n + r)/t without a rank), h*(l + r) + l*a*(n + v)/t of keys and values, a*v/t*h.

    Norms of both narrow vectors lie between. An indexer adds l_q*a_i*d_i + h*d_i + h*a_i, all of it on every rank.
    """
    latent, hidden, heads = _latent(model), model.hidden_size, model.attention_heads / tensor_parallel

    def linear(what: str, inner: Numeric, columns: Numeric, role: Role) -> Linear:
        return Linear(name=f"{name}.{what}", component=Component.ATTENTION, role=role, inner=inner, columns=columns)

    query = heads * latent.head_size
    kv_down = linear("kv_down", hidden, latent.kv_rank + latent.rotary_head_size, Role.PRODUCT)
    others = {
        "kv_down": replace(kv_down, is_replicated=True),
        "kv_up": linear("kv_up", latent.kv_rank, heads * (latent.nope_head_size + latent.value_head_size), Role.UP_PROJECTION),
    }
    if latent.query_rank:
        others["query_down"] = replace(linear("query_down", hidden, latent.query_rank, Role.PRODUCT), is_replicated=True)
        others["query_up"] = linear("query_up", latent.query_rank, query, Role.UP_PROJECTION)
    else:
        others["query"] = linear("query", hidden, query, Role.PRODUCT)
    if latent.indexer is not None:
        index, narrow = latent.indexer, latent.query_rank or hidden
        own = {
            "index_query": linear("index_query", narrow, index.heads * index.head_size, Role.INDEX_QUERY),
            "index_key": linear("index_key", hidden, index.head_size, Role.INDEX_KEY),
            "index_weight": linear("index_weight", hidden, index.heads, Role.INDEX_KEY),
        }
        others |= {what: replace(each, is_replicated=True) for what, each in own.items()}
    return LayerPart(
        out=linear("projection", heads * latent.value_head_size, hidden, Role.OUTPUT_PRODUCT),
        others=others,
        norm_before=model.pre_norms,
        norm_behind=model.post_norms,
        inner_norms=model.norm_kind.vectors * (latent.query_rank + latent.kv_rank) + _key_norm(latent),
    )


def _key_norm(latent: LatentAttention) -> Numeric:
    """Parameters of the layer norm of an indexer's keys."""
    return 0.0 if latent.indexer is None else 2.0 * latent.indexer.head_size


def latent_core_flop(model: TransformerModel, kind: LayerKind, seen: Numeric) -> Numeric:
    """6 * a * (d + v) * k for k keys seen: queries and keys of d numbers, values of v."""
    del kind  # its whole sequence is seen
    return 6.0 * model.attention_heads * (model.head_size + _latent(model).value_head_size) * seen


def latent_inside(write: StreamOperators, declared: LayerPart, kind: LayerKind, name: str) -> Block:
    """Narrow vectors with their norms, what heads make of them, the core, the projection back into the stream."""
    latent, others, own = _latent(write.model), declared.others, write.tokens / write.token_shards
    block = write.own_linear(others["kv_down"], own) + _norm(write, f"{name}.kv_norm", latent.kv_rank)
    gathered = latent.kv_rank + latent.rotary_head_size
    if "query" in others:
        query = write.column_linear(others["query"])
    else:
        block = (
            block
            + write.own_linear(others["query_down"], own, kept_rows=0)
            + _norm(write, f"{name}.query_norm", latent.query_rank)
        )
        gathered = gathered + latent.query_rank
        query = write.own_linear(others["query_up"], write.tokens, kept_rows=own)
    up = query + write.own_linear(others["kv_up"], write.tokens, kept_rows=own)
    heads = up + _rotary(write, name) + _core(write, kind, name)
    for each in others.values():
        if each.role in INDEX_PRODUCTS:  # what they read is kept for the products beside them
            block = block + write.own_linear(each, own, kept_rows=0)
    return block + write.gathered_tokens(f"{name}.latent", gathered) + heads + write.row_linear(declared.output)


def _norm(write: StreamOperators, name: str, width: Numeric) -> Block:
    numbers = write.tokens / write.token_shards * width
    return write.norm_of(name, numbers, write.activation_bytes * numbers)


def _rotary(write: StreamOperators, name: str) -> Block:
    """Rotated parts and those without positions are joined: queries and keys of all heads are read and written."""
    latent, heads = _latent(write.model), write.model.attention_heads / write.tensor
    moved = 2 * write.activation_bytes * write.tokens * 2 * heads * latent.head_size
    return local(
        MemoryBound(
            name=f"{name}.rotary",
            role=Role.UP_PROJECTION,
            kernel="fused_rotary" if write.stack.fusion.rotary else "rotary",
            precision=write.recipe.rest,
            moved_bytes=moved,
            backward_bytes=moved,
            kernels=2 if write.stack.fusion.rotary else 12,
            backward_kernels=2 if write.stack.fusion.rotary else 12,
        )
    )


def _core(write: StreamOperators, kind: LayerKind, name: str) -> Block:
    latent, heads = _latent(write.model), write.model.attention_heads / write.tensor
    return attention_core(
        write,
        Heads(
            name=name,
            query=heads * latent.head_size,
            kv=heads * latent.head_size,
            window=kind.window,
            value_size=latent.value_head_size,
            latent=True,
        ),
    )
