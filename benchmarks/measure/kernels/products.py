"""Matrix products and attention as the reference model runs them, on random tensors."""

from __future__ import annotations

import torch

from perfmodel.benchmarks.measure.kernels.memory_operators import both_ways
from perfmodel.benchmarks.measure.kernels.tensors import random
from perfmodel.benchmarks.measure.kernels.timing import Prepared
from perfmodel.model.parts.layers import attended
from perfmodel.spec.phases import DATA_GRADIENT, FORWARD


def product(*, rows: int, columns: int, inner: int, precision: str, phase: str, device: str) -> Prepared:
    """Y = X W^T, dX = dY W or dW = dY^T X of a linear (model/parts/linears.py)."""

    def made(*shape: int) -> torch.Tensor:
        return random(*shape, precision=precision, device=device)

    if phase == FORWARD:
        x, w = made(rows, inner), made(columns, inner)
        return Prepared(lambda: torch.nn.functional.linear(x, w))
    dy = made(rows, columns)
    if phase == DATA_GRADIENT:
        w = made(columns, inner)
        return Prepared(lambda: dy @ w)
    x = made(rows, inner)
    return Prepared(lambda: dy.T @ x)


def attention(
    *, sequences: int, heads: int, kv_heads: int, head_size: int, sequence_length: int, precision: str, phase: str, device: str
) -> Prepared:
    """The fused kernel of causal attention (model/parts/layers.py), or its gradient."""
    q, k, v = (
        random(sequence_length, sequences, number, head_size, precision=precision, device=device)
        for number in (heads, kv_heads, kv_heads)
    )
    return both_ways(phase, attended, q, k, v)
