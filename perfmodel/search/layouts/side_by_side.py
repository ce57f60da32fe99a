"""Work on many things side by side: in processes that are forked where that is safe, else one after the other.

Threads gain nothing on a search: a grid is thousands of NumPy calls, between which one thread at a time runs.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Any, Final, TypeVar

T = TypeVar("T")
R = TypeVar("R")

PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h: the signal that a process gets once the one that started it has ended
BATCH: Final = 64  # things that are held at a time, however many there are
_JOBS: Final[list[tuple[Callable[[Any], Any], Sequence[Any]]]] = []  # what forked processes find: not all could be sent to them


def side_by_side(
    task: Callable[[T], R],
    things: Iterable[T],
    *,
    workers: int | None = None,
    work: Callable[[T], float] = lambda _: 1.0,
    worth: float = 0.0,
) -> Generator[tuple[T, R], None, None]:
    """Each thing with what the task makes of it, in their order; on all cores, or on so many `workers`.

    Things of much `work` are begun first, so that all workers end at about the same time; where all have less than is `worth`
    starting processes for, none are.
    What a task returns is sent from process to process: little should be in it. What it raises is raised here.
    """
    number, source = workers or os.cpu_count() or 1, iter(things)
    while batch := list(islice(source, BATCH)):
        side = number > 1 and len(batch) > 1 and sum(map(work, batch)) >= worth and may_fork()
        yield from zip(batch, _forked(task, batch, number, work) if side else map(task, batch), strict=True)


def may_fork() -> bool:
    """Whether a copy of this process could go on: on Linux, where no other thread of Python may hold a lock."""
    return sys.platform == "linux" and threading.active_count() == 1


def _forked(task: Callable[[T], R], batch: Sequence[T], number: int, work: Callable[[T], float]) -> Generator[R, None, None]:
    """What the task makes of each, from processes that end with the last of them."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    _JOBS.append((task, batch))
    begin = partial(_end_with, os.getpid())
    pool = ProcessPoolExecutor(min(number, len(batch)), mp_context=get_context("fork"), initializer=begin)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and later count the threads of libraries too
            order = sorted(range(len(batch)), key=lambda place: -work(batch[place]))
            found = {place: pool.submit(_at, place) for place in order}
        for place in range(len(batch)):
            yield found[place].result()
    finally:
        pool.shutdown(cancel_futures=True)
        _JOBS.pop()


def _end_with(first: int) -> None:
    """A terminal sends Ctrl-C to all processes; the first one ends the others, and where it is killed Linux does (prctl(2))."""
    import ctypes

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != first:  # it ended meanwhile
        os._exit(1)


def _at(place: int) -> Any:
    """In a forked process: what the task makes of the thing at a place."""
    task, batch = _JOBS[-1]
    return task(batch[place])
