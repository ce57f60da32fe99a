"""How many GPUs: the fewest that meet a deadline, the fastest that a budget pays for.

Symbols: n GPUs, T(n) the time of the best layout on n at the confidence that is asked for, F(n) <= T(n) a lower bound that is
found faster (the time if memory had no limit), W(n) = n * F(n) the GPU-seconds of the lower bound.

How well a number of GPUs divides decides much: with a batch of 1,152, nothing is fast on 147 nodes and much is on 144. So every
number of nodes is considered (up to 256; then every second, from 512 on every fourth ..), and is ruled out by its own lower
bound, or by a smaller number that divides well (`is_even`).

Assumed: W(n) is at least (1 - SLACK) times W of any smaller even number, as more GPUs communicate more; where a batch divides
better it falls, by up to 16 % for Nemotron-4 15B on DGX H100. Where more, an answer may be missed; tests/search/test_sizing.py
searches all numbers of nodes of a cluster and finds none.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

import numpy as np

Sized = TypeVar("Sized")
SLACK: Final = 0.2
NODE_COUNT_BITS: Final = 8  # leading bits in which numbers of nodes differ: 128 to 256 numbers an octave
ANCHORS_PER_OCTAVE: Final = 8  # even numbers an octave whose lower bound is worked out


def node_counts(*, least: int, most: int, step: int) -> Iterator[int]:
    """Numbers of GPUs to choose from: multiples of `step` (a node); of large numbers of nodes some are left out.

    >>> list(node_counts(least=10, most=40, step=8)), list(node_counts(least=600, most=606, step=1))
    ([16, 24, 32, 40], [600, 604])
    """
    nodes = max(-(-least // step), 1)
    while nodes * step <= most:
        stride = 1 << max(nodes.bit_length() - NODE_COUNT_BITS, 0)
        nodes = -(-nodes // stride) * stride
        if nodes * step <= most:
            yield nodes * step
        nodes += stride


def fewest_gpus(
    option: Callable[[int], Sized | None],
    *,
    time_s: Callable[[Sized], float],
    deadline_s: float,
    least: int,
    most: int,
    step: int,
    lower_bound: Callable[[int], Sized | None] | None = None,
    least_time_s: Callable[[Sized], float] | None = None,
    is_even: Callable[[int], bool] = lambda _: True,
) -> Sized | None:
    """The option on the fewest GPUs, in multiples of `step`, whose time is at most the deadline; None where there is none.

    An even number that keeps the deadline is found first, then smaller ones: a search that is stopped early has that one. Each
    number is asked for more than once, so `option` and `lower_bound` should remember what they found. `least_time_s` is the
    time of a lower bound, where that is not worked out as the time of an option is.

    >>> found = fewest_gpus(lambda n: n, time_s=lambda n: 1000 / n, deadline_s=10.0, least=8, most=800, step=4)
    >>> found
    100
    """
    seconds = _LowerBound(lower_bound or option, least_time_s or time_s)
    anchors = _anchors(node_counts(least=step, most=most, step=step), is_even)
    work = _least_work_of_smaller(seconds, anchors, least=least, deadline_s=deadline_s)

    def keeps(gpus: int) -> Sized | None:
        found = option(gpus) if seconds(gpus) <= deadline_s else None
        return None if found is None or time_s(found) > deadline_s else found

    enough = next((gpus for gpus in anchors if gpus * deadline_s >= work and gpus >= least and keeps(gpus) is not None), most)
    marks = set(anchors)
    for gpus in node_counts(least=least, most=enough, step=step):
        if gpus * deadline_s >= work:
            found = keeps(gpus)
            if found is not None:
                return found
            work = max(work, seconds.least_work(gpus)) if gpus in marks else work
    return None


def fastest_within(
    option: Callable[[int], Sized | None],
    *,
    time_s: Callable[[Sized], float],
    cost: Callable[[Sized], float],
    budget: float,
    least: int,
    most: int,
    step: int,
    lower_bound: Callable[[int], Sized | None] | None = None,
    least_cost: Callable[[Sized], float] | None = None,
    is_even: Callable[[int], bool] = lambda _: True,
) -> Sized | None:
    """The fastest option that costs at most the budget, in multiples of `step`; None where there is none.

    The largest even number whose lower bound costs no more is looked at first, then all others from the largest down.
    `least_cost` is the cost of a lower bound, where that is not worked out as the cost of an option is.

    >>> prices = {"time_s": lambda n: 1 + 1000 / n, "cost": lambda n: n + 100}
    >>> fastest_within(lambda n: n, **prices, budget=300, least=8, most=800, step=4)
    200
    """
    bound = lower_bound or option
    seconds, dollars = _LowerBound(bound, time_s), _LowerBound(bound, least_cost or cost)
    anchors = _anchors(node_counts(least=least, most=most, step=step), is_even)
    dear = bisect_right(anchors, budget, key=lambda gpus: (1.0 - SLACK) * dollars(gpus))
    most = anchors[dear] if dear < len(anchors) else most
    best = option(anchors[dear - 1]) if dear else None
    best = None if best is None or cost(best) > budget else best
    best_s = np.inf if best is None else time_s(best)
    for gpus in reversed(list(node_counts(least=least, most=most, step=step))):
        anchor = anchors[bisect_right(anchors, gpus) - 1]
        if seconds.least_work(anchors[0]) >= gpus * best_s:
            break
        if seconds.least_work(anchor) >= gpus * best_s or seconds(gpus) >= best_s or dollars(gpus) > budget:
            continue
        found = option(gpus)
        if found is not None and cost(found) <= budget and time_s(found) < best_s:
            best, best_s = found, time_s(found)
    return best


class _LowerBound:
    """The least that a number of GPUs takes or costs; infinity where no layout may exist. Each number is worked out once."""

    def __init__(self, lower_bound: Callable[[int], Sized | None], figure: Callable[[Sized], float]) -> None:
        self.lower_bound, self.figure = lower_bound, figure
        self.known: dict[int, float] = {}

    def __call__(self, gpus: int) -> float:
        if gpus not in self.known:
            found = self.lower_bound(gpus)
            self.known[gpus] = np.inf if found is None else self.figure(found)
        return self.known[gpus]

    def least_work(self, gpus: int) -> float:
        """GPU-seconds that no larger number of GPUs undercuts; 0, which rules nothing out, where no layout may exist."""
        seconds = self(gpus)
        return (1.0 - SLACK) * gpus * seconds if np.isfinite(seconds) else 0.0


def _least_work_of_smaller(seconds: _LowerBound, anchors: Sequence[int], *, least: int, deadline_s: float) -> float:
    """GPU-seconds that no number of GPUs undercuts: from one anchor to the next, as long as each rules out what follows."""
    work, place = 0.0, max(bisect_right(anchors, least) - 1, 0)
    while anchors:
        work = max(work, seconds.least_work(anchors[place]))
        further = bisect_right(anchors, work, key=lambda gpus: gpus * deadline_s) - 1
        if further <= place:
            break
        place = further
    return work


def _anchors(counts: Iterator[int], is_even: Callable[[int], bool]) -> list[int]:
    """The first number, and even numbers (`is_even`) that are far enough apart."""
    anchors: list[int] = []
    for gpus in counts:
        if not anchors or (is_even(gpus) and gpus >= anchors[-1] * 2 ** (1 / ANCHORS_PER_OCTAVE)):
            anchors.append(gpus)
    return anchors
