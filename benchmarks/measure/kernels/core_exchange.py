"""Measures how far from each other the cores of ranks are (core_distance.py says what that means)."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import torch
import torch.distributed as dist

EXCHANGED: Final = 2**19  # bytes: less than the second cache of a core holds
EXCHANGES: Final = 25
SHARED: Final = Path("/dev/shm")  # noqa: S108 - memory that processes share; where it is missing, the folder of temporary files


class CoreExchange:
    """One rank writes, the others read, on a CPU: all of them take part."""

    def __init__(self) -> None:
        path = [_shared_file() if dist.get_rank() == 0 else ""]
        dist.broadcast_object_list(path)
        numbers = EXCHANGED // torch.float32.itemsize
        self._written = torch.from_file(path[0], shared=True, size=numbers, dtype=torch.float32)
        self._read = torch.zeros(numbers)
        dist.barrier()
        if dist.get_rank() == 0:
            Path(path[0]).unlink()

    def distance_s(self) -> float:
        """What the rank that is farthest from the first needs to read what it wrote; the same on all ranks.

        Of each rank the lower quartile: single exchanges are disturbed, which makes none of them faster.
        """
        own = statistics.quantiles((self._read_s() for _ in range(EXCHANGES)), n=4)[0]
        everywhere: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(everywhere, own)
        return float(max(everywhere[1:]))

    def _read_s(self) -> float:
        if dist.get_rank() == 0:
            self._written.add_(1)
        dist.barrier()
        start = time.perf_counter()
        if dist.get_rank() > 0:
            self._read.copy_(self._written)
        read_s = time.perf_counter() - start
        dist.barrier()
        return read_s


def _shared_file() -> str:
    descriptor, path = tempfile.mkstemp(dir=SHARED if SHARED.is_dir() else None)
    os.truncate(descriptor, EXCHANGED)
    os.close(descriptor)
    return path


def core_exchange(device: str) -> CoreExchange | None:
    """That of these ranks; None where there is one rank, or where GPUs send."""
    return CoreExchange() if device == "cpu" and dist.get_world_size() > 1 else None
