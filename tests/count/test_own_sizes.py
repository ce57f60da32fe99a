"""Layers with sizes of their own: heads, keys, values and MLPs that differ by layer, in training and in a server."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from perfmodel.count.flops import model_flop_per_token
from perfmodel.count.iteration import iteration
from perfmodel.count.operators import CachedAttention, FusedAttention, Matmul, model_flop
from perfmodel.count.parameters import parameter_count
from perfmodel.count.serving.forward_pass import ForwardPass, ServedProduct, cache_bytes_per_token, forward_operators
from perfmodel.count.serving.memory import activation_bytes, weight_bytes
from perfmodel.errors import InputError
from perfmodel.exchange.presets import model_preset, stack_preset
from perfmodel.exchange.questions.serving.served_models import serving_setup
from perfmodel.spec.models.layer_kinds import LayerKind
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.refusals import check_setup
from perfmodel.spec.serving.setup import ServingSetup
from tests.layouts import RAMP_STAGE
from tests.setups import setup_of

LLAMA = model_preset("llama-3.1-8b")  # 32 layers, h 4096, 32 heads and 8 of keys of 128, f 14336
OWN: list[dict[str, Any]] = [
    {"kv_heads": 2},
    {"attention_heads": 48, "kv_heads": 4},
    {"head_size": 256},
    {"value_head_size": 64},
    {"ffn_hidden_size": 7168},
    {"sinks": True},
]
ALONE = replace(RAMP_STAGE, tensor_parallel=1, sequence_length=4096)


def half(**own: Any) -> TransformerModel:
    """Llama 3.1 8B, every second layer of which has sizes of its own."""
    kinds = {"plain": LayerKind(), "own": LayerKind(**own)}
    return replace(LLAMA, name="half", layer_kinds=kinds, layer_pattern=("plain", "own"))


def every(**own: Any) -> TransformerModel:
    """Llama 3.1 8B with these sizes in all layers."""
    return replace(LLAMA, name="every", **own)


@pytest.mark.parametrize("own", OWN, ids=str)
def test_a_model_of_two_sizes_is_the_mean_of_two_models(own: dict[str, Any]) -> None:
    """Parameters and model FLOPs are sums over layers."""
    mixed, one, other = (parameter_count(model).total for model in (half(**own), LLAMA, every(**own)))
    assert 2 * mixed == pytest.approx(one + other, rel=1e-12)
    mixed, one, other = (model_flop_per_token(model, 4096) for model in (half(**own), LLAMA, every(**own)))
    assert 2 * mixed == pytest.approx(one + other, rel=1e-12)


@pytest.mark.parametrize("own", OWN, ids=str)
@pytest.mark.parametrize("stack", ["megatron-core", "pytorch-compile"])
def test_operators_of_a_layer_are_those_of_a_model_of_its_size(own: dict[str, Any], stack: str) -> None:
    """By their numbers; names tell the kinds apart."""
    mixed, alone = (iteration(setup_of(model, ALONE, stack_preset(stack))) for model in (half(**own), every(**own)))

    def numbers(layer: Any) -> list[tuple[Any, ...]]:
        return [
            (type(op), getattr(op, "columns", 0), getattr(op, "inner", 0), getattr(op, "moved_bytes", 0), op.saved_bytes)
            for op in layer.plain.forward
            if hasattr(op, "saved_bytes")
        ]

    assert numbers(mixed.layers["own"]) == numbers(alone.layers[""])
    assert model_flop(mixed.layers["own"].plain.operators) == model_flop(alone.layers[""].plain.operators)


def test_values_of_another_size_make_what_heads_give() -> None:
    """h*(q + kv_heads*(d + v)) + a*v*h, and 6*a*(d + v) for each key seen; keys of 192 numbers and values of 128 (MiMo)."""
    model = every(head_size=192, value_head_size=128)
    layer = iteration(setup_of(model, ALONE)).layers[""].plain
    products = {op.name: op for op in layer.forward if isinstance(op, Matmul)}
    assert products["layer.attention.qkv"].columns == 32 * 192 + 8 * (192 + 128)
    assert products["layer.attention.projection"].inner == 32 * 128
    (core,) = (op for op in layer.forward if isinstance(op, FusedAttention))
    assert (core.head_size, core.value_size) == (192, 128)
    own = 6.0 * 32 * (192 + 128) * 4096
    without = replace(model, attention_heads=32, layers=1)
    assert model_flop_per_token(without, 4096) - model_flop_per_token(without, 1) == pytest.approx(own * 4095 / 4096)


def served(model: TransformerModel, tensor_parallel: int = 1) -> ServingSetup:
    """A server of the model on one kind of GPU."""
    return replace(serving_setup("llama-3.1-8b", gpu="h100-sxm-80gb"), model=model, tensor_parallel=tensor_parallel)


@pytest.mark.parametrize("own", OWN, ids=str)
def test_a_server_keeps_and_runs_what_each_layer_is(own: dict[str, Any]) -> None:
    """Weights, the cache of a token, and the products of a pass."""
    mixed, alone = served(half(**own)), served(every(**own))
    plain = served(LLAMA)
    assert 2 * weight_bytes(mixed) == pytest.approx(weight_bytes(plain) + weight_bytes(alone), rel=1e-12)
    kind = mixed.model.kinds["own"]
    assert cache_bytes_per_token(mixed, kind) == cache_bytes_per_token(alone, alone.model.kinds[""])
    tokens = ForwardPass(sequences=3.0, context=100.0, prompts=2.0, prompt_tokens=50.0)
    numbers: list[list[tuple[Any, ...]]] = []
    for setup, name in ((mixed, "layer.own."), (alone, "layer.")):
        found = [op for op in forward_operators(setup, tokens) if op.name.startswith(name)]
        products: list[tuple[Any, ...]] = [(op.inner, op.columns) for op in found if isinstance(op, ServedProduct)]
        cached = [op for op in found if isinstance(op, CachedAttention)]
        cores: list[tuple[Any, ...]] = [(op.heads, op.head_size, op.value_size, op.cache_bytes) for op in cached]
        numbers.append([*products, *cores])
    assert numbers[0] == numbers[1]


def test_the_widest_layers_make_the_activations_of_a_server() -> None:
    """Wherever they stand."""
    assert activation_bytes(served(half(ffn_hidden_size=28672))) == activation_bytes(served(every(ffn_hidden_size=28672)))
    assert activation_bytes(served(half(ffn_hidden_size=7168))) == activation_bytes(served(LLAMA))


def test_ranks_share_the_heads_and_columns_of_all_layers() -> None:
    """32 heads allow 16 ranks, 24 do not; in training and in a server."""
    layout = replace(RAMP_STAGE, tensor_parallel=16)
    with pytest.raises(InputError, match="16 does not divide 24 attention heads"):
        check_setup(setup_of(half(attention_heads=24), layout))
    with pytest.raises(InputError, match="16 does not divide 24 attention heads"):
        served(half(attention_heads=24), tensor_parallel=16)
    with pytest.raises(InputError, match=r"does not divide 1,?000 columns of the MLP"):
        check_setup(setup_of(half(ffn_hidden_size=1000), layout))
