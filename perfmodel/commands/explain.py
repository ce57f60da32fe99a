"""`perfmodel explain`: where the time goes and what would change it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from perfmodel.commands.completion import term_names
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
    Overrides,
    RunName,
    ShownStage,
    Tokens,
    asked,
)
from perfmodel.spec.axes import REPORTED

if TYPE_CHECKING:
    from rich.console import RenderableType

OF_AXES = ", ".join(name for axis in REPORTED for name in (axis.name, axis.bubble) if name)


def explain(
    run: RunName = "",
    overrides: Overrides = None,
    *,
    model: Model = None,
    cluster: OnCluster = None,
    gpus: Gpus = None,
    tokens: Tokens = None,
    evidence: Evidence = None,
    stage: ShownStage = None,
    term: Annotated[
        str | None,
        typer.Option(
            "--term",
            autocompletion=term_names,
            metavar="TERM",
            help="Explain one term only: its equations, operators and numbers, each with its source. One of matmul, "
            f"attention, memory_bound, recompute, {OF_AXES}, communication_slowdown, launch, unlisted, optimizer "
            "or rank_waiting.",
        ),
    ] = None,
    every: Annotated[
        bool,
        typer.Option(
            "--all", help="List every number, also those without effect, and the layout changes that are not possible."
        ),
    ] = False,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    as_markdown: AsMarkdown = False,
    output: Output = None,
) -> None:
    """Explain the MFU of RUN: from peak to predicted, step by step, and the effect of each number and each layout change.

    Exit code 1 if the run does not fit.

    Examples:
    perfmodel explain nemotron-4-15b

    perfmodel explain nemotron-4-15b --term tensor_parallel

    perfmodel explain run.yaml --set tensor_parallel=4 --stage 1 --all --json
    """
    from perfmodel import api
    from perfmodel.exchange.measured.own_evidence import with_evidence

    explained = api.explain(
        asked(run, model, cluster, gpus, tokens, settings=overrides), with_evidence(overrides or (), evidence), stage=stage
    )
    one = None if term is None else explained.term(term)

    def document() -> Any:
        from perfmodel.report.json.explanation import explanation_document, term_document

        return explanation_document(explained) if one is None else term_document(explained, one)

    def report() -> RenderableType:
        from perfmodel.report.text.explanation import explanation_report
        from perfmodel.report.text.term import term_report

        return explanation_report(explained, every=every) if one is None else term_report(explained, one, every=every)

    form = form_of(output, as_json=as_json, as_csv=as_csv, as_markdown=as_markdown)
    emit(form, output, document=document, report=report, rows=explained.rows)
    if not explained.predicted.may_fit:
        raise typer.Exit(1)
