"""What a prediction looks like: `report`, a page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from shlex import join
from typing import Annotated, Any, Final

import typer

from perfmodel.commands.console import progress_bar, write_file
from perfmodel.commands.options import Overrides, completed
from perfmodel.errors import InputError

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
    path, folder = _places(output)
    pages = _pages()
    with progress_bar("drawing") as advance:
        told: dict[str, Any] = {"stage": stage, "command": command, "on_progress": advance}
        if len(runs) > 1:
            _refuse("several runs are", {"--scenario": scenarios, "--record": records, "--same-gpus": same_gpus})
            page = pages.runs_page(runs, overrides or (), **told)
        elif scenarios:
            from perfmodel.exchange.scenario_texts import read_scenarios

            _refuse("scenarios are", {"--record": records})
            wanted = read_scenarios((), scenarios)
            page = pages.scenario_page(runs[0], wanted, base=overrides or (), same_gpus=same_gpus, **told)
        else:
            _refuse("one run without a --scenario is", {"--same-gpus": same_gpus})
            page = pages.run_page(runs[0], overrides or (), records=[_record(each) for each in records or ()], **told)
    _write(page, path, folder)
    if not page.fits:
        raise typer.Exit(1)


def _places(output: str) -> tuple[Path, Path | None]:
    """The page, and the folder of its figures where one is asked for. Errors: InputError for another kind of file."""
    path = Path(output)
    if output.endswith("/") or path.is_dir():
        return path / "report.html", path
    if path.suffix.lower() not in PAGES:
        raise InputError(f"--output {output} is no .html file; name one, or a folder with a / at its end")
    return path, None


def _pages() -> Any:
    """What makes pages. Errors: InputError without matplotlib."""
    try:
        from perfmodel.report import pages
    except ImportError:
        raise InputError("a report needs matplotlib; pip install 'perfmodel[report]' brings it") from None
    return pages


def _refuse(what: str, options: Mapping[str, Any]) -> None:
    """Raise InputError for an option that another kind of page has."""
    for option, value in options.items():
        if value:
            raise InputError(f"{option} does not go with this report: {what} what it shows")


def _record(path: Path) -> Any:
    from perfmodel.evidence.step_records import step_record
    from perfmodel.exchange.documents import read_mapping

    return step_record(read_mapping(path, needs="what `perfmodel measure` writes"))


def _write(page: Any, path: Path, folder: Path | None) -> None:
    """The page, and in a folder each of its figures in both kinds."""
    if folder is None:
        write_file(page.html, path)
        return
    from perfmodel.exchange.output import new_folder
    from perfmodel.report.style import picture

    new_folder(folder)
    write_file(page.html, path)
    for name, figure in page.figures.items():
        for kind in ("png", "svg"):
            write_file(picture(figure, kind), folder / f"{name}.{kind}")
