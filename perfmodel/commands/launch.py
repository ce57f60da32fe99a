"""`perfmodel launch`: a run as the launch file of training software."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perfmodel.commands.console import printed, say, write_file
from perfmodel.commands.options import Gpus, Model, OnCluster, Overrides, RunName, Tokens, asked


def launch(
    run: RunName = "",
    overrides: Overrides = None,
    *,
    software: Annotated[
        str,
        typer.Option(
            "--for",
            metavar="FORMAT",
            help="Scripts with torchrun: megatron-core, megatron-bridge, deepspeed. slurm: Megatron-Core as a batch job. "
            "YAML: nanotron, maxtext. Python: torchtitan.",
        ),
    ] = "megatron-core",
    stage: Annotated[
        int | None,
        typer.Option(
            "--stage", metavar="N", help="Stage of the batch ramp, counted from 1. Default: all in one file if it can be."
        ),
    ] = None,
    model: Model = None,
    cluster: OnCluster = None,
    gpus: Gpus = None,
    tokens: Tokens = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write to FILE instead of standard output."),
    ] = None,
) -> None:
    """Write RUN as a launch file: the flags or keys of its layout, the version they are for, and how to start it.

    The stack of RUN has to be that of the software, as in --set stack=torchtitan; a model alone gets its fastest layout there.

    The file is read again before it is written: what it cannot say is refused by its key, with exit code 3.

    Stages of a batch ramp with as many GPUs are one file of megatron-core or slurm; else each is one, by default the last.

    Examples:
    perfmodel launch run.yaml -o train.sh

    perfmodel launch llama-3.1-8b --cluster dgx-h100 --gpus 64 --tokens 1T --for slurm -o train.sbatch

    perfmodel launch nemotron-4-15b --stage 1

    perfmodel launch llama-3.1-8b --cluster dgx-h100 --gpus 64 --for torchtitan -o train.py
    """
    from perfmodel.exchange.launchers.registry import launch_file, launched_stages, launcher_named, search_limits
    from perfmodel.exchange.questions.varied_runs import stage_index
    from perfmodel.exchange.run_files import read_candidates

    launcher = launcher_named(software)
    source = asked(run, model, cluster, gpus, tokens, search=search_limits(launcher), settings=overrides)
    chosen = read_candidates(source, overrides or ())[0].run
    index = None if stage is None else stage_index(chosen, stage)
    text = launch_file(chosen, software, stage=index)
    if output is None:
        printed(text)
    else:
        write_file(text, output)
    if index is None and len(launched_stages(chosen, launcher)) < len(chosen.stages):
        last = len(chosen.stages)
        say(f"this is stage {last} of {last}: each stage is a file of its own (--stage)")
