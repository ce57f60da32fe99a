"""What to change: `whatif` and `sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perfmodel.commands.console import drawing_module, emit, form_of, kind_of, write_file
from perfmodel.commands.options import AsCsv, AsJson, AsMarkdown, Output, Overrides, RunName, ShownStage
from perfmodel.errors import InputError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from perfmodel.variation.scenarios import WhatIf
    from perfmodel.variation.sweep import Sweep

Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="What changes; all --set together are one scenario."),
]
Scenarios = Annotated[
    list[str] | None,
    typer.Option(
        "--scenario", metavar='"NAME: KEY=VALUE, .."', help="One more scenario, a column of its own; any number of times."
    ),
]
Base = Annotated[
    list[str] | None, typer.Option("--base", metavar="KEY=VALUE", help="Override a key on both sides, before and after.")
]


def whatif(
    run: RunName,
    changes: Changes = None,
    scenarios: Scenarios = None,
    *,
    base: Base = None,
    stage: ShownStage = None,
    same_gpus: Annotated[
        bool, typer.Option("--same-gpus", help="Every stage keeps its GPUs: data parallelism gives or takes.")
    ] = False,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    as_markdown: AsMarkdown = False,
    output: Output = None,
) -> None:
    """RUN before and after a change: time, MFU, memory, days and cost, part by part. Exit code 1 when the change does not fit.

    A value may be a factor: x0.5 is half of what is there.
    stages[-1] is the last stage of a ramp, stages[*] is every stage.
    Each value of a list is a scenario.

    Examples:
    perfmodel whatif nemotron-4-15b --set 'stages[-1].data_parallel=384'

    perfmodel whatif nemotron-4-15b --set cluster.links.network.bandwidth_bytes_per_s=800Gb/s

    perfmodel whatif nemotron-4-15b --set cluster=dgx-h200 --scenario cluster=dgx-b200

    perfmodel whatif nemotron-4-15b --set tensor_parallel=4 --same-gpus

    perfmodel whatif nemotron-4-15b --set precision=fp8

    perfmodel whatif nemotron-4-15b --set stack.tensor_parallel_overlap=none --set stack.data_parallel_overlap=false

    perfmodel whatif nemotron-4-15b --set 'stages[*].global_batch_size=x0.5'

    perfmodel whatif run.yaml --scenario "H200: cluster=dgx-h200" --scenario "TP 4: tensor_parallel=4, micro_batch_size=2"
    """
    from perfmodel import api
    from perfmodel.exchange.questions.scenario_texts import read_scenarios

    wanted = read_scenarios(changes or (), scenarios or ())
    if not wanted:
        raise InputError("nothing is changed; say what, as in --set tensor_parallel=4")
    form = form_of(output, as_json=as_json, as_csv=as_csv, as_markdown=as_markdown)
    result = api.whatif(run, wanted, base=base or (), stage=stage, same_gpus=same_gpus)
    emit(form, output, document=lambda: _whatif_document(result), report=lambda: _whatif_report(result), rows=result.rows)
    if not result.fits:
        raise typer.Exit(1)


def sweep(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Preset runs or run files; several are an axis.")],
    overrides: Overrides = None,
    vary: Annotated[
        list[str] | None,
        typer.Option("--vary", metavar="KEY=VALUES", help="An axis: a,b,c or lo..hi or lo..hixN, one or two of them."),
    ] = None,
    *,
    weak: Annotated[bool, typer.Option("--weak", help="The global batch grows with data parallelism.")] = False,
    stage: ShownStage = None,
    figure: Annotated[
        Path | None,
        typer.Option("--figure", metavar="FILE", help="Draw it to FILE.png or .svg: a curve, or a map."),
    ] = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    as_markdown: AsMarkdown = False,
    output: Output = None,
) -> None:
    """RUN at every combination of values: time, MFU, memory, days, and the scaling where GPUs grow. Exit code 1 when none fits.

    The values of an axis:
    a,b,c: numbers, words, presets; x0.5 is half of what the run has;
    lo..hi: doubling from lo, hi included;
    lo..hixN: N values, even on a log scale, counts rounded.

    The key gpus sets data_parallel. The global batch stays (strong scaling),
    or with --weak grows with it. What cannot be is listed with the reason.

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
    result = api.sweep(runs, read_varied(vary or ()), settings=overrides or (), stage=stage, weak=weak)
    emit(form, output, document=lambda: _sweep_document(result), report=lambda: _sweep_report(result), rows=result.rows)
    if figure is not None:
        write_file(figures.picture(figures.sweep_figure(result), kind_of(figure)), figure)
    if not result.fits:
        raise typer.Exit(1)


def _whatif_document(result: WhatIf) -> dict[str, Any]:
    from perfmodel.report.json.scenarios import whatif_document

    return whatif_document(result)


def _whatif_report(result: WhatIf) -> RenderableType:
    from perfmodel.report.text.scenarios import whatif_report

    return whatif_report(result)


def _sweep_document(result: Sweep) -> dict[str, Any]:
    from perfmodel.report.json.sweep import sweep_document

    return sweep_document(result)


def _sweep_report(result: Sweep) -> RenderableType:
    from perfmodel.report.text.sweep import sweep_report

    return sweep_report(result)
