"""`perfmodel sweep`: one stage of a run at every combination of values."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perfmodel.commands.completion import varied_words
from perfmodel.commands.console import STOPPED, drawing_module, emit, form_of, kind_of, write_file
from perfmodel.commands.options import (
    AsCsv,
    AsJson,
    AsMarkdown,
    Evidence,
    Gpus,
    Model,
    OnCluster,
    Output,
    Overrides,
    ShownStage,
    Tokens,
    asked,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

    from perfmodel.variation.sweep import Sweep


def sweep(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Preset runs or run files; several form an axis.")],
    overrides: Overrides = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            "--vary",
            metavar="KEY=VALUES",
            help="An axis: a,b,c or lo..hi or lo..hixN. Repeatable, up to two axes.",
            autocompletion=varied_words,
        ),
    ] = None,
    *,
    model: Model = None,
    cluster: OnCluster = None,
    gpus: Gpus = None,
    tokens: Tokens = None,
    evidence: Evidence = None,
    weak: Annotated[bool, typer.Option("--weak", help="Weak scaling: grow the global batch with data parallelism.")] = False,
    grow_gpus: Annotated[
        bool,
        typer.Option(
            "--grow-gpus", help="Keep data_parallel where other degrees are varied; GPUs grow. Default: keep the GPUs."
        ),
    ] = False,
    stage: ShownStage = None,
    figure: Annotated[
        Path | None,
        typer.Option("--figure", metavar="FILE", help="Draw a curve or a map to FILE (.png or .svg)."),
    ] = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    as_markdown: AsMarkdown = False,
    output: Output = None,
) -> None:
    """Predict RUN at every combination of values: time, MFU, memory, days, scaling efficiency. Exit code 1 if none fits.

    The values of an axis:
    a,b,c: numbers, words or presets; x0.5 is half the value of the run.
    lo..hi: doubling from lo, including hi.
    lo..hixN: N values evenly spaced on a log scale; counts are rounded.

    The key gpus sets data_parallel. Where other degrees of parallelism are varied,
    the GPUs stay and data_parallel adapts, unless --grow-gpus. The global batch is constant (strong scaling)
    or, with --weak, grows with data_parallel. Invalid points are listed with the reason.
    Ctrl-C shows the points that were reached.

    Examples:
    perfmodel sweep nemotron-4-15b --vary tensor_parallel=1..8 --vary micro_batch_size=1,2,4

    perfmodel sweep nemotron-4-15b --vary gpus=96..3072 --figure strong.png

    perfmodel sweep nemotron-4-15b --vary gpus=96..3072 --vary cluster=dgx-h100,dgx-h200 --weak -o weak.csv

    perfmodel sweep a.yaml b.yaml c.yaml
    """
    from perfmodel import api
    from perfmodel.exchange.questions.scenario_texts import read_varied

    form = form_of(output, as_json=as_json, as_csv=as_csv, as_markdown=as_markdown)
    figures = drawing_module(figure, "perfmodel.report.figures.sweep")
    sources = [asked(run, model, cluster, gpus, tokens, settings=overrides) for run in runs]
    growth: dict[str, Any] = {"weak": weak, "grow_gpus": grow_gpus}
    result = api.sweep(sources, read_varied(vary or ()), settings=overrides or (), stage=stage, evidence=evidence, **growth)
    emit(form, output, document=lambda: _document(result), report=lambda: _report(result), rows=result.rows)
    if figure is not None and result.complete:
        write_file(figures.picture(figures.sweep_figure(result), kind_of(figure)), figure)
    if not result.complete:
        raise typer.Exit(STOPPED)
    if not result.fits:
        raise typer.Exit(1)


def _document(result: Sweep) -> dict[str, Any]:
    from perfmodel.report.json.sweep import sweep_document

    return sweep_document(result)


def _report(result: Sweep) -> RenderableType:
    from perfmodel.report.text.sweep import sweep_report

    return sweep_report(result)
