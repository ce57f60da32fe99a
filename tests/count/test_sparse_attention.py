"""What does latent attention with an indexer run: products, scores of all keys, a choice, attention over chosen ones?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from perfmodel.count.operators import CachedAttention, FusedAttention, MemoryBound
from perfmodel.count.parameters import parameter_count
from perfmodel.count.serving.cache import cache_bytes_per_token
from perfmodel.count.serving.forward_pass import ForwardPass, ServedProduct, forward_operators
from perfmodel.count.serving.sparse import KeyChoice, SparseAttention
from perfmodel.exchange.presets import model_preset
from perfmodel.exchange.questions.serving.served_models import serving_setup
from perfmodel.spec.serving.setup import ServingSetup

LAYERS = 61


def server(model: str = "deepseek-v3.2", **settings: Any) -> ServingSetup:
    """DeepSeek-V3.2 on 8 GPUs, or another model."""
    chosen: dict[str, Any] = {"precision": "fp8", "tensor_parallel": 8}
    return serving_setup(model, gpu="h200-sxm-141gb", **chosen | settings)


def core(operators: Any, kind: type[Any]) -> Any:
    """The one operator of a kind of the layers with experts; None where there is none."""
    found = [each for each in operators if isinstance(each, kind) and "experts" in each.name and "attention" in each.name]
    return found[-1] if found else None


@pytest.mark.parametrize(("context", "keys"), [(100, 100), (2048, 2048), (2049, 2048), (100_000, 2048)])
def test_a_token_reads_at_most_the_chosen_keys(context: int, keys: int) -> None:
    """Of the cache of keys and values; the indexer's keys are all read, and something is chosen of more than 2,048."""
    operators = forward_operators(server(), ForwardPass(sequences=3.0, context=float(context)))
    assert core(operators, CachedAttention).read_bytes == 3 * keys * 576 * 2
    choice = core(operators, KeyChoice)
    assert choice.read_bytes == 3 * context * 132
    assert choice.scores == 3 * context
    assert choice.flop == 2 * 3 * context * 64 * 128
    assert bool(choice.few) == (context <= 2048)


@pytest.mark.parametrize("tokens", [1, 2048])
def test_a_short_prompt_sees_all_of_itself(tokens: int) -> None:
    """As without an indexer: no scores, the same attention."""
    prompt = ForwardPass(prompts=2.0, prompt_tokens=float(tokens))
    operators, plain = (forward_operators(server(model), prompt) for model in ("deepseek-v3.2", "deepseek-v3"))
    assert core(operators, KeyChoice) is core(operators, SparseAttention) is None
    assert core(operators, FusedAttention) == core(plain, FusedAttention)


def test_a_long_prompt_is_scored_and_sees_chosen_keys() -> None:
    """Each pair of tokens once; each token, the first ones too, reads 2,048 keys of one narrow vector for all heads."""
    operators = forward_operators(server(), ForwardPass(prompts=2.0, prompt_tokens=4096.0))
    assert core(operators, FusedAttention) is None
    assert core(operators, KeyChoice).scores == 2 * 4096 * 4097 / 2
    attention = core(operators, SparseAttention)
    assert attention.flop == 2 * 2 * 4096 * 16 * 2048 * (576 + 512)
    assert attention.read_bytes == 2 * 4096 * 2048 * 576 * 2


def test_prompts_of_several_lengths_are_those_of_each() -> None:
    """Short ones and long ones in one call."""
    lengths = np.array([1000.0, 4096.0, 2048.0, 8192.0])
    together = forward_operators(server(), ForwardPass(prompts=1.0, prompt_tokens=lengths))
    for place, length in enumerate(lengths):
        alone = forward_operators(server(), ForwardPass(prompts=1.0, prompt_tokens=length))
        for kind, number in ((SparseAttention, "rows"), (FusedAttention, "sequences"), (KeyChoice, "queries")):
            own = core(alone, kind)
            assert np.broadcast_to(getattr(core(together, kind), number), 4)[place] == (getattr(own, number) if own else 0)


def test_every_rank_has_all_of_the_indexer() -> None:
    """Its products are not split; keys and weights run beside queries in graphs, which prompts do not have."""
    for tokens, beside in (
        (ForwardPass(sequences=5.0, context=9.0), True),
        (ForwardPass(prompts=1.0, prompt_tokens=5.0), False),
    ):
        found = {each.name.rpartition(".")[2]: each for each in forward_operators(server(), tokens) if ".index_" in each.name}
        products = {name: each for name, each in found.items() if isinstance(each, ServedProduct)}
        sizes = {name: (each.inner, each.columns) for name, each in products.items()}
        assert sizes == {"index_query": (1536, 64 * 128), "index_key": (7168, 128), "index_weight": (7168, 64)}
        assert {name: each.beside for name, each in products.items()} == {
            "index_query": False,
            "index_key": beside,
            "index_weight": beside,
        }


def test_what_lies_between_products_and_scores_moves_queries_and_a_key() -> None:
    """Read and written in 16 bits, written in 8."""
    operators = forward_operators(server(), ForwardPass(sequences=7.0, context=9.0))
    (chain,) = (each for each in operators if isinstance(each, MemoryBound) and each.name.endswith("experts.attention.index"))
    assert chain.moved_bytes == 5 * 7 * 65 * 128


def test_the_cache_holds_a_key_of_the_indexer_beside_the_narrow_vector() -> None:
    """128 numbers in 8 bits and a scale in fp32, whatever the rest is in."""
    for precision, number in (("bf16", 2), ("fp8", 1)):
        setup = server(kv_precision=precision)
        (kind, *_) = setup.model.kinds.values()
        assert cache_bytes_per_token(setup, kind) == 576 * number + 132


def test_the_indexer_is_what_v3_2_has_more_than_v3() -> None:
    """1536 * 8192 + 7168 * (128 + 64) parameters in each of 61 layers, and a layer norm of keys."""
    newer, older = (float(parameter_count(model_preset(name)).total) for name in ("deepseek-v3.2", "deepseek-v3"))
    assert newer - older == LAYERS * (1536 * 64 * 128 + 7168 * (128 + 64) + 2 * 128)
