"""Where do the ranks of a group lie, and which share of the NICs of their nodes is theirs?"""

from __future__ import annotations

import numpy as np
import pytest

from perfmodel.count.operators import Collective
from perfmodel.exchange.presets import cluster_preset
from perfmodel.spec.layout import ProcessGroup
from perfmodel.timing.collectives import collective_time_s, placement

H100 = cluster_preset("dgx-h100")
GB200 = cluster_preset("gb200-nvl72")


def test_a_group_knows_its_share_of_the_nics() -> None:
    """Whole nodes use all eight; a group with one GPU in each node uses one."""
    whole = placement(ProcessGroup(name="data_parallel", ranks=64, stride=1), H100)
    sparse = placement(ProcessGroup(name="data_parallel", ranks=64, stride=8), H100)
    half = placement(ProcessGroup(name="data_parallel", ranks=64, stride=2), H100)
    assert (whole.network_bytes_per_s, sparse.network_bytes_per_s, half.network_bytes_per_s) == (400e9, 50e9, 200e9)
    assert (whole.nodes, sparse.nodes, half.nodes) == (8, 64, 16)


@pytest.mark.parametrize(
    ("ranks", "stride", "inside", "nodes"), [(256, 2, 32, 8), (512, 1, 64, 8), (128, 4, 16, 8), (72, 1, 72, 1)]
)
def test_a_job_fills_its_nvlink_domains_evenly(ranks: int, stride: int, inside: int, nodes: int) -> None:
    """512 GPUs of NVL72 take 64 of each of 8 domains, not all of 7 and 8 of the last."""
    where = placement(ProcessGroup(name="data_parallel", ranks=ranks, stride=stride), GB200)
    assert (where.ranks_per_node, where.nodes) == (inside, nodes)
    assert where.network_bytes_per_s == inside * GB200.network_bytes_per_s_per_gpu


def test_even_and_uneven_groups_are_placed_side_by_side() -> None:
    """An array of ranks and strides gives what each gives alone."""
    ranks, stride = np.array([8, 9, 12, 64, 256, 512]), np.array([[1], [2], [4]])
    together = placement(ProcessGroup(name="group", ranks=ranks, stride=stride), GB200)
    inside, nodes = np.asarray(together.ranks_per_node), np.asarray(together.nodes)
    for row, column in np.ndindex(3, 6):
        alone = placement(ProcessGroup(name="group", ranks=int(ranks[column]), stride=int(stride[row, 0])), GB200)
        assert (inside[row, column], nodes[row, column]) == (alone.ranks_per_node, alone.nodes)


def scatter_s(ranks: int) -> float:
    """A large reduce-scatter of neighbours."""
    group = ProcessGroup(name="ring", ranks=ranks, stride=1)
    call = Collective(name="scatter", kind="reduce_scatter", payload_bytes=16e9, group=group)
    return float(collective_time_s(call, cluster=H100))


def test_a_last_node_that_is_part_full_bounds_the_ring() -> None:
    """Nine GPUs: the ninth is alone in its node, and so is its NIC."""
    nine, sixteen = (placement(ProcessGroup(name="ring", ranks=ranks, stride=1), H100) for ranks in (9, 16))
    assert sixteen.network_bytes_per_s == 8 * nine.network_bytes_per_s == 8 * H100.network_bytes_per_s_per_gpu
    assert scatter_s(9) > 4 * scatter_s(16)
