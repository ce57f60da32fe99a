"""How long a collective takes, inside a node and over nodes, with the NICs its group can really use.

Symbols: n = payload_bytes (the full tensor), p = ranks, r = ranks in one node, N = nodes, B = bandwidth of a group.

Ignored: congestion between groups beyond their fair share of the NICs, and the traffic of other jobs: both are in
cluster.network_scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from perfmodel.count.operators import Collective, places_met, ranks_met
from perfmodel.light_dataclass import dataclass, replace
from perfmodel.spec.fields import Numeric, anywhere, chosen, is_same
from perfmodel.spec.layout import ProcessGroup
from perfmodel.spec.machines.coefficients import CollectiveCoefficients, NetworkCollectives
from perfmodel.spec.machines.hardware import Cluster, Link


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where the ranks of a group are: in how many nodes, how many in each, and what that leaves them of the NICs."""

    ranks_per_node: Numeric
    nodes: Numeric
    crosses_nodes: NDArray[np.bool_]
    network_bytes_per_s: Numeric  # of the whole group, out of and into one node, before any efficiency


def placement(group: ProcessGroup, cluster: Cluster) -> Placement:
    """r = min(p, max(1, node / stride)), N = ceil(p / r); the group's share of the NICs is that of its GPUs in a node.

    A ring passes through every node: the one that holds fewest of its GPUs bounds it. A ring over whole nodes uses all NICs
    of each; a data-parallel group beside 8-way tensor parallelism has one GPU, and so the share of one GPU, in each node:
    its seven siblings use the rest. Where p is no multiple of r, a job takes equally many GPUs of every node if it can
    (launchers start as many ranks on each, Slurm's topology/block gives NVLink domains in equal segments): r is then the
    largest divisor of p that leaves less than half of a node empty, 64 of 72 for 512 GPUs.

    >>> from perfmodel.exchange.presets import cluster_preset
    >>> from perfmodel.spec.layout import ProcessGroup
    >>> where = placement(ProcessGroup(name="data_parallel", ranks=96, stride=8), cluster_preset("dgx-h100"))
    >>> float(where.nodes), float(where.network_bytes_per_s)
    (96.0, 50000000000.0)
    """
    per_node = np.minimum(group.ranks, np.maximum(np.floor(cluster.gpus_per_node / group.stride), 1))
    if anywhere(group.ranks % per_node != 0):
        per_node = _even_ranks(group.ranks, per_node)
    nodes = np.ceil(group.ranks / per_node)
    fewest = np.minimum(per_node, group.ranks - per_node * (nodes - 1))  # of the last node, which may be part full
    share = fewest * cluster.network_bytes_per_s_per_gpu
    return Placement(ranks_per_node=per_node, nodes=nodes, crosses_nodes=np.asarray(nodes > 1), network_bytes_per_s=share)


def _even_ranks(ranks: Numeric, most: NDArray[np.float64]) -> NDArray[np.float64]:
    """The largest divisor of `ranks` between most/2 and `most`; `most` where there is none.

    >>> [int(_even_ranks(ranks, np.array(72.0))) for ranks in (512, 144, 2048, 79)]
    [64, 72, 64, 72]
    """
    every, most = (np.array(each, dtype=np.float64) for each in np.broadcast_arrays(ranks, most))
    found, left = most.reshape(-1).copy(), np.flatnonzero(every % most)
    for fewer in range(1, int(np.max(most)) // 2 + 1):
        left = left[2 * fewer <= most.flat[left]]  # those that may still have a divisor: fewer with every pass
        candidate = most.flat[left] - fewer
        fits = every.flat[left] % candidate == 0
        found[left[fits]] = candidate[fits]
        left = left[~fits]
    return found.reshape(most.shape)


def collective_time_s(call: Collective, *, cluster: Cluster, where: Placement | None = None) -> Numeric:
    """Time [s] of one call on its own; 0 for a group of one. Pass `where` if the placement of its group is known.

    >>> from perfmodel.exchange.presets import cluster_preset
    >>> from perfmodel.spec.layout import ProcessGroup
    >>> cluster, group = cluster_preset("dgx-h100"), ProcessGroup(name="tensor_parallel", ranks=8, stride=1)
    >>> call = Collective(name="gather", kind="all_gather", payload_bytes=50e6, group=group)
    >>> round(float(collective_time_s(call, cluster=cluster)) * 1e6)  # us
    166
    """
    where = placement(call.group, cluster) if where is None else where
    if call.stepwise:
        return _stepwise_s(call, where, cluster=cluster)
    alone = np.asarray(call.group.ranks) > 1
    if not anywhere(where.crosses_nodes):
        return chosen(alone, node_collective_time_s(call, cluster=cluster), 0.0)
    across = network_collective_time_s(call, where, cluster=cluster)
    if not anywhere(~where.crosses_nodes):
        return across
    seconds = chosen(where.crosses_nodes, across, node_collective_time_s(call, cluster=cluster))
    return chosen(alone, seconds, 0.0)


def collective_times_s(calls: Sequence[Collective], places: Mapping[str, Placement], *, cluster: Cluster) -> list[Numeric]:
    """collective_time_s of each call, given where its group is; calls that differ in nothing but their names are timed once."""
    times: list[Numeric] = []
    known: dict[tuple[str, str, bool], list[tuple[Numeric, Numeric]]] = {}
    for call in calls:
        alike = known.setdefault((call.kind, call.group.name, call.stepwise), [])
        seconds = next((once_s for payload, once_s in alike if is_same(payload, call.payload_bytes)), None)
        if seconds is None:
            seconds = collective_time_s(call, cluster=cluster, where=places[call.group.name])
            alike.append((call.payload_bytes, seconds))
        times.append(seconds)
    return times


def lone_call_time_s(call: Collective, *, cluster: Cluster) -> Numeric:
    """Time [s] of a call on an idle GPU, as a benchmark that starts call by call sees it: collective_time_s + call_s.

    Calls that are enqueued back to back (nccl-tests), and those of a training step whose host runs ahead, hide their launch;
    where a host cannot, its launches are priced as such (stack.host). A group over nodes and a message start as fitted.
    """
    seconds = collective_time_s(call, cluster=cluster)
    inside = ~placement(call.group, cluster).crosses_nodes & (np.asarray(call.group.ranks) > 1)
    later_s = 0.0 if call.kind == "point_to_point" else cluster.links.node.collectives.call_s
    return seconds + chosen(inside, later_s, 0.0)


def _stepwise_s(call: Collective, where: Placement, *, cluster: Cluster) -> Numeric:
    """(p - 1) * message(n / p): a gather beside the pieces of a product passes one piece to a neighbour at a time."""
    ranks = np.asarray(call.group.ranks)
    message = replace(call, kind="point_to_point", payload_bytes=call.payload_bytes / ranks, stepwise=False)
    return (ranks - 1) * collective_time_s(message, cluster=cluster, where=where)


def node_collective_time_s(call: Collective, *, cluster: Cluster) -> Numeric:
    """a + b*(p - 1) + (w + k*n/p)/B + c*sqrt(w), w = the bytes each rank sends, k*n/p = its own share, copied beside them.

    Where the switch adds up (NVLS), an all-reduce of enough ranks takes a + v/B + c*sqrt(v), v = n*(1 + 1/p): each rank hands
    the switch all of its tensor once and its own share of the sum once more, to be passed to all. One message takes
    a + n/(e*link). Fitted on NVIDIA AIConfigurator's nccl-tests tables, over 2 to 8 GPUs, and on other laboratories' bus
    bandwidths; the law in p holds beyond: perfmodel/data/collectives has the error.
    """
    known = cluster.links.node.collectives
    if call.kind == "point_to_point":
        return _node_message_s(call, cluster)
    if call.kind == "token_exchange":
        call = replace(call, kind="all_to_all", payload_bytes=call.once_bytes * ranks_met(call, call.group.ranks))
    ranks, scale = np.asarray(call.group.ranks), node_link_scale(cluster)
    seconds = plain_collective_time_s(call, getattr(known, call.kind), scale=scale)
    switch = known.switch_reduce
    if call.kind != "all_reduce" or switch is None or not anywhere(ranks >= switch.ranks):
        return seconds
    moved = _switched_bytes(call.payload_bytes, ranks)
    start = switch.latency_s + switch.s_per_root_byte * np.sqrt(moved)
    return chosen(ranks >= switch.ranks, start + moved / (switch.bandwidth_bytes_per_s * scale), seconds)


def _node_message_s(call: Collective, cluster: Cluster) -> Numeric:
    """a + n/(e*link); half of an all-to-all of two on links whose messages were not measured."""
    link = cluster.links.node
    known = link.collectives.point_to_point
    if known is None:
        pair = replace(call, kind="all_to_all", payload_bytes=2.0 * call.payload_bytes, group=replace(call.group, ranks=2))
        return node_collective_time_s(pair, cluster=cluster)
    rate = known.efficiency * link.bandwidth_bytes_per_s * cluster.node_link_scale
    return known.latency_s + call.payload_bytes / rate


def _switched_bytes(payload_bytes: Numeric, ranks: Numeric) -> Numeric:
    """n*(1 + 1/p): what each link carries of an all-reduce in the switch, in each direction."""
    return payload_bytes * (1.0 + 1.0 / ranks)


def plain_collective_time_s(call: Collective, ring: CollectiveCoefficients, *, scale: Numeric) -> Numeric:
    """The ring with given coefficients, on links whose rates are those that were measured times `scale`.

    A byte beyond what the buffers between two ranks hold, d, takes (1 + f) times as long: w + f*max(w - d, 0) for w. Sockets
    are such: a send returns at once until they are full, and then waits for whoever receives.
    """
    ranks, wire = np.asarray(call.group.ranks), np.asarray(call.wire_bytes)
    moved = wire + ring.own_shard * call.payload_bytes / ranks
    if anywhere(ring.beyond_buffers):
        moved = moved + ring.beyond_buffers * np.maximum(wire - ring.buffered_bytes, 0.0)
    seconds: Numeric = ring.latency_s + ring.rank_latency_s * (ranks - 1) + ring.s_per_root_byte * np.sqrt(wire)
    return seconds + moved / (ring.bandwidth_bytes_per_s * scale)


def node_link_scale(cluster: Cluster) -> Numeric:
    """How much faster the links of a node are than those that were measured, times the health of this cluster's."""
    link = cluster.links.node
    return cluster.node_link_scale * (link.bandwidth_bytes_per_s / link.measured_bandwidth_bytes_per_s)


def network_collective_time_s(call: Collective, where: Placement, *, cluster: Cluster) -> Numeric:
    """Ring: a + b*(p - N) + d*N + fill + w/B, with w the bytes each rank sends; an all-reduce starts twice, or uses a tree.

    The ring passes through every node once, over all NICs that its ranks own: hierarchical in that only d*N of its steps
    cross the network. Tree (where faster): c + f*log2(N) + fill + u/B, u = n*min(N/2, 2), NCCL's double binary tree between
    nodes. B = NIC share of the group * efficiency(N), but never faster than the links inside the node. fill: _fill_s. An
    all-to-all sends straight from each rank to every other, on its own NIC; the share of its own node goes beside, over the
    node's links.
    """
    known = cluster.links.network.collectives
    nodes, ranks = np.asarray(where.nodes, dtype=np.float64), call.group.ranks
    if call.kind == "point_to_point":
        rate = cluster.network_bytes_per_s_per_gpu * known.point_efficiency * cluster.network_scale
        return known.point_latency_s + call.payload_bytes / rate
    if call.kind == "all_to_all":
        return _network_all_to_all_s(call, where, cluster)
    if call.kind == "token_exchange":
        return network_exchange_time_s(call, where, cluster)
    rate = _ring_rate(call, where, cluster)
    start_s = known.latency_s + known.rank_latency_s * (ranks - nodes) + known.node_latency_s * nodes
    fill_s = _fill_s(call, nodes, known)
    if call.kind != "all_reduce":
        return start_s + fill_s + call.wire_bytes / rate
    ring_s = 2.0 * start_s + call.wire_bytes / rate
    tree_s = known.tree_start_s + known.tree_latency_s * np.log2(nodes) + _tree_transfer_s(call, where, cluster)
    return np.minimum(ring_s, tree_s) + fill_s


def _fill_s(call: Collective, nodes: Numeric, known: NetworkCollectives) -> Numeric:
    """k*N*g*min(n/n0, 1): how long the first chunk of a message is alone on its way past all N nodes, k = 2 of an all-reduce.

    Chunks grow with the message up to their largest, from n0 on. An all-reduce passes every node twice, to add up and to hand
    round. All-reduces of 256 MB on AWS p5 grow so, from 3.1 ms over 4 nodes to 15.5 over 64 (Hugging Face, Ultra-Scale
    Playbook, bandwidth by number of nodes); 2.3 and 11.5 ms are predicted.
    """
    passes = 2.0 if call.kind == "all_reduce" else 1.0
    filled = np.minimum(call.payload_bytes / known.fill_bytes, 1.0)
    seconds: Numeric = passes * nodes * known.fill_s * filled
    return seconds


def _tree_transfer_s(call: Collective, where: Placement, cluster: Cluster) -> Numeric:
    """max(n*min(N/2, 2)/B, inside), inside = 2*n/B_node of a chain or n*(1 + 1/r)/B_switch.

    Each of two trees carries half of the tensor, n/2, up every edge and down again. A node is inside one tree, with a parent
    and two children, and a leaf of the other: it sends n/2 up each and n/2 down to each child, 2*n. Of two nodes each has but
    one edge in both trees and sends n (NVIDIA/nccl#946: half of what the links inside carry); of three the busiest sends
    1.5*n.
    """
    network = _network_rate(where, cluster, where.network_bytes_per_s)
    between_s = call.payload_bytes * tree_share(where.nodes) / network
    known, inside = cluster.links.node.collectives, np.asarray(where.ranks_per_node, dtype=np.float64)
    inside_s = 2.0 * call.payload_bytes / known.all_reduce.bandwidth_bytes_per_s
    if known.switch_reduce is not None:
        switched_s = _switched_bytes(call.payload_bytes, inside) / known.switch_reduce.bandwidth_bytes_per_s
        inside_s = chosen(inside >= known.switch_reduce.ranks, switched_s, inside_s)
    return np.maximum(between_s, chosen(inside > 1, inside_s / node_link_scale(cluster), 0.0))


def tree_share(nodes: Numeric) -> Numeric:
    """min(N/2, 2): what the busiest node sends into the network for each byte that a double binary tree over N nodes adds up.

    >>> [float(tree_share(nodes)) for nodes in (2, 3, 4, 128)]
    [1.0, 1.5, 2.0, 2.0]
    """
    return np.minimum(np.asarray(nodes, dtype=np.float64) / 2.0, 2.0)


def _network_all_to_all_s(call: Collective, where: Placement, cluster: Cluster) -> Numeric:
    """a + g*(p - r) + max(n*(r - 1)/p / B_node, n*(p - r)/p / B_nic): each rank has its own links and its own NIC."""
    known, ranks, inside = cluster.links.network.collectives, call.group.ranks, where.ranks_per_node
    node_rate = cluster.links.node.collectives.all_to_all.bandwidth_bytes_per_s * node_link_scale(cluster)
    near_s = call.payload_bytes * (inside - 1) / ranks / node_rate
    far_s = call.payload_bytes * (ranks - inside) / ranks / _network_rate(where, cluster, cluster.network_bytes_per_s_per_gpu)
    return known.latency_s + known.peer_latency_s * (ranks - inside) + np.maximum(near_s, far_s)


def network_exchange_time_s(call: Collective, where: Placement, cluster: Cluster) -> Numeric:
    """a + g*(p - r) + max(near/B_node, far/B_nic): a token crosses the network once for each node that it goes to.

    With u bytes of all tokens, once: far = u * (nodes met) * (N - 1)/N, near = u * (ranks met) * (r - 1)/r, which links of a
    node pass on. Source: deepseek-ai/DeepEP; arXiv:2603.07685, table 7.
    """
    known, ranks, inside = cluster.links.network.collectives, call.group.ranks, where.ranks_per_node
    once = call.once_bytes
    node_rate = cluster.links.node.collectives.all_to_all.bandwidth_bytes_per_s * node_link_scale(cluster)
    near_s = once * ranks_met(call, ranks) * (inside - 1) / inside / node_rate
    far = once * places_met(call, where.nodes) * (where.nodes - 1) / where.nodes
    far_s = far / _network_rate(where, cluster, cluster.network_bytes_per_s_per_gpu)
    return known.latency_s + known.peer_latency_s * (ranks - inside) + np.maximum(near_s, far_s)


def network_efficiency(nodes: Numeric, cluster: Cluster) -> Numeric:
    """e0 * max(N / N0, 1) ** -x: how much of the NICs a collective over N nodes gets, its latency apart.

    >>> from perfmodel.exchange.presets import cluster_preset
    >>> [round(float(network_efficiency(nodes, cluster_preset("dgx-h100"))), 2) for nodes in (2, 4, 128)]
    [0.91, 0.91, 0.69]
    """
    known = cluster.links.network.collectives
    ratio = np.maximum(np.asarray(nodes / known.reference_nodes, dtype=np.float64), 1.0)
    return known.efficiency * np.power(ratio, np.asarray(-known.scale_exponent, dtype=np.float64))


def _network_rate(where: Placement, cluster: Cluster, share: Numeric) -> Numeric:
    """What a group really gets of a share [bytes/s] of the NICs of a node."""
    return share * network_efficiency(where.nodes, cluster) * cluster.network_scale


def _ring_rate(call: Collective, where: Placement, cluster: Cluster) -> Numeric:
    """Rate [bytes/s] of a group's ring, which is never faster than the links inside a node that it passes through."""
    network = _network_rate(where, cluster, where.network_bytes_per_s)
    inside = getattr(cluster.links.node.collectives, call.kind).bandwidth_bytes_per_s * node_link_scale(cluster)
    return chosen(where.ranks_per_node > 1, np.minimum(network, inside), network)


def crossed_link(call: Collective, *, cluster: Cluster) -> Link:
    """The slowest link that one call (of a single layout) crosses."""
    return cluster.links.network if placement(call.group, cluster).crosses_nodes else cluster.links.node
