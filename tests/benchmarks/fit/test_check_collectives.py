"""Are other laboratories' bus bandwidths read as nccl-tests define them, scaled table by table, and pooled with one law?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from perfmodel.benchmarks.fit.checks.collectives import (
    COLUMNS,
    call_of,
    cluster_of,
    errors_of,
    predicted_s,
    read_bus_bandwidths,
    summaries,
)
from perfmodel.benchmarks.fit.checks.laboratories import pooled_fit
from perfmodel.benchmarks.fit.collectives import SWITCH
from perfmodel.benchmarks.fit.matmul.filling import errors_of as errors_of_filling
from perfmodel.benchmarks.fit.matmul.filling import fitted, seconds_of
from perfmodel.count.operators import Collective
from perfmodel.errors import InputError
from perfmodel.spec.fields import Numeric

SIZES = [2.0**power for power in range(15, 34)]


def table_at(path: Path, slower: float = 1.0, gpu: str = "H200", nodes: int = 1, fabric: str = "NVLink4") -> Path:
    """All-reduces by the shipped law, `slower` times as slow, as bus bandwidths."""
    rows = pd.DataFrame({"bytes": SIZES}).assign(
        source="here", gpu=gpu, nodes=nodes, gpus=8 * nodes, op="all_reduce", algo="auto", fabric=fabric
    )
    seconds = slower * predicted_s(rows.assign(kind="all_reduce"))
    wire = np.array([float(call_of("all_reduce", size, 8 * nodes).wire_bytes) for size in SIZES])
    rows.assign(busbw_GBps=wire / seconds / 1e9)[list(COLUMNS)].to_csv(path, index=False)
    return path


def test_a_table_made_by_the_law_has_no_errors(tmp_path: Path) -> None:
    """Bus bandwidths are turned into seconds and back."""
    table = errors_of(read_bus_bandwidths(table_at(tmp_path / "table.csv")), 1e6)
    assert table.plain.to_numpy() == pytest.approx(0.0, abs=1e-9)


def test_one_scalar_takes_out_what_a_laboratory_is_slower_by(tmp_path: Path) -> None:
    """All sizes 20 % slower: errors of 1/1.2 - 1 as shipped, of nothing once scaled."""
    table = errors_of(read_bus_bandwidths(table_at(tmp_path / "table.csv", slower=1.2)), 1e6)
    assert table.plain.to_numpy() == pytest.approx(1 / 1.2 - 1)
    assert table.scaled.to_numpy() == pytest.approx(0.0, abs=1e-9)


def test_both_halves_and_every_class_of_sizes_are_told(tmp_path: Path) -> None:
    """Every large row is in one half, every row in one class."""
    table = errors_of(read_bus_bandwidths(table_at(tmp_path / "table.csv")), 1e6)
    rows = [len(each) for _, each in summaries(table, 1e6)]
    assert rows[0] == rows[1] + rows[2]
    assert sum(rows[3:]) == len(SIZES)


def test_a_fabric_names_the_nics_of_a_node() -> None:
    """8x200Gb: eight of 25 GB/s each."""
    cluster = cluster_of("H100", "GCP a3-mega 8x200Gb", "auto")
    assert (cluster.nics_per_node, cluster.links.network.bandwidth_bytes_per_s) == (8, 25e9)


def test_a_ring_that_was_asked_for_has_no_switch() -> None:
    """NCCL_ALGO=Ring keeps NVLS out."""
    assert cluster_of("H200", "NVLink4", "Ring").links.node.collectives.switch_reduce is None
    assert cluster_of("H200", "NVLink4", "auto").links.node.collectives.switch_reduce is not None


@pytest.mark.parametrize(("column", "value", "words"), [("gpu", "V100", "V100"), ("op", None, "lacks op")])
def test_a_table_that_cannot_be_read_is_named(tmp_path: Path, column: str, value: str | None, words: str) -> None:
    """A GPU without a cluster, a column that is not there."""
    path = table_at(tmp_path / "table.csv")
    table = pd.read_csv(path)
    (table.drop(columns=column) if value is None else table.assign(**{column: value})).to_csv(path, index=False)
    with pytest.raises(InputError, match=words):
        read_bus_bandwidths(path)


def test_starts_and_filling_of_a_network_are_found_again(tmp_path: Path) -> None:
    """A tree over two nodes, made with numbers of its own."""
    true = {"tree_start_s": 1e-4, "fill_s": 2e-4, "fill_bytes": 1.6e7, "efficiency": 0.9, "latency_s": 1e-2}
    rows = read_bus_bandwidths(table_at(tmp_path / "table.csv", gpu="H100", nodes=2, fabric="cloud 8x200Gb"))
    rows = rows.assign(seconds=seconds_of(rows, true))
    odd = np.arange(len(rows)) % 2 == 1
    found = fitted(rows, odd)
    assert [found[name] for name in ("tree_start_s", "fill_s", "fill_bytes")] == pytest.approx([1e-4, 2e-4, 1.6e7], rel=0.05)
    assert errors_of_filling(rows, odd, found).max() < 0.02


def test_pooled_laboratories_share_a_law_but_not_when_calls_begin() -> None:
    """One begins 20 us after the other, which is no part of the law that both have."""
    law = {"latency_s": 2e-5, "bandwidth_bytes_per_s": 3e11, "s_per_root_byte": 8e-9}

    def equation(call: Collective, values: dict[str, float]) -> Numeric:
        moved = np.asarray(call.payload_bytes)
        transfer_s = moved / values["bandwidth_bytes_per_s"] + values["s_per_root_byte"] * np.sqrt(moved)
        return np.asarray(values["latency_s"] + transfer_s)

    own = pd.DataFrame({"ranks": 8, "payload_bytes": SIZES})
    call = Collective(name="c", kind="all_reduce", payload_bytes=own.payload_bytes.to_numpy(), group=call_of("c", 0, 8).group)
    own["seconds"] = equation(call, law)
    pooled = pooled_fit(own, own.assign(seconds=own.seconds + 2e-5), "h200-sxm-141gb", equation, SWITCH)
    assert pooled.found["latency_s"] == pytest.approx(2e-5, rel=0.01)
    assert pooled.call_s == pytest.approx(2e-5, rel=0.01)
    assert pooled.found["bandwidth_bytes_per_s"] == pytest.approx(3e11, rel=0.01)
