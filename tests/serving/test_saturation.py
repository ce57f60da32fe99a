"""Does a number of a server move with the bytes of its cache as the law says that it does?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from perfmodel.count.serving.memory import serving_memory
from perfmodel.exchange.questions.serving.served_models import serving_setup
from perfmodel.serving.intervals import value_uncertainty
from perfmodel.serving.law import ServedLoad, served_load, static_batch
from perfmodel.serving.saturation import cache_ends, with_cache
from perfmodel.spec.evidence.run_evidence import Discrepancy
from perfmodel.spec.evidence.spread import with_numbers
from perfmodel.spec.serving.loads import E2E, MEMORY, REQUESTS, TOKENS, TPOT, TTFT
from perfmodel.spec.serving.setup import Request, ServingSetup

REQUEST = Request(input_tokens=1000.0, output_tokens=500.0)
FULL = serving_setup("llama-3.1-70b", gpu="h100-nvl-94gb", precision="fp8")  # 13 GB are left for its cache


def value(load: ServedLoad, metric: str) -> float:
    """The number of a load."""
    values = {TTFT: load.ttft_s, TPOT: load.tpot_s, E2E: load.e2e_s, TOKENS: load.tokens_per_s, REQUESTS: load.tokens_per_s}
    return float(values[metric])


def holding(setup: ServingSetup, ratio: float) -> ServingSetup:
    """The server with so much of its cache."""
    memory = setup.engine.memory
    less = (1.0 - ratio) * serving_memory(setup).cache_bytes
    sizes = with_numbers(memory, {"fixed_bytes": memory.fixed_bytes + less})
    return replace(setup, engine=with_numbers(setup.engine, {"memory": sizes}))


@pytest.mark.parametrize("metric", [TTFT, TPOT, E2E, TOKENS])
@pytest.mark.parametrize("clients", [1.0, 64.0])
def test_the_same_cache_gives_the_same_number(metric: str, clients: float) -> None:
    """Far below its limit, and far past it."""
    load = served_load(FULL, REQUEST, clients)
    assert float(with_cache(FULL, load, value(load, metric), metric, 1.0)) == pytest.approx(value(load, metric))


@pytest.mark.parametrize("metric", [TTFT, TPOT, E2E, TOKENS])
@pytest.mark.parametrize("ratio", [0.5, 1.5])
def test_a_full_server_moves_as_one_with_that_cache(metric: str, ratio: float) -> None:
    """Within 5 % of the law on a server that holds so much, in which only whole sequences fit."""
    load = served_load(FULL, REQUEST, 64.0)
    other = served_load(holding(FULL, ratio), REQUEST, 64.0)
    assert abs(np.log(value(other, metric) / value(load, metric))) > 0.02
    assert float(with_cache(FULL, load, value(load, metric), metric, ratio)) == pytest.approx(value(other, metric), rel=0.05)


def test_few_clients_do_not_feel_the_limit() -> None:
    """One client on a cache of twice the size, or of nine tenths."""
    load = served_load(FULL, REQUEST, 1.0)
    for metric in (TTFT, TPOT, E2E, TOKENS):
        moved = with_cache(FULL, load, value(load, metric), metric, np.array([0.9, 2.0]))
        assert moved == pytest.approx(value(load, metric))


def test_an_answer_of_one_token_has_no_time_between_tokens_with_any_cache() -> None:
    """GPT-3 175B on one B200, into whose cache few prompts fit."""
    setup = serving_setup("gpt-3-175b", gpu="b200", engine="reference", precision="fp8")
    load = served_load(setup, Request(input_tokens=100.0, output_tokens=1.0), 64.0)
    assert np.all(with_cache(setup, load, 0.0, TPOT, np.array([0.5, 1.0, 2.0])) == 0.0)


def test_a_client_more_than_fit_waits() -> None:
    """Just below the limit, a smaller cache makes some wait: latency grows, time between tokens does not."""
    fits = float(served_load(FULL, REQUEST, 1.0).fits)
    load = served_load(FULL, REQUEST, fits)
    moved = {
        each: float(with_cache(FULL, load, value(load, each), each, 0.5)) / value(load, each) for each in (TTFT, TPOT, E2E)
    }
    assert moved[TTFT] > 2.0
    assert moved[E2E] > 1.2
    assert moved[TPOT] < 1.0


def test_end_to_end_stays_ttft_and_the_other_tokens() -> None:
    """E2E' = TTFT' + (O - 1) * TPOT' with any cache."""
    load = served_load(FULL, REQUEST, 64.0)
    for ratio in (0.6, 1.4):
        ttft, tpot, e2e = (float(with_cache(FULL, load, value(load, each), each, ratio)) for each in (TTFT, TPOT, E2E))
        assert e2e == pytest.approx(ttft + 499 * tpot)


def test_a_larger_cache_serves_no_less() -> None:
    """Throughput grows with the cache, latency falls, until all that the engine admits run."""
    load, ratios = served_load(FULL, REQUEST, 64.0), np.array([0.05, 0.5, 1.0, 2.0, 1e6])
    assert np.all(np.diff(with_cache(FULL, load, load.tokens_per_s, TOKENS, ratios)) >= 0)
    assert np.all(np.diff(with_cache(FULL, load, load.e2e_s, E2E, ratios)) <= 0)
    assert np.all(with_cache(FULL, load, load.ttft_s, TTFT, ratios) > 0)


def test_no_cache_leaves_a_place_for_one() -> None:
    """Nothing is negative or without an end, of a static batch neither."""
    for load in (served_load(FULL, REQUEST, 64.0), static_batch(FULL, REQUEST, 64.0)):
        for metric in (TTFT, TPOT, E2E, TOKENS):
            moved = with_cache(FULL, load, value(load, metric), metric, np.array([-1.0, 0.0, 1e9]))
            assert np.all(np.isfinite(moved) & (moved > 0))


def test_each_uncertain_size_moves_the_cache_by_its_bytes() -> None:
    """Twice the bytes that are fixed are so many fewer of the cache; sizes that take none have no ends."""
    memory, cache = FULL.engine.memory, serving_memory(FULL).cache_bytes
    ends = cache_ends(FULL)
    less = float(memory.fixed_bytes * memory.spread["fixed_bytes"] / cache)
    assert ends["engine.memory.fixed_bytes"][0] == pytest.approx(1.0 - less)
    assert ends["engine.memory.fixed_bytes"][1] == pytest.approx(1.0 + less / (1.0 + memory.spread["fixed_bytes"]))
    assert "engine.memory.group_bytes" not in ends  # of one GPU
    assert "engine.memory.state_number_bytes" not in ends


def test_a_full_server_is_less_sure_than_one_at_rest() -> None:
    """The sizes of its engine are in the interval of its latency and its throughput, and in that of nobody's memory."""
    at_rest, full = (served_load(FULL, REQUEST, clients) for clients in (1.0, 64.0))
    path = "engine.memory.fixed_bytes"

    def share(load: ServedLoad, metric: str, number: float) -> float:
        found = value_uncertainty(FULL, load, number, metric, Discrepancy())
        return float(found.half_widths_s.get(path, 0.0)) / number

    assert share(at_rest, E2E, value(at_rest, E2E)) == 0.0
    assert share(full, E2E, value(full, E2E)) > 0.01
    assert share(full, TOKENS, value(full, TOKENS)) > 0.01
    assert share(full, MEMORY, 79.0) == 0.0
