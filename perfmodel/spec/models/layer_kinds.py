"""What layers a model is made of: kinds of layers, and the pattern in which they follow each other.

A kind is an attention part and a feed-forward part. What a part multiplies, keeps and counts is declared in
count/parts/grouped_query.py, others beside it, and count/parts/feed_forward.py; here stands only which parts there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import InputError, did_you_mean
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.fields import Numeric, Spec, check_fields, choice, count, flag, number

STATE_MIXERS: Final = ("mamba2", "gated_delta")  # which go through a sequence by a state that they keep
HEADED: Final = ("full", "sliding", "indexed")  # whose queries, keys and values have heads of the sizes of a model
TOKENWISE: Final = ("linear", "none")  # in which tokens do not meet
ATTENTION_KINDS: Final = ("full", "sliding", "indexed", "latent", *STATE_MIXERS, *TOKENWISE)
FEED_FORWARD_KINDS: Final = ("dense", "experts", "none")
KV: Final = ("own", "tied", "borrowed")
BORROWED: Final = "borrowed"
OWN: Final = (  # what a kind may have in place of its model's
    *("attention_heads", "kv_heads", "head_size", "value_head_size", "ffn_hidden_size", "sinks", "kv"),
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class LayerKind(Spec):
    """One kind of layer.

    attention      full: a token sees all tokens before it; sliding: the nearest `window` of them, itself among these; indexed:
                   those in the blocks that an indexer chooses; latent: all, through keys and values of low rank; mamba2,
                   gated_delta: a state that the tokens before it left; linear: itself alone, through one matrix; none
    feed_forward   dense: one MLP that all tokens pass; experts: a router sends each token to some of many; none
    rotary         its queries and keys are rotated, where the model has rotary positions

    Sizes of OWN are its own where they are given, else those of the model, and so are sinks, and where its keys and values
    come from (`kv`).

    Errors: InputError.
    """

    attention: str = choice(*ATTENTION_KINDS, default="full")
    window: Numeric | None = number("count", minimum=1, integer=True, optional=True, default=None)
    feed_forward: str = choice(*FEED_FORWARD_KINDS, default="dense")
    rotary: bool = flag(default=True)
    attention_heads: Numeric | None = count(optional=True, default=None)
    kv_heads: Numeric | None = count(optional=True, default=None)
    head_size: Numeric | None = count(optional=True, default=None)
    value_head_size: Numeric | None = count(optional=True, default=None)
    ffn_hidden_size: Numeric | None = count(optional=True, default=None)
    sinks: bool | None = flag(optional=True, default=None)
    kv: str | None = choice(*KV, optional=True, default=None)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.attention == "sliding" and self.window is None:
            raise InputError("missing; sliding attention needs the number of tokens that it sees", key="window")
        if self.attention != "sliding" and self.window is not None:
            raise InputError(f"{self.attention} attention has no window; attention: sliding would have", key="window")
        if self.attention == self.feed_forward == "none":
            raise InputError("a layer has attention, or another mixer, or a feed-forward part", key="feed_forward")
        has_heads = self.attention in HEADED
        for key in self.own:
            if key != "ffn_hidden_size" and not has_heads:
                raise InputError(f"{self.attention} attention has no such size of its own", key=key)
        if self.ffn_hidden_size is not None and self.feed_forward != "dense":
            raise InputError(f"{self.feed_forward} in place of an MLP have no such width; dense would", key="ffn_hidden_size")

    @property
    def own(self) -> dict[str, Any]:
        """What it has otherwise than its model, by the model's field."""
        given = ((name, getattr(self, name)) for name in OWN)
        return {name: value for name, value in given if value is not None}


EVERYWHERE: Final = LayerKind()  # of a model whose layers are all alike


def check_pattern(
    kinds: Mapping[str, LayerKind] | None, pattern: Sequence[str], first: Sequence[str] = (), further: Sequence[str] = ()
) -> None:
    """Raise for a pattern that names no kind, or kinds that no layer has, those that predict `further` tokens too.

    Errors: InputError.
    """
    named = {"first_layers": first, "layer_pattern": pattern, "multi_token_kinds": further}
    if not kinds:
        _check_without_kinds(kinds, named)
        return
    if not pattern and len(kinds) > 1:
        raise InputError(f"missing; in which order do layers of {', '.join(kinds)} follow each other?", key="layer_pattern")
    for key, names in named.items():
        for name in names:
            if name not in kinds:
                raise InputError(f"{name} is no kind of layer of this model; {did_you_mean(name, kinds)}", key=key)
    for name in kinds:
        if pattern and name not in (*first, *pattern, *further):
            raise InputError("no layer is of this kind: layer_pattern does not name it", key=f"layer_kinds.{name}")


def _check_without_kinds(kinds: Mapping[str, LayerKind] | None, named: Mapping[str, Sequence[str]]) -> None:
    if kinds is not None:
        raise InputError("describes no kind of layer; leave it out where layers are all alike", key="layer_kinds")
    for key, names in named.items():
        if names:
            raise InputError("names kinds of layers, but layer_kinds describes none", key=key)


def layers_before(pattern: Sequence[str], kind: str, layers: Numeric, first: Sequence[str] = ()) -> Numeric:
    """How many of the first `layers` layers are of `kind`: those of `first` are, then `pattern` is repeated.

    With n layers behind the first ones: floor(n / P) * (all of one period) + (those among the first n mod P), P the length of
    the pattern.

    >>> [int(layers_before(("local", "local", "global"), "global", n)) for n in (2, 3, 8)]
    [0, 1, 2]
    >>> [int(layers_before(("sparse",), "sparse", n, ("dense", "dense"))) for n in (1, 2, 6)]
    [0, 0, 4]
    """
    every = np.asarray(layers, dtype=np.int64)
    leading = np.minimum(every, len(first))
    whole, rest = np.divmod(every - leading, len(pattern))
    begun, before = _counted(tuple(pattern), kind), _counted(tuple(first), kind)
    number: Numeric = (whole * begun[-1] + begun[rest] + before[leading]).astype(np.int64)
    return number


@lru_cache(maxsize=256)
def _counted(names: tuple[str, ...], kind: str) -> NDArray[np.int64]:
    """How many of the first n names are that kind, for every n: asked again and again for each forecast of a model."""
    return np.concatenate([[0], np.cumsum([name == kind for name in names], dtype=np.int64)])
