"""Do collectives have the right limits, use the NICs they can, and come near published measurements?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.count.operators import Collective
from perfmodel.exchange.presets import cluster_preset
from perfmodel.spec.fields import Numeric
from perfmodel.spec.hardware import Cluster
from perfmodel.spec.layout import ProcessGroup
from perfmodel.timing.collectives import collective_time_s, crossed_link, network_efficiency, placement

H100 = cluster_preset("dgx-h100")
A100 = cluster_preset("dgx-a100")
KINDS = ("all_reduce", "all_gather", "reduce_scatter")


def call(kind: str, payload_bytes: float, ranks: int, stride: int = 1) -> Collective:
    """A collective of a group."""
    group = ProcessGroup(name="group", ranks=ranks, stride=stride)
    return Collective(name=kind, kind=kind, payload_bytes=payload_bytes, group=group)


def alone_s(one: Collective, cluster: Cluster) -> Numeric:
    """The time of a call by a group where it lies."""
    return collective_time_s(one, placement(one.group, cluster), cluster=cluster)


@pytest.mark.parametrize("kind", KINDS)
def test_one_rank_communicates_nothing(kind: str) -> None:
    """A group of one needs no time, alone or among others."""
    assert alone_s(call(kind, 1e9, 1), H100) == 0
    both = replace(call(kind, 1e9, 1), group=ProcessGroup(name="group", ranks=np.array([1, 64]), stride=1))
    assert np.asarray(alone_s(both, H100))[0] == 0


@pytest.mark.parametrize(("kind", "bus_rate"), [("all_reduce", 450e9), ("all_gather", 335e9), ("reduce_scatter", 335e9)])
def test_a_large_collective_in_a_node_reaches_the_measured_bus_bandwidth(kind: str, bus_rate: float) -> None:
    """Eight H100, 512 MiB: the largest rates of the nccl-tests tables."""
    one = call(kind, 2.0**29, 8)
    assert one.wire_bytes / alone_s(one, H100) == pytest.approx(bus_rate, rel=0.05)


@pytest.mark.parametrize(("nodes", "rate"), [(4, 360e9), (8, 345e9), (16, 320e9), (32, 300e9), (64, 280e9), (128, 260e9)])
def test_efficiency_over_nodes_is_that_of_the_published_measurement(nodes: int, rate: float) -> None:
    """NVIDIA/nccl#1229: H100 reduce-scatter over all eight NICs of each node."""
    assert 400e9 * network_efficiency(nodes, H100) == pytest.approx(rate, rel=0.03)


@pytest.mark.parametrize(("gpus", "seconds"), [(16, 201e-6), (128, 345e-6)])
def test_a_small_all_reduce_grows_with_the_logarithm_of_the_nodes(gpus: int, seconds: float) -> None:
    """A100, 8 MiB: 201 us on 16 GPUs and 345 us on 128."""
    assert alone_s(call("all_reduce", 2.0**23, gpus), A100) == pytest.approx(seconds, rel=0.05)


def test_a_group_knows_its_share_of_the_nics() -> None:
    """Whole nodes use all eight; a group with one GPU in each node uses one."""
    whole = placement(ProcessGroup(name="data_parallel", ranks=64, stride=1), H100)
    sparse = placement(ProcessGroup(name="data_parallel", ranks=64, stride=8), H100)
    half = placement(ProcessGroup(name="data_parallel", ranks=64, stride=2), H100)
    assert (whole.network_bytes_per_s, sparse.network_bytes_per_s, half.network_bytes_per_s) == (400e9, 50e9, 200e9)
    assert (whole.nodes, sparse.nodes, half.nodes) == (8, 64, 16)


def test_tensor_parallelism_over_two_nodes_uses_all_nics() -> None:
    """16 neighbouring GPUs: two nodes, eight NICs each; slower than inside a node, but not by the eightfold of one NIC."""
    inside = alone_s(call("all_gather", 2.0**28, 8), H100)
    across = alone_s(call("all_gather", 2.0**28, 16), H100)
    assert inside < across < 3 * inside


def test_the_link_is_named() -> None:
    """NVLink inside a node, InfiniBand beyond."""
    assert crossed_link(call("all_gather", 1e6, 8), cluster=H100).name == "NVLink 4 (H100)"
    assert crossed_link(call("all_gather", 1e6, 2, stride=8), cluster=H100).name == "InfiniBand NDR 400G"


@given(st.sampled_from(KINDS), st.floats(1e3, 1e10), st.sampled_from([2, 4, 8, 16, 64, 1024]), st.sampled_from([1, 2, 8]))
def test_more_bytes_never_take_less_time(kind: str, payload_bytes: float, ranks: int, stride: int) -> None:
    """Wherever the group is."""
    small, large = (alone_s(call(kind, n, ranks, stride), H100) for n in (payload_bytes, 2 * payload_bytes))
    assert small <= large


@given(st.sampled_from(KINDS), st.floats(1e6, 1e10), st.sampled_from([16, 32, 64, 128, 512]))
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


def test_twice_the_network_halves_what_is_not_latency() -> None:
    """The part that is bytes over bandwidth."""
    fast = replace(H100, network_scale=2.0)
    one = call("all_gather", 1e9, 64, stride=8)
    start_s = 17e-6 + 4.1e-6 * 64
    slow_s, fast_s = (alone_s(one, cluster) - start_s for cluster in (H100, fast))
    assert slow_s == pytest.approx(2 * fast_s)
