"""Work is done side by side in the order of its things, by forked processes that leave nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing import active_children

import pytest

from perfmodel.search.layouts import side_by_side as module
from perfmodel.search.layouts.side_by_side import BATCH, may_fork, side_by_side


def tripled(number: int) -> tuple[int, int]:
    """Three times a number, and the process that said so."""
    if number == 999:
        raise ValueError("999 is too much")
    return 3 * number, os.getpid()


@pytest.fixture(params=[True, False], ids=["forked", "here"])
def forks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether processes are forked, whatever else runs here."""
    monkeypatch.setattr(module, "may_fork", lambda: request.param)
    return bool(request.param)


@pytest.mark.parametrize("number", [0, 1, 2, BATCH, BATCH + 1, 3 * BATCH])
def test_results_come_in_the_order_of_their_things(forks: bool, number: int) -> None:
    """However many there are; those of other processes where there are some."""
    found = list(side_by_side(tripled, range(number), workers=2))
    assert [(thing, result) for thing, (result, _) in found] == [(thing, 3 * thing) for thing in range(number)]
    others = {process for _, (_, process) in found} - {os.getpid()}
    assert bool(others) == (forks and number > 1)
    assert not active_children()


def test_what_a_task_raises_is_raised(forks: bool) -> None:
    """With its own words, and nothing goes on."""
    with pytest.raises(ValueError, match="999 is too much"):
        list(side_by_side(tripled, [1, 2, 999, 4], workers=2))
    assert not active_children()
    assert list(side_by_side(tripled, [1], workers=1)) == [(1, (3, os.getpid()))]


def test_who_stops_early_leaves_nothing_behind(forks: bool) -> None:
    """Neither processes, nor things that were never asked for."""
    taken = []

    def things() -> Iterator[int]:
        for thing in range(10 * BATCH):
            taken.append(thing)
            yield thing

    work = side_by_side(tripled, things(), workers=2)
    assert next(work)[0] == 0
    work.close()
    assert not active_children()
    assert len(taken) == BATCH


def test_nothing_is_forked_beside_a_thread_or_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread may hold a lock that no process could ever take; other systems do not fork safely."""
    alone = may_fork()
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    assert not may_fork()
    done.set()
    thread.join()
    assert may_fork() == alone
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not may_fork()


def begun_s(_: int) -> float:
    """When a process begins with a thing, which takes a moment."""
    now_s = time.monotonic()
    time.sleep(0.02)
    return now_s


def test_the_longest_work_is_begun_first(forks: bool) -> None:
    """By forked processes, and told in the order of the things all the same."""
    things = [1, 2, 3, 4, 9, 8]
    found = list(side_by_side(begun_s, things, workers=2, work=float))
    assert [thing for thing, _ in found] == things
    by_start = [thing for thing, _ in sorted(found, key=lambda each: each[1])]
    assert set(by_start[:2]) == {9, 8} if forks else by_start == things


@pytest.mark.parametrize(("worth", "starts"), [(11.0, False), (10.0, True)])
def test_no_process_is_started_for_little_work(worth: float, starts: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four things of 1, 2, 3 and 4 have a work of 10."""
    monkeypatch.setattr(module, "may_fork", lambda: True)
    found = side_by_side(tripled, [1, 2, 3, 4], workers=2, work=float, worth=worth)
    assert any(process != os.getpid() for _, (_, process) in found) == starts


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone")
def test_processes_end_with_one_that_is_killed() -> None:
    """As by kill -9, or where the machine runs out of memory: nobody is left to tell them."""
    program = (
        "import os, time\n"
        "from perfmodel.search.layouts.side_by_side import side_by_side\n"
        "def task(thing):\n"
        "    os.write(1, f'{os.getpid()}\\n'.encode())\n"
        "    time.sleep(600)\n"
        "list(side_by_side(task, [1, 2], workers=2))\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        others = [int(first.stdout.readline()) for _ in range(2)]
        assert first.pid not in others
        first.kill()
        assert first.stdout.read() == ""  # until the last of them has closed it
