"""Model FLOPs per token, in closed form: what the published conventions count, whatever a step really runs.

Symbols: L layers, h hidden_size, q query_size, v kv_size, f ffn_hidden_size, V vocab_size, s sequence_length, w window.

Conventions differ in what they count of attention: `full` all pairs of tokens (Megatron-LM until 2025, PaLM), `causal` those
that the mask leaves, half of them (NVIDIA's tables of 2026, MaxText since 2025-07). None counts the router.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from perfmodel.count.layer import layer_parts
from perfmodel.count.parts.layer_embeddings import has_layer_embeddings, layer_projection
from perfmodel.count.parts.part_kinds import attention_kind
from perfmodel.count.parts.vocabulary import multi_token_linear
from perfmodel.errors import InputError, did_you_mean
from perfmodel.spec.fields import Numeric, anywhere
from perfmodel.spec.models.model import TransformerModel

CONVENTIONS: Final = ("full", "causal")


def model_flop_per_token(model: TransformerModel, sequence_length: Numeric, *, convention: str = "full") -> Numeric:
    """6 * (L * (h*(q + 2*v) + q*h + n*h*f) + V*h) + 12 * L * q * s, with n = 3 products of a gated MLP, else 2.

    The published conventions (FLOPs forward and backward): attention counted in full, or its causal half; logits once, the
    lookup nothing.
    Source: arXiv:2205.05198, appendix A, extended to grouped KV heads and gated MLPs.

    >>> from perfmodel.exchange.presets import model_preset
    >>> float(model_flop_per_token(model_preset("nemotron-4-15b"), 4096)) / 1e9
    93.99435264
    >>> float(model_flop_per_token(model_preset("qwen3-30b-a3b"), 4096, convention="causal")) / 1e9  # NVIDIA prints 23.0
    23.006281728
    """
    logits = 6.0 * model.vocab_size * model.hidden_size
    linear: Numeric = logits
    if has_layer_embeddings(model):
        linear = linear + layer_projection(model, 1).model_flop_per_token
    for kind in model.kinds:
        linear = linear + model.layers_of(kind, 0, model.layers) * _linear_flop(model, kind)
    if anywhere(np.asarray(model.multi_token_layers) > 0):
        further = multi_token_linear(model).model_flop_per_token + logits
        for kind in model.multi_token_parts:
            further = further + _linear_flop(model, kind)
        linear = linear + model.multi_token_layers * further
    return linear + attention_flop_per_token(model, sequence_length, convention=convention)


def check_convention(convention: str) -> None:
    """Raise InputError for a convention that is none."""
    if convention not in CONVENTIONS:
        raise InputError(f"{convention} is no convention of FLOPs; {did_you_mean(convention, CONVENTIONS)}")


def attention_flop_per_token(model: TransformerModel, sequence_length: Numeric, *, convention: str = "full") -> Numeric:
    """12 * L * q * s: scores and weighted sum, 2 FLOPs a product, forward and twice backward, over the full square.

    Layers whose attention has a window count min(w, s) for s (Megatron-LM and torchtitan, 2026). The causal convention counts
    s/2, and w * (1 - w/(2*s)) in a window, which is what the mask leaves. Layers that keep a state count what mixers.py
    says, whatever s. Errors: InputError for a convention that is none.
    """
    check_convention(convention)
    total: Numeric = 0.0
    for kind in model.kinds:
        total = total + model.layers_of(kind, 0, model.layers) * _attention_flop(model, kind, sequence_length, convention)
    if anywhere(np.asarray(model.multi_token_layers) > 0):
        for kind in model.multi_token_parts:
            total = total + model.multi_token_layers * _attention_flop(model, kind, sequence_length, convention)
    return total


def _linear_flop(model: TransformerModel, kind: str) -> Numeric:
    """Of all matrices of a layer of a kind, for one token."""
    total: Numeric = 0.0
    for part in layer_parts(model, model.kinds[kind], 1):
        total = total + part.model_flop_per_token
    return total


def _attention_flop(model: TransformerModel, kind: str, sequence_length: Numeric, convention: str) -> Numeric:
    """What mixes tokens in a layer of a kind, beside its linears; 0 of layers without attention."""
    chosen = model.kinds[kind]
    if chosen.attention == "none":
        return 0.0
    seen = sequence_length if chosen.window is None else np.minimum(chosen.window, sequence_length)
    if convention == "causal":
        seen = seen * (1.0 - seen / (2.0 * sequence_length))
    return attention_kind(chosen).core_flop(model.seen_in(chosen), chosen, seen)


def layer_flop_per_token(model: TransformerModel, kind: str, sequence_length: Numeric, *, convention: str = "full") -> Numeric:
    """Model FLOPs of one layer of a kind."""
    return _linear_flop(model, kind) + _attention_flop(model, kind, sequence_length, convention)
