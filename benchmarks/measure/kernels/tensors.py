"""What microbenchmarks work on: random tensors of a precision, made fast, and the size of the cache that they must not fit."""

from __future__ import annotations

from functools import cache
from math import prod
from pathlib import Path
from typing import Final

import torch

from perfmodel.model.supported import DTYPES

CPU_CACHES: Final = Path("/sys/devices/system/cpu/cpu0/cache")
USUAL_CACHE: Final = 64 * 2**20  # where the machine does not say
SMALLEST_CACHE: Final = 2**20
POOL: Final = 2**20 - 3  # random numbers that are repeated: an odd number, so that rows of a tensor differ


def random(*shape: int, precision: str, device: str) -> torch.Tensor:
    """Normal numbers. On a CPU, where drawing them takes longer than what is measured, a pool of them is repeated.

    Zeros would flatter: they need less power, and GPUs clock higher on them.
    """
    dtype = DTYPES[precision]
    if device != "cpu":
        return torch.randn(shape, dtype=dtype, device=device)
    pool, numbers = _pool(dtype), prod(shape)
    return pool.repeat(-(-numbers // POOL))[:numbers].view(shape) if numbers > POOL else pool[:numbers].clone().view(shape)


@cache
def _pool(dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(POOL, generator=torch.Generator().manual_seed(1)).to(dtype)


@cache
def cache_bytes(device: str, *, smallest: bool = False) -> int:
    """The largest cache between the cores and the memory; to see that measuring works, a small one is written over as well."""
    if smallest:
        return SMALLEST_CACHE
    if device == "cuda":
        return int(torch.cuda.get_device_properties().L2_cache_size)
    sizes = [_kibibytes(path.read_text()) for path in CPU_CACHES.glob("index*/size")] if CPU_CACHES.is_dir() else []
    return max(sizes, default=USUAL_CACHE)


def _kibibytes(text: str) -> int:
    """The bytes of a size as the kernel writes it.

    >>> _kibibytes("32768K")
    33554432
    """
    return int(text.strip().removesuffix("K")) * 2**10
