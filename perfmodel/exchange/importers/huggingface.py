"""How the config.json of a Hugging Face model is recognised, and read by the row of its family (exchange/families)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from perfmodel.errors import InputError, NotSupportedError, shown
from perfmodel.exchange.families.cells import FamilyConfig, checked
from perfmodel.exchange.families.layers import layer_settings
from perfmodel.exchange.families.table import family_row, family_table
from perfmodel.exchange.importers.registry import Document, Importer
from perfmodel.spec.model import BIASES

MARKS: Final = ("model_type", "architectures", "num_hidden_layers")  # keys that only a config.json has
TEXT_MODELS: Final = (
    "text_config",
    "llm_config",
    "language_config",
)  # of a model that also sees or hears
GATED: Final = {"silu": "swiglu", "swish": "swiglu"} | dict.fromkeys(("gelu", "gelu_new", "gelu_pytorch_tanh"), "geglu")
PLAIN: Final = {"relu": "relu", "relu2": "squared_relu"} | dict.fromkeys(
    ("gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_python"), "gelu"
)
EXPERTS: Final = "a mixture of experts"  # what the table says of families of such models
SIZES: Final = ("layers", "hidden_size", "attention_heads", "kv_heads", "ffn_hidden_size", "vocab_size")
PARTS: Final = (  # a cell each, where a family has it
    *("norm", "pre_norms", "post_norms", "parallel_residual", "qk_norm", "embedding_norm", "spare_positions"),
)


def _is_config(document: Document) -> bool:
    """Whether a document has the keys that every config.json of a language model has, some of which may be forgotten."""
    return any(key in document.mapping for key in MARKS)


def _read(document: Document) -> dict[str, Any]:
    """The model that a config.json describes; of one that also sees or hears, its text model.

    Errors: InputError for a key that is missing or of a wrong type; NotSupportedError for what a dense decoder does not
    have.
    """
    config, name = document.mapping, _name(document)
    for key in TEXT_MODELS:
        if isinstance(config.get(key), Mapping):
            outer = {each: config[each] for each in ("model_type", "tie_word_embeddings") if each in config}
            try:
                return _translated({**outer, **config[key]}, name=f"{name} (text)", is_nested=True)
            except (InputError, NotSupportedError) as error:
                raise error.under(key) from None
    return _translated(config, name=name)


def _name(document: Document) -> str:
    """The folder that a config.json lies in; of a mapping in a run file, the name that transformers keeps in it."""
    if document.path is not None:
        return document.path.resolve().parent.name or document.path.stem
    return str(document.mapping.get("_name_or_path") or "model").rpartition("/")[2] or "model"


def _translated(mapping: Mapping[str, Any], *, name: str, is_nested: bool = False) -> dict[str, Any]:
    row = _row(mapping)
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
    positions = {"max_positions": config.needed(row["max_positions"])} if row["position"] == "learned" else {}
    return {
        "name": name,
        **sizes,
        "head_size": head_size,
        "activation": activation,
        "position": row["position"],
        "rotary_fraction": _rotary_fraction(config, row, head_size),
        "tied_embeddings": config.decided(row["tied_embeddings"]),
        **{part: config.decided(row[part]) for part in PARTS if part in row},
        **_biases(config, row["biases"]),
        **{part: names for part in ("softcaps", "scales") if (names := _chosen(config, row[part]))},
        **positions,
        **layer_settings(config, row, sizes["layers"]),
    }


def _row(mapping: Mapping[str, Any]) -> Mapping[str, Any]:
    """The row of the family of a config.

    Errors: InputError without a family; NotSupportedError for experts, latent attention, and families that are not covered.
    """
    family = mapping.get("model_type")
    if family is None:
        raise InputError("missing; the model needs it", key="model_type")
    checked("model_type", family, str)
    config = FamilyConfig(mapping=mapping, defaults={})
    for key in family_table().experts:
        _, experts = config.found(key)
        if isinstance(experts, int) and experts > 1:
            problem = f"a mixture of {experts} experts is known but not supported yet"
            raise NotSupportedError(f"{problem}; {_dense(config)}", key=key)
    if mapping.get("kv_lora_rank") is not None:
        rank = shown(mapping["kv_lora_rank"])
        raise NotSupportedError(f"latent attention of rank {rank} is known but not supported yet", key="kv_lora_rank")
    try:
        return family_row(family)
    except NotSupportedError as error:
        refused = family_table().refused.get(family)
        way_on = _dense(config) if refused == EXPERTS else "" if refused else _other_family(config)
        raise NotSupportedError("; ".join(filter(None, (error.problem, way_on))), key=error.key) from None


def _other_family(config: FamilyConfig) -> str:
    """What to write where a family is not known: another one, or the model inline."""
    return f"if its layers are those of one of them, give that as model_type; else write the model inline, {_inline(config)}"


def _dense(config: FamilyConfig) -> str:
    """What to write in place of a mixture of experts: the dense model whose MLP is what a token runs through."""
    sizes = _inline(config, without="ffn_hidden_size")
    return f"a dense model, with the experts of a token as one MLP, can be written inline, {sizes}"


def _inline(config: FamilyConfig, without: str = "") -> str:
    """A model as a run file has it, with the sizes of the config but one."""
    common = family_table().rows["llama"]
    names = [name for name in (*SIZES[:4], "head_size", *SIZES[4:]) if name != without]
    known = {name: value for name in names if isinstance(value := config.decided(common[name]), int)}
    sizes = "".join(f"{name}: {value}, " for name, value in known.items())
    return f"model: {{{sizes}..}}, with the keys of perfmodel show llama-3.1-8b"


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


IMPORTER: Final = Importer(name="Hugging Face config.json", gives="models", recognises=_is_config, read=_read)
