"""How long a forward pass takes: bound by weights, by the cache, by messages, by the host."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from perfmodel.count.forward_pass import ForwardPass, forward_operators
from perfmodel.count.operators import Collective, MemoryBound
from perfmodel.exchange.questions.served_models import engine_preset, serving_profile, serving_setup
from perfmodel.spec.evidence.spread import with_numbers
from perfmodel.spec.serving import ServingSetup
from perfmodel.timing.forward_pass import PARTS, message_time_s, pass_time, small_kernel_time_s, streamed


def llama(**settings: Any) -> ServingSetup:
    """Llama-3.1-70B in fp8 on four H100."""
    return serving_setup("llama-3.1-70b", gpu="h100-sxm-80gb", precision="fp8", tensor_parallel=4, **settings)


def test_one_sequence_is_bound_by_reading_weights() -> None:
    """Weights take no less than their bytes at the memory rate, and at most twice that in bf16 on one GPU."""
    setup = serving_setup("llama-3.1-8b", gpu="h100-sxm-80gb")
    least_s = 2 * (8.03e9 - 128256 * 4096) / 3.35e12
    assert least_s < pass_time(setup, ForwardPass(sequences=1, context=1)).weights_s < 1.3 * least_s


def test_parts_add_up() -> None:
    """The parts of a pass are all of it."""
    found = pass_time(llama(), ForwardPass(sequences=8, context=1000, prompts=1, prompt_tokens=500))
    assert sum(found.parts().values()) == pytest.approx(found.total_s)
    assert set(found.parts()) == set(PARTS)


@pytest.mark.parametrize("name", ["sequences", "context"])
def test_more_of_anything_takes_longer(name: str) -> None:
    """Time grows with sequences and with context."""
    sizes = {"sequences": 8.0, "context": 1000.0} | {name: np.array([1.0, 10.0, 100.0, 1000.0])}
    seconds = pass_time(llama(), ForwardPass(**sizes)).total_s
    assert np.all(np.diff(seconds) > 0)


def test_attention_over_a_large_cache_streams_it() -> None:
    """t = a + bytes / (e*M) of each layer: the slope in context is that of its bytes."""
    setup = serving_setup("llama-3.1-8b", gpu="h100-sxm-80gb")
    near, far = (pass_time(setup, ForwardPass(sequences=64, context=n)).cache_s for n in (10_000, 20_000))
    rate = 3.35e12 * serving_profile("h100-sxm-80gb").cached_attention["16bit"].efficiency
    assert far - near == pytest.approx(64 * 10_000 * 131072 / rate)


def test_a_long_prompt_is_bound_by_arithmetic() -> None:
    """8,192 tokens on one H100 in bf16 reach 50 to 80 % of the dense peak."""
    setup = serving_setup("llama-3.1-8b", gpu="h100-sxm-80gb")
    found = pass_time(setup, ForwardPass(prompts=1, prompt_tokens=8192))
    flop = 2 * 7.5e9 * 8192 + 2 * 32 * 4096 * 8192**2
    assert 0.5 < flop / found.total_s / 989.4e12 < 0.8
    assert found.compute_s > 0.8 * found.total_s


def test_small_messages_take_the_engines_own_all_reduce() -> None:
    """16 sequences of 8,192 numbers on 4 GPUs: 4.7 us + 256 KiB / 126 GB/s; without it, NCCL's time, which is longer."""
    setup = llama()
    call = next(each for each in forward_operators(setup, ForwardPass(sequences=16, context=1)) if isinstance(each, Collective))
    own = message_time_s(call, setup)
    assert own == pytest.approx(4.7e-6 + 2**18 / 126e9)
    nccl = with_numbers(engine_preset("vllm"), {"custom_all_reduce": False})
    assert message_time_s(call, llama(engine=nccl)) > own


def test_without_graphs_the_cpu_bounds_a_small_pass() -> None:
    """Eager decode of a 7B on A100 takes about 24 ms (QwenLM/Qwen README, 41 tokens/s), though weights take 8."""
    eager = serving_setup("mistral-7b-v0.1", gpu="a100-sxm-80gb", engine="transformers")
    found = pass_time(eager, ForwardPass(sequences=1, context=1000))
    assert found.total_s == pytest.approx(24e-3, rel=0.3)
    assert found.host_s > 0.4 * found.total_s


def test_every_small_kernel_starts_once() -> None:
    """kernels * a + bytes / (e*M): three kernels start three times as often as one and move the same."""
    setup = llama()
    one, three = (MemoryBound(name="norm", moved_bytes=1e6, kernels=number) for number in (1, 3))
    starts = small_kernel_time_s(three, setup) - small_kernel_time_s(one, setup)
    assert starts == pytest.approx(2 * setup.profile.small_kernel_s)
    rate = 3.35e12 * setup.cluster.gpu.kernels.memory_bound["elementwise"].efficiency
    assert small_kernel_time_s(one, setup) == pytest.approx(setup.profile.small_kernel_s + 1e6 / rate)


def test_streaming_bounds_many_fast_passes() -> None:
    """No pass follows another faster than the process beside it hands tokens on; what it does not bound stays."""
    found = pass_time(llama(), ForwardPass(sequences=8, context=1000))
    assert streamed(found, 1.0).total_s == pytest.approx(1.0)
    assert streamed(found, 1e-6).total_s == found.total_s


def test_a_kernel_that_casts_rows_is_added_to_products_of_8_bits_alone() -> None:
    """TensorRT-LLM of 2024 starts one before each of them; wide products and the head have none."""
    times = {}
    for precision in ("fp8", "bf16"):
        old = serving_setup("llama-3.1-8b", gpu="h100-sxm-80gb", engine="trtllm-2024", precision=precision)
        without = replace(old, engine=with_numbers(old.engine, {"cast_s": 0.0}))
        few = ForwardPass(sequences=4, context=100)
        times[precision] = float(pass_time(old, few).total_s - pass_time(without, few).total_s) / float(old.engine.cast_s)
    assert times == {"fp8": pytest.approx(4 * 32), "bf16": 0.0}


def test_products_of_experts_are_told_apart() -> None:
    """Part of what is bound by weights or by compute; none in a dense model."""
    for model, has_experts in (("qwen3-30b-a3b", True), ("llama-3.1-8b", False)):
        taken = pass_time(serving_setup(model, gpu="h100-sxm-80gb"), ForwardPass(sequences=16, context=1000))
        assert (0 < float(taken.expert_weights_s) < float(taken.weights_s)) is has_experts
        assert float(taken.expert_compute_s) <= float(taken.compute_s)
