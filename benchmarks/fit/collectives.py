"""Fits collectives: one law a kind for groups of any size inside a node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pandas as pd

from perfmodel.benchmarks.fit.checks.laboratories import AGREEING, PUBLIC_SOURCE, SAME_LINK, pooled_fit
from perfmodel.benchmarks.fit.profile import source_entry
from perfmodel.benchmarks.fit.regression import Fit, Floats, Free, fit_of_few, rounded
from perfmodel.benchmarks.fit.tables import AIC_SOURCE, Source
from perfmodel.count.operators import Collective
from perfmodel.spec.layout import ProcessGroup
from perfmodel.spec.machines.coefficients import CollectiveCoefficients, NodeCollectives, SwitchCoefficients
from perfmodel.spec.machines.hardware import Cluster
from perfmodel.timing.collectives import node_collective_time_s

KINDS: Final = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")
RING: Final = {
    "latency_s": Free(start=5e-6, low=1e-7, high=1e-4),
    "rank_latency_s": Free(start=1e-6, low=1e-8, high=1e-5),
    "own_shard": Free(start=0.4, low=0.01, high=2.0),
    "bandwidth_bytes_per_s": Free(start=4e11, low=1e10, high=1e12),
    "s_per_root_byte": Free(start=5e-9, low=1e-11, high=1e-7),
}
SWITCH: Final = {key: RING[key] for key in ("latency_s", "bandwidth_bytes_per_s", "s_per_root_byte")}
SWITCHED: Final = 8  # ranks at which the tables show NVLS; NVIDIA/nccl#1455 has it from 5
SWITCH_FROM: Final = 5
WITHOUT_SWITCH: Final = ("a100-sxm-80gb", "rtx-pro-6000-server")
LATENCY_SPREAD: Final = 0.2  # between versions of NCCL and kinds of node, by judgement
POINT_SPREAD: Final = {"latency_s": 0.5, "efficiency": 0.1}  # by judgement: rings and copies differ by as much
RING_SHARE: Final = {  # of the link's rate, that rings of 8 to 16 GiB reach on the links of each GPU
    "A100": (0.783, "A100, all-reduce of 16 GiB, 234.9 of 300 GB/s"),
    "H200": (0.807, "H200, ring all-gather, reduce-scatter and all-reduce of 16 GiB, 361 to 367 of 450 GB/s"),
    "B200": (0.757, "B200, ring all-reduce of 8 GiB over 4 to 8 GPUs, 674 to 682 of 900 GB/s"),
}
LARGE: Final = 16 * 2**20  # bytes: what training sends
BORROWED: Final = {
    "gb200": "b200"
}  # whose groups of 8 stand for those that the tables of 4 lack: within 1 % where both have one


def node_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The median over versions of NCCL of each kind, group and size."""
    return table.groupby(["operator", "ranks", "payload_bytes"]).seconds.median().reset_index()


def fit_kind(rows: pd.DataFrame, kind: str, cluster: Cluster, *, switched: bool) -> Fit:
    """The law of one kind, each size held out once; `switched` fits the all-reduce in the switch."""
    chosen = rows[rows.operator == kind]
    if kind == "all_reduce" and switched:
        chosen = chosen[chosen.ranks == SWITCHED]
    seconds = chosen.seconds.to_numpy(dtype=float)
    payload, ranks = chosen.payload_bytes.to_numpy(dtype=float), chosen.ranks.to_numpy(dtype=float)
    group = ProcessGroup(name="node", ranks=ranks, stride=1)
    call = Collective(name=kind, kind=kind, payload_bytes=payload, group=group)

    def equation(values: Mapping[str, Any]) -> Floats:
        return np.asarray(node_collective_time_s(call, cluster=_with(cluster, values, switched=switched)))

    groups = chosen.groupby("payload_bytes").ngroup().to_numpy()
    return fit_of_few(equation, SWITCH if switched else RING, seconds, groups)


def _with(cluster: Cluster, values: Mapping[str, Any], *, switched: bool) -> Cluster:
    """The cluster whose node collectives all have these coefficients."""
    ring = CollectiveCoefficients(**({key: free.start for key, free in RING.items()} if switched else values))
    switch = SwitchCoefficients(ranks=2, **values) if switched else None
    rings: dict[str, Any] = dict.fromkeys(KINDS, ring)
    known = NodeCollectives(name="fit", **rings, switch_reduce=switch)
    link = cluster.links.node
    node = replace(link, collectives=known, measured_bandwidth_bytes_per_s=link.bandwidth_bytes_per_s)
    return replace(cluster, links=replace(cluster.links, node=node), node_link_scale=1.0)


def fit_node(rows: pd.DataFrame, gpu: str, cluster: Cluster) -> tuple[dict[str, Any], dict[str, Fit]]:
    """The mapping of all kinds, and their fits. Its spread is the error of sizes that training sends."""
    fits: dict[str, Fit] = {}
    result: dict[str, Any] = {}
    for kind in KINDS:
        has_switch = kind == "all_reduce" and gpu not in WITHOUT_SWITCH
        ring_rows = rows[rows.ranks < SWITCHED] if has_switch else rows
        fits[kind] = fit_kind(ring_rows, kind, cluster, switched=False)
        result[kind] = fits[kind].found | {"spread": _spread(fits[kind])}
        if has_switch:
            fits["switch_reduce"] = fit_kind(rows, kind, cluster, switched=True)
            switch = fits["switch_reduce"]
            result["switch_reduce"] = {"ranks": SWITCH_FROM} | switch.found | {"spread": _spread(switch)}
    return result, fits


def _spread(fit: Fit) -> dict[str, float]:
    return fit.spread | {"latency_s": LATENCY_SPREAD, "bandwidth_bytes_per_s": _large_error(fit)["p90"]}


def _large_error(fit: Fit) -> dict[str, float]:
    """The error of the sizes that training sends: those that take longer than 16 MiB at 400 GB/s."""
    return fit.held_out_error(fit.measured_s >= LARGE / 4e11)


def link_profile(
    link: str,
    gpu: str,
    tables: Mapping[str, pd.DataFrame],
    cluster: Cluster,
    source: Source = AIC_SOURCE,
    *,
    public: pd.DataFrame | None = None,
) -> dict[str, Any]:
    """The mapping of perfmodel/data/collectives for one kind of link; `tables` maps a GPU to its measured collectives.

    `public` are all-reduces of other laboratories on the same links (laboratories.py), pooled with the first.
    """
    rows = node_rows(tables[gpu])
    lent = BORROWED.get(gpu)
    if lent:
        more = node_rows(tables[lent])
        rows = pd.concat([rows, more[more.ranks > rows.ranks.max()]])
    coefficients, fits = fit_node(rows, gpu, cluster)
    what = "nccl-tests in half precision, median of the versions of NCCL" + (f"; groups of 8 on {lent}" if lent else "")
    if source is not AIC_SOURCE:
        what = f"median over the records of each size; {what.partition('; ')[2]}".removesuffix("; ")
    sources: dict[str, Any] = {
        kind: source_entry(source, fit, what=what, errors={"all": fit.held_out_error(), "large": _large_error(fit)})
        for kind, fit in fits.items()
    }
    if public is not None and len(public):
        _pool(coefficients, sources, rows=rows, public=public, gpu=gpu, cluster=cluster)
    _add_point_to_point(coefficients, sources, fits["all_gather"], gpu)
    if "switch_reduce" in fits:
        sources["switch_reduce.ranks"] = (
            "NVIDIA/nccl#1455, in-switch reduction gains from 5 ranks; measured groups have it at 8"
        )
    sources["evidence"] = f"the groups of GPUs in {source.table}"
    own = node_rows(tables[gpu])
    sizes = {
        "ranks": " ".join(str(each) for each in sorted(set(own.ranks))),
        "payload_bytes": f"{own.payload_bytes.min()} {own.payload_bytes.max()}",
    }
    return {"name": f"NCCL on {link}", **coefficients, "evidence": {"basis": "measured", "sizes": sizes}, "sources": sources}


def _pool(
    coefficients: dict[str, Any],
    sources: dict[str, Any],
    *,
    rows: pd.DataFrame,
    public: pd.DataFrame,
    gpu: str,
    cluster: Cluster,
) -> None:
    """Put the law of several laboratories in place of that of one, and how much later a lone call begins."""
    switched = "switch_reduce" in coefficients
    kind = "switch_reduce" if switched else "all_reduce"
    own = rows[(rows.operator == "all_reduce") & ((rows.ranks == SWITCHED) | (not switched))]

    def equation(call: Collective, values: Mapping[str, Any]) -> Floats:
        return np.asarray(node_collective_time_s(call, cluster=_with(cluster, values, switched=switched)))

    pooled = pooled_fit(own, public, gpu, equation, SWITCH if switched else RING)
    coefficients[kind] |= pooled.found | {"spread": pooled.spread}
    entry = sources[kind]
    entry["what"] += f"; pooled with all-reduces of {PUBLIC_SOURCE} on {SAME_LINK[gpu]}, one weight a laboratory"
    if SAME_LINK[gpu] in AGREEING:
        entry["what"] += f", of which {AGREEING[SAME_LINK[gpu]]:.0f} agree on the second table between 4 and 64 MB"
    entry["rows"] += len(public)
    entry["held_out"] |= {f"large, {name} laboratory, its scalar taken out": error for name, error in pooled.errors.items()}
    coefficients["call_s"] = pooled.call_s
    sources["call_s"] = (
        f"fitted with the law of {kind} by benchmarks/fit/checks/laboratories.py: how much later calls of "
        f"{PUBLIC_SOURCE} begin on {SAME_LINK[gpu]}, each started alone by a framework, than the queued "
        "calls of nccl-tests in NVIDIA AIConfigurator"
    )


def _add_point_to_point(coefficients: dict[str, Any], sources: dict[str, Any], gather: Fit, gpu: str) -> None:
    """A message is a step of a ring: it starts as an all-gather of two, and goes at the rate of rings of large messages."""
    if gpu not in SAME_LINK:
        return
    share, where = RING_SHARE[SAME_LINK[gpu]]
    start_s = rounded(gather.found["latency_s"] + gather.found["rank_latency_s"], 4)
    coefficients["point_to_point"] = {"latency_s": start_s, "efficiency": share, "spread": POINT_SPREAD}
    sources["point_to_point.latency_s"] = (
        "a message is a step of a ring: the start of an all-gather of two GPUs in NVIDIA AIConfigurator"
    )
    sources["point_to_point.efficiency"] = (
        f"a message is a step of a ring: {PUBLIC_SOURCE}, {where}; NVIDIA/nccl-tests#149: 128-byte payloads leave 0.8 of the "
        "line rate, NVIDIA/nccl#1264: copy engines reach 380 of 450 GB/s on H100"
    )
    sources["point_to_point.spread"] = (
        "by judgement: 0.73 (NVIDIA/nccl-tests#331, four links) to 0.84 (copy engines) are reported"
    )
