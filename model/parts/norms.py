"""Layer norm and RMS norm as functions of their input, which is all that either keeps for its gradient.

PyTorch has one kernel for a layer norm, and on GPUs one for an RMS norm. On a CPU its RMS norm is a chain of operators that
keeps two fp32 copies of the input; here the backward pass forms them again, piece by piece, in half the time.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch.nn import functional

EPSILON: Final = 1e-5
PIECE: Final = 2**17  # numbers whose fp32 copies stay in the cache


def layernorm1p(x: torch.Tensor, gamma: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Layer norm with weight 1 + gamma."""
    return functional.layer_norm(x, (x.shape[-1],), 1.0 + gamma, bias, EPSILON)


def rmsnorm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """x * weight / sqrt(mean(x^2) + epsilon)."""
    if x.device.type != "cpu":
        return functional.rms_norm(x, (x.shape[-1],), weight, EPSILON)
    result: torch.Tensor = _RmsNorm.apply(x, weight)
    return result


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        context.save_for_backward(x, weight)
        return functional.rms_norm(x, (x.shape[-1],), weight, EPSILON)

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> Any:
        """With u = x / r, r the root, and v = dy * weight: dx = (v - u * mean(v * u)) / r, and dweight = sum(dy * u)."""
        x, weight = context.saved_tensors
        rows = max(PIECE // x.shape[-1], 1)
        dx, wide = torch.empty_like(x), weight.to(torch.float32)
        dweight = torch.zeros_like(wide)
        for values, gradient, into in zip(x.split(rows), gradients[0].split(rows), dx.split(rows), strict=True):
            copy = values.to(torch.float32, copy=True)
            over = copy.square().mean(dim=-1, keepdim=True).add_(EPSILON).rsqrt_()
            unit, dy = copy.mul_(over), gradient.to(torch.float32)
            shares = dy * unit
            dweight.add_(shares.sum(dim=0))
            mean = (shares @ wide).div_(x.shape[-1])
            into.copy_((dy * wide).sub_(unit.mul_(mean[:, None])).mul_(over))
        return dx, dweight.to(weight.dtype)
