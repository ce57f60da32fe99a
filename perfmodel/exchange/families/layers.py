"""Which kinds of layers a model has, and how they follow each other: mixer and feed-forward part of each layer together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from perfmodel.errors import InputError, NotSupportedError, shown
from perfmodel.exchange.families.cells import FamilyConfig, checked
from perfmodel.exchange.families.experts import feed_forward_parts
from perfmodel.exchange.families.mixers import Mixer, layer_mixers, own_value
from perfmodel.spec.models.layer_kinds import BORROWED
from perfmodel.spec.models.model import MOST_LAYERS, SECTIONS

OVERRIDES: Final = {  # what per_layer_config may say of a layer, and what that is called here
    "num_attention_heads": "attention_heads",
    "num_key_value_heads": "kv_heads",
    "head_dim": "head_size",
    "intermediate_size": "ffn_hidden_size",
}


class ConfigLayer(NamedTuple):
    """The parts of one layer, and what it has otherwise than the model, by the fields of a kind of layer."""

    attention: str
    is_rotated: bool
    feed_forward: str
    own: tuple[tuple[str, Any], ...] = ()


def layer_settings(config: FamilyConfig, row: Mapping[str, Any], sizes: Mapping[str, Any]) -> dict[str, Any]:
    """What a model of such sizes says of its layers: the sections of their parts, their kinds and in which order they come.

    No kinds where all layers are alike and rotated, and see all tokens.

    Errors: InputError, NotSupportedError.
    """
    layers = sizes["layers"]
    if layers > MOST_LAYERS:
        key, _ = config.found("num_hidden_layers")
        raise InputError(f"{layers} layers are more than any model has; at most {MOST_LAYERS:,} are read", key=key)
    window = config.number(row["window"])
    mixers = layer_mixers(config, row, layers, window)
    others = feed_forward_parts(config, row, layers)
    overrides, borrowed = layer_overrides(config, layers), _borrowed(config, row, layers)
    every = [
        ConfigLayer(mixer.attention, mixer.is_rotated, mixer.feed_forward or other, _differing(_own(mixer, own, more), sizes))
        for mixer, other, own, more in zip(mixers, others, overrides, borrowed, strict=True)
    ]
    return _sections(config, row, every) | kinds_in_order(every, window, _further(config, row))


def _own(mixer: Mixer, listed: Mapping[str, Any] | None, borrowed: Mapping[str, Any]) -> dict[str, Any]:
    """What a layer has otherwise: as its type says, or the config layer by layer, where that has sizes at all; or borrowed."""
    said = {name: value for name, value in mixer.own.items() if listed is None or name not in OVERRIDES.values()}
    return {**said, **(listed or {}), **borrowed}


def _borrowed(config: FamilyConfig, row: Mapping[str, Any], layers: int) -> list[dict[str, Any]]:
    """What the last layers have otherwise, which take over keys and values of others; nothing of the layers before them."""
    rule = row.get("borrowing")
    number = 0 if rule is None else config.decided(rule["layers"]) or 0
    if not number or rule is None:
        return [{} for _ in range(layers)]
    checked(config.key_of(rule["layers"]), number, int)
    own = {name: value for name, cell in rule["own"].items() if (value := own_value(config, cell)) is not None}
    return [{"kv": BORROWED, **own} if layer >= layers - number else {} for layer in range(layers)]


def layer_overrides(config: FamilyConfig, layers: int) -> list[dict[str, int]] | list[None]:
    """What per_layer_config says of each layer in place of the model's sizes, as transformers writes it down; None without it.

    Errors: InputError, NotSupportedError.
    """
    key, given = config.found("per_layer_config")
    found: list[dict[str, int]] = [{} for _ in range(layers)]
    if given is None:
        return [None] * layers
    if not isinstance(given, Mapping) or not all(str(place).isdecimal() and int(place) < layers for place in given):
        raise InputError(f"{shown(given)} is no mapping from some of {layers} layers, counted from 0, to their sizes", key=key)
    for place, overrides in given.items():
        if not isinstance(overrides, Mapping) or not set(overrides) <= set(OVERRIDES):
            problem = f"{shown(overrides)} is not covered; {', '.join(OVERRIDES)} are"
            raise NotSupportedError(problem, key=f"{key}.{place}")
        for name, value in overrides.items():
            found[int(place)][OVERRIDES[name]] = checked(f"{key}.{place}.{name}", value, int)
    return found


def _differing(own: Mapping[str, Any], sizes: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """What a layer has otherwise than a model of such sizes."""
    return tuple(sorted((name, value) for name, value in own.items() if value != sizes.get(name)))


def _further(config: FamilyConfig, row: Mapping[str, Any]) -> list[ConfigLayer]:
    """The layers of one multi-token-prediction module, where the row of the family says how the config names them."""
    words = config.decided(row["further"]) if "further" in row else None
    types = [row["types"].get(str(word)) for word in words] if isinstance(words, str | list) else []
    return [ConfigLayer(each["attention"], True, each["feed_forward"]) for each in types if each] if all(types) else []


def _sections(config: FamilyConfig, row: Mapping[str, Any], layers: Sequence[ConfigLayer]) -> dict[str, Any]:
    """The mixture, latent attention and other mixers that some layer has, with the numbers of the config."""
    used = {part for layer in layers for part in (layer.attention, layer.feed_forward)}
    found = {section: row[section] for part, section in SECTIONS.items() if part in used}
    return {section: config.section(cells) for section, cells in found.items()}


def kinds_in_order(layers: Sequence[ConfigLayer], window: int | None, further: Sequence[ConfigLayer]) -> dict[str, Any]:
    """The kinds of layers by name, their order, and those that predict further tokens where the others have them too."""
    distinct = sorted(set(layers), reverse=True)
    if len(distinct) == 1 and distinct[0] in {
        ConfigLayer(attention, True, other) for attention in ("full", "latent") for other in ("dense", "experts")
    }:
        return {}
    names = _names(distinct)
    first, pattern = repeated([names[layer] for layer in layers])
    kinds = {names[layer]: _kind(layer, window) for layer in distinct}
    behind = [names[layer] for layer in further] if set(further) <= set(names) else []
    orders = {"layer_pattern": pattern, "first_layers": first, "multi_token_kinds": behind}
    return {"layer_kinds": kinds} | {order: " ".join(words) for order, words in orders.items() if words}


def _names(kinds: Sequence[ConfigLayer]) -> dict[ConfigLayer, str]:
    """What each kind is called: by its parts, and where several have the same ones, by the sizes of its own too."""
    by_parts = {layer: _name(layer, kinds) for layer in kinds}
    shared = {name for name in by_parts.values() if list(by_parts.values()).count(name) > 1}
    sized = {layer: "_".join((name, *(str(value) for _, value in layer.own))) for layer, name in by_parts.items()}
    return {layer: sized[layer] if name in shared else name for layer, name in by_parts.items()}


def _name(layer: ConfigLayer, kinds: Sequence[ConfigLayer]) -> str:
    """What a kind is called among others: by the parts in which they differ."""
    mixers = {(each.attention, each.is_rotated) for each in kinds}
    others = {each.feed_forward for each in kinds}
    mixer = "" if layer.attention == "none" else layer.attention + ("" if layer.is_rotated else "_unrotated")
    other = "" if layer.feed_forward == "none" else layer.feed_forward
    if mixer and (len(others) == 1 or not other):
        return mixer
    return other if len(mixers) == 1 or not mixer else f"{mixer}_{other}"


def _kind(layer: ConfigLayer, window: int | None) -> dict[str, Any]:
    kind: dict[str, Any] = {"attention": layer.attention}
    if layer.attention == "sliding":
        kind["window"] = window
    if layer.feed_forward != "dense":
        kind["feed_forward"] = layer.feed_forward
    rotary = {} if layer.is_rotated else {"rotary": False}
    return kind | rotary | dict(layer.own)


def repeated(words: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """The first words, and those that are repeated behind them, both as few as can be; no first ones where that is as short.

    The m words behind the first k repeat themselves after m less the length of the longest end of them that is also their start
    (the failure function of Knuth, Morris and Pratt, read from the end).

    >>> repeated(["sliding", "full", "sliding", "full", "sliding"])
    ([], ['sliding', 'full'])
    >>> repeated(["dense", "experts", "experts", "experts"])
    (['dense'], ['experts'])
    """
    number, periods = len(words), _periods([*reversed(words)])
    first = min(range(number), key=lambda leading: leading + periods[number - leading])
    return words[:first], words[first : first + periods[number - first]]


def _periods(words: Sequence[str]) -> list[int]:
    """After how many words each start of a sequence repeats itself, by its length."""
    borders = [-1]
    for end, word in enumerate(words):
        border = borders[end]
        while border >= 0 and words[border] != word:
            border = borders[border]
        borders.append(border + 1)
    return [length - border for length, border in enumerate(borders)]
