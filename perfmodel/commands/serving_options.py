"""Options that `infer` and `plan --serve` share: the server, and what clients ask."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from perfmodel.commands.options import completed

REQUEST: Final = "What clients ask"
SERVER: Final = "The server"

ServedModel = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A preset model (perfmodel list models), a config.json, or a repository of Hugging Face that is known.",
        autocompletion=completed("models"),
    ),
]
EngineName = Annotated[
    str | None,
    typer.Option(
        "--engine",
        metavar="E",
        help="A preset engine (perfmodel list engines). Default: vllm.",
        autocompletion=completed("engines"),
        rich_help_panel=SERVER,
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(
        "--precision",
        metavar="P",
        help="Of the weights: bf16, fp8, int8, int4, nvfp4 ..; with plan several, without --serve of training. Default: what "
        "quantization_config of a config.json says, else bf16.",
        rich_help_panel=SERVER,
    ),
]
KvPrecision = Annotated[
    str | None,
    typer.Option(
        "--kv-precision",
        metavar="P",
        help="Of the KV cache: bf16, fp8; with plan several. Default: bf16.",
        rich_help_panel=SERVER,
    ),
]
ExpertParallel = Annotated[
    str | None,
    typer.Option(
        "--expert-parallel",
        metavar="N",
        help="Groups of GPUs that share experts; with plan several. Default: 1.",
        rich_help_panel=SERVER,
    ),
]
InputTokens = Annotated[
    str | None, typer.Option("--input", metavar="N", help="Tokens of a prompt. Default: 1000.", rich_help_panel=REQUEST)
]
