"""Does every command keep its word under every condition of conditions.py?

Here each condition meets one command, always the same one. `make faults` has all conditions meet all commands, in minutes, but
for those that take several seconds: these meet one condition in six.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from perfmodel.commands.app import COMMANDS
from tests.faults.conditions import CONDITIONS, Condition, can_mount
from tests.faults.outcomes import QUIET, QUIET_WRITING, Outcome, outcome, problems
from tests.faults.programs import PROGRAMS, QUICK, Program

JOBS: Final = int(os.environ.get("FAULT_JOBS", "0"))  # processes at a time, with all combinations
ONE_IN: Final = 6  # conditions that a slow command meets


def combinations(condition: Condition) -> list[Program]:
    """The commands that a condition meets."""
    place = CONDITIONS.index(condition)
    if not JOBS:
        able = [each for each in QUICK if each.output or not condition.writes]
        return [able[place % len(able)]]
    able = [each for each in PROGRAMS if each.output or not condition.writes]
    return [each for each in able if not each.slow or (place + len(each.name)) % ONE_IN == 0]


@pytest.fixture(autouse=True)
def ctrl_c() -> Iterator[None]:
    """Commands hear Ctrl-C also where tests run in the background, which ignores it and has all that it starts ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@cache
def undisturbed(program: Program, *, writes: bool) -> Outcome:
    """What a command does on a quiet machine, the second time, when Python has compiled what it loads."""
    condition = QUIET_WRITING if writes else QUIET
    return tried(program, condition, 1.0)


def tried(program: Program, condition: Condition, quiet_s: float) -> Outcome:
    """A command under a condition, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "work"
        folder.mkdir()
        return outcome(program, condition, folder, quiet_s=quiet_s)


def told(program: Program, condition: Condition) -> list[str]:
    """The problems of one combination, each with its name."""
    quiet = undisturbed(program, writes=condition.writes)
    was = tried(program, condition, quiet.seconds)
    return [f"{program.name}: {each}" for each in problems(program, condition, was, quiet)]


def test_every_command_is_among_them() -> None:
    """One that nobody starts would meet no condition."""
    assert set(COMMANDS) <= {word for program in PROGRAMS for word in program.arguments[:1]}


@pytest.mark.processes
@pytest.mark.parametrize("condition", CONDITIONS, ids=lambda condition: condition.name)
def test_a_command_keeps_its_word(condition: Condition) -> None:
    """A documented exit code, one sentence, the old file or the new one, nothing left behind."""
    if condition.needs_root and not can_mount():
        pytest.skip("needs a name space of its own to mount in")
    with ThreadPoolExecutor(max(JOBS, 1)) as pool:
        found = [
            problem for each in pool.map(lambda program: told(program, condition), combinations(condition)) for problem in each
        ]
    assert not found, "\n".join(found)
