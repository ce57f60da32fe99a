"""A launch script for Megatron-LM: torchrun with the flags of a run."""

from __future__ import annotations

from shlex import quote
from textwrap import fill
from typing import Any, Final

from perfmodel.exchange.launchers.registry import Launcher
from perfmodel.exchange.translation.megatron_run_flags import FSDP
from perfmodel.exchange.translation.megatron_written import flag_groups
from perfmodel.spec.fields import whole
from perfmodel.spec.run import RampStage, Run
from perfmodel.units import gpus_text

VERSION: Final = "NVIDIA/Megatron-LM d98e8a64dd (2026-08-22), after core 0.16"
WIDTH: Final = 110
STACK: Final = "megatron-core"
HOST: Final = {"blackwell": 32}  # CUDA_DEVICE_MAX_CONNECTIONS by generation of GPUs, where not 1
RENDEZVOUS: Final = (
    "--node-rank ${NODE_RANK:-0} --master-addr ${MASTER_ADDR:-localhost} --master-port ${MASTER_PORT:-29500}"  # of torchrun
)
FOR_FSDP: Final = 8  # which needs more than one connection
YOURS: Final = "Yours: data, tokenizer and learning rate. NullTokenizer counts one entry more than --vocab-size."


def megatron_script(run: Run, stages: tuple[RampStage, ...], *, heading: str = "", launcher: str = "") -> str:
    """The text of a script: what it is for, the flags by subject, and torchrun, which may be started by a `launcher`."""
    groups = flag_groups(run, stages)
    layout = run.layout(stages[-1])
    gpus, each = whole(layout.gpus), run.cluster.gpus_per_node
    nodes = -(-gpus // each)
    connections = FOR_FSDP if layout.sharding in FSDP else HOST.get(run.cluster.gpu.generation, 1)
    of_stage = "" if len(run.stages) == len(stages) else f", stage {run.stages.index(stages[-1]) + 1} of {len(run.stages)}"
    about = [
        f"{run.name}{of_stage}: {run.model.name} on {gpus_text(gpus)} of {run.cluster.name}, by perfmodel launch.",
        f"Flags of {VERSION}; they are read again as the same run (perfmodel predict FILE --cluster ..).",
        f"Predicted with stack {run.stack.name}; read again, kernels are those of {STACK}.",
    ]
    arrays = "".join(f"{name}=(\n{_flags(flags)})\n" for name, flags in groups.items())
    names = " ".join(f'"${{{name}[@]}}"' for name in (*groups, "YOURS"))
    return (
        f"#!/bin/bash\n{heading}{''.join(_comment(each) for each in about)}"
        f"export CUDA_DEVICE_MAX_CONNECTIONS={connections}\n{arrays}"
        f"{_comment(YOURS)}YOURS=(--mock-data --tokenizer-type NullTokenizer --lr 1e-4)\n"
        f"{launcher}torchrun --nnodes {nodes} --nproc-per-node {min(gpus, each)} {_rendezvous(launcher)} \\\n"
        f'    pretrain_gpt.py {names} "$@"\n'
    )


def _rendezvous(launcher: str) -> str:
    return '--rdzv-backend c10d --rdzv-endpoint "$HEAD:29500"' if launcher else RENDEZVOUS


def _flags(flags: dict[str, Any]) -> str:
    """Flags with their values, some on a line."""
    words = [flag if value is True else f"{flag} {_value(value)}" for flag, value in flags.items()]
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + len(word) > WIDTH - 5:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return "".join(f"    {line}\n" for line in lines)


def _value(value: Any) -> str:
    """A value as the shell takes it; several words are several values, unless they are a schedule."""
    text = f"{value:.12g}" if isinstance(value, float) else str(value)
    return quote(text) if ":" in text else " ".join(quote(word) for word in text.split())


def _comment(text: str) -> str:
    return fill(text, WIDTH, initial_indent="# ", subsequent_indent="#   ", break_on_hyphens=False) + "\n"


LAUNCHER: Final = Launcher(name="megatron-core", version=VERSION, written=megatron_script)
