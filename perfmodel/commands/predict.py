"""`perfmodel predict`: iteration time, MFU, memory and days of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from perfmodel.commands.console import emit, form_of
from perfmodel.commands.options import (
    STDIN,
    AsCsv,
    AsJson,
    AsMarkdown,
    Evidence,
    Gpus,
    Model,
    OnCluster,
    Output,
    Overrides,
    RunName,
    Tokens,
    asked,
    asked_tuning,
    completed,
)

TUNING: Final = "Fine-tuning of a model"  # the panel of its options

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rich.console import RenderableType

    from perfmodel.exchange.run_files import RunCandidate, RunSource
    from perfmodel.prediction import Prediction


def predict(
    run: RunName = "",
    overrides: Overrides = None,
    *,
    model: Model = None,
    cluster: OnCluster = None,
    gpus: Gpus = None,
    tokens: Tokens = None,
    evidence: Evidence = None,
    gpu: Annotated[
        str | None,
        typer.Option(
            "--gpu",
            metavar="G",
            help="Fine-tune the model RUN on this GPU, as in rtx-4090 (perfmodel list gpus).",
            autocompletion=completed("gpus"),
            rich_help_panel=TUNING,
        ),
    ] = None,
    training: Annotated[
        str | None,
        typer.Option("--training", metavar="T", help="full, lora, dora or qlora. Default: qlora.", rich_help_panel=TUNING),
    ] = None,
    examples: Annotated[
        str | None, typer.Option("--examples", metavar="N", help="Number of examples, for the hours.", rich_help_panel=TUNING)
    ] = None,
    epochs: Annotated[
        str | None, typer.Option("--epochs", metavar="N", help="How often each is seen. Default: 1.", rich_help_panel=TUNING)
    ] = None,
    example_length: Annotated[
        str | None,
        typer.Option("--example-length", metavar="N", help="Mean tokens of an example.", rich_help_panel=TUNING),
    ] = None,
    padded: Annotated[
        bool,
        typer.Option("--padded", help="Each example takes a whole sequence. Default: packed.", rich_help_panel=TUNING),
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose", "-v", help="Also list every operator, the confidence in its time, and the sources of uncertainty."
        ),
    ] = False,
    flops_convention: Annotated[
        str,
        typer.Option(
            "--flops-convention",
            metavar="full|causal",
            help="How MFU and TFLOP/s count attention: in full (Megatron, Nemotron, PaLM) or its causal half (newer tables of "
            "NVIDIA, MaxText). --json has both.",
        ),
    ] = "full",
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    as_markdown: AsMarkdown = False,
    output: Output = None,
) -> None:
    """Predict iteration time, MFU, memory and days for each stage of RUN. Exit code 1 if it does not fit.

    Examples:
    perfmodel predict nemotron-4-15b

    perfmodel predict nemotron-4-15b --set economics.dollars_per_gpu_hour=2.5

    perfmodel predict run.yaml --set tensor_parallel=4 --json

    perfmodel predict run.yaml --evidence mine.yaml

    perfmodel predict llama-3.1-8b --cluster dgx-h100 --gpus 64 --tokens 1T

    perfmodel predict train.sh --cluster dgx-h100 --gpus 512

    perfmodel predict llama-3.1-8b --gpu rtx-4090 --training qlora

    perfmodel predict config.json --gpu a100-sxm-80gb --training lora --examples 50k --set optimizer=adamw_8bit
    """
    from perfmodel.count.flops import check_convention
    from perfmodel.exchange.measured.own_evidence import with_evidence
    from perfmodel.exchange.run_files import read_candidates
    from perfmodel.exchange.syntax.slips import slips_of_a_prediction
    from perfmodel.prediction import predict as predict_run

    check_convention(flops_convention)
    parts: dict[str, Any] = {"model": model, "cluster": cluster, "gpus": gpus, "tokens": tokens}
    tuning = {"gpu": gpu, "training": training, "examples": examples, "epochs": epochs, "example_length": example_length}

    def found(others: Mapping[str, Any], settings: Sequence[str]) -> tuple[RunCandidate, ...]:
        source = _source(run, parts | tuning | dict(others), settings, padded=padded)
        return read_candidates(source, with_evidence(settings, evidence))

    candidates = found({}, overrides or ())
    predictions = [(candidate.values, predict_run(candidate.run)) for candidate in candidates]
    _, first = predictions[0]
    slips = slips_of_a_prediction(first)
    said = {
        "assumptions": (*candidates[0].assumptions, *slips),
        "candidates": predictions,
        "consequences": (*candidates[0].consequences, *slips),
        "remedies": [] if first.may_fit else _remedies(run or model or "", first, found, overrides or ()),
    }
    emit(
        form_of(output, as_json=as_json, as_csv=as_csv, as_markdown=as_markdown),
        output,
        document=lambda: _document(first, said, verbose=verbose),
        report=lambda: _report(first, said, convention=flops_convention, verbose=verbose),
        rows=lambda: [dict(values) | row for values, prediction in predictions for row in prediction.rows()],
    )
    if not first.may_fit:
        raise typer.Exit(1)


def _document(first: Prediction, said: Mapping[str, Any], *, verbose: bool) -> Any:
    """The JSON document; its imports, and those of the report, wait until one of the two is asked for."""
    from perfmodel.report.json.prediction import prediction_document

    return prediction_document(first, **said, verbose=verbose)


def _report(first: Prediction, said: Mapping[str, Any], *, convention: str, verbose: bool) -> RenderableType:
    """The tables; with every operator below them where that is asked for."""
    from perfmodel.report.text.prediction import prediction_report

    tables = prediction_report(first, **said, convention=convention)
    if not verbose:
        return tables
    from rich.console import Group

    from perfmodel.report.text.operators import prediction_details

    return Group(tables, prediction_details(first))


def _source(run: str, options: Mapping[str, Any], settings: Sequence[str], *, padded: bool) -> RunSource:
    """What the options ask about: a fine-tuning where one of its options is given, else a run."""
    parts = {key: options[key] for key in ("model", "cluster", "tokens")}
    question = {key: options[key] for key in ("gpu", "training", "examples", "epochs", "example_length")}
    if any(each is not None for each in question.values()):
        return asked_tuning(run, question | {"gpus": options["gpus"], "padded": padded}, settings, **parts)
    return asked(run, gpus=options["gpus"], settings=settings, **parts)


def _remedies(
    asked_about: str,
    first: Prediction,
    found: Callable[[Mapping[str, Any], Sequence[str]], tuple[RunCandidate, ...]],
    settings: Sequence[str],
) -> list[str]:
    """Options with which a run would fit that does not, as they are typed."""
    from perfmodel.exchange.questions.asked_runs import known_model
    from perfmodel.exchange.questions.fitting_options import FittingOption, fitting_options
    from perfmodel.prediction import predict as predict_run

    def again(option: FittingOption) -> Prediction:
        return predict_run(found(option.options, [*settings, *option.settings])[0].run)

    if asked_about == STDIN:  # nobody can read it twice
        return []
    return [str(each) for each in fitting_options(first, again, is_searched=known_model(asked_about) is not None)]
