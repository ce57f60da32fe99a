"""Fits the collectives of one machine between its own devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from perfmodel.benchmarks.fit.regression import MOST_SPREAD, Fit, Floats, Free, fit_of_few, rounded
from perfmodel.count.operators import Collective
from perfmodel.evidence.steps.records import Record
from perfmodel.spec.layout import ProcessGroup
from perfmodel.spec.machines.coefficients import CollectiveCoefficients
from perfmodel.timing.collectives import plain_collective_time_s

KINDS: Final = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")
FREE: Final = {
    "latency_s": Free(start=1e-4, low=1e-7, high=1e-2),
    "bandwidth_bytes_per_s": Free(start=2e9, low=1e7, high=1e12),
    "s_per_root_byte": Free(start=1e-7, low=1e-12, high=1e-5),
}
OF_SOCKETS: Final = {  # between the cores of a CPU: more than their buffers hold waits for whoever receives
    "buffered_bytes": Free(start=5e5, low=6e4, high=8e6),
    "beyond_buffers": Free(start=1.0, low=1e-3, high=20.0),
}
SOCKETS: Final = "gloo"
OF_MANY: Final = {"rank_latency_s": Free(start=1e-5, low=1e-9, high=1e-3)}  # where groups of several sizes were measured
OF_A_PAIR: Final = {"rank_latency_s": 0.0, "own_shard": 0.0}
LEAST_SPREAD: Final = 0.05
ALONE: Final = "nvlink-h100"  # of a machine with one device: nothing of it is used


def node_link(records: Sequence[Record], sources: dict[str, Any]) -> dict[str, Any] | str:
    """The mapping of the links inside the machine, or the preset of a machine that has one device."""
    inside = [each for each in records if each.sizes.get("nodes", 1) == 1]
    present = [kind for kind in KINDS if any(each.labels["operator"] == kind for each in inside)]
    if not present:
        sources["links.node"] = "nothing of it was measured: the machine has one device"
        return ALONE
    entries, rates = {}, []
    for kind in present:
        chosen = [each for each in inside if each.labels["operator"] == kind]
        found = _fit(kind, chosen)
        spread = {"bandwidth_bytes_per_s": min(_error(found, 0.9), MOST_SPREAD)}
        entries[kind] = OF_A_PAIR | found.found | {"scratch": _scratch(kind, chosen), "spread": spread}
        rates.append(found.found["bandwidth_bytes_per_s"])
        sources[f"links.node.collectives.{kind}"] = (
            f"{len(chosen)} calls of {chosen[0].labels.get('backend', 'torch.distributed')} on this machine; sizes held out: "
            f"median error {_error(found, 0.5):.1%}, 90th percentile {_error(found, 0.9):.1%}"
        )
    for kind in KINDS:
        if kind not in entries:
            entries[kind] = entries[present[-1]]
            measured = sources[f"links.node.collectives.{present[-1]}"]
            sources[f"links.node.collectives.{kind}"] = f"{present[-1]}, as no {kind} was measured: {measured}"
    sources["links.node.bandwidth_bytes_per_s"] = "the best rate of a fitted collective"
    ranks = sorted({each.sizes["ranks"] for each in inside})
    payload = [each.sizes["payload_bytes"] for each in inside]
    sizes = {"ranks": " ".join(f"{each:g}" for each in ranks), "payload_bytes": f"{min(payload):g} {max(payload):g}"}
    return {
        "name": "between the devices of this machine",
        "bandwidth_bytes_per_s": max(rates),
        "measured_bandwidth_bytes_per_s": max(rates),
        "collectives": {"name": "collectives of this machine", **entries, "evidence": {"basis": "measured", "sizes": sizes}},
    }


def _fit(kind: str, records: Sequence[Record]) -> Fit:
    """Fit one kind of collective; its errors are on sizes that were each held out once."""
    payload, ranks = (np.array([each.sizes[name] for each in records], dtype=float) for name in ("payload_bytes", "ranks"))
    group = ProcessGroup(name="node", ranks=ranks, stride=1)
    call = Collective(name=kind, kind=kind, payload_bytes=payload, group=group)
    several = len(np.unique(ranks)) > 1

    def equation(values: Mapping[str, Any]) -> Floats:
        return np.asarray(plain_collective_time_s(call, CollectiveCoefficients(**OF_A_PAIR | dict(values)), scale=1.0))

    seconds = np.array([each.seconds for each in records])
    free = FREE | (OF_MANY if several else {}) | (OF_SOCKETS if records[0].labels.get("backend") == SOCKETS else {})
    return fit_of_few(equation, free, seconds, np.unique(payload, return_inverse=True)[1])


def _scratch(kind: str, records: Sequence[Record]) -> float:
    """What the largest call allocated beside its result, for each byte of its payload."""
    largest = max(records, key=lambda each: each.sizes["payload_bytes"])
    payload, ranks = largest.sizes["payload_bytes"], largest.sizes["ranks"]
    result = {"all_gather": payload, "reduce_scatter": payload / ranks}.get(kind, 0.0)
    return max(rounded((largest.sizes.get("allocated_bytes", result) - result) / payload, 3), 0.0)


def _error(found: Fit, share: float) -> float:
    return max(rounded(float(np.quantile(np.abs(found.error), share)), 2), LEAST_SPREAD if share > 0.5 else 0.0)
