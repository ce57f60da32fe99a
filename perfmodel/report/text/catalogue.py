"""How presets look on a terminal: what there is, and every number of one with its source."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

from perfmodel.count.model_counts import ModelCounts
from perfmodel.report.text.terminal import Name, section, value_text
from perfmodel.units import large_text, parse_quantity

GIGA: Final = 1e9


def preset_list(presets: Mapping[str, Mapping[str, str]]) -> Group:
    """The names of all presets by kind, with what each stands for."""
    width = max(len(name) for names in presets.values() for name in names)
    return Group(
        *(section(kind, [(f"{name:{width}}", title) for name, title in names.items()]) for kind, names in presets.items())
    )


def counts_text(counts: ModelCounts) -> Text:
    """8.030B parameters; 51.5 GFLOP a token in training: what follows from the dimensions of a model."""
    is_sparse = counts.active_parameters < counts.parameters
    active = f", {large_text(counts.active_parameters)} of them for each token" if is_sparse else ""
    full, causal = (each / GIGA for each in (counts.model_flop_per_token, counts.model_flop_per_token_causal))
    length = f"in sequences of {counts.sequence_length:,} tokens"
    flop = (
        f"{full:,.4g} GFLOP of model FLOPs a token in training {length} (attention in full; {causal:,.4g} with its causal half)"
    )
    return Text(f"{large_text(counts.parameters)} parameters{active}; {flop}.")


def preset_report(title: str, settings: Sequence[tuple[str, Any, str]], counts: ModelCounts | None = None) -> Group:
    """Every setting of a preset with its value, how far it may be off, and numbers that point to the sources below.

    Above them stand the `counts` of a model.
    """
    spreads = {_number_of(key): (_percent(value), source) for key, value, source in settings if _number_of(key) != key}
    rows = [(*each, *spreads.get(each[0], ("", ""))) for each in settings if _number_of(each[0]) == each[0]]
    named = dict.fromkeys(source for *_, of_value, _, of_spread in rows for source in (of_value, of_spread) if source)
    marks = {source: f"[{number}]" for number, source in enumerate(named, start=1)}
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for overflow, no_wrap in (("fold", False), ("fold", False), ("ignore", True), ("ignore", True)):
        table.add_column(overflow=overflow, no_wrap=no_wrap)  # type: ignore[arg-type]
    for key, value, of_value, spread, of_spread in rows:
        own = " ".join(marks[source] for source in dict.fromkeys((of_value, of_spread)) if source)
        table.add_row(Name(key), value_text(value), spread, own)
    counted = [] if counts is None else [counts_text(counts)]
    return Group(
        Text(title, style="bold"), *counted, table, section("Sources", [(mark, source) for source, mark in marks.items()])
    )


def _percent(spread: Any) -> str:
    """A relative half width, as a file has it: 50% or 0.5."""
    return f"+-{100 * parse_quantity(spread, 'ratio'):.3g} %"


def _number_of(key: str) -> str:
    """The key path of the number that a spread belongs to; that of any other setting is its own."""
    return re.sub(r"(^|\.)spread\.", r"\1", key, count=1)
