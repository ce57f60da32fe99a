"""A model as the config.json of a family: the cells of the family's row (data/model_families.yaml), read from the other side.

A config that is read again as another model does not stand for it: the next family is tried.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from perfmodel.errors import PerfmodelError
from perfmodel.exchange.building import build
from perfmodel.exchange.families.cells import FamilyConfig
from perfmodel.exchange.families.table import family_row
from perfmodel.exchange.importers.huggingface import GATED, PARTS, PLAIN, SIZES
from perfmodel.exchange.importers.huggingface import IMPORTER as HUGGING_FACE
from perfmodel.exchange.importers.registry import Document
from perfmodel.exchange.translation.named_models import letters
from perfmodel.exchange.translation.read_again import Difference, model_differences, refusal
from perfmodel.light_dataclass import replace
from perfmodel.spec.fields import whole
from perfmodel.spec.models.model import BIASES, TransformerModel

MANY: Final = 100  # differences that a config has which cannot be read


def written_config(model: TransformerModel, families: Sequence[str], software: str) -> dict[str, Any]:
    """The config of the first family that has such models; those whose name is that of the model come first.

    Errors: NotSupportedError, with the part in which the nearest family differs.
    """
    simple = letters(model.name)
    nearest: list[Difference] = []
    for family in sorted(families, key=lambda each: (letters(each) not in simple, -len(each), families.index(each))):
        config = {"model_type": family, **_config(model, family_row(family))}
        differing = _differing(config, model)
        if not differing:
            return config
        nearest = differing if not nearest or len(differing) < len(nearest) else nearest
    key, value, _ = nearest[0]
    raise refusal((key, value, None), f"{software}, for models like {', '.join(families)}")


def _config(model: TransformerModel, row: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that a family's cells need so that they decide what the model has; sizes are always there."""
    config: dict[str, Any] = {}
    for size in SIZES:
        _set(config, row, row[size], whole(getattr(model, size)), always=True)
    if whole(model.head_size) * whole(model.attention_heads) != whole(model.hidden_size):
        _set(config, row, row["head_size"], whole(model.head_size))
    names = {activation: name for name, activation in reversed((GATED if row["gated"] else PLAIN).items())}
    if model.activation in names:
        _set(config, row, row["activation"], names[model.activation], always=True)
    _set(config, row, row["tied_embeddings"], model.tied_embeddings, always=True)
    if model.rotary_fraction != 1 and "rotary_columns" not in row:
        _set(config, row, row["rotary_fraction"], model.rotary_fraction)
    for part in PARTS:
        if part in row:
            _set(config, row, row[part], getattr(model, part))
    for product in BIASES:
        if product in row["biases"]:
            _set(config, row, row["biases"][product], model.has_bias(product))
    windows = {kind.window for kind in model.kinds.values() if kind.window is not None}
    if len(windows) == 1:
        _set(config, row, row["window"], whole(windows.pop()))
    return config


def _set(config: dict[str, Any], row: Mapping[str, Any], cell: Any, value: Any, *, always: bool = False) -> None:
    """Put into a config what makes a cell decide a value, where it does not decide it by itself; nothing where it cannot."""
    if not isinstance(cell, Mapping) or cell.keys() & {"times", "over", "plus", "length"}:
        return
    if not always and FamilyConfig(mapping=config, defaults=row["defaults"]).decided(cell) == value:
        return
    if "key" in cell:
        config[cell["key"]] = value
    elif "then" not in cell:
        config[cell["if"]] = cell.get("is", True) if value else False
    elif cell["then"] == value:
        config[cell["if"]] = cell.get("is", True)
    elif cell["else"] == value:
        config[cell["if"]] = False
    elif isinstance(cell["then"], Mapping):
        _set(config, row, cell["then"], value, always=always)


def _differing(config: Mapping[str, Any], model: TransformerModel) -> list[Difference]:
    """The fields of a model that a config says otherwise; that of its activation where it cannot be read."""
    try:
        again = build(TransformerModel, HUGGING_FACE.read(Document(path=None, text="", mapping=config)))
    except PerfmodelError:
        return [("model.activation", model.activation, None)] * MANY
    same = replace(again, vocab_padding_multiple=model.vocab_padding_multiple)
    return list(model_differences(model, same, 1))
