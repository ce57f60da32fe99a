"""What attention of one layer runs in a pass of a server, between its projections: rotation, the choice of keys, the core.

Sequences that decode attend to the cache; prompts attend to their own tokens, as in training. Symbols as in forward_pass.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import numpy as np

from perfmodel.count.operators import CachedAttention, FusedAttention, MemoryBound
from perfmodel.count.roles import Role
from perfmodel.count.serving.cache import cache_bytes_per_token, key_bytes
from perfmodel.count.serving.sparse import (
    KeyChoice,
    SparseAttention,
    index_bytes_per_token,
    index_operators,
    long_prompts,
    sparse_prompts,
)
from perfmodel.light_dataclass import replace
from perfmodel.spec.fields import Numeric, anywhere
from perfmodel.spec.models.layer_kinds import BORROWED, LayerKind
from perfmodel.spec.models.layer_parts import Indexer
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.serving.formats import WIDE_BYTES
from perfmodel.spec.serving.setup import ServingSetup

if TYPE_CHECKING:
    from perfmodel.count.serving.forward_pass import ForwardPass

PASSED: Final = 2  # numbers that are moved for one that is read and written


def attention_operators(
    setup: ServingSetup, kind: LayerKind, name: str, own: ForwardPass, repeats: Numeric
) -> Iterator[MemoryBound | KeyChoice | SparseAttention | CachedAttention | FusedAttention]:
    """Rotation and writing into the cache, then attention: of sequences over the cache, of prompts as in training.

    Of prompts whose tokens see chosen ones alone, latent attention gathers those; grouped queries meet as many keys as in a
    window so wide.
    """
    model, tensor = setup.model, setup.attention_tensor
    heads = model.attention_heads / tensor
    latent = model.latent if kind.attention == "latent" else None
    kv_heads = heads if latent else np.maximum(model.kv_heads / tensor, 1.0)
    indexer = indexer_of(model, kind)
    per_token = cache_bytes_per_token(setup, kind)
    rotated = 2 * heads if model.kv == BORROWED else 2 * heads + kv_heads
    around = WIDE_BYTES * own.rows * rotated * model.head_size + per_token * own.rows
    kernel = "latent_rotary" if latent else "rotary"
    yield MemoryBound(name=f"{name}.rotary", role=Role.ELEMENTWISE, repeats=repeats, moved_bytes=around, kernel=kernel)
    sparse: Numeric = 0.0  # prompts whose tokens see chosen ones alone
    if indexer is not None:
        tokens = {"sequences": own.sequences, "prompts": own.prompts, "prompt_tokens": own.prompt_tokens}
        yield from index_operators(indexer, name, repeats, context=own.context, **tokens)
        per_token = per_token - index_bytes_per_token(indexer)
        sparse = long_prompts(indexer, own.prompts, own.prompt_tokens)
    if model.kv == BORROWED and latent is None:
        per_token = key_bytes(setup, model)  # of the cache of another layer
    if anywhere(np.asarray(own.sequences) > 0):
        yield CachedAttention(
            name=f"{name}.core",
            repeats=repeats,
            sequences=own.sequences,
            context=own.context,
            window=kind.window if indexer is None else indexer.tokens,
            heads=heads,
            head_size=latent.kv_rank + latent.rotary_head_size if latent else model.head_size,
            value_size=latent.kv_rank if latent else model.value_size,
            cache_bytes=per_token,
            law=setup.cache.law,
            latent=latent is not None,
        )
    whole = FusedAttention(
        name=f"{name}.core",
        repeats=repeats,
        sequences=own.prompts - sparse,
        heads=heads,
        kv_heads=kv_heads,
        head_size=model.head_size,
        value_size=latent.value_head_size if latent else model.value_head_size,
        query_length=own.prompt_tokens,
        key_length=own.prompt_tokens,
        window=kind.window,
        latent=latent is not None,
        precision=setup.wide,
    )
    if indexer and anywhere(np.asarray(sparse) > 0):
        rows = sparse * own.prompt_tokens
        if latent:
            yield sparse_prompts(latent, indexer, name, repeats, rows=rows, heads=heads, cache=setup.cache)
        else:
            yield replace(whole, sequences=sparse, window=indexer.tokens)
    if anywhere(np.asarray(own.prompts - sparse) > 0):
        yield whole
    if model.attention_gate:
        yield _gate(model, name, own.rows * heads, repeats)


def _gate(model: TransformerModel, name: str, heads: Numeric, repeats: Numeric) -> MemoryBound:
    """Of some heads of all tokens what attention gives, times a gate as wide, which leaves one product with the queries.

    SGLang's qwen3_5.py parts both first. A gate by head has a product of its own, and is of no size beside what it multiplies.
    """
    multiplied = PASSED * model.value_size
    parted = 0 if model.gate_by_head else PASSED * (model.head_size + model.value_size)
    gates = 0 if model.gate_by_head else model.value_size
    moved = WIDE_BYTES * heads * (multiplied + gates + parted)
    kernels = 1 if model.gate_by_head else 2
    return MemoryBound(
        name=f"{name}.gate", role=Role.ELEMENTWISE, repeats=repeats, moved_bytes=moved, kernels=kernels, kernel="gate"
    )


def indexer_of(model: TransformerModel, kind: LayerKind) -> Indexer | None:
    """What chooses the keys that tokens of a kind of layer see; None where they see all, or the nearest."""
    if kind.attention == "latent" and model.latent is not None:
        return model.latent.indexer
    return model.indexer if kind.attention == "indexed" else None
