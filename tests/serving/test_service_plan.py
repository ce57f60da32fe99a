"""Which servers keep a promise: the equations of a plan against its forecasts, one by one."""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np
import pytest

import perfmodel as pm
from perfmodel.serving.service_plan import ServerOption, rounded_up
from perfmodel.timing.uncertainty import Estimate

GPUS = "h100-sxm-80gb,h200-sxm-141gb"
PROMISE = {"requests_per_s": 10, "ttft": "1s", "tpot": "25ms", "input_tokens": 2000, "output_tokens": 400}


def planned(model: str = "llama-3.1-8b", **changed: Any) -> pm.ServerPlan:
    """A plan of a small service."""
    return pm.plan_service(model, **{"gpu": GPUS, **PROMISE, **changed})


def forecast_at(option: ServerOption, clients: int) -> tuple[Estimate, Estimate, Estimate]:
    """TTFT, TPOT and E2E that `infer` says of the replica of an option."""
    choice = option.choice
    (found,) = pm.infer(
        "llama-3.1-8b",
        gpu=choice.gpu,
        precision=choice.precision,
        tensor_parallel=choice.tensor_parallel,
        input_tokens=2000,
        output_tokens=400,
        concurrency=clients,
    )
    medians = {"ttft_s": found.load.ttft_s, "tpot_s": found.load.tpot_s, "e2e_s": found.load.e2e_s}
    ttft, tpot, e2e = (
        Estimate(median=float(np.ravel(value)[0]), low=float(np.ravel(low)[0]), high=float(np.ravel(high)[0]))
        for value, (low, high) in zip(medians.values(), (found.intervals[name] for name in medians), strict=True)
    )
    return ttft, tpot, e2e


def test_odds_are_those_of_the_forecasts_at_the_concurrency_of_a_replica() -> None:
    """P(TTFT) times the lesser of P(TPOT) and P(N replicas answer the rate), from intervals that `infer` gives."""
    for option in planned().options:
        ttft, tpot, e2e = forecast_at(option, option.concurrency)
        enough = e2e.probability_at_most(option.concurrency * option.replicas / 10)
        wanted = ttft.probability_at_most(1.0) * np.minimum(tpot.probability_at_most(0.025), enough)
        assert option.odds == pytest.approx(float(wanted), rel=1e-6)
        assert option.odds >= 0.9


def test_one_replica_fewer_keeps_it_at_no_concurrency() -> None:
    """The number of replicas is the least, over every number of requests at once."""
    option = next(each for each in planned(requests_per_s=60).options if each.replicas > 1)
    for clients in range(1, 4 * option.concurrency, 7):
        ttft, tpot, e2e = forecast_at(option, clients)
        enough = e2e.probability_at_most(clients * (option.replicas - 1) / 60)
        odds = ttft.probability_at_most(1.0) * np.minimum(tpot.probability_at_most(0.025), enough)
        assert float(odds) < 0.9


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_of_options_as_cheap_and_as_sure_the_faster_token_comes_first(engine: str) -> None:
    """Odds beyond 99 % differ by what nobody can know."""
    orders = []
    for rate in (10, 15):
        options = planned(gpu="h200-sxm-141gb", precision="bf16,fp8", engine=engine, requests_per_s=rate).options
        ranks = [(option.cost, -min(option.odds, 0.99), float(np.ravel(option.tpot.median)[0])) for option in options]
        assert ranks == sorted(ranks)
        orders.append([option.odds for option, rank in zip(options, ranks, strict=True) if rank[:2] == ranks[0][:2]])
    assert any(odds != sorted(odds, reverse=True) for odds in orders)


def test_even_odds_take_the_medians() -> None:
    """With a confidence of one half and no limits, N = ceil(R * E(C) / C) of the fullest replica."""
    plan = planned(ttft=None, tpot=None, confidence="50%", requests_per_s=300, tensor_parallel=1, gpu="h100-sxm-80gb")
    assert plan.best is not None
    (found,) = pm.infer("llama-3.1-8b", gpu="h100-sxm-80gb", input_tokens=2000, output_tokens=400, concurrency="max")
    tokens_per_s = float(np.ravel(found.load.tokens_per_s)[0])
    assert plan.best.replicas == ceil(300 * 400 / tokens_per_s)


def test_options_are_ranked_by_gpus_or_by_dollars() -> None:
    """A price of one kind of GPU moves it down; the cost of a million tokens follows from the GPUs."""
    plain = planned(requests_per_s=200)
    gpus = [each.gpus for each in plain.options]
    assert gpus == sorted(gpus)
    assert plain.best is not None
    first = plain.best.choice.gpu
    other = next(name for name in GPUS.split(",") if name != first)
    dear = planned(requests_per_s=200, price={first: 50.0, other: 1.0})
    assert dear.best is not None
    assert dear.best.choice.gpu == other
    cost = dear.best.dollars_per_million_tokens
    assert cost == pytest.approx(dear.best.gpus * 1.0 / 3600 / (200 * 400) * 1e6)


def test_more_confidence_or_closer_limits_never_take_fewer_gpus() -> None:
    """Monotonic in each of them."""
    for key, values in (("confidence", (0.5, 0.8, 0.95)), ("tpot", (0.04, 0.02, 0.012)), ("requests_per_s", (1, 40, 400))):
        plans = [planned("llama-3.1-8b", **{key: value}) for value in values]
        gpus = [each.best.gpus for each in plans if each.best is not None]
        assert gpus == sorted(gpus)
        assert len(gpus) == 3


def test_what_is_rejected_says_what_it_lacks_and_its_limits_would_be_kept() -> None:
    """Memory, a latency, GPUs, a node; the suggested limits are kept by the very choice."""
    plan = planned("llama-3.1-70b", ttft="60ms", tpot="12ms", tensor_parallel="1,8", requests_per_s=1)
    assert plan.best is None
    assert {each.lack for each in plan.rejected} == {"memory", "ttft"}
    nearest = plan.nearest
    assert nearest is not None
    relaxed = planned(
        "llama-3.1-70b",
        ttft=rounded_up(nearest.ttft_s),
        tpot=rounded_up(nearest.tpot_s),
        tensor_parallel="8",
        requests_per_s=1,
        gpu=nearest.choice.gpu,
    )
    assert relaxed.best is not None
    few = planned(requests_per_s=500, most_gpus=2)
    assert {each.lack for each in few.rejected} == {"gpus"}
    assert few.nearest is not None
    assert planned(requests_per_s=500, most_gpus=few.nearest.gpus).best is not None


def test_a_choice_that_cannot_be_has_its_reason() -> None:
    """Two GPUs of a node that has one."""
    plan = planned(gpu="gh200-96gb", tensor_parallel="1,2")
    assert [each.choice.refusal for each in plan.rejected] == ["2 GPUs are more than the 1 of one node"]
