"""`perfmodel infer`: does a model serve on some GPUs, with how much context, and how fast?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perfmodel.commands.console import emit, form_of
from perfmodel.commands.options import FORM, AsCsv, AsJson, AsMarkdown, completed

if TYPE_CHECKING:
    from rich.console import RenderableType

REQUEST = "What clients ask"
SERVER = "The server"


def infer(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A preset model (perfmodel list models), a config.json, or a repository of Hugging Face that is known.",
            autocompletion=completed("models"),
        ),
    ],
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
    engine: Annotated[
        str,
        typer.Option(
            "--engine",
            metavar="E",
            help="A preset engine (perfmodel list engines).",
            autocompletion=completed("engines"),
            rich_help_panel=SERVER,
        ),
    ] = "vllm",
    precision: Annotated[
        str,
        typer.Option(
            "--precision", metavar="P", help="Of the weights: bf16, fp8, int8, int4, nvfp4 ..", rich_help_panel=SERVER
        ),
    ] = "bf16",
    kv_precision: Annotated[
        str, typer.Option("--kv-precision", metavar="P", help="Of the KV cache: bf16, fp8.", rich_help_panel=SERVER)
    ] = "bf16",
    expert_parallel: Annotated[
        str, typer.Option("--expert-parallel", metavar="N", help="Groups of GPUs that share experts.", rich_help_panel=SERVER)
    ] = "1",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Override a key of the engine, as in memory.fraction=0.95. Repeatable.",
            rich_help_panel=SERVER,
        ),
    ] = None,
    input_tokens: Annotated[
        str, typer.Option("--input", metavar="N", help="Tokens of a prompt.", rich_help_panel=REQUEST)
    ] = "1000",
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
        typer.Option("--dollars-per-gpu-hour", metavar="$", help="Price, for the cost of a million tokens."),
    ] = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    as_markdown: AsMarkdown = False,
    file: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--to",
            metavar="FILE",
            help="Write to FILE instead of standard output; .json, .csv, .md or .txt chooses the format.",
            rich_help_panel=FORM,
        ),
    ] = None,
) -> None:
    """Say whether MODEL serves on some GPUs, with how much context and how fast. Exit code 1 if it does not fit.

    Examples:
    perfmodel infer nemotron-4-15b --gpu a100-sxm-80gb

    perfmodel infer llama-3.1-70b --gpu h100-sxm-80gb --gpus 2,4,8 --precision fp8

    perfmodel infer qwen3-32b --gpu h100-sxm-80gb --engine sglang --concurrency 1,16,max --json
    """
    from perfmodel.exchange.questions.asked_servers import asked_servers

    form = form_of(file, as_json=as_json, as_csv=as_csv, as_markdown=as_markdown)
    forecasts = asked_servers(
        model,
        gpu=gpu,
        tensor_parallel=tensor_parallel,
        engine=engine,
        precision=precision,
        kv_precision=kv_precision,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        concurrency=concurrency,
        expert_parallel=expert_parallel,
        dollars_per_gpu_hour=dollars_per_gpu_hour,
        settings=settings or (),
    )
    from perfmodel.report.json.serving import plain_rows, serving_document

    def report() -> RenderableType:
        from perfmodel.report.text.serving import serving_report

        return serving_report(forecasts)

    emit(form, file, document=lambda: serving_document(forecasts), report=report, rows=lambda: plain_rows(forecasts))
    if not any(each.may_run for each in forecasts):
        raise typer.Exit(1)
