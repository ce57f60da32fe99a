"""How many GPUs: the fewest that meet a deadline, the fastest that a budget pays for.

Symbols: n GPUs, T(n) the time of the best layout on n, F(n) <= T(n) a floor that is found faster (the same without a limit of
memory), W(n) = n * F(n) the GPU-seconds of the floor.

How well a number of GPUs divides decides much: with a batch of 1,152, nothing is fast on 147 nodes and much is on 144. So every
number of nodes is a candidate (up to 256; then every second, from 512 on every fourth ..), and is refuted by its own floor, or
by a smaller number that divides well (`is_even`).

Assumed: W(n) is at least (1 - SLACK) times W of any smaller even number, as more GPUs communicate more. Where that is wrong an
answer may be missed; tests/planning/test_sizing.py searches all numbers of nodes of a cluster and finds none.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

import numpy as np

Option = TypeVar("Option")
SLACK: Final = 0.05
WHOLE: Final = 8  # bits: so many numbers of nodes are told apart, 128 to 256 an octave
ANCHORS: Final = 8  # even numbers an octave whose floor is looked at


def node_counts(*, least: int, most: int, step: int) -> Iterator[int]:
    """Numbers of GPUs to choose from: whole nodes of `step`, of which large clusters leave some out.

    >>> list(node_counts(least=10, most=40, step=8)), list(node_counts(least=600, most=606, step=1))
    ([16, 24, 32, 40], [600, 604])
    """
    nodes = max(-(-least // step), 1)
    while nodes * step <= most:
        stride = 1 << max(nodes.bit_length() - WHOLE, 0)
        nodes = -(-nodes // stride) * stride
        if nodes * step <= most:
            yield nodes * step
        nodes += stride


def fewest_gpus(
    option: Callable[[int], Option | None],
    *,
    time_s: Callable[[Option], float],
    deadline_s: float,
    least: int,
    most: int,
    step: int,
    floor: Callable[[int], Option | None] | None = None,
    is_even: Callable[[int], bool] = lambda _: True,
) -> Option | None:
    """The option on the fewest GPUs, in multiples of `step`, whose time is at most the deadline; None where there is none.

    An even number that keeps it is found first, then what is below; who stops the search has that one. Each number is asked for
    more than once: `option` and `floor` remember.

    >>> found = fewest_gpus(lambda n: n, time_s=lambda n: 1000 / n, deadline_s=10.0, least=8, most=800, step=4)
    >>> found
    100
    """
    seconds = _Floor(floor or option, time_s)
    anchors = _anchors(node_counts(least=step, most=most, step=step), is_even)
    work = _work_of_the_refuted(seconds, anchors, least=least, deadline_s=deadline_s)

    def keeps(gpus: int) -> Option | None:
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
    option: Callable[[int], Option | None],
    *,
    time_s: Callable[[Option], float],
    cost: Callable[[Option], float],
    budget: float,
    least: int,
    most: int,
    step: int,
    floor: Callable[[int], Option | None] | None = None,
    is_even: Callable[[int], bool] = lambda _: True,
) -> Option | None:
    """The fastest option that costs at most the budget, in multiples of `step`; None where there is none.

    The largest even number whose floor costs no more is looked at first, then from the largest number down.

    >>> prices = {"time_s": lambda n: 1 + 1000 / n, "cost": lambda n: n + 100}
    >>> fastest_within(lambda n: n, **prices, budget=300, least=8, most=800, step=4)
    200
    """
    seconds, dollars = _Floor(floor or option, time_s), _Floor(floor or option, cost)
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


class _Floor:
    """What some number of GPUs takes, or costs, at least; infinity where no layout can exist. Each is asked once."""

    def __init__(self, floor: Callable[[int], Option | None], figure: Callable[[Option], float]) -> None:
        self.floor, self.figure = floor, figure
        self.known: dict[int, float] = {}

    def __call__(self, gpus: int) -> float:
        if gpus not in self.known:
            found = self.floor(gpus)
            self.known[gpus] = np.inf if found is None else self.figure(found)
        return self.known[gpus]

    def least_work(self, gpus: int) -> float:
        """GPU-seconds that no larger number undercuts; 0, which refutes nothing, where no layout exists."""
        seconds = self(gpus)
        return (1.0 - SLACK) * gpus * seconds if np.isfinite(seconds) else 0.0


def _work_of_the_refuted(seconds: _Floor, anchors: Sequence[int], *, least: int, deadline_s: float) -> float:
    """GPU-seconds that nothing undercuts, from anchor to anchor as long as each refutes the next."""
    work, place = 0.0, max(bisect_right(anchors, least) - 1, 0)
    while anchors:
        work = max(work, seconds.least_work(anchors[place]))
        further = bisect_right(anchors, work, key=lambda gpus: gpus * deadline_s) - 1
        if further <= place:
            break
        place = further
    return work


def _anchors(counts: Iterator[int], is_even: Callable[[int], bool]) -> list[int]:
    """Even numbers, not too close to each other; the first in any case."""
    anchors: list[int] = []
    for gpus in counts:
        if not anchors or (is_even(gpus) and gpus >= anchors[-1] * 2 ** (1 / ANCHORS)):
            anchors.append(gpus)
    return anchors
