"""Fits how long all-reduces over a cloud's network take to start and to fill, from bus bandwidths by size; prints both halves.

    python -m perfmodel.benchmarks.fit.matmul.filling TABLE.csv

TABLE is that of check_collectives.py. Of each table over several nodes the coefficients are fitted on every second size and
tested on the others, both ways round; the efficiency is that of the largest message. Over two nodes the tree runs
(NVIDIA/nccl#946), over more the ring once messages are large: a table over two nodes says nothing of the start of rings.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import least_squares

from perfmodel.benchmarks.fit.checks.collectives import NICS, TABLE, call_of, cluster_of, read_bus_bandwidths
from perfmodel.errors import PerfmodelError
from perfmodel.timing.collectives import network_collective_time_s, placement

START: Final = {"tree_start_s": 2e-4, "latency_s": 6e-5, "fill_s": 5e-4, "fill_bytes": 2e7}
TREES_ALONE: Final = {"latency_s": 1e-2}  # a ring that never runs
LEAST_BYTES: Final = 1e5  # smaller ones print too few digits of their rate
TESTED_BYTES: Final = 1e6
FEW: Final = 8  # sizes that such a table has at least
WIDE: Final = 50.0  # how far from its start a coefficient may be found, either way
DAMPING: Final = 0.05


def seconds_of(rows: pd.DataFrame, values: Mapping[str, float]) -> NDArray[np.float64]:
    """The law with some coefficients of the network replaced."""
    cluster = cluster_of(rows.gpu.iloc[0], "NICs alone " + _nics(rows), "auto")
    link = cluster.links.network
    network = replace(link, collectives=replace(link.collectives, **dict[str, Any](values)))
    there = replace(cluster, links=replace(cluster.links, network=network))
    call = replace(call_of("all_reduce", 0.0, int(rows.gpus.iloc[0])), payload_bytes=rows.bytes.to_numpy(dtype=float))
    return np.asarray(network_collective_time_s(call, placement(call.group, there), cluster=there))


def _nics(rows: pd.DataFrame) -> str:
    """The NICs of a fabric without its name, so that what is shipped of it plays no part."""
    return next(word for word in str(rows.fabric.iloc[0]).split() if NICS.match(word))


def fitted(rows: pd.DataFrame, seen: NDArray[np.bool_]) -> dict[str, float]:
    """The coefficients that make the rows that are `seen` nearest."""
    kept = TREES_ALONE if rows.nodes.iloc[0] == 2 else {}
    largest = rows.nlargest(1, "bytes")
    efficiency = float(seconds_of(largest, {**kept, "efficiency": 1.0})[0] / largest.seconds.iloc[0])
    names = [name for name in START if name not in kept]
    start, measured = np.array([START[name] for name in names]), rows.seconds.to_numpy(dtype=float)
    kept = {**kept, "efficiency": min(efficiency, 1.0)}

    def residual(scaled: NDArray[np.float64]) -> NDArray[np.float64]:
        values = {**kept, **dict(zip(names, scaled * start, strict=True))}
        return np.asarray(np.log(seconds_of(rows, values) / measured)[seen])

    first = np.ones(len(names))
    found = least_squares(residual, first, bounds=(first / WIDE, first * WIDE), loss="soft_l1", f_scale=DAMPING)
    return {**kept, **dict(zip(names, (float(value) for value in found.x * start), strict=True))}


def errors_of(rows: pd.DataFrame, seen: NDArray[np.bool_], values: Mapping[str, float]) -> NDArray[np.float64]:
    """Absolute errors of the sizes that were not seen (of all, where all were), from TESTED_BYTES on."""
    errors = np.abs(seconds_of(rows, values) / rows.seconds.to_numpy(dtype=float) - 1.0)
    tested = rows.bytes.to_numpy(dtype=float) >= TESTED_BYTES
    return np.asarray(errors[tested if seen.all() else tested & ~seen])


def main() -> None:
    """Print coefficients and errors of every table over several nodes that has enough sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    try:
        table = read_bus_bandwidths(parser.parse_args().table)
    except PerfmodelError as error:
        sys.exit(f"filling: {error}")
    table = table[(table.nodes > 1) & (table.kind == "all_reduce") & (table.algo == "auto") & (table.bytes > LEAST_BYTES)]
    for _, rows in table.groupby(TABLE):
        if len(rows) < FEW:
            continue
        odd = np.arange(len(rows)) % 2 == 1
        for name, seen in (("even sizes", ~odd), ("odd sizes", odd), ("all sizes", odd | ~odd)):
            values = fitted(rows, seen)
            errors = errors_of(rows, seen, values)
            numbers = ", ".join(f"{each} {value:.3g}" for each, value in values.items())
            print(f"{rows.gpu.iloc[0]} {rows.nodes.iloc[0]} nodes {rows.fabric.iloc[0]}, {name}: {numbers}")
            print(f"    {len(errors)} sizes tested: median {np.median(errors):.1%} p90 {np.quantile(errors, 0.9):.1%}")


if __name__ == "__main__":
    main()
