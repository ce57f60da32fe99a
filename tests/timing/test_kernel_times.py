"""Kernels are timed once where they differ in nothing that their time depends on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from perfmodel.count.iteration import iteration
from perfmodel.count.operators import Collective, FusedAttention, Matmul, MemoryBound
from perfmodel.exchange.presets import cluster_preset, model_preset, stack_preset
from perfmodel.light_dataclass import replace
from perfmodel.timing.kernel_times import UNTIMED, kernel_times_s
from perfmodel.timing.kernels import kernel_time_s
from tests.layouts import RAMP_STAGE
from tests.setups import setup_of

CLUSTER, STACK = cluster_preset("dgx-h100"), stack_preset("megatron-core")
OTHERWISE: dict[str, Any] = {"name": "another", "phase": "recompute", "repeats": 7, "saved_bytes": 1.0, "replayed": True}


def kernels(**changes: Any) -> list[Matmul | FusedAttention | MemoryBound]:
    """Every kernel of both passes of a model's layer, with full recompute."""
    layout = replace(RAMP_STAGE, recompute="full", **changes)
    (blocks,) = iteration(setup_of(model_preset("llama-3.1-8b"), layout, STACK)).layers.values()
    return [each for each in blocks.again.operators if not isinstance(each, Collective)]


@pytest.mark.parametrize("sizes", [1, np.array([1.0, 2.0, 4.0])])
def test_kernels_that_are_timed_together_take_what_each_takes_alone(sizes: Any) -> None:
    """To the bit, of one layout and of several, whatever runs again."""
    every = kernels(micro_batch_size=sizes)
    for kernel, seconds in zip(every, kernel_times_s(every, cluster=CLUSTER, stack=STACK), strict=True):
        assert np.array_equal(seconds, kernel_time_s(kernel, cluster=CLUSTER, stack=STACK)), kernel.name


def test_kernels_of_one_name_and_other_sizes_are_timed_apart() -> None:
    """Twice the bytes take longer, and so do twice the rows."""
    norms = [MemoryBound(name="norm", moved_bytes=size) for size in (1e9, 2e9)]
    products = [Matmul(name="up", rows=rows, columns=8192, inner=8192, precision="bf16") for rows in (8192, 16384)]
    short_s, long_s, small_s, large_s = kernel_times_s([*norms, *products], cluster=CLUSTER, stack=STACK)
    assert long_s > 1.9 * short_s
    assert large_s > 1.9 * small_s


def test_what_is_left_out_of_account_changes_no_time() -> None:
    """Names, how often a kernel runs, what it keeps; a role never decides how long one execution takes."""
    assert {*OTHERWISE, "role"} == set(UNTIMED)
    for kernel in kernels():
        if kernel.phase == "forward":
            other = replace(kernel, **OTHERWISE)
            assert kernel_time_s(other, cluster=CLUSTER, stack=STACK) == kernel_time_s(kernel, cluster=CLUSTER, stack=STACK)
