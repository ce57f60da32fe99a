"""What mixes the tokens of each layer, and whether it is rotated: from the types of layers, or from the rule of a family.

`types` of a row says what each word of layer_types stands for: the attention of a layer, its feed-forward part where that is
not what the experts of the row say, and under `own` what it has otherwise than the model, in cells. Where the config has no
layer_types, `mixers` says which layers have the type linear_attention, or `slides` which have a window:
    none                    none of them may have a window
    typed                   none of them: windows are those of layer_types alone
    all                     all of them
    {all_but_every: n}      all but the n-th, the 2n-th ..
    {all_but_first_of: n}   all but the first of each n
    {all_but_multiples_of: n}  all but those whose place, counted from 0, is n, 2n ..
    {all_but: list}         all but those that are listed, counted from 0; all_but_counted: counted from 1. Of several rules the
                            first counts whose list the config has
    {from: n}               those behind the first n
    {all_but_first_and_every: n}  all but the first of the model, and the n-th, the 2n-th ..
    unrotated, rotated      those whose queries and keys are not rotated, or are
    listed                  those that attention_types calls local

`ends_with` is the type of the last layer, whatever else says otherwise.

`rotates`: all; sliding: those that slide; sliding_or_all: those, or all where none has a window; listed: as no_rope_layers says
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

from perfmodel.errors import InputError, NotSupportedError, shown
from perfmodel.exchange.families.cells import FamilyConfig, checked

SLIDING, FULL, LINEAR = "sliding_attention", "full_attention", "linear_attention"


class Mixer(NamedTuple):
    """What mixes the tokens of one layer."""

    attention: str
    is_rotated: bool
    feed_forward: str | None  # where the type of the layer says it
    own: Mapping[str, Any]  # by the field of a kind of layer, what the model has otherwise


def layer_mixers(config: FamilyConfig, row: Mapping[str, Any], layers: int, window: int | None) -> list[Mixer]:
    """The mixer of each layer. Errors: InputError, NotSupportedError."""
    listed = _listed_rotation(config, layers) if row["rotates"] == "listed" else [True] * layers
    words = _layer_types(config, row, window, listed)
    words[-1] = row.get("ends_with", words[-1])
    parts = [row["types"][word] for word in words]
    slides = [part["attention"] == "sliding" for part in parts]
    rotates = {"sliding": slides, "sliding_or_all": listed if window is None else slides}.get(row["rotates"], listed)
    own = {word: _own(config, row["types"][word].get("own", {})) for word in set(words)}
    every = zip(words, parts, rotates, strict=True)
    return [Mixer(part["attention"], rotate, part.get("feed_forward"), own[word]) for word, part, rotate in every]


def _own(config: FamilyConfig, cells: Mapping[str, Any]) -> dict[str, Any]:
    """What layers of a type have otherwise than the model, as far as the config says so."""
    return {name: value for name, cell in cells.items() if (value := own_value(config, cell)) is not None}


def own_value(config: FamilyConfig, cell: Any) -> Any:
    """What a cell decides of a kind of layer: a word or a truth of the table, or a size of the config. Errors: InputError."""
    value, key = config.decided(cell), config.key_of(cell)
    return value if value is None or isinstance(value, bool) or not key else checked(key, value, int)


def _layer_types(config: FamilyConfig, row: Mapping[str, Any], window: int | None, rotated: Sequence[bool]) -> list[str]:
    """The type of each layer, as layer_types has it; types that are said of fewer layers are repeated."""
    key, given = config.found("layer_types")
    if given is not None:
        types = [str(each) for each in given] if isinstance(given, str | list) else []
        if not types or not set(types) <= set(row["types"]):
            raise NotSupportedError(f"{shown(given)} is not covered; {', '.join(row['types'])} are", key=key)
        if window is None and any(row["types"][each]["attention"] == "sliding" for each in types):
            problem = f"missing; {key} has sliding layers, which need the number of tokens that they see"
            raise InputError(problem, key="sliding_window")
        return [types[layer % len(types)] for layer in range(len(rotated))]
    if "mixers" in row:
        return [LINEAR if chosen else FULL for chosen in _chosen_layers(config, row["mixers"], rotated)]
    return [SLIDING if slide else FULL for slide in _sliding_layers(config, row["slides"], window, rotated)]


def _sliding_layers(config: FamilyConfig, rule: Any, window: int | None, rotated: Sequence[bool]) -> list[bool]:
    """Whether each layer has a window."""
    if window is None:
        return [False] * len(rotated)
    if rule == "none":
        raise NotSupportedError(f"{window} is not covered without layer_types; only null is", key="sliding_window")
    if rule == "listed":
        local = _local_layers(config)
        return [local[layer % len(local)] for layer in range(len(rotated))]
    return _chosen_layers(config, rule, rotated)


def _chosen_layers(config: FamilyConfig, rule: Any, rotated: Sequence[bool]) -> list[bool]:
    """Whether a rule chooses each layer."""
    if rule == "typed":
        return [False] * len(rotated)
    if rule in ("unrotated", "rotated"):
        return [rotates == (rule == "rotated") for rotates in rotated]
    if rule == "all":
        return [True] * len(rotated)
    lists = {"all_but": 0, "all_but_counted": 1}
    *others, last = rule.items()
    name, cell = next((each for each in others if config.decided(each[1]) is not None), last)
    if name in lists:
        listed = config.places(cell)
        return [layer + lists[name] not in listed for layer in range(len(rotated))]
    size = config.decided(cell)
    checked(config.key_of(cell), size, int if name != "from" else float)
    tests: Mapping[str, Callable[[int], Any]] = {
        "all_but_every": lambda n: (n + 1) % size,
        "all_but_first_and_every": lambda n: n and (n + 1) % size,
        "all_but_first_of": lambda n: n % size,
        "all_but_multiples_of": lambda n: not n or n % size,
        "from": lambda n: n >= size,
    }
    return [bool(tests[name](layer)) for layer in range(len(rotated))]


def _local_layers(config: FamilyConfig) -> list[bool]:
    """GPT-Neo: [[["global", "local"], 12]] stands for twelve times both."""
    types = config.mapping.get("attention_types", [[["global", "local"], 1]])
    try:
        words = list(chain.from_iterable(list(names) * int(times) for names, times in types))
    except (TypeError, ValueError):
        words = []
    if not words or not set(map(str, words)) <= {"global", "local"}:
        raise InputError(f"{shown(types)} is no list of [[global, local], times]", key="attention_types")
    return [word == "local" for word in words]


def _listed_rotation(config: FamilyConfig, layers: int) -> list[bool]:
    """SmolLM3 and Llama 4: no_rope_layers has a 1 for each layer that is rotated (sic); without it every n-th layer is not."""
    given = config.mapping.get("no_rope_layers")
    if given is None or given == []:
        every = config.needed({"key": "no_rope_layer_interval"})
        return [bool((layer + 1) % every) for layer in range(layers)]
    if not isinstance(given, list) or len(given) != layers or not set(map(str, given)) <= {"0", "1"}:
        raise InputError(f"{shown(given)} is no list of a 0 or a 1 for each of {layers} layers", key="no_rope_layers")
    return [bool(each) for each in given]
