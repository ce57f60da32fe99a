"""Which families of models are read: the rows of data/model_families.yaml, by every name that a family has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from perfmodel.errors import NotSupportedError, shown
from perfmodel.exchange.syntax.documents import read_mapping
from perfmodel.light_dataclass import dataclass

NOTHING: Final = frozenset({"none", False, None})
PARTS_IN_WORDS: Final = {  # parts that not every family has
    "slides": "windows",
    "qk_norm": "QK norm",
    "parallel_residual": "parallel parts",
    "post_norms": "norms behind parts",
    "embedding_norm": "norm of embeddings",
    "softcaps": "soft caps",
    "scales": "constant factors",
    "sinks": "sinks",
    "attention_gate": "a gate behind attention",
}
SECTIONS: Final = {  # parts of layers that a family may have, as `parts` of the table has them where a row says nothing else
    "mixture": "experts",
    "latent": "latent attention",
    "indexer": "an indexer",
    "state_space": "Mamba-2",
    "delta": "gated delta",
}
TABLE: Final = Path(__file__).parents[2] / "data" / "model_families.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyTable:
    """The parts of each family, what its keys are also called, and what is known of families that are not counted yet."""

    rows: Mapping[str, Mapping[str, Any]]  # by every name of a family
    aliases: Mapping[str, tuple[str, ...]]
    refused: Mapping[str, str]  # family -> what it is
    ways_on: Mapping[str, str]  # by what a family is: what to do about it, where no model that comes near can be written
    parts: Mapping[str, Mapping[str, Any]]  # of layers: their cells where a row says nothing else
    titles: Mapping[str, str]  # the parts of each family in words, once under its first name
    source: str  # what the rows were read from


@cache
def family_table() -> FamilyTable:
    """The table as it is shipped, read once."""
    table = read_mapping(TABLE)
    families: Mapping[str, Mapping[str, Any]] = table["families"]
    rows: dict[str, Mapping[str, Any]] = {}
    for family, own in families.items():
        row = _whole_row(own, families, table["common"])
        row = row | {part: table["parts"][part] | row[part] for part in SECTIONS if row.get(part) is not None}
        rows |= dict.fromkeys((family, *own.get("also", ())), row)
    return FamilyTable(
        rows=rows,
        aliases={key: (key, *others) for key, others in table["aliases"].items()},
        refused={family: what for what, several in table["refused"].items() for family in several},
        ways_on=table["ways_on"],
        parts=table["parts"],
        source=table["source"],
        titles={family: _in_words(rows[family], families[family].get("also", ())) for family in sorted(families)},
    )


def _whole_row(own: Mapping[str, Any], families: Mapping[str, Mapping[str, Any]], common: Mapping[str, Any]) -> dict[str, Any]:
    """A row with what it takes from the row that it extends, or from all families."""
    base = _whole_row(families[own["extends"]], families, common) if "extends" in own else common
    return _over(base, own)


def _over(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Parts of one's own in place of those of another row; tables of parts and of defaults are laid over, entry by entry."""
    tables = ("biases", "softcaps", "scales", "only", "defaults", "nested", "types", *SECTIONS)
    joined = {key: {**(base.get(key) or {}), **own[key]} for key in tables if own.get(key) is not None}
    named = ("extends", "also")
    return {key: value for key, value in {**base, **own, **joined}.items() if key not in named}


def family_row(family: str) -> Mapping[str, Any]:
    """The parts of a family. Errors: NotSupportedError for a family that is known but not counted yet, or not known."""
    table = family_table()
    if family in table.rows:
        return table.rows[family]
    known = f"known but not supported yet: it is {table.refused[family]}" if family in table.refused else "not covered"
    raise NotSupportedError(f"{shown(family)} is {known}; perfmodel list families has those that are read", key="model_type")


def _in_words(row: Mapping[str, Any], also: Sequence[str]) -> str:
    """What a family is made of, and what it is also called."""
    parts = [" or ".join(sorted(_outcomes(row["norm"]))), "gated" if row["gated"] else "not gated"]
    parts += [" or ".join(sorted(_outcomes(row["position"])))]
    parts += [words for key, words in PARTS_IN_WORDS.items() if _outcomes(row.get(key, "none")) - NOTHING]
    biased = [product for product, cell in row["biases"].items() if _outcomes(cell) - NOTHING]
    parts += [f"biases ({', '.join(biased)})"] if biased else []
    parts += [words for part, words in SECTIONS.items() if row.get(part) is not None]
    return ", ".join(parts) + (f" (also {', '.join(also)})" if also else "")


def _outcomes(cell: Any) -> set[Any]:
    """Everything that a cell, or one of a table of cells, may decide."""
    if not isinstance(cell, Mapping):
        return {cell}
    if "if" in cell:
        return _outcomes(cell["then"]) | _outcomes(cell["else"]) if "then" in cell else {True, False}
    return set().union(*map(_outcomes, cell.values()))
