"""Bytes of a token in the KV cache of one layer."""

from __future__ import annotations

import numpy as np

from perfmodel.count.serving.sparse import index_bytes_per_token
from perfmodel.spec.fields import Numeric
from perfmodel.spec.models.layer_kinds import BORROWED, STATE_MIXERS, TOKENWISE, LayerKind
from perfmodel.spec.models.layer_parts import described
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.serving.setup import ServingSetup


def cache_bytes_per_token(setup: ServingSetup, kind: LayerKind) -> Numeric:
    """Bytes of one token in the cache of one layer on one GPU: max(1, kv_heads/t) * (d + v) * b; latent (l + r) * b, not split.

    >>> from perfmodel.exchange.questions.serving.served_models import serving_setup
    >>> setup = serving_setup("qwen3-235b-a22b", gpu="h100-sxm-80gb", tensor_parallel=4)
    >>> float(cache_bytes_per_token(setup, setup.model.kinds[""]) * setup.model.layers)  # vLLM's log has 48,128
    48128.0
    """
    model = setup.model.seen_in(kind)
    if kind.attention in (*TOKENWISE, *STATE_MIXERS) or model.kv == BORROWED:
        return 0.0
    if kind.attention == "latent":
        latent = described(model.latent, "latent")
        index = 0.0 if latent.indexer is None else index_bytes_per_token(latent.indexer)
        return (latent.kv_rank + latent.rotary_head_size) * setup.cache.bytes + index
    index = index_bytes_per_token(described(model.indexer, "indexer")) if kind.attention == "indexed" else 0.0
    return key_bytes(setup, model) + index


def key_bytes(setup: ServingSetup, model: TransformerModel) -> Numeric:
    """Bytes of the keys and values of one token that heads of one GPU attend to, whichever layer keeps them."""
    numbers = model.head_size + model.value_size
    return np.maximum(model.kv_heads / setup.attention_tensor, 1.0) * numbers * setup.cache.bytes
