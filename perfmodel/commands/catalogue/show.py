"""`perfmodel show`: every number of a preset with its source."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perfmodel.commands.console import emit, form_of
from perfmodel.commands.options import AsCsv, AsJson, AsMarkdown, Output

if TYPE_CHECKING:
    from rich.console import RenderableType


def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="A preset, a family of models, or a config.json; KIND/NAME if two kinds share the name."
        ),
    ],
    *,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    as_markdown: AsMarkdown = False,
    output: Output = None,
) -> None:
    """Show every number of a preset with its source; of a model also its parameters and FLOPs a token.

    Examples:
    perfmodel show llama-3.1-8b

    perfmodel show dgx-h100

    perfmodel show economics/typical

    perfmodel show kernels/h100-sxm-80gb --csv

    perfmodel show families/gemma3
    """
    from perfmodel.exchange.questions.shown_settings import shown_counts, shown_settings

    found = shown_settings(name)
    counts = shown_counts(found)

    def document() -> Any:
        entries = {title: {key: {"value": value, "source": source} for key, value, source in rows} for title, rows in found}
        counted = {title: asdict(counts[title]) for title, _ in found if title in counts}
        return {"schema_version": 1, "counted": counted, "presets": entries}

    def report() -> RenderableType:
        from rich.console import Group

        from perfmodel.report.text.catalogue import preset_report

        return Group(*(preset_report(title, rows, counts.get(title)) for title, rows in found))

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
