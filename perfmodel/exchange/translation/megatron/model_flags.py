"""The flags with which Megatron-LM has a model. What they cannot say is found by reading them again (exchange/launchers)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, Final, TypeAlias

import numpy as np

from perfmodel.spec.fields import whole
from perfmodel.spec.models.layer_kinds import LayerKind
from perfmodel.spec.models.model import TransformerModel

Flags: TypeAlias = Iterator[tuple[str, Any]]  # True for a bare flag
ACTIVATIONS: Final = {"swiglu": "--swiglu", "squared_relu": "--squared-relu", "geglu": "--quick-geglu"}
NORMS: Final = {"layernorm": "LayerNorm", "rmsnorm": "RMSNorm"}
POSITIONS: Final = {"rotary": "rope", "learned": "learned_absolute", "none": "none"}
LONGEST_SUM: Final = 8  # runs of equal layers that are written as a sum


def model_flags(model: TransformerModel) -> Flags:
    """Sizes, activation, norms, positions, vocabulary, and the parts of layers."""
    yield "--num-layers", whole(model.layers)
    yield "--hidden-size", whole(model.hidden_size)
    yield "--ffn-hidden-size", whole(model.ffn_hidden_size)
    yield "--num-attention-heads", whole(model.attention_heads)
    if model.latent is None:
        yield "--kv-channels", whole(model.head_size)
    if model.latent is None and whole(model.kv_heads) != whole(model.attention_heads):
        yield from (("--group-query-attention", True), ("--num-query-groups", whole(model.kv_heads)))
    if model.activation in ACTIVATIONS:
        yield ACTIVATIONS[model.activation], True
    if model.norm in NORMS:
        yield "--normalization", NORMS[model.norm]
    yield from _positions(model)
    yield from _switches(model)
    yield "--vocab-size", whole(model.vocab_size)
    yield "--make-vocab-size-divisible-by", model.vocab_padding_multiple
    yield from _latent(model)
    yield from _experts(model)
    yield from _windows(model)
    if whole(model.multi_token_layers):
        yield "--mtp-num-layers", whole(model.multi_token_layers)


def _positions(model: TransformerModel) -> Flags:
    if model.position in POSITIONS:
        yield "--position-embedding-type", POSITIONS[model.position]
    if model.rotary_fraction != 1:
        yield "--rotary-percent", model.rotary_fraction


def _switches(model: TransformerModel) -> Flags:
    if not model.tied_embeddings:
        yield "--untie-embeddings-and-output-weights", True
    if not model.biases:
        yield "--disable-bias-linear", True
    if model.biases_of == ("qkv",):
        yield "--add-qkv-bias", True
    if model.qk_norm in ("head", "head_with_bias") or model.latent is not None:
        yield "--qk-layernorm", True
    rate = 0.1 if model.dropout else 0
    yield from (("--attention-dropout", rate), ("--hidden-dropout", rate))


def _latent(model: TransformerModel) -> Flags:
    latent = model.latent
    if latent is None:
        return
    yield "--multi-latent-attention", True
    if whole(latent.query_rank):
        yield "--q-lora-rank", whole(latent.query_rank)
    yield "--kv-lora-rank", whole(latent.kv_rank)
    yield "--qk-head-dim", whole(latent.nope_head_size)
    yield "--qk-pos-emb-head-dim", whole(latent.rotary_head_size)
    yield "--v-head-dim", whole(latent.value_head_size)


def _experts(model: TransformerModel) -> Flags:
    mixture = model.mixture
    if mixture is None:
        return
    yield "--num-experts", whole(mixture.experts)
    yield "--moe-router-topk", whole(mixture.experts_per_token)
    yield "--moe-ffn-hidden-size", whole(mixture.ffn_hidden_size)
    if whole(mixture.shared_ffn_hidden_size):
        yield "--moe-shared-expert-intermediate-size", whole(mixture.shared_ffn_hidden_size)
    if mixture.shared_gate:
        yield "--moe-shared-expert-gate", True
    if whole(mixture.groups) > 1:
        yield "--moe-router-num-groups", whole(mixture.groups)
        yield "--moe-router-group-topk", whole(mixture.groups_per_token)
    if mixture.latent_size is not None:
        yield "--moe-latent-size", whole(mixture.latent_size)
    if mixture.capacity_factor is not None:
        yield from (
            ("--moe-expert-capacity-factor", float(mixture.capacity_factor)),
            ("--moe-pad-expert-input-to-capacity", True),
        )
    yield "--moe-grouped-gemm", True
    sparse = [int(kind.feed_forward == "experts") for kind in kinds_by_layer(model)]
    if not all(sparse):
        yield "--moe-layer-freq", list_expression(sparse)


def _windows(model: TransformerModel) -> Flags:
    """One window for all layers that have one: tokens to the left of a query, and none to its right."""
    kinds = kinds_by_layer(model)
    windows = {whole(kind.window) for kind in kinds if kind.window is not None}
    if not windows:
        return
    yield "--window-size", f"{max(windows) - 1},0"
    near = [int(kind.attention == "sliding") for kind in kinds]
    if not all(near):
        yield "--window-attn-skip-freq", list_expression(near)


def kinds_by_layer(model: TransformerModel) -> list[LayerKind]:
    """The kind of each layer."""
    if np.ndim(model.layers):
        return []
    return [model.kinds[model.kind_at(layer)] for layer in range(whole(model.layers))]


def list_expression(flags: Sequence[int]) -> str:
    """A list of 0 and 1 as Megatron-LM takes it, short where layers alike follow each other.

    >>> list_expression([0, 0, 0, 1, 1]), list_expression([0, 1] * 6)
    ('([0]*3+[1]*2)', '([0,1]*6)')
    """
    runs = [(value, len(list(group))) for value, group in groupby(flags)]
    if len(runs) <= LONGEST_SUM:
        return f"({'+'.join(f'[{value}]*{number}' for value, number in runs)})"
    period = next(each for each in range(1, len(flags) + 1) if _repeats(flags, each))
    return f"([{','.join(map(str, flags[:period]))}]*{len(flags) // period})"


def _repeats(flags: Sequence[int], period: int) -> bool:
    """Whether a list is its first `period` entries, again and again."""
    return len(flags) % period == 0 and list(flags) == list(flags[:period]) * (len(flags) // period)
