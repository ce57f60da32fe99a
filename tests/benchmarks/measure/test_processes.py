"""Do processes that measure have their environment, and does none of them outlive its starter?"""

from __future__ import annotations

import os
import signal
import site
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perfmodel.benchmarks.measure import processes
from perfmodel.benchmarks.measure.processes import (
    MEASURING,
    failure,
    marked,
    measuring_environment,
    restarted_to_measure,
    start,
)
from perfmodel.errors import InputError, MachineError, NotSupportedError, PerfmodelError

RANKS = """
import os, signal, sys, time
def main():
    what, rank = sys.argv[1], os.environ["RANK"]
    if what == "print":
        os.write(1, f"{os.environ['MALLOC_TOP_PAD_']} {os.environ['WORLD_SIZE']}\\n".encode())  # in one piece
    elif rank == "1" and what in ("die", "end both"):
        os.kill(os.getpid(), signal.SIGKILL)
    elif rank == "1" and what == "refuse":
        print("perfmodel: model.layers: 0 is not a number of layers", file=sys.stderr)
        sys.exit(2)
    elif rank == "1" and what == "raise" or what == "end both":
        raise ValueError("no such thing")
    else:
        time.sleep(60)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that each rank runs."""
    (tmp_path / "ranks_of_a_test.py").write_text(RANKS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "ranks_of_a_test"


@pytest.fixture
def marks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Marks of what is started."""
    seen: list[str] = []
    kept = processes.end

    def end(process: Any, mark: str) -> None:
        seen.append(mark)
        kept(process, mark)

    monkeypatch.setattr(processes, "end", end)
    return seen


def test_the_environment_keeps_large_blocks_and_one_thread() -> None:
    """And all that was there before."""
    made = measuring_environment()
    assert made | MEASURING == made
    assert made["PATH"] == os.environ["PATH"]


def test_it_imports_the_perfmodel_that_starts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkout leads PYTHONPATH, once; an installed one needs nothing, and the working directory is never searched."""
    monkeypatch.setenv("PYTHONPATH", f"{os.pathsep}/elsewhere")
    monkeypatch.setattr(processes, "PACKAGES", Path("/checkout"))
    made = measuring_environment()
    assert (made["PYTHONPATH"], made["PYTHONSAFEPATH"]) == (f"/checkout{os.pathsep}/elsewhere", "1")
    monkeypatch.setenv("PYTHONPATH", made["PYTHONPATH"])
    assert measuring_environment() == made
    monkeypatch.setattr(processes, "PACKAGES", Path(site.getsitepackages()[0]))
    monkeypatch.delenv("PYTHONPATH")
    assert "PYTHONPATH" not in measuring_environment()


def test_a_process_with_the_environment_is_not_started_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """One without it is, with the same arguments."""
    calls: list[tuple[str, list[str], dict[str, str]]] = []
    monkeypatch.setattr(os, "execve", lambda *arguments: calls.append(arguments))
    monkeypatch.setattr(sys, "argv", ["kernels.py", "--device", "cpu"])
    monkeypatch.delenv("MALLOC_TOP_PAD_", raising=False)
    restarted_to_measure("perfmodel.benchmarks.measure.kernels.kernels")
    ((program, arguments, environment),) = calls
    assert (program, arguments) == (
        sys.executable,
        [sys.executable, "-m", "perfmodel.benchmarks.measure.kernels.kernels", "--device", "cpu"],
    )
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    restarted_to_measure("perfmodel.benchmarks.measure.kernels.kernels")
    assert len(calls) == 1


@pytest.mark.slow
@pytest.mark.ranks
def test_every_rank_measures_in_the_environment(module: str, marks: list[str]) -> None:
    """What they print comes back."""
    assert start([module, "print"], 2).split() == [MEASURING["MALLOC_TOP_PAD_"], "2"] * 2
    assert marked(marks[0]) == []


@pytest.mark.slow
@pytest.mark.ranks
@pytest.mark.parametrize(
    ("what", "kind", "sentence"),
    [
        ("die", MachineError, "^rank 1 of ranks_of_a_test was ended by SIGKILL, as the kernel does when memory runs out$"),
        ("refuse", InputError, "^model.layers: 0 is not a number of layers$"),
        ("raise", MachineError, "^rank 1 of ranks_of_a_test ended with exit code 1: ValueError: no such thing$"),
        ("end both", MachineError, "^rank 1 of ranks_of_a_test was ended by SIGKILL"),
    ],
)
def test_a_rank_that_ends_is_one_sentence_and_leaves_nobody(
    module: str, marks: list[str], what: str, kind: type[PerfmodelError], sentence: str
) -> None:
    """Which rank, and how; or what it said itself. The other one slept for a minute."""
    with pytest.raises(kind, match=sentence) as caught:
        start([module, what], 2)
    assert type(caught.value) is kind
    assert marked(marks[0]) == []


@pytest.mark.ranks
def test_ranks_that_take_too_long_are_stopped(module: str, marks: list[str]) -> None:
    """Both, though each has a session of its own."""
    with pytest.raises(MachineError, match=r"^ranks_of_a_test took longer than 3 s and was stopped$"):
        start([module, "sleep"], 2, timeout_s=3)
    assert marked(marks[0]) == []


@pytest.mark.ranks
def test_an_interrupt_stops_all_ranks(module: str, marks: list[str]) -> None:
    """Ctrl-C goes to the starter alone; also where the tests run in the background of a shell, which has them ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Timer(2.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            start([module, "sleep"], 2)
    finally:
        signal.signal(signal.SIGINT, before)
    assert marked(marks[0]) == []


@pytest.mark.ranks
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_starter_that_is_ended_takes_its_ranks_along(module: str, number: signal.Signals, code: int) -> None:
    """As a scheduler ends a job that takes too long, or the kernel one that takes too much memory."""
    mark, script = uuid.uuid4().hex, f"from {processes.__name__} import start; start([{module!r}, 'sleep'], 2)"
    found = os.pathsep.join([str(processes.PACKAGES), os.environ["PYTHONPATH"]])
    starter = subprocess.Popen([sys.executable, "-c", script], env=os.environ | {processes.MARK: mark, "PYTHONPATH": found})
    until(lambda: len(marked(mark)) >= 4)  # the starter, the launcher, two ranks
    starter.send_signal(number)
    assert starter.wait() == code
    until(lambda: not marked(mark), 20.0)


def until(is_so: Callable[[], bool], most_s: float = 60.0) -> None:
    """Wait until something is so, and fail where it never is."""
    end = time.monotonic() + most_s
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (
            "RuntimeError: ... (errno: 98 - Address already in use)",
            "the port that the ranks would meet at is in use; try again",
        ),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried", "it ran out of memory; a smaller micro-batch"),
        ("RuntimeError: [enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory", "it ran out of memory"),
        ("ValueError: no such thing", "it ended with exit code 1: ValueError: no such thing"),
        ("", "it ended with exit code 1"),
    ],
)
def test_what_torch_says_becomes_a_sentence(said: str, sentence: str) -> None:
    """One line, whatever was printed."""
    error = failure("it", f"Traceback:\n  somewhere\n{said}\n", 1)
    assert sentence in str(error)
    assert "\n" not in str(error)


def test_without_torch_it_says_what_would_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is started."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"^torch is not installed; pip install 'perfmodel\[torch\]'$"):
        start(["it"], 2)


@pytest.mark.parametrize(("code", "kind"), [(2, InputError), (3, NotSupportedError), (4, MachineError)])
def test_the_sentence_of_a_rank_keeps_whose_fault_it_is(code: int, kind: type[PerfmodelError]) -> None:
    """A full disk of a rank is the machine's fault, as it would be without ranks."""
    error = failure("it", f"perfmodel: x cannot be written: reason\nrootcause: exitcode: {code}\n", code)
    assert type(error) is kind
