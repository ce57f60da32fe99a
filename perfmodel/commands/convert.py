"""`perfmodel convert`: a script, configuration or log of other software as a run file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perfmodel.commands.console import emit_json, emit_table, printed, say, write_file
from perfmodel.commands.options import AsJson, Gpus, Model, OnCluster, Tokens
from perfmodel.errors import InputError, NotSupportedError

if TYPE_CHECKING:
    from perfmodel.exchange.translation.conversion import Conversion

RUN_FILES = (".yaml", ".yml", ".json", "")
NOT_COVERED = NotSupportedError.exit_code


def convert(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            help="A launch script, a configuration, a config.json or a log; what it is follows from its content.",
        ),
    ],
    *,
    model: Model = None,
    cluster: OnCluster = None,
    gpus: Gpus = None,
    tokens: Tokens = None,
    as_json: AsJson = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the run file to FILE.")] = None,
) -> None:
    """Read SOURCE, a file of other training software, as a run file: what it says, what its defaults are, what is not read.

    Nothing is executed. Exit code 3 where something cannot be expressed; what it is stands first in the file.

    Examples:
    perfmodel convert train.sh --cluster dgx-h100 -o run.yaml

    perfmodel convert train.log --json

    perfmodel convert ds_config.json --model config.json --cluster dgx-a100 --gpus 64 -o run.yaml
    """
    from perfmodel.exchange.converted_files import conversion_document, converted, run_file_text

    if output is not None and output.suffix.lower() not in RUN_FILES:
        raise InputError(f"--output {output} is not the name of a run file; {', '.join(RUN_FILES[:-1])} would do")
    found = converted(source, model=model, cluster=cluster, gpus=gpus, tokens=tokens)
    if as_json or (output is not None and output.suffix.lower() == ".json"):  # other endings are those of run files
        emit_json(conversion_document(found), output)
    elif found.run is None or (found.record is not None and output is None):
        _report(found, source)
    elif output is None:
        printed(run_file_text(found, source=source.name))
    else:
        write_file(run_file_text(found, source=source.name), output)
        _say(found)
    if found.refused:
        raise typer.Exit(NOT_COVERED)


def _report(found: Conversion, source: Path) -> None:
    """Print what a log says."""
    from perfmodel.report.text.measured.log_record import log_report

    emit_table(log_report(found, source.name), None)


def _say(found: Conversion) -> None:
    """What a user should know of the file that was written."""
    from perfmodel.exchange.converted_files import missing

    for sentence in (*found.refused, *missing(found.run or {})):
        say(sentence)
