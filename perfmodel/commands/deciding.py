"""What to change: `whatif` and `sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perfmodel.commands.console import drawing_module, emit_json, emit_table, kind_of, printed, wants_json, write_file
from perfmodel.commands.options import AsJson, Output, Overrides, RunName
from perfmodel.errors import InputError

if TYPE_CHECKING:
    from perfmodel.planning.sweep import Sweep

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
ShownStage = Annotated[int | None, typer.Option("--stage", metavar="N", help="Which stage of a ramp, from 1; else the last.")]


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
    from perfmodel.exchange.scenario_texts import read_scenarios

    wanted = read_scenarios(changes or (), scenarios or ())
    if not wanted:
        raise InputError("nothing is changed; say what, as in --set tensor_parallel=4")
    result = api.whatif(run, wanted, base=base or (), stage=stage, same_gpus=same_gpus)
    if wants_json(as_json, output):
        from perfmodel.report.scenario_documents import whatif_document

        emit_json(whatif_document(result), output)
    else:
        from perfmodel.report.scenario_tables import whatif_report

        emit_table(whatif_report(result), output)
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
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, every number of every point, instead of tables.")] = False,
    as_json: AsJson = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write to FILE instead (CSV or JSON by its ending).")
    ] = None,
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
    from perfmodel.exchange.scenario_texts import read_varied

    figures = drawing_module(figure, "perfmodel.report.sweep_figure")
    result = api.sweep(runs, read_varied(vary or ()), settings=overrides or (), stage=stage, weak=weak)
    _emit_sweep(result, as_csv=as_csv, as_json=as_json, output=output)
    if figure is not None:
        write_file(figures.picture(figures.sweep_figure(result), kind_of(figure)), figure)
    if not result.fits:
        raise typer.Exit(1)


def _emit_sweep(result: Sweep, *, as_csv: bool, as_json: bool, output: Path | None) -> None:
    """As it was asked for, or as the name of the file says."""
    from perfmodel.report.sweep_documents import sweep_csv, sweep_document

    if wants_json(as_json, output):
        emit_json(sweep_document(result), output)
    elif as_csv or (output is not None and kind_of(output) == "csv"):
        text = sweep_csv(result)
        write_file(text, output) if output is not None else printed(text)
    else:
        from perfmodel.report.sweep_tables import sweep_report

        emit_table(sweep_report(result), output)
