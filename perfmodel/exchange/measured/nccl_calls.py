"""Which collective a row of nccl-tests is: its kind, between how many ranks, in how many nodes of a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from perfmodel.count.operators import Collective
from perfmodel.errors import InputError
from perfmodel.exchange.measured.nccl_tests import NcclRow, program_named, rows_in
from perfmodel.exchange.syntax.documents import read_text
from perfmodel.explanation.measured.link_tests import LinkTest
from perfmodel.light_dataclass import dataclass, replace
from perfmodel.spec.layout import ProcessGroup
from perfmodel.spec.machines.hardware import Cluster
from perfmodel.timing.collectives import placement
from perfmodel.units import gpus_text

MOST_RATE: Final = 4.0  # bus bandwidth / published rate of a link: rings side by side and in-network sums reach 1 to 2
NEAR_ONE: Final = 0.005  # as two decimals of a bandwidth round
MOST_IN_A_MACHINE: Final = 16  # GPUs (HGX-2): more that NVLink joins are those of several machines
LARGEST_BYTES: Final = 20_000_000  # of an output with its debugging lines


@dataclass(frozen=True, slots=True, kw_only=True)
class RanksBeside:
    """What is given beside outputs that do not list their ranks: how many GPUs there were, and in how many nodes."""

    gpus: int | None = None
    nodes: int | None = None


NOTHING_BESIDE: Final = RanksBeside()


def rows_at(path: Path) -> list[NcclRow]:
    """The rows of the output of nccl-tests at `path`. Errors: InputError."""
    return rows_in(read_text(path, largest_bytes=LARGEST_BYTES), str(path), operator=program_named(path.name))


def link_tests(path: Path, cluster: Cluster, beside: RanksBeside = NOTHING_BESIDE) -> list[LinkTest]:
    """The tests of an output on a cluster, each with all its sizes. Errors: InputError for what no such cluster can do."""
    tests: dict[tuple[str, tuple[str, ...]], dict[float, NcclRow]] = {}
    for row in rows_at(path):
        sizes = tests.setdefault((row.operator, row.hosts), {})
        before = sizes.get(row.payload_bytes)
        if before is None or row.seconds < before.seconds:  # the same size again: the better of both
            sizes[row.payload_bytes] = row
    return [_test(sizes, path, cluster, beside) for sizes in tests.values()]


def _test(sizes: Mapping[float, NcclRow], path: Path, cluster: Cluster, beside: RanksBeside) -> LinkTest:
    """One test; its largest size tells how many ranks there were where nothing else does."""
    rows = [sizes[size] for size in sorted(sizes)]
    call = call_of(rows[-1], path, cluster, beside)
    return LinkTest(
        call=replace(call, payload_bytes=np.asarray([each.payload_bytes for each in rows])),
        nodes=int(placement(call.group, cluster).nodes),
        seconds=np.asarray([each.seconds for each in rows]),
    )


def call_of(row: NcclRow, path: Path, cluster: Cluster, beside: RanksBeside = NOTHING_BESIDE) -> Collective:
    """The collective of a row, between as many ranks as the output or what is beside it says, or as its bandwidths mean.

    Errors: InputError where nothing says which test it was, or between how many ranks, and for what cannot be.
    """
    operator = row.operator or ("all_reduce" if row.bus_ratio > 1.0 + NEAR_ONE else "")
    if not operator:
        raise InputError(f"{path}: nothing says which test it was; name the file after it, as in all_gather.txt")
    ranks = len(row.hosts) or beside.gpus or _ranks(row, operator, path)
    if ranks < 2:
        raise InputError(f"{path}: a test of one rank measures no link; --gpus 16 says how many there were")
    call = Collective(
        name="nccl-tests", kind=operator, payload_bytes=row.payload_bytes, group=_group(row, ranks, cluster, beside, path)
    )
    where, rate = placement(call.group, cluster), float(cluster.links.node.bandwidth_bytes_per_s)
    if where.crosses_nodes:
        rate = float(where.network_bytes_per_s)
    if row.bus_bytes_per_s > MOST_RATE * rate:
        measured = f"a bus bandwidth of {row.bus_bytes_per_s / 1e9:.4g} GB/s"
        raise InputError(f"{path}: {measured} cannot be: the link between these ranks has a rate of {rate / 1e9:.4g} GB/s")
    return call


def _group(row: NcclRow, ranks: int, cluster: Cluster, beside: RanksBeside, path: Path) -> ProcessGroup:
    """The ranks of a row, evenly over its nodes; the trays of a rack that NVLink joins are one node."""
    size = int(cluster.gpus_per_node)
    least = int(np.ceil(ranks / size))
    nodes = beside.nodes or (least if size > MOST_IN_A_MACHINE else len(set(row.hosts)) or least)
    if nodes < least or nodes > ranks:
        where = f"{gpus_text(ranks)} in {nodes} nodes"
        raise InputError(f"{path}: {where} cannot be: {cluster.name} has {gpus_text(size)} a node")
    stride = max(size // max(ranks // nodes, 1), 1) if nodes > 1 else 1
    return ProcessGroup(name="nccl-tests", ranks=ranks, stride=stride)


def _ranks(row: NcclRow, operator: str, path: Path) -> int:
    """p of bus / algorithm bandwidth = 2(p-1)/p of an all-reduce, (p-1)/p of others."""
    missing = 1.0 - row.bus_ratio / (2.0 if operator == "all_reduce" else 1.0)
    if operator == "point_to_point" or missing < NEAR_ONE:
        raise InputError(f"{path}: no '# Rank' line says how many ranks there were; --gpus 16 would")
    return round(1.0 / missing)
