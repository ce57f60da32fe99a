"""What a decoder-only transformer is made of: the architecture, with no word on how it is trained."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache, partial
from math import isqrt
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import numpy as np

from perfmodel.errors import InputError
from perfmodel.light_dataclass import dataclass, replace
from perfmodel.spec.fields import (
    Numeric,
    Spec,
    check_fields,
    choice,
    choices,
    count,
    flag,
    is_same,
    number,
    part,
    plain,
    text,
    words,
)
from perfmodel.spec.models.layer_kinds import BORROWED, HEADED, KV, OWN, LayerKind, check_pattern, layers_before
from perfmodel.spec.models.layer_parts import GatedDelta, Indexer, LatentAttention, Mixture, StateSpace

GATED_ACTIVATIONS = ("swiglu", "geglu")
MOST_LAYERS: Final = 100_000  # each is looked at on its own, here and where other software's files name the kind of each
BIASES: Final = ("qkv", "projection", "mlp", "head")  # products that may have a bias


class NormKind(NamedTuple):
    """What a norm runs, and how many numbers it learns for each number that it normalises: weights, and biases."""

    kernel: str
    vectors: int


NORMS: Final = {
    "rmsnorm": NormKind("rmsnorm", 1),
    "layernorm": NormKind("layernorm", 2),
    "layernorm_no_bias": NormKind("layernorm", 1),
    "layernorm_no_parameters": NormKind("layernorm", 0),
}
QK_NORMS: Final = {  # of queries and keys: numbers learned for each of a head, and whether every head has its own
    "none": (0, False),
    "head": (1, False),
    "head_with_bias": (2, False),
    "width": (1, True),
    "head_and_values": (1, False),  # values too, by a norm that learns nothing
}

SECTIONS: Final = {  # of a model, by the part of a layer that each describes
    "indexed": "indexer",
    "experts": "mixture",
    "latent": "latent",
    "mamba2": "state_space",
    "gated_delta": "delta",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class TransformerModel(Spec):
    """A decoder: `layers` of attention and MLP between an embedding and a vocabulary head.

    Layers are all alike, or of several `layer_kinds` that follow each other as `layer_pattern` says, which is repeated from the
    first layer on, or behind `first_layers`. `vocab_padding_multiple` is Megatron's make-vocab-size-divisible-by: the
    vocabulary is padded to a multiple of it times the tensor-parallel degree. `dropout` says that the training keeps dropout
    masks.

    biases              every product of a layer has a bias; `biases_of`: these have one where not all have, or the head too
    pre_norms           each part of a layer has a norm before it; `post_norms`: one behind it, inside the residual connection
    parallel_residual   attention and MLP read the same stream, after one_norm for both or two_norms
    qk_norm             queries and keys are normalised: by head, with one weight for all heads, or with a weight of their width
    softcaps            what is kept within bounds by a tanh: scores of attention, logits
    scales              what is multiplied by a constant: embeddings, the branches of a layer, logits
    value_head_size     of each head's values, where they are of another size than its queries and keys
    sinks               every head has a number that takes part in its softmax for no token
    kv                  own: queries, keys and values are three products; tied: values are the keys before their norm and
                        rotation; borrowed, of a kind of layer: keys and values are those of the last layer before it that
                        has its own and the same window
    attention_gate      what heads give is multiplied with a gate, which queries come with; gate_by_head: by one number a head
    indexer             what chooses the keys of grouped queries, of latent attention its own
    mixture, latent     experts and latent attention, which all layers have where no kinds are described
    state_space, delta  other mixers, which some kind of layer has
    layer_embedding_size  numbers that every layer has of each token, out of a vocabulary of `layer_vocab_size`
    multi_token_layers  layers behind the last that predict a token farther each, and share embedding and head
                        (arXiv:2412.19437)
    multi_token_kinds   the kinds of layers that each of those is made of: one of the last kind unless this names others

    Errors: InputError.
    """

    name: str = text()
    layers: Numeric = count(maximum=MOST_LAYERS)
    hidden_size: Numeric = count()
    attention_heads: Numeric = count()
    kv_heads: Numeric = count()
    head_size: Numeric = count()
    ffn_hidden_size: Numeric = count()
    activation: str = choice("gelu", "swiglu", "geglu", "squared_relu", "relu")
    norm: str = choice(*NORMS)
    position: str = choice("rotary", "learned", "alibi", "none", default="rotary")
    rotary_fraction: float = number("ratio", above=0.0, maximum=1.0, default=1.0)
    max_positions: Numeric | None = number("count", minimum=1, integer=True, optional=True, default=None)  # when learned
    spare_positions: Numeric = count(minimum=0, default=0)  # learned beside those, and never used, as OPT has two
    biases: bool = flag(default=False)
    biases_of: tuple[str, ...] = choices(*BIASES, default=())
    dropout: bool = flag(default=False)
    tied_embeddings: bool = flag(default=False)
    vocab_size: Numeric = count()
    vocab_padding_multiple: int = count(default=128)
    pre_norms: bool = flag(default=True)
    post_norms: bool = flag(default=False)
    parallel_residual: str = choice("none", "one_norm", "two_norms", default="none")
    qk_norm: str = choice(*QK_NORMS, default="none")
    embedding_norm: bool = flag(default=False)
    softcaps: tuple[str, ...] = choices("attention", "logits", default=())
    scales: tuple[str, ...] = choices("embedding", "branches", "logits", default=())
    layer_kinds: Mapping[str, LayerKind] | None = part(LayerKind, shape="table", optional=True, default=None)
    layer_pattern: tuple[str, ...] = words(default=())
    first_layers: tuple[str, ...] = words(default=())
    value_head_size: Numeric | None = count(optional=True, default=None)
    sinks: bool = flag(default=False)
    kv: str = choice(*KV, default="own")
    attention_gate: bool = flag(default=False)
    gate_by_head: bool = flag(default=False)
    indexer: Indexer | None = part(Indexer, optional=True, default=None)
    mixture: Mixture | None = part(Mixture, optional=True, default=None)
    latent: LatentAttention | None = part(LatentAttention, optional=True, default=None)
    state_space: StateSpace | None = part(StateSpace, optional=True, default=None)
    delta: GatedDelta | None = part(GatedDelta, optional=True, default=None)
    layer_embedding_size: Numeric = count(minimum=0, default=0)
    layer_vocab_size: Numeric = count(minimum=0, default=0)
    multi_token_layers: Numeric = count(minimum=0, default=0)
    multi_token_kinds: tuple[str, ...] = words(default=())

    def __post_init__(self) -> None:
        check_fields(self)
        check_pattern(self.layer_kinds, self.layer_pattern, self.first_layers, self.multi_token_kinds)
        self._check_parts()
        self._check_keys()
        if self.position == "learned" and self.max_positions is None:
            raise InputError("missing; learned positions need their number", key="max_positions")
        _check_heads(self.attention_heads, self.kv_heads, key="kv_heads")
        for name, kind in (self.layer_kinds or {}).items():
            heads = kind.own.get("attention_heads", self.attention_heads)
            _check_heads(heads, kind.own.get("kv_heads", self.kv_heads), key=f"layer_kinds.{name}.kv_heads")

    def _check_parts(self) -> None:
        """Raise for a kind of layer whose part no section describes, and for a section that no kind of layer has."""
        used = {part for kind in self.kinds.values() for part in (kind.attention, kind.feed_forward)}
        for part_name, section in SECTIONS.items():
            described = getattr(self, section) is not None
            if part_name in used and not described:
                raise InputError(f"missing; some layers have {part_name}", key=section)
            if described and part_name not in used:
                raise InputError(f"no layer has {part_name}: layer_kinds describes none", key=section)
        if self.latent is not None and np.any(np.asarray(self.head_size != self.latent.head_size)):
            wants = f"{plain(self.latent.head_size)}, the sum of latent.nope_head_size and latent.rotary_head_size"
            raise InputError(f"{plain(self.head_size)} is not {wants}", key="head_size")

    def _check_keys(self) -> None:
        """Raise for layers that borrow keys and values where no layer has its own, and for a gate by head of none."""
        lends = [kind.kv or self.kv for kind in self.kinds.values() if kind.attention in HEADED]
        if self.layer_kinds is None and self.kv == BORROWED:
            raise InputError("all layers cannot borrow; kv of a kind of layer says which do", key="kv")
        if any(kind.kv for kind in self.kinds.values()) and set(lends) == {BORROWED}:
            raise InputError("all layers with attention borrow keys and values; some need their own", key="layer_kinds")
        self._check_lenders()
        if self.gate_by_head and not self.attention_gate:
            raise InputError("the model has no gate; attention_gate: true gives it one", key="gate_by_head")
        if np.any((np.asarray(self.layer_embedding_size) > 0) != (np.asarray(self.layer_vocab_size) > 0)):
            raise InputError("embeddings of layers need their size and their vocabulary", key="layer_vocab_size")

    def _check_lenders(self) -> None:
        """Raise for layers that borrow keys and values although no layer before them has its own, and the same window."""
        lent: list[Numeric | None] = []
        for name in dict.fromkeys((*self.first_layers, *self.layer_pattern)):
            kind = self.kinds[name]
            if kind.attention not in HEADED:
                continue
            if (kind.kv or self.kv) != BORROWED:
                lent.append(kind.window)
            elif kind.kv and not any(is_same(kind.window, each) for each in lent):  # not of a model as one kind sees it
                seen = "all tokens" if kind.window is None else f"{plain(kind.window)} tokens"
                problem = f"borrowed, but no layer before these has keys and values of its own that sees {seen} too"
                raise InputError(problem, key=f"layer_kinds.{name}.kv")

    @property
    def kinds(self) -> Mapping[str, LayerKind]:
        """The kinds of layers by name; one, without a name, where all layers are alike and no kind is described."""
        if self.layer_kinds is not None:
            return self.layer_kinds
        attention, feed_forward = "latent" if self.latent else "full", "experts" if self.mixture else "dense"
        return _one_kind(attention, feed_forward)

    @property
    def last_kind(self) -> str:
        """The kind of layer that the pattern ends with."""
        return self.layer_pattern[-1] if self.layer_pattern else next(iter(self.kinds))

    @property
    def multi_token_parts(self) -> tuple[str, ...]:
        """The kinds of layers that one layer that predicts a further token is made of."""
        return self.multi_token_kinds or (self.last_kind,)

    def seen_in(self, kind: LayerKind) -> TransformerModel:
        """The model as if all its layers had the sizes that a kind of layer has of its own.

        >>> from perfmodel.exchange.presets import model_preset
        >>> model = model_preset("gemma-2-9b")
        >>> [int(model.seen_in(LayerKind(kv_heads=heads)).kv_size) for heads in (None, 2)]
        [2048, 512]
        """
        return _seen_in(self, kind) if kind.own else self

    def layers_of(self, kind: str, first: Numeric, number: Numeric) -> Numeric:
        """How many of `number` layers from `first` on (counted from 0) are of `kind`.

        >>> from perfmodel.exchange.presets import model_preset
        >>> model = model_preset("gemma-2-9b")
        >>> [int(model.layers_of(kind, 1, 3)) for kind in model.kinds]
        [1, 2]
        """
        if len(self.kinds) == 1:
            return number
        first, end = np.asarray(first), np.asarray(first) + number
        before = partial(layers_before, self.layer_pattern, kind, first=self.first_layers)
        return before(end) - before(first)

    def kind_at(self, layer: int) -> str:
        """The kind of one layer, counted from 0."""
        if layer < len(self.first_layers):
            return self.first_layers[layer]
        behind = layer - len(self.first_layers)
        return self.layer_pattern[behind % len(self.layer_pattern)] if self.layer_pattern else next(iter(self.kinds))

    def has_bias(self, product: str) -> bool:
        """Whether a product (one of BIASES) has a bias; the head has one only where it is named."""
        return product in self.biases_of or (self.biases and product != "head")

    @property
    def norm_kind(self) -> NormKind:
        """The kind of its norms: the kernel that runs them, and the vectors that they learn."""
        return NORMS[self.norm]

    @property
    def gated(self) -> bool:
        """Whether the MLP multiplies its activation with a second projection."""
        return self.activation in GATED_ACTIVATIONS

    @property
    def query_size(self) -> Numeric:
        """Width of all query heads together."""
        return self.attention_heads * self.head_size

    @property
    def kv_size(self) -> Numeric:
        """Width of all key heads together."""
        return self.kv_heads * self.head_size

    @property
    def value_size(self) -> Numeric:
        """Numbers of the values of one head."""
        return self.head_size if self.value_head_size is None else self.value_head_size

    def padded_vocab_size(self, tensor_parallel: Numeric) -> Numeric:
        """The vocabulary that is really multiplied with: ceil(V / (multiple * t)) * multiple * t.

        Source: Megatron-LM, `_vocab_size_with_padding`.

        >>> from perfmodel.exchange.presets import model_preset
        >>> float(model_preset("gpt-3-175b").padded_vocab_size(8))
        51200.0
        """
        multiple = self.vocab_padding_multiple * tensor_parallel
        return np.ceil(self.vocab_size / multiple) * multiple


@lru_cache(maxsize=256)
def _seen_in(model: TransformerModel, kind: LayerKind) -> TransformerModel:
    none: dict[str, Any] = dict.fromkeys(OWN)
    alike = {name: replace(each, **none) for name, each in model.kinds.items()}
    return replace(model, **kind.own, layer_kinds=alike)


def _check_heads(heads: Numeric, kv_heads: Numeric, *, key: str) -> None:
    """Raise for heads of keys that do not divide those of queries. Errors: InputError."""
    if not np.all(np.remainder(heads, kv_heads) == 0):
        of = f"{plain(heads)} attention heads{_divisors_text(heads)}"
        raise InputError(f"{plain(kv_heads)} does not divide {of}", key=key)


@cache
def _one_kind(attention: str, feed_forward: str) -> Mapping[str, LayerKind]:
    """The only kind of layer of a model, without a name: asked for thirty times by each forecast."""
    return MappingProxyType({"": LayerKind(attention=attention, feed_forward=feed_forward)})


def divisors(value: float) -> list[int]:
    """All whole numbers that divide `value`, in rising order.

    >>> divisors(12), divisors(4097 * 4)
    ([1, 2, 3, 4, 6, 12], [1, 2, 4, 17, 34, 68, 241, 482, 964, 4097, 8194, 16388])
    """
    whole = int(value)
    small = [d for d in range(1, isqrt(whole) + 1) if whole % d == 0]
    return small + [whole // d for d in reversed(small) if d * d < whole]


def _divisors_text(value: Numeric) -> str:
    return "" if np.ndim(value) else f"; {', '.join(str(d) for d in divisors(float(value)))} would"
