"""The words of a format for what a run is: its table of words (word_table.py), read from the other side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from perfmodel.errors import NotSupportedError, shown
from perfmodel.exchange.translation.words.word_table import Word, word_table

NO_WORD: Final = object()


def spelled(values: Mapping[str, Any], *, table: str, software: str) -> dict[str, Any]:
    """Keys of a run and facts, by their names, as words of a format: of several words for one of them the first that fits.

    A switch that is off where the word switches it on is the word with false.

    Errors: NotSupportedError, with the key or the fact, for a value that no word says.

    >>> spelled({"tensor_parallel": 2, "replicas": 4, "precision": "bf16"}, table="nanotron", software="nanotron")
    {'parallelism.tp': 2, 'parallelism.dp': 4, 'model.dtype': 'bfloat16'}
    """
    words: dict[str, list[Word]] = {}
    for word in word_table(table).read.values():
        words.setdefault(word.key or word.fact, []).append(word)
    found = {}
    for name, value in values.items():
        given = next(((each.name, said) for each in words.get(name, ()) if (said := _said(each, value)) is not NO_WORD), None)
        if given is None:
            problem = f"{value if isinstance(value, str) else shown(value)} cannot be said in {software}"
            raise NotSupportedError(problem, key=name)
        found[given[0]] = given[1]
    return found


def as_sections(words: Mapping[str, Any]) -> dict[str, Any]:
    """Words that are key paths as nested mappings, in the order in which they come.

    >>> as_sections({"tokens.train_steps": 10, "model.dtype": "bfloat16", "tokens.micro_batch_size": 1})
    {'tokens': {'train_steps': 10, 'micro_batch_size': 1}, 'model': {'dtype': 'bfloat16'}}
    """
    result: dict[str, Any] = {}
    for path, value in words.items():
        *steps, last = path.split(".")
        place = result
        for step in steps:
            place = place.setdefault(step, {})
        place[last] = value
    return result


def _said(word: Word, value: Any) -> Any:
    """What a word is given so that it means a value; NO_WORD where it cannot mean it."""
    if word.value is not None:
        if word.value == value:
            return True
        return False if word.value is True and value is False else NO_WORD
    if word.values is None:
        return value
    given = next((each for each, meaning in word.values.items() if meaning == value), NO_WORD)
    return int(given) if isinstance(given, str) and given.isdecimal() else given
