"""`perfmodel validate`: the error of predictions on measured runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from perfmodel.commands.console import STOPPED, drawing_module, emit, form_of, kind_of, progress, say, warn_of, write_file
from perfmodel.commands.measured.row_warnings import warn_of_memory, warn_of_rows
from perfmodel.commands.options import AsCsv, AsJson, AsMarkdown, Evidence, Gpus, Model, OnCluster, Output
from perfmodel.errors import InputError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from perfmodel.evidence.groups import Scoreboard
    from perfmodel.evidence.measured_rows import MeasuredRun, MeasuredTable
    from perfmodel.evidence.thresholds import Threshold
    from perfmodel.evidence.time_scores import TimeComparison

SERVING: Final = "serving runs"
TUNING: Final = "fine-tuning runs"
T = TypeVar("T")
R = TypeVar("R")


def validate(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[FILE...]",
            help="Measured runs: tables with the columns of published_runs.csv, of serving runs (a row a metric) or of "
            "fine-tuning runs, logs of training software with their scripts "
            "or configurations beside them, and folders of these. Default: published_runs.csv.",
        ),
    ] = None,
    *,
    model: Model = None,
    cluster: OnCluster = None,
    gpus: Gpus = None,
    mixtures: Annotated[
        bool, typer.Option("--mixtures", help="The shipped runs of mixtures of experts, in the place of FILE.")
    ] = False,
    memory: Annotated[
        bool,
        typer.Option(
            "--memory", help="FILE lists layouts that did or did not fit in memory, with the columns of memory_fit.csv."
        ),
    ] = False,
    leave_source_out: Annotated[
        bool,
        typer.Option(
            "--leave-source-out", help="Score each source with everything that was fitted on runs estimated anew without it."
        ),
    ] = False,
    evidence: Evidence = None,
    full: Annotated[
        bool, typer.Option("--full", help="Also the scores of every source and group, and the worst rows with their parts.")
    ] = False,
    fail_above: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Exit with code 1 if a score is above VALUE: median, p90 or bias (with --memory: disagreement, "
            "fits_called_impossible or impossible_called_fits), or of one group, as in GROUP/NAME:median. Repeatable.",
        ),
    ] = None,
    figure: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw the error of each run with its 90 % interval to FILE (.png or .svg)."),
    ] = None,
    reliability: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw how many measurements lie in intervals of 50 to 95 % to FILE (.png or .svg)."),
    ] = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    as_markdown: AsMarkdown = False,
    output: Output = None,
) -> None:
    """Compare predictions with the measured runs in FILE. Default: the published runs of dense models that are shipped.

    Rows that are not supported are counted with the reason, never guessed; those whose `use` is context are predicted and
    shown, but not scored.

    A log is recognised by its content. Its run is in it (the arguments of
    Megatron-LM) or beside it: train.sh or train.yaml beside train.log, or the
    only script or configuration of its folder. --model, --cluster and --gpus
    are for logs that do not say it. Every file that is left out is named.

    Examples:
    perfmodel validate --fail-above median=5%

    perfmodel validate --mixtures --leave-source-out

    perfmodel validate mine.csv --fail-above stack/fsdp:p90=15% --figure mine.png

    perfmodel validate logs/ --cluster dgx-h100

    perfmodel validate serving.csv --leave-source-out

    perfmodel validate finetune.csv --json

    perfmodel validate --memory fits.csv
    """
    form = form_of(output, as_json=as_json, as_csv=as_csv, as_markdown=as_markdown)
    if files and not memory and _are_of_servers(files):
        beside = {"--figure": figure, "--reliability": reliability, "--evidence": evidence, "--fail-above": fail_above}
        _validate_servers(files, beside, leave_source_out=leave_source_out, form=form, output=output)
        return
    if files and not memory and _are_of_tunings(files):
        beside = {"--figure": figure, "--reliability": reliability, "--evidence": evidence, "--fail-above": fail_above}
        _validate_tunings(files, beside, leave_source_out=leave_source_out, form=form, output=output)
        return
    of_logs = {"model": model, "cluster": cluster, "gpus": gpus}
    if mixtures and (files or memory):
        raise InputError(f"--mixtures is a table of its own; it cannot be combined with {'--memory' if memory else 'FILE'}")
    for option in (name for name, value in of_logs.items() if value is not None and (memory or not files)):
        raise InputError(f"--{option} goes with logs that do not say it; name them, as in validate logs/ --{option} ..")
    if memory:
        beside = {"--figure": figure, "--reliability": reliability, "--evidence": evidence}
        table = _table_of_fits(files or (), {**beside, "--leave-source-out": leave_source_out or None})
        _validate_memory(table, fail_above=fail_above or (), form=form, output=output)
    else:
        if leave_source_out and evidence is not None:
            raise InputError("--leave-source-out scores what published runs alone say; it cannot be combined with --evidence")
        pictures = [_accuracy(figure), _reliability(reliability, leave_source_out=leave_source_out)]
        _validate_times(
            lambda: _table_of_runs(files or (), of_logs, mixtures=mixtures),
            of_user=bool(files),
            leave_source_out=leave_source_out,
            evidence=evidence,
            fail_above=fail_above or (),
            pictures=pictures,
            full=full,
            form=form,
            output=output,
        )


def _are_of_servers(files: Sequence[Path]) -> bool:
    """Whether these are tables of serving runs. Errors: InputError for such a table beside others."""
    from perfmodel.exchange.tables.serving_runs import is_serving_table

    return _are_of(files, is_serving_table, SERVING)


def _are_of_tunings(files: Sequence[Path]) -> bool:
    """Whether these are tables of fine-tuning runs. Errors: InputError for such a table beside others."""
    from perfmodel.exchange.tables.tuning_runs import is_tuning_table

    return _are_of(files, is_tuning_table, TUNING)


def _are_of(files: Sequence[Path], is_one: Callable[[Path], bool], runs: str) -> bool:
    found = [each for each in files if each.suffix.lower() == ".csv" and each.is_file() and is_one(each)]
    if found and len(files) > 1:
        raise InputError(f"{found[0]} lists {runs}; give it alone")
    return bool(found)


def _check_beside(file: Path, beside: Mapping[str, object], runs: str) -> None:
    """Raise InputError for options that are about tables of training runs."""
    for option in (name for name, value in beside.items() if value):
        raise InputError(f"{option} is about tables of training runs; {file} lists {runs}")


def _validate_servers(
    files: Sequence[Path], beside: Mapping[str, object], *, leave_source_out: bool, form: str, output: Path | None
) -> None:
    from perfmodel.evidence.serving.scores import compare_serving, serving_scoreboard, without_own_source
    from perfmodel.exchange.measured.serving_evidence import serving_evidence
    from perfmodel.exchange.tables.serving_runs import read_serving_runs
    from perfmodel.report.json.serving import serving_validation_document, serving_validation_rows

    _check_beside(files[0], beside, SERVING)
    table = read_serving_runs(files[0], without_own=leave_source_out)
    comparisons = list(compare_serving(table.rows, serving_evidence()))
    scores = serving_scoreboard(without_own_source(comparisons) if leave_source_out else comparisons, table.unread)

    def report() -> RenderableType:
        from perfmodel.report.text.measured.serving_scores import serving_validation_report

        return serving_validation_report(scores, leave_source_out=leave_source_out)

    document = partial(serving_validation_document, scores, leave_source_out=leave_source_out)
    emit(form, output, document=document, report=report, rows=partial(serving_validation_rows, scores))


def _validate_tunings(
    files: Sequence[Path], beside: Mapping[str, object], *, leave_source_out: bool, form: str, output: Path | None
) -> None:
    from perfmodel.evidence.tuning.scores import compare_tuning, tuning_scoreboard, without_own_source
    from perfmodel.exchange.tables.tuning_runs import read_tuning_runs
    from perfmodel.report.json.tuning import tuning_validation_document, tuning_validation_rows

    _check_beside(files[0], beside, TUNING)
    table = read_tuning_runs(files[0])
    comparisons = [each for found in _one_by_one(compare_tuning, table.rows) for each in found]
    scores = tuning_scoreboard(without_own_source(comparisons) if leave_source_out else comparisons, table.unread)

    def report() -> RenderableType:
        from perfmodel.report.text.measured.tuning import tuning_validation_report

        return tuning_validation_report(scores, leave_source_out=leave_source_out)

    document = partial(tuning_validation_document, scores, leave_source_out=leave_source_out)
    emit(form, output, document=document, report=report, rows=partial(tuning_validation_rows, scores))


def _table_of_fits(files: Sequence[Path], beside: Mapping[str, object]) -> Path:
    """The table of --memory. Errors: InputError for none or several, and for what does not go with it."""
    if not files:
        raise InputError("--memory needs a FILE.csv")
    if len(files) > 1:
        raise InputError(f"--memory takes one FILE.csv; {files[1]} is a second one")
    for option in (name for name, value in beside.items() if value is not None):
        does = "draws" if option in ("--figure", "--reliability") else "is about"
        raise InputError(f"{option} {does} times; it cannot be combined with --memory")
    return files[0]


def _table_of_runs(files: Sequence[Path], given: Mapping[str, str | None], *, mixtures: bool) -> MeasuredTable[MeasuredRun]:
    from perfmodel.exchange.tables.validated_runs import validated_table

    return validated_table(files, mixtures=mixtures, given=given)


def _validate_times(
    read: Callable[[], MeasuredTable[MeasuredRun]],
    *,
    of_user: bool,
    leave_source_out: bool,
    evidence: str | None,
    fail_above: Sequence[str],
    pictures: Sequence[Callable[[Sequence[TimeComparison]], None]],
    full: bool,
    form: str,
    output: Path | None,
) -> None:
    from perfmodel.evidence.groups import known_groups
    from perfmodel.evidence.thresholds import read_threshold
    from perfmodel.evidence.time_scores import SCORES, compare_time, time_scoreboard

    table = read()
    measured = table.rows if evidence is None else _with_own_runs(table.rows, evidence)
    bars = [read_threshold(text, scores=SCORES, groups=known_groups(measured)) for text in fail_above]
    warn_of_rows(measured, table.unread)
    comparisons = _one_by_one(compare_time, measured)
    complete = len(comparisons) == len(measured)
    if of_user:
        warn_of_memory(comparisons)
    if leave_source_out and complete:
        from perfmodel.exchange.tables.validated_runs import without_own_source

        comparisons = without_own_source(comparisons, table.rows, compare=partial(_one_by_one, compare_time))
    scores = time_scoreboard(comparisons, table.unread)
    from perfmodel.report.json.measured.scores import validation_document

    def report() -> RenderableType:
        from perfmodel.report.text.measured.scores import validation_report

        return validation_report(scores, leave_source_out=leave_source_out, full=full)

    emit(
        form,
        output,
        document=lambda: validation_document(scores, complete=complete, leave_source_out=leave_source_out),
        report=report,
        rows=scores.rows,
    )
    for draw in pictures if complete else ():
        draw(comparisons)
    _judge(scores, bars, complete=complete)


def _with_own_runs(measured: Sequence[MeasuredRun], name: str) -> tuple[MeasuredRun, ...]:
    """The rows with what somebody's own runs say; a warning where some of them are among these runs."""
    from perfmodel.exchange.tables.validated_runs import with_own_runs

    rows, learned = with_own_runs(measured, name)
    if learned:
        warn_of([f"{learned} of the rows are runs that {name} was learned from: they score better than new ones would"])
    return rows


def _validate_memory(file: Path, *, fail_above: Sequence[str], form: str, output: Path | None) -> None:
    from perfmodel.evidence.groups import known_groups
    from perfmodel.evidence.memory_scores import SCORES, compare_fit, fit_scoreboard
    from perfmodel.evidence.thresholds import read_threshold
    from perfmodel.exchange.tables.memory_table import read_measured_fits

    table = read_measured_fits(file)
    measured = table.rows
    bars = [read_threshold(text, scores=SCORES, groups=known_groups(measured)) for text in fail_above]
    warn_of_rows(measured, table.unread)
    comparisons = _one_by_one(compare_fit, measured)
    scores, complete = fit_scoreboard(comparisons, table.unread), len(comparisons) == len(measured)
    from perfmodel.report.json.measured.scores import memory_document, memory_rows

    def report() -> RenderableType:
        from perfmodel.report.text.measured.memory_scores import memory_report

        return memory_report(scores)

    emit(
        form,
        output,
        document=lambda: memory_document(scores, complete=complete),
        report=report,
        rows=lambda: memory_rows(scores),
    )
    _judge(scores, bars, complete=complete)


def _one_by_one(compare: Callable[[T], R], measured: Sequence[T]) -> list[R]:
    """Compare each row with its prediction; after Ctrl-C, those that were done."""
    done: list[R] = []
    try:
        for each in progress(measured, "predicting"):
            done.append(compare(each))  # noqa: PERF401 - what is done stays when it is interrupted
    except KeyboardInterrupt:
        alone = ": the scores cover only those; no threshold is checked and no figure is drawn" if done else ""
        say(f"stopped after {len(done)} of {len(measured)} rows{alone}")
        if not done:
            raise typer.Exit(STOPPED) from None
    return done


def _accuracy(figure: Path | None) -> Callable[[Sequence[Any]], None]:
    """A function that draws comparisons to `figure`; does nothing without one. Errors: InputError before any work."""
    figures = drawing_module(figure, "perfmodel.report.figures.measured.accuracy")
    if figure is None:
        return lambda _: None
    return lambda comparisons: write_file(figures.picture(figures.accuracy_figure(comparisons), kind_of(figure)), figure)


def _reliability(figure: Path | None, *, leave_source_out: bool) -> Callable[[Sequence[Any]], None]:
    """The same with the reliability of their intervals."""
    figures = drawing_module(figure, "perfmodel.report.figures.reliability", option="--reliability")
    if figure is None:
        return lambda _: None

    def draw(comparisons: Sequence[TimeComparison]) -> None:
        from perfmodel.evidence.time_scores import time_reliability

        scored = sum(each.measured.scored and each.predicted_s is not None for each in comparisons)
        how = ", each source scored without what was learned from it" if leave_source_out else ""
        drawing = figures.reliability_figure(time_reliability(comparisons), what=f"{scored} measured runs{how}")
        write_file(figures.picture(drawing, kind_of(figure)), figure)

    return draw


def _judge(scores: Scoreboard[Any, Any], bars: Sequence[Threshold], *, complete: bool) -> None:
    """Exit with code 1 and one sentence per missed threshold; scores of an incomplete table are not checked."""
    from perfmodel.evidence.thresholds import missed_thresholds

    if not complete:
        raise typer.Exit(STOPPED)
    missed = missed_thresholds(bars, overall=scores.overall, groups=scores.groups)
    for sentence in missed:
        say(sentence)
    if missed:
        raise typer.Exit(1)
