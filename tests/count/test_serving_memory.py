"""What of a GPU becomes KV cache, against the logs of engines."""

from __future__ import annotations

from typing import Any

import pytest

from perfmodel.count.serving_memory import cache_tokens, concurrency_that_fits, longest_context, serving_memory, weight_bytes
from perfmodel.errors import InputError
from perfmodel.exchange.questions.served_models import engine_preset, serving_setup
from perfmodel.spec.evidence.spread import with_numbers
from perfmodel.spec.serving import Request, ServingSetup

GIB = 2.0**30


def setup_of(
    model: Any, gpu: str, *, engine: str = "vllm", memory: Any = (), schedule: Any = (), **settings: Any
) -> ServingSetup:
    """A setup whose engine has some settings of a log."""
    plain = engine_preset(engine)
    own = {"memory": with_numbers(plain.memory, dict(memory)), "schedule": with_numbers(plain.schedule, dict(schedule))}
    return serving_setup(model, gpu=gpu, engine=with_numbers(plain, own), **settings)


def test_the_parts_of_vllms_account() -> None:
    """vllm-project/vllm PR 10511: Llama-3-8B has 14.96 GiB of weights, 1.26 of activations, 53.29 of cache."""
    memory = {"fixed_bytes": 1.79 * GIB}
    found = serving_memory(setup_of("llama-3.1-8b", "h100-sxm-80gb", memory=memory, schedule={"max_sequences": 256}))
    assert found.weights_bytes / GIB == pytest.approx(14.96, rel=0.001)
    assert found.activation_bytes / GIB == pytest.approx(1.26, rel=0.02)
    assert found.cache_bytes / GIB == pytest.approx(53.29, rel=0.005)


@pytest.mark.parametrize(
    ("model", "gpu", "settings", "tokens"),
    [
        pytest.param(  # max_model_len 32768, whose prompts are profiled whole
            "llama-3.1-8b", "l40s", {"memory": {"profiled_tokens": 32768}}, 158_656, id="vLLM PR 17122"
        ),
        pytest.param(
            "llama-3.1-70b", "h100-sxm-80gb", {"precision": "int8", "memory": {"fraction": 0.98}}, 22_096, id="vLLM PR 12569"
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
    """vLLM profiles 2,048 tokens on a GPU below 70 GiB, 8,192 on others."""
    small, large = (serving_setup("qwen3-8b", gpu=gpu) for gpu in ("rtx-4090", "h100-sxm-80gb"))
    assert (small.engine.memory.profiled_tokens, large.engine.memory.profiled_tokens) == (2048, 8192)


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


def test_the_longest_context_is_the_whole_cache_of_a_model_without_windows() -> None:
    """One sequence may have every block."""
    setup = serving_setup("llama-3.1-8b", gpu="h100-sxm-80gb")
    assert longest_context(setup) == cache_tokens(setup)


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
