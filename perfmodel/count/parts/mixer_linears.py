"""The linears of mixers that keep a state, Mamba-2 and the gated delta rule, and what conventions count of them.

Symbols: h hidden_size, t tensor_parallel, k width of the convolution. Of one rank: H heads of P numbers, d = H*P, G groups,
states of P x N numbers (Mamba-2); K and V numbers of keys and values, H value heads, states of p x v numbers (gated delta).
"""

from __future__ import annotations

from typing import Final

import numpy as np

from perfmodel.count.declarations import Component, LayerPart, Linear, Projections
from perfmodel.count.roles import Role
from perfmodel.errors import InputError
from perfmodel.light_dataclass import replace
from perfmodel.spec.fields import Numeric
from perfmodel.spec.models.layer_kinds import LayerKind
from perfmodel.spec.models.layer_parts import GatedDelta, StateSpace
from perfmodel.spec.models.model import TransformerModel

SCAN_FLOP: Final = 7  # of the convention, for each number of a Mamba-2 state and token: Megatron-LM, mamba_layer_flops
STATE_PRODUCTS: Final = 4  # of the convention, each of v x v multiplications a head and token: Megatron-LM, gdn_layer_flops


def _linear(name: str, role: Role, inner: Numeric, columns: Numeric, useful: Numeric = 1.0) -> Linear:
    return Linear(name=name, component=Component.ATTENTION, role=role, inner=inner, columns=columns, useful=useful)


def state_space_of(model: TransformerModel) -> StateSpace:
    """The Mamba-2 mixers of a model. Errors: InputError where it has none."""
    if model.state_space is None:
        raise InputError("missing; some layers have mamba2", key="state_space")
    return model.state_space


def delta_of(model: TransformerModel) -> GatedDelta:
    """The gated delta mixers of a model. Errors: InputError where it has none."""
    if model.delta is None:
        raise InputError("missing; some layers have gated_delta", key="delta")
    return model.delta


def state_space_groups(model: TransformerModel, tensor_parallel: Numeric) -> Numeric:
    """Groups on one rank: max(G/t, 1), whose copies the published convention does not count."""
    return np.maximum(state_space_of(model).groups / tensor_parallel, 1)


def mamba2_mixer(model: TransformerModel, tensor_parallel: Numeric, name: str) -> LayerPart:
    """h x (2*d + 2*G*N + H) into the mixer, d x h out of it; k + 1 numbers a channel of the convolution, 3 a head, a norm of d.

    Its products have no biases, its convolution has one.
    """
    space, hidden = state_space_of(model), model.hidden_size
    heads, groups = space.heads / tensor_parallel, state_space_groups(model, tensor_parallel)
    width = heads * space.head_size
    channels = width + 2 * groups * space.state_size
    columns = width + channels + heads
    counted = 2 * width + 2 * space.groups / tensor_parallel * space.state_size + heads
    joined = _linear(f"{name}.in_projection", Role.PRODUCT, hidden, columns, counted / columns)
    return LayerPart(
        into=Projections(joined=joined),
        out=_linear(f"{name}.out_projection", Role.OUTPUT_PRODUCT, width, hidden),
        norm_before=model.pre_norms,
        norm_behind=model.post_norms,
        inner_norms=width,
        inner_vectors=channels * (space.convolution + 1) + 3 * heads,
    )


def gated_delta_mixer(model: TransformerModel, tensor_parallel: Numeric, name: str) -> LayerPart:
    """h x (2*K + 2*V + 2*H) into the mixer, V x h out of it; k numbers a channel of the convolution, 2 a head, a norm of v.

    With gates of rank r: h x (2*K + V + H), 2*h*r + r*(K + V), and K + H numbers beside those of the convolution.
    """
    delta, hidden = delta_of(model), model.hidden_size
    keys, heads = delta.key_heads * delta.key_head_size / tensor_parallel, delta.value_heads / tensor_parallel
    values = heads * delta.value_head_size
    apart: dict[str, Numeric] = {"qkvz": 2 * keys + 2 * values, "ba": 2 * heads}
    rates = heads
    if delta.has_rates_by_channel:
        apart, rates = {"query": keys, "key": keys, "value": values, "beta": heads}, keys
    joined = _linear(f"{name}.in_projection", Role.PRODUCT, hidden, sum(apart.values(), 0.0 * heads))
    return LayerPart(
        into=Projections(joined=joined, apart=apart),
        others=_narrow_gates(delta, hidden, name, rates=rates, gates=values),
        out=_linear(f"{name}.out_projection", Role.OUTPUT_PRODUCT, values, hidden),
        norm_before=model.pre_norms,
        norm_behind=model.post_norms,
        inner_norms=delta.value_head_size,
        inner_vectors=(2 * keys + values) * delta.convolution + rates + heads,
    )


def _narrow_gates(delta: GatedDelta, hidden: Numeric, name: str, *, rates: Numeric, gates: Numeric) -> dict[str, Linear]:
    """The pairs of matrices that make rates of forgetting and gates of a mixer whose gates are of low rank; none of others."""
    if not delta.has_rates_by_channel:
        return {}
    pairs = {"rate": rates, "gate": gates}
    down = {each: _linear(f"{name}.{each}_down", Role.PRODUCT, hidden, delta.gate_rank) for each in pairs}
    up = {each: _linear(f"{name}.{each}_up", Role.UP_PROJECTION, delta.gate_rank, columns) for each, columns in pairs.items()}
    return {f"{each}_down": replace(linear, is_replicated=True) for each, linear in down.items()} | {
        f"{each}_up": linear for each, linear in up.items()
    }


def mamba2_core_flop(model: TransformerModel, kind: LayerKind, seen: Numeric) -> Numeric:
    """3 * 7*d*N: what the published convention counts for the scan of one token, forward and twice backward."""
    del kind, seen
    space = state_space_of(model)
    return 3.0 * SCAN_FLOP * space.heads * space.head_size * space.state_size


def gated_delta_core_flop(model: TransformerModel, kind: LayerKind, seen: Numeric) -> Numeric:
    """3 * 2*(k*(2*K + V) + 4*H*v*v): convolution and delta rule of one token, forward and twice backward."""
    del kind, seen
    delta = delta_of(model)
    channels = 2 * delta.key_heads * delta.key_head_size + delta.value_heads * delta.value_head_size
    rule = STATE_PRODUCTS * delta.value_heads * delta.value_head_size * delta.value_head_size
    return 3.0 * 2.0 * (delta.convolution * channels + rule)
