"""Which layers of a model slide, and which are rotated: from the types of its layers, or from the rule of its family.

`slides` of a row, where the config has no layer_types:
    none                    none of them may have a window
    all                     all of them
    {all_but_every: n}      all but the n-th, the 2n-th ..
    {all_but_first_of: n}   all but the first of each n
    {from: n}               those behind the first n
    unrotated               those whose queries and keys are not rotated
    listed                  those that attention_types calls local

`rotates`: all; sliding: those that slide; sliding_or_all: those, or all where none has a window; listed: as no_rope_layers says
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, Final

from perfmodel.errors import InputError, NotSupportedError, shown
from perfmodel.exchange.families.cells import FamilyConfig, checked

MOST_LAYERS: Final = 10_000  # each is looked at on its own
LAYER_TYPES: Final = {"sliding_attention": True, "full_attention": False}


def layer_settings(config: FamilyConfig, row: Mapping[str, Any], layers: int) -> dict[str, Any]:
    """`layer_kinds` and `layer_pattern` of a model of so many layers; nothing where all layers are alike and see all tokens.

    Errors: InputError, NotSupportedError.
    """
    if layers > MOST_LAYERS:
        key, _ = config.found("num_hidden_layers")
        raise InputError(f"{layers} layers are more than any model has; at most {MOST_LAYERS:,} are read", key=key)
    window = config.number(row["window"])
    listed = _listed_rotation(config, layers) if row["rotates"] == "listed" else [True] * layers
    slides = _sliding_layers(config, row["slides"], window, listed)
    rotates = {"sliding": slides, "sliding_or_all": listed if window is None else slides}.get(row["rotates"], listed)
    names = [
        ("sliding" if slide else "full") + ("" if rotate or row["position"] != "rotary" else "_unrotated")
        for slide, rotate in zip(slides, rotates, strict=True)
    ]
    if set(names) <= {"full"}:
        return {}
    kinds = {name: _kind(name, window) for name in sorted(set(names), reverse=True)}
    return {"layer_kinds": kinds, "layer_pattern": " ".join(shortest_period(names))}


def _kind(name: str, window: int | None) -> dict[str, Any]:
    kind: dict[str, Any] = {"attention": "sliding", "window": window} if name.startswith("sliding") else {"attention": "full"}
    return kind | ({"rotary": False} if name.endswith("_unrotated") else {})


def _sliding_layers(config: FamilyConfig, rule: Any, window: int | None, rotated: Sequence[bool]) -> list[bool]:
    """Whether each layer has a window."""
    types = config.mapping.get("layer_types")
    if types is not None:
        if not (isinstance(types, list) and types and set(map(str, types)) <= set(LAYER_TYPES)):
            raise NotSupportedError(f"{shown(types)} is not covered; {' and '.join(LAYER_TYPES)} are", key="layer_types")
        return _of_types([LAYER_TYPES[each] for each in types], window, len(rotated), key="layer_types")
    if window is None or rule == "all":
        return [window is not None] * len(rotated)
    if rule == "none":
        raise NotSupportedError(f"{window} is not covered without layer_types; only null is", key="sliding_window")
    if rule == "listed":
        return _of_types(_local_layers(config), window, len(rotated), key="attention_types")
    if rule == "unrotated":
        return [not rotates for rotates in rotated]
    ((name, cell),) = rule.items()
    size = config.decided(cell)
    checked(config.key_of(cell), size, int if name != "from" else float)
    tests = {"all_but_every": lambda n: (n + 1) % size, "all_but_first_of": lambda n: n % size, "from": lambda n: n >= size}
    return [bool(tests[name](layer)) for layer in range(len(rotated))]


def _of_types(slides: list[bool], window: int | None, layers: int, *, key: str) -> list[bool]:
    """What is said of each layer, as often as there are layers; types that are said of fewer layers are repeated."""
    if any(slides) and window is None:
        problem = f"missing; {key} has sliding layers, which need the number of tokens that they see"
        raise InputError(problem, key="sliding_window")
    return [slides[layer % len(slides)] for layer in range(layers)]


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
    """SmolLM3: no_rope_layers has a 1 for each layer that is rotated (sic); without it every n-th layer is not."""
    given = config.mapping.get("no_rope_layers")
    if given is None:
        every = config.needed({"key": "no_rope_layer_interval"})
        return [bool((layer + 1) % every) for layer in range(layers)]
    if not isinstance(given, list) or len(given) != layers or not set(map(str, given)) <= {"0", "1"}:
        raise InputError(f"{shown(given)} is no list of a 0 or a 1 for each of {layers} layers", key="no_rope_layers")
    return [bool(each) for each in given]


def shortest_period(words: Sequence[str]) -> Sequence[str]:
    """The shortest start of a sequence that gives all of it when it is repeated.

    >>> shortest_period(["sliding", "full", "sliding", "full", "sliding"])
    ['sliding', 'full']
    """
    sizes = range(1, len(words) + 1)
    return next(words[:size] for size in sizes if words[size:] == words[: len(words) - size])
