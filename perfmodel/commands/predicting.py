"""What a run will do: `predict`; and what can be named in it: `list`, `show`."""

from __future__ import annotations

from typing import Annotated

import typer

from perfmodel.commands.console import emit_json, emit_table, wants_json
from perfmodel.commands.options import AsJson, Output, Overrides, RunName


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
    from perfmodel.prediction import predict as predict_run

    candidates = read_candidates(run, overrides or ())
    predictions = [(candidate.values, predict_run(candidate.run)) for candidate in candidates]
    _, first = predictions[0]
    assumptions = candidates[0].assumptions
    if wants_json(as_json, output):
        from perfmodel.report.documents import prediction_document

        document = prediction_document(first, assumptions=assumptions, candidates=predictions, verbose=verbose)
        emit_json(document, output)
    else:
        from rich.console import Group

        from perfmodel.report.tables import prediction_report

        report = [prediction_report(first, assumptions=assumptions, candidates=predictions)]
        if verbose:
            from perfmodel.report.details import prediction_details

            report.append(prediction_details(first))
        emit_table(Group(*report), output)
    if not first.fits:
        raise typer.Exit(1)


def list_presets(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="[KIND]",
            help="runs, models, clusters, gpus, kernels, links, collectives, stacks or economics; all without.",
        ),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """The presets that can be named in a run file."""
    from perfmodel.exchange.presets import preset_titles

    presets = preset_titles(kind)
    if as_json:
        emit_json({"schema_version": 1} | presets, None)
    else:
        from perfmodel.report.catalogue import preset_list

        emit_table(preset_list(presets), None)


def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A preset, or KIND/NAME where two kinds share the name.")],
    as_json: AsJson = False,
) -> None:
    """Every number of a preset, and where it comes from."""
    from perfmodel.exchange.presets import preset_settings

    found = preset_settings(name)
    if as_json:
        entries = {title: {key: {"value": value, "source": source} for key, value, source in rows} for title, rows in found}
        emit_json({"schema_version": 1, "presets": entries}, None)
    else:
        from rich.console import Group

        from perfmodel.report.catalogue import preset_report

        emit_table(Group(*(preset_report(title, rows) for title, rows in found)), None)
