"""How a rank starts: the process group of its device, and on a CPU a core of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch
import torch.distributed as dist

from perfmodel.errors import InputError

BACKENDS: Final = {"cpu": "gloo", "cuda": "nccl"}


@contextmanager
def started(device: str) -> Iterator[torch.device]:
    """The device of this rank, with torch.distributed running, whoever started it: torchrun, Slurm's srun torchrun, or nobody.

    Errors: InputError for a device that is not there.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("no CUDA device is there; --device cpu runs on this machine's cores")
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device == "cuda":
        torch.cuda.set_device(local)
    _join(BACKENDS[device])
    try:
        dist.all_reduce(torch.ones(1, device=device))  # gloo starts its threads at the first call
        on_one_core(device, local)
        yield torch.device(device, local) if device == "cuda" else torch.device(device)
    finally:
        dist.destroy_process_group()


def _join(backend: str) -> None:
    if "RANK" in os.environ:
        dist.init_process_group(backend)
        return
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)


def on_one_core(device: str, rank: int = 0) -> None:
    """On a CPU: one thread of PyTorch, and this thread on a core of its own, the last ones first: the first serves interrupts.

    Call it once torch.distributed has its threads. They keep all cores, and need them: on that of a thread that computes, those
    of gloo would wait for it.
    """
    if device != "cpu":
        return
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[-1 - rank % len(cores)]})
