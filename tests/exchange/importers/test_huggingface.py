"""Is the `config.json` of a Hugging Face model read as the model that it is, and refused where it is another kind?"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import transformers

from perfmodel.errors import InputError, NotSupportedError
from perfmodel.exchange.run_files import read_candidates
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
    [({"model_type": "mamba"}, "'mamba' is not covered"), ({"hidden_act": "tanh"}, "'tanh' is not covered"),
     ({"sliding_window": 4096}, "sliding_window: 4096 is not covered without layer_types"),
     ({"num_local_experts": 8}, "num_local_experts"),
     ({"mlp_bias": True}, "only both or neither")],
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
    with pytest.raises(InputError, match="hidden_act: missing"):
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
