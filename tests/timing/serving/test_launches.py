"""What the CPU does around operators: which passes are graphs, and what torch.compile leaves to Python."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from perfmodel.count.serving.forward_pass import ForwardPass, forward_operators
from perfmodel.exchange.questions.serving.served_models import engine_preset, serving_setup
from perfmodel.spec.evidence.spread import with_numbers
from perfmodel.spec.serving.setup import ServingSetup
from perfmodel.timing.serving.forward_pass import pass_time
from perfmodel.timing.serving.launches import is_eager, python_calls

PROMPT = ForwardPass(prompts=1.0, prompt_tokens=1000.0)


def test_graphs_take_passes_up_to_their_tokens() -> None:
    """Tokens of sequences beside a prompt count; passes that decode are graphs whatever their number."""
    host = with_numbers(engine_preset("vllm").host, {"graph_tokens": 1000})
    one_more = replace(PROMPT, sequences=np.array([0.0, 1.0]))
    assert is_eager(host, one_more).tolist() == [False, True]
    assert not is_eager(host, ForwardPass(sequences=2000.0, context=10.0))
    assert is_eager(with_numbers(host, {"graphs": False}), PROMPT)


@pytest.mark.parametrize(
    ("model", "kind", "calls"),
    [
        ("llama-3.1-8b", "layer.", 1),  # attention
        ("qwen3-235b-a22b", "layer.", 6),  # the choice of experts, tokens to them, two products and what lies between
        ("deepseek-v3", "layer.experts.", 8),  # keys and values of latent attention, and their joining
        ("deepseek-v3", "layer.dense.", 3),
    ],
)
def test_compiled_code_calls_attention_and_experts(model: str, kind: str, calls: int) -> None:
    """Of a layer; as modules every operator but messages has code around it."""
    setup = serving_setup(model, gpu="h200-sxm-141gb", precision="fp8", tensor_parallel=8)
    host = setup.engine.host
    of_layer = [each for each in forward_operators(setup, PROMPT) if each.name.startswith(kind)]
    assert sum(python_calls(each, host) for each in of_layer) == calls
    modules = with_numbers(host, {"compiled": False})
    messages = sum(each.name.endswith("all_reduce") for each in of_layer)
    assert sum(python_calls(each, modules) for each in of_layer) == len(of_layer) - messages


def test_a_scan_is_a_custom_operator() -> None:
    """Mixers are launched by Python, compiled or not; the products around them are not."""
    setup = serving_setup("nemotron-3-nano", gpu="h100-sxm-80gb")
    scans = [each for each in forward_operators(setup, PROMPT) if each.name.startswith("layer.mamba2.attention.")]
    called = {each.name.rpartition(".")[2] for each in scans if python_calls(each, setup.engine.host)}
    assert {"convolution", "state_passing", "gated_norm"} <= called
    assert not {"norm", "projection"} & called


def test_a_prompt_beyond_the_graphs_waits_for_the_cpu() -> None:
    """Kimi's prompts of 1,000 tokens on eight B200: a third less in graphs; those of 8,000 keep the GPU busy by themselves."""
    plain = serving_setup("kimi-k2", gpu="b200", precision="nvfp4", tensor_parallel=8)
    more = with_numbers(plain.engine, {"host": with_numbers(plain.engine.host, {"graph_tokens": 16384})})
    graphs = replace(plain, engine=more)

    def seconds(setup: ServingSetup, tokens: float) -> float:
        return float(pass_time(setup, replace(PROMPT, prompt_tokens=tokens)).total_s)

    assert seconds(plain, 1e3) > 1.5 * seconds(graphs, 1e3)
    assert seconds(plain, 8e3) == pytest.approx(seconds(graphs, 8e3), rel=0.02)
