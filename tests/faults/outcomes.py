"""What one command does under one condition, and what of that is wrong.

Whatever happens: an exit code that is documented, one sentence and no traceback, the old file or the new one, no process that
outlives the command, no file changed that it was not asked to write, 10 s and 1 GB at most.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.faults.conditions import ALONE, OLD, Condition
from tests.faults.programs import Program, lay_out

BASH: Final = shutil.which("bash") or "/bin/bash"
ROOT: Final = Path(__file__).parents[2]
LONGEST_S: Final = 10.0  # of the processor, beside what the command takes on a quiet machine
HANGS_S: Final = 120.0  # by the clock, which runs on while others have the cores
GRACE_S: Final = 5.0  # until what a command started has ended too
MOST_BYTES: Final = 1e9
HIGH_WATER: Final = re.compile(r"^VmHWM:\s*(\d+) kB$", re.MULTILINE)  # of /proc/PID/status
PEAK_UNIT: Final = 1 if sys.platform == "darwin" else 1024  # bytes of ru_maxrss
QUIET: Final = Condition(name="a quiet machine", script=ALONE)
QUIET_WRITING: Final = Condition(name="a quiet machine that writes", script=ALONE, writes=True)
LATE: Final = 0.95  # of the seconds of a quiet machine
SOON: Final = 0.6
PACKAGE: Final = ROOT / "perfmodel"  # in full: a checkout is called perfmodel too, and what pip installs lies in it
TRACES: Final = ("Traceback", "Exception ignored", "Fatal Python error", "ResourceWarning", "Error in ")
ANSWERS: Final = (0, 1)
OF_PYTHON: Final = "KeyboardInterrupt"  # before perfmodel hears it (perfmodel/__main__.py); its exit code is 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str
    seconds: float  # by the clock
    busy_s: float  # of the processor
    peak_bytes: float
    files: Mapping[str, bytes]  # of its folder afterwards
    left: tuple[int, ...]  # processes that outlive it


def outcome(program: Program, condition: Condition, folder: Path, *, quiet_s: float = 1.0) -> Outcome:
    """Start a command under a condition in a folder of its own, and see what becomes of it."""
    lay_out(folder)
    streams = folder.parent / f"{folder.name}.out", folder.parent / f"{folder.name}.err"
    mark = uuid.uuid4().hex
    environment = plain_environment() | {
        "FAULT": mark, "SOON": f"{SOON * quiet_s:.3f}", "LATE": f"{LATE * quiet_s:.3f}", "PLACE": program.output or "a",
    }  # fmt: skip
    with streams[0].open("wb") as out, streams[1].open("wb") as err:
        process = subprocess.Popen(
            [BASH, "-c", condition.script, "bash", *command(program, condition)],
            cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True,
        )  # fmt: skip
        code, seconds, used, seen = ended(process)
    left = still_there(mark)
    for each in left:
        with suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)
    said, told = (each.read_bytes().decode(errors="replace") for each in streams)
    return Outcome(
        code=code, out=said, err=told, seconds=seconds, busy_s=used.ru_utime + used.ru_stime,
        peak_bytes=peak_of(used, seen) * PEAK_UNIT, files=contents(folder), left=left,
    )  # fmt: skip


def peak_of(used: resource.struct_rusage, high_water: int) -> int:
    """What a command and those that it waited for took at most, as the kernel counts it from where it was started.

    It begins with what its starter had: where that is more, what its own memory has shown meanwhile counts.
    """
    return used.ru_maxrss if used.ru_maxrss > resource.getrusage(resource.RUSAGE_SELF).ru_maxrss else high_water


def high_water(pid: int) -> int:
    """The most that a process, or one that it started and that still runs, has held of itself; 0 where nothing says.

    Of most conditions the process is a shell, and the command one that it started.
    """
    place = Path(f"/proc/{pid}")
    try:
        found = HIGH_WATER.search((place / "status").read_text(encoding="ascii"))
        children = [int(child) for child in (place / "task" / str(pid) / "children").read_text(encoding="ascii").split()]
    except OSError:
        return 0
    return max(int(found[1]) if found else 0, *map(high_water, children), 0)


def plain_environment() -> dict[str, str]:
    """An environment of which no part changes what is printed."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "OMP_NUM_THREADS", "OPENBLAS_CORETYPE") if name in os.environ}
    return kept | {"PYTHONPATH": str(ROOT), "LANG": "C.UTF-8", "TERM": "xterm", "COLUMNS": "80"}


def command(program: Program, condition: Condition) -> list[str]:
    """The words of a command."""
    writes = program.output and (condition.writes or program.always_writes)
    option = "--to" if program.arguments[0] == "infer" else "-o"
    place = f"full/{program.output}" if "tmpfs" in condition.script else program.output
    return [sys.executable, "-m", "perfmodel", *program.arguments, *([option, place] if writes else [])]


def ended(process: subprocess.Popen[bytes]) -> tuple[int, float, resource.struct_rusage, int]:
    """The exit code of a process, its seconds, what it used and the most memory that was seen of it; -9 where it hangs."""
    start, most = time.monotonic(), 0
    while True:
        most = max(most, high_water(process.pid))
        pid, status, used = os.wait4(process.pid, os.WNOHANG)
        seconds = time.monotonic() - start
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return process.returncode, seconds, used, most
        if seconds > HANGS_S:
            os.killpg(process.pid, signal.SIGKILL)
        time.sleep(0.01)


def still_there(mark: str) -> tuple[int, ...]:
    """Processes that a command left, and that do not end of themselves, as those that Linux is just killing."""
    end = time.monotonic() + GRACE_S
    while (left := tuple(marked(mark))) and time.monotonic() < end:
        time.sleep(0.05)
    return left


def marked(mark: str) -> Iterator[int]:
    """Processes that a command left: its mark is in their environment."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if f"FAULT={mark}".encode() in path.read_bytes() and not helps(path.parent):
                yield int(path.parent.name)


def helps(process: Path) -> bool:
    """Whether a process is of the shell that makes the condition, as one that waits to send a signal."""
    return (process / "comm").read_text().strip() in {"bash", "sleep", "cat"}


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder, and where links lead."""
    return {
        path.name: b"-> " + str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.iterdir())
        if path.is_symlink() or path.is_file()
    }


def problems(program: Program, condition: Condition, was: Outcome, quiet: Outcome) -> list[str]:
    """What is wrong with an outcome, beside that of a quiet machine."""
    found = [
        *of_ending(condition, was, quiet),
        *of_words(program, condition, was, quiet),
        *of_files(program, condition, was, quiet),
    ]
    if condition.same and not program.measures and was.out != quiet.out:
        found.append(f"prints something else: {first_difference(was.out, quiet.out)}")
    return found


def of_ending(condition: Condition, was: Outcome, quiet: Outcome) -> Iterator[str]:
    """Exit code, seconds, bytes, processes."""
    allowed = {
        quiet.code,
        *condition.codes,
        *((-signal.SIGINT, *((1,) if OF_PYTHON in was.err else ())) if condition.interrupts else ()),
    }
    if was.code not in allowed:
        yield f"exit code {was.code}"
    if was.busy_s > LONGEST_S + 2 * quiet.busy_s:
        yield f"takes {was.busy_s:.0f} s of the processor"
    if was.seconds > HANGS_S:
        yield "hangs"
    if was.peak_bytes > MOST_BYTES:
        yield f"takes {was.peak_bytes / 1e9:.1f} GB"
    if was.left:
        yield f"leaves {len(was.left)} processes"


def of_words(program: Program, condition: Condition, was: Outcome, quiet: Outcome) -> Iterator[str]:
    """One sentence where there is no answer; never the words of Python."""
    traced = [each for each in TRACES if each in was.err + was.out]
    of_python = condition.interrupts and was.err.count(f"{PACKAGE}/") == was.err.count(f"{PACKAGE}/__main__.py")
    if traced and not of_python:
        yield f"{traced[0]}: {was.err[-300:]!r}"
    is_refused = was.code in (2, 3, 4) and was.code != quiet.code
    said = [
        line for line in was.err.splitlines() if line.startswith("perfmodel: ") and not line.startswith("perfmodel: warning")
    ]
    if is_refused and len(said) != 1 and not condition.may_be_unheard:
        yield f"{len(said)} sentences: {was.err[-300:]!r}"
    if condition.same and not condition.may_be_unheard and not program.measures and was.err != quiet.err:
        yield f"says something else: {first_difference(was.err, quiet.err)}"


def of_files(program: Program, condition: Condition, was: Outcome, quiet: Outcome) -> Iterator[str]:
    """The old file or the new one, and no other."""
    asked = {program.output, "read", "before", "left", "elsewhere", *quiet.files}
    others = [name for name in was.files if name not in asked and not (was.code < 0 or was.code in (137, 143))]
    if others:
        yield f"leaves {others}"
    changed = [
        name for name, content in quiet.files.items() if name != program.output and was.files.get(name, content) != content
    ]
    if changed and not program.measures:
        yield f"changes {changed}"
    there, new = was.files.get(program.output, b""), quiet.files.get(program.output, b"")
    is_link, was_killed = there.startswith(b"-> "), was.code in condition.codes
    if condition.kept and was_killed and there not in (OLD.encode(), *(() if program.measures else (new,))):
        yield f"leaves {there[:80]!r} in the place of the old file"
    is_new = is_link or program.measures or condition.unread or there == new
    if condition.writes and was.code in ANSWERS and not is_new:
        yield f"writes {first_difference(there.decode(errors='replace'), new.decode(errors='replace'))}"


def first_difference(one: str, other: str) -> str:
    """Where two texts begin to differ."""
    at = next((place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return f"{one[at : at + 80]!r} for {other[at : at + 80]!r}"
