"""How far other laboratories' bus bandwidths are from the shipped links, before and after one scalar a table.

    python -m perfmodel.benchmarks.fit.checks.collectives TABLE.csv [--least-bytes 1e6]

TABLE has columns source, gpu, nodes, gpus, op, algo, fabric, bytes, busbw_GBps (1e9 bytes/s, as nccl-tests define it). Rows of
one source, GPU, number of nodes and fabric are one table; its scalar is the median of measured over predicted time. Calls
inside a node are taken as started one by one, as frameworks' benchmarks do (timing/collectives.py, lone_call_time_s).
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfmodel.count.operators import Collective
from perfmodel.errors import InputError, PerfmodelError
from perfmodel.exchange.building import build
from perfmodel.exchange.presets import cluster_preset, expand_part, preset_names
from perfmodel.spec.layout import ProcessGroup
from perfmodel.spec.machines.coefficients import NetworkCollectives
from perfmodel.spec.machines.hardware import Cluster
from perfmodel.timing.collectives import lone_call_time_s

COLUMNS: Final = ("source", "gpu", "nodes", "gpus", "op", "algo", "fabric", "bytes", "busbw_GBps")
CLUSTERS: Final = {
    "A100": "dgx-a100",
    "H100": "dgx-h100",
    "H200": "dgx-h200",
    "B200": "dgx-b200",
    "GB200": "gb200-nvl72",
}
KINDS: Final = {"sendrecv": "point_to_point", "send_recv": "point_to_point", "alltoall": "all_to_all"}
TABLE: Final = ["source", "gpu", "nodes", "fabric"]
CLASSES: Final = (("below 1 MB", 0.0, 1e6), ("1 to 64 MB", 1e6, 6.5e7), ("above 64 MB", 6.5e7, np.inf))
NETWORKS: Final = {"EFA": "efa", "a3-mega": "tcpx"}  # words of a fabric, and the collectives over it where they are shipped
NICS: Final = re.compile(r"(\d+)x(\d+)Gb")  # of a node, in the words of a fabric


def read_bus_bandwidths(path: Path) -> pd.DataFrame:
    """The table with a column of measured seconds; rows that print a rate of zero say nothing. Errors: InputError."""
    if not path.is_file():
        raise InputError(f"{path} is not a file")
    table = pd.read_csv(path)
    missing = [column for column in COLUMNS if column not in table]
    if missing:
        raise InputError(f"{path} needs columns {', '.join(COLUMNS)}; it lacks {', '.join(missing)}")
    strange = sorted(set(table.gpu) - set(CLUSTERS))
    if strange:
        raise InputError(f"{path} has GPUs that no cluster preset has: {', '.join(strange)}; known: {', '.join(CLUSTERS)}")
    table = table[table["busbw_GBps"] > 0]
    table = table.assign(kind=table.op.replace(KINDS))
    wire = np.array([float(call.wire_bytes) for call in calls_of(table)])
    return table.assign(seconds=wire / (table["busbw_GBps"] * 1e9)).reset_index(drop=True)


def calls_of(table: pd.DataFrame) -> list[Collective]:
    """The call of every row."""
    columns = (table[name].tolist() for name in ("kind", "bytes", "gpus"))
    return [call_of(kind, size, ranks) for kind, size, ranks in zip(*columns, strict=True)]


def call_of(kind: str, payload_bytes: float, ranks: int) -> Collective:
    """One call of a group of neighbouring GPUs. Sizes are nccl-tests': of the full tensor, or of one message."""
    group = ProcessGroup(name="world", ranks=ranks, stride=1)
    return Collective(name=kind, kind=kind, payload_bytes=payload_bytes, group=group)


def cluster_of(gpu: str, fabric: str, algorithm: str) -> Cluster:
    """The shipped cluster with the NICs that the fabric names, and without the switch's sums where the ring was asked for."""
    cluster = cluster_preset(CLUSTERS[gpu])
    node, network = cluster.links.node, cluster.links.network
    if found := NICS.search(fabric):
        nics, gbit = int(found[1]), float(found[2])
        cluster = replace(cluster, nics_per_node=nics)
        network = replace(network, bandwidth_bytes_per_s=gbit * 1e9 / 8)
    for word, name in NETWORKS.items():
        if word in fabric and name in preset_names("collectives"):
            known = expand_part(NetworkCollectives, "collectives", name)
            network = replace(network, collectives=build(NetworkCollectives, known))
    if algorithm == "Ring":
        node = replace(node, collectives=replace(node.collectives, switch_reduce=None))
    return replace(cluster, links=replace(cluster.links, node=node, network=network))


def predicted_s(table: pd.DataFrame) -> NDArray[np.float64]:
    """Seconds of every row by the shipped laws."""
    keys = list(zip(*(table[name].tolist() for name in ("gpu", "fabric", "algo")), strict=True))
    clusters = {key: cluster_of(*key) for key in set(keys)}
    calls = zip(calls_of(table), keys, strict=True)
    return np.array([float(lone_call_time_s(call, cluster=clusters[key])) for call, key in calls])


def errors_of(table: pd.DataFrame, least_bytes: float) -> pd.DataFrame:
    """The table with `plain` and `scaled` relative errors; a scalar is fitted on the rows of `least_bytes` and more."""
    table = table.assign(ratio=predicted_s(table) / table.seconds)
    scale = table[table.bytes >= least_bytes].groupby(TABLE).ratio.median().rename("scale")
    table = table.join(scale, on=TABLE)
    return table.assign(plain=table.ratio - 1.0, scaled=table.ratio / table.scale - 1.0)


def summaries(table: pd.DataFrame, least_bytes: float) -> Iterator[tuple[str, pd.DataFrame]]:
    """Everything of `least_bytes` and more, then by table, collective and class of sizes."""
    large = table[table.bytes >= least_bytes]
    yield f"all of {least_bytes:g} bytes and more", large
    yield "half of it (even rows)", large.iloc[::2]
    yield "half of it (odd rows)", large.iloc[1::2]
    for _, rows in table.groupby([*TABLE, "kind"]):
        gpu, nodes, fabric, kind = (rows[name].iloc[0] for name in ("gpu", "nodes", "fabric", "kind"))
        for name, low, high in CLASSES:
            chosen = rows[(rows.bytes >= low) & (rows.bytes < high)]
            if len(chosen):
                yield f"{gpu} {nodes}x {fabric[:20]} {kind} {name}", chosen


def main() -> None:
    """Print the errors of every table, as shipped and with its scalar."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--least-bytes", type=float, default=1e6)
    chosen = parser.parse_args()
    try:
        table = errors_of(read_bus_bandwidths(chosen.table), chosen.least_bytes)
    except PerfmodelError as error:
        sys.exit(f"check_collectives: {error}")
    for name, rows in summaries(table, chosen.least_bytes):
        texts = [
            f"median {each.abs().median():6.1%} p90 {each.abs().quantile(0.9):6.1%} bias {each.median():+6.1%}"
            for each in (rows.plain, rows.scaled)
        ]
        print(f"{name:58} {len(rows):4d} rows   as shipped: {texts[0]}   scaled: {texts[1]}")


if __name__ == "__main__":
    main()
