"""`perfmodel compare`: a prediction beside measured steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perfmodel.commands.console import drawing_module, emit_json, emit_table, kind_of, wants_json, write_file
from perfmodel.commands.options import AsJson, Output, Overrides, RunName, read_record
from perfmodel.errors import InputError

if TYPE_CHECKING:
    from perfmodel.evidence.profiled_step import ProfiledStep


def compare(
    run: RunName,
    record: Annotated[Path | None, typer.Argument(metavar="RECORD", help="The record that `perfmodel measure` wrote.")] = None,
    overrides: Overrides = None,
    *,
    every: Annotated[
        bool, typer.Option("--all", help="List every operator, not only those that make up 90 % of the step.")
    ] = False,
    figure: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the operators to FILE (.png or .svg).")] = None,
    timeline: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write both as a trace for ui.perfetto.dev and chrome://tracing.")
    ] = None,
    profile: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Add a torch.profiler trace of a step to the timeline.")
    ] = None,
    stage: Annotated[
        int | None,
        typer.Option(
            "--stage", metavar="N", help="Without RECORD: stage of the batch ramp, counted from 1. Default: the last stage."
        ),
    ] = None,
    as_json: AsJson = False,
    output: Output = None,
) -> None:
    """Compare the prediction of RUN with measured steps: each operator, part of memory and collective.

    Without RECORD, compare a profile of any training software (a Kineto trace) with the predicted timeline.

    Examples:
    perfmodel compare laptop record.json --all --figure step.png

    perfmodel compare laptop record.json --timeline both.json --profile profile.json

    perfmodel compare run.yaml --timeline both.json.gz --profile kineto.json.gz
    """
    is_json = wants_json(as_json, output)
    if record is None:
        if timeline is None or profile is None:
            raise InputError("there is no RECORD to compare with; without one, --timeline and --profile are both needed")
        _compare_profile(run, overrides or (), profile, timeline, stage=stage, output=output, as_json=is_json)
        return
    _check(timeline, profile, stage)
    from perfmodel import api
    from perfmodel.evidence.step_comparison import compare_step
    from perfmodel.prediction import predict

    prediction = predict(api.load(run, overrides or ()).without_own_runs)
    profiled = None if profile is None else _profiled(profile)
    figures = drawing_module(figure)
    comparison = compare_step(prediction, read_record(record))
    if is_json:
        from perfmodel.report.json.step import comparison_document

        emit_json(comparison_document(comparison), output)
    else:
        from perfmodel.report.text.step import comparison_report

        emit_table(comparison_report(comparison, every=every), output)
    if figure is not None:
        write_file(figures.picture(figures.operators_figure(comparison), kind_of(figure)), figure)
    if timeline is not None:
        from perfmodel.report.trace.comparison import comparison_trace

        write_file(comparison_trace(prediction, comparison, profiled), timeline)


def _check(timeline: Path | None, profile: Path | None, stage: int | None) -> None:
    """Raise InputError for options that cannot be combined with a record."""
    if profile is not None and timeline is None:
        raise InputError("--profile is shown in the timeline; add --timeline FILE")
    if stage is not None:
        raise InputError("--stage does not go with RECORD, which names its stage")


def _profiled(path: Path) -> ProfiledStep:
    """The step of a torch.profiler trace. Errors: InputError, naming the file."""
    from perfmodel.evidence.profiled_step import profiled_step
    from perfmodel.exchange.trace_files import read_trace

    document = read_trace(path)
    try:
        return profiled_step(document)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _compare_profile(
    run: str, overrides: Sequence[str], profile: Path, timeline: Path, *, stage: int | None, output: Path | None, as_json: bool
) -> None:
    """Write a trace of the predicted and the profiled step, and print the time of both."""
    from perfmodel import api
    from perfmodel.report.trace.comparison import compared_trace, profile_document, profile_text

    drawn, profiled = api.timeline(run, overrides, stage=stage), _profiled(profile)
    write_file(compared_trace(drawn, profiled=profiled), timeline)
    if as_json:
        emit_json(profile_document(drawn, profiled), output)
    else:
        from rich.text import Text

        emit_table(Text(profile_text(drawn, profiled)), output)
