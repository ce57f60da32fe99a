"""Is the `config.json` of a Hugging Face model read as the model that it is, and refused where it is another kind?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import transformers

from perfmodel.errors import InputError, NotSupportedError
from perfmodel.exchange.run_files import read_candidates
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.run import Run


def read(*overrides: str) -> Run:
    """The central preset with overrides."""
    return read_candidates("nemotron-4-15b", overrides)[0].run


def test_a_hugging_face_config_is_a_model(tmp_path: Path) -> None:
    """The same parameters as the preset."""
    config = {
        "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32,
        "num_key_value_heads": 8, "num_hidden_layers": 32, "vocab_size": 128256, "hidden_act": "silu",
    }  # fmt: skip
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    model = read(f"model={path}").model
    preset = read("model=llama-3.1-8b").model
    assert (model.layers, model.head_size, model.activation, model.norm) == (32, 128, "swiglu", "rmsnorm")
    assert model.ffn_hidden_size == preset.ffn_hidden_size


@pytest.mark.parametrize(
    ("change", "sentence"),
    [({"model_type": "mamba"}, "model_type: 'mamba' is known but not supported yet: it is a model with Mamba-1 layers"),
     ({"model_type": "minimax"}, "model_type: 'minimax' is known .* lightning attention; .* inline, model: {layers: 2"),
     ({"model_type": "bert"}, "model_type: 'bert' is known but not supported yet: it is an encoder; .*; only decoders"),
     ({"model_type": "foo"}, "model_type: 'foo' is not covered; perfmodel list families"),
     ({"hidden_act": "tanh"}, "'tanh' is not covered"),
     ({"sliding_window": 4096}, "sliding_window: 4096 is not covered without layer_types"),
     ({"layer_types": ["full_attention", "linear_attention"]}, "layer_types: .* is not covered"),
     ({"num_local_experts": 8}, "num_local_experts: 'llama' has no mixture of 8 experts; if its layers are those of another"),
     ({"n_routed_experts": 64}, "n_routed_experts: 'llama' has no mixture of 64 experts"),
     ({"ffn_config": {"moe_num_experts": 16}}, "ffn_config.moe_num_experts: 'llama' has no mixture of 16 experts"),
     ({"kv_lora_rank": 512}, "kv_lora_rank: 'llama' has no latent attention of rank 512; .* latent: {kv_rank: 512}"),
     ({"model_type": "deepseek_v3", "attention_bias": True}, "attention_bias: true is not covered; only false is"),
     ({"model_type": "nemotron_h", "hidden_act": "relu2", "hybrid_override_pattern": "MX"},
      "hybrid_override_pattern: 'MX' is not covered; .* M, mamba, ")],
)  # fmt: skip
def test_a_config_of_another_kind_is_not_supported(tmp_path: Path, change: dict[str, object], sentence: str) -> None:
    """Its layers are not those that are counted."""
    config = {
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 8, "num_hidden_layers": 2,
        "vocab_size": 1024, "hidden_act": "silu",
    }  # fmt: skip
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config | change))
    with pytest.raises(NotSupportedError, match=sentence):
        read(f"model={path}")
    path.write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(InputError, match="num_hidden_layers: missing"):
        read(f"model={path}")


@pytest.mark.parametrize(
    "change",
    [{"num_attention_heads": 0}, {"num_attention_heads": "8"}, {"hidden_size": {}}, {"hidden_act": []}, {"model_type": [1]},
     {"attention_bias": "false"}, {"num_hidden_layers": 2.5}, {"vocab_size": True}],
)  # fmt: skip
def test_a_config_with_a_wrong_type_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    """The key is named."""
    config = {
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 8, "num_hidden_layers": 2,
        "vocab_size": 1024, "hidden_act": "silu", "num_key_value_heads": None,
    }  # fmt: skip
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    assert read(f"model={path}", "tensor_parallel=1").model.kv_heads == 8  # null: as many as heads
    path.write_text(json.dumps(config | change))
    with pytest.raises(InputError, match=next(iter(change))):
        read(f"model={path}")


LLAMA = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 8, "num_hidden_layers": 2,
    "vocab_size": 1024, "hidden_act": "silu",
}  # fmt: skip


def read_config(tmp_path: Path, config: Mapping[str, object]) -> TransformerModel:
    """The model of a config.json in a folder called mine."""
    path = tmp_path / "mine" / "config.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(config))
    return read(f"model={path}", "tensor_parallel=1").model


def test_a_family_that_is_not_read_may_be_written_inline(tmp_path: Path) -> None:
    """The sizes that its config names by any known name are in the sentence."""
    config = {"model_type": "foo", "n_layer": 2, "n_embd": 64, "num_attention_heads": 8, "kv_channels": 16, "vocab_size": 1024}
    sizes = r"layers: 2, hidden_size: 64, attention_heads: 8, kv_heads: 8, head_size: 16, vocab_size: 1024"
    inline = f"give that as model_type; else write the model inline, model: {{{sizes}, "
    with pytest.raises(NotSupportedError, match=inline):
        read_config(tmp_path, config)


def test_experts_of_a_family_that_is_not_read_may_be_written_inline(tmp_path: Path) -> None:
    """With all numbers of the mixture and of latent attention that the config has."""
    experts = {"model_type": "foo", "n_routed_experts": 16, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    mixture = r"mixture: {experts: 16, experts_per_token: 2, ffn_hidden_size: 32}"
    with pytest.raises(NotSupportedError, match=f"write the model inline, model: {{layers: 2, .*{mixture}, .*mixtral-8x7b"):
        read_config(tmp_path, LLAMA | experts)
    with pytest.raises(NotSupportedError, match=r"latent: {kv_rank: 16}, \.\.}, with the keys of perfmodel show deepseek-v3"):
        read_config(tmp_path, LLAMA | experts | {"kv_lora_rank": 16})


def test_layers_that_predict_further_tokens_are_left_out_and_said(tmp_path: Path) -> None:
    """As transformers does; the sentence says how to count them, and is gone where that is said."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps(LLAMA | {"num_nextn_predict_layers": 1}))

    def sentences(*overrides: str) -> list[str]:
        found = read_candidates("nemotron-4-15b", [f"model={path}", "tensor_parallel=1", *overrides])[0].assumptions
        return [sentence for sentence in found if "further tokens" in sentence]

    left_out = "num_nextn_predict_layers is 1: layers that predict further tokens are left out, as transformers leaves them out"
    assert sentences() == [f"{left_out}; model.multi_token_layers=1 counts them"]
    assert sentences("model.multi_token_layers=1") == []
    path.write_text(json.dumps(LLAMA | {"num_nextn_predict_layers": 0}))
    assert sentences() == []


def test_chunks_of_attention_are_read_as_windows_and_said(tmp_path: Path) -> None:
    """Exact up to the length of one; in a run file the model may stand inline."""
    llama = {"model_type": "llama4", "text_config": LLAMA | {"model_type": "llama4_text", "attention_chunk_size": 512}}
    mapping = json.loads(json.dumps(llama))
    run = read_candidates("nemotron-4-15b", [("model", mapping), ("tensor_parallel", 1)])[0]
    assert run.run.model.kinds["sliding"].window == 512
    assert any("chunks of 512 tokens is counted as a window of as many" in sentence for sentence in run.assumptions)


def test_a_stream_narrower_than_its_heads_is_refused(tmp_path: Path) -> None:
    """Where heads share it, each needs a column."""
    with pytest.raises(InputError, match="hidden_size: 4 columns are too few for 8 heads"):
        read_config(tmp_path, LLAMA | {"hidden_size": 4})
    assert read_config(tmp_path, LLAMA | {"hidden_size": 4, "head_dim": 2}).head_size == 2


def test_one_expert_is_an_mlp(tmp_path: Path) -> None:
    """And so is a number of experts that is null, or none."""
    for experts in (1, 0, None):
        assert read_config(tmp_path, LLAMA | {"num_local_experts": experts}).ffn_hidden_size == 128


def test_of_a_model_that_sees_the_text_model_is_read(tmp_path: Path) -> None:
    """It is named so. What its text_config leaves out is what its class has; embeddings are tied as the whole model says."""
    model = read_config(
        tmp_path, {"model_type": "llava", "text_config": LLAMA, "tie_word_embeddings": True, "vision_config": {}}
    )
    assert (model.name, model.tied_embeddings, model.layers) == ("mine (text)", True, 2)
    sparse = {
        "model_type": "gemma3",
        "text_config": {"model_type": "gemma3_text", "num_hidden_layers": 7, "sliding_window": 1024},
    }
    gemma = read_config(tmp_path, sparse)
    theirs = transformers.Gemma3TextConfig()
    assert (gemma.hidden_size, gemma.vocab_size, gemma.head_size) == (theirs.hidden_size, theirs.vocab_size, theirs.head_dim)
    assert [gemma.kinds[gemma.kind_at(layer)].window for layer in range(7)] == [1024] * 5 + [None, 1024]
    omni = {"model_type": "qwen3_omni_moe", "thinker_config": {"text_config": LLAMA, "audio_config": {}}, "talker_config": {}}
    assert read_config(tmp_path, omni).hidden_size == LLAMA["hidden_size"]
    with pytest.raises(NotSupportedError, match=r"text_config\.num_experts: 'llama' has no mixture of 8"):
        read_config(tmp_path, {"model_type": "llava", "text_config": LLAMA | {"num_experts": 8}})


def test_sizes_of_two_names_that_differ_are_refused(tmp_path: Path) -> None:
    """Only a person knows which is right; two equal ones are one."""
    assert read_config(tmp_path, LLAMA | {"n_embd": 64}).hidden_size == 64
    with pytest.raises(InputError, match="n_embd: 32, but hidden_size is 64; keep the right one"):
        read_config(tmp_path, LLAMA | {"n_embd": 32})


@pytest.mark.parametrize(
    ("config", "sentence"),
    [({"model_type": "opt", "do_layer_norm_before": False}, "do_layer_norm_before: false is not covered; only true is"),
     ({"model_type": "opt", "word_embed_proj_dim": 32}, "word_embed_proj_dim: 32 is not covered; only 64 is"),
     ({"model_type": "mpt", "attn_config": {"alibi": False}}, "attn_config.alibi: false is not covered"),
     ({"model_type": "gpt2", "add_cross_attention": True}, "add_cross_attention: true is not covered")],
)  # fmt: skip
def test_what_a_family_has_beyond_its_row_is_not_supported(tmp_path: Path, config: dict[str, object], sentence: str) -> None:
    """The key says what."""
    with pytest.raises(NotSupportedError, match=sentence):
        read_config(tmp_path, LLAMA | {"hidden_act": "relu"} | config)


def test_windows_of_a_config_are_kinds_of_layers(tmp_path: Path) -> None:
    """Gemma 2 as transformers writes it down, with the kind of each layer or without; Mistral slides everywhere."""
    config = transformers.Gemma2Config(num_hidden_layers=42, hidden_size=3584, num_attention_heads=16, num_key_value_heads=8)
    written = config.to_dict() | {"intermediate_size": 14336}
    path = tmp_path / "config.json"
    preset = read("model=gemma-2-9b").model
    for left_out in ((), ("layer_types", "tie_word_embeddings")):
        path.write_text(json.dumps({key: value for key, value in written.items() if key not in left_out}))
        assert replace(read(f"model={path}").model, name=preset.name) == preset
    path.write_text(json.dumps(transformers.MistralConfig(sliding_window=4096).to_dict() | {"head_dim": 128}))
    mistral = read("model=mistral-7b-v0.1").model
    assert replace(read(f"model={path}").model, name=mistral.name, layer_pattern=()) == mistral
