"""Multi-head latent attention: queries, keys and values of all heads come out of narrow vectors, which have norms of their own.

Training attends over whole keys and values: heads are as many as queries (arXiv:2405.04434). The part of the keys with
positions is one for all heads.
"""

from __future__ import annotations

import torch

from perfmodel.model.operators import named
from perfmodel.model.parts.attention import Rotation, Rotations, rotates, run_again
from perfmodel.model.parts.layers import Norm, attended, rotated
from perfmodel.model.parts.linears import (
    ColumnParallelLinear,
    CutLinear,
    RowParallelLinear,
    Split,
    WholeLinear,
    gathered_tokens,
)
from perfmodel.spec.models.layer_kinds import LayerKind
from perfmodel.spec.models.layer_parts import LatentAttention
from perfmodel.spec.models.model import TransformerModel


class MultiHeadLatentAttention(torch.nn.Module):
    """Norm, narrow vectors and theirs, what heads make of them, rotation, the core, and the projection back into the stream."""

    def __init__(
        self,
        name: str,
        model: TransformerModel,
        latent: LatentAttention,
        kind: LayerKind,
        split: Split,
        *,
        recompute_core: bool,
    ) -> None:
        super().__init__()
        self.name, self.recompute_core, self.split = name, recompute_core, split
        every, self.heads = int(model.attention_heads), int(model.attention_heads) // split.group.ranks
        hidden, rank, kv_rank = int(model.hidden_size), int(latent.query_rank), int(latent.kv_rank)
        self.nope, self.rotary, self.value = (
            int(each) for each in (latent.nope_head_size, latent.rotary_head_size, latent.value_head_size)
        )
        self.kv_rank, self.rotary_size = kv_rank, self.rotary if rotates(model, kind) else 0
        query = every * (self.nope + self.rotary)
        self.norm = Norm(f"{name}.norm", model.norm, hidden)
        self.kv_down = WholeLinear(f"{name}.kv_down", kv_rank + self.rotary, hidden, split, bias=False)
        self.query_down = WholeLinear(f"{name}.query_down", rank, hidden, split, bias=False) if rank else None
        self.query_norm = Norm(f"{name}.query_norm", model.norm, rank) if rank else None
        self.kv_norm = Norm(f"{name}.kv_norm", model.norm, kv_rank)
        self.query: CutLinear | ColumnParallelLinear = (
            CutLinear(f"{name}.query_up", query, rank, split, bias=False)
            if rank
            else ColumnParallelLinear(f"{name}.query", (query,), hidden, split, bias=False)
        )
        self.kv_up = CutLinear(f"{name}.kv_up", every * (self.nope + self.value), kv_rank, split, bias=False)
        self.projection = RowParallelLinear(f"{name}.projection", hidden, every * self.value, split, bias=False)

    def forward(self, x: torch.Tensor, sequences: int, rotations: Rotations) -> torch.Tensor:
        """(tokens of this rank, width) to the same; a micro-batch has `sequences`."""
        x, rotate = self.norm(x), rotations.get(self.rotary_size)
        query, kv, positions = self._narrow(x)

        def joined(query: torch.Tensor, up: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return self._heads(query, up, positions, sequences, rotate)

        def core(*parts: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = named(f"{self.name}.core", attended, *parts)
            return result

        parts = named(f"{self.name}.rotary", joined, self.query(query), self.kv_up(kv), positions)
        attended_values = run_again(core, *parts) if self.recompute_core else core(*parts)
        result: torch.Tensor = self.projection(attended_values)
        return result

    def _narrow(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Of all tokens what queries come out of, what keys and values do, and the keys' part with positions.

        Where ranks share the tokens all three travel as one.
        """
        kv, positions = self.kv_down(x).split([self.kv_rank, self.rotary], dim=-1)
        kv, name = self.kv_norm(kv.contiguous()), f"{self.name}.latent"
        if self.query_down is None or self.query_norm is None:
            if self.split.shares_tokens:
                joined = gathered_tokens(torch.cat((kv, positions), dim=-1), name, self.split)
                kv, positions = joined.split([self.kv_rank, self.rotary], dim=-1)
            return x, kv, positions
        query = self.query_norm(self.query_down(x))
        if self.split.shares_tokens:
            joined = gathered_tokens(torch.cat((query, kv, positions), dim=-1), name, self.split)
            query, kv, positions = joined.split([query.shape[-1], self.kv_rank, self.rotary], dim=-1)
        return query, kv, positions

    def _heads(
        self, query: torch.Tensor, up: torch.Tensor, positions: torch.Tensor, sequences: int, rotate: Rotation | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys and values, each (sequence, sequences, heads, size): parts without positions, then those with them."""
        q = query.view(-1, sequences, self.heads, self.nope + self.rotary)
        keys, values = up.view(-1, sequences, self.heads, self.nope + self.value).split([self.nope, self.value], dim=-1)
        q_plain, q_turned = q.split([self.nope, self.rotary], dim=-1)
        k_turned = positions.reshape(-1, sequences, 1, self.rotary)
        if rotate is not None:
            q_turned, k_turned = rotated(q_turned, *rotate), rotated(k_turned, *rotate)
        k_turned = k_turned.expand(-1, -1, self.heads, -1)
        return torch.cat((q_plain, q_turned), dim=-1), torch.cat((keys, k_turned), dim=-1), values.contiguous()
