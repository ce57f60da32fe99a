"""`perfmodel plan --serve`: the servers that keep a promise to their clients at least cost."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from perfmodel.commands.console import ENDINGS, emit
from perfmodel.errors import InputError

if TYPE_CHECKING:
    from rich.console import RenderableType


def check_absent(options: Mapping[str, object], why: str) -> None:
    """Raise InputError for the first option that is given."""
    for name in (name for name, value in options.items() if value):
        shown = {"input_tokens": "input"}.get(name, name).replace("_", "-")
        raise InputError(f"--{shown} {why}")


def plan_service(model: str, asked: Mapping[str, Any], *, form: str, output: Path | None) -> None:
    """Plan servers of MODEL and write what was found; exit code 1 if nothing keeps the promise."""
    from perfmodel.exchange.questions.serving.asked_services import asked_service
    from perfmodel.report.json.service import service_document, service_rows

    if not model:
        raise InputError("--serve needs a MODEL, as in perfmodel plan llama-3.1-70b --serve")
    if asked["requests_per_s"] is None:
        raise InputError("--serve needs --requests-per-s, the requests that come each second")
    tokens = asked["output_tokens"]
    if tokens is not None and Path(tokens).suffix in ENDINGS:
        raise InputError(f"--output {tokens} is no number of tokens; with --serve, -o {tokens} names the file")
    found = asked_service(model, **{name: value for name, value in asked.items() if value is not None})

    def report() -> RenderableType:
        from perfmodel.report.text.plans.service import service_report

        return service_report(found)

    emit(form, output, document=lambda: service_document(found), report=report, rows=lambda: service_rows(found))
    if found.best is None:
        raise typer.Exit(1)
