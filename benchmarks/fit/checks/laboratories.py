"""Pools the all-reduces of several laboratories: one law, one weight a laboratory, and how much later the calls of one begin.

nccl-tests enqueue calls back to back and hide their launch; a benchmark that a framework starts call by call pays for it. So a
call of the other laboratory takes `call_s` longer, whatever its size and kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from perfmodel.benchmarks.fit.checks.collectives import read_bus_bandwidths
from perfmodel.benchmarks.fit.regression import Fit, Floats, Free, fit_of_few, rounded
from perfmodel.count.operators import Collective
from perfmodel.spec.layout import ProcessGroup

PUBLIC: Final = "public_collectives.csv.gz"
PUBLIC_SOURCE: Final = "stas00/ml-engineering 744d01e (CC-BY-SA-4.0, figures only)"
SAME_LINK: Final = {  # whose all-reduces stand for those of a GPU: its own, or those of the GPU with the same links and switch
    "a100-sxm-80gb": "A100",
    "h100-sxm-80gb": "H200",
    "h200-sxm-141gb": "H200",
    "b200": "B200",
    "gb200": "B200",
}
AGREEING: Final = {"A100": 3.0}  # laboratories that one table stands for: three agree on 70, 110, 170 GB/s at 4, 16, 64 MB
LARGE: Final = 1e6  # bytes: sizes whose errors are told
BOUND_BY_RATE: Final = 16 * 2**20  # bytes: sizes whose errors are those of the bandwidth
LATER: Final = Free(start=1e-5, low=1e-7, high=1e-4)
LATENCY_SPREAD: Final = 0.5  # by judgement: a training step waits for events of other streams, some of what a lone call waits
RING_GPUS: Final = ("A100",)  # without sums in the switch


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooled:
    """The law of all laboratories: coefficients, their spreads, how much later lone calls begin, and the errors of each."""

    fit: Fit
    found: dict[str, float]
    spread: dict[str, float]
    call_s: float
    errors: dict[str, dict[str, float]]


def public_rows(folder: Path, gpu: str) -> pd.DataFrame:
    """All-reduces of other laboratories in one node on the links of `gpu`; none where the folder has no such table."""
    path = folder / PUBLIC
    if gpu not in SAME_LINK or not path.is_file():
        return pd.DataFrame()
    table = read_bus_bandwidths(path)
    name = SAME_LINK[gpu]
    table = table[(table.gpu == name) & (table.nodes == 1) & (table.kind == "all_reduce")]
    if name not in RING_GPUS:
        table = table[(table.algo != "Ring") & (table.gpus > 5)]  # with five the ring is as fast, and may have run
    return table.rename(columns={"gpus": "ranks", "bytes": "payload_bytes"})[["ranks", "payload_bytes", "seconds"]]


def pooled_fit(own: pd.DataFrame, other: pd.DataFrame, gpu: str, equation: Any, free: Mapping[str, Free]) -> Pooled:
    """`equation(call, values)` fitted to both tables, each size held out once; other laboratories begin `call_s` later."""
    rows = pd.concat([own.assign(other=False), other.assign(other=True)], ignore_index=True)
    is_other = rows.other.to_numpy(dtype=float)
    share = AGREEING.get(SAME_LINK[gpu], 1.0)
    share = share / (1.0 + share)
    weights = len(rows) * np.where(rows.other, share / len(other), (1.0 - share) / len(own))
    group = ProcessGroup(name="node", ranks=rows.ranks.to_numpy(dtype=float), stride=1)
    payload = rows.payload_bytes.to_numpy(dtype=float)
    call = Collective(name="all_reduce", kind="all_reduce", payload_bytes=payload, group=group)

    def begun_later(values: Mapping[str, Any]) -> Floats:
        law = {name: value for name, value in values.items() if name != "call_s"}
        return np.asarray(equation(call, law) + values["call_s"] * is_other)

    sizes = rows.groupby("payload_bytes").ngroup().to_numpy()
    fit = fit_of_few(begun_later, {**free, "call_s": LATER}, rows.seconds.to_numpy(dtype=float), sizes, weights)
    errors, of_rate = (
        {name: _error(fit.predicted_s, fit.measured_s, mask & (payload >= least)) for name, mask in _laboratories(rows)}
        for least in (LARGE, BOUND_BY_RATE)
    )
    found, spread = (dict(each) for each in (fit.found, fit.spread))
    call_s = found.pop("call_s")
    spread.pop("call_s", None)
    spread |= {"latency_s": LATENCY_SPREAD, "bandwidth_bytes_per_s": max(error["p90"] for error in of_rate.values())}
    return Pooled(fit=fit, found=found, spread=spread, call_s=call_s, errors=errors)


def _laboratories(rows: pd.DataFrame) -> list[tuple[str, Any]]:
    other = rows.other.to_numpy()
    return [("own", ~other), ("other", other)]


def _error(predicted_s: Floats, measured_s: Floats, chosen: Any) -> dict[str, float]:
    """Rows, and absolute errors once the laboratory's own scalar is taken out."""
    ratio = predicted_s[chosen] / measured_s[chosen]
    error = np.abs(ratio / np.median(ratio) - 1.0)
    median, p90 = (rounded(float(np.quantile(error, share)), 3) for share in (0.5, 0.9))
    return {"rows": int(np.sum(chosen)), "median": median, "p90": p90, "scalar": rounded(float(1.0 / np.median(ratio)), 3)}
