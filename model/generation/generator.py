"""A model that answers: prompts of one length in one pass, then one token of each sequence a pass, the likeliest each time."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import torch
from torch.nn import functional

from perfmodel.errors import InputError
from perfmodel.model.generation.attention import PassTokens, attention_out
from perfmodel.model.generation.caches import LayerCache, layer_cache
from perfmodel.model.generation.feed_forward import feed_forward_out
from perfmodel.model.generation.norms import added_and_normed
from perfmodel.model.groups import Groups
from perfmodel.model.operators import operator
from perfmodel.model.parts.attention import Rotations
from perfmodel.model.parts.layers import rotation
from perfmodel.model.parts.router import Routing
from perfmodel.model.parts.vocabulary import looked_up
from perfmodel.model.supported import DTYPES, check_generates
from perfmodel.model.transformer import Layer, Transformer, initialise
from perfmodel.spec.layout import Layout
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.phases import FORWARD

SEED: Final = 1


class Generator:
    """The weights of one rank, the cache of some sequences, and how many tokens of each are in it."""

    def __init__(
        self, model: TransformerModel, layout: Layout, groups: Groups, *, routing: Routing | None = None, seed: int = SEED
    ) -> None:
        """Random weights. Errors: NotSupportedError for what the reference model does not generate with."""
        check_generates(model, layout)
        self.spec, self.groups, self.group = model, groups, groups.tensor_parallel
        self.dtype, self.device = DTYPES[layout.precision], groups.device
        layout = replace(layout, sequence_parallel=True, recompute="none")  # of training alone: every rank has all tokens here
        self.model = Transformer(model, layout, groups, routing or Routing())
        _give_numbers(self.model, self.dtype, self.device)
        initialise(self.model, seed)
        self.caches: list[LayerCache] = []
        self.past = self.sequences = self.room = 0
        self._rotations: Rotations = {}

    @property
    def layers(self) -> list[Layer]:
        """All of them, from the first to the last."""
        return [layer for layer in self.model.layers.values() if isinstance(layer, Layer)]

    @property
    def weight_bytes(self) -> int:
        """Bytes of all parameters of this rank, each once."""
        return sum(parameter.nbytes for parameter in self.model.parameters())

    @property
    def cache_bytes(self) -> int:
        """Bytes of the cache of this rank."""
        return sum(tensor.nbytes for cache in self.caches for tensor in cache.tensors())

    def make_room(self, sequences: int, tokens: int) -> None:
        """An empty cache for so many tokens of each of some sequences."""
        most = self.spec.max_positions if self.spec.position == "learned" else None
        if most is not None and tokens > most:
            raise InputError(f"{tokens} tokens are more than the {int(most)} positions of {self.spec.name}", key="output")
        sizes = {"sequences": sequences, "tokens": tokens}
        self.caches = [layer_cache(layer.attention, **sizes, dtype=self.dtype, device=self.device) for layer in self.layers]
        self.sequences, self.room, self.past = sequences, tokens, 0
        self._rotations = {size: rotation(tokens, size, self.dtype, self.device) for size in self.model.rotary_sizes}

    def forget(self, past: int) -> None:
        """Go back to the first `past` tokens; a layer whose window was full by then has lost some of them."""
        self.past = past

    @torch.inference_mode()
    def prefill(self, prompts: torch.Tensor) -> torch.Tensor:
        """Read (sequences, tokens) into an empty cache: the logits of what follows each, (sequences, columns of this rank)."""
        sequences, tokens = prompts.shape
        self._check(sequences, tokens, is_empty=True)
        return self._pass(prompts.T.reshape(-1), tokens)

    @torch.inference_mode()
    def decode(self, tokens: torch.Tensor) -> torch.Tensor:
        """One more token of each sequence, (sequences,): the logits of what follows it."""
        self._check(len(tokens), 1, is_empty=False)
        return self._pass(tokens, 1)

    @torch.inference_mode()
    def likeliest(self, logits: torch.Tensor) -> torch.Tensor:
        """The token with the highest logit of each row, over the columns of all ranks."""
        columns = self.group.all_gather(logits, "head.gather", FORWARD)
        with operator("head.sample"):
            every = columns.view(self.group.ranks, *logits.shape).transpose(0, 1).reshape(len(logits), -1)
            return every[:, : int(self.spec.vocab_size)].argmax(dim=-1)

    def generate(self, prompts: torch.Tensor, new: int) -> torch.Tensor:
        """The `new` tokens that follow each of (sequences, tokens) prompts, each the likeliest after those before it."""
        self.make_room(len(prompts), prompts.shape[1] + new)
        found = [self.likeliest(self.prefill(prompts))]
        while len(found) < new:
            found.append(self.likeliest(self.decode(found[-1])))
        return torch.stack(found, dim=1)

    def _check(self, sequences: int, tokens: int, *, is_empty: bool) -> None:
        if sequences != self.sequences or self.past + tokens > self.room:
            room = f"{self.sequences} sequences of {self.room - self.past} more tokens"
            raise InputError(f"{sequences} of {tokens} do not fit: the cache has room for {room}", key="prompts")
        if is_empty != (self.past == 0):
            raise InputError("prompts are read into an empty cache, and tokens follow a prompt", key="prompts")

    def _pass(self, tokens: torch.Tensor, length: int) -> torch.Tensor:
        """Token numbers, position by position, through all layers: logits of the last token of each sequence."""
        past, sequences = self.past, self.sequences
        rotations = {
            size: (cos[past : past + length], sin[past : past + length]) for size, (cos, sin) in self._rotations.items()
        }
        stream, branch = self._embedded(tokens, past), None
        for layer, cache in zip(self.layers, self.caches, strict=True):
            attention, mlp = layer.attention, layer.mlp
            here = PassTokens(sequences=sequences, past=past, rotation=rotations.get(attention.rotary_size))
            with operator(attention.norm.name):
                x = added_and_normed(attention.norm, stream, branch)
            found = attention_out(attention, x, here, cache)
            branch = self._summed(found, attention.projection.bias, f"{attention.name}.all_reduce")
            with operator(mlp.norm.name):
                x = added_and_normed(mlp.norm, stream, branch)
            found = feed_forward_out(mlp, x)
            branch = self._summed(found, getattr(mlp.fc2, "bias", None), f"{layer.name}.mlp.all_reduce")
        self.past += length
        return self._logits(stream[-sequences:], None if branch is None else branch[-sequences:])

    def _embedded(self, tokens: torch.Tensor, past: int) -> torch.Tensor:
        """The rows of the table that this rank has, summed over the ranks, and those of learned positions."""
        embedding = self.model.embedding
        if embedding is None:
            raise TypeError("the embedding is on another pipeline stage")
        with operator("embedding.lookup"):
            rows, outside = tokens, None
            if self.group.ranks > 1:
                rows = tokens - self.group.rank * len(embedding.weight)
                outside = (rows < 0) | (rows >= len(embedding.weight))
                rows = rows.masked_fill(outside, 0)
            x = looked_up(embedding.weight, rows, outside)
            if embedding.positions is not None and self.group.rank == 0:
                places = torch.arange(len(tokens), device=tokens.device) // self.sequences + past
                x.add_(looked_up(embedding.positions, places, None))
        self.group.all_reduce(x, "embedding.all_reduce", FORWARD)
        return x

    def _summed(self, found: torch.Tensor, bias: torch.Tensor | None, name: str) -> torch.Tensor:
        """The sum over the ranks of what each found of the stream."""
        self.group.all_reduce(found, name, FORWARD)
        return found if bias is None else found.add_(bias)

    def _logits(self, stream: torch.Tensor, branch: torch.Tensor | None) -> torch.Tensor:
        norm, head = self.model.norm, self.model.head
        if norm is None or head is None:
            raise TypeError("the head is on another pipeline stage")
        with operator(norm.name):
            x = added_and_normed(norm, stream, branch)
        with operator(head.name):
            return functional.linear(x, head.weight)


def _give_numbers(model: Transformer, dtype: torch.dtype, device: torch.device) -> None:
    """Tensors of their own for all parameters; those that several modules share stay one."""
    made: dict[int, torch.nn.Parameter] = {}
    for module in model.modules():
        for name, old in list(module.named_parameters(recurse=False)):
            if id(old) not in made:
                made[id(old)] = torch.nn.Parameter(torch.zeros(old.shape, dtype=dtype, device=device), requires_grad=False)
            setattr(module, name, made[id(old)])
