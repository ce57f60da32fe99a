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


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Which rows go where in one layer and micro-batch.

    `order` holds the copies of this rank's tokens by their experts, `send` and `receive` how many of them each rank is sent and
    sends, `regrouped` what arrives by this rank's experts, and `rows` how many each of those takes.
    """

    order: torch.Tensor
    send: list[int]
    receive: list[int]
    regrouped: torch.Tensor | None
    rows: list[int]


def route(chosen: torch.Tensor, experts: int, group: Group, name: str, *, balanced: bool) -> Route:
    """The route of tokens that meet the `chosen` experts (tokens, experts a token).

    Where experts are dealt out evenly every rank knows what all send; else ranks tell each other.
    """
    flat = chosen.reshape(-1)
    with operator(f"{name}.route"):
        order = flat.argsort(stable=True)
    own = experts // group.ranks
    if balanced:
        copies, most = len(flat), len(flat) % experts
        sent = torch.tensor([copies // experts + (expert < most) for expert in range(experts)]).view(group.ranks, own)
        received = sent[group.rank].expand(group.ranks, own)
    else:
        with operator(f"{name}.route"):
            counts = flat.bincount(minlength=experts)
        places = [own] * group.ranks
        received = group.all_to_all(counts, places, places, f"{name}.counts", FORWARD).view(group.ranks, own).cpu()
        sent = counts.view(group.ranks, own).cpu()
    return Route(
        order=order,
        send=sent.sum(dim=1).tolist(),
        receive=received.sum(dim=1).tolist(),
        regrouped=_by_expert(received).to(chosen.device) if own > 1 else None,
        rows=received.sum(dim=0).tolist(),
    )


def _by_expert(received: torch.Tensor) -> torch.Tensor:
    """Rows that lie by rank and then by expert (how many of each) in the order of the experts."""
    numbers = received.flatten()
    begins = (numbers.cumsum(0) - numbers).view(received.shape).T.flatten().tolist()
    pieces = [torch.arange(begin, begin + size) for begin, size in zip(begins, received.T.flatten().tolist(), strict=True)]
    return torch.cat(pieces)


class _Copies(torch.autograd.Function):
    """A copy of a token for each of its experts, in their order; backwards the gradients of its copies are added up."""

    @staticmethod
    def forward(context: Any, x: torch.Tensor, order: torch.Tensor, each: int) -> torch.Tensor:
        context.order, context.each = order, each
        return x.index_select(0, order // each)

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> Any:
        return _back(gradients[0], context.order).view(-1, context.each, gradients[0].shape[1]).sum(dim=1), None, None


class _Sums(torch.autograd.Function):
    """The sum of the copies of each token; backwards each of them has the gradient of the sum."""

    @staticmethod
    def forward(context: Any, rows: torch.Tensor, order: torch.Tensor, each: int) -> torch.Tensor:
        context.order, context.each = order, each
        return _back(rows, order).view(-1, each, rows.shape[1]).sum(dim=1)

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> Any:
        return gradients[0].index_select(0, context.order // context.each), None, None


class _Weighed(torch.autograd.Function):
    """Every row times its weight; rows are in `order`, weights are not."""

    @staticmethod
    def forward(context: Any, rows: torch.Tensor, weights: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
        each = weights.flatten().index_select(0, order)[:, None]
        context.save_for_backward(rows, each)
        context.order, context.shape = order, weights.shape
        return rows * each.to(rows.dtype)

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> Any:
        (rows, each), (gradient,) = context.saved_tensors, gradients
        of_weights = _back(torch.linalg.vecdot(rows, gradient).to(each.dtype), context.order)
        return gradient * each.to(gradient.dtype), of_weights.view(context.shape), None


class _InOrder(torch.autograd.Function):
    """Rows in another order, or what was in it back in its own."""

    @staticmethod
    def forward(context: Any, rows: torch.Tensor, order: torch.Tensor, back: bool) -> torch.Tensor:
        context.order, context.back = order, back
        return _back(rows, order) if back else rows.index_select(0, order)

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> Any:
        order, (gradient,) = context.order, gradients
        return gradient.index_select(0, order) if context.back else _back(gradient, order), None, None


def _back(rows: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """What index_select(0, order) made these rows of."""
    return torch.empty_like(rows).index_copy_(0, order, rows)


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


def dispatched(x: torch.Tensor, way: Route, each: int, group: Group, name: str) -> torch.Tensor:
    """Of this rank's tokens, each of which meets `each` experts, and those of its group: the rows of this rank's experts."""
    copies = named(f"{name}.permute", lambda x: _Copies.apply(x, way.order, each), x)
    rows: torch.Tensor = _Exchange.apply(
        copies, _Message(name=f"{name}.dispatch", group=group, send=way.send, receive=way.receive)
    )
    return rows if way.regrouped is None else _sorted(rows, way.regrouped, name, back=False)


def combined(rows: torch.Tensor, weights: torch.Tensor, way: Route, group: Group, name: str) -> torch.Tensor:
    """Of the rows of this rank's experts and those of its group: what all experts give this rank's tokens."""
    rows = rows if way.regrouped is None else _sorted(rows, way.regrouped, name, back=True)
    own = _Exchange.apply(rows, _Message(name=f"{name}.combine", group=group, send=way.receive, receive=way.send))
    weighed = named(f"{name}.weigh", lambda own, weights: _Weighed.apply(own, weights, way.order), own, weights)
    result: torch.Tensor = named(f"{name}.unpermute", lambda rows: _Sums.apply(rows, way.order, weights.shape[1]), weighed)
    return result


def _sorted(rows: torch.Tensor, order: torch.Tensor, name: str, *, back: bool) -> torch.Tensor:
    result: torch.Tensor = named(f"{name}.{'un' * back}sort", lambda rows: _InOrder.apply(rows, order, back), rows)
    return result
