"""How a server was loaded when it was measured, and what was measured of it."""

from __future__ import annotations

from typing import Final

CLOSED: Final = "closed"  # so many clients, each with one request at a time
STATIC: Final = "static"  # one batch that starts and ends together
SATURATED: Final = "saturated"  # more clients than the sequences that the engine admits
OFFLINE: Final = "offline"  # all requests are there at once: the throughput of a full server
POISSON: Final = "poisson"  # requests come at random, at the highest rate that keeps a limit of latency
SINGLE: Final = "single"  # one request at a time
LOADS: Final = (CLOSED, STATIC, SATURATED, OFFLINE, POISSON, SINGLE)

TTFT: Final = "ttft_s"
TPOT: Final = "tpot_s"
E2E: Final = "e2e_s"
TOKENS: Final = "tokens_per_s"
REQUESTS: Final = "requests_per_s"
DECODE: Final = "itl_median_s"
MEMORY: Final = "peak_memory_gib"
RATES: Final = (TOKENS, REQUESTS)  # of all clients together
METRICS: Final = (E2E, TPOT, TTFT, TOKENS, REQUESTS, DECODE, MEMORY)
