"""`perfmodel report`: a prediction, or a comparison of several, as one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from shlex import join
from typing import Annotated, Any

import typer

from perfmodel.commands.console import progress_bar
from perfmodel.commands.options import Evidence, Gpus, Model, OnCluster, Overrides, Tokens, asked, completed
from perfmodel.commands.page_files import NO_MATPLOTLIB, page_places, write_page
from perfmodel.errors import InputError


def report(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN...",
            help="Preset runs, run files, scripts or configurations of other software, or models; the others are compared "
            "with the first.",
            autocompletion=completed("runs"),
        ),
    ] = None,
    overrides: Overrides = None,
    scenarios: Annotated[
        list[str] | None,
        typer.Option("--scenario", metavar='"NAME: KEY=VALUE, .."', help="Compare the run with this scenario. Repeatable."),
    ] = None,
    records: Annotated[
        list[Path] | None,
        typer.Option(
            "--record", metavar="FILE", help="Compare with a measured step (written by perfmodel measure). Repeatable."
        ),
    ] = None,
    *,
    model: Model = None,
    cluster: OnCluster = None,
    gpus: Gpus = None,
    tokens: Tokens = None,
    evidence: Evidence = None,
    stage: Annotated[
        int | None,
        typer.Option(
            "--stage", metavar="N", help="Stage of the batch ramp to show first or to compare. Default: the last stage."
        ),
    ] = None,
    same_gpus: Annotated[
        bool, typer.Option("--same-gpus", help="Keep the GPUs of each stage in a scenario; data parallelism adapts.")
    ] = False,
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE|FOLDER/",
            help="Write the page to FILE, or with each figure as PNG and SVG to FOLDER/.",
        ),
    ] = "report.html",
) -> None:
    """Write one self-contained HTML page about RUN: the answer, every figure and table, and the source of each number.

    The page loads nothing from the network. Exit code 1 if the run does not fit; the page then begins with the reason.

    Examples:
    perfmodel report nemotron-4-15b

    perfmodel report run.yaml --set tensor_parallel=4 -o report/

    perfmodel report nemotron-4-15b --scenario "H200: cluster=dgx-h200" --scenario "TP 4: tensor_parallel=4"

    perfmodel report a.yaml b.yaml -o compared.html

    perfmodel report laptop --record record.json
    """
    beside = {
        "--model": model,
        "--cluster": cluster,
        "--gpus": gpus,
        "--tokens": tokens,
        "--evidence": evidence,
        "--stage": stage,
    }
    options = {"--set": overrides, "--scenario": scenarios, "--record": records}
    options |= {option: [str(value)] for option, value in beside.items() if value is not None}
    words = [word for option, values in options.items() for value in values or () for word in (option, str(value))]
    named = runs or [""]  # of a model alone
    command = join(["perfmodel", "report", *(runs or ()), *words, *(["--same-gpus"] if same_gpus else [])])
    _check(named, scenarios or (), records or (), same_gpus=same_gpus)
    path, folder = page_places(output, "--output", "report.html")
    from perfmodel.exchange.measured.own_evidence import with_evidence

    pages, settings = _pages(), with_evidence(overrides or (), evidence)
    sources = [asked(run, model, cluster, gpus, tokens, settings=overrides) for run in named]
    with progress_bar("drawing") as advance:
        common: dict[str, Any] = {"stage": stage, "command": command, "on_progress": advance}
        if len(named) > 1:
            page = pages.runs_page(sources, settings, **common)
        elif scenarios:
            from perfmodel.exchange.questions.scenario_texts import read_scenarios

            wanted = read_scenarios((), scenarios)
            page = pages.scenario_page(
                sources[0], wanted, base=overrides or (), same_gpus=same_gpus, evidence=evidence, **common
            )
        else:
            from perfmodel.exchange.questions.compared_records import read_record

            page = pages.run_page(sources[0], settings, records=[read_record(each) for each in records or ()], **common)
    write_page(page, path, folder)
    if not page.fits:
        raise typer.Exit(1)


def _pages() -> Any:
    """The module that builds pages. Errors: InputError without matplotlib."""
    try:
        from perfmodel.report.html import pages
    except ImportError:
        raise InputError(NO_MATPLOTLIB) from None
    return pages


def _check(runs: Sequence[str], scenarios: Sequence[str], records: Sequence[Path], *, same_gpus: bool) -> None:
    """Raise InputError for options that cannot be combined."""
    if scenarios and len(runs) > 1:
        raise InputError("--scenario compares one run with itself; name one run, or remove --scenario")
    if records and (scenarios or len(runs) > 1):
        raise InputError("--record is compared with one unchanged run; remove --scenario and all other runs")
    if same_gpus and not scenarios:
        raise InputError("--same-gpus needs a --scenario")
