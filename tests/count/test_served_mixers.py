"""What mixers that keep a state run and keep in a served model, against closed forms and training's counts."""

from __future__ import annotations

import numpy as np
import pytest

from perfmodel.count.operators import CachedAttention, Matmul, MemoryBound
from perfmodel.count.roles import Role
from perfmodel.count.serving.forward_pass import ForwardPass, ServedProduct, forward_operators
from perfmodel.count.serving.memory import sequence_bytes
from perfmodel.count.serving.mixers import state_bytes_per_sequence
from perfmodel.errors import InputError
from perfmodel.exchange.questions.serving.served_models import serving_setup
from perfmodel.spec.evidence.spread import with_numbers
from perfmodel.timing.serving.forward_pass import pass_time

NANO = {"mamba": 23, "full": 6}  # layers of Nemotron 3 Nano


@pytest.mark.parametrize(
    ("model", "kind", "numbers", "kept"),
    [
        ("nemotron-3-nano", "mamba2", 64 * 64 * 128, 3 * (64 * 64 + 2 * 8 * 128)),
        ("qwen3-next-80b-a3b", "gated_delta", 32 * 128 * 128, 3 * (2 * 16 * 128 + 32 * 128)),
    ],
)
def test_a_sequence_keeps_a_state_and_the_last_tokens_of_the_convolution(
    model: str, kind: str, numbers: int, kept: int
) -> None:
    """H*P*N numbers, or heads * key * value, of 4 bytes, and k - 1 tokens of each channel in 16 bits; split over ranks."""
    for tensor in (1, 4):
        setup = serving_setup(model, gpu="h200-sxm-141gb", tensor_parallel=tensor)
        found = state_bytes_per_sequence(setup, setup.model.kinds[kind])
        assert found == pytest.approx((4 * numbers + 2 * kept) / tensor)


def test_memory_of_a_sequence_grows_with_attention_layers_alone() -> None:
    """Twice the tokens: twice the keys and values of 6 layers, the same states of 23."""
    setup = serving_setup("nemotron-3-nano", gpu="h100-sxm-80gb")
    one, two = (float(np.asarray(sequence_bytes(setup, tokens))) for tokens in (16_000, 32_000))
    assert two - one == NANO["full"] * 16_000 * 2 * 2 * 128 * 2
    assert one - (two - one) == NANO["mamba"] * 2134016


def test_a_decode_step_reads_and_writes_every_state_once() -> None:
    """2 * 4 bytes a number, whatever the context is, beside what comes in and goes out; 6 layers alone read a cache."""
    setup = serving_setup("nemotron-3-nano", gpu="h100-sxm-80gb")
    for context in (100, 100_000):
        operators = forward_operators(setup, ForwardPass(sequences=5, context=context))
        (state,) = [each for each in operators if each.name.endswith("mamba2.attention.state")]
        assert isinstance(state, MemoryBound)
        assert state.moved_bytes == 5 * (2 * 4 * 524288 + 2 * (6144 + 4096))
        assert state.repeats == NANO["mamba"]
        assert sum(float(each.repeats) for each in operators if isinstance(each, CachedAttention)) == NANO["full"]


@pytest.mark.parametrize("tokens", [{"sequences": 5}, {"prompts": 1, "prompt_tokens": 5}])
def test_heads_of_a_delta_rule_are_parted_from_gates(tokens: dict[str, float]) -> None:
    """Channels of queries, keys and values in 16 bits, read and written; mamba's stay together."""
    setup = serving_setup("qwen3-next-80b-a3b", gpu="h100-sxm-80gb", tensor_parallel=2)
    (split,) = [each for each in forward_operators(setup, ForwardPass(**tokens)) if each.name.endswith(".split")]
    assert isinstance(split, MemoryBound)
    assert split.moved_bytes == 2 * 2 * 5 * (2 * 16 * 128 + 32 * 128) / 2
    nano = serving_setup("nemotron-3-nano", gpu="h100-sxm-80gb")
    assert not any(each.name.endswith(".split") for each in forward_operators(nano, ForwardPass(**tokens)))


def test_a_prompt_is_scanned_as_in_training() -> None:
    """4 products a chunk of Mamba-2: T*(2*P*N*H + Q*N*G + Q*P*H) multiplications of a token, states and outputs alike."""
    setup = serving_setup("nemotron-3-nano", gpu="h100-sxm-80gb")
    operators = forward_operators(setup, ForwardPass(prompts=1, prompt_tokens=4096))
    scans = [each for each in operators if isinstance(each, Matmul) and each.role is Role.SCAN]
    heads, head, state, groups, chunk = 64, 64, 128, 8, 128
    token = 2 * head * state * heads + chunk * state * groups + chunk * head * heads
    assert sum(float(each.flop) for each in scans) == 2.0 * 4096 * token
    assert not any(isinstance(each, ServedProduct) or each.has_weight for each in scans)


def test_long_contexts_cost_a_hybrid_little() -> None:
    """From 4k to 64k of context a decode step of 8 sequences grows far less than where all layers have keys and values."""
    few, many = (ForwardPass(sequences=8.0, context=tokens) for tokens in (4_000.0, 64_000.0))
    grown = {}
    for model in ("nemotron-3-nano", "qwen3-30b-a3b"):
        setup = serving_setup(model, gpu="h200-sxm-141gb")
        grown[model] = float(pass_time(setup, many).total_s / pass_time(setup, few).total_s)
    assert 1.0 < grown["nemotron-3-nano"] < 1.5 < grown["qwen3-30b-a3b"]


def test_heads_of_mixers_are_split_whole() -> None:
    """6 key heads of a delta rule do not lie on 4 ranks."""
    model = serving_setup("qwen3-next-80b-a3b", gpu="gb200").model
    assert model.delta is not None
    odd = with_numbers(model, {"delta": with_numbers(model.delta, {"key_heads": 6, "value_heads": 6})})
    with pytest.raises(InputError, match="4 does not divide 6 key heads of the delta rule"):
        serving_setup(odd, gpu="gb200", tensor_parallel=4)


def between_projections(passed: ForwardPass, tensor: int = 1) -> dict[str, list[float]]:
    """The bytes that a Mamba-2 mixer of Nano moves between its projections, by operator."""
    setup = serving_setup("nemotron-3-nano", gpu="h100-sxm-80gb", tensor_parallel=tensor)
    found: dict[str, list[float]] = {}
    for each in forward_operators(setup, passed):
        if isinstance(each, MemoryBound) and ".mamba2.attention." in each.name and each.role is Role.SCAN:
            found.setdefault(each.name.rpartition(".")[2], []).append(float(each.moved_bytes))
    return found


@pytest.mark.parametrize("tensor", [1, 2])
def test_a_decode_step_moves_the_convolution_on(tensor: int) -> None:
    """Of 6144 channels three tokens are read and written, one comes in and one goes out; the norm of 4096 has three."""
    assert between_projections(ForwardPass(sequences=5, context=100), tensor) == {
        "convolution": [5 * 2 * (2 * 3 + 2) * 6144 / tensor],
        "state": [5 * (2 * 4 * 524288 + 2 * (6144 + 4096)) / tensor],
        "gated_norm": [5 * 3 * 2 * 4096 / tensor],
    }


def test_a_prompt_passes_states_from_chunk_to_chunk() -> None:
    """12 chunks of 128 tokens: a state of 4 bytes a number is read, one of 2 written; the convolution reads and writes each."""
    tokens = 3 * 512
    assert between_projections(ForwardPass(prompts=3, prompt_tokens=512)) == {
        "convolution": [2 * 2 * tokens * 6144],
        "state_passing": [(4 + 2) * 12 * 524288],
        "gated_norm": [3 * 2 * tokens * 4096],
    }


def test_a_pass_with_both_has_one_norm_for_all_rows() -> None:
    """Steps of sequences come before scans of prompts; a prompt that is shorter than a chunk is one."""
    found = between_projections(ForwardPass(sequences=5, context=9, prompts=2, prompt_tokens=64))
    assert found["gated_norm"] == [3 * 2 * (5 + 128) * 4096]
    assert found["convolution"] == [5 * 2 * 8 * 6144, 2 * 2 * 128 * 6144]
    assert found["state_passing"] == [6 * 2 * 524288]
