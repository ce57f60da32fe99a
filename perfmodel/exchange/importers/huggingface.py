"""How the config.json of a Hugging Face model is recognised, and read by the row of its family (exchange/families)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from perfmodel.errors import InputError, NotSupportedError, shown
from perfmodel.exchange.families.blocks import block_settings, identities
from perfmodel.exchange.families.cells import FamilyConfig
from perfmodel.exchange.families.layers import layer_settings
from perfmodel.exchange.families.refusals import row_of
from perfmodel.exchange.families.table import family_table
from perfmodel.exchange.importers.registry import Document, Importer
from perfmodel.spec.models.model import BIASES

MARKS: Final = ("model_type", "architectures", "num_hidden_layers")  # keys that only a config.json has
TEXT_MODELS: Final = ("thinker_config", "text_config", "llm_config", "language_config")  # of a model that also sees or hears
GATED: Final = {"silu": "swiglu", "swish": "swiglu"} | dict.fromkeys(("gelu", "gelu_new", "gelu_pytorch_tanh"), "geglu")
PLAIN: Final = {"relu": "relu", "relu2": "squared_relu"} | dict.fromkeys(
    ("gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_python"), "gelu"
)
SIZES: Final = ("layers", "hidden_size", "attention_heads", "kv_heads", "ffn_hidden_size", "vocab_size")
PARTS: Final = (  # a cell each, where a family has it
    *("norm", "pre_norms", "post_norms", "parallel_residual", "qk_norm", "embedding_norm", "spare_positions"),
    *("sinks", "attention_gate", "gate_by_head", "value_head_size", "layer_embedding_size", "layer_vocab_size"),
)


def _is_config(document: Document) -> bool:
    """Whether a document has the keys that every config.json of a language model has, some of which may be forgotten."""
    return any(key in document.mapping for key in MARKS)


def _read(document: Document) -> dict[str, Any]:
    """The model that a config.json describes; of one that also sees or hears, its text model.

    Errors: InputError for a key that is missing or of a wrong type; NotSupportedError for what a dense decoder does not
    have.
    """
    key, config, name = *_language_model(document), _name(document)
    if not key:
        return _translated(config, name=name)
    try:
        return _translated(config, name=f"{name} (text)", is_nested=True)
    except (InputError, NotSupportedError) as error:
        raise error.under(key) from None


def _language_model(document: Document) -> tuple[str, Mapping[str, Any]]:
    """The config of the language model, and the key that it stands under in that of a model which also sees or hears."""
    path, config = list[str](), document.mapping
    while key := next((each for each in TEXT_MODELS if isinstance(config.get(each), Mapping)), ""):
        outer = {each: config[each] for each in ("model_type", "tie_word_embeddings") if each in config}
        path.append(key)
        config = {**outer, **config[key]}
    return ".".join(path), config


def _assumptions(document: Document) -> dict[str, str]:
    """What a config has that is left out, or read as something that comes near."""
    _, mapping = _language_model(document)
    config, sentences = FamilyConfig(mapping=mapping, defaults={}), {}
    key, layers = config.found("num_nextn_predict_layers")
    if isinstance(layers, int) and layers > 0:
        left_out = f"{key} is {layers}: layers that predict further tokens are left out, as transformers leaves them out"
        sentences["multi_token_layers"] = f"{left_out}; model.multi_token_layers={layers} counts them"
    shared = mapping.get("indexer_types")
    if isinstance(shared, list) and "shared" in shared:
        sentences["latent"] = "layers that take over the choice of another layer's indexer are counted as choosing themselves"
    if idle := identities(mapping.get("block_configs")):
        sentences["layers"] = f"{idle} blocks without attention and MLP are no layers: what they are given passes as it is"
    row = family_table().rows.get(str(mapping.get("model_type")), {})
    if "gate_rank" in (row.get("delta") or {}):
        sentences["delta"] = "kernels that forget at a rate for each channel are timed as those of the gated delta rule"
    if row.get("indexer") is not None:
        sentences["indexer"] = "blocks of keys are chosen; in a server that is timed as DeepSeek-V3.2's indexer scores keys"
    chunk = mapping.get("attention_chunk_size")
    if isinstance(chunk, int):
        exact = f"exact up to {chunk} tokens, at most twice the scores beyond"
        sentences["layer_kinds"] = f"attention in chunks of {chunk} tokens is counted as a window of as many: {exact}"
    return sentences


def _name(document: Document) -> str:
    """The folder that a config.json lies in; of a mapping in a run file, the name that transformers keeps in it."""
    if document.path is not None:
        return document.path.resolve().parent.name or document.path.stem
    return str(document.mapping.get("_name_or_path") or "model").rpartition("/")[2] or "model"


def _translated(mapping: Mapping[str, Any], *, name: str, is_nested: bool = False) -> dict[str, Any]:
    row = row_of(mapping)
    nested = row.get("nested", {}) if is_nested else {}
    config = FamilyConfig(mapping=mapping, defaults={**nested, **row["defaults"]})
    config.check_only(row["only"])
    activation = _activation(config, row)
    sizes = {size: config.needed(row[size]) for size in SIZES}
    head_size = config.number(row["head_size"]) or sizes["hidden_size"] // sizes["attention_heads"]
    if head_size < 1:
        problem = f"{sizes['hidden_size']} columns are too few for {sizes['attention_heads']} heads"
        raise InputError(problem, key=config.key_of(row["hidden_size"]))
    row = {**row, "position": config.decided(row["position"])}
    parts: dict[str, Any] = {part: config.decided(row[part]) for part in PARTS if part in row}
    positions = {"max_positions": config.needed(row["max_positions"])} if row["position"] == "learned" else {}
    return {
        "name": name,
        **sizes,
        "head_size": head_size,
        "activation": activation,
        "position": row["position"],
        "rotary_fraction": _rotary_fraction(config, row, head_size),
        "tied_embeddings": config.decided(row["tied_embeddings"]),
        **parts,
        **_biases(config, row["biases"]),
        **{part: names for part in ("softcaps", "scales") if (names := _chosen(config, row[part]))},
        **positions,
        **_layers(config, row, {**sizes, "head_size": head_size, "sinks": False, "kv": "own", **parts}),
    }


def _layers(config: FamilyConfig, row: Mapping[str, Any], sizes: Mapping[str, Any]) -> dict[str, Any]:
    """The layers of a model of such sizes, as block_configs describes each of them, or as the row of the family says."""
    return block_settings(config, row, sizes) if "blocks" in row else layer_settings(config, row, sizes)


def _activation(config: FamilyConfig, row: Mapping[str, Any]) -> str:
    key, known = config.key_of(row["activation"]), GATED if row["gated"] else PLAIN
    activation = config.needed(row["activation"], str)
    if activation not in known:
        raise NotSupportedError(f"{shown(activation)} is not covered; {', '.join(known)} are", key=key)
    return known[activation]


def _rotary_fraction(config: FamilyConfig, row: Mapping[str, Any], head_size: int) -> float:
    if "rotary_columns" in row:
        columns = config.number(row["rotary_columns"])
        return 1.0 if columns is None else columns / head_size
    fraction = config.number(row["rotary_fraction"], float)
    return 1.0 if fraction is None else float(fraction)


def _biases(config: FamilyConfig, cells: Mapping[str, Any]) -> dict[str, Any]:
    """`biases` where every product of a layer has one, the names of those that have one where only some do."""
    there = [product for product in BIASES if config.decided(cells.get(product, False))]
    in_layers = [product for product in BIASES if product != "head"]
    is_everywhere = set(in_layers) <= set(there)
    others = [product for product in there if product == "head" or not is_everywhere]
    return {"biases": is_everywhere} | ({"biases_of": " ".join(others)} if others else {})


def _chosen(config: FamilyConfig, cells: Mapping[str, Any]) -> str:
    return " ".join(part for part, cell in cells.items() if config.decided(cell))


IMPORTER: Final = Importer(
    name="Hugging Face config.json", gives="models", recognises=_is_config, read=_read, assumes=_assumptions
)
