"""Which families of models are read: the rows of data/model_families.yaml, by every name that a family has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from perfmodel.errors import NotSupportedError, shown
from perfmodel.exchange.documents import read_mapping

TABLE: Final = Path(__file__).parents[2] / "data" / "model_families.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyTable:
    """The parts of each family, what its keys are also called, and what is known of families that are not counted yet."""

    rows: Mapping[str, Mapping[str, Any]]  # by every name of a family
    aliases: Mapping[str, tuple[str, ...]]
    refused: Mapping[str, str]  # family -> what it is
    experts: tuple[str, ...]  # keys that say how many experts there are
    sentence: str  # the names of the families that are read, one of each


@cache
def family_table() -> FamilyTable:
    """The table as it is shipped, read once."""
    table = read_mapping(TABLE)
    families: Mapping[str, Mapping[str, Any]] = table["families"]
    rows: dict[str, Mapping[str, Any]] = {}
    for family, own in families.items():
        row = _whole_row(own, families, table["common"])
        rows |= dict.fromkeys((family, *own.get("also", ())), row)
    return FamilyTable(
        rows=rows,
        aliases={key: (key, *others) for key, others in table["aliases"].items()},
        refused={family: what for what, several in table["refused"].items() for family in several},
        experts=tuple(table["experts"]),
        sentence=", ".join(sorted(families)),
    )


def _whole_row(own: Mapping[str, Any], families: Mapping[str, Mapping[str, Any]], common: Mapping[str, Any]) -> dict[str, Any]:
    """A row with what it takes from the row that it extends, or from all families."""
    base = _whole_row(families[own["extends"]], families, common) if "extends" in own else common
    return _over(base, own)


def _over(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Parts of one's own in place of those of another row; tables of parts and of defaults are laid over, entry by entry."""
    tables = ("biases", "softcaps", "scales", "only", "defaults", "nested")
    joined = {key: {**base.get(key, {}), **own[key]} for key in tables if key in own}
    return {**base, **own, **joined}


def family_row(family: str) -> Mapping[str, Any]:
    """The parts of a family. Errors: NotSupportedError for a family that is known but not counted yet, or not known."""
    table = family_table()
    if family in table.rows:
        return table.rows[family]
    if family in table.refused:
        problem = f"{shown(family)} is known but not supported yet: it is {table.refused[family]}"
        raise NotSupportedError(problem, key="model_type")
    raise NotSupportedError(f"{shown(family)} is not covered; {table.sentence} are", key="model_type")
