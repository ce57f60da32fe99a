"""Do collectives have the right limits, use the NICs they can, and come near published measurements?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.count.operators import Collective
from perfmodel.exchange.presets import cluster_preset
from perfmodel.spec.fields import Numeric
from perfmodel.spec.layout import ProcessGroup
from perfmodel.spec.machines.hardware import Cluster
from perfmodel.timing.collectives import (
    collective_time_s,
    crossed_link,
    lone_call_time_s,
    network_efficiency,
    node_collective_time_s,
    tree_share,
)

H100 = cluster_preset("dgx-h100")
H200 = cluster_preset("dgx-h200")
A100 = cluster_preset("dgx-a100")
KINDS = ("all_reduce", "all_gather", "reduce_scatter")
EVERY_KIND = (*KINDS, "all_to_all", "point_to_point")
NETWORK = H100.links.network.collectives
NIC = H100.network_bytes_per_s_per_gpu  # 50 GB/s
HUGE = 1e15  # bytes: all latencies are nothing


def call(kind: str, payload_bytes: Numeric, ranks: Numeric, stride: Numeric = 1) -> Collective:
    """A collective of a group."""
    group = ProcessGroup(name="group", ranks=ranks, stride=stride)
    return Collective(name=kind, kind=kind, payload_bytes=payload_bytes, group=group)


def alone_s(one: Collective, cluster: Cluster) -> Numeric:
    """The time of a call by a group where it lies."""
    return collective_time_s(one, cluster=cluster)


def with_node(kind: str, **changes: Any) -> Cluster:
    """The H100 cluster with other coefficients of one collective inside the node."""
    link = H100.links.node
    ring = replace(getattr(link.collectives, kind), **changes)
    link = replace(link, collectives=replace(link.collectives, **{kind: ring}))
    return replace(H100, links=replace(H100.links, node=link))


def with_network(**changes: Any) -> Cluster:
    """The H100 cluster with other coefficients of the network."""
    link = replace(H100.links.network, collectives=replace(NETWORK, **changes))
    return replace(H100, links=replace(H100.links, network=link))


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_one_rank_communicates_nothing(kind: str) -> None:
    """A group of one needs no time, alone or among others."""
    assert alone_s(call(kind, 1e9, 1), H100) == 0
    times = np.asarray(alone_s(call(kind, 1e9, np.array([1, 64])), H100))
    assert times[0] == 0 < times[1]


def test_bytes_beyond_what_buffers_hold_take_longer() -> None:
    """Each as if it were three: w + 2*(w - d). A message that they hold, and links without such buffers, are as they were."""
    limited = with_node("all_gather", buffered_bytes=1e6, beyond_buffers=2.0)
    rate = H100.links.node.collectives.all_gather.bandwidth_bytes_per_s * H100.node_link_scale
    for wire, longer_s in ((1e6, 0.0), (4e6, 2.0 * 3e6 / rate)):
        one = call("all_gather", 2.0 * wire, 2)
        assert one.wire_bytes == wire
        assert alone_s(one, limited) - alone_s(one, H100) == pytest.approx(longer_s, rel=1e-9, abs=1e-15)
    assert alone_s(call("all_reduce", 4e6, 2), limited) == alone_s(call("all_reduce", 4e6, 2), H100)


@pytest.mark.parametrize(("kind", "bus_rate"), [("all_reduce", 450e9), ("all_gather", 335e9), ("reduce_scatter", 335e9)])
def test_a_large_collective_in_a_node_reaches_the_measured_bus_bandwidth(kind: str, bus_rate: float) -> None:
    """Eight H100, 512 MiB: the largest rates of the nccl-tests tables."""
    one = call(kind, 2.0**29, 8)
    assert one.wire_bytes / alone_s(one, H100) == pytest.approx(bus_rate, rel=0.07)


@pytest.mark.parametrize("ranks", [2, 3, 4, 8])
@pytest.mark.parametrize("kind", ["all_gather", "reduce_scatter", "all_to_all"])
def test_an_empty_collective_in_a_node_takes_a_start_and_a_step_for_each_rank(kind: str, ranks: int) -> None:
    """a + b*(p - 1)."""
    known = getattr(H100.links.node.collectives, kind)
    assert alone_s(call(kind, 0.0, ranks), H100) == pytest.approx(known.latency_s + known.rank_latency_s * (ranks - 1))


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_a_large_collective_in_a_node_moves_what_it_sends_and_some_of_its_own_share(ranks: int) -> None:
    """n * (p - 1)/p over the link, and beside it k of the n/p that stay."""
    without, half = (with_node("all_gather", own_shard=share, bandwidth_bytes_per_s=4e11) for share in (0.0, 0.5))
    one = call("all_gather", HUGE, ranks)
    assert alone_s(one, without) == pytest.approx(HUGE * (ranks - 1) / ranks / 4e11, rel=1e-3)
    assert alone_s(one, half) - alone_s(one, without) == pytest.approx(0.5 * HUGE / ranks / 4e11, rel=1e-9)


def test_a_transfer_fills_its_pipeline_with_the_root_of_its_bytes() -> None:
    """c * sqrt(w): four times the bytes, twice the seconds."""
    plain, filling = (with_node("all_gather", s_per_root_byte=each) for each in (0.0, 1e-8))
    extra_s = [alone_s(call("all_gather", n, 8), filling) - alone_s(call("all_gather", n, 8), plain) for n in (1e6, 4e6)]
    assert extra_s == pytest.approx([1e-8 * (1e6 * 7 / 8) ** 0.5, 2e-8 * (1e6 * 7 / 8) ** 0.5])


@pytest.mark.parametrize("ranks", [5, 6, 8])
def test_an_all_reduce_in_the_switch_carries_the_tensor_and_a_share(ranks: int) -> None:
    """n * (1 + 1/p) over each link, in either direction, whatever a ring would send."""
    switch = H100.links.node.collectives.switch_reduce
    assert switch is not None
    expected = HUGE * (1 + 1 / ranks) / switch.bandwidth_bytes_per_s
    assert alone_s(call("all_reduce", HUGE, ranks), H100) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("ranks", "rate"), [(5, 414.2e9), (6, 435.6e9), (7, 460.0e9)])
def test_the_bus_bandwidth_of_the_switch_grows_with_its_ranks_as_published(ranks: int, rate: float) -> None:
    """H200, 8 GiB: against the 473.1 GB/s of eight GPUs (stas00/ml-engineering)."""
    few, eight = (call("all_reduce", 2.0**33, p) for p in (ranks, 8))
    rates = [float(one.wire_bytes / alone_s(one, H200)) for one in (few, eight)]
    assert rates[0] / rates[1] == pytest.approx(rate / 473.1e9, rel=0.03)


def test_an_all_reduce_of_few_goes_round_a_ring_beside_the_switch() -> None:
    """Fewer than five ranks pass every one of them."""
    two, three, four = (alone_s(call("all_reduce", 0.0, p), H100) for p in (2, 3, 4))
    assert two < three < four
    assert four - three == pytest.approx(three - two)


def test_without_a_switch_that_adds_every_all_reduce_goes_round_a_ring() -> None:
    """A100: each rank adds the same step, to the last of the node."""
    assert A100.links.node.collectives.switch_reduce is None
    times = np.asarray(alone_s(call("all_reduce", 0.0, np.arange(2, 9)), A100))
    assert np.diff(times) == pytest.approx(np.full(6, A100.links.node.collectives.all_reduce.rank_latency_s))


def test_groups_below_and_above_the_switch_are_timed_side_by_side() -> None:
    """An array of ranks gives what each gives alone."""
    ranks = np.array([2, 4, 5, 8])
    together = node_collective_time_s(call("all_reduce", 1e7, ranks), cluster=H100)
    alone = [node_collective_time_s(call("all_reduce", 1e7, int(p)), cluster=H100) for p in ranks]
    assert np.array_equal(np.asarray(together), np.asarray(alone))


@pytest.mark.parametrize("kind", [*KINDS, "all_to_all"])
def test_a_lone_call_inside_a_node_begins_later(kind: str) -> None:
    """By the launch that no other call hides, whatever its size; a group of one launches nothing."""
    later_s = H100.links.node.collectives.call_s
    for one in (call(kind, 0.0, 8), call(kind, 1e8, 8)):
        assert lone_call_time_s(one, cluster=H100) - alone_s(one, H100) == pytest.approx(later_s)
    assert lone_call_time_s(call(kind, 1e8, 1), cluster=H100) == 0


@pytest.mark.parametrize("one", [call("point_to_point", 1e6, 2), call("all_reduce", 1e6, 16)])
def test_messages_and_groups_over_nodes_begin_as_they_were_measured(one: Collective) -> None:
    """Their starts were fitted on such calls."""
    assert lone_call_time_s(one, cluster=H100) == alone_s(one, H100)


@pytest.mark.parametrize("ranks", [2, 8])
def test_a_message_to_a_neighbour_takes_its_start_and_a_share_of_the_link(ranks: int) -> None:
    """a + n/(e*link); how many ranks the group has does not matter."""
    known = H100.links.node.collectives.point_to_point
    assert known is not None
    expected = known.latency_s + 1e7 / (known.efficiency * 450e9)
    assert alone_s(call("point_to_point", 1e7, ranks), H100) == pytest.approx(expected)


@pytest.mark.parametrize("cluster", [A100, H100])
def test_a_message_of_a_megabyte_is_twice_as_fast_as_half_an_exchange(cluster: Cluster) -> None:
    """An all-to-all of two copies its own half and starts channels to each peer."""
    message, exchange = call("point_to_point", 2.0**20, 2), call("all_to_all", 2.0**21, 2)
    assert alone_s(exchange, cluster) / alone_s(message, cluster) > 1.9


def test_a_message_on_links_without_one_is_half_of_an_all_to_all_of_two() -> None:
    """Which sends half of its payload: what a machine's own records may leave unmeasured."""
    link = H100.links.node
    bare = replace(link, collectives=replace(link.collectives, point_to_point=None))
    cluster = replace(H100, links=replace(H100.links, node=bare))
    assert alone_s(call("point_to_point", 1e7, 8), cluster) == alone_s(call("all_to_all", 2e7, 2), cluster)


def test_twice_the_node_link_halves_what_is_not_start() -> None:
    """The part that is bytes over bandwidth, of rings and of the switch."""
    fast = replace(with_node("all_gather", s_per_root_byte=0.0), node_link_scale=2.0)
    slow = with_node("all_gather", s_per_root_byte=0.0)
    start_s = alone_s(call("all_gather", 0.0, 8), H100)
    slow_s, fast_s = (alone_s(call("all_gather", 1e8, 8), cluster) - start_s for cluster in (slow, fast))
    assert slow_s == pytest.approx(2 * fast_s)
    reductions = [alone_s(call("all_reduce", HUGE, 8), replace(H100, node_link_scale=scale)) for scale in (1.0, 2.0)]
    assert reductions[0] == pytest.approx(2 * reductions[1], rel=1e-3)


@pytest.mark.parametrize(("nodes", "rate"), [(4, 360e9), (8, 345e9), (16, 320e9), (32, 300e9), (64, 280e9), (128, 260e9)])
def test_a_large_reduce_scatter_over_nodes_has_the_published_bus_bandwidth(nodes: int, rate: float) -> None:
    """NVIDIA/nccl#1229: H100, all eight NICs of each node; of 16 GiB, which it does not state."""
    one = call("reduce_scatter", 2.0**34, 8 * nodes)
    assert one.wire_bytes / alone_s(one, H100) == pytest.approx(rate, rel=0.03)


@pytest.mark.parametrize(("nodes", "share"), [(2, 1.0), (3, 1.5), (4, 2.0), (1000, 2.0)])
def test_a_tree_sends_what_its_busiest_node_does(nodes: int, share: float) -> None:
    """Half of the tensor on every edge of both trees: one edge in each for two nodes, four for a parent of two and leaf."""
    assert tree_share(nodes) == share


def test_a_tree_over_two_nodes_moves_the_tensor_once() -> None:
    """n/B, where a ring over two nodes of one GPU each moves as much, and one over two whole nodes nearly twice that."""
    slow = replace(H100, network_scale=0.1)  # so that the links inside do not bound it
    rate = 0.1 * 8 * NIC * NETWORK.efficiency
    assert alone_s(call("all_reduce", HUGE, 16), slow) == pytest.approx(HUGE / rate, rel=1e-3)
    assert alone_s(call("all_reduce", HUGE, 32), slow) == pytest.approx(2 * HUGE * 31 / 32 / rate, rel=1e-3)


def test_a_tree_over_two_nodes_has_the_published_bus_bandwidth() -> None:
    """H100, 8 NICs of 200 Gb/s a node, 8 GiB: 338.8 GB/s, more than a ring could send (lessizzmore/create-a3mega-ztan-fork)."""
    network = replace(H100.links.network, bandwidth_bytes_per_s=25e9)
    one = call("all_reduce", 2.0**33, 16)
    seconds = alone_s(one, replace(H100, links=replace(H100.links, network=network)))
    assert one.wire_bytes / seconds == pytest.approx(338.8e9, rel=0.03)


def test_the_links_inside_bound_a_tree_over_a_fast_network() -> None:
    """Up and down a chain, 2*n each, or once through a switch that adds up."""
    fast_a100, fast_h100 = (replace(cluster, network_scale=100.0) for cluster in (A100, H100))
    inside, switch = A100.links.node.collectives.all_reduce, H100.links.node.collectives.switch_reduce
    assert switch is not None
    ring_s = 2 * HUGE * 15 / 16 / inside.bandwidth_bytes_per_s
    assert alone_s(call("all_reduce", HUGE, 16), fast_a100) == pytest.approx(ring_s, rel=1e-3)
    switched_s = HUGE * (1 + 1 / 8) / switch.bandwidth_bytes_per_s
    assert alone_s(call("all_reduce", HUGE, 16), fast_h100) == pytest.approx(switched_s, rel=1e-3)


@pytest.mark.parametrize(("kind", "passes"), [("all_reduce", 2), ("all_gather", 1), ("reduce_scatter", 1)])
@pytest.mark.parametrize("nodes", [2, 8, 64])
def test_the_first_chunk_is_alone_on_its_way_past_every_node(kind: str, passes: int, nodes: int) -> None:
    """k*N*g*min(n/n0, 1): growing with the message up to the largest chunk, the same beyond."""
    filled, ranks = with_network(fill_s=1e-3, fill_bytes=16e6), 8 * nodes
    extra_s = [alone_s(call(kind, n, ranks), filled) - alone_s(call(kind, n, ranks), H100) for n in (0.0, 8e6, 16e6, 64e6)]
    assert np.asarray(extra_s) / (passes * nodes) == pytest.approx([0.0, 5e-4, 1e-3, 1e-3])


@pytest.mark.parametrize(("nodes", "rate"), [(4, 160.1e9), (8, 99.6e9), (16, 84.7e9), (32, 64.9e9), (64, 32.9e9)])
def test_all_reduces_over_efa_take_longer_over_more_nodes_as_published(nodes: int, rate: float) -> None:
    """256 MB on p5 (Hugging Face, Ultra-Scale Playbook): within 45 %. They were not fitted to."""
    one = call("all_reduce", 256e6, 8 * nodes)
    assert alone_s(one, cluster_preset("p5")) == pytest.approx(one.wire_bytes / rate, rel=0.45)


@pytest.mark.parametrize(("gpus", "seconds"), [(16, 201e-6), (128, 345e-6)])
def test_a_small_all_reduce_grows_with_the_logarithm_of_the_nodes(gpus: int, seconds: float) -> None:
    """A100, 8 MiB: 201 us on 16 GPUs and 345 us on 128."""
    assert alone_s(call("all_reduce", 2.0**23, gpus), A100) == pytest.approx(seconds, rel=0.05)


def test_efficiency_is_flat_up_to_four_nodes_and_falls_beyond() -> None:
    """Nothing smaller was measured, so nothing better is promised; beyond, the same factor for each doubling."""
    few, many = (np.asarray(network_efficiency(np.array(nodes), H100)) for nodes in ([1, 2, 3, 4], [4, 8, 16, 32]))
    assert np.all(few == NETWORK.efficiency)
    assert many[1:] / many[:-1] == pytest.approx(np.full(3, 2.0**-NETWORK.scale_exponent))


@pytest.mark.parametrize("kind", ["all_gather", "reduce_scatter", "all_reduce"])
def test_tensor_parallelism_over_two_nodes_uses_all_nics(kind: str) -> None:
    """16 neighbouring GPUs: two nodes, eight NICs each, so eight times as fast as with one NIC a node."""
    slow = replace(H100, network_scale=0.5)  # so that the links inside bound nothing
    one_nic = replace(slow, nics_per_node=1)
    assert alone_s(call(kind, HUGE, 16), one_nic) == pytest.approx(8 * alone_s(call(kind, HUGE, 16), slow), rel=0.02)
    assert alone_s(call(kind, HUGE, 8), slow) < alone_s(call(kind, HUGE, 16), slow)


def test_a_ring_is_never_faster_than_the_links_inside_its_nodes() -> None:
    """However fast the network: it passes through every GPU of each node."""
    one = call("all_gather", HUGE, 64)
    inside = H100.links.node.collectives.all_gather.bandwidth_bytes_per_s
    assert alone_s(one, replace(H100, network_scale=100.0)) == pytest.approx(one.wire_bytes / inside, rel=1e-3)
    sparse = call("all_gather", HUGE, 8, stride=8)  # enters no node by more than one GPU
    slow_s, fast_s = (alone_s(sparse, replace(H100, network_scale=scale)) for scale in (1.0, 100.0))
    assert slow_s == pytest.approx(100 * fast_s, rel=1e-3)


@pytest.mark.parametrize(("ranks", "stride", "inner", "between"), [(16, 1, 14, 2), (64, 8, 0, 64), (64, 2, 48, 16)])
def test_an_empty_ring_over_nodes_takes_its_steps(ranks: int, stride: int, inner: int, between: int) -> None:
    """One start, a step from node to node for each node, and one inside a node for every other rank."""
    steps_s = NETWORK.rank_latency_s * inner + NETWORK.node_latency_s * between
    for kind in ("all_gather", "reduce_scatter"):
        assert alone_s(call(kind, 0.0, ranks, stride), H100) == pytest.approx(NETWORK.latency_s + steps_s)


def test_a_large_all_reduce_is_a_scatter_and_a_gather() -> None:
    """Over few nodes, where the ring sends (p - 1)/p of what a tree sends."""
    one, other, both = (alone_s(call(kind, HUGE, 4, stride=8), H100) for kind in ("reduce_scatter", "all_gather", "all_reduce"))
    assert both == pytest.approx(one + other)


def test_a_small_all_reduce_over_many_nodes_climbs_a_tree() -> None:
    """Its start and a step for each doubling of the nodes, where a ring would pass through 1,024 GPUs twice."""
    times = np.asarray(alone_s(call("all_reduce", 0.0, np.array([512, 1024, 2048])), H100))
    expected = NETWORK.tree_start_s + NETWORK.tree_latency_s * np.array([6, 7, 8])
    assert times == pytest.approx(expected)
    assert times[1] < 2 * alone_s(call("all_gather", 0.0, 1024), H100) / 5


@pytest.mark.parametrize("ranks", [2, 16, 256])
def test_an_all_to_all_of_lone_gpus_uses_the_nic_of_each(ranks: int) -> None:
    """One GPU a node: n * (p - 1)/p over its own NIC, at the efficiency of so many nodes."""
    expected = HUGE * (ranks - 1) / ranks / (NIC * network_efficiency(ranks, H100))
    assert alone_s(call("all_to_all", HUGE, ranks, stride=8), H100) == pytest.approx(expected, rel=1e-3)


def test_an_all_to_all_sends_only_what_leaves_the_node_over_its_nic() -> None:
    """n * (p - r)/p of each rank of whole nodes: 8 of 16 peers, by the NIC of its own."""
    expected = HUGE * 8 / 16 / (NIC * NETWORK.efficiency)
    assert alone_s(call("all_to_all", HUGE, 16), H100) == pytest.approx(expected, rel=0.02)


def test_an_all_to_all_over_an_endless_network_takes_what_stays_in_the_node() -> None:
    """n * (r - 1)/p over the links of the node, beside the rest."""
    node_rate = H100.links.node.collectives.all_to_all.bandwidth_bytes_per_s
    fast = with_network(efficiency=1.0)
    endless = replace(fast.links.network, bandwidth_bytes_per_s=1e9 * fast.links.network.bandwidth_bytes_per_s)
    fast = replace(fast, links=replace(fast.links, network=endless))
    assert alone_s(call("all_to_all", HUGE, 16), fast) == pytest.approx(HUGE * 7 / 16 / node_rate, rel=1e-3)


def test_an_empty_all_to_all_starts_a_message_to_each_rank_of_other_nodes() -> None:
    """a + g*(p - r)."""
    expected = NETWORK.latency_s + NETWORK.peer_latency_s * 56
    assert alone_s(call("all_to_all", 0.0, 64), H100) == pytest.approx(expected)


def test_a_message_between_nodes_has_one_nic() -> None:
    """Its start, then the bytes at the share of a NIC that one message reaches, whatever the group."""
    for ranks in (2, 64):
        expected = NETWORK.point_latency_s + 1e8 / (NIC * NETWORK.point_efficiency)
        assert alone_s(call("point_to_point", 1e8, ranks, stride=8), H100) == pytest.approx(expected)


def test_the_link_is_named() -> None:
    """NVLink inside a node, InfiniBand beyond."""
    assert crossed_link(call("all_gather", 1e6, 8), cluster=H100).name == "NVLink 4 (H100)"
    assert crossed_link(call("all_gather", 1e6, 2, stride=8), cluster=H100).name == "InfiniBand NDR 400G"


@given(st.sampled_from(EVERY_KIND), st.floats(1e3, 1e10), st.sampled_from([2, 4, 8, 16, 64, 1024]), st.sampled_from([1, 2, 8]))
def test_more_bytes_never_take_less_time(kind: str, payload_bytes: float, ranks: int, stride: int) -> None:
    """Wherever the group is."""
    small, large = (alone_s(call(kind, n, ranks, stride), H100) for n in (payload_bytes, 2 * payload_bytes))
    assert small <= large


@given(st.sampled_from((*KINDS, "all_to_all")), st.floats(1e6, 1e10), st.sampled_from([16, 32, 64, 128, 512]))
def test_more_nodes_never_take_less_time(kind: str, payload_bytes: float, ranks: int) -> None:
    """Latency grows and efficiency falls."""
    few, many = (alone_s(call(kind, payload_bytes, p), H100) for p in (ranks, 2 * ranks))
    assert few <= many


@given(st.floats(1e6, 1e9), st.sampled_from([4, 8, 64]))
def test_an_all_reduce_costs_at_most_a_scatter_and_a_gather_over_nodes(payload_bytes: float, ranks: int) -> None:
    """The ring is made of both; a tree is taken only where it is faster."""
    one, other, both = (
        alone_s(call(kind, payload_bytes, ranks, stride=8), H100) for kind in ("reduce_scatter", "all_gather", "all_reduce")
    )
    assert both <= (one + other) * (1 + 1e-12)


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_twice_the_network_halves_what_is_not_latency(kind: str) -> None:
    """The part that is bytes over bandwidth."""
    slow = with_network(tree_latency_s=1e3)  # leaves only rings, so that the start is that of the same algorithm
    fast = replace(slow, network_scale=2.0)
    start_s = alone_s(call(kind, 0.0, 64, stride=8), slow)
    slow_s, fast_s = (alone_s(call(kind, 1e9, 64, stride=8), cluster) - start_s for cluster in (slow, fast))
    assert slow_s == pytest.approx(2 * fast_s)


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_groups_inside_and_over_nodes_are_timed_side_by_side(kind: str) -> None:
    """An array of ranks, strides and payloads gives what each gives alone, bit for bit."""
    ranks, stride = np.array([1, 2, 8, 16, 512]), np.array([[1], [2], [8]])
    payload = np.array([1e4, 1e7, 1e9, 1e3, 1e8])
    together = np.asarray(alone_s(call(kind, payload, ranks, stride), H100))
    assert together.shape == (3, 5)
    for (row, column), seconds in np.ndenumerate(together):
        one = call(kind, float(payload[column]), int(ranks[column]), int(stride[row, 0]))
        assert seconds == alone_s(one, H100)
