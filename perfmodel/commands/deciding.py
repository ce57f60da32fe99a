"""What to change: `whatif` and `sweep`."""

from __future__ import annotations

from typing import Annotated

import typer

from perfmodel.commands.console import emit_json, emit_table, wants_json
from perfmodel.commands.options import AsJson, Output, RunName
from perfmodel.errors import InputError

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

    A value may be a factor: x0.5 is half of what is there. stages[-1] is the last stage of a ramp, stages[*] is every stage.
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
