"""`perfmodel timeline`: one iteration of a run in time, as a trace."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from perfmodel.commands.console import check_ending, emit, form_of, write_file
from perfmodel.commands.options import (
    AsCsv,
    AsJson,
    AsMarkdown,
    Evidence,
    Gpus,
    Model,
    OnCluster,
    Overrides,
    RunName,
    ShownStage,
    Tokens,
    asked,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

TRACES: Final = {".json": "trace"}


def timeline(
    run: RunName = "",
    overrides: Overrides = None,
    *,
    model: Model = None,
    cluster: OnCluster = None,
    gpus: Gpus = None,
    tokens: Tokens = None,
    evidence: Evidence = None,
    stage: ShownStage = None,
    detail: Annotated[
        str | None,
        typer.Option(
            "--detail",
            metavar="LEVEL",
            help="operators, layers or passes. Default: the most detail that a viewer opens quickly.",
        ),
    ] = None,
    micro_batches: Annotated[
        int | None,
        typer.Option(
            "--micro-batches",
            metavar="N",
            help="Draw the first and last N micro-batches one by one, and fold those in between.",
        ),
    ] = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    as_markdown: AsMarkdown = False,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Write the trace to FILE; compressed if it ends in .gz.")
    ] = Path("trace.json"),
) -> None:
    """Write one iteration of RUN as a trace for ui.perfetto.dev and chrome://tracing.

    One process per pipeline stage, one track per stream; each operator has its shape, FLOPs, bytes and confidence.

    --csv prints one row per span. Exit code 1 if the run does not fit.

    Examples:
    perfmodel timeline nemotron-4-15b -o trace.json

    perfmodel timeline run.yaml --set pipeline_parallel=8 --set pipeline_schedule=zb-2p -o zero-bubble.json.gz

    perfmodel timeline run.yaml --detail layers --micro-batches 4
    """
    from perfmodel import api
    from perfmodel.exchange.measured.own_evidence import with_evidence
    from perfmodel.report.trace.facts import timeline_document, timeline_facts
    from perfmodel.report.trace.format import trace_text
    from perfmodel.report.trace.timeline import timeline_events

    check_ending(output, TRACES)
    form = form_of(None, as_json=as_json, as_csv=as_csv, as_markdown=as_markdown)
    source, settings = asked(run, model, cluster, gpus, tokens, settings=overrides), with_evidence(overrides or (), evidence)
    found = api.timeline(source, settings, stage=stage, detail=detail, micro_batches=micro_batches)
    write_file(trace_text(timeline_events(found), timeline_facts(found)), output)

    def report() -> RenderableType:
        from perfmodel.report.text.timeline import timeline_report

        return timeline_report(found)

    emit(form, None, document=lambda: timeline_document(found), report=report, rows=found.rows)
    if not found.predicted.may_fit:
        raise typer.Exit(1)
