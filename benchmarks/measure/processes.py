"""How processes that measure are started: in which environment, on how many ranks, and that none of them outlives its starter.

glibc hands large blocks back to the kernel after every `free`, and the page faults of the next allocation then cost many times
what an operator of a CPU costs: ReLU of 64 MB takes 23 ms instead of 2.8. The environment below keeps them.
"""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import site
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, Final, NoReturn

from perfmodel.errors import InputError, MachineError, NotSupportedError, PerfmodelError

MEASURING: Final = {
    "MALLOC_MMAP_THRESHOLD_": "8589934592",
    "MALLOC_TRIM_THRESHOLD_": "8589934592",
    "MALLOC_TOP_PAD_": "67108864",
    "MALLOC_ARENA_MAX": "1",  # those of other threads hold 64 MB: gloo's larger copies would be new memory each time
    "OMP_NUM_THREADS": "1",
    "PYTHONSAFEPATH": "1",  # `python -m` would import what is named like a module in the folder of whoever calls
}
PACKAGES: Final = Path(__file__).absolute().parents[3]  # the folder of perfmodel, in a checkout too: not resolved
PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h: the signal that a process gets once the one that started it has ended
MARK: Final = "PERFMODEL_STARTED"  # in the environment of all that one call starts: its mark, after those of calls around it
LAUNCHER: Final = "perfmodel.benchmarks.measure.forked_ranks"
EVERY_S: Final = 0.5
PROC: Final = Path("/proc")
ROOT_CAUSE: Final = re.compile(
    r"Root Cause.*?rank\s*: (?P<rank>\d+).*?exitcode\s*: (?P<code>-?\d+)", re.DOTALL
)  # of torchrun's own report
OWN_SENTENCE: Final = re.compile(r"^perfmodel: (.+)$", re.MULTILINE)  # of a rank that knew what was wrong
KNOWN: Final = {  # what torch and the system say, and what it means
    "address already in use": "the port that the ranks would meet at is in use; try again",
    "EADDRINUSE": "the port that the ranks would meet at is in use; try again",
    "out of memory": "it ran out of memory; a smaller micro-batch, model or number of ranks needs less",
    "can't allocate memory": "it ran out of memory; a smaller micro-batch, model or number of ranks needs less",
    "CUDA error": "a GPU failed or is gone; nvidia-smi says more",
    "NVML": "a GPU failed or is gone; nvidia-smi says more",
    "MemoryError": "it ran out of memory; a smaller micro-batch, model or number of ranks needs less",
}
LAST_LINE: Final = re.compile(r"^(?P<error>\w*(?:Error|Exception|Exit)\b.*)$", re.MULTILINE)


def measuring_environment() -> dict[str, str]:
    """This process's environment, with the allocator, the threads and the import path of processes that measure.

    They import the very perfmodel that starts them: a checkout leads PYTHONPATH, an installed one is found by itself.
    """
    environment = dict(os.environ) | MEASURING
    searched = [folder for folder in environment.get("PYTHONPATH", "").split(os.pathsep) if folder]
    installed = str(PACKAGES) in {*site.getsitepackages(), site.getusersitepackages()}
    if not installed and str(PACKAGES) not in searched[:1]:
        environment["PYTHONPATH"] = os.pathsep.join([str(PACKAGES), *searched])
    return environment


def restarted_to_measure(module: str) -> None:
    """Become `python -m module` with the same arguments in the environment above, unless this process has it already."""
    if any(os.environ.get(name) != value for name, value in MEASURING.items()):
        arguments = [sys.executable, "-m", module, *sys.argv[1:]]
        os.execve(sys.executable, arguments, measuring_environment())  # noqa: S606 - it is this very program


def start(
    command: Sequence[str], ranks: int = 0, *, timeout_s: float = 3600.0, meanwhile: Callable[[], object] | None = None
) -> str:
    """Run the module command[0] with the arguments that follow, on `ranks` processes of this machine; what they printed.

    Ranks call the module's `main`. With 0 ranks it is one process that no launcher stands around. `meanwhile` is called now and
    then until all have ended.
    Errors: InputError with what a rank said was wrong with its input; MachineError when one died, or took too long.
    """
    if importlib.util.find_spec("torch") is None:
        raise InputError("torch is not installed; pip install 'perfmodel[torch]'")
    launcher = ["-m", LAUNCHER, str(ranks)] if ranks else ["-m"]
    mark = uuid.uuid4().hex
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [sys.executable, *launcher, *command],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=said,
            env=measuring_environment() | {MARK: f"{os.environ.get(MARK, '')} {mark}"},
            start_new_session=True,
            preexec_fn=_ending_with_its_parent(),  # noqa: PLW1509 - one call of the system, in a process of one thread
        )
        try:
            with _exits_when_told_to_end():
                code = _waited(process, timeout_s, meanwhile)
        finally:
            end(process, mark)
        if code is None:
            raise MachineError(f"{command[0]} took longer than {timeout_s:g} s and was stopped")
        if code:
            raise failure(command[0], _text(said), code)
        return _text(out)


def _ending_with_its_parent() -> Callable[[], object] | None:
    """What a process does first to be told to end once this one has ended, however it did (prctl(2)); None but on Linux.

    A launcher that is told to ends its ranks.
    """
    if sys.platform != "linux":
        return None
    import ctypes

    return partial(ctypes.CDLL(None).prctl, PR_SET_PDEATHSIG, int(signal.SIGTERM))


@contextmanager
def _exits_when_told_to_end() -> Iterator[None]:
    """SIGTERM and SIGHUP, as a scheduler and a closed terminal send them, end this process with what it has started."""

    def leave(number: int, _: object) -> NoReturn:
        sys.exit(128 + number)

    told = [each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) is signal.SIG_DFL]
    told = told if threading.current_thread() is threading.main_thread() else []
    for each in told:
        signal.signal(each, leave)
    try:
        yield
    finally:
        for each in told:
            signal.signal(each, signal.SIG_DFL)


def _waited(process: subprocess.Popen[bytes], timeout_s: float, meanwhile: Callable[[], object] | None) -> int | None:
    """The exit code, or None when the time was over before."""
    until = time.monotonic() + timeout_s
    while (left_s := until - time.monotonic()) > 0:
        try:
            return process.wait(min(left_s, EVERY_S))
        except subprocess.TimeoutExpired:
            if meanwhile:
                meanwhile()
    return None


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def failure(module: str, said: str, code: int) -> PerfmodelError:
    """What went wrong, as one sentence, from what was printed on stderr."""
    cause, own = ROOT_CAUSE.search(said), OWN_SENTENCE.search(said)
    codes = {code, int(cause["code"]) if cause else code}
    if own:
        return next((kind(own[1]) for kind in (MachineError, NotSupportedError) if kind.exit_code in codes), InputError(own[1]))
    died = f"rank {cause['rank']} of {module} {_ended(int(cause['code']))}" if cause else f"{module} {_ended(code)}"
    for text, meaning in KNOWN.items():
        if text.lower() in said.lower():
            return MachineError(f"{died}: {meaning}")
    errors = [found["error"] for found in LAST_LINE.finditer(said) if "ChildFailedError" not in found["error"]]
    return MachineError(f"{died}: {errors[0][:200]}" if errors else died)


def _ended(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    likely = ", as the kernel does when memory runs out" if name == "SIGKILL" else ""
    return f"was ended by {name}{likely}"


def end(process: subprocess.Popen[Any], mark: str, *, patience_s: float = 5.0) -> None:
    """Kill a launcher and whatever has inherited `mark` from it, and wait until all are gone.

    torchrun gives each rank a session of its own, and a rank may outlive it: neither process group nor parent leads to all.
    """
    if process.poll() is None:
        process.kill()
        process.wait()
    until = time.monotonic() + patience_s
    while (left := marked(mark)) and time.monotonic() < until:
        for pid in left:
            _kill(pid)
        time.sleep(0.01)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def marked(mark: str) -> list[int]:
    """Processes with `mark` in their environment; where there is no /proc, none. Those that ended have none any more."""
    found = []
    for entry in PROC.glob("[0-9]*"):
        try:
            environment = (entry / "environ").read_bytes()
        except OSError:
            continue  # somebody else's, or it ended meanwhile
        own = [value for value in environment.split(b"\0") if value.startswith(f"{MARK}=".encode())]
        if own and mark.encode() in own[0]:
            found.append(int(entry.name))
    return found
