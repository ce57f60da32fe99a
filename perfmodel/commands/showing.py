"""What a prediction looks like: `report`, a page; `timeline`, a trace."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from shlex import join
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from perfmodel.commands.console import emit, form_of, progress_bar, write_file
from perfmodel.commands.options import AsCsv, AsJson, AsMarkdown, Overrides, RunName, ShownStage, completed, read_record
from perfmodel.errors import InputError, shown

if TYPE_CHECKING:
    from rich.console import RenderableType

    from perfmodel.report.html.document import Page

PAGES: Final = (".html", ".htm")


def report(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="A preset run or a run file; several are compared with the first.",
            autocompletion=completed("runs"),
        ),
    ],
    overrides: Overrides = None,
    scenarios: Annotated[
        list[str] | None,
        typer.Option(
            "--scenario", metavar='"NAME: KEY=VALUE, .."', help="Compare the run with itself under these; any number of times."
        ),
    ] = None,
    records: Annotated[
        list[Path] | None,
        typer.Option("--record", metavar="FILE", help="A measured step beside its prediction (perfmodel measure writes it)."),
    ] = None,
    *,
    stage: Annotated[
        int | None,
        typer.Option("--stage", metavar="N", help="Which stage of a ramp to show first or to compare; else the last."),
    ] = None,
    same_gpus: Annotated[bool, typer.Option("--same-gpus", help="Every stage of a scenario keeps its GPUs.")] = False,
    output: Annotated[
        str,
        typer.Option("--output", "-o", metavar="FILE|FOLDER/", help="The page; in a folder also each figure as PNG and SVG."),
    ] = "report.html",
) -> None:
    """One page of HTML about RUN that opens from disk: the answer, every figure and table, and where each number comes from.

    It asks no network and needs no script. Exit code 1 when the run does not fit; the page then says why first.

    Examples:
    perfmodel report nemotron-4-15b

    perfmodel report run.yaml --set tensor_parallel=4 -o report/

    perfmodel report nemotron-4-15b --scenario "H200: cluster=dgx-h200" --scenario "TP 4: tensor_parallel=4"

    perfmodel report a.yaml b.yaml -o compared.html

    perfmodel report laptop --record record.json
    """
    options = {"--set": overrides, "--scenario": scenarios, "--record": records, "--stage": None if stage is None else [stage]}
    words = [word for option, values in options.items() for value in values or () for word in (option, str(value))]
    command = join(["perfmodel", "report", *runs, *words, *(["--same-gpus"] if same_gpus else [])])
    _check(runs, scenarios or (), records or (), same_gpus=same_gpus)
    path, folder = _places(output)
    pages = _pages()
    with progress_bar("drawing") as advance:
        told: dict[str, Any] = {"stage": stage, "command": command, "on_progress": advance}
        if len(runs) > 1:
            page = pages.runs_page(runs, overrides or (), **told)
        elif scenarios:
            from perfmodel.exchange.questions.scenario_texts import read_scenarios

            wanted = read_scenarios((), scenarios)
            page = pages.scenario_page(runs[0], wanted, base=overrides or (), same_gpus=same_gpus, **told)
        else:
            page = pages.run_page(runs[0], overrides or (), records=[read_record(each) for each in records or ()], **told)
    _write(page, path, folder)
    if not page.fits:
        raise typer.Exit(1)


def _places(output: str) -> tuple[Path, Path | None]:
    """The page, and the folder of its figures where one is asked for. Errors: InputError for another kind of file."""
    from perfmodel.exchange.output import is_folder

    path = Path(output)
    if output.endswith("/") or (output and is_folder(path)):
        return path / "report.html", path
    if path.suffix.lower() not in PAGES:
        raise InputError(f"--output {shown(output)} is no .html file; name one, or a folder with a / at its end")
    return path, None


def _pages() -> Any:
    """What makes pages. Errors: InputError without matplotlib."""
    try:
        from perfmodel.report.html import pages
    except ImportError:
        raise InputError("a report needs matplotlib; pip install 'perfmodel[report]' brings it") from None
    return pages


def _check(runs: Sequence[str], scenarios: Sequence[str], records: Sequence[Path], *, same_gpus: bool) -> None:
    """Raise InputError for options of which one leaves nothing to the other."""
    if scenarios and len(runs) > 1:
        raise InputError("--scenario compares one run with itself; name one run, or leave it out")
    if records and (scenarios or len(runs) > 1):
        raise InputError("--record stands beside one run as it is; leave out the scenarios and all other runs")
    if same_gpus and not scenarios:
        raise InputError("--same-gpus is about scenarios; add one with --scenario, or leave it out")


def _write(page: Page, path: Path, folder: Path | None) -> None:
    """The page, and in a folder each of its figures in both kinds."""
    if folder is None:
        write_file(page.html, path)
        return
    from perfmodel.exchange.output import new_folder
    from perfmodel.report.figures.drawing.style import picture

    new_folder(folder)
    write_file(page.html, path)
    for name, figure in page.figures.items():
        for kind in ("png", "svg"):
            write_file(picture(figure, kind), folder / f"{name}.{kind}")


def timeline(
    run: RunName,
    overrides: Overrides = None,
    *,
    stage: ShownStage = None,
    detail: Annotated[
        str | None,
        typer.Option(
            "--detail", metavar="LEVEL", help="operators, layers or passes; without, as much as a viewer opens quickly."
        ),
    ] = None,
    micro_batches: Annotated[
        int | None,
        typer.Option(
            "--micro-batches", metavar="N", help="Draw the first and the last N one by one, and fold those between them."
        ),
    ] = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    as_markdown: AsMarkdown = False,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The trace; compressed when it ends in .gz.")
    ] = Path("trace.json"),
) -> None:
    """One iteration of RUN in time, as a trace for ui.perfetto.dev and chrome://tracing.

    A process a pipeline stage, a track a stream; every operator has its shape, FLOPs, bytes and how sure its time is.

    --csv prints a row a span. Exit code 1 when the run does not fit.

    Examples:
    perfmodel timeline nemotron-4-15b -o trace.json

    perfmodel timeline run.yaml --set pipeline_parallel=8 --set pipeline_schedule=zb-2p -o zero-bubble.json.gz

    perfmodel timeline run.yaml --detail layers --micro-batches 4
    """
    from perfmodel import api
    from perfmodel.report.trace.facts import timeline_document, timeline_facts
    from perfmodel.report.trace.format import trace_text
    from perfmodel.report.trace.timeline import timeline_events

    form = form_of(None, as_json=as_json, as_csv=as_csv, as_markdown=as_markdown)
    found = api.timeline(run, overrides or (), stage=stage, detail=detail, micro_batches=micro_batches)
    write_file(trace_text(timeline_events(found), timeline_facts(found)), output)

    def told() -> RenderableType:
        from perfmodel.report.text.timeline import timeline_report

        return timeline_report(found)

    emit(form, None, document=lambda: timeline_document(found), report=told, rows=found.rows)
    if not found.predicted.fits:
        raise typer.Exit(1)
