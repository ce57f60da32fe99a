"""How the config.json of a Hugging Face model is recognised and read as a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from perfmodel.errors import InputError, NotSupportedError, shown
from perfmodel.exchange.importers.registry import Document, Importer

_GATED: Final = {"silu": "swiglu", "gelu": "geglu"}
_ACTIVATIONS: Final = {
    "llama": _GATED,
    "mistral": _GATED,
    "gemma2": {"gelu_pytorch_tanh": "geglu"},
    "nemotron": {"relu2": "squared_relu", "gelu": "gelu"},
}
_ACTIVATION_KEYS: Final = {"gemma2": "hidden_activation"}  # hidden_act of the others
_NORMS: Final = {"llama": "rmsnorm", "mistral": "rmsnorm", "gemma2": "rmsnorm", "nemotron": "layernorm"}
_POST_NORMS: Final = ("gemma2",)  # families with a norm behind each part of a layer, too
_TIED: Final = ("gemma2",)  # families whose embeddings transformers ties when the key is missing
_LAYER_TYPES: Final = {"sliding_attention": "sliding", "full_attention": "full"}
_PATTERNS: Final = {"mistral": ("sliding",), "gemma2": ("sliding", "full")}  # where a config has a window, but no layer_types
MARKS: Final = ("model_type", "architectures", "num_hidden_layers")  # keys that only a config.json has
_ROTARY_FRACTIONS: Final = {"nemotron": 0.5}  # what transformers assumes when the key is missing; 1 for the others


def _is_config(document: Document) -> bool:
    """Whether a document has the keys that every config.json of a language model has, some of which may be forgotten."""
    return any(key in document.mapping for key in MARKS)


def _read(document: Document) -> dict[str, Any]:
    """The model that a config.json describes.

    Errors: InputError for a key that is missing or of a wrong type; NotSupportedError for what a dense decoder does not
    have.
    """
    return _translated(document.mapping, name=_name(document))


def _name(document: Document) -> str:
    """The folder that a config.json lies in; of a mapping in a run file, the name that transformers keeps in it."""
    if document.path is not None:
        return document.path.resolve().parent.name or document.path.stem
    return str(document.mapping.get("_name_or_path") or "model").rpartition("/")[2] or "model"


def _translated(config: Mapping[str, Any], *, name: str) -> dict[str, Any]:
    family = _entry(config, "model_type", str)
    if family not in _NORMS:
        raise NotSupportedError(f"{shown(family)} is not covered; {', '.join(_NORMS)} are", key="model_type")
    key = _ACTIVATION_KEYS.get(family, "hidden_act")
    activation = _entry(config, key, str)
    if activation not in _ACTIVATIONS[family]:
        raise NotSupportedError(f"{shown(activation)} is not covered; {', '.join(_ACTIVATIONS[family])} are", key=key)
    if config.get("num_local_experts") is not None:
        raise NotSupportedError(f"{shown(config['num_local_experts'])} is not covered; only null is", key="num_local_experts")
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
        "tied_embeddings": _entry(config, "tie_word_embeddings", bool, default=family in _TIED),
        "vocab_size": _entry(config, "vocab_size", int),
        "post_norms": family in _POST_NORMS,
    } | _layers(config, family)


def _layers(config: Mapping[str, Any], family: str) -> dict[str, Any]:
    """The kinds of layers of a config with a sliding window, and their pattern; nothing for one without."""
    if config.get("sliding_window") is None:
        return {}
    window, types = _entry(config, "sliding_window", int), config.get("layer_types")
    if types is None and family not in _PATTERNS:
        raise NotSupportedError(f"{window} is not covered without layer_types; only null is", key="sliding_window")
    if types is not None and not (isinstance(types, list) and types and set(map(str, types)) <= set(_LAYER_TYPES)):
        raise NotSupportedError(f"{shown(types)} is not covered; {' and '.join(_LAYER_TYPES)} are", key="layer_types")
    pattern = _PATTERNS[family] if types is None else _shortest_period([_LAYER_TYPES[each] for each in types])
    kinds = {"sliding": {"attention": "sliding", "window": window}, "full": {"attention": "full"}}
    used = {name: kind for name, kind in kinds.items() if name in pattern}
    return {"layer_kinds": used, "layer_pattern": " ".join(pattern)}


def _shortest_period(words: Sequence[str]) -> Sequence[str]:
    """The shortest start of a sequence that gives all of it when it is repeated.

    >>> _shortest_period(["sliding", "full", "sliding", "full", "sliding"])
    ['sliding', 'full']
    """
    sizes = range(1, len(words) + 1)
    return next(words[:size] for size in sizes if words[size:] == words[: len(words) - size])


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
IMPORTER: Final = Importer(name="Hugging Face config.json", gives="models", recognises=_is_config, read=_read)
