"""Which start and which rate of its links do nccl-tests on a cluster ask for, in the equations that price its collectives?

For each set of collectives that share their coefficients,

    t = T(n; starts * x, rate * y)

with T of timing/collectives.py. x and y minimise the sum of |ln(T / t)| over the sizes that tell them: x over those that spend
nearly all of their time in the start, y over those that spend it in the transfer, or most of it where none spends nearly all.
How much that is follows from the rate that the largest sizes ask for. x or y is left at 1 where no size tells it, and y where
other links bound all sizes.

Ignored: that NCCL changes its protocol with the size, so that those between start and rate are off; the error shows them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from perfmodel.explanation.measured.link_tests import SCALES, Floats, LinkTest
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.evidence.spread import moved
from perfmodel.spec.machines.hardware import Cluster

NODE, NETWORK = "links.node.collectives", "links.network.collectives"
POINT: Final = "point_to_point"
RING_STARTS: Final = ("latency_s", "rank_latency_s", "node_latency_s")
TREE_STARTS: Final = ("tree_start_s", "tree_latency_s")
HALF, NEARLY_ALL = 0.5, 0.9  # of the time of a size: what it must spend in the start, or in the transfer, to tell it
STEPS: Final = 100
SMALLEST_RESIDUAL: Final = 1e-3  # by which a size is weighed at most, for the sum of absolute values
WIDEST: Final = float(np.log(1e4))  # how far a number may move, as a logarithm
LONGEST_STEP: Final = 1.0
TINY: Final = 1e-4
LEAST_MOVE: Final = 0.1  # of ln of a time by ln of a number: with less, other links bound all sizes
QUANTILE: Final = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkFactor:
    """By which factor some numbers of a cluster are other than it says, and how sure that is.

    `paths` are the key paths of the numbers, `spread` is the relative half width of the 90 % interval of each.
    """

    paths: tuple[str, ...]
    factor: float
    spread: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkFit:
    """What tests ask for: the cluster with it, the factors, the starts and rates that no size tells, and relative errors."""

    cluster: Cluster
    factors: tuple[LinkFactor, ...]
    untold: tuple[str, ...]  # key paths
    median_error: float
    p90_error: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Share:
    """Tests that share their coefficients: key paths of their starts, their tier, and the one of a rate of their own."""

    tests: tuple[LinkTest, ...]
    tier: str
    starts: tuple[str, ...]
    rate: str


def link_fit(tests: Sequence[LinkTest], cluster: Cluster, *, least_spread: float) -> LinkFit:
    """The start and the rate of the links that tests on a cluster ask for; spreads are at least `least_spread`."""
    factors: list[LinkFactor] = []
    untold: list[str] = []
    fitted = cluster  # links inside nodes come first: collectives between nodes pass through them
    for tier, scale in SCALES.items():
        rates: list[tuple[_Share, float, float]] = []
        for share in _shares(tests, cluster, tier):
            (start, rate), told = _fitted(share, fitted, scale)
            spreads = _spreads(share, moved(fitted, {scale: rate, **dict.fromkeys(share.starts, start)}), least_spread)
            if told[0]:
                factors.append(LinkFactor(paths=share.starts, factor=start, spread=spreads[0]))
            if told[1]:
                rates.append((share, rate, spreads[1]))
            untold += [*(share.starts[:1] if not told[0] else ()), *([share.rate] if not told[1] else [])]
        factors += _rate_factors(rates, scale)
        fitted = moved(cluster, {path: each.factor for each in factors for path in each.paths})
    errors = np.abs(np.concatenate([np.log(test.times_s(fitted) / test.seconds) for test in tests]))
    median, p90 = (float(np.expm1(np.quantile(errors, share))) for share in (0.5, QUANTILE))
    return LinkFit(cluster=fitted, factors=tuple(factors), untold=tuple(untold), median_error=median, p90_error=p90)


def _shares(tests: Sequence[LinkTest], cluster: Cluster, tier: str) -> Iterator[_Share]:
    """The tests of one tier, by what they share: between nodes all collectives, inside them each kind; and messages."""
    of_tier = [each for each in tests if each.tier == tier]
    collectives = [each for each in of_tier if each.call.kind != POINT]
    messages = tuple(each for each in of_tier if each.call.kind == POINT)
    if tier == "network":
        if collectives:
            kinds = {each.call.kind for each in collectives}
            names = [*RING_STARTS, *(TREE_STARTS if "all_reduce" in kinds else ())]
            names += ["peer_latency_s"] if "all_to_all" in kinds else []
            starts = tuple(f"{NETWORK}.{name}" for name in names)
            yield _Share(tests=tuple(collectives), tier=tier, starts=starts, rate=f"{NETWORK}.efficiency")
        if messages:
            start, rate = f"{NETWORK}.point_latency_s", f"{NETWORK}.point_efficiency"
            yield _Share(tests=messages, tier=tier, starts=(start,), rate=rate)
        return
    for kind in dict.fromkeys(_law(each, cluster) for each in of_tier):
        own = tuple(each for each in of_tier if _law(each, cluster) == kind)
        names = ["latency_s"] if kind in ("switch_reduce", POINT) else ["latency_s", "rank_latency_s"]
        rate = f"{NODE}.{kind}.{'efficiency' if kind == POINT else 'bandwidth_bytes_per_s'}"
        yield _Share(tests=own, tier=tier, starts=tuple(f"{NODE}.{kind}.{name}" for name in names), rate=rate)


def _law(test: LinkTest, cluster: Cluster) -> str:
    """Whose coefficients time a test inside a node."""
    known, kind = cluster.links.node.collectives, test.call.kind
    switch = known.switch_reduce
    if kind == "all_reduce" and switch is not None and np.all(test.call.group.ranks >= switch.ranks):
        return "switch_reduce"
    return "all_to_all" if kind == POINT and known.point_to_point is None else kind


def _fitted(share: _Share, cluster: Cluster, scale: str) -> tuple[tuple[float, float], tuple[bool, bool]]:
    """x and y of one set of tests, and which of them its sizes tell."""
    seconds = np.concatenate([each.seconds for each in share.tests])
    largest = np.concatenate([np.arange(len(each.seconds)) == len(each.seconds) - 1 for each in share.tests])

    def residuals(logs: Floats) -> Floats:
        there = moved(cluster, {scale: np.exp(logs[1]), **dict.fromkeys(share.starts, np.exp(logs[0]))})
        return np.asarray(np.log(np.concatenate([each.times_s(there) for each in share.tests]) / seconds))

    logs = _nearest(residuals, largest, np.array([False, True]))
    first = moved(cluster, {scale: np.exp(logs[1])})
    in_start = np.concatenate([each.start_s(first) / each.times_s(first) for each in share.tests])
    moves = [np.max(np.abs(residuals(logs + TINY * unit) - residuals(logs))) / TINY for unit in np.eye(2)]
    tell = (_telling(in_start), _telling(1.0 - in_start))
    told = tuple(bool(np.any(sizes)) and move >= LEAST_MOVE for sizes, move in zip(tell, moves, strict=True))
    logs = _nearest(residuals, (tell[0] & told[0]) | (tell[1] & told[1]), np.array(told), logs * told)
    start, rate = (float(np.exp(log)) for log in logs)
    return (start, rate), (told[0], told[1])


def _telling(share: Floats) -> NDArray[np.bool_]:
    """The sizes that spend nearly all of their time in something, or where there are none the most of it."""
    found = share >= NEARLY_ALL
    return found if np.any(found) else np.asarray(share >= HALF)


def _nearest(
    residuals: Callable[[Floats], Floats], sizes: NDArray[np.bool_], free: NDArray[np.bool_], start: Floats | None = None
) -> Floats:
    """The logarithms of x and y at which the absolute residuals of some sizes are least; those that are not free stay.

    Gauss-Newton steps, with weights that make squares absolute values.
    """
    logs, places = np.zeros(2) if start is None else np.array(start), np.flatnonzero(free)
    if not len(places) or not np.any(sizes):
        return logs
    for _ in range(STEPS):
        now = residuals(logs)[sizes]
        slopes = np.stack([(residuals(logs + TINY * np.eye(2)[place])[sizes] - now) / TINY for place in places], axis=1)
        weights = 1.0 / np.sqrt(np.maximum(np.abs(now), SMALLEST_RESIDUAL))
        step, *_ = np.linalg.lstsq(weights[:, None] * slopes, -weights * now, rcond=None)
        step = np.clip(step, -LONGEST_STEP, LONGEST_STEP)
        logs[places] = np.clip(logs[places] + step, -WIDEST, WIDEST)
        if np.max(np.abs(step)) < TINY:
            break
    return logs


def _spreads(share: _Share, fitted: Cluster, least: float) -> tuple[float, float]:
    """Of starts and rates: nine of ten of the sizes that tell each are that near to their fit, relatively."""
    found = [least, least]
    for test in share.tests:
        in_start = test.start_s(fitted) / test.times_s(fitted)
        errors = np.expm1(np.abs(np.log(test.times_s(fitted) / test.seconds)))
        for place, tells in enumerate((in_start >= HALF, in_start <= HALF)):
            if np.any(tells):
                found[place] = max(found[place], float(np.quantile(errors[tells], QUANTILE)))
    return found[0], found[1]


def _rate_factors(rates: Sequence[tuple[_Share, float, float]], scale: str) -> Iterator[LinkFactor]:
    """The rates of one tier: its scale is the best of them, which others fall short of by a factor of their own."""
    if not rates:
        return
    best = max(rate for _, rate, _ in rates)
    yield LinkFactor(paths=(scale,), factor=best, spread=max(spread for _, _, spread in rates))
    for share, rate, spread in rates:
        if rate < best:
            yield LinkFactor(paths=(share.rate,), factor=rate / best, spread=spread)
