"""What is kept of earlier tokens: keys and values of every head, or the narrow vector of latent attention, layer by layer.

A layer with a window keeps no more tokens than it holds: the newest overwrites the oldest. The order of keys is nothing to
attention, as their rotation was done before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import torch

from perfmodel.model.parts.attention import GroupedQueryAttention
from perfmodel.model.parts.latent_attention import MultiHeadLatentAttention


@dataclass(frozen=True, slots=True)
class KeptRows:
    """One tensor of a cache, (sequences, heads, slots, size): token p lies in the slot p modulo their number."""

    rows: torch.Tensor

    def read_prompt(self, new: torch.Tensor) -> None:
        """The first tokens of all sequences, (tokens, sequences, heads, size): all of them, or the last that fit."""
        tokens, slots = len(new), self.rows.shape[2]
        if tokens <= slots:
            self.rows[:, :, :tokens] = new.permute(1, 2, 0, 3)
            return
        places = torch.arange(tokens - slots, tokens, device=new.device) % slots
        self.rows.index_copy_(2, places, new[tokens - slots :].permute(1, 2, 0, 3))

    def append(self, new: torch.Tensor, place: int) -> None:
        """The token at `place` of all sequences, (sequences, heads, size)."""
        self.rows[:, :, place % self.rows.shape[2]] = new

    def of(self, tokens: int) -> torch.Tensor:
        """What is kept of so many tokens."""
        return self.rows[:, :, : min(tokens, self.rows.shape[2])]


@dataclass(frozen=True, slots=True)
class HeadCache:
    """Keys and values of the heads of one layer."""

    keys: KeptRows
    values: KeptRows

    def tensors(self) -> Iterator[torch.Tensor]:
        """All that it holds."""
        yield from (self.keys.rows, self.values.rows)


@dataclass(frozen=True, slots=True)
class LatentCache:
    """The narrow vector of one layer, which keys and values of all heads come out of, then the keys' part with positions."""

    latent: KeptRows

    def tensors(self) -> Iterator[torch.Tensor]:
        """All that it holds."""
        yield self.latent.rows


LayerCache: TypeAlias = HeadCache | LatentCache


def layer_cache(
    attention: GroupedQueryAttention | MultiHeadLatentAttention,
    *,
    sequences: int,
    tokens: int,
    dtype: torch.dtype,
    device: torch.device,
) -> LayerCache:
    """An empty cache of one layer for `tokens` of each of some sequences."""

    def empty(heads: int, slots: int, size: int) -> KeptRows:
        return KeptRows(torch.zeros(sequences, heads, slots, size, dtype=dtype, device=device))

    if isinstance(attention, MultiHeadLatentAttention):
        return LatentCache(empty(1, tokens, attention.kv_rank + attention.rotary))
    slots = tokens if attention.window is None else min(tokens, attention.window)
    keys, values = (empty(attention.kv_heads, slots, attention.head_size) for _ in range(2))
    return HeadCache(keys, values)
