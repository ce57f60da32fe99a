"""Mixtures of experts of the tests: the families of Mixtral, Qwen3-MoE and DeepSeek-V3, small, and how their routers weigh."""

from __future__ import annotations

from dataclasses import replace

from perfmodel.model.parts.router import Routing
from perfmodel.spec.models.layer_kinds import LayerKind
from perfmodel.spec.models.layer_parts import LatentAttention, Mixture
from perfmodel.spec.models.model import TransformerModel
from tests.model.small_models import LLAMA

MIXTRAL = replace(
    LLAMA,
    name="mixtral",
    layers=2,
    kv_heads=2,
    mixture=Mixture(experts=4, experts_per_token=2, ffn_hidden_size=48),
)
QWEN3_MOE = replace(
    MIXTRAL,
    name="qwen3 moe",
    qk_norm="head",
    mixture=Mixture(experts=8, experts_per_token=3, ffn_hidden_size=24),
)
SLIDING_MIXTRAL = replace(
    MIXTRAL,
    name="sliding mixtral",
    layer_kinds={"near": LayerKind(attention="sliding", window=7, feed_forward="experts")},
)
DEEPSEEK = replace(
    LLAMA,
    name="deepseek v3",
    head_size=24,
    layer_kinds={
        "dense": LayerKind(attention="latent"),
        "sparse": LayerKind(attention="latent", feed_forward="experts"),
    },
    first_layers=("dense",),
    layer_pattern=("sparse",),
    latent=LatentAttention(query_rank=20, kv_rank=12, nope_head_size=16, rotary_head_size=8, value_head_size=16),
    mixture=Mixture(
        experts=8,
        experts_per_token=4,
        ffn_hidden_size=24,
        shared_experts=2,
        shared_ffn_hidden_size=48,
        groups=4,
        groups_per_token=2,
    ),
)
MIXTURES = (MIXTRAL, QWEN3_MOE, SLIDING_MIXTRAL, DEEPSEEK)
ROUTINGS = {
    "deepseek v3": Routing(scores="sigmoid", scale=2.5),
}


def routing_of(model: TransformerModel) -> Routing:
    """How the router of a small mixture weighs its experts."""
    return ROUTINGS.get(model.name, Routing())
