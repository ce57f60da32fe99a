"""A launch script for Megatron-LM: torchrun with the flags of a run."""

from __future__ import annotations

from shlex import quote
from typing import Any, Final

from perfmodel.exchange.launchers.registry import Launcher
from perfmodel.exchange.translation.launch_texts import ON_NODES, WIDTH, comment, heading, torchrun, world_of
from perfmodel.exchange.translation.megatron.written import FAMILIES, SWITCHES, flag_groups, host_environment
from perfmodel.spec.run import RampStage, Run

VERSION: Final = "NVIDIA/Megatron-LM d98e8a64dd (2026-08-22), after core 0.16"
SOFTWARE: Final = "flags of Megatron-LM"
STACK: Final = "megatron-core"
YOURS: Final = "Yours: data, tokenizer and learning rate. NullTokenizer counts one entry more than --vocab-size."


def megatron_script(
    run: Run, stages: tuple[RampStage, ...], *, before: str = "", start: str = ON_NODES, launcher: str = ""
) -> str:
    """The text of a script: what it is for, the flags by subject, and torchrun, which may be started by a `launcher`.

    `before` are lines before all others, as of a batch job, and `start` is how the script is started.
    """
    groups = {name: flags for name, flags in flag_groups(run, stages).items() if flags}
    about = heading(run, stages, words="Flags", version=VERSION, start=start, stack=STACK)
    arrays = "".join(f"{name}=(\n{_flags(flags)})\n" for name, flags in groups.items())
    names = " ".join(f'"${{{name}[@]}}"' for name in (*groups, "YOURS"))
    return (
        f"#!/bin/bash\n{before}{about}{host_environment(run)}{arrays}"
        f"{comment(YOURS)}YOURS=(--mock-data --tokenizer-type NullTokenizer --lr 1e-4)\n"
        f'{launcher or torchrun(world_of(run, stages[-1]))} \\\n    pretrain_gpt.py {names} "$@"\n'
    )


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


LAUNCHER: Final = Launcher(
    name="megatron-core",
    version=VERSION,
    software=SOFTWARE,
    families=FAMILIES,
    stack=STACK,
    ramps=True,
    some_layers_again=True,
    switches=SWITCHES,
    written=megatron_script,
)
