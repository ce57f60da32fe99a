"""A mixture of experts in place of the MLP of a layer: a router, the experts of this rank, and one that all tokens pass.

The experts of a layer are dealt out to the ranks of an expert-parallel group, whichever replicas these belong to; none is cut.
Tokens travel as they lie between linears: those that ranks share with sequence parallelism travel once.
"""

from __future__ import annotations

from typing import Any

import torch

from perfmodel.model.cuts import Cut
from perfmodel.model.groups import Group
from perfmodel.model.operators import named, operator
from perfmodel.model.parts.dispatch import combined, dispatched, route
from perfmodel.model.parts.feed_forward import Mlp
from perfmodel.model.parts.layers import Norm, activated, added
from perfmodel.model.parts.linears import Split, add_to_main
from perfmodel.model.parts.router import Router, Routing
from perfmodel.spec.models.layer_parts import Mixture
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.phases import DATA_GRADIENT, FORWARD, WEIGHT_GRADIENT


class _Grouped(torch.autograd.Function):
    """Y = X W^T, rows after rows with the weight of the expert that they are for."""

    @staticmethod
    def forward(context: Any, x: torch.Tensor, weight: torch.Tensor, linear: GroupedLinear, rows: list[int]) -> torch.Tensor:
        context.save_for_backward(x)
        context.linear, context.rows = linear, rows
        with operator(linear.name, FORWARD):
            return _products(x, weight.transpose(1, 2), rows)

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> Any:
        (gradient,), (x,), linear, rows = gradients, context.saved_tensors, context.linear, context.rows
        with operator(linear.name, DATA_GRADIENT):
            dx = _products(gradient, linear.weight, rows)
        _add_gradients(linear, gradient, x, rows)
        return dx, None, None, None


def _products(x: torch.Tensor, weights: torch.Tensor, rows: list[int]) -> torch.Tensor:
    """The rows of every expert times its weight, (inner, columns), one after the other."""
    result = x.new_empty(len(x), weights.shape[2])
    for piece, weight, into in zip(x.split(rows), weights, result.split(rows), strict=True):
        torch.mm(piece, weight, out=into)
    return result


def _add_gradients(linear: GroupedLinear, gradient: torch.Tensor, x: torch.Tensor, rows: list[int]) -> None:
    """dW = dY^T X of every expert; another operator adds all to what earlier micro-batches left, or overwrites what is old."""
    weight, name = linear.weight, linear.name
    in_place = bool(weight.main_grad_is_old) and weight.main_grad.dtype == gradient.dtype
    with operator(name, WEIGHT_GRADIENT):
        dw = weight.main_grad if in_place else torch.empty_like(weight)
        for piece, inner, into in zip(gradient.split(rows), x.split(rows), dw, strict=True):
            torch.mm(piece.T, inner, out=into)
    if in_place:
        weight.main_grad_is_old = False
        return
    with operator(f"{name}.{'overwrite' if weight.main_grad_is_old else 'accumulate'}", WEIGHT_GRADIENT):
        add_to_main(weight, dw)


class GroupedLinear(torch.nn.Module):
    """One linear of each of this rank's experts."""

    def __init__(self, name: str, experts: int, columns: int, inner: int, group: Group) -> None:
        super().__init__()
        self.name, self.cut = name, Cut(0, (experts,), of_experts=True)
        self.weight = torch.nn.Parameter(torch.empty(experts // group.ranks, columns, inner))

    def cut_of(self, _: str) -> Cut:
        """Every rank holds whole experts."""
        return self.cut

    def forward(self, x: torch.Tensor, rows: list[int]) -> torch.Tensor:
        """(rows of all experts, inner) to (the same rows, columns); `rows` are those of each."""
        result: torch.Tensor = _Grouped.apply(x, self.weight, self, rows)
        return result


class ExpertFeedForward(torch.nn.Module):
    """Norm, router, the tokens' way to their experts and back, and the shared expert beside it."""

    def __init__(
        self, name: str, model: TransformerModel, mixture: Mixture, split: Split, group: Group, *, routing: Routing
    ) -> None:
        super().__init__()
        self.name, self.kind, self.group, self.balanced = name, model.activation, group, routing.balanced
        hidden, ffn, experts = int(model.hidden_size), int(mixture.ffn_hidden_size), int(mixture.experts)
        self.experts = experts
        self.norm = Norm(f"{name}.norm", model.norm, hidden)
        self.router = Router(name, mixture, hidden, split, routing=routing)
        self.fc1 = GroupedLinear(f"{name}.fc1", experts, ffn * (1 + model.gated), hidden, group)
        self.fc2 = GroupedLinear(f"{name}.fc2", experts, hidden, ffn, group)
        shared = int(mixture.shared_ffn_hidden_size)
        self.shared = Mlp(f"{name}.shared.", model, shared, split) if shared else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(tokens of this rank, width) to the same."""
        x = self.norm(x)
        weights, chosen = self.router.choice(x)
        routed = self._routed(x, weights, chosen)
        if self.shared is None:
            return routed
        return added(routed, self.shared(x), f"{self.name}.shared.add")

    def _routed(self, x: torch.Tensor, weights: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """What experts, wherever they are, give this rank's tokens."""
        way = route(chosen, self.experts, self.group, self.name, balanced=self.balanced)
        rows = dispatched(x, way, self.group, self.name)
        wide = self.fc1(rows, way.rows)
        wide = named(f"{self.name}.activation", lambda wide: activated(self.kind, wide), wide)
        return combined(self.fc2(wide, way.rows), weights, way, self.group, self.name)
