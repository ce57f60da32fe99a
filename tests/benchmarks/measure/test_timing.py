"""Are times medians of enough repeats, on buffers that take turns?"""

from __future__ import annotations

import pytest
import torch

from perfmodel.benchmarks.measure.kernels import timing
from perfmodel.benchmarks.measure.kernels.tensors import SMALLEST_CACHE, cache_bytes, random


@pytest.fixture
def small_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of 1 MiB, so that what lies beyond it is quickly filled."""
    monkeypatch.setattr(timing, "cache_bytes", lambda _, **__: 2**20)


def counted(made: list[int]) -> timing.Prepare:
    """A buffer that notes each time that it is worked on, numbered in the order of preparation."""

    def prepare() -> timing.Prepared:
        number = len(made)
        made.append(0)

        def work() -> None:
            made[number] += 1

        return timing.Prepared(work)

    return prepare


def test_short_work_is_repeated_most_often(small_cache: None) -> None:
    """50 times and no more."""
    assert timing.timed(counted([]), buffer_bytes=1.0, device="cpu").repeats == timing.MOST


def test_long_work_is_repeated_a_few_times_at_least(small_cache: None) -> None:
    """Five times, though no time is left."""
    assert timing.timed(counted([]), buffer_bytes=1.0, device="cpu", seconds=0.0).repeats == timing.FEWEST


def test_cold_buffers_take_turns(small_cache: None) -> None:
    """Each is worked on as often as the others, or once less."""
    made: list[int] = []
    timing.timed(counted(made), buffer_bytes=2**18, device="cpu")
    assert len(made) == timing.MOST_BUFFERS + 1  # the first of each round is dropped
    assert max(made) - min(made) <= 1


def test_to_see_that_it_works_a_small_cache_is_written_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the size of the cache, which otherwise is that of this machine."""
    written: list[int] = []

    def scratch(number: int, _: str) -> torch.Tensor:
        written.append(number)
        return torch.zeros(1)

    monkeypatch.setattr(timing, "_bytes", scratch)
    for smallest in (True, False):
        timing.timed(counted([]), buffer_bytes=1.0, device="cpu", seconds=0.0, smallest=smallest)
    assert written == [2 * SMALLEST_CACHE, 2 * cache_bytes("cpu")]


def test_a_warm_buffer_is_the_only_one(small_cache: None) -> None:
    """Worked on again and again."""
    made: list[int] = []
    timing.timed(counted(made), buffer_bytes=1.0, device="cpu", warm=True)
    assert len(made) == 1
    assert made[0] > timing.MOST


def test_what_a_warm_operator_reads_is_written_by_a_product_before_each_time(small_cache: None) -> None:
    """Behind what fills the caches; the buffer was zeros, and a product of positive numbers never is."""
    buffer, seen = torch.zeros(4, 3, dtype=torch.bfloat16), list[float]()

    def work() -> None:
        seen.append(float(buffer.min()))
        buffer.zero_()

    timing.timed(lambda: timing.Prepared(work, (buffer,)), buffer_bytes=1.0, device="cpu", warm=True, seconds=0.0)
    assert len(seen) == timing.LARGE_ROUNDS + timing.FEWEST
    assert min(seen) > 0


def test_all_caches_are_written_over_before_each_time_of_a_warm_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the size of the largest: its code and its result are in none."""
    scratch, seen = torch.zeros(1), list[float]()
    monkeypatch.setattr(timing, "_bytes", lambda number, _: scratch.mul_(0).add_(0 * number))
    timing.timed(
        lambda: timing.Prepared(lambda: seen.append(float(scratch))), buffer_bytes=1.0, device="cpu", warm=True, seconds=0.0
    )
    assert seen == [float(number) for number in range(1, len(seen) + 1)]


def test_fresh_work_never_runs_twice_on_a_buffer(small_cache: None) -> None:
    """A loss spends what its forward pass kept."""
    made: list[int] = []
    timing.timed(counted(made), buffer_bytes=1.0, device="cpu", fresh=True)
    assert max(made) == 1


def test_random_tensors_are_random_and_in_their_precision() -> None:
    """Also where a pool of numbers is repeated: no row is like the next."""
    x = random(1200, 1024, precision="bf16", device="cpu")
    assert (x.shape, x.dtype) == ((1200, 1024), torch.bfloat16)
    assert float(x.float().std()) == pytest.approx(1.0, abs=0.01)
    assert not torch.equal(x[0], x[1024])


def test_the_cache_has_a_size() -> None:
    """Of this machine, or the usual one."""
    assert 2**16 <= cache_bytes("cpu") <= 2**31
