"""Does each number that is said to time a part of a pass time it, and as far as its spread says?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from perfmodel.count.serving.forward_pass import ForwardPass
from perfmodel.exchange.questions.serving.served_models import serving_setup
from perfmodel.serving.forecast import serving_forecast
from perfmodel.serving.intervals import part_spreads, value_uncertainty
from perfmodel.serving.law import served_load, static_batch
from perfmodel.spec.evidence.run_evidence import Discrepancy
from perfmodel.spec.evidence.spread import with_numbers
from perfmodel.spec.serving.evidence import ServingEvidence
from perfmodel.spec.serving.loads import E2E, TOKENS, TPOT, TTFT
from perfmodel.spec.serving.setup import Request, ServingSetup
from perfmodel.timing.serving.forward_pass import pass_time

MANY_ROWS = ForwardPass(prompts=2, prompt_tokens=4000)
NO_DISCREPANCY = Discrepancy()


def setup(precision: str, gpu: str = "h100-sxm-80gb") -> ServingSetup:
    """Llama-3.1-8B on one GPU."""
    return serving_setup("llama-3.1-8b", gpu=gpu, engine="vllm", precision=precision)


def changed(part: Any, path: list[str], factor: float) -> Any:
    """A copy of a spec, or of a mapping of specs, with the number at `path` times `factor`."""
    name, *rest = path
    if isinstance(part, dict) or hasattr(part, "items"):
        return {**part, name: changed(part[name], rest, factor)}
    old = getattr(part, name)
    return with_numbers(part, {name: changed(old, rest, factor) if rest else old * factor})


@pytest.mark.parametrize("precision", ["bf16", "fp8"])
def test_products_with_many_rows_are_as_sure_as_the_kernels_of_the_gpu(precision: str) -> None:
    """Their efficiency is that of the GPU's law times `computing`: each brings its own spread, none another."""
    server = setup(precision)
    numbers = part_spreads(server)["compute_s"]
    of_gpu, of_serving = numbers.items()
    assert of_gpu == (
        f"cluster.gpu.kernels.matmul.{precision}.efficiency",
        server.cluster.gpu.kernels.matmul[precision].spread["efficiency"],
    )
    name = server.profile.product_law(precision, server.engine.family)
    stated = server.profile.small_products[name].spread.get("computing", 0.0)
    assert of_serving == (f"serving.small_products.{name}.computing", stated)
    assert (stated > 0) is (precision == "fp8")


def test_a_gpu_without_the_circuits_is_as_sure_as_what_it_computes_in() -> None:
    """An A100 widens 8-bit weights."""
    assert "cluster.gpu.kernels.matmul.bf16.efficiency" in part_spreads(setup("fp8", "a100-sxm-80gb"))["compute_s"]


@pytest.mark.parametrize("precision", ["bf16", "fp8"])
def test_each_number_of_computing_moves_a_pass_as_the_interval_takes_it_to(precision: str) -> None:
    """A pass whose products compute is that share of the spread shorter; attention is in the same part, so by less."""
    server = setup(precision)
    before = pass_time(server, MANY_ROWS)
    for path, spread in part_spreads(server)["compute_s"].items():
        if not spread:
            continue
        root, *rest = path.split(".")
        name = {"serving": "profile"}.get(root, root)
        quicker = replace(server, **{name: changed(getattr(server, name), rest, 1.0 + float(spread))})
        found = pass_time(quicker, MANY_ROWS).total_s - before.total_s
        taken = -before.compute_s * spread / (1.0 + spread)
        assert 0.6 < float(found / taken) <= 1.0, path


def test_without_uncertain_numbers_or_discrepancy_there_is_no_interval() -> None:
    """And with those of the parts, squares of half widths add up."""
    server = setup("bf16")
    load = served_load(server, Request(input_tokens=1000, output_tokens=500), 8.0)
    known = value_uncertainty(server, load, load.e2e_s, E2E, NO_DISCREPANCY)
    squares = sum(float(half_s) ** 2 for half_s in known.half_widths_s.values())
    assert sum(float(share) for share in known.shares.values()) == pytest.approx(1.0)
    assert squares > 0
    sure = replace(server, profile=with_numbers(server.profile, {"spread": {}}))
    fewer = value_uncertainty(sure, load, load.e2e_s, E2E, NO_DISCREPANCY)
    kernels = float(known.half_widths_s["serving.small_kernel_s"])
    assert sum(float(half_s) ** 2 for half_s in fewer.half_widths_s.values()) == pytest.approx(squares - kernels**2)


def test_experts_are_as_sure_as_their_own_numbers() -> None:
    """The spread of their kernels, 40 % of those with many rows, is in the interval of a mixture."""
    mixture = serving_setup("qwen3-30b-a3b", gpu="h100-sxm-80gb", engine="vllm", precision="fp8")
    load = served_load(mixture, Request(input_tokens=4000, output_tokens=100), 256.0)
    known = value_uncertainty(mixture, load, load.e2e_s, E2E, NO_DISCREPANCY)
    door_s = float(mixture.engine.host.request_s + 4000 * mixture.engine.host.token_s)
    share = float(load.cycle.expert_compute_s / load.cycle.total_s) * (1.0 - door_s / float(load.e2e_s))
    spread = 0.4
    half_s = float(load.e2e_s) * share * (spread + spread / (1.0 + spread)) / 2.0
    assert share > 0.1
    assert float(known.half_widths_s["serving.expert_products.fp8.computing"]) == pytest.approx(half_s)


def half_width(spread: float) -> float:
    """Of a number that is as uncertain as its spread says, over its value."""
    return (spread + spread / (1.0 + spread)) / 2.0


@pytest.mark.parametrize("metric", [TTFT, E2E])
def test_a_prompt_at_the_door_is_as_sure_as_a_request_and_its_tokens(metric: str) -> None:
    """Each of both numbers moves a latency by the seconds that follow from it."""
    server, request = setup("bf16"), Request(input_tokens=8000, output_tokens=100)
    load, host = served_load(server, request, 4.0), server.engine.host
    known = value_uncertainty(server, load, getattr(load, metric), metric, NO_DISCREPANCY)
    for name, seconds in (("request_s", host.request_s), ("token_s", 8000 * host.token_s)):
        expected = float(seconds) * half_width(float(host.spread[name]))
        assert float(known.half_widths_s[f"engine.host.{name}"]) == pytest.approx(expected), name


def test_a_latency_shorter_than_the_door_is_of_the_door_alone() -> None:
    """Both numbers share what there is of it, and passes have none."""
    server, request = setup("bf16"), Request(input_tokens=8000, output_tokens=100)
    load, host = served_load(server, request, 4.0), server.engine.host
    known = value_uncertainty(server, load, 1e-3, E2E, NO_DISCREPANCY)
    names = ("request_s", "token_s")
    shares = [float(known.half_widths_s[f"engine.host.{name}"]) / half_width(float(host.spread[name])) for name in names]
    assert sum(shares) == pytest.approx(1e-3)


def test_a_rate_is_as_unsure_as_the_latency_that_it_is_the_inverse_of() -> None:
    """Of a closed loop that nothing of the cache holds up: clients over end-to-end latency."""
    server = setup("bf16")
    load = served_load(server, Request(input_tokens=8000, output_tokens=100), 4.0)
    rate = value_uncertainty(server, load, load.tokens_per_s, TOKENS, NO_DISCREPANCY)
    latency = value_uncertainty(server, load, load.e2e_s, E2E, NO_DISCREPANCY)
    for path, half_s in latency.half_widths_s.items():
        if not path.startswith("engine.memory"):
            shares = float(half_s) / float(load.e2e_s), float(rate.half_widths_s[path]) / float(load.tokens_per_s)
            assert shares[0] == pytest.approx(shares[1]), path


def test_what_no_server_takes_is_not_counted() -> None:
    """Within the engine a request is admitted; a batch that starts as one has no door."""
    server, request = setup("bf16"), Request(input_tokens=8000, output_tokens=100)
    for load, names in (
        (served_load(server, request, 4.0, online=False), {"admission_s"}),
        (static_batch(server, request, 4.0), set()),
    ):
        known = value_uncertainty(server, load, load.e2e_s, E2E, NO_DISCREPANCY)
        doors = {path.rpartition(".")[2] for path in known.half_widths_s} & {"request_s", "token_s", "admission_s"}
        assert doors == names


def test_a_full_server_is_as_sure_as_full_servers_were() -> None:
    """From as many clients on as its memory holds: how many run at once is then a matter of it."""
    cells = {"passes/dense/server": (0.1, 9, 2), "passes/dense/full": (0.4, 9, 2), "ttft_s/any/any": (0.3, 9, 2)}
    evidence = ServingEvidence(name="known", cells=cells)
    found = serving_forecast(setup("bf16"), Request(input_tokens=2000, output_tokens=500), (1, 8), evidence=evidence)
    most, (low, high) = found.most_running, found.intervals[E2E]
    widths = np.log(np.asarray(high) / np.asarray(low)) / 2.0
    assert np.asarray(found.load.concurrency).tolist() == [1, 8, most]
    assert np.all(widths[:2] < 0.25)
    assert widths[2] > 0.4


def test_first_tokens_of_few_clients_are_as_sure_as_theirs_were() -> None:
    """Up to four they hardly queue; times of passes know no such difference."""
    cells = {"ttft_s/dense/few": (0.1, 9, 2), "ttft_s/dense/server": (0.9, 9, 2), "passes/any/any": (0.2, 9, 2)}
    evidence = ServingEvidence(name="known", cells=cells)
    request = Request(input_tokens=2000, output_tokens=500)
    found = serving_forecast(setup("bf16"), request, (4, 5), with_most=False, evidence=evidence)
    few, more = np.log(np.asarray(found.intervals[TTFT][1]) / found.load.ttft_s)
    assert few < 0.5
    assert more >= 0.9
    few, more = np.log(np.asarray(found.intervals[TPOT][1]) / found.load.tpot_s)
    assert more == pytest.approx(few, rel=0.2)
