"""The router of a mixture of experts: what each token gives every expert, and the few that it meets.

Its product runs in the precision of all others, its scores in fp32. No forecast depends on how they are formed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from perfmodel.errors import InputError, did_you_mean
from perfmodel.model.operators import named
from perfmodel.model.parts.linears import Split, WholeLinear
from perfmodel.spec.models.layer_parts import Mixture

SCORES = ("softmax", "sigmoid")


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """How tokens choose their experts, and what these weigh.

    `scores` come out of a softmax over all experts, or of a sigmoid of each. Those of the chosen ones are divided by their sum
    where they are `normalised`, and multiplied by `scale`. `balanced`: every expert is given equally many tokens, whatever the
    router says of them, so that a measured step has the load that a forecast assumes. `drawn`: each token meets experts that
    are drawn at random, as a forecast of a server assumes.

    Errors: InputError.
    """

    scores: str = "softmax"
    normalised: bool = True
    scale: float = 1.0
    balanced: bool = False
    drawn: bool = False

    def __post_init__(self) -> None:
        if self.scores not in SCORES:
            raise InputError(f"{self.scores} is not one of them; {did_you_mean(self.scores, SCORES)}", key="scores")


class Router(WholeLinear):
    """A score for every expert of each of this rank's own tokens; the weight is whole on every rank.

    `part` is the name of the feed-forward part that it belongs to.
    """

    def __init__(self, part: str, mixture: Mixture, hidden: int, split: Split, *, routing: Routing) -> None:
        experts = int(mixture.experts)
        super().__init__(f"{part}.router", experts, hidden, split, bias=mixture.router_bias)
        self.part, self.routing, self.experts, self.chosen = part, routing, experts, int(mixture.experts_per_token)
        self.groups, self.groups_met = int(mixture.groups), int(mixture.groups_per_token)

    def choice(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Of (tokens, width): weights and numbers of the experts that each meets, (tokens, experts a token)."""
        weights, experts = named(f"{self.part}.route", self.chosen_of, self(x))
        return weights, experts

    def chosen_of(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights and numbers of the experts that tokens with these scores meet."""
        routing, logits = self.routing, logits.to(torch.float32)
        scores = logits.softmax(dim=-1) if routing.scores == "softmax" else logits.sigmoid()
        experts = self._best(scores.detach())
        if routing.balanced:
            experts = dealt(len(scores), self.chosen, self.experts, scores.device)
        elif routing.drawn:
            experts = torch.rand_like(scores).topk(self.chosen, dim=-1).indices
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
