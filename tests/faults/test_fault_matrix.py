"""Does every command keep its word under every condition of conditions.py?

Here each condition meets one command, always the same one. `make faults` has all conditions meet all commands, but
for those that take several seconds: these meet one condition in six.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest

from perfmodel.commands.app import COMMANDS
from tests.faults import outcomes
from tests.faults.conditions import ALONE, CONDITIONS, OLD, Condition, can_mount
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
    """What a command does on a quiet machine."""
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


SOUND: Final = Outcome(
    code=0,
    out="0.6 s\n",
    err="",
    seconds=1.0,
    busy_s=0.5,
    peak_bytes=1e8,
    files={"train.sh": b"torchrun", "a.json": b"{}"},
    left=(),
)
WRITING: Final = Condition(name="an old file", script=ALONE, writes=True, codes=(4,), kept=OLD)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, ""),
        ({"code": 4, "err": "perfmodel: full\n", "files": {"a.json": OLD.encode()}}, ""),
        ({"code": 5}, "exit code 5"),
        ({"code": 4, "files": {"a.json": OLD.encode()}}, "0 sentences"),
        ({"err": "Traceback (most recent call last)"}, "Traceback"),
        ({"busy_s": 12.0}, "takes 12 s"),
        ({"seconds": 121.0}, "hangs"),
        ({"peak_bytes": 2e9}, "takes 2.0 GB"),
        ({"left": (1,)}, "leaves 1 processes"),
        ({"files": {"train.sh": b"", "a.json": b"{}"}}, "changes ['train.sh']"),
        ({"files": {"a.json": b"{}", "core": b""}}, "leaves ['core']"),
        ({"files": {"a.json": b"{"}}, "writes"),
        ({"code": 4, "err": "perfmodel: full\n", "files": {"a.json": b"{"}}, "in the place of the old file"),
    ],
)
def test_what_is_wrong_is_seen(changes: dict[str, Any], problem: str) -> None:
    """Each rule alone, on an outcome that breaks it."""
    found = problems(PROGRAMS[0], WRITING, replace(SOUND, **changes), SOUND)
    assert [problem in each for each in found] == ([True] if problem else [])


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("script", [ALONE, '"$@" | cat; exit ${PIPESTATUS[0]}'])
@pytest.mark.parametrize("starter_took_more", [False, True])
def test_a_command_that_takes_too_much_is_seen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, starter_took_more: bool
) -> None:
    """Whatever its starter has taken, and whether the shell becomes the command or starts it."""
    greedy = "import time; held = b'x' * 300_000_000; time.sleep(0.3)"
    monkeypatch.setattr(outcomes, "command", lambda *_: [sys.executable, "-c", greedy])
    monkeypatch.setattr(outcomes, "MOST_BYTES", 2.5e8)
    if starter_took_more:
        monkeypatch.setattr(resource, "getrusage", lambda _: SimpleNamespace(ru_maxrss=10**9))
    condition = Condition(name="a shell", script=script)
    folder = tmp_path / "work"
    folder.mkdir()
    was = outcome(PROGRAMS[0], condition, folder)
    assert problems(PROGRAMS[0], condition, was, was) == ["takes 0.3 GB"]


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="conditions are made of /proc, /dev/full and name spaces")
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
