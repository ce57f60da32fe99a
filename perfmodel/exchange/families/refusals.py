"""What to write where a config.json cannot be read: another family, or the model inline with the sizes that the config has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from perfmodel.errors import InputError, NotSupportedError, shown
from perfmodel.exchange.families.cells import FamilyConfig, checked
from perfmodel.exchange.families.table import family_row, family_table

SIZES: Final = ("layers", "hidden_size", "attention_heads", "kv_heads", "head_size", "ffn_hidden_size", "vocab_size")
SHOWN_MODELS: Final = {"latent": "deepseek-v3", "mixture": "mixtral-8x7b", "": "llama-3.1-8b"}  # whose keys serve as an example


def row_of(mapping: Mapping[str, Any]) -> Mapping[str, Any]:
    """The row of the family of a config.

    Errors: InputError without a family; NotSupportedError for one that is not covered, and for a config with experts or latent
    attention of a family that has none.
    """
    family = mapping.get("model_type")
    if family is None:
        raise InputError("missing; the model needs it", key="model_type")
    checked("model_type", family, str)
    config = FamilyConfig(mapping=mapping, defaults={})
    try:
        row = family_row(family)
    except NotSupportedError as error:
        raise NotSupportedError(f"{error.problem}; {_way_on(config, family)}", key=error.key) from None
    _check_parts(config, row, family)
    return row


def _way_on(config: FamilyConfig, family: str) -> str:
    """What to do about a family that is not read."""
    if family not in family_table().refused:
        return _other_family(config)
    other = family_table().ways_on.get(family_table().refused[family])
    return other or f"a model that comes near can be written inline, {_inline(config)}"


def _check_parts(config: FamilyConfig, row: Mapping[str, Any], family: str) -> None:
    """Raise NotSupportedError for parts that the config has and its family has not."""
    key, experts = config.found("num_experts")
    if isinstance(experts, int) and experts > 1 and row.get("mixture") is None:
        raise NotSupportedError(f"{shown(family)} has no mixture of {experts} experts; {_other_family(config)}", key=key)
    key, rank = config.found("kv_lora_rank")
    if rank is not None and row.get("latent") is None:
        raise NotSupportedError(
            f"{shown(family)} has no latent attention of rank {shown(rank)}; {_other_family(config)}", key=key
        )


def _other_family(config: FamilyConfig) -> str:
    return f"if its layers are those of another family, give that as model_type; else write the model inline, {_inline(config)}"


def _inline(config: FamilyConfig) -> str:
    """A model as a run file has it, with the sizes of the config, and those of its experts and its latent attention."""
    common, parts = family_table().rows["llama"], family_table().parts
    sections = {
        part: _known(config, parts[part])
        for part, key in (("mixture", "num_experts"), ("latent", "kv_lora_rank"))
        if config.found(key)[1]
    }
    known = _known(config, {size: common[size] for size in SIZES}) | {
        part: f"{{{_listed(each)}}}" for part, each in sections.items()
    }
    example = next(model for part, model in SHOWN_MODELS.items() if not part or part in sections)
    return f"model: {{{_listed(known | {'..': ''})}}}, with the keys of perfmodel show {example}"


def _listed(known: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}: {value}" if value else name for name, value in known.items())


def _known(config: FamilyConfig, cells: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of cells that a config has, as far as it has them in a way that is read."""
    known = {}
    for name, cell in cells.items():
        try:
            value = config.decided(cell)
        except InputError:
            continue
        is_default = name in ("groups", "groups_per_token") and value == 1
        if isinstance(value, int) and not isinstance(value, bool) and value > 0 and not is_default:
            known[name] = value
    return known
