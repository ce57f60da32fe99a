"""What a decoder layer runs between its linears: norms, rotation, attention, activation, residual connections.

Tokens are (sequence_length * micro_batch_size, width), position by position, so that a share of the sequence is a slice. The
functions at module level are what `benchmarks/` times one by one.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import torch
from torch.nn import functional

from perfmodel.model.operators import named, operator
from perfmodel.model.parts.linears import collected
from perfmodel.model.parts.norms import layernorm1p, rmsnorm
from perfmodel.spec.phases import DATA_GRADIENT

ROTARY_BASE: Final = 10_000.0


def activated(kind: str, x: torch.Tensor) -> torch.Tensor:
    """The activation of an MLP; gated ones take both halves of x: gate first, then what it multiplies."""
    if kind in ("gelu", "relu"):
        return functional.gelu(x) if kind == "gelu" else functional.relu(x)
    result: torch.Tensor = _SquaredRelu.apply(x) if kind == "squared_relu" else _Gated.apply(x, kind)
    return result


class _SquaredRelu(torch.autograd.Function):
    """relu(x)^2, whose gradient 2 * relu(x) * dy needs no look at the sign of x."""

    @staticmethod
    def forward(context: Any, x: torch.Tensor) -> torch.Tensor:
        positive = functional.relu(x)
        context.save_for_backward(positive)
        return positive * positive

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> torch.Tensor:
        (positive,) = context.saved_tensors
        return (gradients[0] * positive).mul_(2.0)


class _Gated(torch.autograd.Function):
    """f(gate) * value; the gradients of both halves are written side by side, so that nothing is joined."""

    @staticmethod
    def forward(context: Any, x: torch.Tensor, kind: str) -> torch.Tensor:
        gate, value = x.chunk(2, dim=-1)
        opened = functional.silu(gate) if kind == "swiglu" else functional.gelu(gate)
        context.save_for_backward(x, opened)
        context.kind = kind
        return opened * value

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> Any:
        x, opened = context.saved_tensors
        (gate, value), dx = x.chunk(2, dim=-1), torch.empty_like(x)
        dgate, dvalue = dx.chunk(2, dim=-1)
        torch.mul(gradients[0], opened, out=dvalue)
        if context.kind == "swiglu":
            torch.ops.aten.silu_backward.grad_input(gradients[0] * value, gate, grad_input=dgate)
        else:
            torch.ops.aten.gelu_backward.grad_input(gradients[0] * value, gate, grad_input=dgate)
        return dx, None


def rotation(sequence_length: int, size: int, dtype: torch.dtype, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin, (sequence_length, 1, 1, size): the angle of position p and pair i is p * base^(-2i/size)."""
    powers = torch.arange(0, size, 2, dtype=torch.float32, device=device) / size
    angles = torch.outer(torch.arange(sequence_length, dtype=torch.float32, device=device), ROTARY_BASE**-powers)
    both = torch.cat((angles, angles), dim=-1)[:, None, None, :]
    return both.cos().to(dtype), both.sin().to(dtype)


def rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """x * cos + (-second half, first half) * sin on the first numbers of each head; the others pass (partial rotation)."""
    size = cos.shape[-1]
    turned, passed = x[..., :size], x[..., size:]
    first, second = turned.chunk(2, dim=-1)
    turned = turned * cos + torch.cat((-second, first), dim=-1) * sin
    return torch.cat((turned, passed), dim=-1) if passed.shape[-1] else turned


def taken_apart(
    qkv: torch.Tensor, *, sequences: int, heads: int, kv_heads: int, rotate: tuple[torch.Tensor, torch.Tensor] | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, keys and values, each (sequence, sequences, heads, head size), the first two rotated; values are a copy.

    Values that were a view would keep all of `qkv` until the backward pass.
    """
    size = qkv.shape[-1] // (heads + 2 * kv_heads)
    q, k, v = qkv.view(-1, sequences, heads + 2 * kv_heads, size).split([heads, kv_heads, kv_heads], dim=2)
    if rotate is None:
        return q, k, v
    return rotated(q, *rotate), rotated(k, *rotate), v.contiguous()


def attended(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, window: int | None = None) -> torch.Tensor:
    """Causal attention of (sequence, sequences, heads, head size) to (tokens, width); a query meets `window` keys at most.

    A window that hides nothing is none; another is a mask over all scores. The fused kernel of a CPU takes values of the size
    of keys alone: narrower ones are filled up with zeros.
    """
    length, size = q.shape[0], v.shape[-1]
    if q.device.type == "cpu" and size < k.shape[-1]:
        v = functional.pad(v, (0, k.shape[-1] - size))
    q, k, v = (each.permute(1, 2, 0, 3) for each in (q, k, v))
    mask = within(length, window, q.device) if window is not None and window < length else None
    grouped = q.shape[1] != k.shape[1]
    out = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=grouped)
    return out[..., :size].permute(2, 0, 1, 3).reshape(length * q.shape[0], -1)


@lru_cache(maxsize=8)
def within(length: int, window: int, device: torch.device) -> torch.Tensor:
    """Which of `length` keys each query meets: the `window` nearest before it, itself among them."""
    places = torch.arange(length, device=device)
    distance = places[:, None] - places[None, :]
    return (distance >= 0) & (distance < window)


class Norm(torch.nn.Module):
    """Layer norm (weight 1 + gamma) or RMS norm, under its name."""

    def __init__(self, name: str, kind: str, width: int) -> None:
        super().__init__()
        self.name, self.kind = name, kind
        self.weight = torch.nn.Parameter(torch.empty(width))
        self.bias = torch.nn.Parameter(torch.empty(width)) if kind == "layernorm" else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(tokens, width) to the same."""
        result: torch.Tensor = named(self.name, self._norm, x)
        return result

    def _norm(self, x: torch.Tensor) -> torch.Tensor:
        if self.bias is None:
            return rmsnorm(x, collected(self.weight))
        return layernorm1p(x, collected(self.weight), collected(self.bias))


class _Fork(torch.autograd.Function):
    """One stream into a residual connection and its branch; backwards their gradients are added up."""

    @staticmethod
    def forward(context: Any, x: torch.Tensor, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        context.name = name
        return x.view_as(x), x.view_as(x)

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> Any:
        with operator(context.name, DATA_GRADIENT):
            return gradients[0] + gradients[1], None


class _Join(torch.autograd.Function):
    """The stream and what its branch adds."""

    @staticmethod
    def forward(_: Any, stream: torch.Tensor, branch: torch.Tensor, name: str) -> torch.Tensor:
        with operator(name):
            return stream + branch

    @staticmethod
    def backward(_: Any, *gradients: torch.Tensor) -> Any:
        return gradients[0], gradients[0], None


def normalised_heads(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """RMS norm of every head on its own, (..., head size), all with one weight."""
    return rmsnorm(x.reshape(-1, x.shape[-1]), collected(weight)).view(x.shape)


def added(stream: torch.Tensor, branch: torch.Tensor, name: str) -> torch.Tensor:
    """stream + branch; backwards both have the same gradient, which nothing is done to."""
    result: torch.Tensor = _Join.apply(stream, branch, name)
    return result


def residual(x: torch.Tensor, branch: torch.nn.Module | Any, name: str) -> torch.Tensor:
    """x + branch(x)."""
    stream, into = _Fork.apply(x, name)
    return added(stream, branch(into), name)
