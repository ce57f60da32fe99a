"""How a Hugging Face config.json describes a model, in this project's words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from perfmodel.errors import InputError, NotSupportedError, shown
from perfmodel.exchange.documents import read_mapping

_GATED: Final = {"silu": "swiglu", "gelu": "geglu"}
_ACTIVATIONS: Final = {"llama": _GATED, "mistral": _GATED, "nemotron": {"relu2": "squared_relu", "gelu": "gelu"}}
_NORMS: Final = {"llama": "rmsnorm", "mistral": "rmsnorm", "nemotron": "layernorm"}
_ROTARY_FRACTIONS: Final = {"nemotron": 0.5}  # what transformers assumes when the key is missing; 1 for the others


def read_model_config(path: Path) -> dict[str, Any]:
    """The mapping of a TransformerModel from the config.json at `path`.

    Errors: InputError for a key that is missing or of a wrong type; NotSupportedError for what a dense decoder with full
    attention does not have.
    """
    config = read_mapping(path, needs="the settings of a model")
    try:
        return _translated(config, name=path.resolve().parent.name or path.stem)
    except (InputError, NotSupportedError) as error:
        raise error.under(str(path)) from None


def _translated(config: Mapping[str, Any], *, name: str) -> dict[str, Any]:
    family = _entry(config, "model_type", str)
    if family not in _NORMS:
        raise NotSupportedError(f"{shown(family)} is not covered; {', '.join(_NORMS)} are", key="model_type")
    activation = _entry(config, "hidden_act", str)
    if activation not in _ACTIVATIONS[family]:
        raise NotSupportedError(f"{shown(activation)} is not covered; {', '.join(_ACTIVATIONS[family])} are", key="hidden_act")
    for key in ("sliding_window", "num_local_experts"):
        if config.get(key) is not None:
            raise NotSupportedError(f"{shown(config[key])} is not covered; only null is", key=key)
    biases = _entry(config, "attention_bias", bool, default=False)
    if biases != _entry(config, "mlp_bias", bool, default=False):
        raise NotSupportedError("attention_bias and mlp_bias differ; only both or neither is covered")
    hidden, heads = _entry(config, "hidden_size", int), _entry(config, "num_attention_heads", int)
    if heads < 1:
        raise InputError(f"{heads} must be at least 1", key="num_attention_heads")
    return {
        "name": name,
        "layers": _entry(config, "num_hidden_layers", int),
        "hidden_size": hidden,
        "attention_heads": heads,
        "kv_heads": _entry(config, "num_key_value_heads", int, default=heads),
        "head_size": _entry(config, "head_dim", int, default=hidden // heads),
        "ffn_hidden_size": _entry(config, "intermediate_size", int),
        "activation": _ACTIVATIONS[family][activation],
        "norm": _NORMS[family],
        "rotary_fraction": _entry(config, "partial_rotary_factor", float, default=_ROTARY_FRACTIONS.get(family, 1.0)),
        "biases": biases,
        "tied_embeddings": _entry(config, "tie_word_embeddings", bool, default=False),
        "vocab_size": _entry(config, "vocab_size", int),
    }


def _entry(config: Mapping[str, Any], key: str, kind: type, *, default: Any = None) -> Any:
    """The value of `key`, `default` where it is missing or null. Errors: InputError."""
    value = config.get(key)
    if value is None and default is not None:
        return default
    if value is None:
        raise InputError("missing; the model needs it", key=key)
    kinds = (float, int) if kind is float else (kind,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and kind is not bool):
        raise InputError(f"{shown(value)} is not {_KINDS[kind]}", key=key)
    return value


_KINDS: Final = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
