"""Outputs of nccl-tests for tests: what they would print on a cluster, as text and as the JSON of -J."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

import numpy as np

from perfmodel.count.operators import Collective
from perfmodel.exchange.measured.nccl_tests import PROGRAMS
from perfmodel.exchange.presets import cluster_preset
from perfmodel.spec.layout import ProcessGroup
from perfmodel.spec.machines.hardware import Cluster
from perfmodel.timing.collectives import collective_time_s

DGX_H100: Final = cluster_preset("dgx-h100")
SIZES: Final = tuple(2.0**power for power in range(12, 34, 3))
HEAD: Final = (
    "#       size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong\n"
)
GPU: Final = "NVIDIA H100 80GB HBM3"


def rows(
    program: str, nodes: int, there: Cluster = DGX_H100, *, each: int = 8, sizes: Sequence[float] = SIZES
) -> list[tuple[float, ...]]:
    """Size, microseconds, algorithm and bus bandwidth [GB/s] of each size."""
    group = ProcessGroup(name="all", ranks=nodes * each, stride=8 // each if nodes > 1 else 1)
    call = Collective(name="test", kind=PROGRAMS[program], payload_bytes=np.asarray(sizes), group=group)
    seconds = np.asarray(collective_time_s(call, cluster=there))
    columns = (sizes, 1e6 * seconds, np.asarray(sizes) / seconds / 1e9, np.asarray(call.wire_bytes) / seconds / 1e9)
    return list(zip(*columns, strict=True))


def as_text(program: str, nodes: int, there: Cluster = DGX_H100, *, each: int = 8, ranks: bool = True) -> str:
    """The text that a program prints; `ranks`: whether it lists them."""
    listed = [
        f"#  Rank {rank:2} Group  0 Pid 1 on node-{rank // each} device {rank % each} [0x1b] {GPU}"
        for rank in range(nodes * each)
    ]
    body = []
    for size, time, algorithm, bus in rows(program, nodes, there, each=each):
        way = f"{time:.2f} {algorithm:.2f} {bus:.2f} 0"
        body.append(f"{size:.0f} {size / 4:.0f} float sum -1 {way} {way}")
    return f"# Collective test starting: {program}_perf\n" + "\n".join([*(listed if ranks else []), HEAD, *body]) + "\n"


def as_json(program: str, nodes: int, there: Cluster = DGX_H100) -> str:
    """The file that -J writes where a process has the eight GPUs of a node, of which it lists the first."""
    devices = [{"rank": 8 * node, "group": 0, "hostname": f"node-{node}", "device_info": GPU} for node in range(nodes)]
    results = [
        {"size": int(size), "type": "float", "out_of_place": {"time": time, "alg_bw": algorithm, "bus_bw": bus}}
        for size, time, algorithm, bus in rows(program, nodes, there)
    ]
    config = {"nthreads": 1, "ngpus": 8, "iterations": 20, "devices": devices}
    document = {"version": 3, "args": [f"./build/{program}_perf", "-g", "8"], "nccl_version": 22704}
    return json.dumps({**document, "config": config, "results": results})
