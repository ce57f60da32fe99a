"""How sure a number of a server is: its 90 % interval, from the spreads of the numbers that time each part of it.

Each number times one part of a pass, whose time is in proportion to it, so that a spread s moves the whole by that part's share
times s; sizes of the engine's memory decide how many sequences fit (serving/saturation.py). The intervals then follow as those
of iterations do (timing/uncertainty.py), with a discrepancy of serving.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from perfmodel.light_dataclass import replace
from perfmodel.serving.law import ServedLoad
from perfmodel.serving.saturation import cache_ends, with_cache
from perfmodel.spec.evidence.run_evidence import Discrepancy
from perfmodel.spec.fields import Numeric, anywhere
from perfmodel.spec.serving.loads import DECODE, E2E, RATES, REQUESTS, TOKENS, TPOT, TTFT
from perfmodel.spec.serving.setup import ServingSetup
from perfmodel.timing.serving.forward_pass import OF_EXPERTS, PassTime
from perfmodel.timing.uncertainty import Uncertainty, uncertainty


@lru_cache(maxsize=64)
def part_spreads(setup: ServingSetup) -> Mapping[str, Mapping[str, Numeric]]:
    """By part of a pass, the key paths of the uncertain numbers that time it and their spreads.

    A part that has one of OF_EXPERTS is the products of all but experts, those of experts apart.
    """
    profile, law, family = setup.profile, setup.weights.law, setup.engine.family
    name, attention = profile.product_law(law, family), profile.attention_over(setup.cache.law)
    products, of_products = profile.small_products[name], f"serving.small_products.{name}"
    large = setup.cluster.gpu.matmul(setup.circuits)
    circuits = {f"cluster.gpu.kernels.matmul.{setup.circuits}.efficiency": large.spread.get("efficiency", 0.0)}
    reduce = profile.all_reduce.get(str(setup.tensor_parallel))
    found = {
        "weights_s": {f"{of_products}.efficiency": products.spread.get("efficiency", 0.0)},
        "compute_s": circuits | {f"{of_products}.computing": products.spread.get("computing", 0.0)},
        "cache_s": {f"serving.cached_attention.{setup.cache.law}.efficiency": attention.spread.get("efficiency", 0.0)},
        "kernels_s": {"serving.small_kernel_s": profile.spread.get("small_kernel_s", 0.0)},
        "host_s": {"engine.host.step_s": setup.engine.host.spread.get("step_s", 0.0)},
    }
    if setup.model.mixture is not None:
        asked = family, setup.engine.expert_kernels
        name, experts = profile.expert_law(law, *asked), profile.expert_product(law, *asked)
        path = f"serving.expert_products.{name}" if name else of_products
        found["expert_weights_s"] = {f"{path}.efficiency": experts.spread.get("efficiency", 0.0)}
        found["expert_compute_s"] = circuits | {f"{path}.computing": experts.spread.get("computing", 0.0)}
    if reduce is not None:
        path = f"serving.all_reduce.{setup.tensor_parallel}.latency_s"
        found["messages_s"] = {path: reduce.spread.get("latency_s", 0.0)}
    return found


def _part_s(whole: PassTime, part: str) -> Numeric:
    """The seconds that numbers of a part time."""
    seconds: Numeric = getattr(whole, part)
    return seconds - getattr(whole, OF_EXPERTS[part]) if part in OF_EXPERTS else seconds


def _moved_at_the_door(
    setup: ServingSetup, load: ServedLoad, seconds: Numeric, metric: str
) -> dict[str, tuple[Numeric, Numeric]]:
    """By key path, the share of a metric that a number of the host times before and behind the passes, and its spread."""
    if metric not in (TTFT, E2E, *RATES):
        return {}
    of_s = load.e2e_s if metric in RATES else seconds
    every = {name: each for name, each in load.at_the_door_s.items() if anywhere(np.asarray(each) > 0)}
    most = np.maximum(of_s, sum(every.values(), start=np.float64(0.0)))
    spread = setup.engine.host.spread
    return {f"engine.host.{name}": (each / most, spread.get(name, 0.0)) for name, each in every.items()}


def value_uncertainty(
    setup: ServingSetup, load: ServedLoad, value: Numeric, metric: str, discrepancy: Discrepancy
) -> Uncertainty:
    """The interval of one metric of a load, whose number is `value`; rates move as far as the times they are the inverse of."""
    passes: Mapping[str, PassTime] = {
        TTFT: load.first,
        TPOT: load.cycle,
        E2E: load.cycle,
        DECODE: load.decode,
        TOKENS: load.cycle,
        REQUESTS: load.cycle,
    }
    seconds = np.asarray(value, dtype=float)
    whole = passes.get(metric)
    moved = _moved_at_the_door(setup, load, seconds, metric)
    of_requests = sum((share for share, _ in moved.values()), start=np.float64(0.0))
    if whole is not None:
        total_s = whole.total_s
        for part, numbers in part_spreads(setup).items():
            share = (1.0 - of_requests) * _part_s(whole, part) / total_s
            moved |= {path: (moved.get(path, (0.0,))[0] + share, spread) for path, spread in numbers.items()}
    shares = np.stack(np.broadcast_arrays(seconds, *(share for share, _ in moved.values())))[1:]
    spreads = np.array([spread for _, spread in moved.values()]).reshape(-1, *(1,) * (shares.ndim - 1))
    caches = cache_ends(setup) if whole is not None else {}
    times = np.empty((1 + 2 * (len(shares) + len(caches)), *shares.shape[1:]))
    timed = 1 + 2 * len(shares)
    times[0], times[1:timed:2], times[2:timed:2] = (
        seconds,
        seconds * (1.0 + shares * spreads),
        seconds * (1.0 - shares * spreads / (1.0 + spreads)),
    )
    if caches:
        ratios = np.reshape([*caches.values()], (-1, *(1,) * (times.ndim - 1)))
        times[timed:] = with_cache(setup, load, seconds, metric, ratios)
    with np.errstate(invalid="ignore"):  # of no seconds, as the tokens after the first of one, no share is known: 0 +- 0
        found = uncertainty(times, [*moved, *caches], discrepancy)
    return replace(found, low_s=np.where(seconds > 0, found.low_s, 0.0), high_s=np.where(seconds > 0, found.high_s, 0.0))
