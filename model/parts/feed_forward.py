"""The feed-forward part of a layer that all tokens pass: an MLP behind a norm."""

from __future__ import annotations

import torch

from perfmodel.model.operators import named
from perfmodel.model.parts.layers import Norm, activated
from perfmodel.model.parts.linears import ColumnParallelLinear, RowParallelLinear, Split
from perfmodel.spec.models.model import TransformerModel


class Mlp(torch.nn.Module):
    """Out of the stream, an activation, and back: `prefix` stands before the names of its operators."""

    def __init__(self, prefix: str, model: TransformerModel, ffn: int, split: Split) -> None:
        super().__init__()
        hidden, bias = int(model.hidden_size), model.has_bias("mlp")
        self.prefix, self.kind = prefix, model.activation
        self.fc1 = ColumnParallelLinear(f"{prefix}fc1", (ffn,) * (1 + model.gated), hidden, split, bias=bias)
        self.fc2 = RowParallelLinear(f"{prefix}fc2", hidden, ffn, split, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(tokens of this rank, width) to the same."""
        wide = named(f"{self.prefix}activation", lambda wide: activated(self.kind, wide), self.fc1(x))
        result: torch.Tensor = self.fc2(wide)
        return result


class DenseFeedForward(Mlp):
    """The MLP of a layer, behind its norm."""

    def __init__(self, name: str, model: TransformerModel, split: Split) -> None:
        super().__init__(f"{name}.", model, int(model.ffn_hidden_size), split)
        self.norm = Norm(f"{name}.norm", model.norm, int(model.hidden_size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(tokens of this rank, width) to the same."""
        return super().forward(self.norm(x))
