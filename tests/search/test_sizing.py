"""Do a deadline and a budget get the number of GPUs that a search of every number of nodes finds?"""

from __future__ import annotations

from functools import cache, partial
from itertools import pairwise
from typing import Any

import pytest

from perfmodel.exchange.questions.plan_arguments import read_plan_request
from perfmodel.search import inverse
from perfmodel.search.alternatives import candidate_prediction
from perfmodel.search.option import SizeOption, lower_bound_search, sized_search
from perfmodel.search.plan import Plan, plan
from perfmodel.search.question import PlanQuestion
from perfmodel.search.sizing import CLOSER, Sizing, least_gpus, least_left
from tests.search.small_plans import SMALL

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("known_searches")]

NODE, MOST = 8, 128
MET_BY_MEDIAN = 24  # GPUs that keep a deadline by their median; neither they nor others that a plan shows anyway do at 90 %
PAID_BY_MEDIAN = 48  # the same of a budget
PRICE = 2.0
FEW = {"recompute": "none,full", "context_parallel": 1, "sequence_parallel": True}
BATCHES = (96, None)  # one that few numbers of nodes divide, and one that may be rounded
CASES = [*((batch, 0.9) for batch in BATCHES), (96, 0.5)]


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


@pytest.mark.parametrize(("batch", "confidence"), CASES)
def test_no_fewer_gpus_keep_a_deadline(batch: int | None, confidence: float) -> None:
    """Of all numbers of nodes the fewest that do with these odds; a deadline that nothing keeps has no plan."""
    options = every_number(batch)
    days = {gpus: option.calendar_days_at(confidence) for gpus, option in options.items()}
    times = sorted(days.values())
    by_its_median = 1.005 * options[MET_BY_MEDIAN].calendar_days
    for limit in (1.001 * times[0], times[len(times) // 2], 0.999 * times[-1], by_its_median):
        fewest = min(gpus for gpus, taken in days.items() if taken <= limit)
        found = planned(batch, deadline=f"{limit!r}d", confidence=confidence)
        assert found.best is not None
        assert found.best.gpus == fewest
        assert found.best.calendar_days == options[fewest].calendar_days
        assert (found.best.deadline_probability or 0.0) >= confidence - 1e-12
        smaller = max((gpus for gpus in options if gpus < fewest), default=None)
        if smaller is not None:
            odds = options[smaller].odds
            assert odds is not None
            assert float(odds.days.probability_at_most(limit)) < confidence
    late = planned(batch, deadline=f"{0.99 * times[0]!r}d", confidence=confidence)
    assert late.best is None
    assert late.options


def test_the_surest_of_nearly_as_fast_layouts() -> None:
    """A bound that no layout undercuts at 90 % whose median is within the share: the least of all of them one by one."""
    option = every_number(None)[48]
    (work,), (result,) = option.workloads, option.results
    near = [each for each in result.fastest if each.iteration_time_s <= 1.05 * result.fastest[0].iteration_time_s]
    times = [float(candidate_prediction(each, work).estimate_s.quantile(0.9)) for each in near]
    assert len(set(times)) > 1
    ratio = min(times) / float(option.predictions[0].estimate_s.quantile(0.9))
    found = float(option.surest_odds(0.9, within=0.05).days.quantile(0.9)) / option.calendar_days_at(0.9)
    assert found == pytest.approx(ratio, rel=1e-3)
    assert found <= 1.0


def test_what_a_lower_bound_leaves() -> None:
    """CLOSER less than its figure, no less than its median above even odds; the surest where that decides."""
    asked: list[float] = []

    def surest() -> float:
        asked.append(9.95)
        return 9.95

    left = partial(least_left, surest=surest)
    assert left(sure=10.0, median=9.9, limit=None) == left(sure=10.0, median=9.9, limit=9.8) == 9.9
    assert left(sure=10.0, median=9.0, limit=10.0) == left(sure=10.0, median=11.0, limit=9.7) == (1 - CLOSER) * 10.0
    assert not asked
    assert left(sure=10.0, median=9.0, limit=9.85) == 9.95
    assert asked == [9.95]


def test_more_confidence_takes_more_gpus() -> None:
    """A deadline that a number of GPUs keeps by its median alone asks for more of them with odds of nine in ten."""
    limit = 1.001 * every_number(96)[32].calendar_days
    fewest = [planned(96, deadline=f"{limit!r}d", confidence=each).best for each in (0.5, 0.9)]
    gpus = [each.gpus for each in fewest if each is not None]
    assert len(gpus) == 2
    assert gpus[0] == 32 < gpus[1]


@pytest.mark.parametrize(("batch", "confidence"), CASES)
def test_none_is_faster_within_a_budget(batch: int | None, confidence: float) -> None:
    """Of all numbers of nodes that cost as little with these odds the fastest; a budget below the cheapest has no plan."""
    options = every_number(batch)
    dollars = {gpus: option.dollars_at(confidence) or 0.0 for gpus, option in options.items()}
    costs = sorted(dollars.values())
    by_its_median = 1.005 * (options[PAID_BY_MEDIAN].dollars or 0.0)
    for budget in (1.001 * costs[0], costs[len(costs) // 2], 2 * costs[-1], by_its_median):
        fastest = min(option.calendar_days for gpus, option in options.items() if dollars[gpus] <= budget)
        found = planned(batch, budget=budget, confidence=confidence)
        assert found.best is not None
        assert found.best.calendar_days == fastest
        assert (found.best.dollars_at(confidence) or 0.0) <= budget
    dear = planned(batch, budget=0.98 * costs[0], confidence=confidence)
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
        assert (1 - CLOSER) * least.calendar_days_at(0.9) <= option.calendar_days_at(0.9)
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
    assert all((option.dollars_at(0.9) or 0.0) <= budget for option in cheaper.allowed)


def test_both_limits() -> None:
    """The fewest that keep the deadline, where they cost no more than the budget; both with the odds that are asked for."""
    options = every_number(96)
    fewest = min(gpus for gpus, option in options.items() if option.calendar_days_at(0.9) <= 2)
    cost = options[fewest].dollars_at(0.9) or 0.0
    found = planned(96, deadline="2d", budget=1.01 * cost)
    assert found.best is not None
    assert found.best.gpus == fewest
    assert planned(96, deadline="2d", budget=0.9 * min(option.dollars or 0.0 for option in options.values())).best is None


def test_a_ramp_has_one_number_for_all_its_stages() -> None:
    """The fewest on which all of it keeps the deadline."""
    ramp = {"tokens": None, "ramp": "32:10B, 96:90B"}
    asking = question(None, **ramp, gpus=NODE)
    numbers = range(NODE, 97, NODE)
    days = {gpus: each.calendar_days_at(0.9) for gpus in numbers if (each := searched(asking, gpus)) is not None}
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
