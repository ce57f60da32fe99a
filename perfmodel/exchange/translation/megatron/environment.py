"""What environment variables of a launch change that is not read, with how it matters (data/formats/environment.yaml)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from perfmodel.exchange.syntax.documents import read_mapping
from perfmodel.exchange.translation.words.word_table import TABLES, word_table


@cache
def _variables() -> tuple[Mapping[str, str], ...]:
    return tuple(read_mapping(TABLES / "environment.yaml")["variables"])


def words_of(environment: Mapping[str, object]) -> dict[str, object]:
    """The variables that change the run as flags do."""
    known = word_table("megatron").read
    return {name: value for name, value in environment.items() if name in known}


def environment_sentences(environment: Mapping[str, object]) -> list[str]:
    """A sentence for each variable that is set to what could matter."""
    return [
        f"{row['name']}={environment[row['name']]}: {row['matters']}"
        for row in _variables()
        if row["name"] in environment and str(environment[row["name"]]) == row["value"]
    ]
