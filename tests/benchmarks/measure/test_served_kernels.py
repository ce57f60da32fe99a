"""Does a calibration measure every kernel of generation, each as large as its point says?"""

from __future__ import annotations

import pytest
import torch

from perfmodel.benchmarks.measure.kernels.served.served_kernels import WORKS, ServedTensor, buffers_beyond, take
from perfmodel.benchmarks.measure.kernels.served.served_plan import CPU, served_points
from perfmodel.benchmarks.measure.kernels.served.served_traffic import LARGEST_DECODE, served_bytes
from perfmodel.spec.serving.profile import SERVED_KERNELS


def test_every_kernel_of_a_pass_has_points_and_work() -> None:
    """Of few rows and of many."""
    points = [each for each in served_points("cpu") if each.kind == "served"]
    assert {each.labels["operator"] for each in points} == set(SERVED_KERNELS) == set(WORKS)
    for kernel in set(SERVED_KERNELS) - {"sample"}:
        rows = {each.sizes["rows"] for each in points if each.labels["operator"] == kernel}
        assert min(rows) <= LARGEST_DECODE < max(rows), kernel


@pytest.mark.parametrize("kernel", SERVED_KERNELS)
def test_bytes_grow_with_rows_and_columns(kernel: str) -> None:
    """In proportion to the rows."""
    once = served_bytes(kernel, rows=4, columns=128)
    assert served_bytes(kernel, rows=8, columns=128) == pytest.approx(2 * once)
    assert served_bytes(kernel, rows=4, columns=256) > once


@pytest.mark.parametrize("kernel", SERVED_KERNELS)
def test_work_runs_on_few_rows_and_on_many(kernel: str) -> None:
    """As single tokens of many sequences, and as one prompt; its results are numbers."""
    for rows in (3, LARGEST_DECODE + 6):
        tensor = ServedTensor(rows=rows, columns=128, precision="bf16", device="cpu")
        with torch.inference_mode():
            made = WORKS[kernel](tensor)
            found = [work() for work in (made if isinstance(made, tuple) else (made,))]
        every = [part for each in found for part in (each if isinstance(each, tuple) else (each,))]
        assert all(bool(each.isfinite().all()) for each in every if isinstance(each, torch.Tensor))


def test_every_kind_of_point_is_timed() -> None:
    """Products of one matrix and of several, attention over a cache of either kind, one kernel, and the interpreter."""
    points = served_points("cpu", smallest=True)
    kinds = {(each.kind, each.sizes.get("matrices", each.sizes.get("kv_heads", 0))): each for each in points}
    assert len(kinds) == 6
    for point in kinds.values():
        assert take(point, "cpu", seconds=1e-3, smallest=True).seconds > 0


def test_points_are_those_of_serving() -> None:
    """Few rows, also of several experts; heads that share keys, and latent attention with values inside its one key."""
    points = served_points("cpu")
    assert {each.sizes["rows"] for each in points if each.kind == "few_rows" and each.sizes["matrices"] == 1} == set(CPU.rows)
    latent = [each for each in points if each.kind == "cached" and each.sizes["value_size"] < each.sizes["head_size"]]
    assert latent
    assert all(each.sizes["kv_heads"] == 1 for each in latent)


def test_matrices_and_caches_that_take_turns_fill_the_largest_cache_twice() -> None:
    """Counted in their own bytes, those of experts and of sequences together; large ones are still a few."""
    matrix = {"rows": 1, "columns": 1024, "inner": 512, "matrices": 1}
    assert buffers_beyond(2**25, "few_rows", matrix, element_bytes=2) == 64
    assert buffers_beyond(2**25, "few_rows", matrix | {"matrices": 8}, element_bytes=2) == 8
    keys = {"sequences": 4, "kv_heads": 4, "context": 512, "head_size": 64}
    assert buffers_beyond(2**25, "cached", keys, element_bytes=2) == 64
    assert buffers_beyond(2**25, "few_rows", matrix | {"columns": 2**20}, element_bytes=2) == 4
