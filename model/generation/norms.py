"""Norms of generation: that of the stream in one piece with the residual connection before it, as engines have it."""

from __future__ import annotations

import torch

from perfmodel.model.parts.layers import Norm
from perfmodel.model.parts.norms import layernorm1p, rmsnorm


def normed(norm: Norm, x: torch.Tensor) -> torch.Tensor:
    """The norm of each row."""
    return rmsnorm(x, norm.weight) if norm.bias is None else layernorm1p(x, norm.weight, norm.bias)


def added_and_normed(norm: Norm, stream: torch.Tensor, branch: torch.Tensor | None) -> torch.Tensor:
    """The norm of stream + branch, which `stream` is then; there is no branch before the first layer."""
    if branch is not None:
        stream.add_(branch)
    return normed(norm, stream)


def of_heads(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """RMS norm of every head on its own, (..., head size)."""
    return rmsnorm(x, weight)
