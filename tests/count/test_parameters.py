"""The parameters are those that transformers builds, that papers publish, and that the shards of a model add up to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from perfmodel.count.parameters import parameter_count, parameter_tensors, shard_parameter_count
from perfmodel.count.parts.grouped_query import kv_size_per_shard
from perfmodel.exchange.presets import model_preset
from perfmodel.spec.models.model import TransformerModel
from tests.count.meta_networks import meta_network, network_parameters

LLAMA_8B = model_preset("llama-3.1-8b")
NEMOTRON_15B = model_preset("nemotron-4-15b")
NEMOTRON_340B = model_preset("nemotron-4-340b")
GPT3 = model_preset("gpt-3-175b")
PUBLISHED = [LLAMA_8B, model_preset("llama-3.1-70b"), model_preset("llama-3.1-405b"), NEMOTRON_15B, NEMOTRON_340B, GPT3]

# No two sizes equal or one another's multiple, heads wider together than the stream, a vocabulary that needs padding.
TIED_LLAMA = replace(
    LLAMA_8B,
    name="tied, biased Llama",
    layers=3,
    hidden_size=192,
    attention_heads=12,
    kv_heads=4,
    head_size=40,
    ffn_hidden_size=520,
    vocab_size=1003,
    max_positions=256,
    biases=True,
    tied_embeddings=True,
)
UNTIED_LLAMA = replace(
    TIED_LLAMA, name="untied Llama, one KV head", kv_heads=1, biases=False, tied_embeddings=False, activation="geglu"
)
TIED_NEMOTRON = replace(
    TIED_LLAMA, name="tied, biased Nemotron", activation="squared_relu", norm="layernorm", rotary_fraction=0.5
)
UNTIED_NEMOTRON = replace(
    TIED_NEMOTRON, name="untied Nemotron, as many KV heads", kv_heads=12, biases=False, tied_embeddings=False
)
SMALL_GPT = replace(
    GPT3,
    name="small GPT",
    layers=2,
    hidden_size=320,
    attention_heads=8,
    kv_heads=8,
    head_size=40,
    ffn_hidden_size=840,
    vocab_size=1003,
)
INVENTED = [TIED_LLAMA, UNTIED_LLAMA, TIED_NEMOTRON, UNTIED_NEMOTRON, SMALL_GPT]


def name_of(value: object) -> str | None:
    """Name a model in a test id."""
    return value.name if isinstance(value, TransformerModel) else None


@pytest.mark.slow
@pytest.mark.parametrize("model", PUBLISHED + INVENTED, ids=name_of)
def test_parameters_are_those_of_transformers(model: TransformerModel) -> None:
    """The count equals the numbers in the tensors that transformers makes of the same fields."""
    assert parameter_count(model).total == network_parameters(meta_network(model))


@pytest.mark.slow
@pytest.mark.parametrize("tensor_parallel", [1, 2, 4])
@pytest.mark.parametrize("model", [LLAMA_8B, NEMOTRON_15B, NEMOTRON_340B, TIED_LLAMA, UNTIED_LLAMA, TIED_NEMOTRON], ids=name_of)
def test_a_shard_is_a_model_with_its_share_of_heads_columns_and_vocabulary(
    model: TransformerModel, tensor_parallel: int
) -> None:
    """One GPU holds what transformers builds of a model whose widths, all but the hidden size, are divided by t."""
    part = replace(
        model,
        attention_heads=int(model.attention_heads) // tensor_parallel,
        kv_heads=max(int(model.kv_heads) // tensor_parallel, 1),
        ffn_hidden_size=int(model.ffn_hidden_size) // tensor_parallel,
        vocab_size=int(model.padded_vocab_size(tensor_parallel)) // tensor_parallel,
    )
    held = shard_parameter_count(model, tensor_parallel=tensor_parallel).total
    assert held == network_parameters(meta_network(part))


@pytest.mark.parametrize("tensor_parallel", [1, 2, 4, 8])
@pytest.mark.parametrize("model", [*PUBLISHED, replace(TIED_LLAMA, attention_heads=16, kv_heads=8), SMALL_GPT], ids=name_of)
def test_shards_add_up_to_the_model_and_what_is_held_more_than_once(model: TransformerModel, tensor_parallel: int) -> None:
    """Shards times t = total + (t - 1) * (norms, row-parallel biases, positions) + the rows that pad the vocabulary."""
    whole = parameter_count(model)
    row_biases = model.layers * 2 * model.hidden_size if model.biases else 0
    replicated = whole.norms + row_biases + whole.positions
    tables = 1 if model.tied_embeddings else 2
    padding = tables * (model.padded_vocab_size(tensor_parallel) - model.vocab_size) * model.hidden_size
    held = tensor_parallel * shard_parameter_count(model, tensor_parallel=tensor_parallel).total
    assert held == whole.total + (tensor_parallel - 1) * replicated + padding


def test_more_ranks_than_kv_heads_hold_copies_of_them() -> None:
    """16 ranks hold 16 key and value heads of a model of 8, one each."""
    copies = 16 * shard_parameter_count(LLAMA_8B, tensor_parallel=16).attention - parameter_count(LLAMA_8B).attention
    assert copies == LLAMA_8B.layers * 2 * (16 - 8) * LLAMA_8B.head_size * LLAMA_8B.hidden_size
    assert kv_size_per_shard(LLAMA_8B, 16) == LLAMA_8B.head_size


@pytest.mark.parametrize("tensor_parallel", [1, 2, 4, 8])
def test_the_padded_vocabulary_is_the_next_multiple(tensor_parallel: int) -> None:
    """The padded vocabulary divides by 128 * t, holds every token, and less than one multiple is padding."""
    padded = GPT3.padded_vocab_size(tensor_parallel)
    assert padded % (128 * tensor_parallel) == 0
    assert 0 <= padded - GPT3.vocab_size < 128 * tensor_parallel


def test_megatron_pads_gpt2_tokens_to_51200_on_eight_ranks() -> None:
    """Megatron-LM prints "padded vocab (size: 50257) with 943 dummy tokens (new size: 51200)" at t = 8."""
    assert GPT3.padded_vocab_size(8) == 51200


@pytest.mark.parametrize("model", PUBLISHED + INVENTED, ids=name_of)
def test_components_add_up_to_the_total(model: TransformerModel) -> None:
    """The total is the non-embedding parameters, the vocabulary matrices and the learned positions."""
    parts = parameter_count(model)
    assert parts.total == parts.non_embedding + parts.embedding + parts.head + parts.positions


def test_gpt3_has_its_published_parameters() -> None:
    """arXiv:2005.14165 prints 174,600 million in Table D.1 and rounds it to 175.0 billion in Table 2.1."""
    assert parameter_count(GPT3).total == pytest.approx(174_600e6, abs=50e6)


def test_nemotron_15b_has_its_published_parameters() -> None:
    """arXiv:2402.16819, section 2 prints 3.2 billion for both vocabulary matrices, which are 3.15, and 12.5 for the rest."""
    parts = parameter_count(NEMOTRON_15B)
    assert parts.embedding + parts.head == 2 * 256_000 * 6144 == pytest.approx(3.15e9, abs=0.005e9)
    assert parts.non_embedding == pytest.approx(12.5e9, abs=0.05e9)


def test_nemotron_340b_has_its_published_parameters() -> None:
    """arXiv:2406.11704, section 2.1 prints 9.4 billion for both vocabulary matrices and 331.6 for the rest."""
    parts = parameter_count(NEMOTRON_340B)
    assert parts.embedding + parts.head == pytest.approx(9.4e9, abs=0.05e9)
    assert parts.non_embedding == pytest.approx(331.6e9, abs=0.05e9)


def test_tied_vocabularies_are_one_tensor() -> None:
    """Llama-3.1-8B has six tensors a layer, two matrices of the vocabulary and a norm."""
    model = model_preset("llama-3.1-8b")
    assert parameter_tensors(model, 32) == 32 * 6 + 3
    assert parameter_tensors(replace(model, tied_embeddings=True), 32) == 32 * 6 + 2
