"""`perfmodel whatif`: a run before and after changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from perfmodel.commands.completion import setting_words
from perfmodel.commands.console import emit, form_of
from perfmodel.commands.options import (
    AsCsv,
    AsJson,
    AsMarkdown,
    Evidence,
    Gpus,
    Model,
    OnCluster,
    Output,
    RunName,
    ShownStage,
    Tokens,
    asked,
)
from perfmodel.errors import InputError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from perfmodel.variation.scenarios import WhatIf

Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="A change, as in tensor_parallel=4; all --set together are one scenario. Repeatable.",
        autocompletion=setting_words,
    ),
]
Scenarios = Annotated[
    list[str] | None,
    typer.Option("--scenario", metavar='"NAME: KEY=VALUE, .."', help="A further scenario, in its own column. Repeatable."),
]
Base = Annotated[
    list[str] | None,
    typer.Option(
        "--base",
        metavar="KEY=VALUE",
        help="Override a key both before and after the change. Repeatable.",
        autocompletion=setting_words,
    ),
]


def whatif(
    run: RunName = "",
    changes: Changes = None,
    scenarios: Scenarios = None,
    *,
    model: Model = None,
    cluster: OnCluster = None,
    gpus: Gpus = None,
    tokens: Tokens = None,
    base: Base = None,
    evidence: Evidence = None,
    stage: ShownStage = None,
    same_gpus: Annotated[
        bool, typer.Option("--same-gpus", help="Keep the GPUs of each stage; data parallelism adapts.")
    ] = False,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    as_markdown: AsMarkdown = False,
    output: Output = None,
) -> None:
    """Compare RUN before and after a change: time, MFU, memory, days, cost. Exit code 1 if the changed run does not fit.

    A value may be a factor: x0.5 halves the value of the run.
    stages[-1] is the last stage of a ramp, stages[*] is every stage.
    A list of values makes one scenario per value.

    Examples:
    perfmodel whatif nemotron-4-15b --set 'stages[-1].data_parallel=384'

    perfmodel whatif nemotron-4-15b --set cluster.links.network.bandwidth_bytes_per_s=800Gb/s

    perfmodel whatif nemotron-4-15b --set cluster=dgx-h200 --scenario cluster=dgx-b200

    perfmodel whatif nemotron-4-15b --set tensor_parallel=4 --same-gpus

    perfmodel whatif nemotron-4-15b --set precision=fp8

    perfmodel whatif nemotron-4-15b --set stack.overlap.tensor_parallel=none --set stack.overlap.data_parallel=false

    perfmodel whatif nemotron-4-15b --set 'stages[*].global_batch_size=x0.5'

    perfmodel whatif run.yaml --scenario "H200: cluster=dgx-h200" --scenario "TP 4: tensor_parallel=4, micro_batch_size=2"
    """
    from perfmodel import api
    from perfmodel.exchange.questions.scenario_texts import read_scenarios

    wanted = read_scenarios(changes or (), scenarios or ())
    if not wanted:
        raise InputError("nothing is changed; say what, as in --set tensor_parallel=4")
    form = form_of(output, as_json=as_json, as_csv=as_csv, as_markdown=as_markdown)
    source = asked(run, model, cluster, gpus, tokens, settings=base)
    result = api.whatif(source, wanted, base=base or (), stage=stage, same_gpus=same_gpus, evidence=evidence)
    emit(form, output, document=lambda: _document(result), report=lambda: _report(result), rows=result.rows)
    if not result.may_fit:
        raise typer.Exit(1)


def _document(result: WhatIf) -> dict[str, Any]:
    from perfmodel.report.json.scenarios import whatif_document

    return whatif_document(result)


def _report(result: WhatIf) -> RenderableType:
    from perfmodel.report.text.scenarios import whatif_report

    return whatif_report(result)
