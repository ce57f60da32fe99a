"""What the CPU does around operators: which passes are graphs, and what torch.compile leaves to Python."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from perfmodel.count.operators import CachedAttention, Collective, FusedAttention, Matmul
from perfmodel.count.serving.forward_pass import ForwardPass, forward_operators
from perfmodel.exchange.questions.serving.served_models import engine_preset, serving_setup
from perfmodel.spec.evidence.spread import with_numbers
from perfmodel.spec.serving.setup import ServingSetup
from perfmodel.timing.serving.forward_pass import pass_time
from perfmodel.timing.serving.launches import is_eager, python_s

PROMPT = ForwardPass(prompts=1.0, prompt_tokens=1000.0)


def test_graphs_take_passes_up_to_their_tokens() -> None:
    """Tokens of sequences beside a prompt count; passes that decode are graphs whatever their number."""
    host = with_numbers(engine_preset("vllm").host, {"graph_tokens": 1000})
    one_more = replace(PROMPT, sequences=np.array([0.0, 1.0]))
    assert is_eager(host, one_more).tolist() == [False, True]
    assert not is_eager(host, ForwardPass(sequences=2000.0, context=10.0))
    assert is_eager(with_numbers(host, {"graphs": False}), PROMPT)


def calls(engine: str, model: str, kind: str, tokens: ForwardPass, *, precision: str = "fp8_block", **host: Any) -> float:
    """Calls of Python for one layer of a kind on eight H200, each of a second."""
    chosen = engine_preset(engine)
    own = with_numbers(chosen, {"host": with_numbers(chosen.host, {"operator_s": 1.0, "triton_s": 1.0} | host)})
    setup = serving_setup(model, gpu="h200-sxm-141gb", precision=precision, tensor_parallel=8, engine=own)
    of_layer = [each for each in forward_operators(setup, tokens) if each.name.startswith(kind)]
    return float(sum(python_s(each, setup.engine.host) for each in of_layer))


@pytest.mark.parametrize(
    ("model", "kind", "expected"),
    [
        ("llama-3.1-8b", "layer.", 1 + 2),  # attention, and two all-reduces
        ("qwen3-235b-a22b", "layer.", 6 + 2),  # the choice of experts, tokens to them, two products and what lies between
        ("deepseek-v3", "layer.experts.", 7 + 2),  # what latent attention makes of its narrow vectors
        ("deepseek-v3", "layer.dense.", 2 + 2),
    ],
)
def test_compiled_code_calls_attention_experts_and_messages(model: str, kind: str, expected: int) -> None:
    """Of a layer, whatever the format of its products."""
    assert calls("vllm", model, kind, PROMPT, precision="fp8") == expected
    assert calls("vllm", model, kind, PROMPT, precision="bf16") == expected


@pytest.mark.parametrize("part", ["embedding.", "head."])
def test_compiled_code_looks_up_and_samples(part: str) -> None:
    """What stands before and behind the layers is no custom operator but one message; modules call all the rest."""
    assert calls("vllm", "llama-3.1-8b", part, PROMPT) == 1
    assert calls("sglang", "llama-3.1-8b", part, PROMPT) > 0


def test_experts_launched_one_by_one_take_a_time_of_their_own() -> None:
    """Five operators of triton_s beside operator_s of attention and two messages."""
    assert calls("vllm", "qwen3-235b-a22b", "layer.", PROMPT, triton_s=10.0) == 53


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
def test_scans_are_kernels_of_triton(engine: str) -> None:
    """Their products, whatever torch.compile does; what lies around them is the engine's own."""
    setup = serving_setup("qwen3-next-80b-a3b", gpu="h200-sxm-141gb", engine=engine)
    scans = [each for each in forward_operators(setup, PROMPT) if isinstance(each, Matmul) and not hasattr(each, "law")]
    assert len({each.name for each in scans}) > 5
    assert {python_s(each, setup.engine.host) for each in scans} == {setup.engine.host.triton_s}


def test_a_replica_of_attention_has_graphs_for_its_own_tokens() -> None:
    """800 tokens on eight replicas are 100 on each, within the 512 of vLLM's graphs; twice as long ones of one are beyond."""
    settings: dict[str, Any] = {"tensor_parallel": 8, "attention_replicas": 8, "expert_parallel": 8}
    setup = serving_setup("deepseek-v3", gpu="h200-sxm-141gb", precision="fp8_block", **settings)
    slow = with_numbers(setup.engine, {"host": with_numbers(setup.engine.host, {"operator_s": 1.0})})
    host_s = [
        float(pass_time(replace(setup, engine=slow), ForwardPass(prompts=prompts, prompt_tokens=tokens)).host_s)
        for prompts, tokens in ((8.0, 100.0), (1.0, 513.0))
    ]
    assert host_s[0] < 1.0 < host_s[1]


def test_modules_call_every_operator() -> None:
    """Llama's two norms, rotation, attention, activation, four products, two messages; Qwen3's experts are five or one."""
    assert calls("sglang", "llama-3.1-8b", "layer.", PROMPT) == 11
    one, five = (calls("sglang", "qwen3-235b-a22b", "layer.", PROMPT, fused_experts=each) for each in (True, False))
    assert five - one == 4


@pytest.mark.parametrize(("fused", "expected"), [(True, [1.0, 0.0]), (False, [1.0, 1.0])])
def test_one_operator_of_experts_sends_their_tokens_too(fused: bool, expected: list[float]) -> None:
    """Between replicas of attention; the all-reduce behind experts that are split is a call of its own."""
    host = replace(with_numbers(engine_preset("trtllm").host, {"operator_s": 1.0}), fused_experts=fused)
    found = []
    for replicas in (1, 8):
        settings: dict[str, Any] = {"tensor_parallel": 8, "attention_replicas": replicas, "expert_parallel": 8}
        setup = serving_setup("deepseek-v3", gpu="h200-sxm-141gb", precision="fp8_block", engine="trtllm", **settings)
        messages = [each for each in forward_operators(setup, PROMPT) if isinstance(each, Collective)]
        found.append(sum(float(python_s(each, host)) for each in messages if each.name == "layer.experts.mlp.all_reduce"))
    assert found == expected


def test_kernels_that_are_looked_up_are_another_call() -> None:
    """DeepSeek's five products of attention and two of shared experts in blocks of 8 bits, and the operator of its experts.

    Not its router, which keeps 16 bits, nor products with one scale a tensor.
    """
    layer = ("trtllm", "deepseek-v3", "layer.experts.", PROMPT)
    assert calls(*layer) == calls(*layer, tunes=False) + 5 + 2 + 1 == 26
    assert calls(*layer, precision="fp8") == calls(*layer, tunes=False)
    assert calls(*layer, precision="nvfp4") == calls(*layer, tunes=False)  # which H200 multiplies in 16 bits


def test_sequences_beside_a_prompt_take_latent_attention_a_second_path() -> None:
    """Queries into the narrow space, rotation, attention, values out of it; of plain attention one operator."""
    both = replace(PROMPT, sequences=4.0, context=100.0)
    more = [
        calls("trtllm", *of, both) - calls("trtllm", *of, PROMPT)
        for of in (("deepseek-v3", "layer.dense."), ("llama-3.1-8b", "layer."))
    ]
    assert more == [4, 1]
    compiled = ("vllm", "deepseek-v3", "layer.dense.")  # all that is not attention is in one more operator
    assert calls(*compiled, both) - calls(*compiled, PROMPT) == 2


def test_values_of_another_size_are_one_operator_all_the_same() -> None:
    """Keys of 192 numbers and values of 128, as MiMo-V2-Flash has them in plain attention, which is not put together."""
    other = serving_setup("llama-3.1-8b", gpu="h200-sxm-141gb", engine="trtllm")
    other = replace(other, model=replace(other.model, head_size=192, value_head_size=128))
    both = replace(PROMPT, sequences=4.0, context=100.0)
    cores = [each for each in forward_operators(other, both) if isinstance(each, CachedAttention | FusedAttention)]
    assert [python_s(each, other.engine.host) for each in cores] == [other.engine.host.operator_s] * 2


def test_a_scan_is_a_custom_operator() -> None:
    """Mixers are launched by Python, compiled or not; the products around them are not."""
    setup = serving_setup("nemotron-3-nano", gpu="h100-sxm-80gb")
    scans = [each for each in forward_operators(setup, PROMPT) if each.name.startswith("layer.mamba2.attention.")]
    called = {each.name.rpartition(".")[2] for each in scans if python_s(each, setup.engine.host) > 0}
    assert {"convolution", "state_passing", "gated_norm"} <= called
    assert not {"norm", "projection"} & called


def test_a_prompt_beyond_the_graphs_waits_for_the_cpu() -> None:
    """Kimi's prompts of 1,000 tokens on eight B200: a quarter less in graphs; those of 8,000 keep the GPU busy."""
    plain = serving_setup("kimi-k2", gpu="b200", precision="nvfp4", tensor_parallel=8)
    more = with_numbers(plain.engine, {"host": with_numbers(plain.engine.host, {"graph_tokens": 16384})})
    graphs = replace(plain, engine=more)

    def seconds(setup: ServingSetup, tokens: float) -> float:
        return float(pass_time(setup, replace(PROMPT, prompt_tokens=tokens)).total_s)

    assert seconds(plain, 1e3) > 1.3 * seconds(graphs, 1e3)
    assert seconds(plain, 8e3) == pytest.approx(seconds(graphs, 8e3), rel=0.02)
