"""What a format takes where it is silent (data/formats/*_defaults.yaml, vocabularies.yaml), with a sentence for each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from perfmodel.errors import InputError, shown
from perfmodel.exchange.syntax.documents import read_mapping
from perfmodel.exchange.translation.words.word_table import TABLES
from perfmodel.light_dataclass import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Default:
    """The value of a key where nothing is said, and the sentence that says so: empty where everybody takes the same."""

    key: str
    value: Any
    says: str


@cache
def _defaults(name: str) -> tuple[Default, ...]:
    return tuple(Default(**row) for row in read_mapping(TABLES / f"{name}_defaults.yaml")["defaults"])


def defaults_of(name: str, start: str = "") -> Iterator[Default]:
    """The defaults of a format whose keys begin so."""
    return (each for each in _defaults(name) if each.key.startswith(start))


@cache
def _vocabularies() -> tuple[tuple[re.Pattern[str], int, str], ...]:
    rows = read_mapping(TABLES / "vocabularies.yaml")["vocabularies"]
    return tuple((re.compile(row["pattern"]), int(row["size"]), row["name"]) for row in rows)


def vocabulary_of(facts: Mapping[str, Any]) -> tuple[int, str]:
    """The entries of the vocabulary, and a sentence where a tokenizer's name, or nothing, stands for their number."""
    for fact in ("padded_vocab_size", "vocab_size"):  # what the software itself makes of the other
        if facts.get(fact) is not None:
            size = facts[fact]
            if isinstance(size, bool) or not isinstance(size, int | float) or size < 1:
                raise InputError(f"{shown(size)} is no number of entries", key=fact)
            return int(size), ""
    tokenizer = " ".join(str(facts[name]) for name in ("tokenizer_type", "tokenizer_model") if facts.get(name))
    size, name = next((size, name) for pattern, size, name in _vocabularies() if pattern.search(tokenizer))
    stated = f"the tokenizer is {tokenizer}" if tokenizer else "no tokenizer is named"
    return size, f"the size of the vocabulary is not given ({stated}): {size:,} entries, {name}, are assumed"
