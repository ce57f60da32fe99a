"""What a run will do: `predict`; and what can be named in it: `list`, `show`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from perfmodel.commands.console import emit, form_of
from perfmodel.commands.options import AsCsv, AsJson, AsMarkdown, Output, Overrides, RunName

if TYPE_CHECKING:
    from rich.console import RenderableType


def predict(
    run: RunName,
    overrides: Overrides = None,
    *,
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", help="Add every operator, how sure its time is, and where the uncertainty comes from."),
    ] = False,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    as_markdown: AsMarkdown = False,
    output: Output = None,
) -> None:
    """Iteration time, MFU, memory and days for each stage of RUN.

    Examples:
    perfmodel predict nemotron-4-15b

    perfmodel predict nemotron-4-15b --set economics.dollars_per_gpu_hour=2.5

    perfmodel predict run.yaml --set tensor_parallel=4 --json
    """
    from perfmodel.exchange.run_files import read_candidates
    from perfmodel.prediction import predict as predict_run

    candidates = read_candidates(run, overrides or ())
    predictions = [(candidate.values, predict_run(candidate.run)) for candidate in candidates]
    _, first = predictions[0]
    assumptions = candidates[0].assumptions

    def document() -> Any:
        from perfmodel.report.json.prediction import prediction_document

        return prediction_document(first, assumptions=assumptions, candidates=predictions, verbose=verbose)

    def report() -> RenderableType:
        from rich.console import Group

        from perfmodel.report.text.operators import prediction_details
        from perfmodel.report.text.prediction import prediction_report

        tables = prediction_report(first, assumptions=assumptions, candidates=predictions)
        return Group(tables, prediction_details(first)) if verbose else tables

    emit(
        form_of(output, as_json=as_json, as_csv=as_csv, as_markdown=as_markdown),
        output,
        document=document,
        report=report,
        rows=lambda: [dict(values) | row for values, prediction in predictions for row in prediction.rows()],
    )
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
    *,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    as_markdown: AsMarkdown = False,
    output: Output = None,
) -> None:
    """The presets that can be named in a run file.

    Examples:
    perfmodel list

    perfmodel list models --csv
    """
    from perfmodel.exchange.presets import preset_titles

    presets = preset_titles(kind)

    def report() -> RenderableType:
        from perfmodel.report.text.catalogue import preset_list

        return preset_list(presets)

    emit(
        form_of(output, as_json=as_json, as_csv=as_csv, as_markdown=as_markdown),
        output,
        document=lambda: {"schema_version": 1} | presets,
        report=report,
        rows=lambda: [
            {"kind": each, "name": name, "title": title} for each in presets for name, title in presets[each].items()
        ],
    )


def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A preset, or KIND/NAME where two kinds share the name.")],
    *,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    as_markdown: AsMarkdown = False,
    output: Output = None,
) -> None:
    """Every number of a preset, and where it comes from.

    Examples:
    perfmodel show dgx-h100

    perfmodel show economics/typical

    perfmodel show kernels/h100-sxm-80gb --csv
    """
    from perfmodel.exchange.presets import preset_settings

    found = preset_settings(name)

    def document() -> Any:
        entries = {title: {key: {"value": value, "source": source} for key, value, source in rows} for title, rows in found}
        return {"schema_version": 1, "presets": entries}

    def report() -> RenderableType:
        from rich.console import Group

        from perfmodel.report.text.catalogue import preset_report

        return Group(*(preset_report(title, rows) for title, rows in found))

    emit(
        form_of(output, as_json=as_json, as_csv=as_csv, as_markdown=as_markdown),
        output,
        document=document,
        report=report,
        rows=lambda: [
            {"preset": title, "key": key, "value": value, "source": source}
            for title, rows in found
            for key, value, source in rows
        ],
    )
