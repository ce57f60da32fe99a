"""Which cluster does a row of a table of measured runs get: its GPU, its nodes, its network?"""

from __future__ import annotations

from typing import Any

import pytest

from perfmodel.exchange.presets import DATA, cluster_preset, preset_names
from perfmodel.exchange.syntax.documents import read_mapping


@pytest.mark.parametrize(
    ("gpu", "cluster"),
    [
        *(("a800-sxm-80gb", "hgx-a800"), ("h800-sxm-80gb", "hgx-h800"), ("h20", "hgx-h20"), ("b300", "dgx-b300")),
        *(("gb300", "gb300-nvl72"), ("h100-pcie-80gb", "h100-pcie"), ("h100-nvl-94gb", "h100-nvl"), ("l40s", "l40s")),
        *(("gh200-96gb", "gh200"), ("a100-pcie-80gb", "a100-pcie"), ("rtx-4090", "rtx-4090"), ("rtx-5090", "rtx-5090")),
    ],
)
def test_every_gpu_of_a_table_has_its_own_cluster(read: Any, gpu: str, cluster: str) -> None:
    """As it is where the row says nothing of nodes; a table's name for a GPU is that of its preset."""
    (row,) = read({"gpu": gpu, "gpus_per_node": ""})
    assert row.run.cluster == cluster_preset(cluster)


def test_every_cluster_that_a_table_can_name_is_a_preset() -> None:
    """No name of a GPU leads nowhere."""
    assert set(read_mapping(DATA / "csv_columns.yaml")["clusters"].values()) <= set(preset_names("clusters"))


def test_an_unknown_gpu_is_the_reason_and_never_another_one(read: Any) -> None:
    """Nothing is predicted."""
    (row,) = read({"gpu": "h30-sxm"})
    assert row.run is None
    assert row.reason == "gpu: no cluster preset has h30-sxm"


@pytest.mark.parametrize(
    ("cells", "collectives"),
    [
        ({}, "NCCL over InfiniBand"),
        ({"source": "bigscience-workshop/bigscience"}, "NCCL over Omni-Path"),
        ({"notes": "network: AWS p5 (EFA)"}, "NCCL over EFA, second generation (p5)"),
        ({"notes": "network: AWS p5en (EFA)", "gpu": "h200-sxm-141gb"}, "NCCL over EFA"),
        ({"notes": "RoCE RDMA, 4 nodes"}, "NCCL over RoCE"),
        ({"notes": "HPE Slingshot 11"}, "NCCL over Slingshot"),
        ({"notes": "GPUDirect-TCPX"}, "NCCL over GPUDirect-TCPXO"),
    ],
)
@pytest.mark.parametrize(("stated", "gbit"), [("", 400), ("100", 100)])
def test_a_row_that_names_its_network_gets_it(
    read: Any, cells: dict[str, str], collectives: str, stated: str, gbit: int
) -> None:
    """At the rate that it states, else at that of the GPU's DGX."""
    (row,) = read(cells | {"internode_gbit_per_s_per_gpu": stated})
    network = row.run.cluster.links.network
    assert network.collectives.name == collectives
    assert float(network.bandwidth_bytes_per_s) == pytest.approx(gbit * 1e9 / 8)


@pytest.mark.parametrize(("per_node", "stated", "nics"), [("8", "", 2), ("4", "", 1), ("4", "100", 4), ("", "100", 8)])
def test_nodes_have_as_many_nics_as_their_cluster_for_as_many_gpus(read: Any, per_node: str, stated: str, nics: int) -> None:
    """But one for each GPU where the row states the rate of each."""
    cells = {"gpu": "h100-pcie-80gb", "gpus_per_node": per_node, "internode_gbit_per_s_per_gpu": stated}
    (row,) = read(cells)
    assert row.run.cluster.nics_per_node == nics


def test_a_rate_of_a_whole_node_in_a_table_is_told(read: Any) -> None:
    """Among the assumptions of the row."""
    (row,) = read({"internode_gbit_per_s_per_gpu": "3200"})
    assert any("is likely the rate of a whole node" in sentence for sentence in row.assumptions)


def test_trays_of_a_rack_do_not_cut_its_nvlink_domain(read: Any) -> None:
    """GB200 stands 4 to a tray, and NVLink joins 72; a DGX has as many as its row says."""
    rack, node = read({"gpu": "gb200", "gpus_per_node": "4"}, {"gpu": "h100-sxm-80gb", "gpus_per_node": "4"})
    assert rack.run.cluster.gpus_per_node == cluster_preset("gb200-nvl72").gpus_per_node == 72
    assert (node.run.cluster.gpus_per_node, node.run.cluster.nics_per_node) == (4, 4)


def test_the_rate_of_a_row_is_that_of_a_gpus_share(read: Any) -> None:
    """In Gbit/s; without one it is that of the GPU's own cluster, and an assumption."""
    stated, blank = read({"internode_gbit_per_s_per_gpu": "200"}, {})
    assert stated.run.cluster.network_bytes_per_s_per_gpu == 25e9
    assert blank.run.cluster == cluster_preset("dgx-h100")
    assert any(sentence.startswith("internode_gbit_per_s_per_gpu") for sentence in blank.assumptions)


def test_a_row_keeps_the_spread_of_its_cluster(read: Any) -> None:
    """Another number of GPUs a node doubts no less."""
    (row,) = read({"gpus_per_node": "4", "internode_gbit_per_s_per_gpu": "200"})
    assert row.run.cluster.spread == cluster_preset("dgx-h100").spread
