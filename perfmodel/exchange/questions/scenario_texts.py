"""How `--scenario` and `--vary` are typed: `TP 4: tensor_parallel=4, micro_batch_size=2`, `tensor_parallel=1..8`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from perfmodel.errors import InputError, shown

OPENING: Final = "[{("
CLOSING: Final = "]})"


def read_scenarios(changes: Sequence[str], texts: Sequence[str]) -> dict[str, list[str]]:
    """The settings of each scenario by its name: `changes` together are one scenario, each of `texts` is another.

    The name of a scenario stands before a colon; without one, its settings are its name.

    >>> read_scenarios(["precision=fp8"], ["TP 4: tensor_parallel=4, micro_batch_size=2"])
    {'precision=fp8': ['precision=fp8'], 'TP 4': ['tensor_parallel=4', 'micro_batch_size=2']}
    """
    found = {", ".join(changes): list(changes)} if changes else {}
    for text in texts:
        head, equals, _ = text.partition("=")
        if not equals:
            raise InputError(f'{shown(text)} is not a scenario; write --scenario "NAME: key=value, key=value"')
        name, colon, _ = head.rpartition(":")
        settings = split_outside_brackets(text[len(name) + len(colon) :])
        name = name.strip() or ", ".join(settings)
        if name in found:
            raise InputError(f"two scenarios are called {shown(name)}; give one of them another name")
        found[name] = settings
    return found


def split_outside_brackets(text: str) -> list[str]:
    """The pieces of a text between commas outside brackets, without the space around them.

    >>> split_outside_brackets("cluster=[dgx-h200, dgx-b200], precision=fp8")
    ['cluster=[dgx-h200, dgx-b200]', 'precision=fp8']
    """
    pieces, depth = [""], 0
    for letter in text:
        depth += (letter in OPENING) - (letter in CLOSING)
        if letter == "," and depth <= 0:
            pieces.append("")
        else:
            pieces[-1] += letter
    return [piece.strip() for piece in pieces]


def read_varied(texts: Sequence[str]) -> dict[str, str]:
    """The values of each axis of a sweep by its key, as they are typed.

    >>> read_varied(["tensor_parallel=1..8"])
    {'tensor_parallel': '1..8'}
    """
    found: dict[str, str] = {}
    for text in texts:
        key, equals, values = text.partition("=")
        if not equals or not key.strip():
            raise InputError(f"{shown(text)} is not an axis; write --vary key=a,b,c or key=lo..hi")
        if key.strip() in found:
            raise InputError("varied twice; give all its values at once, as in key=a,b,c", key=key.strip())
        found[key.strip()] = values
    return found
