"""`perfmodel plan`: the best layout of a model, and how many GPUs it needs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from perfmodel.commands.console import ENDINGS, STOPPED, emit, form_of, say, write_file
from perfmodel.commands.options import AsCsv, AsJson, AsMarkdown, Evidence, Output, completed
from perfmodel.errors import InputError, NotSupportedError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from perfmodel.exchange.launchers.registry import Launcher
    from perfmodel.exchange.questions.plan_arguments import PlanArguments
    from perfmodel.search.plan import Plan

T = TypeVar("T")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
KEPT_BYTES = 1 << 30
CHOICE_PANEL = "Search space"
LIMIT_PANEL = "GPUs, time and cost"
WORK_PANEL = "Training"


def plan(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A preset model, a config.json, or a run: a run file, or runs/NAME for a preset run.",
            autocompletion=completed("models"),
        ),
    ] = "",
    *,
    other_model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="M",
            help="A preset model or a config.json, also beside a run.",
            autocompletion=completed("models"),
        ),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            "--cluster", metavar="C", help="A preset cluster or a cluster file.", autocompletion=completed("clusters")
        ),
    ] = None,
    evidence: Evidence = None,
    stack: Annotated[
        str | None,
        typer.Option(
            "--stack",
            metavar="S",
            help="The training software. Default: megatron-core.",
            autocompletion=completed("stacks"),
        ),
    ] = None,
    gpus: Annotated[
        str | None,
        typer.Option(
            "--gpus",
            metavar="N",
            help="Number of GPUs: one (3072), several (1024,2048) or a doubling range (512..4096).",
            rich_help_panel=LIMIT_PANEL,
        ),
    ] = None,
    deadline: Annotated[
        str | None,
        typer.Option(
            "--deadline",
            metavar="TIME",
            help="Find the fewest GPUs that finish in TIME (14d) or by a date (2027-06-30), with the odds of --confidence.",
            rich_help_panel=LIMIT_PANEL,
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget",
            metavar="DOLLARS",
            help="Find the fastest plan that costs at most DOLLARS (5M), with the odds of --confidence; needs --price.",
            rich_help_panel=LIMIT_PANEL,
        ),
    ] = None,
    price: Annotated[
        str | None,
        typer.Option("--price", metavar="DOLLARS", help="Price of one GPU-hour.", rich_help_panel=LIMIT_PANEL),
    ] = None,
    confidence: Annotated[
        str | None,
        typer.Option(
            "--confidence",
            metavar="P",
            help="Meet the deadline and the budget with at least this probability. Default: 90%; 50% judges by medians.",
            rich_help_panel=LIMIT_PANEL,
        ),
    ] = None,
    most_gpus: Annotated[
        int,
        typer.Option(
            "--most-gpus", metavar="N", min=1, help="Largest number of GPUs to consider.", rich_help_panel=LIMIT_PANEL
        ),
    ] = 32768,
    tokens: Annotated[
        str | None,
        typer.Option("--tokens", metavar="N", help="Number of training tokens, as in 8T.", rich_help_panel=WORK_PANEL),
    ] = None,
    global_batch_size: Annotated[
        str | None,
        typer.Option(
            "--global-batch-size",
            metavar="N",
            help="Sequences per iteration. Default: about 4M tokens, rounded to suit the nodes.",
            rich_help_panel=WORK_PANEL,
        ),
    ] = None,
    sequence_length: Annotated[
        str | None,
        typer.Option("--sequence-length", metavar="N", help="Tokens per sequence. Default: 4096.", rich_help_panel=WORK_PANEL),
    ] = None,
    ramp: Annotated[
        str | None,
        typer.Option(
            "--ramp",
            metavar="B:T[:N],..",
            help="Batch ramp: batch:tokens or batch:tokens:gpus for each stage, as in 384:200B,1152:7.6T.",
            rich_help_panel=WORK_PANEL,
        ),
    ] = None,
    choose: Annotated[
        list[str] | None,
        typer.Option(
            "--choose",
            metavar="KEY=A,B",
            help="Search only these values of a setting, as in precision=bf16,fp8, tensor_parallel=8 or sharding=all. "
            "Repeatable. Default: everything that the stack offers, in bf16.",
            rich_help_panel=CHOICE_PANEL,
        ),
    ] = None,
    leave_free: Annotated[
        str | None,
        typer.Option(
            "--leave-free",
            metavar="SHARE",
            help="Share of GPU memory to keep free, as in 5%.",
            rich_help_panel=CHOICE_PANEL,
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Override an economic term, as in failures_per_gpu_hour=1e-5 (perfmodel show economics/typical). Repeatable.",
            rich_help_panel=LIMIT_PANEL,
        ),
    ] = None,
    run_file: Annotated[
        Path | None,
        typer.Option("--run-file", metavar="FILE", help="Write the best plan as a run file for the other commands."),
    ] = None,
    launch: Annotated[
        str | None,
        typer.Option(
            "--launch",
            metavar="FORMAT",
            help="Write the launch file of the best plan: megatron-core, slurm, megatron-bridge, torchtitan, nanotron, "
            "deepspeed or maxtext. --output names it; the stack is that of the format unless one is given.",
        ),
    ] = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    as_markdown: AsMarkdown = False,
    output: Output = None,
) -> None:
    """Find the best layout of MODEL, why it is best, the runners-up, and how many GPUs a deadline or budget needs.

    Every valid layout is evaluated. Exit code 1 if nothing fits or nothing meets the limits with the odds of --confidence.

    Odds follow from the 90 % interval of the iteration time, chance failures and uncertain terms: they hold as far as these do.

    Examples:
    perfmodel plan nemotron-4-15b --cluster dgx-h100 --gpus 2304 --tokens 8T

    perfmodel plan llama-3.1-70b --cluster dgx-h200 --deadline 14d --confidence 95% --tokens 2T --price 2.5

    perfmodel plan llama-3.1-8b --cluster dgx-h100 --budget 500k --price 2.5 --tokens 1T --choose precision=bf16,fp8

    perfmodel plan llama-3.1-70b --cluster gb200-nvl72 --gpus 576..2304 --choose tensor_parallel=8

    perfmodel plan my-model/config.json --cluster dgx-h100 --gpus 512 --ramp 512:100B,1024:900B

    perfmodel plan runs/nemotron-4-15b --run-file best.yaml

    perfmodel plan llama-3.1-8b --cluster dgx-h100 --gpus 64 --tokens 1T --launch torchtitan -o launch.py
    """
    from perfmodel import api
    from perfmodel.exchange.questions.plan_arguments import planned_source

    launcher = None if launch is None else _launcher(launch, output)
    report_file = output if launcher is None else None
    form = form_of(report_file, as_json=as_json, as_csv=as_csv, as_markdown=as_markdown)
    terms = _pairs(settings, "--set") | ({} if price is None else {"dollars_per_gpu_hour": price})
    arguments: PlanArguments = {
        "cluster": cluster,
        "evidence": evidence,
        "stack": stack,
        "gpus": gpus,
        "deadline": deadline,
        "budget": budget,
        "confidence": confidence,
        "tokens": tokens,
        "global_batch_size": global_batch_size,
        "sequence_length": sequence_length,
        "ramp": ramp,
        "leave_free": leave_free,
        "choose": _pairs(choose, "--choose"),
        "economics": terms,
    }
    source = planned_source(model, model=other_model, cluster=cluster, gpus=gpus)
    if launcher is not None:
        arguments |= _for_launcher(launcher, source, arguments)
    _keep_freed_memory()
    with _counting() as advance:
        found = api.plan(source, most_gpus=most_gpus, on_progress=advance, **arguments)
    emit(form, report_file, document=lambda: _document(found), report=lambda: _report(found), rows=found.rows)
    if run_file is not None:
        _write_runs(found, run_file)
    if launcher is not None:
        _write_launch_files(found, launcher, output or Path(launcher.file))
    if not found.complete:
        raise typer.Exit(STOPPED)
    if found.best is None:
        raise typer.Exit(1)


def _launcher(name: str, output: Path | None) -> Launcher:
    """The launcher of a format. Errors: InputError for one that is not known, and for a file that is a report's."""
    from perfmodel.exchange.launchers.registry import launcher_named

    launcher = launcher_named(name, option="--launch")
    if output is not None and output.suffix.lower() in ENDINGS:
        named = f"with --launch it names the launch file, as in {launcher.file}"
        raise InputError(f"--output {output} is the name of a report; {named}; --json > {output.name} keeps the plan")
    return launcher


def _for_launcher(launcher: Launcher, source: str | dict[str, Any], arguments: PlanArguments) -> PlanArguments:
    """The arguments with which a search finds what a launch file can say. Errors: NotSupportedError for other software."""
    from perfmodel.exchange.launchers.registry import check_stack, search_limits
    from perfmodel.exchange.questions.plan_arguments import read_plan_request

    limits, chosen = search_limits(launcher), arguments["choose"]
    more: PlanArguments = {
        "usual_stack": limits["usual_stack"],
        "choose": {**limits["choose"], **chosen},
        "all_layers_again": limits["all_layers_again"] and "recompute_layers" not in chosen,
    }
    question = read_plan_request(source, **(arguments | more)).question
    check_stack(question.stack, launcher, hint=f"--stack {launcher.stack}")
    return more


def _document(found: Plan) -> dict[str, Any]:
    from perfmodel.report.json.plan import plan_document

    return plan_document(found)


def _report(found: Plan) -> RenderableType:
    from perfmodel.report.text.plans.plan import plan_report

    return plan_report(found)


def _pairs(texts: list[str] | None, option: str) -> dict[str, str]:
    """KEY=VALUE texts of an option as a mapping. Errors: InputError for another form."""
    pairs = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not equals or not key.strip() or not value.strip():
            raise InputError(f"{option} {text} is not KEY=VALUE")
        pairs[key.strip().removeprefix("economics.")] = value.strip()
    return pairs


def _write_runs(found: Plan, path: Path) -> None:
    """Write the best plan as a run file; where stages differ in layout, one numbered file per stage."""
    from perfmodel.exchange.documents import yaml_text
    from perfmodel.exchange.presets import seen_from
    from perfmodel.report.json.plan import run_documents
    from perfmodel.spec.run import Run

    for one, document in _numbered(path, run_documents(found)):
        write_file(yaml_text(seen_from(one.parent, Run, document)), one)


def _write_launch_files(found: Plan, launcher: Launcher, path: Path) -> None:
    """Write the launch file of the best plan; one numbered file for each stage where one cannot hold all."""
    from perfmodel.exchange.launchers.registry import launch_files
    from perfmodel.exchange.questions.plan_arguments import CHOSEN
    from perfmodel.exchange.run_files import read_candidates
    from perfmodel.report.json.plan import run_documents

    runs = [read_candidates(document)[0].run for document in run_documents(found)]
    try:
        texts = [text for run in runs for text in launch_files(run, launcher.name)]
    except NotSupportedError as error:
        way_on = f"; --choose {error.key}=.. finds a plan without it" if error.key in CHOSEN else ""
        raise NotSupportedError(f"{error.problem}{way_on}", key=error.key) from None
    for one, text in _numbered(path, texts):
        write_file(text, one)
    if texts:
        say(f"the launch file of the best plan, for {launcher.version}", prefix="")


def _numbered(path: Path, contents: Sequence[T]) -> list[tuple[Path, T]]:
    """Contents of files with their paths: several are numbered. That there are none is said."""
    if not contents:
        say(f"{path} was not written: no plan was found")
    numbers = ["", *(f"-{number}" for number in range(1, len(contents) + 1))]
    used = numbers[:1] if len(contents) == 1 else numbers[1:]
    return [(path.with_name(f"{path.stem}{number}{path.suffix}"), each) for number, each in zip(used, contents, strict=True)]


def _keep_freed_memory() -> None:
    """Make glibc keep freed memory: returning it to the kernel and asking for it again takes a sixth of a search."""
    from ctypes import CDLL

    mallopt = getattr(CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for parameter in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):
            mallopt(parameter, KEPT_BYTES)


@contextmanager
def _counting() -> Iterator[Callable[[int], None]]:
    """A count of evaluated layouts on standard error, if that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.completed:,} layouts evaluated; Ctrl-C shows the best so far"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("searching", total=None)
        yield lambda layouts: progress.update(task, completed=layouts)
