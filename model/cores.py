"""Which cores of a CPU the threads of a rank run on, and that none of them takes a core away from another.

A thread inherits the cores of the one that starts it, and torch.distributed starts some for every process group. On the core of
the thread that computes, those of gloo would wait for it: a message of 1 MB takes 4.3 ms there and 0.6 ms on all cores.

It inherits the policy, too. gloo has a thread for its sockets and two that send, which share a lock for each pair of ranks. The
kernel lets a thread that wakes up take the core of a running one: of the sender, in the middle of its lock. The one for the
sockets then finds the lock taken, asks again at once, and so on until the next tick of the clock (4 ms at 250 Hz) puts the
sender back on the core. Of the calls of a step, 0.5 to 2 ms each, one in three took 1 to 4 ms longer. Under SCHED_BATCH, which
needs no privilege, a thread that wakes up waits until the running one sleeps: one to three calls in a hundred did.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch

_policy: list[int] = []  # of this thread before it took turns; none while it does not
_all_cores: set[int] = set()  # of this process before its main thread kept to one; none while it does not


def take_turns(device: str) -> None:
    """On a CPU of Linux: this thread and those that it starts from now on take no core from a running one when they wake up."""
    if device != "cpu" or not hasattr(os, "SCHED_BATCH") or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return
    with suppress(OSError):  # where a sandbox forbids it
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        _policy.append(os.SCHED_OTHER)


def on_one_core(device: str, rank: int = 0) -> None:
    """On a CPU: one thread of PyTorch, and this thread on a core of its own, the last first: the first serves interrupts."""
    if device != "cpu":
        return
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        _all_cores.update(os.sched_getaffinity(0))
        cores = sorted(_all_cores)
        os.sched_setaffinity(0, {cores[-1 - rank % len(cores)]})


@contextmanager
def on_all_cores() -> Iterator[None]:
    """Threads that are started inside may run on every core that this process had."""
    if not _all_cores:
        yield
        return
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, _all_cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, own)


def release() -> None:
    """Let this thread run on every core again, as it did before."""
    if _policy:
        os.sched_setscheduler(0, _policy.pop(), os.sched_param(0))
    if _all_cores:
        os.sched_setaffinity(0, _all_cores)
        _all_cores.clear()
