"""How many GPUs: the fewest that meet a deadline, the most that a budget pays for.

Symbols: n GPUs, T(n) the time of the best layout on n, W(n) = n * T(n) its GPU-seconds.

W grows with n: more GPUs communicate more. So from below n * T(n) / D = W(n) / D never passes the fewest that meet a
deadline D: the search goes from there to there and then node by node. Divisors make W uneven; for that the
steps stop `SLACK` short.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

Option = TypeVar("Option")
SLACK: Final = 0.03


def fewest_gpus(
    option: Callable[[int], Option | None],
    *,
    time_s: Callable[[Option], float],
    deadline_s: float,
    least: int,
    most: int,
    step: int,
) -> Option | None:
    """The option on the fewest GPUs, in multiples of `step`, whose time is at most the deadline; None where there is none.

    >>> found = fewest_gpus(lambda n: n, time_s=lambda n: 1000 / n, deadline_s=10.0, least=8, most=800, step=4)
    >>> found
    100
    """
    gpus = max(-(-least // step), 1) * step
    while gpus <= most:
        found = option(gpus)
        if found is not None and time_s(found) <= deadline_s:
            return found
        aim = 0.0 if found is None else gpus * time_s(found) / deadline_s * (1.0 - SLACK)
        gpus = max(gpus + step, int(aim // step) * step)
    return None


def most_gpus(
    option: Callable[[int], Option | None],
    *,
    cost: Callable[[Option], float],
    budget: float,
    least: int,
    most: int,
    step: int,
) -> list[Option]:
    """Options within the budget, found by doubling and then halving the gap; empty where even the cheapest costs more.

    >>> max(most_gpus(lambda n: n, cost=lambda n: n + 100, budget=300, least=8, most=800, step=4))
    200
    """
    within: list[Option] = []
    low, high = 0, 0
    gpus = max(-(-least // step), 1) * step
    while gpus <= most:
        found = option(gpus)
        if found is not None and cost(found) > budget:
            high = gpus
            break
        if found is not None:
            within.append(found)
            low = gpus
        gpus = 2 * gpus if found is not None else gpus + step
    high = high or most + step
    while within and high - low > step:
        middle = max((low + high) // 2 // step * step, low + step)
        size, found = middle, option(middle)
        while found is None and size + step < high:
            size += step
            found = option(size)
        if found is not None and cost(found) <= budget:
            within.append(found)
            low = size
        else:
            high = middle
    return within
