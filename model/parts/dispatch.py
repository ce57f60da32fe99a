"""How tokens get to the ranks of their experts, and what these make of them back: permutations and all-to-all exchanges.

A rank sends a copy of a token for each expert that it meets, in the order of the experts, and puts what arrives from all ranks
in the order of its own experts. What they give goes the same way back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from perfmodel.model.groups import Group
from perfmodel.model.operators import named, operator
from perfmodel.spec.phases import DATA_GRADIENT, FORWARD


@dataclass(frozen=True, slots=True)
class Order:
    """Another order of rows: `places` of those that stand in it, one after the other, and `back` of those that stood before."""

    places: torch.Tensor
    back: torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Which rows go where in one layer and micro-batch.

    `order` puts the copies of this rank's tokens, `each` of a token, by their experts; `send` and `receive` are how many of
    them each rank is sent and sends. `regrouped` puts what arrives by this rank's experts, of which each takes `rows`.
    """

    each: int
    order: Order
    send: list[int]
    receive: list[int]
    regrouped: Order | None
    rows: list[int]


def route(chosen: torch.Tensor, experts: int, group: Group, name: str, *, balanced: bool) -> Route:
    """The route of tokens that meet the `chosen` experts (tokens, experts a token).

    Where experts are dealt out evenly every rank knows what all send; else ranks tell each other.
    """
    flat, own = chosen.reshape(-1), experts // group.ranks
    with operator(f"{name}.route"):
        order = _order(flat.argsort(stable=True))
        counts = _even_counts(len(flat), experts) if balanced else flat.bincount(minlength=experts)
    places = [own] * group.ranks
    if balanced:
        received = counts.view(group.ranks, own)[group.rank].expand(group.ranks, own)
    else:
        received = group.all_to_all(counts, places, places, f"{name}.counts", FORWARD).view(group.ranks, own).cpu()
    return Route(
        each=chosen.shape[1],
        order=order,
        send=counts.view(group.ranks, own).sum(dim=1).tolist(),
        receive=received.sum(dim=1).tolist(),
        regrouped=_order(_by_expert(received).to(chosen.device)) if own > 1 else None,
        rows=received.sum(dim=0).tolist(),
    )


def _order(places: torch.Tensor) -> Order:
    return Order(places, torch.empty_like(places).index_copy_(0, places, torch.arange(len(places), device=places.device)))


def _even_counts(copies: int, experts: int) -> torch.Tensor:
    """Copies of tokens for each expert where they are dealt out in turn (router.py)."""
    return torch.tensor([copies // experts + (expert < copies % experts) for expert in range(experts)])


def _by_expert(received: torch.Tensor) -> torch.Tensor:
    """Places of rows that lie by rank and then by expert (how many of each), in the order of the experts."""
    numbers = received.flatten()
    begins = (numbers.cumsum(0) - numbers).view(received.shape).T.flatten().tolist()
    pieces = [torch.arange(begin, begin + size) for begin, size in zip(begins, received.T.flatten().tolist(), strict=True)]
    return torch.cat(pieces)


def _copies(x: torch.Tensor, way: Route) -> torch.Tensor:
    """A copy of each token for each of its experts, in their order."""
    return x.index_select(0, way.order.places // way.each)


def _sums(rows: torch.Tensor, way: Route) -> torch.Tensor:
    """The sum of the copies of each token, in one pass over them."""
    return torch.nn.functional.embedding_bag(way.order.back.view(-1, way.each), rows, mode="sum")


class _Copies(torch.autograd.Function):
    """Copies of tokens; backwards their gradients are added up."""

    @staticmethod
    def forward(context: Any, x: torch.Tensor, way: Route) -> torch.Tensor:
        context.way = way
        return _copies(x, way)

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> Any:
        return _sums(gradients[0], context.way), None


class _Sums(torch.autograd.Function):
    """Sums of copies; backwards each of them has the gradient of the sum."""

    @staticmethod
    def forward(context: Any, rows: torch.Tensor, way: Route) -> torch.Tensor:
        context.way = way
        return _sums(rows, way)

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> Any:
        return _copies(gradients[0], context.way), None


class _Weighed(torch.autograd.Function):
    """Every row times its weight; rows are in an order, weights are not."""

    @staticmethod
    def forward(context: Any, rows: torch.Tensor, weights: torch.Tensor, order: Order) -> torch.Tensor:
        each = weights.flatten().index_select(0, order.places)[:, None]
        context.save_for_backward(rows, each)
        context.order, context.shape = order, weights.shape
        return rows * each.to(rows.dtype)

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> Any:
        (rows, each), (gradient,) = context.saved_tensors, gradients
        of_weights = torch.linalg.vecdot(rows, gradient).to(each.dtype).index_select(0, context.order.back)
        return gradient * each.to(gradient.dtype), of_weights.view(context.shape), None


class _InOrder(torch.autograd.Function):
    """Rows at other places, and their gradients back where the rows were."""

    @staticmethod
    def forward(context: Any, rows: torch.Tensor, places: torch.Tensor, back: torch.Tensor) -> torch.Tensor:
        context.back = back
        return rows.index_select(0, places)

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> Any:
        return gradients[0].index_select(0, context.back), None, None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Message:
    """What the ranks of a group tell each other: how many rows this one sends each, and gets from each."""

    name: str
    group: Group
    send: list[int]
    receive: list[int]


class _Exchange(torch.autograd.Function):
    """Rows to the ranks that they are for; backwards their gradients go the other way."""

    @staticmethod
    def forward(context: Any, rows: torch.Tensor, told: _Message) -> torch.Tensor:
        context.told = told
        received = told.group.all_to_all(rows, told.send, told.receive, told.name, FORWARD)
        return rows.view_as(rows) if received is rows else received

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> Any:
        told = context.told
        return told.group.all_to_all(gradients[0], told.receive, told.send, told.name, DATA_GRADIENT), None


def dispatched(x: torch.Tensor, way: Route, group: Group, name: str) -> torch.Tensor:
    """Of this rank's tokens and those of its group: the rows of this rank's experts."""
    copies = named(f"{name}.permute", lambda x: _Copies.apply(x, way), x)
    told = _Message(name=f"{name}.dispatch", group=group, send=way.send, receive=way.receive)
    rows: torch.Tensor = _Exchange.apply(copies, told)
    if way.regrouped is None:
        return rows
    places, back = way.regrouped.places, way.regrouped.back
    result: torch.Tensor = named(f"{name}.sort", lambda rows: _InOrder.apply(rows, places, back), rows)
    return result


def combined(rows: torch.Tensor, weights: torch.Tensor, way: Route, group: Group, name: str) -> torch.Tensor:
    """Of the rows of this rank's experts and those of its group: what all experts give this rank's tokens."""
    if way.regrouped is not None:
        places, back = way.regrouped.places, way.regrouped.back
        rows = named(f"{name}.unsort", lambda rows: _InOrder.apply(rows, back, places), rows)
    told = _Message(name=f"{name}.combine", group=group, send=way.receive, receive=way.send)
    own = _Exchange.apply(rows, told)
    weighed = named(f"{name}.weigh", lambda own, weights: _Weighed.apply(own, weights, way.order), own, weights)
    result: torch.Tensor = named(f"{name}.unpermute", lambda rows: _Sums.apply(rows, way), weighed)
    return result
