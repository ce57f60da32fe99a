"""`perfmodel compare`: a prediction beside measured steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perfmodel.commands.console import drawing_module, emit, form_of, kind_of, write_file
from perfmodel.commands.options import (
    AsCsv,
    AsJson,
    AsMarkdown,
    Gpus,
    Model,
    OnCluster,
    Output,
    Overrides,
    RunName,
    Tokens,
    asked,
)
from perfmodel.errors import InputError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from perfmodel.evidence.steps.pass_records import InferRecord
    from perfmodel.exchange.run_files import RunSource


def compare(
    run: RunName,
    record: Annotated[
        Path | None, typer.Argument(metavar="RECORD", help="The record that `perfmodel measure` wrote, a log, or a profile.")
    ] = None,
    overrides: Overrides = None,
    *,
    model: Model = None,
    cluster: OnCluster = None,
    gpus: Gpus = None,
    tokens: Tokens = None,
    every: Annotated[
        bool, typer.Option("--all", help="List every operator, not only those that make up 90 % of the step.")
    ] = False,
    figure: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the operators to FILE (.png or .svg).")] = None,
    timeline: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write both as a trace for ui.perfetto.dev and chrome://tracing.")
    ] = None,
    profile: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A torch.profiler trace of a step; with RECORD for the timeline.")
    ] = None,
    stage: Annotated[
        int | None,
        typer.Option(
            "--stage",
            metavar="N",
            help="Of a log or a profile: stage of the batch ramp. Default: that with the log's batch, or the last.",
        ),
    ] = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    as_markdown: AsMarkdown = False,
    output: Output = None,
) -> None:
    """Compare the prediction of RUN with measured steps: each operator, part of memory and collective.

    A profile of any training software (a Kineto trace) stands in the place of RECORD, or follows --profile: its kernels are
    matched to operators by their names, and what no name tells is listed.

    RECORD may be a log of other training software: its steady steps are compared with the predicted iteration.

    A record of `perfmodel measure --infer` is compared with the forecast of prefill and decode on a calibrated machine.

    Examples:
    perfmodel compare laptop record.json --all --figure step.png

    perfmodel compare laptop passes.json --set cluster=here.yaml

    perfmodel compare laptop record.json --timeline both.json --profile profile.json

    perfmodel compare run.yaml kineto.json.gz --timeline both.json.gz

    perfmodel compare train.sh train.log --cluster dgx-h100 --figure steps.png
    """
    from perfmodel.exchange.measured.trace_files import is_trace
    from perfmodel.exchange.questions.compared_records import is_log, read_passes

    form = form_of(output, as_json=as_json, as_csv=as_csv, as_markdown=as_markdown)
    source = asked(run, model, cluster, gpus, tokens, settings=overrides)
    if record is not None and timeline is None and profile is None and is_log(record):
        _compare_log(source, overrides or (), record, stage=stage, figure=figure, output=output, form=form)
        return
    if record is not None and profile is None and is_trace(record):
        record, profile = None, record
    if record is not None and (passes := read_passes(record)) is not None:
        _check_passes({"--figure": figure, "--timeline": timeline, "--profile": profile, "--stage": stage})
        _compare_passes(source, overrides or (), passes, every=every, output=output, form=form)
        return
    if record is None:
        if profile is None:
            other = "two predictions are compared by whatif RUN --set KEY=VALUE, several runs by sweep RUN RUN"
            raise InputError(f"there is no RECORD to compare with; name one, a log, or a profile (torch.profiler); {other}")
        if figure is not None:
            raise InputError("--figure draws records and logs; --timeline draws a profile")
        _compare_profile(source, overrides or (), profile, timeline, stage=stage, output=output, form=form)
        return
    _check(timeline, profile, stage)
    _compare_step(source, overrides or (), record, profile, timeline, every=every, figure=figure, output=output, form=form)


def _compare_step(
    run: RunSource,
    overrides: Sequence[str],
    record: Path,
    profile: Path | None,
    timeline: Path | None,
    *,
    every: bool,
    figure: Path | None,
    output: Path | None,
    form: str,
) -> None:
    """Print the measured step of a record beside the prediction, draw both, and lay them on one timeline."""
    from perfmodel import api
    from perfmodel.evidence.steps.step_comparison import compare_step
    from perfmodel.exchange.questions.compared_records import read_record
    from perfmodel.prediction import predict

    prediction = predict(api.load(run, overrides).without_own_runs)
    from perfmodel.exchange.questions.profiled_runs import profile_step

    profiled = None if profile is None else profile_step(profile)
    figures = drawing_module(figure)
    comparison = compare_step(prediction, read_record(record))

    def document() -> Any:
        from perfmodel.report.json.measured.step import comparison_document

        return comparison_document(comparison)

    def report() -> RenderableType:
        from perfmodel.report.text.measured.step import comparison_report

        return comparison_report(comparison, every=every)

    emit(form, output, document=document, report=report, rows=comparison.rows)
    if figure is not None:
        write_file(figures.picture(figures.operators_figure(comparison), kind_of(figure)), figure)
    if timeline is not None:
        from perfmodel.report.trace.comparison import comparison_trace

        write_file(comparison_trace(prediction, comparison, profiled), timeline)


def _check_passes(options: Mapping[str, object]) -> None:
    """Raise InputError for options that are about training steps."""
    for option in (name for name, value in options.items() if value is not None):
        raise InputError(f"{option} goes with training steps; this record is of passes of a served model")


def _compare_passes(
    run: RunSource, overrides: Sequence[str], record: InferRecord, *, every: bool, output: Path | None, form: str
) -> None:
    """Print the passes of a record beside the forecast of the model of a run."""
    from perfmodel import api
    from perfmodel.evidence.steps.pass_comparison import compare_passes
    from perfmodel.exchange.measured.serving_evidence import serving_evidence
    from perfmodel.exchange.questions.serving.measured_servers import served_setup

    loaded = api.load(run, overrides)
    layout = loaded.layout(loaded.stages[0])
    found = compare_passes(served_setup(loaded, layout), loaded.model, layout, record, serving_evidence())

    def document() -> Any:
        from perfmodel.report.json.measured.passes import passes_document

        return passes_document(found)

    def report() -> RenderableType:
        from perfmodel.report.text.measured.passes import passes_comparison_report

        return passes_comparison_report(found, every=every)

    emit(form, output, document=document, report=report, rows=found.rows)


def _check(timeline: Path | None, profile: Path | None, stage: int | None) -> None:
    """Raise InputError for options that cannot be combined with a record."""
    if profile is not None and timeline is None:
        raise InputError("--profile is shown in the timeline; add --timeline FILE")
    if stage is not None:
        raise InputError("--stage does not go with RECORD, which names its stage")


def _compare_log(
    run: RunSource,
    overrides: Sequence[str],
    log: Path,
    *,
    stage: int | None,
    figure: Path | None,
    output: Path | None,
    form: str,
) -> None:
    """Print the steady steps of a log beside the prediction, and draw all of them where a figure is asked for."""
    from perfmodel import api
    from perfmodel.exchange.questions.measured_logs import log_comparison

    figures = drawing_module(figure, "perfmodel.report.figures.measured.log_steps")
    found = log_comparison(api.predict(run, overrides), log, stage=stage)

    def document() -> Any:
        from perfmodel.report.json.measured.log_comparison import log_comparison_document

        return log_comparison_document(found)

    def report() -> RenderableType:
        from perfmodel.report.text.measured.log_comparison import log_comparison_report

        return log_comparison_report(found)

    emit(form, output, document=document, report=report, rows=found.rows)
    if figure is not None:
        write_file(figures.picture(figures.log_steps_figure(found), kind_of(figure)), figure)


def _compare_profile(
    run: RunSource,
    overrides: Sequence[str],
    profile: Path,
    timeline: Path | None,
    *,
    stage: int | None,
    output: Path | None,
    form: str,
) -> None:
    """Print the kernels of a profiled step beside the prediction, and write a trace of both where one is asked for."""
    from perfmodel import api
    from perfmodel.exchange.questions.profiled_runs import profile_comparison, profile_step
    from perfmodel.prediction import predict

    step = profile_step(profile)
    found = profile_comparison(predict(api.load(run, overrides).without_own_runs), step, stage=stage)
    if timeline is not None:
        from perfmodel.report.trace.comparison import compared_trace

        write_file(compared_trace(api.timeline(run, overrides, stage=stage), profiled=step), timeline)

    def document() -> Any:
        from perfmodel.report.json.measured.kernels import profile_document

        return profile_document(found)

    def report() -> RenderableType:
        from perfmodel.report.text.measured.kernels import profile_report

        return profile_report(found)

    emit(form, output, document=document, report=report, rows=found.rows)
