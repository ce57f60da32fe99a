"""How long a collective takes, inside a node and over nodes, with the NICs its group can really use.

Symbols: n = payload_bytes (the full tensor), p = ranks, r = ranks in one node, N = nodes, B = bandwidth of a group.

Ignored: congestion between groups beyond their fair share of the NICs, and the traffic of other jobs: both are in
cluster.network_scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import numpy as np

from perfmodel.count.operators import Collective
from perfmodel.spec.coefficients import CollectiveCoefficients
from perfmodel.spec.fields import Numeric, Truth
from perfmodel.spec.hardware import Cluster
from perfmodel.spec.layout import ProcessGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where the ranks of a group are: in how many nodes, how many in each, and what that leaves them of the NICs."""

    ranks_per_node: Numeric
    nodes: Numeric
    crosses_nodes: Truth
    network_bytes_per_s: Numeric  # of the whole group, out of and into one node, before any efficiency


def placement(group: ProcessGroup, cluster: Cluster) -> Placement:
    """r = min(p, max(1, node / stride)), N = ceil(p / r); the group's share of the NICs is r of the node's GPUs.

    A ring over whole nodes uses all NICs of each; a data-parallel group beside 8-way tensor parallelism has one GPU, and so
    the share of one GPU, in each node: its seven siblings use the rest.
    """
    per_node = np.minimum(group.ranks, np.maximum(np.floor(cluster.gpus_per_node / group.stride), 1))
    nodes = np.ceil(group.ranks / per_node)
    share = per_node * cluster.network_bytes_per_s_per_gpu
    return Placement(ranks_per_node=per_node, nodes=nodes, crosses_nodes=nodes > 1, network_bytes_per_s=share)


def collective_time_s(call: Collective, *, cluster: Cluster) -> Numeric:
    """Time [s] of one call on its own; 0 for a group of one."""
    where = placement(call.group, cluster)
    inside = node_collective_time_s(call, cluster=cluster)
    across = network_collective_time_s(call, cluster=cluster)
    seconds = np.where(where.crosses_nodes, across, inside)
    return np.where(np.asarray(call.group.ranks) > 1, seconds, 0.0)


def node_collective_time_s(call: Collective, *, cluster: Cluster) -> Numeric:
    """alpha + w/B + c*sqrt(w), w = the bytes each rank sends; coefficients of the smallest measured group that holds p.

    Fitted on NVIDIA AIConfigurator's nccl-tests tables; perfmodel/data/links names the fit and its error.
    """
    groups = cluster.links.node.groups
    sizes = np.asarray([group.ranks for group in groups])
    index = np.minimum(np.searchsorted(sizes, np.asarray(call.group.ranks)), len(groups) - 1)
    wire = call.wire_bytes
    times = [root_model_s(getattr(group, call.kind), wire, cluster.node_link_scale) for group in groups]
    return reduce(lambda chosen, at: np.where(index == at, times[at], chosen), range(1, len(times)), np.asarray(times[0]))


def root_model_s(known: CollectiveCoefficients, wire_bytes: Numeric, scale: Numeric) -> Numeric:
    """alpha + w/(B*scale) + c*sqrt(w)."""
    start = known.latency_s + known.root_s * np.sqrt(wire_bytes)
    return start + wire_bytes / (known.bandwidth_bytes_per_s * scale)


def network_collective_time_s(call: Collective, *, cluster: Cluster) -> Numeric:
    """Ring: a + b*p + n*(p - 1)/(p*B) for a gather or scatter, twice that for an all-reduce, which may be a tree instead.

    B = NIC share of the group * efficiency(N), but never faster than the links inside the node.
    """
    ring_s = _ring_time_s(call, cluster)
    if call.kind != "all_reduce":
        return ring_s
    return np.minimum(ring_s, _tree_time_s(call, cluster))


def network_efficiency(nodes: Numeric, cluster: Cluster) -> Numeric:
    """e0 * (N / N0) ** -x: how much of the NICs a collective over N nodes gets. Source: NVIDIA/nccl#1229."""
    link = cluster.links.network
    ratio = np.asarray(nodes / link.reference_nodes, dtype=np.float64)
    return link.efficiency * np.power(ratio, np.asarray(-link.scale_exponent, dtype=np.float64))


def _ring_time_s(call: Collective, cluster: Cluster) -> Numeric:
    link = cluster.links.network
    passes = 2.0 if call.kind == "all_reduce" else 1.0
    return passes * (link.latency_s + link.rank_latency_s * call.group.ranks) + call.wire_bytes / _group_rate(call, cluster)


def _tree_time_s(call: Collective, cluster: Cluster) -> Numeric:
    """a + d*log2(N) + 2n/B: NCCL's double binary tree between nodes, whose latency grows with the logarithm of the nodes."""
    link = cluster.links.network
    nodes = placement(call.group, cluster).nodes
    depth = np.log2(np.asarray(nodes, dtype=np.float64))
    return link.latency_s + link.tree_latency_s * depth + 2.0 * call.payload_bytes / _group_rate(call, cluster)


def _group_rate(call: Collective, cluster: Cluster) -> Numeric:
    where = placement(call.group, cluster)
    network = where.network_bytes_per_s * network_efficiency(where.nodes, cluster) * cluster.network_scale
    inside = getattr(cluster.links.node.groups[-1], call.kind).bandwidth_bytes_per_s * cluster.node_link_scale
    return np.where(where.ranks_per_node > 1, np.minimum(network, inside), network)


def link_name(call: Collective, *, cluster: Cluster) -> str:
    """The name of the link that one call (of a single layout) crosses."""
    crosses = bool(placement(call.group, cluster).crosses_nodes)
    return cluster.links.network.name if crosses else cluster.links.node.name
