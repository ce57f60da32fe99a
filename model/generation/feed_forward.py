"""The feed-forward part of a layer on some rows, under the names of the forecast: an MLP, or experts and what all rows pass."""

from __future__ import annotations

import torch
from torch.nn import functional

from perfmodel.model.operators import operator
from perfmodel.model.parts.experts import ExpertFeedForward, GroupedLinear
from perfmodel.model.parts.feed_forward import DenseFeedForward, Mlp
from perfmodel.model.parts.layers import activated


def feed_forward_out(part: DenseFeedForward | ExpertFeedForward, x: torch.Tensor) -> torch.Tensor:
    """What the part makes of (rows, width), behind its norm: on this rank, without the bias that ranks add once."""
    if isinstance(part, DenseFeedForward):
        return _mlp(part, x)
    return _experts(part, x)


def _mlp(mlp: Mlp, x: torch.Tensor) -> torch.Tensor:
    with operator(mlp.fc1.name):
        wide = functional.linear(x, mlp.fc1.weight, mlp.fc1.bias)
    with operator(f"{mlp.prefix}activation"):
        wide = activated(mlp.kind, wide)
    with operator(mlp.fc2.name):
        return functional.linear(wide, mlp.fc2.weight)


def _experts(part: ExpertFeedForward, x: torch.Tensor) -> torch.Tensor:
    with operator(part.router.name):
        scores = functional.linear(x, part.router.weight, part.router.bias)
    with operator(f"{part.name}.route"):
        weights, chosen = part.router.chosen_of(scores)
        order, rows = by_expert(chosen, part.experts)
    with operator(f"{part.name}.permute"):
        copies = x.index_select(0, order // chosen.shape[1])
    with operator(part.fc1.name):
        wide = expert_products(part.fc1, copies, rows)
    with operator(f"{part.name}.activation"):
        wide = activated(part.kind, wide)
    with operator(part.fc2.name):
        found = expert_products(part.fc2, wide, rows)
    with operator(f"{part.name}.permute"):
        routed = weighed_sums(found, weights, order)
    if part.shared is None:
        return routed
    shared = _mlp(part.shared, x)
    with operator(f"{part.name}.permute"):
        return routed.add_(shared)


def by_expert(chosen: torch.Tensor, experts: int) -> tuple[torch.Tensor, list[int]]:
    """Copies of tokens in the order of their experts, (tokens, experts a token), and how many each expert has."""
    flat = chosen.reshape(-1)
    return flat.argsort(stable=True), flat.bincount(minlength=experts).tolist()


def expert_products(linear: GroupedLinear, x: torch.Tensor, rows: list[int]) -> torch.Tensor:
    """The rows of every expert that has some, times its weight, one after the other."""
    weight = linear.weight
    result, begin = x.new_empty(len(x), weight.shape[1]), 0
    for expert, number in enumerate(rows):
        if number:
            torch.mm(x[begin : begin + number], weight[expert].T, out=result[begin : begin + number])
            begin += number
    return result


def weighed_sums(rows: torch.Tensor, weights: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """The sum of what the experts of each token give, times their weights."""
    back = torch.empty_like(order).index_copy_(0, order, torch.arange(len(order), device=order.device))
    each = weights.to(rows.dtype)
    return functional.embedding_bag(back.view(weights.shape), rows, mode="sum", per_sample_weights=each)
