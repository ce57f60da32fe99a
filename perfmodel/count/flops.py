"""Model FLOPs per token, in closed form: what the published conventions count, whatever a step really runs.

Symbols: L layers, h hidden_size, q query_size, v kv_size, f ffn_hidden_size, V vocab_size, s sequence_length, w window.
"""

from __future__ import annotations

import numpy as np

from perfmodel.count.layer import layer_parts
from perfmodel.spec.fields import Numeric
from perfmodel.spec.model import TransformerModel


def model_flop_per_token(model: TransformerModel, sequence_length: Numeric) -> Numeric:
    """6 * (L * (h*(q + 2*v) + q*h + n*h*f) + V*h) + 12 * L * q * s, with n = 3 products of a gated MLP, else 2.

    The published convention (FLOPs forward and backward): attention counted in full, logits once, the lookup nothing.
    Source: arXiv:2205.05198, appendix A, extended to grouped KV heads and gated MLPs.

    >>> from perfmodel.exchange.presets import model_preset
    >>> float(model_flop_per_token(model_preset("nemotron-4-15b"), 4096)) / 1e9
    93.99435264
    """
    linear: Numeric = 6.0 * model.vocab_size * model.hidden_size
    for kind, chosen in model.kinds.items():
        attention, feed_forward = layer_parts(model, chosen, 1)
        layer = attention.model_flop_per_token + feed_forward.model_flop_per_token
        linear = linear + model.layers_of(kind, 0, model.layers) * layer
    return linear + attention_flop_per_token(model, sequence_length)


def attention_flop_per_token(model: TransformerModel, sequence_length: Numeric) -> Numeric:
    """12 * L * q * s: scores and weighted sum, 2 FLOPs a product, forward and twice backward, over the full square.

    Layers whose attention has a window count min(w, s) for s (Megatron-LM and torchtitan, 2026).
    """
    total: Numeric = 0.0
    for kind in model.kinds:
        total = total + model.layers_of(kind, 0, model.layers) * _attention_flop(model, kind, sequence_length)
    return total


def _attention_flop(model: TransformerModel, kind: str, sequence_length: Numeric) -> Numeric:
    window = model.kinds[kind].window
    seen = sequence_length if window is None else np.minimum(window, sequence_length)
    return 12.0 * model.query_size * seen


def layer_flop_per_token(model: TransformerModel, kind: str, sequence_length: Numeric) -> Numeric:
    """Model FLOPs of one layer of a kind."""
    attention, feed_forward = layer_parts(model, model.kinds[kind], 1)
    return attention.model_flop_per_token + feed_forward.model_flop_per_token + _attention_flop(model, kind, sequence_length)
