"""The router of a mixture of experts: what each token gives every expert, and the few that it meets.

Scores are formed in fp32. No forecast depends on how they are formed; a trained model does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from perfmodel.errors import InputError, did_you_mean
from perfmodel.model.cuts import WHOLE, Cut
from perfmodel.model.linears import add_to_main, collected
from perfmodel.model.operators import named, operator
from perfmodel.spec.layer_parts import Mixture
from perfmodel.spec.phases import DATA_GRADIENT, WEIGHT_GRADIENT

SCORES = ("softmax", "sigmoid")


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """How tokens choose their experts, and what these weigh.

    `scores` come out of a softmax over all experts, or of a sigmoid of each. Those of the chosen ones are divided by their sum
    where they are `normalised`, and multiplied by `scale`. `balanced`: every expert is given equally many tokens, whatever the
    router says of them, so that a measured step has the load that a forecast assumes.

    Errors: InputError.
    """

    scores: str = "softmax"
    normalised: bool = True
    scale: float = 1.0
    balanced: bool = False

    def __post_init__(self) -> None:
        if self.scores not in SCORES:
            raise InputError(f"{self.scores} is not one of them; {did_you_mean(self.scores, SCORES)}", key="scores")


class _Logits(torch.autograd.Function):
    """x W^T in fp32, of numbers in any precision."""

    @staticmethod
    def forward(context: Any, x: torch.Tensor, weight: torch.Tensor, name: str) -> torch.Tensor:
        context.save_for_backward(x)
        context.weight, context.name = weight, name
        with operator(name):
            return torch.nn.functional.linear(x.to(torch.float32), weight.to(torch.float32))

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> Any:
        (x,), weight = context.saved_tensors, context.weight
        with operator(context.name, DATA_GRADIENT):
            dx = (gradients[0] @ weight.to(torch.float32)).to(x.dtype)
        with operator(context.name, WEIGHT_GRADIENT):
            add_to_main(weight, gradients[0].T @ x.to(torch.float32))
        return dx, None, None


class Router(torch.nn.Module):
    """A score for every expert of each of this rank's own tokens; the weight is whole on every rank.

    `part` is the name of the feed-forward part that it belongs to.
    """

    def __init__(self, part: str, mixture: Mixture, hidden: int, routing: Routing) -> None:
        super().__init__()
        self.part, self.routing = part, routing
        self.experts, self.chosen = int(mixture.experts), int(mixture.experts_per_token)
        self.groups, self.groups_met = int(mixture.groups), int(mixture.groups_per_token)
        self.weight = torch.nn.Parameter(torch.empty(self.experts, hidden))
        self.bias = torch.nn.Parameter(torch.empty(self.experts)) if mixture.router_bias else None

    def cut_of(self, _: str) -> Cut:
        """All ranks hold it whole."""
        return WHOLE

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Of (tokens, width): weights and numbers of the experts that each meets, (tokens, experts a token)."""
        logits = _Logits.apply(x, self.weight, f"{self.part}.router")
        weights, experts = named(f"{self.part}.route", self._choice, logits)
        return weights, experts

    def _choice(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        routing = self.routing
        logits = logits if self.bias is None else logits + collected(self.bias)
        scores = logits.softmax(dim=-1) if routing.scores == "softmax" else logits.sigmoid()
        experts = self._best(scores.detach())
        if routing.balanced:
            experts = dealt(len(scores), self.chosen, self.experts, scores.device)
        weights = scores.gather(1, experts)
        if routing.normalised:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        return weights * routing.scale, experts

    def _best(self, scores: torch.Tensor) -> torch.Tensor:
        """The experts with the highest scores, of the groups whose best experts have the highest sum."""
        if self.groups > self.groups_met:
            grouped = scores.view(len(scores), self.groups, -1)
            counted = min(max(self.chosen // self.groups_met, 1), grouped.shape[-1])
            of_groups = grouped.topk(counted, dim=-1).values.sum(dim=-1)
            best = of_groups.topk(self.groups_met, dim=-1).indices
            met = torch.zeros_like(of_groups, dtype=torch.bool).scatter(1, best, value=True)
            scores = grouped.masked_fill(~met[:, :, None], float("-inf")).flatten(1)
        return scores.topk(self.chosen, dim=-1).indices


def dealt(tokens: int, chosen: int, experts: int, device: torch.device) -> torch.Tensor:
    """Experts dealt out to tokens in turn: no expert is met by more than one token more than another.

    >>> dealt(3, 2, 4, torch.device("cpu")).tolist()
    [[0, 1], [2, 3], [0, 1]]
    """
    return torch.arange(tokens * chosen, device=device).view(tokens, chosen) % experts
