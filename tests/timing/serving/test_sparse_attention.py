"""How long take the scores of an indexer, the choice of keys and attention over them?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from perfmodel.count.serving.forward_pass import ForwardPass
from perfmodel.count.serving.sparse import KeyChoice, SparseAttention
from perfmodel.errors import NotSupportedError
from perfmodel.exchange.questions.serving.served_models import serving_setup
from perfmodel.light_dataclass import replace
from perfmodel.spec.models.layer_parts import described
from perfmodel.spec.serving.profile import INDEX_LAW, KeyChoiceKernel, SparseKernel
from perfmodel.spec.serving.setup import ServingSetup
from perfmodel.timing.serving.forward_pass import key_choice_time_s, pass_time, sparse_attention_time_s

LAYERS = 78


def server(gpu: str = "h200-sxm-141gb", **settings: Any) -> ServingSetup:
    """GLM-5 on 8 GPUs."""
    chosen: dict[str, Any] = {"precision": "fp8_block", "tensor_parallel": 8}
    return serving_setup("glm-5", gpu=gpu, engine="sglang", **chosen | settings)


def without_indexer(setup: ServingSetup) -> ServingSetup:
    """The same server of a model whose tokens see all before them."""
    latent = replace(described(setup.model.latent, "latent"), indexer=None)
    return replace(setup, model=replace(setup.model, latent=latent))


def test_a_choice_is_what_is_read_scored_and_searched() -> None:
    """bytes / M + flop / (g*P) + s * scores + c; nothing is searched of a few keys, and nothing takes none."""
    setup = server()
    law = KeyChoiceKernel(computing=0.5, score_s=1e-11, choose_s=1e-5)
    setup = replace(setup, profile=replace(setup.profile, key_choice={INDEX_LAW: law}))
    sizes: dict[str, Any] = {"keys": 5000.0, "heads": 32, "head_size": 128, "read_bytes": 4.8e9 * 1e-3}
    choices = KeyChoice(name="it", repeats=1, queries=np.array([0.0, 1e4, 1e4]), few=np.array([False, True, False]), **sizes)
    gpu = setup.cluster.gpu
    scored_s = 2 * 1e4 * 5000 * 32 * 128 / (0.5 * gpu.peak("fp8")) + 1e-11 * 1e4 * 5000
    read_s = sizes["read_bytes"] / gpu.memory_bandwidth_bytes_per_s
    assert key_choice_time_s(choices, setup) == pytest.approx([0.0, read_s + scored_s, read_s + scored_s + 1e-5])


@pytest.mark.parametrize(("heads", "blocks"), [(1, 1), (8, 1), (64, 1), (65, 2), (128, 2)])
def test_a_block_of_heads_takes_as_long_as_one(heads: int, blocks: int) -> None:
    """Kernels fill up to 64: more GPUs for the same model do not shorten them."""
    setup = server()
    profile = replace(setup.profile, sparse_attention={"16bit": SparseKernel(block_heads=64, key_s=2e-10)})
    attention = SparseAttention(
        name="it", repeats=1, rows=1000.0, keys=2048, heads=heads, head_size=576, value_size=512, law="16bit", key_bytes=1152
    )
    found = sparse_attention_time_s(attention, replace(setup, profile=profile))
    assert found == pytest.approx(blocks * 2e-10 * 1000 * 2048)


@pytest.mark.parametrize(
    ("gpu", "sequences", "context", "more_us"),
    [
        ("h200-sxm-141gb", 1, 1024, 24.3),
        ("h200-sxm-141gb", 1, 8192, 35.8),
        ("h200-sxm-141gb", 64, 1024, 34.3),
        ("b200", 1, 1024, 24.9),
        ("b200", 1, 32768, 43.5),
        ("b200", 256, 1024, 53.0),
    ],
)
def test_an_indexer_adds_what_attention_modules_of_glm_5_take_more_than_those_of_glm_5_2(
    gpu: str, sequences: int, context: int, more_us: float
) -> None:
    """SGLang's modules (aiconfigurator-core 0.12.0), of which GLM-5.2's take over a choice; reading fewer keys is in both."""
    setup = server(gpu)
    tokens = ForwardPass(sequences=float(sequences), context=float(min(context, 2048)))
    longer = ForwardPass(sequences=float(sequences), context=float(context) + 1.0)
    base_s = pass_time(without_indexer(setup), tokens, host=False).total_s
    found_us = 1e6 * float(pass_time(setup, longer, host=False).total_s - base_s) / LAYERS
    assert found_us == pytest.approx(more_us, rel=0.3)


def test_beyond_the_chosen_keys_a_longer_context_costs_little() -> None:
    """Of 128 k tokens a layer reads the indexer's keys alone: a tenth of what it would."""
    setup = server()

    def added_s(which: ServingSetup) -> float:
        short, long = (pass_time(which, ForwardPass(sequences=8.0, context=n)).cache_s for n in (4096.0, 131072.0))
        return float(long - short)

    assert 0 < added_s(setup) < 0.35 * added_s(without_indexer(setup))


def test_a_gpu_without_such_kernels_says_so() -> None:
    """A100 has no products in 8 bits."""
    setup = server("a100-sxm-80gb", precision="bf16")
    with pytest.raises(NotSupportedError, match="no scores of an indexer; Hopper and Blackwell have"):
        pass_time(setup, ForwardPass(sequences=1.0, context=1.0))
    profile = replace(server().profile, sparse_attention={})
    with pytest.raises(NotSupportedError, match="no sparse attention over a 16bit cache; they have none"):
        pass_time(replace(server(), profile=profile), ForwardPass(prompts=1.0, prompt_tokens=4096.0))
