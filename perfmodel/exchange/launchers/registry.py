"""Which launch files a run can be written as: each format is a module of this package with one declaration.

LAUNCHER: Final = Launcher(
    name="megatron-core",      # what --for takes
    version="..",              # of the software that the words are for
    software="flags of ..",    # what its words are called in sentences
    families=("..",),          # of stacks that are this software
    stack="megatron-core",     # a preset that is
    file="launch.sh",          # a name for it
    ramps=True,                # where one file can hold all stages of a batch ramp with as many GPUs
    some_layers_again=True,    # where full recompute can be one of some layers of a pipeline stage
    settings={..},             # of a layout: what a search may choose so that the file can say it; all where it is left out
    switches=(..),             # keys of a stack that the file decides; all choices where they are left out
    written=_script,           # a run and the stages of its batch ramp as the text of the file
)

What is written is read again by the importer of its format before it is handed out: a run that comes back as another one is
refused, with the key in which it differs (exchange/translation/read_again.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import TypeAlias

from perfmodel.errors import InputError, NotSupportedError, did_you_mean, shown
from perfmodel.exchange.questions.plan_arguments import SearchLimits
from perfmodel.exchange.translation.read_again import all_switches, check_read_again
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.run import RampStage, Run
from perfmodel.spec.stack import SoftwareStack

Written: TypeAlias = Callable[[Run, tuple[RampStage, ...]], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Launcher:
    """A format of launch files; `written` may raise NotSupportedError, by name, for what the format cannot say."""

    name: str
    version: str
    software: str
    families: tuple[str, ...]
    stack: str
    written: Written
    file: str = "launch.sh"
    ramps: bool = False
    some_layers_again: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)
    switches: tuple[str, ...] = field(default_factory=all_switches)


@cache
def known_launchers() -> Mapping[str, Launcher]:
    """The launchers of this package by name. Errors: TypeError for a module that declares none."""
    package, found = __package__ or __name__.rpartition(".")[0], {}
    for entry in iter_modules(import_module(package).__path__, f"{package}."):
        if entry.name != __name__:
            launcher = getattr(import_module(entry.name), "LAUNCHER", None)
            if not isinstance(launcher, Launcher):
                raise TypeError(f"{entry.name} declares no LAUNCHER; write LAUNCHER = Launcher(..)")
            found[launcher.name] = launcher
    return found


def launcher_named(software: str, *, option: str = "--for") -> Launcher:
    """The launcher of a format. Errors: InputError, with the nearest name, for one that is not known; `option` is its key."""
    known = known_launchers()
    if software not in known:
        raise InputError(f"{shown(software)} is no format of launch files; {did_you_mean(software, known)}", key=option)
    return known[software]


def launch_file(run: Run, software: str, *, stage: int | None = None) -> str:
    """The launch file of one stage of a run, by its index; of the last, or of all where all have as many GPUs, for None.

    Errors: InputError for software that is not known; NotSupportedError for what its words cannot say, and for a run with the
    stack of other software.
    """
    launcher = launcher_named(software)
    stages = launched_stages(run, launcher, stage)
    check_stack(run.stack, launcher, hint=f"--set stack={launcher.stack}")
    text = launcher.written(run, stages)
    check_read_again(text, run, stages, software=launcher.software, switches=launcher.switches)
    return text


def search_limits(launcher: Launcher) -> SearchLimits:
    """What a search may choose so that a launch file can say it."""
    return {
        "usual_stack": launcher.stack,
        "choose": dict(launcher.settings),
        "all_layers_again": not launcher.some_layers_again,
    }


def check_stack(stack: SoftwareStack, launcher: Launcher, *, hint: str) -> None:
    """Raise NotSupportedError for the stack of other software; `hint` is the option that gives the right one."""
    if stack.family not in launcher.families:
        raise NotSupportedError(f"{stack.name} is not the software that {launcher.name} files are for; {hint} is", key="stack")


def launched_stages(run: Run, launcher: Launcher, stage: int | None = None) -> tuple[RampStage, ...]:
    """The stages that one launch runs: that of an index; for None all where one file can hold them, else the last."""
    if stage is not None:
        return (run.stages[stage],)
    replicas = {float(each.data_parallel) for each in run.stages}
    has_lengths = all(each.tokens is not None for each in run.stages[:-1])
    return run.stages if launcher.ramps and len(replicas) == 1 and has_lengths else run.stages[-1:]


def launch_files(run: Run, software: str) -> list[str]:
    """The launch files of all stages of a run: one, or one for each stage. Errors: as those of launch_file."""
    is_one = len(launched_stages(run, launcher_named(software))) == len(run.stages)
    return [launch_file(run, software, stage=stage) for stage in ((None,) if is_one else range(len(run.stages)))]
