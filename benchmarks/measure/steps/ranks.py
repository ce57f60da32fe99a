"""Starts real training steps of a run on this machine and brings their record home."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from perfmodel.benchmarks.measure.processes import start
from perfmodel.count.serving.memory import sequence_bytes, weight_bytes
from perfmodel.errors import InputError, did_you_mean, shown
from perfmodel.evidence.steps.pass_records import InferRecord, infer_record
from perfmodel.evidence.steps.step_records import StepRecord, step_record
from perfmodel.exchange.questions.serving.measured_servers import counted_setup
from perfmodel.exchange.run_files import read_candidates
from perfmodel.prediction import predict_stage
from perfmodel.spec.layout import Layout
from perfmodel.spec.run import Run

MODULE: Final = "perfmodel.benchmarks.measure.steps.training_step"
SERVED: Final = "perfmodel.benchmarks.measure.steps.served_passes"
KINDS: Final = ("cpu", "cuda")


def devices(kind: str) -> int:
    """GPUs of this machine, or cores that this process may use."""
    if kind == "cuda":
        import torch

        return int(torch.cuda.device_count())
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def chosen_device(name: str = "") -> str:
    """The one that was asked for, or GPUs where there are any.

    Errors: InputError for a device that is not there, or without torch.
    """
    try:
        import torch
    except ImportError:
        raise InputError("real steps need torch, which is not installed; pip install 'perfmodel[torch]'") from None
    if name not in ("", *KINDS):
        raise InputError(f"{shown(name)} is not one of them; {did_you_mean(name, KINDS)}", key="--device")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("no CUDA device is there; --device cpu runs on this machine's cores")
    return name or ("cuda" if torch.cuda.is_available() else "cpu")


def stage_of(run: Run, number: int) -> Layout:
    """The layout of one stage, counted from 1. Errors: InputError when there is no such stage."""
    if not 1 <= number <= len(run.stages):
        raise InputError(f"{number} is not one of the {len(run.stages)} stages of {run.name}", key="--stage")
    return run.layout(run.stages[number - 1])


def measure_run(
    name: str,
    overrides: Sequence[str] = (),
    *,
    stage: int = 1,
    device: str = "",
    seconds: float | None = None,
    profile: Path | None = None,
) -> StepRecord:
    """The record of real steps of one stage; with `profile` a trace of one more of them, as torch.profiler sees it.

    Errors: InputError for what this machine cannot run; PerfmodelError when a rank dies.
    """
    run = read_candidates(name, overrides)[0].run
    layout = stage_of(run, stage)
    device = chosen_device(device)
    _check_supported(run, layout)
    _check_room(run, layout, device)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "record.json"
        command = [MODULE, name, "--stage", str(stage), "--device", device, "--output", str(output)]
        command += [] if seconds is None else ["--seconds", str(seconds)]
        command += [] if profile is None else ["--profile", str(profile)]
        ranks = int(layout.gpus) if layout.gpus > 1 else 0  # one needs no launcher
        start([*command, *(part for each in overrides for part in ("--set", each))], ranks=ranks)
        return step_record(json.loads(output.read_text(encoding="utf-8")))


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedLoad:
    """What a served model is asked: prompts that are read together, their tokens, and how many come back of each."""

    sequences: int
    input_tokens: int
    output_tokens: int

    @property
    def options(self) -> str:
        """As options of `perfmodel measure --infer`."""
        return f"--batch {self.sequences} --input-tokens {self.input_tokens} --output-tokens {self.output_tokens}"


def measure_served(
    name: str,
    load: ServedLoad,
    overrides: Sequence[str] = (),
    *,
    device: str = "",
    seconds: float | None = None,
) -> InferRecord:
    """The record of real passes of the model of a run. Errors: as measure_run."""
    run = read_candidates(name, overrides)[0].run
    layout, device = stage_of(run, 1), chosen_device(device)
    from perfmodel.model.supported import check_generates

    check_generates(run.model, layout)
    setup = counted_setup(run, layout)
    need = float(weight_bytes(setup) + load.sequences * sequence_bytes(setup, load.input_tokens + load.output_tokens))
    _check_ranks(int(layout.tensor_parallel), device)
    _check_free(need, int(layout.tensor_parallel), device, "a smaller --batch, --input-tokens or model")
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "record.json"
        sizes = ("--sequences", load.sequences, "--input-tokens", load.input_tokens, "--output-tokens", load.output_tokens)
        command = [SERVED, name, *map(str, sizes), "--device", device, "--output", str(output)]
        command += [] if seconds is None else ["--seconds", str(seconds)]
        ranks = int(layout.tensor_parallel) if layout.tensor_parallel > 1 else 0
        start([*command, *(part for each in overrides for part in ("--set", each))], ranks=ranks)
        return infer_record(json.loads(output.read_text(encoding="utf-8")))


def _check_supported(run: Run, layout: Layout) -> None:
    """Raise NotSupportedError for what the reference model does not run, before processes are started."""
    from perfmodel.model.supported import check_supported

    check_supported(run.model, layout, run.fine_tuning)


def _check_room(run: Run, layout: Layout, device: str) -> None:
    """Raise InputError for more ranks than devices, or on a CPU for more memory than there is."""
    ranks = int(layout.gpus)
    _check_ranks(ranks, device)
    memory = predict_stage(replace(run.setup(run.stages[0]), layout=layout)).memory
    need = float(memory.total_bytes - memory.framework_bytes - memory.communication_bytes)
    _check_free(need, ranks, device, "a smaller micro_batch_size, sequence_length or model")


def _check_ranks(ranks: int, device: str) -> None:
    """Raise InputError for more ranks than devices."""
    here, what = devices(device), "GPUs" if device == "cuda" else "cores"
    if ranks > here:
        raise InputError(
            f"the layout has {ranks} ranks and this machine {here} {what}, one for each; a smaller --set tensor_parallel, "
            "pipeline_parallel or data_parallel runs here, "
            "torchrun -m perfmodel.benchmarks.measure.steps.training_step on a cluster, --dry-run anywhere"
        )


def _check_free(rank_bytes: float, ranks: int, device: str, smaller: str) -> None:
    """Raise InputError for more memory than a CPU has."""
    if device != "cpu":
        return
    from perfmodel.benchmarks.measure.machine import memory_bytes

    need, free = rank_bytes * ranks, memory_bytes("MemAvailable")
    if need > free:
        raise InputError(f"{ranks} ranks need about {need / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; {smaller} needs less")
