"""`perfmodel infer`: does a model serve on some GPUs, with how much context, and how fast?"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from shlex import join
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from perfmodel.commands.console import drawing_module, emit, form_of, kind_of, write_file
from perfmodel.commands.options import AsCsv, AsJson, AsMarkdown, To, completed
from perfmodel.commands.page_files import NO_MATPLOTLIB, PAGES
from perfmodel.commands.serving_options import (
    REQUEST,
    SERVER,
    EngineName,
    ExpertParallel,
    InputTokens,
    KvPrecision,
    Precision,
    ServedModel,
)
from perfmodel.errors import InputError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from perfmodel.serving.forecast import ServingForecast

Draw: TypeAlias = "Callable[[Sequence[ServingForecast]], None]"


def infer(
    model: ServedModel,
    *,
    gpu: Annotated[
        str,
        typer.Option(
            "--gpu",
            metavar="GPU",
            help="A preset GPU (perfmodel list gpus).",
            autocompletion=completed("gpus"),
            rich_help_panel=SERVER,
        ),
    ],
    tensor_parallel: Annotated[
        str,
        typer.Option(
            "--tensor-parallel",
            "--gpus",
            metavar="N[,N..]",
            help="GPUs of one replica, one or several numbers of them: 1,2,4,8.",
            rich_help_panel=SERVER,
        ),
    ] = "1",
    engine: EngineName = None,
    precision: Precision = None,
    kv_precision: KvPrecision = None,
    expert_parallel: ExpertParallel = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Override a key of the engine, as in memory.fraction=0.95. Repeatable.",
            rich_help_panel=SERVER,
        ),
    ] = None,
    input_tokens: InputTokens = None,
    output_tokens: Annotated[
        str, typer.Option("--output", metavar="N", help="Tokens that come back.", rich_help_panel=REQUEST)
    ] = "500",
    concurrency: Annotated[
        str,
        typer.Option(
            "--concurrency",
            metavar="N[,N..][,max]",
            help="Clients, each with one request at a time; max is as many as fit at once.",
            rich_help_panel=REQUEST,
        ),
    ] = "1,8,64,max",
    dollars_per_gpu_hour: Annotated[
        str | None,
        typer.Option(
            "--price", "--dollars-per-gpu-hour", metavar="$", help="Price of a GPU-hour, for the cost of a million tokens."
        ),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Add every operator of prefill and decode, with its roof.")
    ] = False,
    figure: Annotated[
        Path | None,
        typer.Option("--figure", metavar="FILE", help="Draw the throughput-latency curve to FILE (.png or .svg)."),
    ] = None,
    roofline: Annotated[
        Path | None,
        typer.Option("--roofline", metavar="FILE", help="Draw prefill and decode under their roofs to FILE (.png or .svg)."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE", help="Write all of it as one page to FILE (.html).")
    ] = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    as_markdown: AsMarkdown = False,
    file: To = None,
) -> None:
    """Say whether MODEL serves on some GPUs, with how much context and how fast. Exit code 1 if it does not fit.

    Examples:
    perfmodel infer nemotron-4-15b --gpu a100-sxm-80gb

    perfmodel infer llama-3.1-70b --gpu h100-sxm-80gb --gpus 2,4,8 --precision fp8

    perfmodel infer qwen3-32b --gpu h100-sxm-80gb --engine sglang --concurrency 1,16,max --json

    perfmodel infer qwen3-32b --gpu b200 --gpus 1,2 --figure curve.png --roofline roofs.png --report server.html
    """
    from perfmodel.exchange.questions.serving.asked_servers import USUAL_FORMAT, USUAL_INPUT, asked_servers
    from perfmodel.exchange.questions.serving.served_models import USUAL_ENGINE

    pictures = [_curve(figure), _roofline(roofline), _page(report)]
    form = form_of(file, as_json=as_json, as_csv=as_csv, as_markdown=as_markdown)
    forecasts = asked_servers(
        model,
        gpu=gpu,
        tensor_parallel=tensor_parallel,
        engine=engine or USUAL_ENGINE,
        precision=precision,
        kv_precision=kv_precision or USUAL_FORMAT,
        input_tokens=input_tokens or USUAL_INPUT,
        output_tokens=output_tokens,
        concurrency=concurrency,
        expert_parallel=expert_parallel or 1,
        dollars_per_gpu_hour=dollars_per_gpu_hour,
        settings=settings or (),
    )
    from perfmodel.report.json.serving import plain_rows, serving_document

    def tables() -> RenderableType:
        from perfmodel.report.text.serving import serving_report

        return serving_report(forecasts, verbose=verbose)

    emit(form, file, document=lambda: serving_document(forecasts), report=tables, rows=lambda: plain_rows(forecasts))
    for draw in pictures:
        draw(forecasts)
    if not any(each.may_run for each in forecasts):
        raise typer.Exit(1)


def _curve(path: Path | None) -> Draw:
    """A function that draws forecasts to `path`; does nothing without one. Errors: InputError before any work."""
    figures = drawing_module(path, "perfmodel.report.figures.serving")
    if path is None:
        return _nothing
    return lambda forecasts: write_file(figures.picture(figures.serving_figure(forecasts), kind_of(path)), path)


def _roofline(path: Path | None) -> Draw:
    """The same with the rooflines of the first replica that fits."""
    figures = drawing_module(path, "perfmodel.report.figures.serving", option="--roofline")
    if path is None:
        return _nothing
    return lambda forecasts: write_file(figures.picture(figures.first_roofline(forecasts), kind_of(path)), path)


def _page(path: Path | None) -> Draw:
    """The same as one page."""
    if path is None:
        return _nothing
    if path.suffix.lower() not in PAGES:
        raise InputError(f"--report {path} must be an .html file")
    try:
        from perfmodel.report.html.server import server_page
    except ImportError:
        raise InputError(NO_MATPLOTLIB) from None
    command = join(["perfmodel", *sys.argv[1:]]) if sys.argv[1:2] == ["infer"] else ""
    return lambda forecasts: write_file(server_page(forecasts, command=command).html, path)


def _nothing(_: Sequence[ServingForecast]) -> None:
    """Draw nothing."""
