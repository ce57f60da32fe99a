"""Models that properties are tried on: presets of every kind, and small ones whose parts are drawn."""

from __future__ import annotations

from typing import Any, Final

from hypothesis import strategies as st

from perfmodel.exchange.presets import model_preset, preset_names
from perfmodel.spec.models.layer_kinds import LayerKind
from perfmodel.spec.models.layer_parts import GatedDelta, Indexer, LatentAttention, Mixture, StateSpace
from perfmodel.spec.models.model import NORMS, QK_NORMS, TransformerModel

HEADS: Final = (4, 8, 16)
WINDOW: Final = LayerKind(attention="sliding", window=256)
PATTERNS: Final[dict[str, tuple[dict[str, LayerKind], tuple[str, ...], tuple[str, ...]]]] = {  # kinds, pattern, first layers
    "alike": ({}, (), ()),
    "windows": ({"local": WINDOW, "global": LayerKind()}, ("local", "local", "global"), ()),
    "mamba2": (
        {"state": LayerKind(attention="mamba2", feed_forward="none"), "full": LayerKind(), "mlp": LayerKind(attention="none")},
        ("state", "mlp", "state", "full"),
        (),
    ),
    "gated_delta": ({"delta": LayerKind(attention="gated_delta"), "full": LayerKind()}, ("delta", "delta", "full"), ("full",)),
    "experts": ({}, (), ()),
    "experts behind dense": (
        {"dense": LayerKind(), "sparse": LayerKind(feed_forward="experts")},
        ("sparse",),
        ("dense",),
    ),
}


@st.composite
def small_models(draw: st.DrawFn) -> TransformerModel:
    """A model of a few layers, with parts as they come."""
    heads, head_size, pattern = (
        draw(st.sampled_from(HEADS)),
        draw(st.sampled_from([64, 128])),
        draw(st.sampled_from([*PATTERNS])),
    )
    kinds, repeated, first = PATTERNS[pattern]
    hidden = 64 * draw(st.integers(4, 48))
    latent = pattern in ("alike", "experts") and draw(st.booleans())
    parts: dict[str, Any] = {"layer_kinds": kinds or None, "layer_pattern": repeated, "first_layers": first}
    if pattern.startswith("experts"):
        parts["mixture"] = draw(mixtures())
    if pattern == "mamba2":
        parts["state_space"] = StateSpace(
            heads=2 * heads, head_size=64, groups=draw(st.sampled_from([1, 2, 8])), state_size=128
        )
    if pattern == "gated_delta":
        parts["delta"] = GatedDelta(key_heads=heads, value_heads=2 * heads, key_head_size=64, value_head_size=128)
    if latent:
        parts["latent"] = LatentAttention(
            query_rank=draw(st.sampled_from([0, 256])),
            kv_rank=128,
            nope_head_size=64,
            rotary_head_size=32,
            value_head_size=64,
            indexer=draw(st.sampled_from([None, None, Indexer(heads=32, head_size=128, tokens=2048)])),
        )
        head_size = 96
    return TransformerModel(
        name=f"small {pattern}",
        layers=draw(st.sampled_from([4, 6, 8, 12, 24])),
        hidden_size=hidden,
        attention_heads=heads,
        kv_heads=heads if latent else draw(st.sampled_from([kv for kv in (1, 2, 4, 8, 16) if heads % kv == 0])),
        head_size=head_size,
        ffn_hidden_size=32 * draw(st.integers(4, 128)),
        activation=draw(st.sampled_from(["gelu", "swiglu", "geglu", "squared_relu", "relu"])),
        norm=draw(st.sampled_from([*NORMS])),
        position=draw(st.sampled_from(["rotary", "alibi", "none"])),
        biases=draw(st.booleans()),
        dropout=draw(st.booleans()),
        tied_embeddings=draw(st.booleans()),
        vocab_size=draw(st.integers(500, 200_000)),
        post_norms=draw(st.booleans()),
        parallel_residual=draw(st.sampled_from(["none", "one_norm", "two_norms"])),
        qk_norm="none" if latent else draw(st.sampled_from([*QK_NORMS])),
        softcaps=draw(st.sampled_from([(), ("logits",), ("attention", "logits")])),
        **parts,
    )


@st.composite
def mixtures(draw: st.DrawFn) -> Mixture:
    """A mixture of experts."""
    experts = draw(st.sampled_from([4, 8, 64]))
    shared = draw(st.integers(0, 2))
    return Mixture(
        experts=experts,
        experts_per_token=draw(st.integers(1, 4)),
        ffn_hidden_size=32 * draw(st.integers(2, 64)),
        shared_experts=shared,
        shared_ffn_hidden_size=256 * shared,
        capacity_factor=draw(st.sampled_from([None, 1.25])),
    )


def models() -> st.SearchStrategy[TransformerModel]:
    """A preset, or a small model."""
    return st.sampled_from(preset_names("models")).map(model_preset) | small_models()
