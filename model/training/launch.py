"""How a rank starts: the process group of its device, and on a CPU a core of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch
import torch.distributed as dist

from perfmodel.errors import InputError, MachineError
from perfmodel.model.cores import on_one_core, release, take_turns

BACKENDS: Final = {"cpu": "gloo", "cuda": "nccl"}


@contextmanager
def started(device: str) -> Iterator[torch.device]:
    """The device of this rank, with torch.distributed running, whoever started it: torchrun, Slurm's srun torchrun, or nobody.

    Errors: InputError for a device that is not there; MachineError when the ranks cannot meet.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("no CUDA device is there; --device cpu runs on this machine's cores")
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device == "cuda":
        torch.cuda.set_device(local)
    take_turns(device)
    try:
        _join(BACKENDS[device])
        try:
            dist.all_reduce(torch.ones(1, device=device))  # gloo starts its threads at the first call
            on_one_core(device, local)
            yield torch.device(device, local) if device == "cuda" else torch.device(device)
        finally:
            dist.destroy_process_group()
    finally:
        release()


def _join(backend: str) -> None:
    if "RANK" not in os.environ:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
        return
    try:
        dist.init_process_group(backend)
    except (dist.DistNetworkError, dist.DistStoreError, ValueError) as error:  # a ValueError: MASTER_PORT is not set
        place = f"{os.environ.get('MASTER_ADDR', '')}:{os.environ.get('MASTER_PORT', '')}"
        raise MachineError(f"the ranks cannot meet at {place}: {_reason(str(error))}") from None


def _reason(said: str) -> str:
    if "EADDRINUSE" in said or "in use" in said:
        return "the port is in use; another MASTER_PORT, or torchrun --standalone, would do"
    return said.strip().partition("\n")[0]
