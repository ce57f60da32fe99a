"""The reference decoder: the operators of the forecast, in its order and under its names, on one rank of a layout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import torch

from perfmodel.model.cuts import WHOLE, Cut
from perfmodel.model.groups import ALONE, Groups
from perfmodel.model.parts.adapters import adapters_of, add_adapters
from perfmodel.model.parts.attention import GroupedQueryAttention, Rotations, run_again
from perfmodel.model.parts.experts import ExpertFeedForward
from perfmodel.model.parts.feed_forward import DenseFeedForward
from perfmodel.model.parts.latent_attention import MultiHeadLatentAttention
from perfmodel.model.parts.layers import Norm, residual, rotation
from perfmodel.model.parts.linears import ColumnParallelLinear, Split
from perfmodel.model.parts.router import Routing
from perfmodel.model.parts.vocabulary import VocabularyParallelEmbedding, cross_entropy
from perfmodel.model.pipelines.pieces import Piece, pieces_of_stage
from perfmodel.model.supported import check_supported
from perfmodel.spec.layout import EVEN, Layout
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.tuning.fine_tuning import FineTuning

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
    """What one pipeline stage holds of a decoder with its loss; parameters have the names that they have in the whole of it.

    They hold nothing until a buffer is laid under them (model/training/optimizer.py). Tied embeddings lie on both ends
    of a pipeline.
    """

    def __init__(
        self,
        model: TransformerModel,
        layout: Layout,
        groups: Groups,
        routing: Routing,
        *,
        tuning: FineTuning | None = None,
    ) -> None:
        super().__init__()
        check_supported(model, layout, tuning)
        self.tuning = tuning
        self.spec, self.layout, self.groups, self.routing = model, layout, groups, routing
        self.pieces = pieces_of_stage(model, layout, groups.pipeline_parallel.rank)
        numbers = [index for piece in self.pieces for index in piece.layers]
        split, hidden = split_of(layout, groups), int(model.hidden_size)
        self.padded = int(model.padded_vocab_size(split.group.ranks))
        positions = int(model.max_positions or 0) if model.position == "learned" else 0
        with torch.device("meta"):
            self.embedding: VocabularyParallelEmbedding | None = None
            if self.pieces[0].embedding:
                self.embedding = VocabularyParallelEmbedding(self.padded, hidden, split, positions=positions)
            layers = {str(index): Layer(model, model.kind_at(index), layout, groups, routing) for index in numbers}
            self.layers = torch.nn.ModuleDict(layers)
            self.norm: Norm | None = None
            self.head: ColumnParallelLinear | None = None
            if self.pieces[-1].head:
                self.norm = Norm("head.norm", model.norm, hidden)
                self.head = ColumnParallelLinear("head.logits", (self.padded,), hidden, split, bias=False)
                if model.tied_embeddings and self.embedding is not None:
                    self.head.weight = self.embedding.weight
            if tuning is not None:
                add_adapters(self, tuning)
        self.rerun = frozenset(numbers[: _rerun_layers(layout, len(numbers))])
        self.rotary_sizes = {layer.attention.rotary_size for layer in layers.values()} - {0}

    def cuts(self) -> Iterator[tuple[str, torch.nn.Parameter, Cut]]:
        """Name, parameter and how the ranks share it, each parameter once."""
        for name, parameter in self.named_parameters():
            path, _, kind = name.rpartition(".")
            cut_of = getattr(self.get_submodule(path), "cut_of", None)
            yield name, parameter, WHOLE if cut_of is None else cut_of(kind)

    @property
    def vocabulary_copy(self) -> torch.nn.Parameter | None:
        """The matrix that both ends of a pipeline hold a copy of where embeddings are tied; None on other stages, and alone."""
        if self.groups.vocabulary.ranks == 1:
            return None
        module = self.embedding or self.head
        return None if module is None else module.weight

    def through(self, piece: Piece, x: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """One piece on one micro-batch: what it hands on, (tokens of this rank, width), or the mean loss.

        `x` is what the piece before has handed on, or the token numbers, which are (sequences, length) as `targets` are.
        """
        x = self._stream(piece, x, *targets.shape)
        if not piece.head:
            return x
        vocabulary = int(self.spec.vocab_size)
        return cross_entropy(self._logits(x), targets.T.reshape(-1), self.groups.tensor_parallel, vocabulary)

    def _stream(self, piece: Piece, x: torch.Tensor, sequences: int, length: int) -> torch.Tensor:
        """The embedding where the piece begins with it, and its layers."""
        if self.embedding is not None and piece.embedding:
            x = self.embedding(x.T.reshape(-1), sequences)
            if self.tuning is not None:
                x = x.requires_grad_()  # so that every layer keeps what adapters need, the first one too
        rotations = {size: rotation(length, size, x.dtype, x.device) for size in self.rotary_sizes}
        for index in piece.layers:
            layer = self.layers[str(index)]
            x = run_again(layer, x, sequences, rotations) if index in self.rerun else layer(x, sequences, rotations)
        return x

    def _logits(self, x: torch.Tensor) -> torch.Tensor:
        if self.norm is None or self.head is None:
            raise TypeError("the head is on another pipeline stage")
        result: torch.Tensor = self.head(self.norm(x))
        return result

    def logits(self, tokens: torch.Tensor) -> torch.Tensor:
        """Token numbers (sequences, length) of a whole model to (length * sequences, columns of this rank), by position."""
        return self._logits(self._stream(self.pieces[0], tokens, *tokens.shape))

    def forward(self, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The mean loss of a whole model on (sequences, length) tokens and what follows each of them."""
        return self.through(self.pieces[0], tokens, targets)

    def whole(self) -> Transformer:
        """The model of all pipeline stages, on one of them; without numbers."""
        if self.groups.pipeline_parallel.ranks == 1:
            return self
        layout = replace(self.layout, pipeline_parallel=1, virtual_pipeline=1, pipeline_layout=EVEN)
        groups = replace(self.groups, pipeline_parallel=ALONE, pipeline_gradients=ALONE, vocabulary=ALONE)
        return Transformer(self.spec, layout, groups, self.routing)


def _rerun_layers(layout: Layout, layers: int) -> int:
    if layout.recompute != "full":
        return 0
    return layers if layout.recompute_layers is None else int(layout.recompute_layers)


@torch.no_grad()
def initialise(model: Transformer, seed: int) -> None:
    """Normal weights of deviation 0.02, the same numbers whatever the layout; norms 1, biases 0.

    What leads back into the stream is divided by sqrt(2 * layers). Layer norm holds gamma, 1 less than its weight.
    """
    for number, adapter in enumerate(adapters_of(model)):
        adapter.begin(torch.Generator(device=adapter.into.device).manual_seed(seed * 100_019 + number))
    depth = (2.0 * float(model.spec.layers)) ** -0.5
    own = [name for name, _, _ in model.whole().cuts() if ".adapters." not in name]
    numbers = {name: index for index, name in enumerate(own)}
    for name, parameter, cut in model.cuts():
        if ".adapters." in name:
            continue
        if "norm" in name or name.endswith("bias"):
            one = not name.endswith("bias") and model.spec.norm == "rmsnorm"
            parameter.fill_(1.0 if one else 0.0)
            continue
        number = numbers[VOCABULARY[0] if name not in numbers else name]  # of tied embeddings the head is the same matrix
        chance = torch.Generator(device=parameter.device).manual_seed(seed * 100_003 + number)
        deviation = 0.02 * (depth if "projection" in name or "fc2" in name else 1.0)
        full = torch.zeros(cut.full_shape(parameter.shape), device=parameter.device)
        drawn = full[: int(model.spec.vocab_size)] if name in VOCABULARY else full  # rows that are padding stay 0
        drawn.normal_(0.0, deviation, generator=chance)
        parameter.copy_(cut.part(full, model.groups))
