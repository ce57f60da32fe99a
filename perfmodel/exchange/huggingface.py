"""How a Hugging Face config.json describes a model, in this project's words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from perfmodel.errors import InputError, NotSupportedError, shown
from perfmodel.exchange.documents import read_mapping

_ACTIVATIONS: Final = {"llama": {"silu": "swiglu", "gelu": "geglu"}, "nemotron": {"relu2": "squared_relu", "gelu": "gelu"}}
_NORMS: Final = {"llama": "rmsnorm", "mistral": "rmsnorm", "nemotron": "layernorm"}


def read_model_config(path: Path) -> dict[str, Any]:
    """The mapping of a TransformerModel from the config.json at `path`.

    Errors: InputError when a key is missing; NotSupportedError for a family whose layers are not those of a dense decoder.
    """
    config = read_mapping(path)
    family = config.get("model_type")
    if family not in _NORMS:
        raise NotSupportedError(f"{path}: model_type {shown(family)} is not covered; {', '.join(_NORMS)} are")
    try:
        return _translated(config, str(family), name=str(config.get("_name_or_path") or path.parent.name or path.stem))
    except KeyError as error:
        raise InputError(f"{path} has no {error.args[0]}, which the model needs") from None


def _translated(config: Mapping[str, Any], family: str, *, name: str) -> dict[str, Any]:
    activations = _ACTIVATIONS["nemotron" if family == "nemotron" else "llama"]
    if config["hidden_act"] not in activations:
        raise NotSupportedError(f"hidden_act {shown(config['hidden_act'])} is not covered; {', '.join(activations)} are")
    biases = bool(config.get("attention_bias", False))
    if biases != bool(config.get("mlp_bias", False)):
        raise NotSupportedError("attention_bias and mlp_bias differ; only both or neither is covered")
    heads = config["num_attention_heads"]
    return {
        "name": name,
        "layers": config["num_hidden_layers"],
        "hidden_size": config["hidden_size"],
        "attention_heads": heads,
        "kv_heads": config.get("num_key_value_heads", heads),
        "head_size": config.get("head_dim") or config["hidden_size"] // heads,
        "ffn_hidden_size": config["intermediate_size"],
        "activation": activations[config["hidden_act"]],
        "norm": _NORMS[family],
        "rotary_fraction": config.get("partial_rotary_factor", 0.5 if family == "nemotron" else 1.0),
        "biases": biases,
        "tied_embeddings": bool(config.get("tie_word_embeddings", False)),
        "vocab_size": config["vocab_size"],
    }
