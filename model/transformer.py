"""The reference decoder: the operators of the forecast, in its order and under its names, on one rank of a layout."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import torch

from perfmodel.model.attention import GroupedQueryAttention, Rotations, run_again
from perfmodel.model.cuts import WHOLE, Cut
from perfmodel.model.experts import ExpertFeedForward
from perfmodel.model.feed_forward import DenseFeedForward
from perfmodel.model.groups import Groups
from perfmodel.model.latent_attention import MultiHeadLatentAttention
from perfmodel.model.layers import Norm, residual, rotation
from perfmodel.model.linears import ColumnParallelLinear, Split
from perfmodel.model.router import Routing
from perfmodel.model.supported import check_supported
from perfmodel.model.vocabulary import VocabularyParallelEmbedding, cross_entropy
from perfmodel.spec.layout import Layout
from perfmodel.spec.model import TransformerModel

VOCABULARY: Final = ("embedding.weight", "head.weight")  # with a row for every token, and some of padding


class Layer(torch.nn.Module):
    """Attention and a feed-forward part of some kind, each after a norm and inside a residual connection."""

    def __init__(self, model: TransformerModel, kind: str, layout: Layout, groups: Groups, routing: Routing) -> None:
        super().__init__()
        self.name, parts = "layer" if len(model.kinds) == 1 else f"layer.{kind}", model.kinds[kind]
        split, again = split_of(layout, groups), layout.recompute == "selective"
        attention, mlp = f"{self.name}.attention", f"{self.name}.mlp"
        self.attention: GroupedQueryAttention | MultiHeadLatentAttention
        if parts.attention == "latent" and model.latent is not None:
            self.attention = MultiHeadLatentAttention(attention, model, model.latent, parts, split, recompute_core=again)
        else:
            self.attention = GroupedQueryAttention(attention, model, parts, split, recompute_core=again)
        self.mlp: DenseFeedForward | ExpertFeedForward
        if parts.feed_forward == "experts" and model.mixture is not None:
            self.mlp = ExpertFeedForward(mlp, model, model.mixture, split, groups.expert_parallel, routing=routing)
        else:
            self.mlp = DenseFeedForward(mlp, model, split)

    def forward(self, x: torch.Tensor, sequences: int, rotations: Rotations) -> torch.Tensor:
        """(tokens of this rank, width) to the same; a micro-batch has `sequences`."""
        x = residual(x, lambda x: self.attention(x, sequences, rotations), f"{self.name}.attention.residual")
        return residual(x, self.mlp, f"{self.name}.mlp.residual")


def split_of(layout: Layout, groups: Groups) -> Split:
    """How the linears of a layout are split."""
    return Split(groups.tensor_parallel, sequence_parallel=layout.sequence_parallel)


class Transformer(torch.nn.Module):
    """A decoder with its loss. Its parameters hold nothing until a buffer is laid under them (model/optimizer.py)."""

    def __init__(self, model: TransformerModel, layout: Layout, groups: Groups, routing: Routing) -> None:
        super().__init__()
        check_supported(model, layout)
        self.spec, self.layout, self.groups = model, layout, groups
        split, hidden, number = split_of(layout, groups), int(model.hidden_size), int(model.layers)
        self.padded = int(model.padded_vocab_size(split.group.ranks))
        positions = int(model.max_positions or 0) if model.position == "learned" else 0
        with torch.device("meta"):
            self.embedding = VocabularyParallelEmbedding(self.padded, hidden, split, positions=positions)
            layers = [Layer(model, model.kind_at(index), layout, groups, routing) for index in range(number)]
            self.layers = torch.nn.ModuleList(layers)
            self.norm = Norm("head.norm", model.norm, hidden)
            self.head = ColumnParallelLinear("head.logits", (self.padded,), hidden, split, bias=False)
            if model.tied_embeddings:
                self.head.weight = self.embedding.weight
        self.rerun_layers = _rerun_layers(layout, number)
        self.rotary_sizes = {layer.attention.rotary_size for layer in layers} - {0}

    def cuts(self) -> Iterator[tuple[str, torch.nn.Parameter, Cut]]:
        """Name, parameter and how the ranks share it, each parameter once."""
        for name, parameter in self.named_parameters():
            path, _, kind = name.rpartition(".")
            cut_of = getattr(self.get_submodule(path), "cut_of", None)
            yield name, parameter, WHOLE if cut_of is None else cut_of(kind)

    def logits(self, tokens: torch.Tensor) -> torch.Tensor:
        """Token numbers (sequences, length) to (length * sequences, columns of this rank), position by position."""
        sequences, length = tokens.shape
        x = self.embedding(tokens.T.reshape(-1), sequences)
        rotations = {size: rotation(length, size, x.dtype, x.device) for size in self.rotary_sizes}
        for index, layer in enumerate(self.layers):
            again = index < self.rerun_layers
            x = run_again(layer, x, sequences, rotations) if again else layer(x, sequences, rotations)
        result: torch.Tensor = self.head(self.norm(x))
        return result

    def forward(self, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The mean loss of (sequences, length) tokens and what follows each of them."""
        vocabulary = int(self.spec.vocab_size)
        return cross_entropy(self.logits(tokens), targets.T.reshape(-1), self.groups.tensor_parallel, vocabulary)


def _rerun_layers(layout: Layout, layers: int) -> int:
    if layout.recompute != "full":
        return 0
    return layers if layout.recompute_layers is None else int(layout.recompute_layers)


@torch.no_grad()
def initialise(model: Transformer, seed: int) -> None:
    """Normal weights of deviation 0.02, the same numbers whatever the layout; norms 1, biases 0.

    What leads back into the stream is divided by sqrt(2 * layers). Layer norm holds gamma, 1 less than its weight.
    """
    depth = (2.0 * len(model.layers)) ** -0.5
    for index, (name, parameter, cut) in enumerate(model.cuts()):
        if "norm" in name or name.endswith("bias"):
            one = not name.endswith("bias") and model.spec.norm == "rmsnorm"
            parameter.fill_(1.0 if one else 0.0)
            continue
        chance = torch.Generator(device=parameter.device).manual_seed(seed * 100_003 + index)
        deviation = 0.02 * (depth if "projection" in name or "fc2" in name else 1.0)
        full = torch.zeros(cut.full_shape(parameter.shape), device=parameter.device)
        drawn = full[: int(model.spec.vocab_size)] if name in VOCABULARY else full  # rows that are padding stay 0
        drawn.normal_(0.0, deviation, generator=chance)
        parameter.copy_(cut.part(full, model.groups))
