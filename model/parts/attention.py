"""The attention part of a layer with grouped queries: all tokens before each, or the nearest of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, TypeAlias

import torch
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

from perfmodel.model.operators import named, recomputing
from perfmodel.model.parts.layers import Norm, attended, normalised_heads, rotated, taken_apart
from perfmodel.model.parts.linears import ColumnParallelLinear, RowParallelLinear, Split
from perfmodel.spec.models.layer_kinds import LayerKind
from perfmodel.spec.models.model import TransformerModel

Rotation: TypeAlias = tuple[torch.Tensor, torch.Tensor]  # cos and sin
Rotations: TypeAlias = dict[int, Rotation]  # by how many numbers of a head they turn


def run_again(function: Callable[..., Any], *tensors: Any) -> Any:
    """function(*tensors), which keeps nothing and runs again in the backward pass, all of it (as Megatron-LM does)."""
    with set_checkpoint_early_stop(False):
        return checkpoint(
            function, *tensors, use_reentrant=False, preserve_rng_state=False, context_fn=lambda: (nullcontext(), recomputing())
        )


class GroupedQueryAttention(torch.nn.Module):
    """Norm, queries, keys and values as one product, their rotation, the core, and the projection back into the stream."""

    def __init__(self, name: str, model: TransformerModel, kind: LayerKind, split: Split, *, recompute_core: bool) -> None:
        super().__init__()
        self.name, self.recompute_core = name, recompute_core
        ranks, hidden, query, kv = split.group.ranks, int(model.hidden_size), int(model.query_size), int(model.kv_size)
        self.heads, self.kv_heads = int(model.attention_heads) // ranks, int(model.kv_heads) // ranks
        self.head_size, self.window = int(model.head_size), None if kind.window is None else int(kind.window)
        self.rotary_size = int(model.head_size * model.rotary_fraction) // 2 * 2 if rotates(model, kind) else 0
        self.norm = Norm(f"{name}.norm", model.norm, hidden)
        self.qkv = ColumnParallelLinear(f"{name}.qkv", (query, kv, kv), hidden, split, bias=model.has_bias("qkv"))
        self.projection = RowParallelLinear(f"{name}.projection", hidden, query, split, bias=model.has_bias("projection"))
        size = int(model.head_size) if model.qk_norm == "head" else 0
        self.query_norm, self.key_norm = (torch.nn.Parameter(torch.empty(size)) if size else None for _ in range(2))

    def forward(self, x: torch.Tensor, sequences: int, rotations: Rotations) -> torch.Tensor:
        """(tokens of this rank, width) to the same; a micro-batch has `sequences`."""
        parts = self._heads(self.qkv(self.norm(x)), sequences, rotations.get(self.rotary_size))

        def core(*parts: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = named(f"{self.name}.core", lambda *each: attended(*each, window=self.window), *parts)
            return result

        result: torch.Tensor = self.projection(run_again(core, *parts) if self.recompute_core else core(*parts))
        return result

    def _heads(self, qkv: torch.Tensor, sequences: int, rotate: Rotation | None) -> tuple[torch.Tensor, ...]:
        """Queries, keys and values, each (sequence, sequences, heads, head size), the first two normalised and rotated."""
        sizes = {"sequences": sequences, "heads": self.heads, "kv_heads": self.kv_heads}
        result: tuple[torch.Tensor, ...]
        if self.query_norm is None or self.key_norm is None:
            if rotate is None:
                return taken_apart(qkv, **sizes, rotate=None)
            result = named(f"{self.name}.rotary", lambda qkv: taken_apart(qkv, **sizes, rotate=rotate), qkv)
            return result
        q, k, v = taken_apart(qkv, **sizes, rotate=None)
        weights = self.query_norm, self.key_norm
        normalised = named(f"{self.name}.qk_norm", lambda *each: tuple(map(normalised_heads, each, weights)), q, k)
        if rotate is None:
            return *normalised, v.contiguous()
        turned = named(
            f"{self.name}.rotary", lambda q, k, v: (rotated(q, *rotate), rotated(k, *rotate), v.contiguous()), *normalised, v
        )
        result = turned
        return result


def rotates(model: TransformerModel, kind: LayerKind) -> bool:
    """Whether queries and keys of such a layer are rotated."""
    return model.position == "rotary" and kind.rotary
