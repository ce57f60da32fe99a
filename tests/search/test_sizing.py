"""Do a deadline and a budget get the number of GPUs that a search of every number of nodes finds?"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Any

import pytest

from perfmodel.exchange.questions.plan_arguments import read_plan_request
from perfmodel.search import inverse
from perfmodel.search.option import SizeOption, lower_bound_search, sized_search
from perfmodel.search.plan import Plan, plan
from perfmodel.search.question import PlanQuestion
from perfmodel.search.sizing import Sizing, least_gpus
from tests.search.small_plans import SMALL

pytestmark = pytest.mark.slow

NODE, MOST = 8, 128
PRICE = 2.0
FEW = {"recompute": "none,full", "context_parallel": 1, "sequence_parallel": True}
BATCHES = (96, None)  # one that few numbers of nodes divide, and one that may be rounded


def question(batch: int | None, **limits: Any) -> PlanQuestion:
    """What is asked of the small model."""
    wanted: dict[str, Any] = {"cluster": "dgx-h100", "stack": "megatron-core", "sequence_length": 2048, "tokens": "200B"}
    wanted |= {"global_batch_size": batch, "economics": {"dollars_per_gpu_hour": PRICE}, "choose": FEW}
    return read_plan_request(SMALL, **(wanted | (limits or {"gpus": NODE}))).question


@cache
def every_number(batch: int | None) -> dict[int, SizeOption]:
    """The option on every number of nodes that has one."""
    asking = question(batch)
    return {gpus: option for gpus in range(NODE, MOST + 1, NODE) if (option := searched(asking, gpus)) is not None}


def searched(asking: PlanQuestion, gpus: int) -> SizeOption | None:
    """The option on one number of GPUs."""
    return sized_search(asking, gpus, workers=None, on_progress=lambda _: None).option


def planned(batch: int | None, **limits: Any) -> Plan:
    """The plan, within the same clusters."""
    return plan(question(batch, **limits), (), most_gpus=MOST)


@pytest.mark.parametrize("batch", BATCHES)
def test_no_fewer_gpus_keep_a_deadline(batch: int | None) -> None:
    """Of all numbers of nodes the fewest; a deadline that nothing keeps has no plan."""
    options = every_number(batch)
    times = sorted(option.calendar_days for option in options.values())
    for days in (1.001 * times[0], times[len(times) // 2], 0.999 * times[-1]):
        fewest = min(gpus for gpus, option in options.items() if option.calendar_days <= days)
        found = planned(batch, deadline=f"{days!r}d")
        assert found.best is not None
        assert found.best.gpus == fewest
        assert found.best.calendar_days == options[fewest].calendar_days
    late = planned(batch, deadline=f"{0.99 * times[0]!r}d")
    assert late.best is None
    assert late.options


@pytest.mark.parametrize("batch", BATCHES)
def test_none_is_faster_within_a_budget(batch: int | None) -> None:
    """Of all numbers of nodes that cost as little the fastest; a budget below the cheapest has no plan."""
    options = every_number(batch)
    costs = sorted(option.dollars or 0.0 for option in options.values())
    for budget in (1.001 * costs[0], costs[len(costs) // 2], 2 * costs[-1]):
        fastest = min(option.calendar_days for option in options.values() if (option.dollars or 0.0) <= budget)
        found = planned(batch, budget=budget)
        assert found.best is not None
        assert found.best.calendar_days == fastest
        assert (found.best.dollars or 0.0) <= budget
    dear = planned(batch, budget=0.98 * costs[0])
    assert dear.best is None
    assert dear.options


@pytest.mark.parametrize("batch", BATCHES)
def test_what_the_search_assumes(batch: int | None) -> None:
    """No option beats its lower bound, and GPU-hours do not fall below those of a smaller even number, but for the slack."""
    asking = question(batch)
    sizing = Sizing(asking, most=MOST, workers=None)
    highest = 0.0
    for gpus, option in every_number(batch).items():
        least = lower_bound_search(asking, gpus, workers=None, on_progress=lambda _: None).option
        assert least is not None
        assert least.calendar_days <= option.calendar_days
        assert gpus * least.calendar_days >= (1 - inverse.SLACK) * highest
        if sizing.is_even(gpus):
            highest = max(highest, gpus * least.calendar_days)


def test_more_gpus_are_looked_at_too() -> None:
    """Beside the fewest, what half as many again and twice as many would do; beside the fastest, what fewer would."""
    sooner = planned(96, deadline="2d")
    assert sooner.best is sooner.by_gpus
    assert len(sooner.allowed) >= 3
    assert sooner.by_time is not sooner.best
    budget = 1.3 * min(option.dollars or 0.0 for option in every_number(96).values())
    cheaper = planned(96, budget=budget)
    assert cheaper.best is cheaper.by_time
    assert cheaper.by_cost is not cheaper.best
    assert all((option.dollars or 0.0) <= budget for option in cheaper.allowed)


def test_both_limits() -> None:
    """The fewest that keep the deadline, where they cost no more than the budget."""
    options = every_number(96)
    fewest = min(gpus for gpus, option in options.items() if option.calendar_days <= 2)
    cost = options[fewest].dollars or 0.0
    found = planned(96, deadline="2d", budget=1.01 * cost)
    assert found.best is not None
    assert found.best.gpus == fewest
    assert planned(96, deadline="2d", budget=0.9 * min(option.dollars or 0.0 for option in options.values())).best is None


def test_a_ramp_has_one_number_for_all_its_stages() -> None:
    """The fewest on which all of it keeps the deadline."""
    ramp = {"tokens": None, "ramp": "32:10B, 96:90B"}
    asking = question(None, **ramp, gpus=NODE)
    numbers = range(NODE, 97, NODE)
    days = {gpus: option.calendar_days for gpus in numbers if (option := searched(asking, gpus)) is not None}
    limit = sorted(days.values())[2]
    found = planned(None, **ramp, deadline=f"{limit!r}d")
    assert found.best is not None
    assert found.best.gpus == min(gpus for gpus, taken in days.items() if taken <= limit)


def test_even_the_peak_rate_is_too_slow() -> None:
    """Then nothing is searched."""
    found = planned(96, deadline="1s")
    assert least_gpus(found.question) > MOST
    assert (found.searches, found.best, found.obstacle) == ((), None, None)


def test_whole_nodes() -> None:
    """Every number of them up to 256; of larger clusters at least 128 numbers an octave."""
    counts = list(inverse.node_counts(least=1, most=8 * 4096, step=8))
    assert counts[:256] == list(range(8, 8 * 257, 8))
    for low in (256, 512, 1024, 2048):
        assert sum(8 * low <= gpus < 16 * low for gpus in counts) == 128
    assert all(after - before <= before / 64 for before, after in pairwise(counts[200:]))
