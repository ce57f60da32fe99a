"""Linears of a tensor-parallel group: split by columns or by rows, with the collectives that Megatron-LM runs around them.

A column-parallel linear holds some of the output columns and wants the whole input; a row-parallel one holds some of the inner
size and leaves partial sums (arXiv:1909.08053). With sequence parallelism the first gathers its input, keeps only its own share
of it and gathers it again for the weight's gradient; the second scatters its output (arXiv:2205.05198, section 4.2.2).

PyTorch's own tensor-parallel plans (ColwiseParallel, RowwiseParallel) are not used here: they keep the gathered input (four
collectives for a pair of linears, where Megatron-LM has five and less memory), and leave the gradients of norms as partial
sums.

Weights are (columns, inner). Their gradients are added to `main_grad`, a piece of one buffer (model/training/optimizer.py), in
the precision that it has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import torch

from perfmodel.model.cuts import WHOLE, Cut
from perfmodel.model.groups import Group
from perfmodel.model.operators import operator
from perfmodel.spec.phases import DATA_GRADIENT, FORWARD, WEIGHT_GRADIENT

PIECE: Final = 2**18  # numbers


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
    def forward(context: Any, x: torch.Tensor, weight: torch.Tensor, linear: Linear) -> torch.Tensor:
        context.save_for_backward(*linear.kept(x))
        context.linear, name, split = linear, linear.name, linear.split
        full = split.group.all_gather(x, f"{name}.gather", FORWARD) if split.shares_tokens else x
        with operator(name, FORWARD):
            return torch.nn.functional.linear(full, weight, linear.bias)

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> Any:
        (gradient,) = gradients
        linear, name, split = context.linear, context.linear.name, context.linear.split
        if linear.is_frozen:
            with operator(name, DATA_GRADIENT):
                return gradient @ linear.weight, None, None
        (x,) = context.saved_tensors
        full = split.group.all_gather(x, f"{name}.gather", WEIGHT_GRADIENT) if split.shares_tokens else x
        with operator(name, DATA_GRADIENT):
            dx = gradient @ linear.weight
        if split.shares_tokens:
            dx = split.group.reduce_scatter(dx, f"{name}.reduce_input_gradient", DATA_GRADIENT)
        else:
            split.group.all_reduce(dx, f"{name}.reduce_input_gradient", DATA_GRADIENT)
        _add_gradients(name, gradient, full, linear.weight, linear.bias)
        return dx, None, None


class _RowParallel(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: torch.Tensor, weight: torch.Tensor, linear: Linear) -> torch.Tensor:
        context.save_for_backward(*linear.kept(x))
        context.linear, name, split = linear, linear.name, linear.split
        with operator(name, FORWARD):
            y = x @ weight.T
        if split.shares_tokens:
            y = split.group.reduce_scatter(y, f"{name}.scatter", FORWARD)
        else:
            split.group.all_reduce(y, f"{name}.all_reduce", FORWARD)
        return y if linear.bias is None else y.add_(linear.bias)

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> Any:
        (gradient,) = gradients
        linear, name, split = context.linear, context.linear.name, context.linear.split
        if linear.is_frozen:
            with operator(name, DATA_GRADIENT):
                return gradient @ linear.weight, None, None
        (x,) = context.saved_tensors
        if linear.bias is not None:  # of this rank's own tokens
            add_to_main(linear.bias, gradient.sum(dim=0, dtype=torch.float32))
        full = split.group.all_gather(gradient, f"{name}.gather_gradient", DATA_GRADIENT) if split.shares_tokens else gradient
        with operator(name, DATA_GRADIENT):
            dx = full @ linear.weight
        _add_gradients(name, full, x, linear.weight, None)
        return dx, None, None


class _Gathered(torch.autograd.Function):
    """The tokens of all ranks that share them; backwards this rank's own get the sum of the gradients that ranks found."""

    @staticmethod
    def forward(context: Any, x: torch.Tensor, name: str, group: Group) -> torch.Tensor:
        context.name, context.group = name, group
        return group.all_gather(x, f"{name}.gather", FORWARD)

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> Any:
        name = f"{context.name}.scatter_gradient"
        return context.group.reduce_scatter(gradients[0], name, DATA_GRADIENT), None, None


def gathered_tokens(x: torch.Tensor, name: str, split: Split) -> torch.Tensor:
    """(tokens of this rank, width) to (all tokens, width), where the ranks share them."""
    return _Gathered.apply(x, name, split.group) if split.shares_tokens else x


class _Whole(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: torch.Tensor, weight: torch.Tensor, linear: Linear) -> torch.Tensor:
        context.save_for_backward(x)
        context.linear = linear
        with operator(linear.name, FORWARD):
            return torch.nn.functional.linear(x, weight, linear.bias)

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> Any:
        (gradient,), (x,), linear = gradients, context.saved_tensors, context.linear
        with operator(linear.name, DATA_GRADIENT):
            dx = gradient @ linear.weight
        _add_gradients(linear.name, gradient, x, linear.weight, linear.bias)
        return dx, None, None


def _add_gradients(name: str, gradient: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
    """dW = dY^T X as one product; another operator adds it to what earlier micro-batches left, or overwrites what is old."""
    if weight.main_grad_is_old and weight.main_grad.dtype == gradient.dtype:
        with operator(name, WEIGHT_GRADIENT):
            torch.mm(gradient.T, x, out=weight.main_grad)
            weight.main_grad_is_old = False
    else:
        with operator(name, WEIGHT_GRADIENT):
            dw = gradient.T @ x
        with operator(f"{name}.{'overwrite' if weight.main_grad_is_old else 'accumulate'}", WEIGHT_GRADIENT):
            add_to_main(weight, dw)
    if bias is not None:
        add_to_main(bias, gradient.sum(dim=0, dtype=torch.float32))


def add_to_main(parameter: torch.Tensor, gradient: torch.Tensor) -> None:
    """Add to the gradient that the optimizer will see; the first of an iteration overwrites that of the one before."""
    if parameter.main_grad_is_old:
        parameter.main_grad.copy_(gradient)
        parameter.main_grad_is_old = False
    else:
        accumulate(parameter.main_grad, gradient)


def lay_gradient(parameter: torch.Tensor, place: torch.Tensor) -> None:
    """`place` is where the gradient of `parameter` will stand; what stands there now is old."""
    parameter.main_grad, parameter.main_grad_is_old = place, True


def accumulate(total: torch.Tensor, more: torch.Tensor) -> None:
    """total += more. A CPU first makes a copy of `more` in the precision of `total`: piece by piece it stays in the cache."""
    if total.dtype == more.dtype or total.device.type != "cpu" or more.numel() <= PIECE:
        total.add_(more)
        return
    for into, piece in zip(total.view(-1).split(PIECE), more.reshape(-1).split(PIECE), strict=True):
        into.add_(piece)


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


class Linear(torch.nn.Module):
    """What this rank holds of a linear: `columns` x `inner` weights, and how the whole of them is cut."""

    def __init__(self, name: str, columns: int, inner: int, split: Split, *, bias: bool, cut: Cut) -> None:
        super().__init__()
        self.name, self.split, self.cut = name, split, cut
        self.weight = torch.nn.Parameter(torch.empty(columns, inner))
        self.bias = torch.nn.Parameter(torch.empty(columns)) if bias else None
        self.adapters = torch.nn.ModuleList()

    @property
    def is_frozen(self) -> bool:
        """Whether its weight gets no gradient."""
        return not self.weight.requires_grad

    def kept(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """What a product keeps of its input: all of it for the gradient of its weight."""
        return () if self.is_frozen else (x,)

    def adapted(self, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """The result y on x, with what adapters add to it."""
        for adapter in self.adapters:
            y = adapter(y, x)
        return y

    def cut_of(self, parameter: str) -> Cut:
        """How the ranks share its weight or its bias: one of columns that are cut is cut with them."""
        return self.cut if parameter == "weight" or self.cut.axis == 0 else WHOLE


class ColumnParallelLinear(Linear):
    """Y = X W^T of this rank's columns: its share of each of the `pieces` that the columns of all ranks are made of."""

    def __init__(self, name: str, pieces: tuple[int, ...], inner: int, split: Split, *, bias: bool) -> None:
        super().__init__(name, sum(pieces) // split.group.ranks, inner, split, bias=bias, cut=Cut(0, pieces))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(tokens of this rank, inner) to (all tokens, columns)."""
        result: torch.Tensor = _ColumnParallel.apply(x, self.weight, self)
        return self.adapted(result, x)


class RowParallelLinear(Linear):
    """The sum over the ranks of X W^T, each with its part of the inner size of all of them."""

    def __init__(self, name: str, columns: int, inner: int, split: Split, *, bias: bool) -> None:
        super().__init__(name, columns, inner // split.group.ranks, split, bias=bias, cut=Cut(1, (inner,)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(all tokens, inner of this rank) to (tokens of this rank, columns)."""
        result: torch.Tensor = _RowParallel.apply(x, self.weight, self)
        return self.adapted(result, x)


class CutLinear(Linear):
    """Y = X W^T of this rank's columns, of an input that every rank has all tokens of, and a gradient that others add to."""

    def __init__(self, name: str, columns: int, inner: int, split: Split, *, bias: bool) -> None:
        super().__init__(name, columns // split.group.ranks, inner, split, bias=bias, cut=Cut(0, (columns,)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(all tokens, inner) to (all tokens, columns of this rank)."""
        result: torch.Tensor = _Whole.apply(x, self.weight, self)
        return result


class WholeLinear(Linear):
    """Y = X W^T of this rank's own tokens, with the whole weight on every rank."""

    def __init__(self, name: str, columns: int, inner: int, split: Split, *, bias: bool) -> None:
        super().__init__(name, columns, inner, split, bias=bias, cut=WHOLE)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(tokens of this rank, inner) to (the same tokens, columns)."""
        result: torch.Tensor = _Whole.apply(x, self.weight, self)
        return result
