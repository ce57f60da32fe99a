"""What a measurement of a server should have shown: a load and a metric as one number with its parts."""

from __future__ import annotations

import numpy as np

from perfmodel.count.serving.memory import sequence_bytes, serving_memory
from perfmodel.light_dataclass import dataclass
from perfmodel.serving.law import ServedLoad, most_running, served_load, static_batch
from perfmodel.spec.fields import Numeric
from perfmodel.spec.serving.loads import (
    CLOSED,
    DECODE,
    E2E,
    MEMORY,
    OFFLINE,
    POISSON,
    REQUESTS,
    SATURATED,
    STATIC,
    TOKENS,
    TPOT,
    TTFT,
)
from perfmodel.spec.serving.setup import Request, ServingSetup

GIB = 2.0**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One load: its kind (spec/serving/loads.py), clients or sequences where they are stated, replicas beside each other.

    Of an offline run, `requests` are those that there are in all. `stated_output_tokens` are those whose end-to-end latency is
    meant, where lengths in `request` are shorter means; 0 for these.
    """

    setup: ServingSetup
    request: Request
    kind: str
    concurrency: float | None = None
    replicas: float = 1.0
    waves: float = np.inf
    requests: float = np.inf
    length_spread: float = 1.0
    stated_output_tokens: float = 0.0

    @property
    def latency_tokens(self) -> Numeric:
        """Tokens of the answer whose end-to-end latency is meant."""
        return self.stated_output_tokens or self.request.output_tokens


def workload_load(work: Workload) -> ServedLoad:
    """What the clients of one replica see."""
    most = most_running(work.setup, work.request)
    clients = most if work.concurrency is None or work.kind in (OFFLINE, POISSON) else work.concurrency / work.replicas
    clients = np.clip(clients, 1.0, np.maximum(work.requests / work.replicas, 1.0))
    if work.kind == STATIC:
        return static_batch(work.setup, work.request, clients)
    if work.kind == SATURATED:
        clients = np.minimum(clients, np.maximum(most, 1.0))
    waves = work.waves if work.kind == CLOSED else np.inf
    online = work.kind in (CLOSED, POISSON)
    return served_load(work.setup, work.request, clients, waves=waves, online=online, length_spread=work.length_spread)


def measured_value(work: Workload, load: ServedLoad, metric: str) -> Numeric:
    """The number that a metric of this load would be."""
    tokens_per_s = load.tokens_per_s * work.replicas * full_share(work, load)
    values: dict[str, Numeric] = {
        TTFT: load.ttft_s,
        TPOT: load.tpot_s,
        E2E: load.ttft_s + (work.latency_tokens - 1.0) * load.tpot_s,
        TOKENS: tokens_per_s,
        REQUESTS: tokens_per_s / load.output_tokens,
        DECODE: load.decode.total_s,
        MEMORY: _peak_gib(work, load),
    }
    return values[metric]


def full_share(work: Workload, load: ServedLoad) -> Numeric:
    """What of the throughput of a full server an offline run of N requests has: (N/B * E(B)) / (n * E(B) + E(N - n*B)).

    B at once, each as long as the others, take n = floor(N/B) rounds of E(B), and the rest a shorter one that fills the server
    in part. Without an end, 1.
    """
    number = work.requests / work.replicas
    if work.kind != OFFLINE or np.isinf(number):
        return 1.0
    rounds = np.floor(number / load.running)
    rest = number - rounds * load.running
    last = served_load(work.setup, work.request, np.maximum(rest, 1.0), online=False, length_spread=work.length_spread)
    whole_s = rounds * load.e2e_s + np.where(rest > 0, last.e2e_s, 0.0)
    return number / load.running * load.e2e_s / whole_s


def _peak_gib(work: Workload, load: ServedLoad) -> Numeric:
    """Weights, the cache of the sequences at their end, and activations: what PyTorch's allocator hands out at most."""
    memory = serving_memory(work.setup)
    cache = load.running * sequence_bytes(work.setup, work.request.total_tokens)
    return (memory.weights_bytes + cache + memory.activation_bytes) / GIB
