"""What one replica of a server can do: whether the model fits, with how much context, and what clients see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from perfmodel.count.serving.forward_pass import ForwardPass
from perfmodel.count.serving.memory import (
    ANY_LENGTH,
    ServingMemory,
    cache_tokens,
    longest_context,
    sequence_bytes,
    serving_memory,
)
from perfmodel.errors import InputError
from perfmodel.frames import Tabular
from perfmodel.light_dataclass import dataclass, replace
from perfmodel.serving.intervals import value_uncertainty
from perfmodel.serving.law import ServedLoad, most_running, served_load
from perfmodel.spec.axes import TENSOR
from perfmodel.spec.fields import Numeric
from perfmodel.spec.precision import number_format
from perfmodel.spec.serving.evidence import FEW_CLIENTS, ServingEvidence, model_class
from perfmodel.spec.serving.loads import CLOSED, E2E, OFFLINE, TOKENS, TPOT, TTFT
from perfmodel.spec.serving.setup import Request, ServingSetup
from perfmodel.timing.serving.forward_pass import PARTS
from perfmodel.units import gpus_text

FITS: Final = "fits"
TIGHT: Final = "tight"
DOES_NOT_FIT: Final = "does not fit"
LATENCIES: Final = (TTFT, TPOT, E2E)
PREFILL, DECODE_STEP = "prefill", "decode"
CURVE_POINTS: Final = 48
PER_MILLION: Final = 1e6
SECONDS_PER_HOUR: Final = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ServingForecast(Tabular):
    """One replica under one kind of request; numbers of the load have a place for each concurrency.

    `intervals` are the 90 % intervals of TTFT, TPOT, end-to-end latency and tokens a second.
    """

    setup: ServingSetup
    request: Request
    memory: ServingMemory
    cache_tokens: int
    longest_context: int
    most_running: int
    verdict: str
    load: ServedLoad
    intervals: Mapping[str, tuple[Numeric, Numeric]]
    evidence: ServingEvidence
    dollars_per_gpu_hour: float | None = None
    taken: tuple[str, ...] = ()  # sentences on what was taken for granted of the model before it was served

    @property
    def summary(self) -> str:
        """What serves on what, whether it fits, and the speed that the most clients of it see."""
        setup, load = self.setup, self.load
        where = f"{setup.model.name} on {gpus_text(setup.tensor_parallel)} ({setup.cluster.gpu.name})"
        if not self.may_run:
            return f"{where}: {self.verdict}"
        clients, rate = int(np.ravel(load.concurrency)[-1]), float(np.ravel(load.tokens_per_s)[-1])
        return f"{where}: {self.verdict}, {self.context_text}, {rate:,.0f} tokens/s for {clients:,} clients"

    @property
    def context_text(self) -> str:
        """How long a request may be that is alone: at most 41,000 tokens of context, or context of any length."""
        return f"at most {self.longest_context:,} tokens of context" if self.limits_context else "context of any length"

    @property
    def limits_context(self) -> bool:
        """Whether the memory does: it does not where every layer keeps a window of tokens, or a state."""
        return self.longest_context < ANY_LENGTH

    def rows(self) -> list[dict[str, Any]]:
        """A row for each number of clients: latencies [s] and rates with their 90 % intervals, and what bounds them."""
        names = {TENSOR.name: self.setup.tensor_parallel, "verdict": self.verdict}
        columns = {"concurrency": self.load.concurrency, "tokens_per_s_per_gpu": self.tokens_per_s_per_gpu}
        for metric in (*LATENCIES, TOKENS):
            low, high = self.intervals[metric]
            columns |= {metric: getattr(self.load, metric), f"{metric}_low": low, f"{metric}_high": high}
        if self.dollars_per_million_tokens is not None:
            columns |= {"dollars_per_million_tokens": self.dollars_per_million_tokens}
        shape = np.shape(self.load.concurrency)
        numbers = {name: np.broadcast_to(np.asarray(value, dtype=float), shape) for name, value in columns.items()}
        return [
            names | {name: float(values[place]) for name, values in numbers.items()} | {"bound_by": bound.removesuffix("_s")}
            for place, bound in enumerate(self.bound_by)
        ]

    @property
    def may_run(self) -> bool:
        """Whether one request fits at least."""
        return self.verdict != DOES_NOT_FIT

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What the forecast takes for granted, in sentences."""
        setup, found = self.setup, [*self.taken]
        if setup.circuits != setup.weights.circuits:
            gpu, wide = setup.cluster.gpu.name, setup.circuits
            are = "widened" if number_format(setup.weights.circuits).low else "converted"
            found.append(f"{gpu} has no {setup.weights.circuits} arithmetic: weights are {are}, and products run in {wide}")
        if setup.model.mixture is not None:
            found.append("tokens meet the experts at random, all alike often")
        return tuple(found)

    @property
    def tokens_per_s_per_gpu(self) -> Numeric:
        """Tokens that come back a second, over the GPUs of the replica."""
        return self.load.tokens_per_s / self.setup.tensor_parallel

    @property
    def dollars_per_million_tokens(self) -> Numeric | None:
        """GPUs * price / throughput, of tokens that come back; None without a price."""
        if self.dollars_per_gpu_hour is None:
            return None
        rate = self.setup.tensor_parallel * self.dollars_per_gpu_hour / SECONDS_PER_HOUR
        return PER_MILLION * rate / self.load.tokens_per_s

    @property
    def passes(self) -> dict[str, ForwardPass]:
        """The two kinds of passes: a prompt that is read alone, and a step of the most sequences that the loads run at once."""
        request, running = self.request, float(np.max(self.load.running))
        return {
            PREFILL: ForwardPass(prompts=1.0, prompt_tokens=request.input_tokens),
            DECODE_STEP: ForwardPass(sequences=running, context=request.mean_context),
        }

    def whole_curve(self) -> ServingForecast:
        """The same server under one client, as many as it runs at once, and numbers between, evenly in their logarithm."""
        most = max(self.most_running, int(np.max(self.load.concurrency)), 1)
        clients = np.unique(np.round(np.geomspace(1.0, most, CURVE_POINTS)))
        return serving_forecast(
            self.setup,
            self.request,
            tuple(int(each) for each in clients),
            with_most=False,
            evidence=self.evidence,
            dollars_per_gpu_hour=self.dollars_per_gpu_hour,
            taken=self.taken,
        )

    @property
    def bound_by(self) -> list[str]:
        """At each concurrency, the part of a request's life on the GPUs that takes most of it: one of PARTS."""
        shape = np.shape(self.load.concurrency)
        parts = np.stack([np.broadcast_to(np.asarray(each), shape) for each in self.load.cycle.parts().values()])
        return [PARTS[place] for place in np.argmax(parts, axis=0).ravel()]


def fit_verdict(setup: ServingSetup, request: Request, memory: ServingMemory) -> str:
    """Fits where one whole request has room in the cache, tight where that hangs on sizes that engines differ in."""
    one = float(np.asarray(sequence_bytes(setup, request.total_tokens)))
    sizes = setup.engine.memory
    doubt = (
        sizes.spread.get("fixed_bytes", 0.0) * memory.fixed_bytes + sizes.spread.get("graph_bytes", 0.0) * memory.graph_bytes
    )
    if float(np.asarray(memory.cache_bytes)) < one:
        return DOES_NOT_FIT
    return FITS if float(np.asarray(memory.cache_bytes - doubt)) >= one else TIGHT


def concurrencies(most: float, wanted: tuple[int, ...], *, with_most: bool) -> tuple[float, ...]:
    """Clients to show: those that are asked for, and as many as fit at once; each once, in rising order.

    >>> concurrencies(100.0, (1, 8, 64), with_most=True)
    (1.0, 8.0, 64.0, 100.0)
    """
    every = {float(each) for each in wanted} | ({max(most, 1.0)} if with_most else set())
    return tuple(sorted(every))


def serving_forecast(
    setup: ServingSetup,
    request: Request,
    clients: tuple[int, ...],
    *,
    with_most: bool = True,
    evidence: ServingEvidence,
    dollars_per_gpu_hour: float | None = None,
    taken: tuple[str, ...] = (),
) -> ServingForecast:
    """The forecast of a closed loop with each of some numbers of clients; `with_most` adds as many as fit at once."""
    memory, most = serving_memory(setup), float(most_running(setup, request))
    shown = np.asarray(concurrencies(most, clients, with_most=with_most))
    load = served_load(setup, request, shown)
    if not all(np.all(np.isfinite(each) & (np.asarray(each) >= 0)) for each in (load.ttft_s, load.tpot_s, load.e2e_s, most)):
        raise InputError("the numbers of this server give no finite times; one of them is far too large or too small")
    models = model_class(has_experts=setup.model.mixture is not None)
    intervals = {}
    for metric, value in ((TTFT, load.ttft_s), (TPOT, load.tpot_s), (E2E, load.e2e_s), (TOKENS, load.tokens_per_s)):
        of_evidence = E2E if metric == TOKENS else metric  # of a closed loop, one is the inverse of the other
        some, full = (evidence.discrepancy(of_evidence, models, kind) for kind in (CLOSED, OFFLINE))
        few = evidence.discrepancy(of_evidence, models, CLOSED, FEW_CLIENTS)
        running = np.where(shown <= FEW_CLIENTS, few.half_width, some.half_width)
        lack = replace(some, half_width=np.where(shown < most, running, full.half_width))
        found = value_uncertainty(setup, load, value, metric, lack)
        intervals[metric] = (found.low_s, found.high_s)
    return ServingForecast(
        setup=setup,
        request=request,
        memory=memory,
        cache_tokens=int(cache_tokens(setup)),
        longest_context=longest_context(setup),
        most_running=int(most),
        verdict=fit_verdict(setup, request, memory),
        load=load,
        intervals=intervals,
        evidence=evidence,
        dollars_per_gpu_hour=dollars_per_gpu_hour,
        taken=taken,
    )
