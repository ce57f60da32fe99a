"""The attention part of a layer on prompts and on single tokens with a past, under the names of the forecast.

Latent attention never forms keys and values of earlier tokens: queries are taken into the narrow space of the cache, and what
heads find there back out of it, by the same matrix that training makes keys and values with (arXiv:2405.04434).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from perfmodel.model.generation.attended import attended_over, attended_prompt
from perfmodel.model.generation.caches import HeadCache, KeptRows, LatentCache, LayerCache
from perfmodel.model.generation.norms import normed, of_heads
from perfmodel.model.operators import operator
from perfmodel.model.parts.attention import GroupedQueryAttention, Rotation
from perfmodel.model.parts.latent_attention import MultiHeadLatentAttention
from perfmodel.model.parts.layers import rotated


@dataclass(frozen=True, slots=True, kw_only=True)
class PassTokens:
    """The tokens of a pass: of how many sequences, how many came before, and how the heads of a layer are rotated for them.

    There is either no past, or one token of each sequence.
    """

    sequences: int
    past: int
    rotation: Rotation | None


def attention_out(
    attention: GroupedQueryAttention | MultiHeadLatentAttention, x: torch.Tensor, tokens: PassTokens, cache: LayerCache
) -> torch.Tensor:
    """What the heads of this rank give (tokens of all sequences, width), position by position."""
    if isinstance(attention, MultiHeadLatentAttention) and isinstance(cache, LatentCache):
        found = _latent(attention, x, tokens, cache)
    elif isinstance(attention, GroupedQueryAttention) and isinstance(cache, HeadCache):
        found = _grouped(attention, x, tokens, cache)
    else:
        raise TypeError(f"{type(cache).__name__} is no cache of {attention.name}")
    projection = attention.projection
    with operator(projection.name):
        return functional.linear(found, projection.weight)


def _grouped(part: GroupedQueryAttention, x: torch.Tensor, tokens: PassTokens, cache: HeadCache) -> torch.Tensor:
    sequences, past = tokens.sequences, tokens.past
    with operator(part.qkv.name):
        qkv = functional.linear(x, part.qkv.weight, part.qkv.bias)
    sizes = [part.heads, part.kv_heads, part.kv_heads]
    q, k, v = qkv.view(-1, sequences, sum(sizes), part.head_size).split(sizes, dim=2)
    if part.query_norm is not None and part.key_norm is not None:
        with operator(f"{part.name}.qk_norm"):
            q, k = of_heads(q, part.query_norm), of_heads(k, part.key_norm)
    with operator(f"{part.name}.rotary"):
        q, k = turned_and_kept(q, k, v, tokens, cache)
    with operator(f"{part.name}.core"):
        if past:
            keys, values = cache.keys.of(past + 1), cache.values.of(past + 1)
            return attended_over(q[0], keys, values, scale=part.head_size**-0.5).view(sequences, -1)
        return attended_prompt(q, k, v, window=part.window)


def turned_and_kept(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, tokens: PassTokens, cache: HeadCache
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotated queries and keys; keys and values are in the cache then."""
    if tokens.rotation is not None:
        q, k = rotated(q, *tokens.rotation), rotated(k, *tokens.rotation)
    _keep(cache.keys, k, tokens.past)
    _keep(cache.values, v, tokens.past)
    return q, k


def _keep(rows: KeptRows, new: torch.Tensor, past: int) -> None:
    if past:
        rows.append(new[0], past)
    else:
        rows.read_prompt(new)


def _latent(part: MultiHeadLatentAttention, x: torch.Tensor, tokens: PassTokens, cache: LatentCache) -> torch.Tensor:
    sequences = tokens.sequences
    with operator(part.kv_down.name):
        kv, positions = functional.linear(x, part.kv_down.weight).split([part.kv_rank, part.rotary], dim=-1)
    query = x
    if part.query_down is not None:
        with operator(part.query_down.name):
            query = functional.linear(x, part.query_down.weight)
    with operator(f"{part.name}.qk_norm"):
        kv = normed(part.kv_norm, kv)
        query = query if part.query_norm is None else normed(part.query_norm, query)
    with operator(part.query.name):
        query = functional.linear(query, part.query.weight)
    queries = query.view(-1, sequences, part.heads, part.nope + part.rotary)
    kept = (kv.view(-1, sequences, 1, part.kv_rank), positions.reshape(-1, sequences, 1, part.rotary))
    if tokens.past:
        return _over_latent(part, queries, kept, tokens, cache)
    with operator(part.kv_up.name):
        up = functional.linear(kv, part.kv_up.weight)
    with operator(f"{part.name}.rotary"):
        keys, values = up.view(*queries.shape[:3], -1).split([part.nope, part.value], dim=-1)
        q, k = joined_heads(queries, keys, kept, tokens.rotation, cache)
    with operator(f"{part.name}.core"):
        return attended_prompt(q, k, values, window=None)


def joined_heads(
    queries: torch.Tensor,
    keys: torch.Tensor,
    kept: tuple[torch.Tensor, torch.Tensor],
    rotation: Rotation | None,
    cache: LatentCache,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries and keys of a prompt, parts without positions first; what is `kept` is in the cache then."""
    latent, positions = kept
    rotary = positions.shape[-1]
    plain, turned = queries.split([queries.shape[-1] - rotary, rotary], dim=-1)
    if rotation is not None:
        turned, positions = rotated(turned, *rotation), rotated(positions, *rotation)
    cache.latent.read_prompt(torch.cat((latent, positions), dim=-1))
    wide = positions.expand(-1, -1, keys.shape[2], -1)
    return torch.cat((plain, turned), dim=-1), torch.cat((keys, wide), dim=-1)


def _over_latent(
    part: MultiHeadLatentAttention,
    queries: torch.Tensor,
    kept: tuple[torch.Tensor, torch.Tensor],
    tokens: PassTokens,
    cache: LatentCache,
) -> torch.Tensor:
    """One token of each sequence; both halves of kv_up multiply in its narrow space."""
    up = part.kv_up.weight.view(part.heads, part.nope + part.value, part.kv_rank)
    plain, turned = queries[0].split([part.nope, part.rotary], dim=-1)  # (sequences, heads, size)
    with operator(part.kv_up.name):
        narrow = torch.bmm(plain.transpose(0, 1), up[:, : part.nope]).transpose(0, 1)
    with operator(f"{part.name}.rotary"):
        q = turned_latent(narrow, turned, kept, tokens, cache)
    with operator(f"{part.name}.core"):
        keys = cache.latent.of(tokens.past + 1)
        found = attended_over(q, keys, keys[..., : part.kv_rank], scale=(part.nope + part.rotary) ** -0.5)
    with operator(part.kv_up.name):
        wide = torch.bmm(found.transpose(0, 1), up[:, part.nope :].transpose(1, 2))
        return wide.transpose(0, 1).reshape(tokens.sequences, -1)


def turned_latent(
    narrow: torch.Tensor,
    turned: torch.Tensor,
    kept: tuple[torch.Tensor, torch.Tensor],
    tokens: PassTokens,
    cache: LatentCache,
) -> torch.Tensor:
    """Queries in the space of the cache, (sequences, heads, size), rotated; what is `kept` of the token is there then."""
    latent, positions = kept[0][0], kept[1][0]
    if tokens.rotation is not None:
        cos, sin = (each[0] for each in tokens.rotation)
        turned, positions = rotated(turned, cos, sin), rotated(positions, cos, sin)
    cache.latent.append(torch.cat((latent, positions), dim=-1), tokens.past)
    return torch.cat((narrow, turned), dim=-1)
