"""Which launch files a run can be written as: each format is a module of this package with one declaration.

LAUNCHER: Final = Launcher(
    name="megatron-core",      # what --for takes
    version="..",              # of the software that the words are for
    written=_script,           # a run and the stages of its batch ramp as the text of the file
)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import TypeAlias

from perfmodel.errors import InputError, did_you_mean, shown
from perfmodel.spec.run import RampStage, Run

Written: TypeAlias = Callable[[Run, tuple[RampStage, ...]], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Launcher:
    """A format of launch files; `written` raises NotSupportedError, by name, for what the format cannot say."""

    name: str
    version: str
    written: Written


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


def launch_file(run: Run, software: str, *, stage: int | None = None) -> str:
    """The launch file of one stage of a run, by its index; of the last, or of all where all have as many GPUs, for None.

    Errors: InputError for software that is not known; NotSupportedError for what its words cannot say.
    """
    known = known_launchers()
    if software not in known:
        raise InputError(f"{shown(software)} is no format of launch files; {did_you_mean(software, known)}", key="--for")
    return known[software].written(run, launched_stages(run, stage))


def launched_stages(run: Run, stage: int | None = None) -> tuple[RampStage, ...]:
    """The stages that one launch runs: that of an index; for None all of them where they have as many GPUs, else the last."""
    if stage is not None:
        return (run.stages[stage],)
    replicas = {float(each.data_parallel) for each in run.stages}
    has_lengths = all(each.tokens is not None for each in run.stages[:-1])
    return run.stages if len(replicas) == 1 and has_lengths else run.stages[-1:]
