"""Is a better server ever slower, is a longer request ever faster, and is a curve what its points are one by one?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.count.serving.memory import cache_tokens, concurrency_that_fits, longest_context, serving_memory
from perfmodel.exchange.measured.serving_evidence import serving_evidence
from perfmodel.serving.forecast import LATENCIES, serving_forecast
from perfmodel.serving.law import ServedLoad, served_load, static_batch
from perfmodel.spec.evidence.spread import with_numbers
from perfmodel.spec.fields import Numeric
from perfmodel.spec.machines.hardware import Cluster
from perfmodel.spec.serving.setup import Request, ServingSetup
from perfmodel.timing.serving.forward_pass import PARTS
from tests.properties.depth import examples
from tests.properties.servers import DrawnServer, on, servers, with_gpu
from tests.properties.test_hardware import (
    faster_clocks,
    faster_links,
    faster_memory,
    healthier_links,
    higher_peaks,
    larger_cache,
)

FACTORS: Final = np.array([1.0, 1.05, 1.5, 4.0, 30.0])
CLIENTS: Final = (1, 3, 16, 200, 5000)
ROUNDING: Final = 1e-9
DIGITS: Final = 15  # femtoseconds: what rounding leaves of no time at all is less
WAVE: Final = 0.05
POWER: Final = 0.1  # what products long enough to meet the power limit take more
TRACE: Final = 0.01
Law = Callable[[ServingSetup, Request, Numeric], ServedLoad]


def rises(values: Numeric | Sequence[float], within: float = ROUNDING) -> bool:
    """Whether each value is at least the one before it, up to a share of that."""
    every = np.atleast_1d(np.asarray(values, dtype=float))
    return bool(np.all(np.diff(every) >= -within * np.abs(every[:-1])))


@pytest.mark.parametrize("better", [faster_memory, higher_peaks, faster_clocks, faster_links, healthier_links, larger_cache])
@examples(15)
@given(drawn=servers(), clients=st.sampled_from(CLIENTS))
def test_better_hardware_is_never_slower(better: Callable[..., Cluster], drawn: DrawnServer, clients: int) -> None:
    """Whole requests and tokens a second, of few clients and of more than fit; of one client also TTFT and TPOT.

    Of several, what is waited for before the first token may move behind it: faster prompts leave a queue that is shorter for
    both, and TPOT is what TTFT leaves of the whole.
    """
    loads = [load_of(on(drawn.setup, better(drawn.setup.cluster, float(times))), drawn.request, clients) for times in FACTORS]
    for metric in ("ttft_s", "tpot_s", "e2e_s") if clients == 1 else ("e2e_s",):
        values = np.round([float(getattr(load, metric)) for load in loads], DIGITS)
        assert rises(-values), (metric, values.tolist())
    assert rises([float(load.tokens_per_s) for load in loads])


def load_of(setup: ServingSetup, request: Request, clients: float) -> ServedLoad:
    """A closed loop of some clients."""
    return served_load(setup, request, float(clients))


@examples(40)
@given(drawn=servers(), clients=st.sampled_from(CLIENTS))
def test_more_memory_holds_more_and_serves_no_less(drawn: DrawnServer, clients: int) -> None:
    """Tokens in the cache, the longest context, sequences at once, and tokens a second of any number of clients.

    A token may come later: the server then runs more sequences at once, and each waits for the others. The last wave of a
    product may be less full of more of them, and a pass that reads many prompts at once meets the power limit: 16 of 30,000
    tokens take 6.8 % longer so than one by one.
    """
    sizes = drawn.setup.cluster.gpu.memory_bytes * np.array([0.1, 0.5, 1.0, 1.3, 4.0])
    setups = [with_gpu(drawn.setup, memory_bytes=float(size)) for size in sizes]
    assert rises([float(cache_tokens(setup)) for setup in setups])
    assert rises([longest_context(setup) for setup in setups])
    assert rises([float(concurrency_that_fits(setup, drawn.request)) for setup in setups])
    loads = [load_of(setup, drawn.request, clients) for setup in setups]
    rates, seconds = (np.array([float(getattr(load, name)) for load in loads]) for name in ("tokens_per_s", "e2e_s"))
    assert np.all(rates[1:] >= (1.0 - POWER) * rates[:-1]), rates.tolist()
    assert np.all(seconds[1:] <= (1.0 + POWER) * seconds[:-1]), seconds.tolist()


@examples(30)
@given(drawn=servers(), clients=st.sampled_from(CLIENTS), law=st.sampled_from([served_load, static_batch]))
def test_longer_prompts_are_never_faster(drawn: DrawnServer, clients: int, law: Law) -> None:
    """Neither for the first token nor for the whole request; nor are more tokens back.

    But for a first token where prompts have passes of their own: those that share one have it at its end, and fewer long
    prompts share one. That is a prompt's pass at most. And for a trace of an answer of no more tokens than there are clients:
    with one more token, fewer prompts share a pass, and one large pass may take longer than the smaller ones in its place.
    """
    prompts = [replace(drawn.request, input_tokens=drawn.request.input_tokens * times) for times in (1, 2, 3, 5)]
    loads = [law(drawn.setup, request, float(clients)) for request in prompts]
    firsts = np.array([float(load.ttft_s) for load in loads])
    saved = float(loads[-1].first.total_s) if law is served_load and not drawn.setup.engine.schedule.mixes else 0.0
    assert np.all(firsts[1:] >= (1.0 - ROUNDING) * firsts[:-1] - saved), firsts.tolist()
    assert rises([float(load.e2e_s) for load in loads]), [float(load.e2e_s) for load in loads]
    answers = [replace(drawn.request, output_tokens=drawn.request.output_tokens * times) for times in (1, 2, 3, 5)]
    loads = [law(drawn.setup, request, float(clients)) for request in answers]
    seconds = np.array([float(load.e2e_s) for load in loads])
    traces = np.array([TRACE if load.output_tokens <= clients else ROUNDING for load in loads[:-1]])
    assert np.all(seconds[1:] >= (1.0 - traces) * seconds[:-1]), seconds.tolist()


def smooth(setup: ServingSetup) -> ServingSetup:
    """The server with CUDA graphs of passes of any number of tokens, and products that are not padded to whole tiles."""
    host, kernels = replace(setup.engine.host, graph_tokens=1e9), setup.cluster.gpu.kernels
    products = {name: with_numbers(each, {"padding_weight": 0.0}) for name, each in kernels.matmul.items()}
    gpu = replace(setup.cluster.gpu, kernels=replace(kernels, matmul=products))
    unpadded = replace(setup, cluster=replace(setup.cluster, gpu=gpu))
    return replace(unpadded, engine=replace(setup.engine, host=host))


@examples(30)
@given(drawn=servers())
def test_a_curve_is_its_points_one_by_one(drawn: DrawnServer) -> None:
    """To the last digit but of rounding; it rises with clients, and so do the times of a request.

    But for a pass, which prompts that ride in those of others save against one that is alone; and for the last wave of a
    product, which is fuller of one number of rows than of another. Rates are those of graphs of all passes, past the largest of
    which the host launches each kernel, and of products without padding: A100 and V100 take half as long again for 257 rows as
    for 256.
    """
    curve = served_load(drawn.setup, drawn.request, np.array(CLIENTS, dtype=float))
    for place, clients in enumerate(CLIENTS):
        alone = load_of(drawn.setup, drawn.request, clients)
        for metric in ("ttft_s", "tpot_s", "e2e_s", "tokens_per_s", "running"):
            shown = np.broadcast_to(getattr(curve, metric), (len(CLIENTS),))[place]
            assert shown == pytest.approx(float(getattr(alone, metric)), rel=1e-12), metric
    pass_s, e2e_s = float(curve.first.total_s), np.broadcast_to(curve.e2e_s, (len(CLIENTS),))
    assert np.all(np.diff(e2e_s) >= -pass_s), e2e_s.tolist()
    rates = np.broadcast_to(
        served_load(smooth(drawn.setup), drawn.request, np.array(CLIENTS, dtype=float)).tokens_per_s, (len(CLIENTS),)
    )
    assert np.all(rates[1:] >= (1.0 - WAVE) * rates[:-1]), rates.tolist()


@examples(40)
@given(drawn=servers(), clients=st.sampled_from(CLIENTS))
def test_parts_are_of_no_less_than_nothing_and_sum_to_the_whole(drawn: DrawnServer, clients: int) -> None:
    """Of a pass and of the life of a request; the memory of a GPU is all given out."""
    load = load_of(drawn.setup, drawn.request, clients)
    for spent in (load.decode, load.cycle, load.first):
        parts = [float(getattr(spent, part)) for part in PARTS]
        assert min(parts) >= -ROUNDING * sum(parts), dict(zip(PARTS, parts, strict=True))
        assert sum(parts) == pytest.approx(float(spent.total_s), rel=1e-12)
    memory = serving_memory(drawn.setup)
    held = memory.weights_bytes + memory.fixed_bytes + memory.activation_bytes + memory.graph_bytes
    if float(memory.cache_bytes) >= 0:
        assert float(held + memory.cache_bytes + memory.unused_bytes) == pytest.approx(float(memory.total_bytes), rel=1e-12)
        assert float(memory.unused_bytes) >= 0
    assert float(load.e2e_s) == pytest.approx(float(load.ttft_s + (load.output_tokens - 1) * load.tpot_s), rel=1e-9)


@examples(15)
@given(drawn=servers())
def test_intervals_contain_what_they_are_of(drawn: DrawnServer) -> None:
    """At every concurrency, of every metric."""
    forecast = serving_forecast(drawn.setup, drawn.request, CLIENTS, evidence=serving_evidence())
    for metric, value in zip(LATENCIES, (forecast.load.ttft_s, forecast.load.tpot_s, forecast.load.e2e_s), strict=True):
        low, high = forecast.intervals[metric]
        assert np.all(np.asarray(low) <= value), metric
        assert np.all(value <= np.asarray(high)), metric
    assert forecast.verdict in ("fits", "tight", "does not fit")
    assert (forecast.most_running >= 1) == (forecast.verdict != "does not fit") or drawn.setup.engine.schedule.mixes
    assert len(forecast.bound_by) == np.size(forecast.load.concurrency)


@examples(20)
@given(drawn=servers(), times=st.sampled_from([2, 10, 1000]))
def test_a_slower_host_is_never_faster(drawn: DrawnServer, times: int) -> None:
    """Whatever it takes longer for."""
    host = drawn.setup.engine.host
    for name in ("step_s", "sequence_s", "hidden_s", "group_s", "stream_s", "answer_s", "request_s", "token_s", "launch_s"):
        slower = with_numbers(drawn.setup.engine, {"host": with_numbers(host, {name: getattr(host, name) * times})})
        seconds = [
            float(load_of(setup, drawn.request, 8).e2e_s) for setup in (drawn.setup, replace(drawn.setup, engine=slower))
        ]
        assert rises(seconds), (name, seconds)
