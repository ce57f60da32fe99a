"""The command line: parse, call, print. The only place that prints, and the only one that sets an exit code.

Exit codes: 0 yes, 1 no (it does not fit), 2 the input is wrong, 3 not supported yet.
"""

from __future__ import annotations

import gc
import os
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perfmodel import __version__
from perfmodel.errors import InputError, PerfmodelError

if TYPE_CHECKING:
    from rich.console import RenderableType

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
    run: Annotated[str, typer.Argument(metavar="RUN", help="A preset run (perfmodel list) or a YAML, TOML or JSON run file.")],
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
    file: Annotated[Path, typer.Argument(metavar="FILE.csv", help="Measured runs, in the columns of published_runs.csv.")],
    as_json: AsJson = False,
    output: Output = None,
) -> None:
    """How wrong the predictions are on the measured runs in FILE.csv.

    Rows that are not covered yet are counted with the reason, never guessed.
    """
    from perfmodel.evidence.validate import compare, grouped, summarise, unsupported
    from perfmodel.exchange.published_runs import read_measured_runs

    measured = read_measured_runs(file)
    for warning, rows in Counter(each.warning for each in measured if each.warning).items():
        print(f"perfmodel: warning: {warning} ({rows} row{'s' if rows > 1 else ''})", file=sys.stderr)
    comparisons = [compare(each) for each in _progress(measured, "predicting")]
    summary: dict[str, Any] = {
        "overall": summarise(comparisons),
        "groups": grouped(comparisons),
        "unsupported": unsupported(comparisons),
    }
    if _wants_json(as_json, output):
        from perfmodel.report.scoreboard import validation_document

        _emit_json(validation_document(comparisons, **summary), output)
    else:
        from perfmodel.report.scoreboard import validation_report

        _emit_table(validation_report(comparisons, **summary), output)


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


def _write(text: str, output: Path) -> None:
    from perfmodel.exchange.output import write_text

    write_text(output, text)
    print(f"wrote {output}", file=sys.stderr)


def _progress(items: Sequence[Any], what: str) -> Any:
    if not sys.stderr.isatty():
        return items
    from rich.console import Console
    from rich.progress import track

    return track(items, description=what, console=Console(stderr=True), transient=True)


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
