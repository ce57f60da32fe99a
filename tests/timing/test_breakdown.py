"""Do the parts of an iteration add up, whichever of them are there?"""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from perfmodel.spec.axes import AXES
from perfmodel.timing.breakdown import PARTS, SOMETIMES, WAITING, Breakdown, exposed_part

SOME = Breakdown(matmul_s=3.0, data_parallel_exposed_s=1.0)


def test_every_axis_has_its_part() -> None:
    """Of its exposed messages, and of what its ranks wait without one; in all of them the GPU computes nothing."""
    for axis in AXES:
        parts = {axis.exposed_part} | ({axis.bubble_part} if axis.bubble else set())
        assert parts <= set(PARTS)
        assert parts <= set(WAITING)
        assert exposed_part(axis) == axis.exposed_part
    assert len(set(PARTS)) == len(PARTS)


def test_a_gpu_computes_or_waits() -> None:
    """What is neither kernels nor work beside them is waiting: for messages, the CPU, the host's memory or other ranks."""
    computing = {"matmul_s", "attention_s", "memory_bound_s", "communication_slowdown_s", "unlisted_s", "optimizer_s"}
    assert set(WAITING) == set(PARTS) - computing
    assert set(SOMETIMES) == {"offload_s", "rank_waiting_s"}
    assert len(set(WAITING)) == len(WAITING)


def test_parts_sum_to_the_total() -> None:
    """Those that are not there are nothing."""
    assert [part for part, seconds in SOME.items() if seconds] == ["matmul_s", "data_parallel_exposed_s"]
    assert tuple(part for part, _ in SOME.items()) == tuple(part for part in PARTS if part not in SOMETIMES)
    assert SOME.total_s == sum(seconds for _, seconds in SOME.items()) == 4.0
    assert Breakdown().total_s == SOME.launch_s == 0.0


def test_breakdowns_add_up_part_by_part() -> None:
    """Numbers and arrays."""
    together = SOME + Breakdown(matmul_s=np.array([1.0, 2.0]), launch_s=5.0)
    assert together.matmul_s.tolist() == [4.0, 5.0]  # type: ignore[union-attr]
    assert (together.launch_s, together.data_parallel_exposed_s) == (5.0, 1.0)
    assert SOME * 2.0 == SOME + SOME
    assert hash(SOME * 2.0) == hash(SOME + SOME)


def test_zero_is_not_there() -> None:
    """A part of nothing costs nothing, and makes no difference."""
    assert Breakdown(matmul_s=3.0, launch_s=0.0) == Breakdown(matmul_s=3.0)
    assert repr(Breakdown(matmul_s=3.0, launch_s=0.0)) == "Breakdown(matmul_s=3.0)"


def test_an_unknown_part_is_refused() -> None:
    """It would be silently lost."""
    with pytest.raises(TypeError, match=r"matmull_s is no part of an iteration; did you mean matmul_s\?"):
        Breakdown(matmull_s=1.0)
    with pytest.raises(AttributeError, match="matmull_s is no part of an iteration"):
        _ = SOME.matmull_s
    with pytest.raises(AttributeError):
        SOME.matmul_s = 1.0  # type: ignore[attr-defined]


def test_a_breakdown_travels_to_another_process() -> None:
    """Searches have several."""
    assert pickle.loads(pickle.dumps(SOME)) == SOME  # noqa: S301


def test_breakdowns_are_alike_where_all_parts_are() -> None:
    """And like nothing else."""
    assert SOME != SOME * 2.0
    assert SOME != {"matmul_s": 3.0, "data_parallel_exposed_s": 1.0}
