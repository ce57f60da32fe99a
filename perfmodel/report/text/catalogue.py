"""How presets look on a terminal: what there is, and every number of one with its source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from perfmodel.report.text.terminal import section, value_text


def preset_list(presets: Mapping[str, Mapping[str, str]]) -> Group:
    """The names of all presets by kind, with what each stands for."""
    width = max(len(name) for names in presets.values() for name in names)
    return Group(
        *(section(kind, [(f"{name:{width}}", title) for name, title in names.items()]) for kind, names in presets.items())
    )


def preset_report(title: str, settings: Sequence[tuple[str, Any, str]]) -> Group:
    """Every setting of a preset with its value and a number that points to its source below."""
    sources = list(dict.fromkeys(source for _, _, source in settings if source))
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for overflow, no_wrap in (("fold", False), ("fold", False), ("ignore", True)):
        table.add_column(overflow=overflow, no_wrap=no_wrap)  # type: ignore[arg-type]
    for key, value, source in settings:
        table.add_row(key, value_text(value), f"[{sources.index(source) + 1}]" if source else "")
    numbered = [(f"[{number}]", source) for number, source in enumerate(sources, start=1)]
    return Group(Text(title, style="bold"), table, section("Sources", numbered))
