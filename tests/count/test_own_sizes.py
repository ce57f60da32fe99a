"""Layers with sizes of their own: heads, keys, values and MLPs that differ by layer, in training and in a server."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from perfmodel.count.blocks import Block
from perfmodel.count.flops import model_flop_per_token
from perfmodel.count.iteration import iteration
from perfmodel.count.operators import CachedAttention, FusedAttention, Matmul, MemoryBound, model_flop, saved_bytes
from perfmodel.count.parameters import parameter_count
from perfmodel.count.serving.cache import cache_bytes_per_token
from perfmodel.count.serving.forward_pass import ForwardPass, ServedProduct, forward_operators
from perfmodel.count.serving.memory import activation_bytes, sequence_bytes, weight_bytes
from perfmodel.errors import InputError, NotSupportedError
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
    {"kv": "tied"},
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


def layer_of(model: TransformerModel, kind: str = "") -> Block:
    """One layer of a kind, plain, in training."""
    return iteration(setup_of(model, ALONE)).layers[kind].plain


def attention_bytes(block: Block) -> float:
    """What the core of attention keeps for the backward pass."""
    return float(saved_bytes(op for op in block.forward if isinstance(op, FusedAttention)))


def test_tied_values_have_no_product_of_their_own() -> None:
    """h*(q + v) in place of h*(q + 2*v); both are kept, in training and in the cache (Gemma 4)."""
    tied = every(kv="tied")
    assert parameter_count(LLAMA).total - parameter_count(tied).total == 32 * 4096 * 8 * 128
    assert attention_bytes(layer_of(tied)) == attention_bytes(layer_of(LLAMA))
    assert cache_bytes_per_token(served(tied), tied.kinds[""]) == 2 * 8 * 128 * 2


BORROWING = half(kv="borrowed", ffn_hidden_size=28672)


def test_borrowed_keys_are_neither_formed_nor_kept_again() -> None:
    """Products of queries alone, no keys for the gradients, and no cache: that of another layer is read."""
    keys_and_values, wider = 4096 * 2 * 8 * 128, 3 * 4096 * (28672 - 14336)
    assert parameter_count(LLAMA).total - parameter_count(BORROWING).total == 16 * (keys_and_values - wider)
    own, borrowed = (layer_of(BORROWING, kind) for kind in ("plain", "own"))
    assert attention_bytes(own) - attention_bytes(borrowed) == 2 * ALONE.tokens_per_micro_batch * 2 * 8 * 128
    server = served(BORROWING)
    assert cache_bytes_per_token(server, BORROWING.kinds["own"]) == 0
    assert 2 * sequence_bytes(server, 1024) == sequence_bytes(served(LLAMA), 1024)
    passed = forward_operators(server, ForwardPass(sequences=4.0, context=100.0))
    reads = {op.name: op.cache_bytes for op in passed if isinstance(op, CachedAttention)}
    assert reads["layer.own.attention.core"] == reads["layer.plain.attention.core"] == 2 * 8 * 128 * 2


@pytest.mark.parametrize("qk_norm", ["none", "head", "head_and_values"])
def test_borrowed_keys_are_neither_normed_nor_rotated_again(qk_norm: str) -> None:
    """Queries alone, of 32 heads, where others pass their 8 of keys too, and norms of values 8 more."""
    model = replace(BORROWING, qk_norm=qk_norm)
    moved = {
        kind: {
            op.name.rpartition(".")[2]: op.moved_bytes for op in layer_of(model, kind).forward if isinstance(op, MemoryBound)
        }
        for kind in ("plain", "own")
    }
    assert moved["own"]["rotary"] * (32 + 8) == moved["plain"]["rotary"] * 32
    normed = {"none": 0, "head": 8, "head_and_values": 16}[qk_norm]
    if normed:
        assert moved["own"]["qk_norm"] * (32 + normed) == pytest.approx(moved["plain"]["qk_norm"] * 32)


def test_keys_are_borrowed_of_layers_on_the_same_stage() -> None:
    """Others would have to be sent."""
    with pytest.raises(NotSupportedError, match="layers that borrow keys and values over 4 stages are not covered"):
        check_setup(setup_of(BORROWING, replace(RAMP_STAGE, tensor_parallel=1, pipeline_parallel=4)))


@pytest.mark.parametrize(
    ("changes", "key", "words"),
    [
        ({"kv": "borrowed"}, "kv", "all layers cannot borrow"),
        ({"layer_kinds": {"only": LayerKind(kv="borrowed")}}, "layer_kinds", "some need their own"),
        (
            {"layer_kinds": {"near": LayerKind(attention="sliding", window=64), "far": LayerKind(kv="borrowed")}}
            | {"layer_pattern": ("near", "far")},
            "layer_kinds.far.kv",
            "no layer before these has keys and values of its own that sees all tokens",
        ),
        (
            {"layer_kinds": {"own": LayerKind(), "late": LayerKind(kv="borrowed")}, "layer_pattern": ("late", "own")},
            "layer_kinds.late.kv",
            "no layer before these",
        ),
        ({"gate_by_head": True}, "gate_by_head", "the model has no gate"),
    ],
)
def test_what_nobody_has_cannot_be_borrowed(changes: dict[str, Any], key: str, words: str) -> None:
    """Nor can a gate that is not there have a number for each head."""
    with pytest.raises(InputError, match=words) as refusal:
        replace(LLAMA, **changes)
    assert refusal.value.key == key


def test_a_gate_by_head_has_a_number_for_each() -> None:
    """h*a parameters in place of h*q, and a pass over what heads give in place of two numbers for one."""
    whole, by_head = every(attention_gate=True), every(attention_gate=True, gate_by_head=True)
    plain = parameter_count(LLAMA).total
    assert parameter_count(whole).total - plain == 32 * 4096 * 4096
    assert parameter_count(by_head).total - plain == 32 * 4096 * 32
    moved = [
        next(op.moved_bytes for op in layer_of(model).forward if op.name.endswith(".gate") and isinstance(op, MemoryBound))
        for model in (whole, by_head)
    ]
    assert moved[1] == moved[0] * 2 / 3


def test_norms_of_values_learn_nothing() -> None:
    """As many parameters as norms of queries and keys by head; a kernel more, over v numbers of a token."""
    head, values = every(qk_norm="head"), every(qk_norm="head_and_values")
    assert parameter_count(head).total == parameter_count(values).total
    one, other = (next(op for op in layer_of(model).forward if op.name.endswith("qk_norm")) for model in (head, values))
    assert isinstance(one, MemoryBound)
    assert isinstance(other, MemoryBound)
    assert other.kernels == 3
    assert one.kernels == 2
    assert other.moved_bytes / one.moved_bytes == (32 + 2 * 8) / (32 + 8)


def test_norms_of_experts_are_four_of_the_stream() -> None:
    """One of them is the router's, which has a scale for each expert too (Gemma 4); in training and in a server."""
    mixtral = model_preset("mixtral-8x7b")
    assert mixtral.mixture is not None
    normed = replace(mixtral, mixture=replace(mixtral.mixture, own_norms=True))
    assert parameter_count(normed).total - parameter_count(mixtral).total == 32 * (4 * 4096 + 8)
    plain, more = (layer_of(model) for model in (mixtral, normed))
    norms = [op for op in more.forward if "own_norm" in op.name and isinstance(op, MemoryBound)]
    assert len(norms) == 4
    assert len(more.forward) == len(plain.forward) + 4
    rows = ForwardPass(sequences=4.0, context=100.0)
    (served_norm,) = (op for op in forward_operators(served(normed), rows) if op.name == "layer.mlp.own_norms")
    assert isinstance(served_norm, MemoryBound)
    assert served_norm.moved_bytes == 2 * 2 * 4 * 4 * 4096


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
