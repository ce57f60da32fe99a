"""The reference decoder: the operators of the forecast, in its order and under its names, on one rank of a layout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

from perfmodel.errors import NotSupportedError
from perfmodel.model.groups import Group, Groups
from perfmodel.model.layers import Norm, activated, attended, residual, rotation, taken_apart
from perfmodel.model.linears import ColumnParallelLinear, RowParallelLinear, Split
from perfmodel.model.operators import named, recomputing
from perfmodel.model.vocabulary import VocabularyParallelEmbedding, cross_entropy
from perfmodel.spec.axes import AXES, DATA, TENSOR
from perfmodel.spec.layout import Layout
from perfmodel.spec.model import TransformerModel

DTYPES: Final = {"bf16": torch.bfloat16, "fp32": torch.float32}
SPREAD_OVER: Final = (TENSOR, DATA)  # axes of parallelism that the model has
PARTS: Final[Mapping[str, tuple[tuple[object, ...], str]]] = {  # field of a model -> what runs here of it, and a sentence
    "norm": (("rmsnorm", "layernorm"), "RMS norms, and layer norms with weight and bias"),
    "position": (("rotary", "learned", "none"), "rotary and learned positions, and no biases of scores (ALiBi)"),
    "pre_norms": ((True,), "a norm before each part of a layer"),
    "post_norms": ((False,), "no norms behind the parts of a layer"),
    "parallel_residual": (("none",), "attention and MLP one after the other, not beside each other"),
    "qk_norm": (("none",), "no norms of queries and keys"),
    "embedding_norm": ((False,), "no norm behind the embedding"),
    "softcaps": (((),), "no soft caps"),
    "scales": (((),), "no constant factors"),
    "dropout": ((False,), "no dropout"),
    "spare_positions": ((0,), "no learned positions that are never used"),
}
VOCABULARY: Final = ("embedding.weight", "head.weight")  # with a row for every token, and some of padding


def check_supported(model: TransformerModel, layout: Layout) -> None:
    """Raise NotSupportedError for what the reference model does not run."""
    _check_parts(model)
    for axis in AXES:
        if axis not in SPREAD_OVER and layout.degree(axis) > 1:
            raise NotSupportedError(f"the reference model runs {axis.name} 1, not {layout.degree(axis)}", key=axis.name)
    if layout.precision not in DTYPES:
        raise NotSupportedError(f"the reference model runs {' and '.join(DTYPES)}, not {layout.precision}", key="precision")
    if layout.sharding not in ("none", "zero1"):
        raise NotSupportedError(f"the reference model runs sharding none and zero1, not {layout.sharding}", key="sharding")
    if model.kv_heads % layout.tensor_parallel:
        raise NotSupportedError(
            f"{layout.tensor_parallel} ranks would hold copies of {model.kv_heads} KV heads; the reference model has none",
            key="tensor_parallel",
        )


def _check_parts(model: TransformerModel) -> None:
    """Raise NotSupportedError for a part of a model that the reference model does not have."""
    if model.layer_kinds is not None:
        raise NotSupportedError("the reference model has layers of one kind, with full attention", key="model.layer_kinds")
    for field, (run, sentence) in PARTS.items():
        if getattr(model, field) not in run:
            raise NotSupportedError(f"the reference model has {sentence}", key=f"model.{field}")
    if model.has_bias("head"):
        raise NotSupportedError("the reference model has no bias in its head", key="model.biases_of")


@dataclass(frozen=True, slots=True)
class Cut:
    """How the ranks share a tensor: each takes its part of every piece along `axis`; None: all hold it whole."""

    axis: int | None
    pieces: tuple[int, ...] = ()

    def full_shape(self, shape: torch.Size) -> tuple[int, ...]:
        """The shape over all ranks of a tensor that has `shape` on one."""
        return tuple(sum(self.pieces) if axis == self.axis else size for axis, size in enumerate(shape))

    def part(self, full: torch.Tensor, group: Group) -> torch.Tensor:
        """This rank's part of a whole tensor."""
        if self.axis is None or group.ranks == 1:
            return full
        pieces = full.split(list(self.pieces), dim=self.axis)
        shares = [piece.tensor_split(group.ranks, dim=self.axis)[group.rank] for piece in pieces]
        return torch.cat(shares, dim=self.axis)


class Layer(torch.nn.Module):
    """Attention and MLP, each after a norm and inside a residual connection."""

    def __init__(self, model: TransformerModel, split: Split, *, recompute_core: bool) -> None:
        super().__init__()
        ranks, qkv_bias, bias, mlp_bias = split.group.ranks, *map(model.has_bias, ("qkv", "projection", "mlp"))
        query, kv, ffn = int(model.query_size), int(model.kv_size), int(model.ffn_hidden_size)
        hidden, into = int(model.hidden_size), ffn * (2 if model.gated else 1)
        self.activation, self.recompute_core = model.activation, recompute_core
        self.heads, self.kv_heads = int(model.attention_heads) // ranks, int(model.kv_heads) // ranks
        self.attention_norm = Norm("layer.attention.norm", model.norm, hidden)
        self.qkv = ColumnParallelLinear("layer.attention.qkv", (query + 2 * kv) // ranks, hidden, split, bias=qkv_bias)
        self.projection = RowParallelLinear("layer.attention.projection", hidden, query // ranks, split, bias=bias)
        self.mlp_norm = Norm("layer.mlp.norm", model.norm, hidden)
        self.fc1 = ColumnParallelLinear("layer.mlp.fc1", into // ranks, hidden, split, bias=mlp_bias)
        self.fc2 = RowParallelLinear("layer.mlp.fc2", hidden, ffn // ranks, split, bias=mlp_bias)
        self.cuts = {
            "qkv": Cut(0, (query, kv, kv)),
            "projection": Cut(1, (query,)),
            "fc1": Cut(0, (ffn, ffn) if model.gated else (ffn,)),
            "fc2": Cut(1, (ffn,)),
        }

    def forward(self, x: torch.Tensor, sequences: int, rotate: tuple[torch.Tensor, torch.Tensor] | None) -> torch.Tensor:
        """(tokens of this rank, width) to the same; a micro-batch has `sequences`."""

        def attention(x: torch.Tensor) -> torch.Tensor:
            qkv = self.qkv(self.attention_norm(x))

            def apart(qkv: torch.Tensor) -> tuple[torch.Tensor, ...]:
                return taken_apart(qkv, sequences=sequences, heads=self.heads, kv_heads=self.kv_heads, rotate=rotate)

            def core(*parts: torch.Tensor) -> torch.Tensor:
                result: torch.Tensor = named("layer.attention.core", attended, *parts)
                return result

            parts = named("layer.attention.rotary", apart, qkv) if rotate else apart(qkv)
            return self.projection(_again(core, *parts) if self.recompute_core else core(*parts))

        def mlp(x: torch.Tensor) -> torch.Tensor:
            wide = self.fc1(self.mlp_norm(x))
            return self.fc2(named("layer.mlp.activation", lambda wide: activated(self.activation, wide), wide))

        x = residual(x, attention, "layer.attention.residual")
        return residual(x, mlp, "layer.mlp.residual")


def _again(function: Any, *tensors: Any) -> Any:
    """function(*tensors), which keeps nothing and runs again in the backward pass, all of it (as Megatron-LM does)."""
    with set_checkpoint_early_stop(False):
        return checkpoint(
            function, *tensors, use_reentrant=False, preserve_rng_state=False, context_fn=lambda: (nullcontext(), recomputing())
        )


class Transformer(torch.nn.Module):
    """A decoder with its loss. Its parameters hold nothing until a buffer is laid under them (model/optimizer.py)."""

    def __init__(self, model: TransformerModel, layout: Layout, groups: Groups) -> None:
        super().__init__()
        check_supported(model, layout)
        self.spec, self.layout, self.groups = model, layout, groups
        group = groups.tensor_parallel
        split = Split(group, sequence_parallel=layout.sequence_parallel)
        padded, hidden = int(model.padded_vocab_size(group.ranks)), int(model.hidden_size)
        positions = int(model.max_positions or 0) if model.position == "learned" else 0
        selective = layout.recompute == "selective"
        with torch.device("meta"):
            self.embedding = VocabularyParallelEmbedding(padded // group.ranks, hidden, split, positions=positions)
            self.layers = torch.nn.ModuleList(Layer(model, split, recompute_core=selective) for _ in range(int(model.layers)))
            self.norm = Norm("head.norm", model.norm, hidden)
            self.head = ColumnParallelLinear("head.logits", padded // group.ranks, hidden, split, bias=False)
            if model.tied_embeddings:
                self.head.weight = self.embedding.weight
        self.rerun_layers = _rerun_layers(layout, int(model.layers))
        self.rotary_size = int(model.head_size * model.rotary_fraction) // 2 * 2 if model.position == "rotary" else 0
        self.padded = padded

    def cuts(self) -> Iterator[tuple[str, torch.nn.Parameter, Cut]]:
        """Name, parameter and how the ranks share it, each parameter once."""
        for name, parameter in self.named_parameters():
            *path, module, kind = name.split(".")
            if name in VOCABULARY:
                yield name, parameter, Cut(0, (self.padded,))
            elif path and path[0] == "layers" and module in (cuts := self.layers[int(path[1])].cuts):
                cut = cuts[module]
                yield name, parameter, cut if kind == "weight" or cut.axis == 0 else Cut(None)
            else:
                yield name, parameter, Cut(None)

    def logits(self, tokens: torch.Tensor) -> torch.Tensor:
        """Token numbers (sequences, length) to (length * sequences, columns of this rank), position by position."""
        sequences, length = tokens.shape
        x = self.embedding(tokens.T.reshape(-1), sequences)
        rotate = rotation(length, self.rotary_size, x.dtype, x.device) if self.rotary_size else None
        for index, layer in enumerate(self.layers):
            x = _again(layer, x, sequences, rotate) if index < self.rerun_layers else layer(x, sequences, rotate)
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
            one = name.endswith("weight") and model.spec.norm == "rmsnorm"
            parameter.fill_(1.0 if one and "norm" in name else 0.0)
            continue
        chance = torch.Generator(device=parameter.device).manual_seed(seed * 100_003 + index)
        deviation = 0.02 * (depth if "projection" in name or "fc2" in name else 1.0)
        full = torch.zeros(cut.full_shape(parameter.shape), device=parameter.device)
        drawn = full[: int(model.spec.vocab_size)] if name in VOCABULARY else full  # rows that are padding stay 0
        drawn.normal_(0.0, deviation, generator=chance)
        parameter.copy_(cut.part(full, model.groups.tensor_parallel))
