"""What of a GPU becomes KV cache, against the logs of engines."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from perfmodel.count.serving.memory import (
    activation_bytes,
    cache_tokens,
    concurrency_that_fits,
    longest_context,
    sequence_bytes,
    serving_memory,
    weight_bytes,
)
from perfmodel.errors import InputError
from perfmodel.exchange.questions.serving.served_models import engine_preset, serving_setup
from perfmodel.spec.evidence.spread import with_numbers
from perfmodel.spec.serving.setup import Request, ServingSetup

GIB = 2.0**30


def setup_of(
    model: Any, gpu: str, *, engine: str = "vllm", memory: Any = (), schedule: Any = (), **settings: Any
) -> ServingSetup:
    """A setup whose engine has some settings of a log."""
    plain = engine_preset(engine)
    own = {"memory": with_numbers(plain.memory, dict(memory)), "schedule": with_numbers(plain.schedule, dict(schedule))}
    return serving_setup(model, gpu=gpu, engine=with_numbers(plain, own), **settings)


def test_the_parts_of_vllms_account() -> None:
    """vllm-project/vllm PR 10511: Llama-3-8B has 14.96 GiB of weights, 1.26 of activations, 53.29 of cache.

    On two GPUs it has half the weights, the same activations, as the sampler decides them, and 58.97 of cache.
    """
    memory = {"fixed_bytes": 1.79 * GIB, "profiled_tokens": 8192}  # what that build has beside torch
    for tensor, cache_gib in ((1, 53.29), (2, 58.97)):
        found = serving_memory(
            setup_of("llama-3.1-8b", "h100-sxm-80gb", engine="vllm-2024-09", memory=memory, tensor_parallel=tensor)
        )
        assert found.weights_bytes / GIB == pytest.approx(14.96 / tensor, rel=0.001)
        assert found.activation_bytes / GIB == pytest.approx(1.26, rel=0.02)
        assert found.cache_bytes / GIB == pytest.approx(cache_gib, rel=0.005)


@pytest.mark.parametrize(
    ("model", "gpu", "settings", "tokens"),
    [
        pytest.param(  # max_model_len 32768, whose prompts are profiled whole
            "llama-3.1-8b",
            "l40s",
            {"engine": "vllm-2025-03", "memory": {"profiled_tokens": 32768}, "schedule": {"max_sequences": 256}},
            158_656,
            id="vLLM PR 17122",
        ),
        pytest.param(
            "llama-3.1-70b",
            "h100-sxm-80gb",
            {
                "engine": "vllm-2025-03",
                "precision": "int8",
                "memory": {"fraction": 0.98},
                "schedule": {"max_sequences": 256},
            },
            22_096,
            id="vLLM PR 12569",
        ),
        pytest.param(  # the sampler of 1,024 sequences takes 5.9 GiB
            "qwen3-235b-a22b",
            "h100-sxm-80gb",
            {"engine": "vllm-2025", "precision": "fp8", "tensor_parallel": 4},
            178_880,
            id="vLLM issue 21348, vLLM",
        ),
        pytest.param(  # a card of 24 GB, with the defaults of one
            "qwen3-8b",
            "rtx-4090",
            {
                "memory": {"fraction": 0.9764, "profiled_tokens": 2048},
                "schedule": {"max_sequences": 256},
            },
            46_368,
            id="LMCache issue 3430",
        ),
        pytest.param("meta-llama/Llama-2-7b-hf", "a100-sxm-80gb", {"engine": "vllm-2024"}, 117_616, id="vLLM PR 2031"),
        pytest.param(
            "qwen3-235b-a22b",
            "h100-sxm-80gb",
            {"engine": "sglang", "precision": "fp8", "tensor_parallel": 4, "memory": {"fraction": 0.93}},
            367_404,
            id="vLLM issue 21348",
        ),
    ],
)
def test_the_cache_holds_as_many_tokens_as_the_log_says(model: str, gpu: str, settings: dict[str, Any], tokens: float) -> None:
    """KV capacity is within 2 % of the logs of engines whose settings are known."""
    from perfmodel.exchange.tables.serving_models import named_served_model

    found = cache_tokens(setup_of(named_served_model(model) if "/" in model else model, gpu, **settings))
    assert found == pytest.approx(tokens, rel=0.02)


def test_gpus_with_little_memory_take_smaller_chunks() -> None:
    """vLLM profiles 2,048 tokens on a GPU below 70 GiB and on every A100, 8,192 on others; older versions alike on all."""
    gpus = ("rtx-4090", "a100-sxm-80gb", "a800-sxm-80gb", "h100-sxm-80gb")
    profiled = [serving_setup("qwen3-8b", gpu=gpu).engine.memory.profiled_tokens for gpu in gpus]
    assert profiled == [2048, 2048, 8192, 8192]
    older = [serving_setup("qwen3-8b", gpu=gpu, engine="vllm-2024").engine.schedule.max_sequences for gpu in gpus]
    assert older == [256] * 4


@pytest.mark.parametrize(("precision", "per_parameter"), [("bf16", 2.0), ("fp8", 1.0), ("nvfp4", 0.5625)])
def test_embedding_and_head_stay_in_16_bits(precision: str, per_parameter: float) -> None:
    """Weights of Llama-3.1-70B: 2.1 billion parameters of the vocabulary have 2 bytes, the rest those of the format."""
    setup = serving_setup("llama-3.1-70b", gpu="b200", precision=precision)
    vocabulary = 2 * 128256 * 8192 + (2 * 80 + 1) * 8192
    rest = 70_553_706_496 - vocabulary
    assert weight_bytes(setup) == pytest.approx(2 * vocabulary + per_parameter * rest, rel=1e-9)


def test_what_does_not_fit_has_no_cache() -> None:
    """A model larger than the GPU holds no token."""
    setup = serving_setup("llama-3.1-70b", gpu="h100-sxm-80gb")
    assert cache_tokens(setup) == longest_context(setup) == 0
    found = serving_memory(setup)
    used = found.weights_bytes + found.fixed_bytes + found.activation_bytes + found.graph_bytes
    assert found.unused_bytes == pytest.approx(found.total_bytes - used, rel=1e-13)


def test_the_longest_context_is_the_whole_cache_of_a_model_without_windows() -> None:
    """One sequence may have every block, whatever their number is."""
    for fraction in np.linspace(0.5, 0.9, 23):
        setup = setup_of("llama-3.1-8b", "h100-sxm-80gb", memory={"fraction": float(fraction)})
        assert longest_context(setup) == cache_tokens(setup) > 0


def test_replicas_of_attention_hold_as_many_tokens_each() -> None:
    """Twice as many as one of them."""
    setup = setup_of("llama-3.1-70b", "h100-sxm-80gb", tensor_parallel=8, attention_replicas=2, memory={"block_tokens": 1})
    free = serving_memory(setup).cache_bytes
    assert cache_tokens(setup) == 2 * (free // (80 * 2 * 2 * 128 * 2))


def test_engines_that_reserve_what_may_come_back_run_fewer_sequences() -> None:
    """TensorRT-LLM counts input + output of each, vLLM what is there on average."""
    request = Request(input_tokens=128, output_tokens=4096)
    setup = setup_of("llama-3.1-70b", "h200-sxm-141gb", engine="trtllm", precision="fp8")
    freely = with_numbers(setup.engine, {"schedule": with_numbers(setup.engine.schedule, {"reserves_output": False})})
    reserved, mean = (
        concurrency_that_fits(serving_setup("llama-3.1-70b", gpu="h200-sxm-141gb", engine=engine, precision="fp8"), request)
        for engine in (setup.engine, freely)
    )
    assert reserved / mean == pytest.approx((128 + 2048) / (128 + 4096), rel=0.03)


@pytest.mark.parametrize("gpus", [0, -2])
def test_a_server_has_as_many_gpus_as_there_can_be(gpus: int) -> None:
    """A table may say any number."""
    with pytest.raises(InputError, match=r"^tensor_parallel: \S+ is not from 1 to 100,000$"):
        serving_setup("qwen3-8b", gpu="h100-sxm-80gb", tensor_parallel=gpus)


def test_the_cache_is_a_fraction_of_all_memory_or_of_what_is_free() -> None:
    """f*M - W - F - A, at most what graphs leave of M; or f*(M - W - F - A - G)."""
    sizes = {"fixed_bytes": 1e9, "group_bytes": 3e8, "graph_bytes": 2e9, "fraction": 0.8, "graphs_inside": False}
    for tensor, fixed in ((1, 1e9), (2, 1.3e9)):
        setup = setup_of("llama-3.1-8b", "h100-sxm-80gb", memory=sizes, tensor_parallel=tensor)
        found, total = serving_memory(setup), setup.cluster.gpu.memory_bytes
        taken = found.weights_bytes + fixed + found.activation_bytes
        assert (found.fixed_bytes, found.graph_bytes, found.total_bytes) == (fixed, 2e9, total)
        assert found.cache_bytes == pytest.approx(0.8 * total - taken, rel=1e-13)
        assert found.unused_bytes == pytest.approx(0.2 * total - 2e9, rel=1e-13)
        inside = serving_memory(
            setup_of("llama-3.1-8b", "h100-sxm-80gb", memory={**sizes, "graphs_inside": True}, tensor_parallel=tensor)
        )
        assert inside.cache_bytes == pytest.approx(0.8 * total - taken - 2e9, rel=1e-13)
        free = serving_memory(
            setup_of("llama-3.1-8b", "h100-sxm-80gb", memory={**sizes, "fraction_of": "free"}, tensor_parallel=tensor)
        )
        assert free.cache_bytes == pytest.approx(0.8 * (total - taken - 2e9), rel=1e-13)
        whole = serving_memory(
            setup_of("llama-3.1-8b", "h100-sxm-80gb", memory={**sizes, "fraction": 1.0}, tensor_parallel=tensor)
        )
        assert whole.cache_bytes == pytest.approx(total - taken - 2e9, rel=1e-13)


def test_without_graphs_none_are_held() -> None:
    """Nor is anything left free for them."""
    engine = engine_preset("vllm")
    eager = with_numbers(engine, {"host": with_numbers(engine.host, {"graphs": False})})
    assert serving_memory(serving_setup("llama-3.1-8b", gpu="h100-sxm-80gb", engine=eager)).graph_bytes == 0


def test_a_pass_that_is_profiled_holds_the_widest_activations_or_logits() -> None:
    """T * (4*f/t + 4*h) * 2 bytes, or all logits of the most sequences; a token of a mixture may meet more than f."""
    memory, schedule = {"profiled_tokens": 1000, "logit_bytes": 0.0}, {"max_sequences": 100}
    settings: dict[str, Any] = {"memory": memory, "schedule": schedule, "tensor_parallel": 2}
    dense = activation_bytes(setup_of("llama-3.1-8b", "h100-sxm-80gb", **settings))
    assert dense == pytest.approx(1000 * (4 * 14336 / 2 + 4 * 4096) * 2)
    mixture = activation_bytes(setup_of("qwen3-30b-a3b", "h100-sxm-80gb", **settings))
    assert mixture == pytest.approx(1000 * (4 * max(6144, 8 * 768) / 2 + 4 * 2048) * 2)
    shared = setup_of("qwen2-57b-a14b", "h100-sxm-80gb", **settings)
    width = max(float(shared.model.ffn_hidden_size), 8 * 2560 + 20480)
    assert activation_bytes(shared) == pytest.approx(1000 * (4 * width / 2 + 4 * 3584) * 2)
    settings["memory"] = {"profiled_tokens": 1000, "logit_bytes": 400.0}
    assert activation_bytes(setup_of("llama-3.1-8b", "h100-sxm-80gb", **settings)) == pytest.approx(100 * 128256 * 400)


@pytest.mark.parametrize(("tokens", "blocks"), [(1, 1), (16, 1), (17, 2), (1000, 63)])
def test_a_sequence_holds_whole_blocks(tokens: int, blocks: int) -> None:
    """Of 16 tokens, each 131,072 bytes of Llama-3.1-8B."""
    setup = setup_of("llama-3.1-8b", "h100-sxm-80gb", memory={"block_tokens": 16})
    assert sequence_bytes(setup, tokens) == blocks * 16 * 131072
    assert longest_context(setup) % 16 == 0


def test_sliding_layers_hold_their_window_and_a_block() -> None:
    """12 of 24 layers of gpt-oss-20b hold 128 tokens and a block, the others all; a token has 2 * 8 * 64 numbers a layer."""
    setup = setup_of("gpt-oss-20b", "h100-sxm-80gb", precision="mxfp4", memory={"block_tokens": 32})
    assert sequence_bytes(setup, 64) == 24 * 64 * 2048
    assert sequence_bytes(setup, 6400) == 12 * (6400 + 128 + 32) * 2048
    assert cache_tokens(setup) == serving_memory(setup).cache_bytes // (24 * 2048) // 32 * 32
    odd = setup_of("gpt-oss-20b", "h100-sxm-80gb", precision="mxfp4", memory={"block_tokens": 127})
    assert sequence_bytes(odd, 6400) == 12 * (51 * 127 + 2 * 127) * 2048  # 128 tokens touch two blocks of 127 at most


def test_as_many_sequences_fit_as_have_room_for_their_mean_length() -> None:
    """Each with its prompt and half of what comes back, on every replica of attention."""
    request = Request(input_tokens=1000, output_tokens=600)
    for replicas in (1, 2):
        setup = setup_of("llama-3.1-70b", "h100-sxm-80gb", tensor_parallel=4, attention_replicas=replicas)
        each = sequence_bytes(setup, 1300)
        assert concurrency_that_fits(setup, request) == serving_memory(setup).cache_bytes // each * replicas


def test_replicas_of_attention_hold_it_split_over_fewer_ranks() -> None:
    """Four ranks that share heads by twos hold twice as much of attention, and of nothing else."""
    plain, spread = (
        setup_of("llama-3.1-70b", "h100-sxm-80gb", tensor_parallel=4, attention_replicas=replicas) for replicas in (1, 2)
    )
    attention = 80 * 8192 * (2 * 8192 + 2 * 1024)
    assert weight_bytes(spread) - weight_bytes(plain) == pytest.approx(2 * attention / 4)
