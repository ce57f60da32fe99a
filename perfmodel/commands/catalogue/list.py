"""`perfmodel list`: the presets that a run file can name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from perfmodel.commands.completion import preset_kinds
from perfmodel.commands.console import emit, form_of
from perfmodel.commands.options import AsCsv, AsJson, AsMarkdown, Output

if TYPE_CHECKING:
    from rich.console import RenderableType


def list_presets(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="[KIND]",
            help="runs, models, clusters, gpus, kernels, links, collectives, stacks, economics, or families: those of models "
            "whose Hugging Face config.json is read. Default: all.",
            autocompletion=preset_kinds,
        ),
    ] = "",
    *,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    as_markdown: AsMarkdown = False,
    output: Output = None,
) -> None:
    """List the presets that a run file can name.

    Examples:
    perfmodel list

    perfmodel list models --csv

    perfmodel list families
    """
    from perfmodel.exchange.presets import preset_titles

    presets = preset_titles(kind)

    def report() -> RenderableType:
        from perfmodel.report.text.catalogue import preset_list

        return preset_list(presets)

    emit(
        form_of(output, as_json=as_json, as_csv=as_csv, as_markdown=as_markdown),
        output,
        document=lambda: {"schema_version": 1} | presets,
        report=report,
        rows=lambda: [
            {"kind": each, "name": name, "title": title} for each in presets for name, title in presets[each].items()
        ],
    )
