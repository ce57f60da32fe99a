"""In which format are the weights of a checkpoint, where nobody says it?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers.utils.quantization_config import (
    AwqConfig,
    BitsAndBytesConfig,
    FineGrainedFP8Config,
    Mxfp4Config,
)

from perfmodel.errors import InputError, NotSupportedError
from perfmodel.exchange.questions.serving.asked_servers import asked_servers
from perfmodel.exchange.questions.serving.asked_services import asked_service
from perfmodel.exchange.questions.serving.stored_weights import named_format, stored_weights
from tests.exchange.families.small_configs import WIDE

CONFIG = {"model_type": "llama", **WIDE, "hidden_size": 512, "head_dim": 64, "num_attention_heads": 8}


def group(bits: int, kind: str, *, inputs: int | None = None, **weights: Any) -> dict[str, Any]:
    """config_groups of compressed-tensors, and of Model Optimizer, with one group."""
    cast = None if inputs is None else {"num_bits": inputs, "type": kind, "dynamic": True}
    return {
        "group_0": {"targets": ["Linear"], "weights": {"num_bits": bits, "type": kind, **weights}, "input_activations": cast}
    }


def written(config: Any) -> dict[str, Any]:
    """As transformers writes it into a config.json."""
    found: dict[str, Any] = json.loads(json.dumps(config.to_dict()))
    return found


TENSORS = {"quant_method": "compressed-tensors", "ignore": ["lm_head"]}
MODELOPT = {"quant_method": "modelopt", "producer": {"name": "modelopt", "version": "0.29.0"}, "ignore": ["lm_head"]}
STORED = [
    ("fp8_block", written(FineGrainedFP8Config())),
    ("fp8", written(FineGrainedFP8Config(weight_block_size=None))),
    ("fp8", {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0}),
    ("mxfp4", written(Mxfp4Config())),
    ("int4", written(AwqConfig(bits=4, group_size=128))),
    ("int4", {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False}),
    ("int8_wo", {"quant_method": "gptq", "bits": 8, "group_size": 128}),
    ("nf4", written(BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4"))),
    ("nf4-dq", written(BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True))),
    ("fp8", TENSORS | {"config_groups": group(8, "float", inputs=8, strategy="channel")}),
    ("fp8_block", TENSORS | {"config_groups": group(8, "float", inputs=8, strategy="block", block_structure=[128, 128])}),
    ("fp8_block", TENSORS | {"config_groups": group(8, "float", inputs=8, strategy="block", block_structure="128x128")}),
    ("int8", TENSORS | {"config_groups": group(8, "int", inputs=8, strategy="channel")}),
    ("int8_wo", TENSORS | {"config_groups": group(8, "int", strategy="channel")}),
    ("int4", TENSORS | {"config_groups": group(4, "int", strategy="group", group_size=128)}),
    ("int4_experts", TENSORS | {"config_groups": group(4, "int", group_size=32), "ignore": ["lm_head", "re:.*self_attn.*"]}),
    ("int4", TENSORS | {"config_groups": group(4, "int", group_size=128), "ignore": ["lm_head", "re:.*self_attn.*"]}),
    ("nvfp4", TENSORS | {"config_groups": group(4, "float", inputs=4, strategy="tensor_group", group_size=16)}),
    ("mxfp4", TENSORS | {"config_groups": group(4, "float", group_size=32)}),
    ("nvfp4", MODELOPT | {"quant_algo": "NVFP4", "config_groups": group(4, "float", inputs=4, group_size=16)}),
    ("fp8", MODELOPT | {"quant_algo": "FP8", "kv_cache_scheme": {"num_bits": 8, "type": "float", "dynamic": False}}),
    ("int4", MODELOPT | {"quant_algo": "W4A16_AWQ"}),
]


@pytest.mark.parametrize(("precision", "config"), STORED, ids=[f"{at}-{name}" for at, (name, _) in enumerate(STORED)])
def test_the_format_is_what_the_quantiser_wrote(precision: str, config: dict[str, Any]) -> None:
    """As transformers, compressed-tensors and Model Optimizer write it, of a model or of its text model; said in a sentence."""
    for mapping in (CONFIG | {"quantization_config": config}, {"text_config": CONFIG | {"quantization_config": config}}):
        stored = stored_weights(mapping)
        assert stored.precision == precision
        assert f"weights are in {precision}, as quantization_config" in stored.sentences[0]
        assert "--precision" in stored.sentences[0]


def test_nothing_is_said_of_weights_in_16_bits() -> None:
    """Of a config without a quantization_config, and of a preset."""
    for model in (CONFIG, CONFIG | {"quantization_config": None}, "llama-3.1-8b"):
        assert (stored_weights(model).precision, stored_weights(model).sentences) == ("bf16", ())


@pytest.mark.parametrize(
    "config",
    [
        {"quant_method": "hqq", "bits": 4},
        {"quant_method": "fp8", "expert_dtype": "fp4", "weight_block_size": [128, 128]},
        {"quant_method": "awq", "bits": 3},
        {"quant_method": "awq", "bits": "4"},
        {"quant_method": "bitsandbytes", "load_in_8bit": True},
        MODELOPT | {"quant_algo": "MIXED_PRECISION"},
        TENSORS | {"config_groups": group(8, "float") | {"group_1": group(4, "float", group_size=16)["group_0"]}},
        TENSORS | {"config_groups": {"group_0": {"targets": ["Linear"]}}},
        TENSORS | {"config_groups": group(8, "float", strategy="channel")},
        TENSORS | {"config_groups": group(4, "float", strategy="tensor_group", group_size=16)},
        TENSORS,
        TENSORS | {"config_groups": [group(8, "float")["group_0"]]},
    ],
    ids=str,
)
def test_other_formats_are_refused_with_what_would_work(config: dict[str, Any]) -> None:
    """They are not taken in 16 bits; asked for in a format that is known, they are."""
    mapping = CONFIG | {"quantization_config": config}
    with pytest.raises(NotSupportedError, match="are not covered; --precision takes fp16, fp8"):
        stored_weights(mapping)
    assert stored_weights(mapping, "int8").precision == "int8"


def test_a_quantization_config_that_is_none_is_refused() -> None:
    """By its key."""
    with pytest.raises(InputError, match="quantization_config: 'fp8' does not say how weights are stored"):
        stored_weights(CONFIG | {"quantization_config": "fp8"})


def test_a_file_of_model_optimizer_beside_the_config_says_it_too(tmp_path: Path) -> None:
    """hf_quant_config.json of older checkpoints; the config itself comes first."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIG))
    assert stored_weights(str(path)).precision == "bf16"
    quantization = {"quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8", "group_size": 16, "exclude_modules": ["lm_head"]}
    (tmp_path / "hf_quant_config.json").write_text(json.dumps({"producer": {"name": "modelopt"}, "quantization": quantization}))
    assert stored_weights(str(path)).precision == "nvfp4"
    assert "--kv-precision fp8" in stored_weights(str(path)).sentences[1]
    path.write_text(json.dumps(CONFIG | {"quantization_config": {"quant_method": "fp8"}}))
    assert stored_weights(str(path)).precision == "fp8"


def test_a_server_holds_weights_as_the_checkpoint_does() -> None:
    """Unless another precision is asked for; what was taken is among the assumptions."""
    config = CONFIG | {"quantization_config": {"quant_method": "awq", "bits": 4}}
    (stored,), (asked,) = (asked_servers(config, gpu="h100-sxm-80gb", precision=each) for each in (None, "bf16"))
    assert (stored.setup.weights.name, asked.setup.weights.name) == ("int4", "bf16")
    assert any("weights are in int4" in each for each in stored.assumptions)
    assert not any("quantization_config" in each for each in asked.assumptions)
    assert stored.whole_curve().assumptions == stored.assumptions
    found = asked_service(config, requests_per_s=1, gpu="h100-sxm-80gb", tensor_parallel=1)
    assert {each.choice.setup.weights.name for each in found.options if each.choice.setup} == {"int4"}


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("nvidia/Llama-3.3-70B-Instruct-NVFP4", "nvfp4"),
        ("nvidia/Llama-3.3-70B-Instruct-FP4", "nvfp4"),
        ("RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8", "fp8"),
        ("RedHatAI/Meta-Llama-3.1-8B-Instruct-quantized.w8a16", "int8_wo"),
        ("unsloth/Meta-Llama-3.1-8B-bnb-4bit", "nf4"),
        ("meta-llama/Llama-3.1-8B-Instruct", ""),
    ],
)
def test_a_name_that_says_a_format_is_taken_in_16_bits_with_a_warning(name: str, precision: str) -> None:
    """Which names the flag: a name alone does not say what a checkpoint holds."""
    assert named_format(name) == precision
    stored = stored_weights(name)
    assert stored.precision == "bf16"
    assert [f"--precision {precision} takes them so" in each for each in stored.sentences] == [True] * bool(precision)
    assert stored_weights(name, "fp8").sentences == ()
