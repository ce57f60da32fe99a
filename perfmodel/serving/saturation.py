"""How far a server's numbers hang on how much fits into its cache, which sizes of its engine leave open.

Symbols: C clients, R sequences at once, B those that fit, R = min(C, B); L the life of a request on the GPUs (serving/law.py),
of which L0 is what its O - 1 decode passes take whatever their number of sequences: weights, small kernels, messages, the host.
With another cache B' fit, and R' = min(C, B') run:

    L'    = L0 + (L - L0) * R'/R
    E2E'  = E2E  + L' * C/R' - L * C/R
    TTFT' = TTFT + L' * (C/R' - 1) - L * (C/R - 1)
    TPOT' = TPOT + (L' - L) / (O - 1)
    rate' = rate * (R'/L') / (R/L),   R' = B' of a full server, whose clients are as many as it takes

None is less than a life of R', a first pass, or a decode pass of one sequence. Ignored: experts that fewer sequences leave
unread, which are a part of L0, so that it is too long for mixtures, and intervals near the limit of the cache too wide.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from perfmodel.count.serving.memory import serving_memory
from perfmodel.light_dataclass import replace
from perfmodel.serving.law import ServedLoad, admitted_sequences
from perfmodel.spec.evidence.spread import both_ends, with_numbers
from perfmodel.spec.fields import Numeric
from perfmodel.spec.serving.loads import E2E, RATES, TPOT, TTFT
from perfmodel.spec.serving.setup import ServingSetup


@lru_cache(maxsize=64)
def cache_ends(setup: ServingSetup) -> Mapping[str, tuple[float, float]]:
    """The bytes of the cache over what they are, with each uncertain size of the engine at either end of its interval.

    By key path; sizes that take nothing from the cache, and caches that hold nothing, have none.
    """
    memory = setup.engine.memory
    free = serving_memory(setup).cache_bytes
    spreads = {name: spread for name, spread in memory.spread.items() if spread}
    if free <= 0 or not spreads:
        return {}
    factors = both_ends(spreads, 0)
    sizes = with_numbers(memory, {name: getattr(memory, name) * factor for name, factor in factors.items()})
    moved = serving_memory(replace(setup, engine=with_numbers(setup.engine, {"memory": sizes}))).cache_bytes
    ratios = np.broadcast_to(moved, 1 + 2 * len(spreads)) / free
    ends = {name: (float(ratios[1 + 2 * place]), float(ratios[2 + 2 * place])) for place, name in enumerate(spreads)}
    return {f"engine.memory.{name}": both for name, both in ends.items() if both != (1.0, 1.0)}


def with_cache(setup: ServingSetup, load: ServedLoad, value: Numeric, metric: str, ratio: Numeric) -> Numeric:
    """The number that a metric of a load would be with a cache of `ratio` times its bytes (equations above); of all ratios."""
    clients, running = load.concurrency, load.running
    fit = np.maximum(np.minimum(load.fits * ratio, admitted_sequences(setup)), 1.0)
    others = np.where(clients >= load.fits, fit, np.minimum(clients, fit)) if metric in RATES else np.minimum(clients, fit)
    decode, passes = load.decode, np.maximum(load.output_tokens - 1.0, 0.0)
    life_s = load.cycle.total_s
    alike_s = np.minimum(passes * (decode.weights_s + decode.kernels_s + decode.messages_s + decode.host_s), life_s)
    later_s = alike_s + (life_s - alike_s) * others / running
    if metric in RATES:
        return value * (others / later_s) / (running / life_s)
    queued, queue, each = clients / running, clients / others, np.maximum(passes, 1.0)
    further = np.minimum(passes, 1.0)  # 0 of an answer of one token, between whose tokens nothing passes
    added_s: Mapping[str, tuple[Numeric, Numeric]] = {  # what is added, and what stays at least
        E2E: (later_s * queue - life_s * queued, later_s),
        TTFT: (later_s * (queue - 1.0) - life_s * (queued - 1.0), load.first.total_s),
        TPOT: (further * (later_s - life_s) / each, further * alike_s / each),
    }
    added, least = added_s.get(metric, (0.0, value))
    return np.maximum(value + added, np.minimum(least, value))
