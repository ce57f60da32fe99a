"""`perfmodel diagnose`: which number or setting explains what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

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
from perfmodel.errors import InputError

if TYPE_CHECKING:
    from rich.console import RenderableType


def diagnose(
    run: RunName = "",
    overrides: Overrides = None,
    *,
    model: Model = None,
    cluster: OnCluster = None,
    gpus: Gpus = None,
    tokens: Tokens = None,
    measured: Annotated[
        str | None,
        typer.Option(
            "--measured",
            metavar="VALUE",
            help="What was measured: 200tokens/s/gpu, 6400tokens/s, 25samples/s, an iteration of 3.4s, mfu=31% or "
            "420TFLOP/s/gpu.",
        ),
    ] = None,
    measured_from: Annotated[
        Path | None, typer.Option("--measured-from", metavar="LOG", help="Take the steady steps of a log of training software.")
    ] = None,
    evidence: Evidence = None,
    stage: ShownStage = None,
    nccl_tests: Annotated[
        list[Path] | None,
        typer.Option("--nccl-tests", metavar="FILE", help="What a program of nccl-tests printed on this cluster. Repeatable."),
    ] = None,
    profile: Annotated[
        Path | None, typer.Option("--profile", metavar="FILE", help="A torch.profiler trace of a step on a GPU (Kineto).")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="List every alternative, also those that do not explain it.")] = False,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    as_markdown: AsMarkdown = False,
    output: Output = None,
) -> None:
    """Diagnose a measured speed of RUN: which number or setting explains it, how plausibly, and what to measure next.

    A measured MFU is taken in the convention of `predict`: attention counted in full, of the peak rate of the run's precision.
    Exit code 1 if nothing alone explains it.

    Examples:
    perfmodel diagnose nemotron-4-15b --measured 0.9s

    perfmodel diagnose run.yaml --measured 200tokens/s/gpu --nccl-tests all_gather.txt

    perfmodel diagnose run.yaml --measured mfu=31% --set recompute=full --profile kineto.json.gz --json

    perfmodel diagnose train.sh --cluster dgx-h100 --measured-from train.log
    """
    from perfmodel import api
    from perfmodel.exchange.measured.own_evidence import with_evidence
    from perfmodel.explanation.measured.next_measurements import next_measurements

    source, settings = asked(run, model, cluster, gpus, tokens, settings=overrides), with_evidence(overrides or (), evidence)
    found = api.diagnose(
        source, _measured(run, measured, measured_from), settings, stage=stage, nccl_tests=nccl_tests or (), profile=profile
    )

    def document() -> Any:
        from perfmodel.report.json.diagnosis import diagnosis_document

        return diagnosis_document(found, next_measurements(found))

    def report() -> RenderableType:
        from perfmodel.report.text.measured.diagnosis import diagnosis_report

        return diagnosis_report(found, next_measurements(found), every=every)

    form = form_of(output, as_json=as_json, as_csv=as_csv, as_markdown=as_markdown)
    emit(form, output, document=document, report=report, rows=found.rows)
    if not found.is_explained:
        raise typer.Exit(1)


def _measured(run: str, value: str | None, log: Path | None) -> str:
    """What was measured, as it is typed; of a run that is a log what it says. Errors: InputError for none, or for both."""
    if value is not None and log is None:
        return value
    from perfmodel.exchange.questions.measured_logs import is_log, measured_text

    own = Path(run) if value is None and log is None and is_log(Path(run)) else log
    if own is None or value is not None:
        raise InputError("say what was measured: --measured 0.9s, or --measured-from train.log")
    return measured_text(own)
