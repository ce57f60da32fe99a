"""Kimi's delta attention: the gated delta rule, whose channels forget at rates of their own, with gates of low rank."""

from __future__ import annotations

from dataclasses import replace

import pytest

from perfmodel.count.flops import layer_flop_per_token
from perfmodel.count.layer import layer_parts
from perfmodel.count.operators import Collective, Matmul, MemoryBound
from perfmodel.count.parameters import layer_parameters
from perfmodel.count.serving.forward_pass import ForwardPass, ServedProduct, forward_operators
from perfmodel.count.serving.mixers import state_bytes_per_sequence
from perfmodel.errors import InputError
from perfmodel.exchange.questions.serving.served_models import serving_setup
from perfmodel.spec.models.layer_parts import GatedDelta
from tests.count.test_mixers import ONE, T, inside, scans, with_mixer

SIZES = {"key_heads": 8, "value_heads": 8, "key_head_size": 16, "value_head_size": 24, "convolution": 4}
PLAIN = with_mixer("gated_delta", delta=GatedDelta(**SIZES))  # h 96, keys 128, values 192
KIMI = with_mixer("gated_delta", delta=GatedDelta(**SIZES, gate_rank=16))


def test_parameters_are_those_of_its_parts() -> None:
    """h*(2*K + V + H) + 2*h*r + r*(K + V) + V*h; k numbers a channel, K biases of rates and a rate a head; a norm of v."""
    held = layer_parameters(KIMI, "gated_delta", tensor_parallel=1)
    matrices = 96 * (2 * 128 + 192 + 8) + 2 * 96 * 16 + 16 * (128 + 192) + 192 * 96
    assert held.attention == matrices + (2 * 128 + 192) * 4 + 128 + 8
    assert held.norms == 24 + 2 * 96  # that of the stream has biases


def test_narrow_vectors_are_made_of_the_tokens_of_a_rank_and_gathered() -> None:
    """h*r on every rank, for the tokens of it; r*(K + V)/t behind, for all of them."""
    layout = replace(ONE, tensor_parallel=2, data_parallel=4, sequence_parallel=True)
    forward = inside(KIMI, layout).forward
    products = {op.name.rpartition(".")[2]: op for op in forward if isinstance(op, Matmul)}
    for what, columns in (("rate", 128), ("gate", 192)):
        down, up = products[f"{what}_down"], products[f"{what}_up"]
        assert (down.rows, down.inner, down.columns) == (T / 2, 96, 16)
        assert (up.rows, up.inner, up.columns) == (T, 16, columns / 2)
    (gather,) = (op for op in forward if isinstance(op, Collective) and op.name.endswith("narrow.gather"))
    assert gather.payload_bytes == 2 * T * 2 * 16
    assert not any("narrow" in op.name for op in inside(PLAIN, layout).forward)
    held = [layer_parameters(KIMI, "gated_delta", tensor_parallel=tensor) for tensor in (1, 2)]
    assert held[0].replicated == held[1].replicated == 2 * 96 * 16


def test_each_channel_forgets_at_a_rate_of_its_own() -> None:
    """2*2*H + (2 + 12)*K bytes a token, in place of 18*H; kept 2*H + 14*K in place of 16*H."""
    plain, kimi = (scans(inside(model).forward)["gates"] for model in (PLAIN, KIMI))
    assert isinstance(kimi, MemoryBound)
    assert (plain.moved_bytes, plain.saved_bytes) == (T * 18 * 8, T * 16 * 8)
    assert (kimi.moved_bytes, kimi.saved_bytes) == (T * (4 * 8 + 14 * 128), T * (2 * 8 + 14 * 128))


def test_the_rule_itself_is_the_gated_one() -> None:
    """Products of chunks, and what the convention counts beside linears, are the same."""
    plain, kimi = (scans(inside(model).forward, Matmul) for model in (PLAIN, KIMI))
    assert {name: (op.rows, op.columns, op.inner) for name, op in plain.items()} == {
        name: (op.rows, op.columns, op.inner) for name, op in kimi.items()
    }
    parts = [layer_parts(model, model.kinds["gated_delta"], 1) for model in (PLAIN, KIMI)]
    linear = [sum(part.model_flop_per_token for part in each) for each in parts]
    flop = [layer_flop_per_token(model, "gated_delta", 4096) for model in (PLAIN, KIMI)]
    assert flop[0] - linear[0] == flop[1] - linear[1]


def test_a_server_runs_its_gates_and_keeps_the_same_state() -> None:
    """A product for each of the four matrices more; one state of key times value numbers a head."""
    plain, kimi = (replace(serving_setup("qwen3-8b", gpu="h100-sxm-80gb"), model=model) for model in (PLAIN, KIMI))
    one, other = (state_bytes_per_sequence(setup, setup.model.kinds["gated_delta"]) for setup in (plain, kimi))
    assert one == other
    passes = [forward_operators(setup, ForwardPass(sequences=3.0, context=10.0)) for setup in (plain, kimi)]
    products = [{op.name.rpartition(".")[2] for op in each if isinstance(op, ServedProduct)} for each in passes]
    assert products[1] - products[0] == {"rate_down", "rate_up", "gate_down", "gate_up"}


def test_its_keys_have_as_many_heads_as_its_values() -> None:
    """A rate for each channel of a key belongs to one state."""
    with pytest.raises(InputError, match="4 are not the 8 heads of values"):
        GatedDelta(**(SIZES | {"key_heads": 4}), gate_rank=16)
