"""Which parts a layer can have: one row for each kind of attention, or other mixer, and for each kind of feed-forward part.

A row says what a part declares, how all operators inside it are written, and by which name CUDA graphs take it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from perfmodel.count.blocks import Block
from perfmodel.count.declarations import ExpertShards, LayerPart
from perfmodel.count.parts.experts import routed_experts, routed_inside
from perfmodel.count.parts.feed_forward import dense_inside, dense_mlp
from perfmodel.count.parts.grouped_query import (
    attention_core_flop,
    grouped_query_attention,
    grouped_query_inside,
    indexed_attention,
    indexed_inside,
)
from perfmodel.count.parts.latent_attention import latent_attention, latent_core_flop, latent_inside
from perfmodel.count.parts.linear_attention import linear_attention, linear_core_flop, linear_inside
from perfmodel.count.parts.mixer_linears import gated_delta_core_flop, gated_delta_mixer, mamba2_core_flop, mamba2_mixer
from perfmodel.count.parts.mixers import gated_delta_inside, mamba2_inside
from perfmodel.count.parts.stream import StreamOperators
from perfmodel.errors import NotSupportedError
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.fields import Numeric
from perfmodel.spec.models.layer_kinds import LayerKind
from perfmodel.spec.models.model import TransformerModel


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionKind:
    """How one kind of attention is counted: its linears, all operators inside it, and what CUDA graphs of it are called.

    `core_flop` is what the published convention counts of a token that sees so many keys, beside its linears.
    """

    declaration: Callable[[TransformerModel, Numeric, str], LayerPart]
    inside: Callable[[StreamOperators, LayerPart, LayerKind, str], Block]
    core_flop: Callable[[TransformerModel, LayerKind, Numeric], Numeric] = attention_core_flop
    graphed: str = "attention"


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedForwardKind:
    """How one kind of feed-forward part is counted: its linears, its operators, and what CUDA graphs of it are called.

    Those of its norm have another name where they do not take all of the part.
    """

    declaration: Callable[[TransformerModel, Numeric, str, ExpertShards], LayerPart]
    inside: Callable[[StreamOperators, LayerPart, str, bool], Block]
    graphed: str = ""
    graphed_norm: str = ""


ATTENTION: Final = {
    "full": AttentionKind(declaration=grouped_query_attention, inside=grouped_query_inside),
    "sliding": AttentionKind(declaration=grouped_query_attention, inside=grouped_query_inside),
    "indexed": AttentionKind(declaration=indexed_attention, inside=indexed_inside),
    "latent": AttentionKind(declaration=latent_attention, inside=latent_inside, core_flop=latent_core_flop),
    "linear": AttentionKind(declaration=linear_attention, inside=linear_inside, core_flop=linear_core_flop),
    "mamba2": AttentionKind(declaration=mamba2_mixer, inside=mamba2_inside, core_flop=mamba2_core_flop, graphed="mixer"),
    "gated_delta": AttentionKind(
        declaration=gated_delta_mixer, inside=gated_delta_inside, core_flop=gated_delta_core_flop, graphed="mixer"
    ),
}
FEED_FORWARD: Final = {
    "dense": FeedForwardKind(declaration=dense_mlp, inside=dense_inside, graphed="dense"),
    "experts": FeedForwardKind(  # CUDA graphs take its parts one by one
        declaration=routed_experts, inside=routed_inside, graphed_norm="router"
    ),
}


def attention_kind(kind: LayerKind) -> AttentionKind:
    """How the attention of a kind of layer is counted. Errors: NotSupportedError for one that nothing here counts."""
    if kind.attention not in ATTENTION:
        raise NotSupportedError(f"{kind.attention} attention is not counted; {', '.join(ATTENTION)} is", key="attention")
    return ATTENTION[kind.attention]


def feed_forward_kind(kind: LayerKind) -> FeedForwardKind:
    """How the feed-forward part of a kind of layer is counted. Errors: NotSupportedError for one that nothing here counts."""
    if kind.feed_forward not in FEED_FORWARD:
        problem = f"{kind.feed_forward} feed-forward parts are not counted; {', '.join(FEED_FORWARD)} are"
        raise NotSupportedError(problem, key="feed_forward")
    return FEED_FORWARD[kind.feed_forward]
