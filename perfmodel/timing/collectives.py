"""How long a collective takes, inside a node and over nodes, with the NICs its group can really use.

Symbols: n = payload_bytes (the full tensor), p = ranks, r = ranks in one node, N = nodes, B = bandwidth of a group.

Ignored: congestion between groups beyond their fair share of the NICs, and the traffic of other jobs: both are in
cluster.network_scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perfmodel.count.operators import Collective
from perfmodel.spec.coefficients import CollectiveCoefficients
from perfmodel.spec.fields import Numeric
from perfmodel.spec.hardware import Cluster, Link
from perfmodel.spec.layout import ProcessGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where the ranks of a group are: in how many nodes, how many in each, and what that leaves them of the NICs."""

    ranks_per_node: Numeric
    nodes: Numeric
    crosses_nodes: NDArray[np.bool_]
    network_bytes_per_s: Numeric  # of the whole group, out of and into one node, before any efficiency


def placement(group: ProcessGroup, cluster: Cluster) -> Placement:
    """r = min(p, max(1, node / stride)), N = ceil(p / r); the group's share of the NICs is r of the node's GPUs.

    A ring over whole nodes uses all NICs of each; a data-parallel group beside 8-way tensor parallelism has one GPU, and so
    the share of one GPU, in each node: its seven siblings use the rest.

    >>> from perfmodel.exchange.presets import cluster_preset
    >>> from perfmodel.spec.layout import ProcessGroup
    >>> where = placement(ProcessGroup(name="data_parallel", ranks=96, stride=8), cluster_preset("dgx-h100"))
    >>> float(where.nodes), float(where.network_bytes_per_s)
    (96.0, 50000000000.0)
    """
    per_node = np.minimum(group.ranks, np.maximum(np.floor(cluster.gpus_per_node / group.stride), 1))
    nodes = np.ceil(group.ranks / per_node)
    share = per_node * cluster.network_bytes_per_s_per_gpu
    return Placement(ranks_per_node=per_node, nodes=nodes, crosses_nodes=np.asarray(nodes > 1), network_bytes_per_s=share)


def collective_time_s(call: Collective, where: Placement, *, cluster: Cluster) -> Numeric:
    """Time [s] of one call on its own by a group that lies `where`; 0 for a group of one.

    >>> from perfmodel.exchange.presets import cluster_preset
    >>> from perfmodel.spec.layout import ProcessGroup
    >>> cluster, group = cluster_preset("dgx-h100"), ProcessGroup(name="tensor_parallel", ranks=8, stride=1)
    >>> call = Collective(name="gather", kind="all_gather", payload_bytes=50e6, group=group)
    >>> round(float(collective_time_s(call, placement(group, cluster), cluster=cluster)) * 1e6)  # us
    165
    """
    alone = np.asarray(call.group.ranks) > 1
    if not _any(where.crosses_nodes):
        return np.where(alone, node_collective_time_s(call, cluster=cluster), 0.0)
    across = network_collective_time_s(call, where, cluster=cluster)
    if not _any(~where.crosses_nodes):
        return across
    seconds = np.where(where.crosses_nodes, across, node_collective_time_s(call, cluster=cluster))
    return np.where(alone, seconds, 0.0)


def _any(truths: NDArray[np.bool_]) -> bool:
    """np.any, without its cost for a single truth."""
    return bool(truths) if truths.ndim == 0 else bool(truths.any())


def node_collective_time_s(call: Collective, *, cluster: Cluster) -> Numeric:
    """alpha + w/B + c*sqrt(w), w = the bytes each rank sends; coefficients of the smallest measured group that holds p.

    Fitted on NVIDIA AIConfigurator's nccl-tests tables; perfmodel/data/links names the fit and its error.
    """
    groups = cluster.links.node.groups
    ranks, wire = np.asarray(call.group.ranks), call.wire_bytes
    scale = node_link_scale(cluster)
    seconds = root_model_s(getattr(groups[-1], call.kind), wire, scale)
    for group in reversed(groups[:-1]):
        fits = ranks <= group.ranks
        if _any(fits):
            seconds = np.where(fits, root_model_s(getattr(group, call.kind), wire, scale), seconds)
    return seconds


def node_link_scale(cluster: Cluster) -> Numeric:
    """How much faster the links of a node are than those that were measured, times the health of this cluster's."""
    link = cluster.links.node
    return cluster.node_link_scale * (link.bandwidth_bytes_per_s / link.measured_bandwidth_bytes_per_s)


def root_model_s(known: CollectiveCoefficients, wire_bytes: Numeric, scale: Numeric) -> Numeric:
    """alpha + w/(B*scale) + c*sqrt(w)."""
    start = known.latency_s + known.s_per_root_byte * np.sqrt(wire_bytes)
    return start + wire_bytes / (known.bandwidth_bytes_per_s * scale)


def network_collective_time_s(call: Collective, where: Placement, *, cluster: Cluster) -> Numeric:
    """Ring: a + b*p + w/B, with w the bytes each rank sends; an all-reduce starts twice, or uses a tree if that is faster.

    Tree: c + d*log2(N) + 2*n/B, NCCL's double binary tree between nodes, whose latency grows with the logarithm of the nodes.
    B = NIC share of the group * efficiency(N), but never faster than the links inside the node.
    """
    link = cluster.links.network
    rate = _group_rate(call, where, cluster)
    start_s = link.latency_s + link.rank_latency_s * call.group.ranks
    if call.kind != "all_reduce":
        return start_s + call.wire_bytes / rate
    ring_s = 2.0 * start_s + call.wire_bytes / rate
    depth = np.log2(np.asarray(where.nodes, dtype=np.float64))
    tree_s = link.tree_start_s + link.tree_latency_s * depth + 2.0 * call.payload_bytes / rate
    return np.minimum(ring_s, tree_s)


def network_efficiency(nodes: Numeric, cluster: Cluster) -> Numeric:
    """e0 * (N / N0) ** -x: how much of the NICs a collective over N nodes gets. Source: NVIDIA/nccl#1229.

    >>> from perfmodel.exchange.presets import cluster_preset
    >>> round(float(network_efficiency(128, cluster_preset("dgx-h100"))) * 400)  # GB/s; 260 were measured
    260
    """
    link = cluster.links.network
    ratio = np.asarray(nodes / link.reference_nodes, dtype=np.float64)
    return link.efficiency * np.power(ratio, np.asarray(-link.scale_exponent, dtype=np.float64))


def _group_rate(call: Collective, where: Placement, cluster: Cluster) -> Numeric:
    network = where.network_bytes_per_s * network_efficiency(where.nodes, cluster) * cluster.network_scale
    inside = getattr(cluster.links.node.groups[-1], call.kind).bandwidth_bytes_per_s * node_link_scale(cluster)
    return np.where(where.ranks_per_node > 1, np.minimum(network, inside), network)


def crossed_link(call: Collective, *, cluster: Cluster) -> Link:
    """The slowest link that one call (of a single layout) crosses."""
    return cluster.links.network if placement(call.group, cluster).crosses_nodes else cluster.links.node
