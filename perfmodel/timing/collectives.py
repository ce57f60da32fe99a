"""How long a collective takes, inside a node and over nodes, with the NICs its group can really use.

Symbols: n = payload_bytes (the full tensor), p = ranks, r = ranks in one node, N = nodes, B = bandwidth of a group.

Ignored: congestion between groups beyond their fair share of the NICs, and the traffic of other jobs: both are in
cluster.network_scale.
"""

from __future__ import annotations

from dataclasses import dataclass

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
    alone = np.asarray(call.group.ranks) > 1
    if not np.any(where.crosses_nodes):
        return np.where(alone, node_collective_time_s(call, cluster=cluster), 0.0)
    across = network_collective_time_s(call, where, cluster=cluster)
    if np.all(where.crosses_nodes):
        return across
    seconds = np.where(where.crosses_nodes, across, node_collective_time_s(call, cluster=cluster))
    return np.where(alone, seconds, 0.0)


def node_collective_time_s(call: Collective, *, cluster: Cluster) -> Numeric:
    """alpha + w/B + c*sqrt(w), w = the bytes each rank sends; coefficients of the smallest measured group that holds p.

    Fitted on NVIDIA AIConfigurator's nccl-tests tables; perfmodel/data/links names the fit and its error.
    """
    groups = cluster.links.node.groups
    ranks, wire = np.asarray(call.group.ranks), call.wire_bytes
    seconds = root_model_s(getattr(groups[-1], call.kind), wire, cluster.node_link_scale)
    for group in reversed(groups[:-1]):
        fits = ranks <= group.ranks
        if np.any(fits):
            seconds = np.where(fits, root_model_s(getattr(group, call.kind), wire, cluster.node_link_scale), seconds)
    return seconds


def root_model_s(known: CollectiveCoefficients, wire_bytes: Numeric, scale: Numeric) -> Numeric:
    """alpha + w/(B*scale) + c*sqrt(w)."""
    start = known.latency_s + known.root_s * np.sqrt(wire_bytes)
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
    inside = getattr(cluster.links.node.groups[-1], call.kind).bandwidth_bytes_per_s * cluster.node_link_scale
    return np.where(where.ranks_per_node > 1, np.minimum(network, inside), network)


def link_name(call: Collective, *, cluster: Cluster) -> str:
    """The name of the link that one call (of a single layout) crosses."""
    crosses = bool(placement(call.group, cluster).crosses_nodes)
    return cluster.links.network.name if crosses else cluster.links.node.name
