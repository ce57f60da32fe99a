"""Laws of served kernels at sizes by hand: weights in few bits, several matrices, small chains, messages, their evidence."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from scipy.optimize import brentq

from perfmodel.count.operators import CachedAttention, Collective, FusedAttention, Matmul, MemoryBound
from perfmodel.count.roles import EXPERT_PRODUCTS, Role
from perfmodel.count.serving.forward_pass import ForwardPass, ServedProduct, forward_operators
from perfmodel.errors import InputError
from perfmodel.exchange.questions.serving.served_models import serving_setup
from perfmodel.spec.evidence.spread import with_numbers
from perfmodel.spec.layout import ProcessGroup
from perfmodel.spec.machines.coefficients import Evidence
from perfmodel.spec.serving.profile import SmallAllReduce, StreamedKernel
from perfmodel.spec.serving.setup import ServingSetup
from perfmodel.timing.collectives import collective_time_s
from perfmodel.timing.kernels import matmul_time_s
from perfmodel.timing.serving.forward_pass import (
    cached_attention_time_s,
    message_time_s,
    pass_time,
    scan_time_s,
    small_all_reduce,
    small_kernel_time_s,
)
from perfmodel.timing.serving.products import product_time_s
from perfmodel.timing.serving.served_operators import served_confidence

ONE = ForwardPass(sequences=1, context=1)


def fc1(setup: ServingSetup, tokens: ForwardPass = ONE) -> ServedProduct:
    """The first product of an MLP."""
    every = forward_operators(setup, tokens)
    return next(each for each in every if isinstance(each, ServedProduct) and each.name.endswith("mlp.fc1"))


def with_small(setup: ServingSetup, law: str, **numbers: Any) -> ServingSetup:
    """The setup with other numbers of products with few rows."""
    table = dict(setup.profile.small_products)
    name = setup.profile.product_law(law, setup.engine.family)
    table[name] = with_numbers(table[name], numbers)
    return replace(setup, profile=replace(setup.profile, small_products=MappingProxyType(table)))


@pytest.mark.parametrize(("precision", "width"), [("bf16", 2.0), ("int4", 0.5 + 2.5 / 128)])
def test_a_product_of_one_row_takes_what_its_weights_take_to_read(precision: str, width: float) -> None:
    """In as few bits as they are held, at the efficiency of their law and beside a start; in 16 bits with operands too."""
    setup = serving_setup("llama-3.1-8b", gpu="h100-sxm-80gb", precision=precision)
    product = fc1(setup)
    sharp = with_small(
        setup, product.law, fixed_s=1e-3, efficiency=0.5, computing=1.2, each_s=0.0, inner_s=0.0, overlap_power=50.0
    )
    read = width * 4096 * 2 * 14336 + 2 * (4096 + 2 * 14336)
    seconds, is_computed = product_time_s(product, sharp)
    assert not is_computed
    assert float(seconds) == pytest.approx(
        1e-3 + read / (0.5 * float(setup.cluster.gpu.memory_bandwidth_bytes_per_s)), rel=1e-6
    )


@pytest.mark.parametrize("rows", [1, 7, 16, 63])
def test_fewer_rows_than_a_tile_has_are_not_padded_to_it(rows: int) -> None:
    """Where the memory is no bound a row takes one of 64, of the smallest tile; of 65 rows whole tiles are computed."""
    setup = serving_setup("llama-3.1-8b", gpu="a100-sxm-80gb", precision="int4")
    endless = with_numbers(setup.cluster.gpu, {"memory_bandwidth_bytes_per_s": 1e30})
    setup = replace(setup, cluster=replace(setup.cluster, gpu=endless))
    setup = with_small(setup, "int4", fixed_s=0.0, each_s=0.0, inner_s=0.0)
    few, tile, more = (
        float(product_time_s(replace(fc1(setup), rows=number), setup)[0]) for number in (float(rows), 64.0, 65.0)
    )
    assert few == pytest.approx(tile * rows / 64, rel=1e-4)
    assert more > 1.4 * tile


def test_several_matrices_are_started_one_by_one_where_a_library_has_them_so() -> None:
    """each_s for each of them."""
    setup = serving_setup("llama-3.1-8b", gpu="h100-sxm-80gb")
    slow = with_small(setup, "bf16", each_s=setup.profile.small_product("bf16", "vllm").each_s + 1e-3)
    product = replace(fc1(setup), batch=7.0)
    assert float(product_time_s(product, slow)[0] - product_time_s(product, setup)[0]) == pytest.approx(7e-3)


@pytest.mark.parametrize("prompts", [1.0, 4.0])
def test_chunks_of_a_delta_rule_wait_for_each_other(prompts: float) -> None:
    """4,096 tokens in chunks of 64: 64 steps, however many prompts stand beside each other; mamba's scans have none."""
    tokens = ForwardPass(prompts=prompts, prompt_tokens=4096.0)
    setup = serving_setup("qwen3-next-80b-a3b", gpu="h100-sxm-80gb")
    engine = with_numbers(setup.engine, {"scan_step_s": setup.engine.scan_step_s + 1e-3})
    operators = [each for each in forward_operators(setup, tokens) if isinstance(each, MemoryBound)]
    waited_s = [
        small_kernel_time_s(each, replace(setup, engine=engine)) - small_kernel_time_s(each, setup) for each in operators
    ]
    assert sum(waited_s) == pytest.approx(64e-3)
    some = forward_operators(setup, replace(tokens, prompts=np.array([0.0, prompts])))
    (chained,) = (each.chained for each in some if isinstance(each, MemoryBound) and np.any(each.chained))
    assert np.asarray(chained).tolist() == [0, 64]
    nano = serving_setup("nemotron-3-nano", gpu="h100-sxm-80gb")
    assert not any(each.chained for each in forward_operators(nano, tokens) if isinstance(each, MemoryBound))


def test_every_choice_of_an_expert_takes_its_time_wherever_the_expert_lies() -> None:
    """choice_s for 64 tokens of 8 choices each, on one GPU and on each of 8; none of products of no experts."""
    for spread in (1, 8):
        setup = serving_setup("qwen3-30b-a3b", gpu="h100-sxm-80gb", tensor_parallel=spread, expert_parallel=spread)
        operators = forward_operators(setup, ForwardPass(sequences=64.0, context=1))
        first = next(each for each in operators if isinstance(each, ServedProduct) and each.role is Role.EXPERT)
        name = setup.profile.expert_law(first.law, "vllm")
        table = dict(setup.profile.expert_products)
        table[name] = replace(table[name], choice_s=table[name].choice_s + 1e-6)
        slow = replace(setup, profile=replace(setup.profile, expert_products=MappingProxyType(table)))
        assert float(product_time_s(first, slow)[0] - product_time_s(first, setup)[0]) == pytest.approx(64 * 8e-6)
    dense = (each for each in operators if isinstance(each, ServedProduct) and each.role not in EXPERT_PRODUCTS)
    assert all(each.choices == 0 for each in dense)


@pytest.mark.parametrize(("share", "is_computed"), [(1.05, True), (0.95, False)])
def test_computing_takes_the_time_of_a_product_where_it_is_longer_than_reading(share: float, is_computed: bool) -> None:
    """With the two as sides of a right angle, sqrt(C^2 + L^2), that is from L * sqrt(2) on."""
    setup = serving_setup("llama-3.1-8b", gpu="h100-sxm-80gb")
    product = fc1(setup, ForwardPass(sequences=4096.0, context=1))
    numbers = {"fixed_s": 0.0, "each_s": 0.0, "efficiency": 1.0, "inner_half": 0.0}
    read_s = product.read_bytes / setup.cluster.gpu.memory_bandwidth_bytes_per_s

    def found(computing: float, power: float) -> tuple[float, bool]:
        taken_s, computed = product_time_s(
            product, with_small(setup, "bf16", computing=computing, overlap_power=power, **numbers)
        )
        return float(taken_s), bool(computed)

    faster = brentq(
        lambda computing: found(computing, 50.0)[0] - 2.0 * read_s, 0.1, 100.0
    )  # C = 2 * L, beside which L is nothing
    seconds, computed = found(2.0 * faster / share, 2.0)
    assert seconds == pytest.approx(float(read_s) * (1.0 + share**2) ** 0.5, rel=0.02)
    assert computed is is_computed


def test_a_start_or_a_cast_is_no_computing() -> None:
    """However long they take: one row is bound by its weights, very many by arithmetic."""
    setup = serving_setup("llama-3.1-8b", gpu="h100-sxm-80gb", precision="fp8")
    slow = with_small(setup, "fp8", fixed_s=1.0)
    slow = replace(slow, engine=with_numbers(slow.engine, {"cast_s": 1.0}))
    few_s, is_computed = product_time_s(fc1(setup), slow)
    assert float(few_s) == pytest.approx(2.0, rel=1e-3)
    assert not is_computed
    assert product_time_s(fc1(setup, ForwardPass(sequences=2.0**15, context=1)), slow)[1]


CORE = CachedAttention(
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


def test_a_score_takes_its_own_time_where_nothing_hides_the_softmax() -> None:
    """score_s of 8 * 16 * 1000 scores; arithmetic as many times as fast as that of prompts as the profile says."""
    setup = serving_setup("deepseek-v3", gpu="h200-sxm-141gb", precision="fp8", tensor_parallel=8)
    known = setup.profile.cached_attention["16bit"]

    def seconds(core: CachedAttention, **numbers: float) -> float:
        table = {**setup.profile.cached_attention, "16bit": with_numbers(known, numbers)}
        other = replace(setup, profile=replace(setup.profile, cached_attention=MappingProxyType(table)))
        return float(cached_attention_time_s(core, other))

    assert seconds(CORE, score_s=1e-6) - seconds(CORE, score_s=0.0) == pytest.approx(8 * 16 * 1000 * 1e-6)
    many = replace(CORE, heads=160000)
    once, twice = (seconds(many, computing=each, fixed_s=0.0) for each in (1.0, 2.0))
    assert once == pytest.approx(2 * twice)
    assert seconds(replace(CORE, sequences=0.5), fixed_s=3.0) > 3.0


def test_a_scan_takes_as_long_as_its_product_times_engine_and_gpu() -> None:
    """Both factors."""
    setup = serving_setup("nemotron-3-nano", gpu="h100-sxm-80gb")
    operators = forward_operators(setup, ForwardPass(prompts=1.0, prompt_tokens=4096))
    scan = next(each for each in operators if isinstance(each, Matmul) and each.role is Role.SCAN)
    gpu = setup.cluster.gpu
    plain_s = matmul_time_s(scan, gpu=gpu, compute_scale=setup.cluster.compute_scale)
    engine = with_numbers(setup.engine, {"scan_work": 3.0})
    assert float(scan_time_s(scan, replace(setup, engine=engine))) == pytest.approx(float(plain_s) * 3 * gpu.kernels.scan_work)
    assert served_confidence(scan, setup) == "datasheet"


def test_a_chain_that_was_measured_has_a_law_of_its_own() -> None:
    """Its start once, and its bytes; others start every kernel, at the rate of elementwise ones."""
    setup = serving_setup("llama-3.1-8b", gpu="h100-sxm-80gb")
    rate = float(setup.cluster.gpu.memory_bandwidth_bytes_per_s)
    table = MappingProxyType({"rmsnorm": StreamedKernel(fixed_s=2.0, efficiency=0.5)})
    known = replace(setup, profile=replace(setup.profile, small_kernels=table, small_kernel_s=3.0))
    norm = MemoryBound(name="norm", kernel="rmsnorm", moved_bytes=rate, kernels=4)
    assert float(small_kernel_time_s(norm, known)) == pytest.approx(2.0 + 1 / 0.5)
    other = replace(norm, kernel="swiglu")
    efficiency = float(setup.cluster.gpu.kernels.memory_bound["elementwise"].efficiency)
    assert float(small_kernel_time_s(other, known)) == pytest.approx(4 * 3.0 + 1 / efficiency)


def reduction(payload: float, kind: str = "all_reduce") -> Collective:
    """Of four neighbours."""
    return Collective(name="call", kind=kind, payload_bytes=payload, group=ProcessGroup(name="tensor", ranks=4, stride=1))


def test_small_messages_take_the_engines_own_reduction_as_long_as_that_is_faster() -> None:
    """latency + payload / bandwidth; NCCL's time of large ones, of gathers, and of engines without one."""
    setup = serving_setup("llama-3.1-70b", gpu="h100-sxm-80gb", tensor_parallel=4)
    table = MappingProxyType({"4": SmallAllReduce(latency_s=1e-6, bandwidth_bytes_per_s=1e10)})
    own = replace(setup, profile=replace(setup.profile, all_reduce=table), engine=replace(setup.engine, custom_all_reduce=True))
    assert float(message_time_s(reduction(1e4), own)) == pytest.approx(1e-6 + 1e4 / 1e10)
    large = reduction(1e9)
    assert float(message_time_s(large, own)) == float(collective_time_s(large, cluster=own.cluster)) < 1e9 / 1e10
    assert small_all_reduce(own, reduction(1e4, "all_gather")) is None
    assert small_all_reduce(replace(own, engine=replace(own.engine, custom_all_reduce=False)), reduction(1e4)) is None


def test_messages_are_as_sure_as_the_law_that_times_them() -> None:
    """The engine's own where that is faster, else that of the links."""
    setup = serving_setup("llama-3.1-70b", gpu="h100-sxm-80gb", tensor_parallel=4)
    guessed = SmallAllReduce(latency_s=1e-6, bandwidth_bytes_per_s=1e10, evidence=Evidence(basis="datasheet"))
    profile = replace(setup.profile, all_reduce=MappingProxyType({"4": guessed}))
    own = replace(setup, profile=profile, engine=replace(setup.engine, custom_all_reduce=True))
    assert served_confidence(reduction(1e4), own) == "datasheet"
    assert served_confidence(reduction(1e9), own) == served_confidence(reduction(1e9, "all_gather"), own) != "datasheet"


def test_chains_of_served_models_are_extrapolated_and_steps_of_states_guessed() -> None:
    """No engine's steps of states were measured."""
    setup = serving_setup("llama-3.1-8b", gpu="h100-sxm-80gb")
    norm = MemoryBound(name="norm", kernel="rmsnorm", moved_bytes=1e6)
    assert served_confidence(norm, setup) == "extrapolated"
    assert served_confidence(replace(norm, role=Role.SCAN), setup) == "datasheet"


def test_attention_of_prompts_is_as_sure_as_that_of_forward_passes() -> None:
    """Backward kernels are none of a server's."""
    setup = serving_setup("llama-3.1-8b", gpu="h100-sxm-80gb")
    kernels = setup.cluster.gpu.kernels
    forward = replace(kernels.attention_forward, evidence=Evidence(basis="measured"))
    backward = replace(kernels.attention_backward, evidence=Evidence(basis="datasheet"))
    gpu = replace(setup.cluster.gpu, kernels=replace(kernels, attention_forward=forward, attention_backward=backward))
    other = replace(setup, cluster=replace(setup.cluster, gpu=gpu))
    operators = forward_operators(other, ForwardPass(prompts=1, prompt_tokens=512))
    assert served_confidence(next(each for each in operators if isinstance(each, FusedAttention)), other) == "measured"


def experts_of(engine: str, precision: str) -> float:
    """Seconds of the first product of experts, of one server on H200."""
    setup = serving_setup("qwen3-235b-a22b", gpu="h200-sxm-141gb", engine=engine, precision=precision, tensor_parallel=8)
    return float(product_time_s(fc1(setup), setup)[0])


def test_experts_take_as_long_as_the_kernels_of_their_engine() -> None:
    """Each engine has a fused kernel of its own; one that no table has takes the numbers of any."""
    setup = serving_setup("qwen3-235b-a22b", gpu="h200-sxm-141gb", engine="sglang", precision="fp8_block", tensor_parallel=8)
    profile = setup.profile
    assert profile.expert_law("fp8_block", "sglang") == "sglang-fp8_block"
    assert profile.expert_law("fp8_block", "nobody") == "fp8_block"
    assert profile.expert_law("fp8", "trtllm-2024") == "trtllm-fp8"  # an older engine of the family
    assert profile.expert_product("fp8_block", "sglang") is profile.expert_products["sglang-fp8_block"]
    own, without = setup, replace(setup, engine=replace(setup.engine, family="nobody"))
    assert float(product_time_s(fc1(own), own)[0]) != float(product_time_s(fc1(without), without)[0])
    assert len({experts_of(engine, "fp8_block") for engine in ("sglang", "vllm", "trtllm")}) == 3


def test_experts_of_a_library_that_is_asked_for_come_first() -> None:
    """Marlin's where a server asks for it, whatever the version of the engine; the engine's own where that has no table."""
    setup = serving_setup("gpt-oss-120b", gpu="h100-sxm-80gb", precision="mxfp4")
    profile = setup.profile
    for family in ("vllm", "vllm-2025"):
        assert profile.expert_law("mxfp4", family, "marlin") == "vllm-marlin-mxfp4"
    assert profile.expert_law("mxfp4", "vllm") == profile.expert_law("mxfp4", "vllm", "nobodys") == "vllm-mxfp4"
    marlin = replace(setup, engine=replace(setup.engine, expert_kernels="marlin"))
    first, other = (next(each for each in prompt_products(one) if each.role is Role.EXPERT) for one in (setup, marlin))
    assert float(product_time_s(other, marlin)[0]) > 1.5 * float(product_time_s(first, setup)[0])


def prompt_products(setup: ServingSetup) -> list[ServedProduct]:
    """Those of a prompt of 8,192 tokens."""
    tokens = ForwardPass(prompts=1, prompt_tokens=8192)
    return [each for each in forward_operators(setup, tokens) if isinstance(each, ServedProduct)]


def test_formats_whose_weights_are_read_alike_share_a_law_where_one_was_measured() -> None:
    """Weights in mxfp4 take the law of nvfp4 but where an engine's experts have their own."""
    profile = serving_setup("gpt-oss-120b", gpu="b200").profile
    assert profile.small_product("mxfp4", "nobody") is profile.small_product("nvfp4", "nobody")
    assert (profile.expert_law("mxfp4", "nobody"), profile.expert_law("mxfp4", "vllm")) == ("nvfp4", "vllm-mxfp4")


def test_an_engines_own_experts_are_of_a_law_that_is_known() -> None:
    """A family before the law is any, the law behind it is not."""
    profile = serving_setup("llama-3.1-8b", gpu="h100-sxm-80gb").profile
    known = profile.expert_products["sglang-bf16"]
    assert replace(profile, expert_products={"a-lab-bf16": known}).expert_law("bf16", "a-lab") == "a-lab-bf16"
    with pytest.raises(InputError, match="no law"):
        replace(profile, expert_products={"sglang-bf17": known})


def test_shared_experts_beside_the_routed_ones_hide_their_start() -> None:
    """In a decode pass by the start of each of their products in each of 58 layers; prompts have no graphs and hide nothing."""
    beside = serving_setup("deepseek-v3", gpu="h200-sxm-141gb", engine="sglang", precision="fp8_block", tensor_parallel=8)
    behind = replace(beside, engine=replace(beside.engine, shared_beside=False))
    decode, prompt = ForwardPass(sequences=4.0, context=100.0), ForwardPass(prompts=1.0, prompt_tokens=100.0)
    start_s = float(beside.profile.small_product("fp8_block", "sglang").fixed_s)
    longer_s = float(pass_time(behind, decode).total_s) - float(pass_time(beside, decode).total_s)
    assert longer_s == pytest.approx(58 * 2 * start_s)
    assert float(pass_time(behind, prompt).total_s) == float(pass_time(beside, prompt).total_s)


def test_steps_of_states_have_laws_of_their_own() -> None:
    """a + bytes / (e * M) of the table of the GPU, for the gated delta rule and for the convolution before it."""
    setup = serving_setup("qwen3-next-80b-a3b", gpu="h200-sxm-141gb", engine="sglang")
    every = forward_operators(setup, ForwardPass(sequences=8.0, context=10.0))
    steps = {each.kernel: each for each in every if isinstance(each, MemoryBound) and each.kernel.endswith("_step")}
    assert set(steps) == {"convolution_step", "delta_step"}
    for name, step in steps.items():
        law = setup.profile.small_kernels[name]
        rate = law.efficiency * setup.cluster.gpu.memory_bandwidth_bytes_per_s
        assert float(small_kernel_time_s(step, setup)) == pytest.approx(float(law.fixed_s + step.moved_bytes / rate))
