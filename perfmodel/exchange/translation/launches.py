"""Which command of a launch script trains, with which flags, and on how many GPUs."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, Final

from perfmodel.exchange.translation.shell.script import batch_options, read_script
from perfmodel.light_dataclass import dataclass

FLAG: Final = re.compile(r"--?[A-Za-z][\w.-]*")
UNSET: Final = re.compile(r"\$\{\w+\}")
SAID: Final = ("echo", "printf", "cat")  # commands that print flags and start nothing
LAUNCHERS: Final = ("torchrun", "torch.distributed.run", "torch.distributed.launch")
MPI: Final = ("mpirun", "mpiexec")
PROGRAM: Final = re.compile(r"(?:.*/)?[\w.-]+\.py|-m")
NODES: Final = ("--nnodes", "--num_nodes", "--num-nodes")
PER_NODE: Final = ("--nproc-per-node", "--nproc_per_node", "--num_gpus", "--num-gpus")
SLURM: Final = {"-N": "--nodes", "-n": "--ntasks"}
SLURM_VARIABLES: Final = {
    "--nodes": ("SLURM_NNODES", "SLURM_JOB_NUM_NODES"),
    "--ntasks-per-node": ("SLURM_NTASKS_PER_NODE", "SLURM_TASKS_PER_NODE"),
    "--ntasks": ("SLURM_NTASKS", "SLURM_NPROCS"),
    "--gpus-per-node": ("SLURM_GPUS_ON_NODE", "SLURM_GPUS_PER_NODE"),
}
MOST_GPUS: Final = 10_000_000
MOST_DIGITS: Final = 9  # of a number of nodes or GPUs


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """A command that trains: its flags with their values, and the GPUs that its launcher starts, None where it is silent."""

    flags: Mapping[str, Any]
    gpus: int | None
    environment: Mapping[str, str]
    sourced: tuple[str, ...] = ()
    open_words: tuple[str, ...] = ()  # flags and variables under conditions that the script does not settle

    @property
    def assumed(self) -> tuple[str, ...]:
        """What is taken for granted where a condition does not follow from the script."""
        left = [each for each in self.open_words if not each.startswith("--") or each not in self.flags]
        if not any(each.startswith("--") for each in left):
            return ()
        return (f"{', '.join(left)}: under a condition that this file does not settle, which is taken not to hold",)


def launch_in(text: str, known: Collection[str], folder: Path | None = None) -> Launch | None:
    """The command of a script in a folder with most of the `known` flags; None where no command has any."""
    options = _slurm(batch_options(text))
    variables: dict[str, Any] = {
        name: options[option] for option, names in SLURM_VARIABLES.items() if option in options for name in names
    }
    script = read_script(text, variables, folder=folder)
    commands = [each for each in script.commands if each[0] not in SAID]
    best = max(commands, key=lambda words: len(known & flags_of(_program(words)).keys()), default=None)
    if best is None or not known & flags_of(_program(best)).keys():
        return None
    return Launch(
        flags=flags_of(_program(best)),
        gpus=_world(best, options),
        environment={name: value for name, value in script.variables.items() if isinstance(value, str)},
        sourced=tuple(script.sourced),
        open_words=tuple(dict.fromkeys(script.open_words)),
    )


def launched_gpus(text: str, folder: Path | None = None) -> int | None:
    """The GPUs of the first command of a script that starts a rank on each; None where there is none, or it is silent."""
    options = _slurm(batch_options(text))
    commands = read_script(text, {}, folder=folder).commands
    started = (each for each in commands if any(name in word for word in each[:4] for name in LAUNCHERS))
    return next((_world(each, options) for each in started), None)


def flags_of(words: Sequence[str]) -> dict[str, Any]:
    """The flags among the words of a command with their values: True for a bare flag, a list for several; the last one counts.

    >>> flags_of(["--bf16", "--split", "99,1,0", "--rampup-batch-size", "16", "16", "1000", "--lr=1e-4"])
    {'--bf16': True, '--split': '99,1,0', '--rampup-batch-size': ['16', '16', '1000'], '--lr': '1e-4'}
    """
    found: dict[str, list[str]] = {}
    values: list[str] = []
    for word in words:
        name, equals, value = word.partition("=")
        if FLAG.fullmatch(name) and (equals or FLAG.fullmatch(word)):
            values = [value] if equals else []
            found[name] = values
        else:
            values.append(word)
    return {name: _single([each for each in given if not UNSET.fullmatch(each)] or given) for name, given in found.items()}


def _single(values: list[str]) -> Any:
    return True if not values else values[0] if len(values) == 1 else values


def _program(words: Sequence[str]) -> list[str]:
    """The words behind the name of the program that a launcher starts; all of them where it has none."""
    return _parted(words)[1]


def _parted(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words before the name of the program that a launcher starts, and those behind it."""
    place = next((index for index, word in enumerate(words) if PROGRAM.fullmatch(word)), None)
    if place is None:
        return [], list(words)
    first = place + 1 + (words[place] == "-m")
    if any(
        each in words[first - 1] for each in LAUNCHERS if first <= len(words)
    ):  # python -m torch.distributed.run .. train.py
        before, program = _parted(words[first:])
        return [*words[:first], *before], program
    return list(words[:place]), list(words[first:])


def _world(words: Sequence[str], options: Mapping[str, str]) -> int | None:
    """GPUs of a command: those of torchrun, else the ranks of srun, else those of the job."""
    before, _ = _parted(words)
    given = flags_of(before)
    per_node = next((given[name] for name in PER_NODE if name in given), None)
    if per_node is not None or any(each in word for word in before for each in LAUNCHERS):
        nodes = next((given[name] for name in NODES if name in given), options.get("--nodes", "1"))
        return _product(nodes, per_node if per_node not in (None, "gpu", "auto") else options.get("--gpus-per-node"))
    if words[0] in MPI:
        return _product(next((given[name] for name in ("-np", "-n", "--np") if name in given), None))
    own = {**options, **_slurm(before)} if words[0] == "srun" else options
    if "--ntasks" in own:
        return _product(own["--ntasks"])
    each = own.get("--ntasks-per-node") if own.get("--ntasks-per-node") != "1" else None
    return _product(own.get("--nodes"), each or own.get("--gpus-per-node"))


def _slurm(words: Sequence[str]) -> dict[str, str]:
    """The options of a job or of srun by their long names."""
    found: dict[str, str] = {}
    for word, following in zip(words, [*words[1:], ""], strict=False):
        name, equals, value = word.partition("=")
        name = SLURM.get(name, name)
        if not equals and re.fullmatch(r"-[Nn]\d+", word):
            name, value = SLURM[word[:2]], word[2:]
        elif not equals:
            value = following
        if name == "--gres" and (gpus := re.fullmatch(r"gpu(?::\w+)?:(\d+)", value)):
            name, value = "--gpus-per-node", gpus[1]
        if name in SLURM_VARIABLES:
            digits = re.search(r"\d+", value)
            found[name] = digits[0] if digits else value
    return found


def _product(*factors: Any) -> int | None:
    """The product of whole numbers in texts; None where one of them is none."""
    texts = [str(each) for each in factors]
    if not all(each.isdecimal() and len(each) <= MOST_DIGITS for each in texts):
        return None
    number = prod(map(int, texts))
    return number if 0 < number <= MOST_GPUS else None
