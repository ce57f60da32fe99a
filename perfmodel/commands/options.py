"""Arguments and options that several commands share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from perfmodel.commands.completion import setting_words
from perfmodel.errors import InputError

if TYPE_CHECKING:
    from perfmodel.exchange.questions.plan_arguments import SearchLimits
    from perfmodel.exchange.run_files import RunSource

FORM: Final = "Output format"  # the panel of options that choose how a result looks
WRITTEN_TO: Final = "Write to FILE instead of standard output; .json, .csv, .md or .txt chooses the format."
STDIN: Final = "-"
HARDWARE: Final = "What the run does not say"  # of options that stand beside a model, a launch script or a configuration
PRESETS: Final = Path(__file__).parent.parent / "data"


def completed(kind: str) -> Callable[[str], list[str]]:
    """Shell completion for the names of one kind of preset (without loading what reads presets)."""
    return lambda incomplete: sorted(path.stem for path in (PRESETS / kind).glob(f"{incomplete}*.yaml"))


def asked(
    run: str,
    model: str | None,
    cluster: str | None,
    gpus: str | None,
    tokens: str | None,
    *,
    search: SearchLimits | None = None,
    settings: Sequence[str] | None = None,
) -> RunSource:
    """The run that is asked about: a run, a file of other software or a model, with what is given beside it.

    `search` limits the layouts that a model alone may get; so do `settings`, which are yet to be set in the run.
    """
    if run and model is cluster is gpus is tokens is None and (PRESETS / "runs" / f"{run}.yaml").is_file():
        return run  # the usual case, which waits for nothing
    from perfmodel.exchange.questions.asked_runs import asked_run, run_in_text

    if run == STDIN:
        return run_in_text(sys.stdin.read(), model=model, cluster=cluster, gpus=gpus, tokens=tokens)
    return asked_run(run, model=model, cluster=cluster, gpus=gpus, tokens=tokens, search=search, settings=settings or ())


def asked_tuning(
    run: str,
    question: Mapping[str, Any],
    overrides: Sequence[str],
    *,
    model: str | None,
    cluster: str | None,
    tokens: str | None,
) -> RunSource:
    """The run of a model that is fine-tuned on a GPU; `question` holds what TuningQuestion asks. Errors: InputError."""
    from perfmodel.exchange.questions.tuned_runs import TuningQuestion, check_is_model, tuned_run

    for option, value in (("cluster", cluster), ("tokens", tokens)):
        if value is not None:
            instead = {"cluster": "--gpu names the GPU", "tokens": "--examples says how much"}[option]
            raise InputError(f"it does not go with --gpu and --training; {instead}", key=option)
    if run and model is not None:
        raise InputError(f"{run} is the model; leave out --model", key="model")
    if not run and model is None:
        raise InputError("name a model, as in llama-3.1-8b --gpu rtx-4090 --training qlora")
    check_is_model(run or str(model))
    settings = {key.strip(): value for key, _, value in (each.partition("=") for each in overrides)}
    return tuned_run(run or str(model), TuningQuestion(**question), settings)


Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a key of the run, as in tensor_parallel=4; its name is an option too: --tensor-parallel 4, --tp 4. "
        "Repeatable.",
        autocompletion=setting_words,
    ),
]
Evidence = Annotated[
    str | None,
    typer.Option(
        "--evidence",
        metavar="FILE",
        help="Correct predictions by your own measured runs: the file that `perfmodel calibrate --from-runs` wrote.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.", rich_help_panel=FORM)]
AsCsv = Annotated[bool, typer.Option("--csv", help="Print CSV instead of tables.", rich_help_panel=FORM)]
AsMarkdown = Annotated[bool, typer.Option("--markdown", help="Print Markdown instead of tables.", rich_help_panel=FORM)]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help=WRITTEN_TO,
        rich_help_panel=FORM,
    ),
]
To = Annotated[  # where --output has another meaning beside it
    Path | None,
    typer.Option("-o", "--to", metavar="FILE", help=WRITTEN_TO, rich_help_panel=FORM),
]
ShownStage = Annotated[
    int | None, typer.Option("--stage", metavar="N", help="Stage of the batch ramp, counted from 1. Default: the last stage.")
]
RunName = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="A preset run (perfmodel list runs), a run file (- reads one from standard input), a script or configuration of "
        "other software, or a model.",
        autocompletion=completed("runs"),
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="M",
        help="A preset model or a config.json.",
        autocompletion=completed("models"),
        rich_help_panel=HARDWARE,
    ),
]
OnCluster = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="C",
        help="A preset cluster or a cluster file.",
        autocompletion=completed("clusters"),
        rich_help_panel=HARDWARE,
    ),
]
Gpus = Annotated[
    str | None,
    typer.Option("--gpus", metavar="N", help="Number of GPUs; data parallelism follows from it.", rich_help_panel=HARDWARE),
]
Tokens = Annotated[
    str | None, typer.Option("--tokens", metavar="N", help="Number of training tokens, as in 8T.", rich_help_panel=HARDWARE)
]
Device = Annotated[str, typer.Option("--device", metavar="cpu|cuda", help="Default: cuda where there is a GPU, else cpu.")]
