"""`perfmodel show`: every number of a preset with its source."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from perfmodel.commands.console import emit, form_of
from perfmodel.commands.options import AsCsv, AsJson, AsMarkdown, Output

if TYPE_CHECKING:
    from rich.console import RenderableType


def show(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A preset or a family of models, or KIND/NAME if two kinds share the name.")
    ],
    *,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    as_markdown: AsMarkdown = False,
    output: Output = None,
) -> None:
    """Show every number of a preset with its source.

    Examples:
    perfmodel show dgx-h100

    perfmodel show economics/typical

    perfmodel show kernels/h100-sxm-80gb --csv

    perfmodel show families/gemma3
    """
    from perfmodel.exchange.presets import preset_settings

    found = preset_settings(name)

    def document() -> Any:
        entries = {title: {key: {"value": value, "source": source} for key, value, source in rows} for title, rows in found}
        return {"schema_version": 1, "presets": entries}

    def report() -> RenderableType:
        from rich.console import Group

        from perfmodel.report.text.catalogue import preset_report

        return Group(*(preset_report(title, rows) for title, rows in found))

    emit(
        form_of(output, as_json=as_json, as_csv=as_csv, as_markdown=as_markdown),
        output,
        document=document,
        report=report,
        rows=lambda: [
            {"preset": title, "key": key, "value": value, "source": source}
            for title, rows in found
            for key, value, source in rows
        ],
    )
