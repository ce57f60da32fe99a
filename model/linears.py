"""Linears of a tensor-parallel group: split by columns or by rows, with the collectives that Megatron-LM runs around them.

A column-parallel linear holds some of the output columns and wants the whole input; a row-parallel one holds some of the inner
size and leaves partial sums (arXiv:1909.08053). With sequence parallelism the first gathers its input, keeps only its own share
of it and gathers it again for the weight's gradient; the second scatters its output (arXiv:2205.05198, section 4.2.2).

PyTorch's own tensor-parallel plans (ColwiseParallel, RowwiseParallel) are not used here: they keep the gathered input, reduce the
gradient of every norm apart, and cost the CPU several times as long a linear. tests/model holds this model against them.

Weights are (columns, inner). Their gradients are added to `main_grad`, a piece of one buffer (model/optimizer.py), in the
precision that it has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from model.groups import Group
from model.operators import operator
from perfmodel.spec.phases import DATA_GRADIENT, FORWARD, WEIGHT_GRADIENT


@dataclass(frozen=True, slots=True)
class Split:
    """How the linears of a model are split."""

    group: Group
    sequence_parallel: bool

    @property
    def shares_tokens(self) -> bool:
        """Whether the ranks hold different tokens between linears."""
        return self.sequence_parallel and self.group.ranks > 1


class _ColumnParallel(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, name: str, split: Split
    ) -> torch.Tensor:
        context.save_for_backward(x)
        context.weight, context.bias, context.name, context.split = weight, bias, name, split
        full = split.group.all_gather(x, f"{name}.gather", FORWARD) if split.shares_tokens else x
        with operator(name, FORWARD):
            return torch.nn.functional.linear(full, weight, bias)

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> Any:
        (gradient,), (x,) = gradients, context.saved_tensors
        name, split = context.name, context.split
        full = split.group.all_gather(x, f"{name}.gather", WEIGHT_GRADIENT) if split.shares_tokens else x
        with operator(name, DATA_GRADIENT):
            dx = gradient @ context.weight
        if split.shares_tokens:
            dx = split.group.reduce_scatter(dx, f"{name}.reduce_input_gradient", DATA_GRADIENT)
        else:
            split.group.all_reduce(dx, f"{name}.reduce_input_gradient", DATA_GRADIENT)
        _add_gradients(name, gradient, full, context.weight, context.bias)
        return dx, None, None, None, None


class _RowParallel(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, name: str, split: Split
    ) -> torch.Tensor:
        context.save_for_backward(x)
        context.weight, context.bias, context.name, context.split = weight, bias, name, split
        with operator(name, FORWARD):
            y = x @ weight.T
        if split.shares_tokens:
            y = split.group.reduce_scatter(y, f"{name}.scatter", FORWARD)
        else:
            split.group.all_reduce(y, f"{name}.all_reduce", FORWARD)
        return y if bias is None else y.add_(bias)

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> Any:
        (gradient,), (x,) = gradients, context.saved_tensors
        name, split = context.name, context.split
        if context.bias is not None:  # of this rank's own tokens
            add_to_main(context.bias, gradient.sum(dim=0, dtype=torch.float32))
        full = split.group.all_gather(gradient, f"{name}.gather_gradient", DATA_GRADIENT) if split.shares_tokens else gradient
        with operator(name, DATA_GRADIENT):
            dx = full @ context.weight
        _add_gradients(name, full, x, context.weight, None)
        return dx, None, None, None, None


def _add_gradients(
    name: str, gradient: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> None:
    """dW = dY^T X as one product, added to what earlier micro-batches left as another operator."""
    with operator(name, WEIGHT_GRADIENT):
        dw = gradient.T @ x
    with operator(f"{name}.accumulate", WEIGHT_GRADIENT):
        add_to_main(weight, dw)
        if bias is not None:
            add_to_main(bias, gradient.sum(dim=0, dtype=torch.float32))


def add_to_main(parameter: torch.Tensor, gradient: torch.Tensor) -> None:
    """Add to the gradient that the optimizer will see."""
    parameter.main_grad.add_(gradient)  # type: ignore[attr-defined]


class _MainGradient(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, parameter: torch.Tensor) -> torch.Tensor:
        context.parameter = parameter
        return parameter.view_as(parameter)

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> None:
        add_to_main(context.parameter, gradients[0])


def collected(parameter: torch.Tensor) -> torch.Tensor:
    """`parameter` for use in any operator: what autograd finds of it is added to its `main_grad`."""
    result: torch.Tensor = _MainGradient.apply(parameter)
    return result


class ColumnParallelLinear(torch.nn.Module):
    """Y = X W^T of this rank's columns."""

    def __init__(self, name: str, columns: int, inner: int, split: Split, *, bias: bool) -> None:
        super().__init__()
        self.name, self.split = name, split
        self.weight = torch.nn.Parameter(torch.empty(columns, inner))
        self.bias = torch.nn.Parameter(torch.empty(columns)) if bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(tokens of this rank, inner) to (all tokens, columns)."""
        result: torch.Tensor = _ColumnParallel.apply(x, self.weight, self.bias, self.name, self.split)
        return result


class RowParallelLinear(torch.nn.Module):
    """The sum over the ranks of X W^T, each with its part of the inner size."""

    def __init__(self, name: str, columns: int, inner: int, split: Split, *, bias: bool) -> None:
        super().__init__()
        self.name, self.split = name, split
        self.weight = torch.nn.Parameter(torch.empty(columns, inner))
        self.bias = torch.nn.Parameter(torch.empty(columns)) if bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(all tokens, inner of this rank) to (tokens of this rank, columns)."""
        result: torch.Tensor = _RowParallel.apply(x, self.weight, self.bias, self.name, self.split)
        return result
