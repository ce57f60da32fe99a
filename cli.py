"""The command line: parse, call, print. The only place that prints, and the only one that sets an exit code.

Exit codes: 0 yes, 1 no (it does not fit, a bar is missed), 2 the input is wrong, 3 not supported yet, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import gc
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from perfmodel import __version__
from perfmodel.errors import InputError, PerfmodelError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from perfmodel.evidence.bars import Bar
    from perfmodel.evidence.groups import Scoreboard

T = TypeVar("T")
R = TypeVar("R")
NARROWEST = 80  # columns: tables are laid out for no fewer, so that no number is ever cut

app = typer.Typer(
    name="perfmodel",
    help="How long a training iteration takes, the MFU, whether it fits in memory, and how many days a run takes.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override any key of the run, as in tensor_parallel=4; any number of times."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write to FILE instead (JSON when it ends in .json).")
]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="A preset run (perfmodel list) or a YAML, TOML or JSON run file.")]
Device = Annotated[str, typer.Option("--device", metavar="cpu|cuda", help="GPUs where there are any, unless it is given.")]
STOPPED = 130  # the exit code of what Ctrl-C ended


def _version(wanted: bool) -> None:
    if wanted:
        print(f"perfmodel {__version__}")
        raise typer.Exit


@app.callback()
def perfmodel(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    """Predict LLM training performance before anyone rents the cluster."""


@app.command()
def predict(
    run: RunName,
    overrides: Overrides = None,
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", help="Add every operator, how sure its time is, and where the uncertainty comes from."),
    ] = False,
    as_json: AsJson = False,
    output: Output = None,
) -> None:
    """Iteration time, MFU, memory and days for each stage of RUN.

    Examples: perfmodel predict nemotron-4-15b; perfmodel predict run.yaml --set tensor_parallel=4 --json
    """
    from perfmodel.exchange.run_files import read_candidates
    from perfmodel.predict import predict as predict_run

    candidates = read_candidates(run, overrides or ())
    predictions = [(candidate.values, predict_run(candidate.run)) for candidate in candidates]
    _, first = predictions[0]
    assumptions = candidates[0].assumptions
    if _wants_json(as_json, output):
        from perfmodel.report.documents import prediction_document

        document = prediction_document(first, assumptions=assumptions, candidates=predictions, verbose=verbose)
        _emit_json(document, output)
    else:
        from rich.console import Group

        from perfmodel.report.tables import prediction_report

        report = [prediction_report(first, assumptions=assumptions, candidates=predictions)]
        if verbose:
            from perfmodel.report.details import prediction_details

            report.append(prediction_details(first))
        _emit_table(Group(*report), output)
    if not first.fits:
        raise typer.Exit(1)


@app.command()
def validate(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE.csv]", help="Measured runs, in the columns of published_runs.csv; without FILE.csv, that table."
        ),
    ] = None,
    *,
    memory: Annotated[
        bool, typer.Option("--memory", help="FILE.csv says which layouts fitted in memory, in the columns of memory_fit.csv.")
    ] = False,
    fail_above: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Exit with 1 when a score is above VALUE: median, p90 or bias (with --memory disagreement, "
            "fits_called_impossible or impossible_called_fits), or GROUP/NAME:median; any number of times.",
        ),
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw predicted against measured times to FILE.png or FILE.svg.")
    ] = None,
    as_json: AsJson = False,
    output: Output = None,
) -> None:
    """How wrong the predictions are on the measured runs in FILE.csv, or on those that perfmodel comes with.

    Rows that are not covered are counted with the reason, never guessed.

    Examples: perfmodel validate --fail-above median=5%; perfmodel validate mine.csv --fail-above stack/fsdp:p90=0.15 --json
    """
    if memory:
        if file is None or figure is not None:
            raise InputError("--memory needs a FILE.csv" if file is None else "--memory has no times that --figure could draw")
        _validate_memory(file, fail_above=fail_above or (), as_json=as_json, output=output)
    else:
        _validate_times(file, fail_above=fail_above or (), figure=figure, as_json=as_json, output=output)


def _validate_times(
    file: Path | None, *, fail_above: Sequence[str], figure: Path | None, as_json: bool, output: Path | None
) -> None:
    from perfmodel.evidence.bars import read_bar
    from perfmodel.evidence.groups import known_groups
    from perfmodel.evidence.validate import SCORES, compare, scoreboard
    from perfmodel.exchange.presets import DATA
    from perfmodel.exchange.published_runs import read_measured_runs

    draw = _drawing(figure)
    measured = read_measured_runs(file or DATA / "published_runs.csv")
    bars = [read_bar(text, scores=SCORES, groups=known_groups(measured)) for text in fail_above]
    _warn(measured)
    comparisons = _one_by_one(compare, measured)
    scores, complete = scoreboard(comparisons), len(comparisons) == len(measured)
    if _wants_json(as_json, output):
        from perfmodel.report.score_documents import validation_document

        _emit_json(validation_document(scores, complete=complete), output)
    else:
        from perfmodel.report.scoreboard import validation_report

        _emit_table(validation_report(scores), output)
    if complete:
        draw(comparisons)
    _judge(scores, bars, complete=complete)


def _validate_memory(file: Path, *, fail_above: Sequence[str], as_json: bool, output: Path | None) -> None:
    from perfmodel.evidence.bars import read_bar
    from perfmodel.evidence.groups import known_groups
    from perfmodel.evidence.memory_fit import SCORES, compare_fit, fit_scoreboard
    from perfmodel.exchange.memory_table import read_measured_fits

    measured = read_measured_fits(file)
    bars = [read_bar(text, scores=SCORES, groups=known_groups(measured)) for text in fail_above]
    _warn(measured)
    comparisons = _one_by_one(compare_fit, measured)
    scores, complete = fit_scoreboard(comparisons), len(comparisons) == len(measured)
    if _wants_json(as_json, output):
        from perfmodel.report.score_documents import memory_document

        _emit_json(memory_document(scores, complete=complete), output)
    else:
        from perfmodel.report.memory_scoreboard import memory_report

        _emit_table(memory_report(scores), output)
    _judge(scores, bars, complete=complete)


@app.command()
def calibrate(
    device: Device = "",
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The profile; its records lie beside it.")
    ] = Path("profile.yaml"),
    records: Annotated[
        Path | None, typer.Option("--records", metavar="FILE", help="Fit these records, taken elsewhere; measure nothing.")
    ] = None,
    smallest: Annotated[bool, typer.Option("--smallest", help="A few tiny sizes, to see that it works.")] = False,
) -> None:
    """Measure this machine (some minutes) and fit a profile that a run file can name as its cluster.

    Started again after Ctrl-C it goes on where it was.

    Examples: perfmodel calibrate -o here.yaml; perfmodel predict run.yaml --set cluster=here.yaml
    """
    measuring = _measuring()
    from benchmarks.calibrate import calibrate as calibrate_machine
    from benchmarks.calibrate import records_beside, write_fitted
    from benchmarks.record_file import read_records

    device = measuring.chosen_device(device)
    try:
        with _bar("measuring") as advance:
            if records is None:
                profile = calibrate_machine(output, device=device, smallest=smallest, on_progress=advance)
            else:
                profile = write_fitted(output, read_records(records))
    except KeyboardInterrupt:
        print(f"perfmodel: stopped; the same command goes on with {records_beside(output)}", file=sys.stderr)
        raise typer.Exit(STOPPED) from None
    from perfmodel.report.step_report import calibration_report

    _emit_table(calibration_report(profile), None)
    print(f"wrote {output}", file=sys.stderr)


@app.command()
def measure(
    run: RunName,
    overrides: Overrides = None,
    *,
    stage: Annotated[int, typer.Option("--stage", metavar="N", help="Which stage of the run, from 1.")] = 1,
    device: Device = "",
    seconds: Annotated[float, typer.Option("--seconds", min=0.1, help="How long to time steps.")] = 10.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="No device: count what one rank of every stage does, beside the forecast.")
    ] = False,
    as_json: AsJson = False,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The record of the steps.")] = Path(
        "record.json"
    ),
) -> None:
    """Run real training steps of RUN on this machine, one rank a GPU or a core, and write their record.

    Examples: perfmodel measure laptop; perfmodel measure nemotron-4-15b --dry-run
    """
    measuring = _measuring()
    if dry_run:
        _dry_run(run, overrides or (), as_json=as_json)
        return
    record = measuring.measure_run(run, overrides or (), stage=stage, device=device, seconds=seconds)
    _emit_json(record.document(), output)
    from perfmodel.report.step_report import measurement_report

    if as_json:
        _emit_json(record.document(), None)
    else:
        _emit_table(measurement_report(record), None)
    _warn_of(record.warnings)


def _dry_run(name: str, overrides: Sequence[str], *, as_json: bool) -> None:
    """Every stage of the run; exit code 1 where a count differs."""
    from benchmarks.dry_run import dry_run
    from perfmodel.exchange.run_files import read_candidates
    from perfmodel.report.step_documents import counts_document
    from perfmodel.report.step_report import counts_report

    run = read_candidates(name, overrides)[0].run
    counted = [(stage, dry_run(run, stage)) for stage in _progress(run.stages, "counting")]
    if as_json:
        _emit_json(counts_document(counted), None)
    else:
        _emit_table(counts_report(run.name, counted), None)
    if not all(each.equal for _, counts in counted for each in counts):
        raise typer.Exit(1)


@app.command()
def compare(
    run: RunName,
    record: Annotated[Path, typer.Argument(metavar="RECORD", help="What `perfmodel measure` wrote.")],
    overrides: Overrides = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="Every operator, not those of 90 % of the step alone.")] = False,
    figure: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the operators to FILE.png or FILE.svg.")] = None,
    as_json: AsJson = False,
    output: Output = None,
) -> None:
    """The prediction of RUN beside measured steps: operator by operator, memory part by part, call by call.

    Examples: perfmodel compare laptop record.json; perfmodel compare run.yaml record.json --all --figure step.png
    """
    from perfmodel.evidence.step_comparison import compare_step
    from perfmodel.evidence.step_records import step_record
    from perfmodel.exchange.documents import read_mapping
    from perfmodel.exchange.run_files import read_candidates
    from perfmodel.predict import predict as predict_run

    figures = _figures(figure)
    prediction = predict_run(read_candidates(run, overrides or ())[0].run)
    comparison = compare_step(prediction, step_record(read_mapping(record, needs="what `perfmodel measure` writes")))
    if _wants_json(as_json, output):
        from perfmodel.report.step_documents import comparison_document

        _emit_json(comparison_document(comparison), output)
    else:
        from perfmodel.report.step_report import comparison_report

        _emit_table(comparison_report(comparison, every=every), output)
    if figure is not None:
        _write(figures.picture(figures.operators_figure(comparison), _kind(figure)), figure)


def _measuring() -> Any:
    """What starts real steps. Errors: InputError without torch."""
    from benchmarks import measure as measuring

    measuring.chosen_device()
    return measuring


@app.command("list")
def list_presets(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="[KIND]", help="runs, models, clusters, gpus, kernels, links, collectives or stacks; all without."
        ),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """The presets that can be named in a run file."""
    from perfmodel.exchange.presets import preset_titles

    presets = preset_titles(kind)
    if as_json:
        _emit_json({"schema_version": 1} | presets, None)
    else:
        from perfmodel.report.catalogue import preset_list

        _emit_table(preset_list(presets), None)


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A preset, or KIND/NAME where two kinds share the name.")],
    as_json: AsJson = False,
) -> None:
    """Every number of a preset, and where it comes from."""
    from perfmodel.exchange.presets import preset_settings

    found = preset_settings(name)
    if as_json:
        entries = {title: {key: {"value": value, "source": source} for key, value, source in rows} for title, rows in found}
        _emit_json({"schema_version": 1, "presets": entries}, None)
    else:
        from rich.console import Group

        from perfmodel.report.catalogue import preset_report

        _emit_table(Group(*(preset_report(title, rows) for title, rows in found)), None)


def _wants_json(as_json: bool, output: Path | None) -> bool:
    return as_json or (output is not None and output.suffix.lower() == ".json")


def _emit_json(document: Any, output: Path | None) -> None:
    import json

    text = json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    if output is None:
        _print(text)
    else:
        _write(text, output)


def _emit_table(content: RenderableType, output: Path | None) -> None:
    if output is not None:
        from perfmodel.report.terminal import as_text

        _write(as_text(content, width=120), output)
        return
    columns = max(shutil.get_terminal_size().columns, NARROWEST)
    if sys.stdout is None or not sys.stdout.isatty():
        from perfmodel.report.terminal import as_text

        _print(as_text(content, width=columns))
        return
    from rich.console import Console

    console = Console(width=columns, markup=False, highlight=False, emoji=False)
    with console.capture() as captured:
        console.print(content)
    _print(captured.get())


def _print(text: str) -> None:
    """To standard output; a reader that has seen enough (`| head`) is no error."""
    if sys.stdout is None:
        raise InputError("standard output is closed; open it, or write to a file with --output")
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        raise InputError(f"standard output cannot be written to: {(error.strerror or 'unknown reason').lower()}") from None


def _write(content: str | bytes, output: Path) -> None:
    from perfmodel.exchange.output import write_bytes, write_text

    if isinstance(content, str):
        write_text(output, content)
    else:
        write_bytes(output, content)
    print(f"wrote {output}", file=sys.stderr)


def _progress(items: Sequence[Any], what: str) -> Any:
    if not sys.stderr.isatty():
        return items
    from rich.console import Console
    from rich.progress import track

    return track(items, description=what, console=Console(stderr=True), transient=True)


@contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr that is told how many of how many; nothing where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _warn_of(sentences: Sequence[str]) -> None:
    for sentence in sentences:
        print(f"perfmodel: warning: {sentence}", file=sys.stderr)


def _warn(measured: Sequence[Any]) -> None:
    for warning, rows in Counter(each.warning for each in measured if each.warning).items():
        print(f"perfmodel: warning: {warning} ({rows} row{'s' if rows > 1 else ''})", file=sys.stderr)


def _one_by_one(compare: Callable[[T], R], measured: Sequence[T]) -> list[R]:
    """Each row beside its prediction: all of them, or those that were done when Ctrl-C came."""
    done: list[R] = []
    try:
        for each in _progress(measured, "predicting"):
            done.append(compare(each))  # noqa: PERF401 - what is done stays when it is interrupted
    except KeyboardInterrupt:
        alone = ": the scores are of those alone; nothing is judged or drawn" if done else ""
        print(f"perfmodel: stopped after {len(done)} of {len(measured)} rows{alone}", file=sys.stderr)
        if not done:
            raise typer.Exit(STOPPED) from None
    return done


def _drawing(figure: Path | None) -> Callable[[Sequence[Any]], None]:
    """What draws comparisons to `figure`, refused before the work starts; nothing is drawn without."""
    figures = _figures(figure)
    if figure is None:
        return lambda _: None
    return lambda comparisons: _write(figures.picture(figures.accuracy_figure(comparisons), _kind(figure)), figure)


def _figures(figure: Path | None) -> Any:
    """The module that draws. Errors: InputError for a kind of file that it cannot draw, or without matplotlib."""
    if figure is None:
        return None
    if _kind(figure) not in ("png", "svg"):
        raise InputError(f"--figure {figure} is neither a .png nor an .svg file")
    try:
        return import_module("perfmodel.report.figures")
    except ImportError:
        raise InputError("--figure needs matplotlib; pip install 'perfmodel[report]' brings it") from None


def _kind(figure: Path) -> str:
    return figure.suffix.lower().removeprefix(".")


def _judge(scores: Scoreboard[Any, Any], bars: Sequence[Bar], *, complete: bool) -> None:
    """Exit with 1 when a bar is missed, and a sentence for each; a part of a table is not judged."""
    from perfmodel.evidence.bars import missed_bars

    if not complete:
        raise typer.Exit(STOPPED)
    missed = missed_bars(bars, overall=scores.overall, groups=scores.groups)
    for sentence in missed:
        print(f"perfmodel: {sentence}", file=sys.stderr)
    if missed:
        raise typer.Exit(1)


def main() -> None:
    """Run the command; say what went wrong in one sentence, and exit as DESIGN.md, section 6 has it."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # no prediction uses them, and starting threads is a fifth of the start
    gc.set_threshold(100_000)  # importing makes many objects and hardly any garbage: passes over them cost a tenth of the start
    try:
        app()
    except PerfmodelError as error:
        print(f"perfmodel: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
