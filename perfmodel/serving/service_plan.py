"""Which servers answer so many requests a second within limits of TTFT and TPOT, and with how few GPUs?

Symbols: R requests a second, C requests at once in a replica, N replicas of t GPUs; F(C) TTFT, D(C) TPOT, E(C) end-to-end
latency of a closed loop of C; P(..) the probability that the intervals of the forecast give, q the confidence asked for.

    N = ceil(R * E_p(C) / C),   p = q / P(F(C) <= limit)

By Little's law a replica with C requests at once answers C/E(C) of them a second, so that N of them never have more than C at
once. The odds of a promise are

    P(F(C) <= limit) * min(P(D(C) <= limit), P(E(C) <= C*N/R))

since what makes TPOT long makes E2E long (rank correlation 0.88 of their errors on 2,217 measured closed loops), while errors
of TTFT are those of queues (0.03 with TPOT). Requests come evenly, and are spread evenly over the replicas; bursts need more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, sqrt
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from perfmodel.count.serving.memory import sequence_bytes
from perfmodel.light_dataclass import dataclass
from perfmodel.serving.forecast import PER_MILLION, SECONDS_PER_HOUR, ServingForecast, serving_forecast
from perfmodel.serving.law import most_running
from perfmodel.spec.fields import Numeric
from perfmodel.spec.serving.evidence import ServingEvidence
from perfmodel.spec.serving.loads import E2E, TPOT, TTFT
from perfmodel.spec.serving.setup import Request, ServingSetup
from perfmodel.timing.uncertainty import Estimate

CONCURRENCIES: Final = 192  # looked at for each replica, 4 % apart or less
SURE: Final = 0.99  # odds beyond it tell no two options apart
ALMOST_SURE: Final = 1.0 - 1e-9
Lack = Literal["support", "memory", "ttft", "tpot", "gpus"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceTarget:
    """What a service promises: a rate, limits of mean latencies (None for no limit), and with which probability."""

    requests_per_s: float
    ttft_s: float | None = None
    tpot_s: float | None = None
    confidence: float = 0.9
    most_gpus: int = 32768


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerChoice:
    """One kind of replica by the names of its parts, with its setup; or `refusal`, why there is none."""

    gpu: str
    precision: str
    kv_precision: str
    tensor_parallel: int
    expert_parallel: int = 1
    setup: ServingSetup | None = None
    refusal: str = ""
    dollars_per_gpu_hour: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOption:
    """Replicas of one kind that keep the promise, each with `concurrency` requests at once at most.

    Latencies are those at this concurrency: the median, and what is not exceeded with the confidence that is asked for.
    """

    choice: ServerChoice
    request: Request
    requests_per_s: float
    replicas: int
    concurrency: int
    ttft: Estimate
    tpot: Estimate
    e2e: Estimate
    odds: float
    bound_by: str

    @property
    def gpus(self) -> int:
        """GPUs of all replicas."""
        return self.replicas * self.choice.tensor_parallel

    @property
    def gpu_hours_per_million_tokens(self) -> float:
        """GPUs / (R * O), of tokens that come back, at the rate that is asked for: replicas may have room for more."""
        tokens_per_s = self.requests_per_s * float(np.asarray(self.request.output_tokens))
        return PER_MILLION * self.gpus / SECONDS_PER_HOUR / tokens_per_s

    @property
    def dollars_per_million_tokens(self) -> float | None:
        """GPU-hours times their price; None without a price."""
        price = self.choice.dollars_per_gpu_hour
        return None if price is None else price * self.gpu_hours_per_million_tokens

    @property
    def cost(self) -> float:
        """Dollars an hour where there is a price, else GPUs."""
        return self.gpus * (self.choice.dollars_per_gpu_hour or 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedServer:
    """A kind of replica that does not keep the promise, what it lacks, and the limits that it would keep.

    `odds` are the best that any concurrency has; `ttft_s` and `tpot_s` the least limits, none below those that are asked for,
    that one request at once keeps together with the confidence that is asked for; `gpus` what the rate takes where that is
    more than allowed. Where not one request fits, `cache_bytes` are left of a GPU for its cache, less than its `request_bytes`.
    """

    choice: ServerChoice
    lack: Lack
    odds: float = 0.0
    ttft_s: float = 0.0
    tpot_s: float = 0.0
    gpus: int = 0
    cache_bytes: float = 0.0
    request_bytes: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerPlan:
    """All kinds of replicas that keep a promise, cheapest first, and those that do not."""

    target: ServiceTarget
    request: Request
    options: tuple[ServerOption, ...]
    rejected: tuple[RejectedServer, ...]

    @property
    def best(self) -> ServerOption | None:
        """The cheapest; None where nothing keeps the promise."""
        return self.options[0] if self.options else None

    @property
    def has_prices(self) -> bool:
        """Whether options are ranked by dollars."""
        return any(each.choice.dollars_per_gpu_hour is not None for each in self.options)

    @property
    def nearest(self) -> RejectedServer | None:
        """Of those that are rejected, the one whose limits are least beyond those asked for, all told; None if none runs."""
        running = [each for each in self.rejected if each.lack in ("ttft", "tpot", "gpus")]
        return min(running, key=self._excess, default=None)

    def _excess(self, rejected: RejectedServer) -> float:
        if rejected.lack == "gpus":
            return rejected.gpus / self.target.most_gpus
        limits = ((rejected.ttft_s, self.target.ttft_s), (rejected.tpot_s, self.target.tpot_s))
        excess = 1.0
        for needed, limit in limits:
            excess *= 1.0 if limit is None else needed / limit
        return excess


def server_plan(
    choices: Sequence[ServerChoice], request: Request, target: ServiceTarget, evidence: ServingEvidence
) -> ServerPlan:
    """Every choice with as few replicas as keep the promise, and what the others lack.

    Those that keep it stand by cost, then by odds, of which over 99 % are alike, then by the time of a token.
    """
    options, rejected = [], []
    for choice in choices:
        found = _option(choice, request, target, evidence)
        if isinstance(found, ServerOption):
            options.append(found)
        else:
            rejected.append(found)
    ranked = sorted(options, key=lambda each: (each.cost, -min(each.odds, SURE), each.tpot.median))
    return ServerPlan(target=target, request=request, options=tuple(ranked), rejected=tuple(rejected))


def _option(
    choice: ServerChoice, request: Request, target: ServiceTarget, evidence: ServingEvidence
) -> ServerOption | RejectedServer:
    if choice.setup is None:
        return RejectedServer(choice=choice, lack="support")
    most = max(float(most_running(choice.setup, request)), 1.0)
    clients = tuple(int(each) for each in np.unique(np.round(np.geomspace(1.0, most, CONCURRENCIES))))
    forecast = serving_forecast(choice.setup, request, clients, with_most=False, evidence=evidence)
    if not forecast.may_run:
        one, left = sequence_bytes(choice.setup, request.total_tokens), forecast.memory.cache_bytes
        return RejectedServer(choice=choice, lack="memory", cache_bytes=float(left), request_bytes=float(one))
    return _sized(choice, forecast, target)


def _sized(choice: ServerChoice, forecast: ServingForecast, target: ServiceTarget) -> ServerOption | RejectedServer:
    """The equations of this module over all concurrencies at once."""
    load, rate = forecast.load, target.requests_per_s
    clients = np.asarray(load.concurrency, dtype=float)
    ttft, tpot, e2e = (_estimate(forecast, metric) for metric in (TTFT, TPOT, E2E))
    in_time, fluent = _odds_of(ttft, target.ttft_s), _odds_of(tpot, target.tpot_s)
    asked = target.confidence / np.maximum(in_time, target.confidence)
    keeps = (in_time * fluent >= target.confidence) & (in_time * ALMOST_SURE > target.confidence)
    if not np.any(keeps):
        return _late(choice, target, ttft=ttft, tpot=tpot, in_time=in_time, fluent=fluent)
    replicas = np.ceil(rate * np.asarray(e2e.quantile(np.minimum(asked, ALMOST_SURE))) / clients)
    fewest = int(np.min(replicas[keeps]))
    if fewest * choice.tensor_parallel > target.most_gpus:
        return RejectedServer(choice=choice, lack="gpus", gpus=fewest * choice.tensor_parallel)
    odds = np.where(
        keeps & (replicas <= fewest),
        in_time * np.minimum(fluent, np.asarray(e2e.probability_at_most(clients * fewest / rate))),
        0.0,
    )
    place = int(np.argmax(odds))
    return ServerOption(
        choice=choice,
        request=forecast.request,
        requests_per_s=rate,
        replicas=fewest,
        concurrency=int(clients[place]),
        ttft=_at(ttft, place),
        tpot=_at(tpot, place),
        e2e=_at(e2e, place),
        odds=float(odds[place]),
        bound_by=forecast.bound_by[place],
    )


def _late(
    choice: ServerChoice,
    target: ServiceTarget,
    *,
    ttft: Estimate,
    tpot: Estimate,
    in_time: NDArray[np.float64],
    fluent: NDArray[np.float64],
) -> RejectedServer:
    """What one request at once keeps: with the square root of the confidence for each limit, both are kept with all of it."""
    alone = sqrt(target.confidence)
    lack: Lack = "ttft" if in_time[0] <= fluent[0] else "tpot"
    return RejectedServer(
        choice=choice,
        lack=lack,
        odds=float(np.max(in_time * fluent)),
        ttft_s=max(target.ttft_s or 0.0, float(np.asarray(_at(ttft, 0).quantile(alone)))),
        tpot_s=max(target.tpot_s or 0.0, float(np.asarray(_at(tpot, 0).quantile(alone)))),
    )


def _estimate(forecast: ServingForecast, metric: str) -> Estimate:
    medians: Mapping[str, Numeric] = {TTFT: forecast.load.ttft_s, TPOT: forecast.load.tpot_s, E2E: forecast.load.e2e_s}
    low, high = forecast.intervals[metric]
    return Estimate(median=medians[metric], low=low, high=high)


def _odds_of(latency: Estimate, limit: float | None) -> NDArray[np.float64]:
    """At each concurrency, the probability that a latency is within its limit; 1 without one."""
    if limit is None:
        return np.ones(np.shape(latency.median))
    return np.asarray(latency.probability_at_most(limit), dtype=float)


def _at(latency: Estimate, place: int) -> Estimate:
    """The estimate at one concurrency."""
    median, low, high = (float(np.asarray(each)[place]) for each in (latency.median, latency.low, latency.high))
    return Estimate(median=median, low=low, high=high)


def rounded_up(limit_s: float) -> float:
    """A limit in three digits that is not less: what is suggested must be kept.

    >>> rounded_up(0.0123456), rounded_up(1.5)
    (0.0124, 1.5)
    """
    step = 10.0 ** (np.floor(np.log10(limit_s)) - 2)
    return float(f"{ceil(limit_s / step - 1e-9) * step:.3g}")
