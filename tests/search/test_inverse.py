"""Are the fewest GPUs for a deadline, and the fastest for a budget, those of a scan over all numbers?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.search.inverse import SLACK, fastest_within, fewest_gpus, node_counts

NODE = 8
PRICE = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Times of the best layout on some numbers of GPUs, lower bounds of them, and which numbers divide well."""

    times_s: Mapping[int, float]
    bounds_s: Mapping[int, float]
    even: frozenset[int]

    @property
    def most(self) -> int:
        """The largest number."""
        return max(self.bounds_s)

    @property
    def asked(self) -> dict[str, Any]:
        """What both questions ask: an option is (GPUs, time)."""
        return {
            "option": lambda gpus: (gpus, self.times_s[gpus]) if gpus in self.times_s else None,
            "lower_bound": lambda gpus: (gpus, self.bounds_s[gpus]),
            "time_s": lambda option: option[1],
            "is_even": self.even.__contains__,
            "most": self.most,
            "step": NODE,
        }


def dollars(option: tuple[int, float]) -> float:
    """What an option costs: GPU-seconds at a price."""
    return PRICE * option[0] * option[1]


@st.composite
def clusters(draw: st.DrawFn) -> Cluster:
    """GPU-seconds that grow, a little uneven on numbers that divide well and very much on others; not everything fits."""
    number = draw(st.integers(1, 60))
    numbers = range(NODE, NODE * (number + 1), NODE)
    share = st.floats(0.0, 1.0)
    work, bounds_s, times_s, even = 1e4, {}, {}, {NODE}
    for gpus in numbers:
        work *= 1.0 + 0.1 * draw(share)
        divides = gpus == NODE or draw(st.booleans())
        even |= {gpus} if divides else set()
        bounds_s[gpus] = work * (1.0 + draw(share) * (0.9 * SLACK if divides else 3.0)) / gpus
        if draw(st.integers(0, 4)):
            times_s[gpus] = bounds_s[gpus] * (1.0 + draw(st.sampled_from([0.0, 0.0, 0.2, 1.0])))
    return Cluster(times_s=times_s, bounds_s=bounds_s, even=frozenset(even))


@given(cluster=clusters(), share=st.floats(0.01, 1.5), least=st.integers(1, 200))
def test_no_fewer_gpus_keep_a_deadline(cluster: Cluster, share: float, least: int) -> None:
    """However uneven the numbers are, and where memory makes small ones slow."""
    deadline_s = share * cluster.bounds_s[NODE]
    found = fewest_gpus(**cluster.asked, deadline_s=deadline_s, least=least)
    every = [(gpus, each_s) for gpus, each_s in sorted(cluster.times_s.items()) if each_s <= deadline_s and gpus >= least]
    assert found == (every[0] if every else None)


@given(cluster=clusters(), share=st.floats(0.8, 10.0))
def test_nothing_within_a_budget_is_faster(cluster: Cluster, share: float) -> None:
    """Of all that cost no more."""
    budget = share * PRICE * NODE * cluster.bounds_s[NODE]
    found = fastest_within(**cluster.asked, cost=dollars, budget=budget, least=NODE)
    every = [(each_s, gpus) for gpus, each_s in cluster.times_s.items() if dollars((gpus, each_s)) <= budget]
    assert (found and found[1]) == (min(every)[0] if every else None)
    assert found is None or dollars(found) <= budget


def test_the_first_number_may_be_enough() -> None:
    """Nothing else is asked for then."""
    asked: list[int] = []

    def option(gpus: int) -> int:
        asked.append(gpus)
        return gpus

    assert fewest_gpus(option, time_s=lambda n: 1000 / n, deadline_s=1000.0, least=1, most=10**4, step=NODE) == NODE
    assert set(asked) == {NODE}


@pytest.mark.parametrize("deadline_s", [0.01, 0.0])
def test_a_deadline_that_no_number_keeps_has_no_answer(deadline_s: float) -> None:
    """Nor one of nothing at all."""
    assert fewest_gpus(lambda n: n, time_s=lambda n: 1000 / n, deadline_s=deadline_s, least=1, most=10**4, step=NODE) is None


def test_where_nothing_exists_there_is_no_answer() -> None:
    """No number has a layout."""
    nothing: dict[str, Any] = {"option": lambda _: None, "least": 1, "most": 800, "step": NODE, "time_s": float}
    assert fewest_gpus(**nothing, deadline_s=1.0) is None
    assert fastest_within(**nothing, cost=float, budget=1.0) is None


def test_a_budget_below_the_cheapest_pays_for_nothing() -> None:
    """One at its very price does."""
    prices: dict[str, Any] = {"time_s": lambda n: 1000 / n, "cost": lambda n: n + 100, "least": 1, "most": 800, "step": NODE}
    assert fastest_within(lambda n: n, **prices, budget=107.0) is None
    assert fastest_within(lambda n: n, **prices, budget=108.0) == NODE


def test_few_numbers_are_searched() -> None:
    """Of a thousand nodes whose GPU-hours grow evenly, some sixty to know the fewest."""
    asked: list[int] = []

    def option(gpus: int) -> int:
        asked.append(gpus)
        return gpus

    found = fewest_gpus(option, time_s=lambda n: 1e6 / n**0.9, deadline_s=1e3, least=1, most=8 * 1000, step=NODE)
    assert found == 2160  # 1000^(1/0.9) = 2154.4
    assert len(set(asked)) < 65


@pytest.mark.parametrize("step", [1, 8, 72])
def test_numbers_to_choose_from_are_whole_nodes(step: int) -> None:
    """In rising order, all of them while they are few, never more than a hundredth apart beyond."""
    counts = list(node_counts(least=1, most=step * 5000, step=step))
    assert counts[:256] == [step * nodes for nodes in range(1, 257)]
    assert all(each % step == 0 for each in counts)
    assert all(0 < later - each <= max(0.01 * each, step) for each, later in pairwise(counts))
    assert counts[-1] <= step * 5000
