"""How long a forward pass takes: bound by weights, by the cache, by messages, by the host."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from perfmodel.count.operators import CachedAttention, Collective, FusedAttention, Matmul, MemoryBound
from perfmodel.count.roles import Role
from perfmodel.count.serving.forward_pass import ForwardPass, ServedProduct, forward_operators
from perfmodel.exchange.questions.serving.served_models import engine_preset, serving_profile, serving_setup
from perfmodel.spec.evidence.spread import with_numbers
from perfmodel.spec.serving.setup import ServingSetup
from perfmodel.timing.serving.forward_pass import (
    PARTS,
    PassTime,
    cached_attention_time_s,
    message_time_s,
    mixed,
    operator_time_s,
    pass_time,
    pass_times,
    prompt_attention_time_s,
    small_kernel_time_s,
    streamed,
)
from perfmodel.timing.serving.products import product_time_s


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


@pytest.mark.parametrize("model", ["llama-3.1-8b", "deepseek-v3", "deepseek-v3.2", "nemotron-3-nano", "qwen3-next-80b-a3b"])
def test_passes_that_are_timed_together_take_what_each_takes_alone(model: str) -> None:
    """To the bit, in every part, whatever they have in common."""
    setup, running = serving_setup(model, gpu="h200-sxm-141gb", tensor_parallel=8), np.array([1.0, 8.0, 300.0])
    decode, prompt = ForwardPass(sequences=running, context=900), ForwardPass(prompts=1.0, prompt_tokens=900)
    passes = [decode, prompt, ForwardPass(prompts=running, prompt_tokens=900), replace(decode, prompts=1.5, prompt_tokens=900)]
    passes += [
        replace(prompt, prompt_tokens=4000),
        replace(decode, context=2000),
        replace(decode, prompts=running, prompt_tokens=900),
    ]
    for tokens, together in zip(passes, pass_times(setup, passes), strict=True):
        alone = pass_time(setup, tokens)
        for part in fields(PassTime):
            assert np.all(getattr(together, part.name) == getattr(alone, part.name)), part.name


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


def test_short_prompts_wait_for_launches() -> None:
    """H * (operators * operator_s + kernels * launch_s) bounds what launches, messages too; decoding is a graph."""
    engine = engine_preset("sglang")
    host = {"operator_s": 1e-3, "launch_s": 0.0, "step_s": 0.0, "sequence_s": 0.0}
    slow = with_numbers(engine, {"host": with_numbers(engine.host, host)})
    tokens = ForwardPass(prompts=1, prompt_tokens=10)
    for gpu, scale in (("h100-sxm-80gb", 1.0), ("a100-sxm-80gb", 1.35)):
        setup = serving_setup("llama-3.1-8b", gpu=gpu, engine=slow, tensor_parallel=2)
        called = sum(float(each.repeats) for each in forward_operators(setup, tokens))
        assert pass_time(setup, tokens).total_s == pytest.approx(scale * called * 1e-3)
        assert pass_time(setup, ForwardPass(sequences=1, context=10)).total_s < 0.05


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


def test_the_host_has_a_step_and_more_for_sequences_and_groups() -> None:
    """step_s + sequence_s*B + group_s where a step goes to several GPUs."""
    host = {"step_s": 1e-3, "sequence_s": 1e-5, "group_s": 2e-3, "launch_s": 0.0}
    engine = with_numbers(engine_preset("vllm"), {"host": with_numbers(engine_preset("vllm").host, host)})
    alone = serving_setup("llama-3.1-8b", gpu="h100-sxm-80gb", engine=engine)
    tokens = ForwardPass(sequences=30, context=100)
    assert pass_time(alone, tokens).host_s == pytest.approx(1e-3 + 30 * 1e-5)
    assert pass_time(llama(engine=engine), tokens).host_s == pytest.approx(1e-3 + 30 * 1e-5 + 2e-3)
    assert pass_time(alone, tokens, host=False).host_s == 0


def test_the_gpu_waits_for_launches_that_no_graph_has() -> None:
    """max(kernels*launch_s - device, 0) beside the step: of prompts of many tokens, of decode passes without graphs."""
    plain = engine_preset("vllm").host
    host = {"launch_s": 1e-3, "operator_s": 0.0, "step_s": 0.0, "sequence_s": 0.0, "graph_tokens": 8}
    slow, eager = (host | {"graphs": graphs} for graphs in (True, False))
    decode, prompt = ForwardPass(sequences=1, context=9), ForwardPass(prompts=1, prompt_tokens=9)

    def found(host: dict[str, Any], tokens: ForwardPass) -> tuple[float, float]:
        engine = with_numbers(engine_preset("vllm"), {"host": with_numbers(plain, host)})
        setup = serving_setup("llama-3.1-8b", gpu="h100-sxm-80gb", engine=engine)
        kernels = sum(each.repeats * getattr(each, "kernels", 1) for each in forward_operators(setup, tokens))
        return float(pass_time(setup, tokens).total_s), 1e-3 * float(kernels)

    assert found(slow, decode)[0] < 0.02
    assert found(slow, replace(prompt, prompt_tokens=8))[0] < 0.02
    for launching, tokens in ((slow, prompt), (eager, decode)):
        seconds, launches_s = found(launching, tokens)
        assert seconds == pytest.approx(launches_s)
    assert launches_s == pytest.approx(1e-3 * (1 + 32 * (1 + 4 + 1 + 1 + 1 + 1) + 1 + 1 + 3))  # norm, products, core, ..


def test_attention_over_a_cache_reads_it_or_computes() -> None:
    """a + max(bytes/(e*M), flop/(e_f*P)); of no sequence nothing at all."""
    setup = serving_setup("deepseek-v3", gpu="h200-sxm-141gb", precision="fp8", tensor_parallel=8)
    gpu, known = setup.cluster.gpu, setup.profile.attention_over("16bit")
    core = CachedAttention(
        name="core",
        repeats=1,
        sequences=8,
        context=1000,
        window=None,
        heads=16,
        head_size=576,
        value_size=512,
        cache_bytes=1152,
        law="16bit",
    )
    read_s = 8 * 1000 * 1152 / (known.efficiency * gpu.memory_bandwidth_bytes_per_s)
    rate = gpu.peak("bf16") * gpu.attention("bf16", backward=False).efficiency
    assert cached_attention_time_s(core, setup) == pytest.approx(known.fixed_s + read_s)
    many = replace(core, heads=16000)
    assert cached_attention_time_s(many, setup) == pytest.approx(known.fixed_s + 2 * 8 * 16000 * 1000 * 1088 / rate)
    assert cached_attention_time_s(replace(core, sequences=0), setup) == 0


def test_few_rows_are_bound_by_reading_and_many_by_computing() -> None:
    """One row takes a + (L^q + (c*k)^q)^(1/q), L = bytes/(e*M); very many their FLOPs at `computing` times the GPU's rate."""
    setup = serving_setup("llama-3.1-8b", gpu="h100-sxm-80gb", precision="fp8")
    gpu, small = setup.cluster.gpu, setup.profile.small_product("fp8", "vllm")

    def product(rows: float) -> ServedProduct:
        every = forward_operators(setup, ForwardPass(sequences=rows, context=1))
        return next(each for each in every if isinstance(each, ServedProduct) and each.name == "layer.mlp.fc1")

    one_s, is_computed = product_time_s(product(1), setup)
    read_s = product(1).read_bytes / (small.efficiency * gpu.memory_bandwidth_bytes_per_s)
    assert not is_computed
    power = small.inner_power
    reading_s = (read_s**power + (small.inner_s * product(1).inner) ** power) ** (1 / power)
    assert one_s == pytest.approx(small.fixed_s + reading_s, rel=0.02)
    many_s, is_computed = product_time_s(product(2**17), setup)
    rate = product(2**17).flop / (many_s * gpu.peak("fp8") * setup.cluster.compute_scale)
    law = gpu.matmul("fp8")
    assert is_computed
    assert rate == pytest.approx(law.efficiency * small.computing / (1 + law.slowdown), rel=0.1)


def test_columns_of_few_weights_are_read_at_a_lower_rate() -> None:
    """A matrix whose columns have as many weights as cost as much to begin as to read takes twice as long; long ones do not."""
    setup = serving_setup("llama-3.1-8b", gpu="h100-sxm-80gb")
    known = with_numbers(setup.profile.small_products["bf16"], {"fixed_s": 0.0, "overlap_power": 50.0})
    inner = np.array([2048.0, 2048.0e3])
    product = ServedProduct(
        name="x", role=Role.PRODUCT, rows=1.0, columns=8192.0, inner=inner, precision="bf16", weight_bytes=2.0, law="bf16",
        beside=False,
    )  # fmt: skip

    def seconds(inner_half: float) -> np.ndarray:
        own = with_numbers(known, {"inner_half": inner_half})
        return np.asarray(
            product_time_s(product, replace(setup, profile=replace(setup.profile, small_products={"bf16": own})))[0]
        )

    assert seconds(2048.0) / seconds(0.0) == pytest.approx([2.0, 1.001], rel=1e-6)


def test_a_pass_is_the_sum_of_its_operators() -> None:
    """Each as often as there are layers: products to weights or computing, attention of prompts to computing."""
    setup, tokens = llama(), ForwardPass(sequences=4, context=500, prompts=1, prompt_tokens=300)
    found, every = pass_time(setup, tokens), forward_operators(setup, tokens)
    products = [(each.repeats, *product_time_s(each, setup)) for each in every if isinstance(each, ServedProduct)]
    prompts = sum(each.repeats * prompt_attention_time_s(each, setup) for each in every if isinstance(each, FusedAttention))
    read = sum(repeats * seconds for repeats, seconds, computed in products if not computed)
    computed = sum(repeats * seconds for repeats, seconds, computed in products if computed)
    assert (found.weights_s, found.compute_s) == pytest.approx((read, computed + prompts))
    cached = [each for each in every if isinstance(each, CachedAttention)]
    assert found.cache_s == pytest.approx(sum(each.repeats * cached_attention_time_s(each, setup) for each in cached))
    kernels = [each for each in every if isinstance(each, MemoryBound)]
    assert found.kernels_s == pytest.approx(sum(each.repeats * small_kernel_time_s(each, setup) for each in kernels))
    calls = [each for each in every if isinstance(each, Collective)]
    assert found.messages_s == pytest.approx(sum(each.repeats * message_time_s(each, setup) for each in calls))


def test_mixed_passes_are_their_sum_part_by_part() -> None:
    """2 of one and half of another."""
    one, other = PassTime(weights_s=1.0, host_s=3.0), PassTime(weights_s=4.0, cache_s=2.0)
    assert mixed(((2, one), (0.5, other))) == PassTime(
        weights_s=4.0, cache_s=1.0, host_s=6.0, compute_s=0.0, kernels_s=0.0, messages_s=0.0
    )


def test_a_pass_of_nothing_takes_no_time() -> None:
    """Nor does the sum of no passes."""
    assert mixed(()) == PassTime()
    assert PassTime().total_s == 0.0


def test_scans_take_what_engine_and_gpu_make_of_such_kernels() -> None:
    """Twice as long where a GPU's profile says twice as much, and products with weights as before."""
    setup = serving_setup("nemotron-3-nano", gpu="h100-sxm-80gb")
    gpu, scan = setup.cluster.gpu, setup.cluster.gpu.kernels.scan
    assert scan is not None
    slower = replace(gpu, kernels=replace(gpu.kernels, scan=replace(scan, work=2 * scan.work)))
    other = replace(setup, cluster=replace(setup.cluster, gpu=slower))
    passed = ForwardPass(prompts=1.0, prompt_tokens=4096)
    for each in forward_operators(setup, passed):
        factor = 2.0 if isinstance(each, Matmul) and each.role is Role.SCAN else 1.0
        assert operator_time_s(each, other) == pytest.approx(factor * operator_time_s(each, setup))


def test_rows_in_any_format_of_fewer_bits_are_cast_where_engines_do_so_apart() -> None:
    """By a kernel before each product; those in 16 bits need none."""
    for precision, casts in (("bf16", 0.0), ("fp8", 1.0), ("nvfp4", 1.0)):
        setup = serving_setup("llama-3.1-8b", gpu="b200", precision=precision)
        product = next(
            each
            for each in forward_operators(setup, ForwardPass(sequences=1, context=1))
            if isinstance(each, ServedProduct) and each.role is Role.PRODUCT and each.name.endswith("fc1")
        )
        slow = replace(setup, engine=replace(setup.engine, cast_s=setup.engine.cast_s + 1e-3))
        assert operator_time_s(product, slow) - operator_time_s(product, setup) == pytest.approx(casts * 1e-3)


def test_the_host_spends_as_long_between_any_two_operators_of_a_pass() -> None:
    """between_s of each of them, as often as it runs: what a machine without graphs measures of itself."""
    tokens = ForwardPass(sequences=8, context=1000)
    setup, between_s = llama(), 3e-5
    slow = replace(setup, profile=replace(setup.profile, between_s=setup.profile.between_s + between_s))
    runs = sum(float(each.repeats) for each in forward_operators(setup, tokens))
    longer_s = float(pass_time(slow, tokens).host_s - pass_time(setup, tokens).host_s)
    assert longer_s == pytest.approx(between_s * runs)


def test_what_the_cpu_does_for_sequences_shows_where_the_gpu_is_faster() -> None:
    """Behind the GPU's work nothing of it, and of a longer one the rest; of replicas each has its own sequences."""
    engine = engine_preset("vllm")

    def host_s(hidden_s: float, **settings: Any) -> float:
        slower = with_numbers(engine, {"host": with_numbers(engine.host, {"hidden_s": hidden_s})})
        setup = serving_setup("qwen3-30b-a3b", gpu="h200-sxm-141gb", engine=slower, **settings)
        return float(pass_time(setup, ForwardPass(sequences=512, context=1000)).host_s)

    def rest_s(**settings: Any) -> float:
        setup = serving_setup("qwen3-30b-a3b", gpu="h200-sxm-141gb", engine=engine, **settings)
        found = pass_time(setup, ForwardPass(sequences=512, context=1000))
        return float(found.total_s - found.host_s)

    spread = {"tensor_parallel": 4, "attention_replicas": 4, "expert_parallel": 4}
    assert host_s(1e-6) == host_s(0.0)
    assert host_s(1e-3) - host_s(0.0) == pytest.approx(512e-3 - rest_s())
    assert host_s(1e-3, **spread) - host_s(0.0, **spread) == pytest.approx(128e-3 - rest_s(**spread))


def test_early_launches_hide_the_start_of_every_kernel_of_a_graph() -> None:
    """Of a decode pass each kernel but messages takes small_kernel_s less; a pass with prompts has no graph."""
    late = llama()
    early = replace(late, engine=replace(late.engine, early_launches=True))
    decode = ForwardPass(sequences=8, context=1000)
    kernels = sum(
        float(each.repeats * getattr(each, "kernels", 1))
        for each in forward_operators(late, decode)
        if not isinstance(each, Collective)
    )
    saved_s = [float(pass_time(one, decode).total_s) for one in (late, early)]
    assert saved_s[0] - saved_s[1] == pytest.approx(kernels * float(late.profile.small_kernel_s))
    prompt = ForwardPass(prompts=1, prompt_tokens=100)
    assert float(pass_time(early, prompt).total_s) == float(pass_time(late, prompt).total_s)
