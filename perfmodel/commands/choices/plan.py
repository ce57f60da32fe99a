"""`perfmodel plan`: the best layout of a model, and how many GPUs it needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perfmodel.commands.choices.hardware_plans import check_alone, named_clusters, print_hardware_plans
from perfmodel.commands.choices.plan_files import (
    asked_launcher,
    launcher_arguments,
    named_file,
    page_writer,
    write_launch_files,
    write_runs,
)
from perfmodel.commands.choices.searching import counting, keep_freed_memory
from perfmodel.commands.choices.service import check_absent, plan_service
from perfmodel.commands.completion import chosen_words
from perfmodel.commands.console import STOPPED, emit, form_of
from perfmodel.commands.options import FORM, AsCsv, AsJson, AsMarkdown, Evidence, To, completed
from perfmodel.commands.serving_options import SERVER, EngineName, ExpertParallel, InputTokens, KvPrecision, Precision
from perfmodel.errors import InputError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from perfmodel.exchange.questions.plan_arguments import PlanArguments
    from perfmodel.search.plan import Plan

CHOICE_PANEL = "Search space"
LIMIT_PANEL = "GPUs, time and cost"
WORK_PANEL = "Training"
SERVICE_PANEL = "Serving, with --serve"


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
            "--cluster",
            metavar="C",
            help="A preset cluster or a cluster file; several, between commas, are put side by side.",
            autocompletion=completed("clusters"),
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
        typer.Option(
            "--price",
            metavar="DOLLARS|NAME",
            help="Price of one GPU-hour: dollars (2.5), a listed price (perfmodel list economics), or on-demand or reserved: "
            "what the cluster's cloud lists; of several clusters, or with --serve GPUs, one each (dgx-h100=2.5,dgx-b200=5).",
            rich_help_panel=LIMIT_PANEL,
        ),
    ] = None,
    confidence: Annotated[
        str | None,
        typer.Option(
            "--confidence",
            metavar="P",
            help="Meet the deadline and the budget, or what a service promises, with at least this probability. "
            "Default: 90%; 50% judges by medians.",
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
            autocompletion=chosen_words,
            metavar="KEY=A,B",
            help="Search only these values of a setting, as in precision=bf16,fp8, tensor_parallel=8 or sharding=all; its name "
            "is an option too: --micro-batch-size 1. Repeatable. Default: everything that the stack offers, in bf16.",
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
            help="Override an economic term, as in failures_per_gpu_hour=1e-5 (perfmodel show economics/typical), "
            "or with --serve a key of the engine, as in memory.fraction=0.95. Repeatable.",
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
    report: Annotated[
        str | None,
        typer.Option(
            "--report",
            metavar="FILE|FOLDER/",
            help="Write an HTML page to FILE, or with its figures to FOLDER/: the map of all layouts, the rivals and why they "
            "lost, time against memory and cost.",
        ),
    ] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Plan servers of MODEL in the place of training it.", rich_help_panel=SERVICE_PANEL)
    ] = False,
    requests_per_s: Annotated[
        str | None,
        typer.Option("--requests-per-s", metavar="N", help="Requests that come each second.", rich_help_panel=SERVICE_PANEL),
    ] = None,
    ttft: Annotated[
        str | None,
        typer.Option(
            "--ttft", metavar="TIME", help="Limit of the time to the first token (1s).", rich_help_panel=SERVICE_PANEL
        ),
    ] = None,
    tpot: Annotated[
        str | None,
        typer.Option(
            "--tpot", metavar="TIME", help="Limit of the time of a further token (30ms).", rich_help_panel=SERVICE_PANEL
        ),
    ] = None,
    input_tokens: InputTokens = None,
    gpu: Annotated[
        str | None,
        typer.Option("--gpu", metavar="G[,G..]", help="GPUs to choose from. Default: all that serve.", rich_help_panel=SERVER),
    ] = None,
    tensor_parallel: Annotated[
        str | None,
        typer.Option(
            "--tensor-parallel",
            metavar="N[,N..]",
            help="GPUs of one replica to choose from. Default: 1,2,4,8. Without --serve as --choose has it.",
            rich_help_panel=SERVER,
        ),
    ] = None,
    engine: EngineName = None,
    precision: Precision = None,
    kv_precision: KvPrecision = None,
    expert_parallel: ExpertParallel = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    as_markdown: AsMarkdown = False,
    output_or_tokens: Annotated[
        str | None,
        typer.Option(
            "--output",
            metavar="FILE|N",
            help="As --to; with --serve, the tokens that come back of a request (500).",
            rich_help_panel=FORM,
        ),
    ] = None,
    to: To = None,
) -> None:
    """Find the best layout of MODEL, why it is best, the runners-up, and how many GPUs a deadline or budget needs.

    With --serve: the servers that answer so many requests a second within limits of TTFT and TPOT at least cost.

    Every valid layout is evaluated. Exit code 1 if nothing fits or nothing meets the limits with the odds of --confidence.

    Odds follow from the 90 % interval of the iteration time, chance failures and uncertain terms: they hold as far as these do.

    Examples:
    perfmodel plan nemotron-4-15b --cluster dgx-h100 --gpus 2304 --tokens 8T

    perfmodel plan llama-3.1-70b --cluster dgx-h200 --deadline 14d --confidence 95% --tokens 2T --price 2.5

    perfmodel plan llama-3.1-8b --cluster dgx-h100 --budget 500k --price 2.5 --tokens 1T --choose precision=bf16,fp8

    perfmodel plan llama-3.1-70b --cluster p5,p5en,a3-ultra --gpus 256 --tokens 1T --price on-demand

    perfmodel plan my-model/config.json --cluster dgx-h100 --gpus 512 --ramp 512:100B,1024:900B

    perfmodel plan runs/nemotron-4-15b --run-file best.yaml

    perfmodel plan llama-3.1-70b --cluster dgx-h200 --deadline 30d --tokens 2T --price 2.5 --report plan.html

    perfmodel plan llama-3.1-8b --cluster dgx-h100 --gpus 64 --tokens 1T --launch torchtitan -o launch.py

    perfmodel plan llama-3.1-70b --serve --ttft 1s --tpot 30ms --requests-per-s 20 --precision bf16,fp8
    """
    of_servers = {"requests_per_s": requests_per_s, "ttft": ttft, "tpot": tpot, "input_tokens": input_tokens, "gpu": gpu}
    of_servers |= {"tensor_parallel": tensor_parallel, "engine": engine, "precision": precision, "kv_precision": kv_precision}
    of_servers |= {"expert_parallel": expert_parallel}
    of_both: PlanArguments = {"confidence": confidence, "price": price}
    of_training: PlanArguments = {
        "cluster": cluster,
        "evidence": evidence,
        "stack": stack,
        "gpus": gpus,
        "deadline": deadline,
        "budget": budget,
        "tokens": tokens,
        "global_batch_size": global_batch_size,
        "sequence_length": sequence_length,
        "ramp": ramp,
        "leave_free": leave_free,
    }
    files = {"launch": launch, "run_file": run_file, "report": report}
    shown = {"as_json": as_json, "as_csv": as_csv, "as_markdown": as_markdown}
    if serve:
        check_absent({**of_training, "choose": choose, **files}, "is about training; leave it out, or --serve")
        asked = {**of_servers, **of_both, "most_gpus": most_gpus, "settings": settings, "output_tokens": output_or_tokens}
        plan_service(model or other_model or "", asked, form=form_of(to, **shown), output=to)
        return
    from perfmodel.exchange.questions.plan_arguments import planned_source
    from perfmodel.spec.axes import EXPERT, TENSOR

    chosen = {key: of_servers.pop(key) for key in ("precision", TENSOR.name, EXPERT.name)}  # settings of layouts as well
    check_absent(of_servers, "is about servers; it needs --serve")
    given = {key: value for key, value in chosen.items() if value is not None}
    choices: PlanArguments = {"choose": given | _pairs(choose, "--choose"), "economics": _pairs(settings, "--set")}
    arguments: PlanArguments = {**of_training, **of_both, **choices}
    output, clusters = named_file(output_or_tokens, to), named_clusters(cluster)
    source = planned_source(model, model=other_model, cluster=clusters[0] if clusters else None, gpus=gpus)
    if len(clusters) > 1:
        check_alone(clusters, {"--launch": launch, "--run-file": run_file, "--report": report})
        keep_freed_memory()
        with counting() as advance:
            told: dict[str, Any] = {"on_progress": advance, "form": form_of(output, **shown), "output": output}
            print_hardware_plans(source, clusters, arguments, most_gpus=most_gpus, **told)
        return
    _plan_training(
        source, arguments, most_gpus=most_gpus, launch=launch, run_file=run_file, report=report, output=output, **shown
    )


def _plan_training(
    source: str | dict[str, Any],
    arguments: PlanArguments,
    *,
    most_gpus: int,
    launch: str | None,
    run_file: Path | None,
    report: str | None,
    output: Path | None,
    **shown: bool,
) -> None:
    """Plan one cluster, print the plan, and write the files that were asked for; exit code 1 if nothing meets the limits."""
    from perfmodel.exchange.questions.plan_arguments import read_plan_request
    from perfmodel.search.plan import plan as best_plan

    write_page = page_writer(report)
    launcher = None if launch is None else asked_launcher(launch, output)
    report_file = output if launcher is None else None
    form = form_of(report_file, **shown)
    if launcher is not None:
        arguments |= launcher_arguments(launcher, source, arguments)
    keep_freed_memory()
    with counting() as advance:
        request = read_plan_request(source, **arguments)
        found = best_plan(request.question, request.gpus, most_gpus=most_gpus, on_progress=advance)
    emit(form, report_file, document=lambda: _document(found), report=lambda: _report(found), rows=found.rows)
    write_page(found)
    if run_file is not None:
        write_runs(found, run_file)
    if launcher is not None:
        write_launch_files(found, launcher, output or Path(launcher.file))
    if not found.complete:
        raise typer.Exit(STOPPED)
    if found.best is None:
        raise typer.Exit(1)


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
