"""Fits the profile of one machine on its own records: a cluster that a run file can name as it is.

The equations are those of timing/. A GPU keeps what records of single kernels do not tell (tiles, waves, the power limit) from
the preset of its kind; a core of a CPU has one "multiprocessor" and no tiles. Each family lies in a file beside this one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np

from perfmodel.benchmarks.fit.machine.attention import attention_entries
from perfmodel.benchmarks.fit.machine.kernels import memory_bound_entries
from perfmodel.benchmarks.fit.machine.links import node_link
from perfmodel.benchmarks.fit.machine.products import product_entries
from perfmodel.benchmarks.fit.machine.serving import KINDS, serving_entries
from perfmodel.benchmarks.fit.machine.waiting import rank_dispersion
from perfmodel.count.operators import Matmul
from perfmodel.errors import InputError, shown
from perfmodel.evidence.steps.records import Record
from perfmodel.exchange.building import build
from perfmodel.exchange.chip_names import chips_in, did_you_mean_hardware
from perfmodel.exchange.presets import expand_part, preset_names
from perfmodel.spec.machines.hardware import Gpu

NETWORK: Final = "infiniband-400"  # of a machine alone: nothing of it is used
PRECISIONS: Final = ("fp32", "bf16")
DRIFT: Final = 0.04  # how far the speed of a machine is off from one hour to the next, by judgement
LINK_DRIFT: Final = 0.15  # the same of collectives between GPUs
SOCKET_DRIFT: Final = 0.4  # and between cores: three of ten launches sent at 0.6 times the rate of the others
COMMON: Final = "h100-sxm-80gb"  # what stands for the kernels that were not measured of a CPU


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a machine says of itself: `devices` are its GPUs, or the cores of its CPU that a rank each can have."""

    name: str
    device: str  # cpu | cuda
    devices: int
    memory_bytes: float  # of one device
    cache_bytes: float
    multiprocessors: int


def machine_profile(records: Sequence[Record], machine: Machine) -> dict[str, Any]:
    """The mapping of a cluster. Errors: InputError when a kind of record is missing."""
    by_kind = {kind: [each for each in records if each.kind == kind] for kind in ("matmul", "attention", "memory_bound")}
    for kind, found in by_kind.items():
        if not found:
            raise InputError(f"there are no {kind} records to fit")
    sheet = datasheet(by_kind, machine)
    gpu = build(Gpu, expand_part(Gpu, "gpus", sheet))
    sources: dict[str, Any] = {}
    kernels = {
        "name": f"Kernels of {machine.name}",
        "matmul": product_entries(by_kind["matmul"], gpu, machine.device, sources),
        **attention_entries(by_kind["attention"], gpu, machine.device, sources),
        "memory_bound": memory_bound_entries(by_kind["memory_bound"], gpu, sources),
    }
    link = node_link([each for each in records if each.kind == "collective"], sources)
    waiting = rank_dispersion(records, sources)
    fitted = {key: value for key, value in sheet.items() if key != "kernels"} | {"kernels": kernels}
    if any(each.kind in KINDS for each in records):
        fitted["serving"] = serving_entries(records, build(Gpu, expand_part(Gpu, "gpus", fitted)), sources)
    return {
        "name": machine.name,
        "gpu": fitted,
        "gpus_per_node": machine.devices,
        "nics_per_node": 1,
        "links": {"node": link, "network": NETWORK},
        "compute_scale": 1.0,
        "gpu_speed_deviation": 0.0,
        "node_link_scale": 1.0,
        "network_scale": 1.0,
        **waiting,
        "spread": {"compute_scale": DRIFT, "node_link_scale": SOCKET_DRIFT if machine.device == "cpu" else LINK_DRIFT}
        | waiting.get("spread", {}),
        "sources": _sources(records, machine) | {key: _line(value) for key, value in sources.items()},
    }


def datasheet(by_kind: Mapping[str, Sequence[Record]], machine: Machine) -> dict[str, Any]:
    """What a datasheet would print; of a CPU, which has none, the best that was measured."""
    peaks = _peaks(by_kind["matmul"])
    rates = [each.sizes["moved_bytes"] / each.seconds for each in by_kind["memory_bound"] if _shows_memory_rate(each)]
    if not rates:
        raise InputError("there are no cold copies among the memory_bound records, from which the memory's rate follows")
    bandwidth = max(rates)
    known = expand_part(Gpu, "gpus", gpu_like(machine.name) if machine.device == "cuda" else COMMON)
    limited = {}
    if machine.device == "cuda":
        peaks = {name: known["peak_flop_per_s"].get(name, rate) for name, rate in peaks.items()}
        limited = {key: known[key] for key in ("full_load_slowdown", "spread") if key in known}  # single kernels do not meet it
    return {
        "name": machine.name,
        "memory_bytes": float(machine.memory_bytes),
        "memory_bandwidth_bytes_per_s": known["memory_bandwidth_bytes_per_s"] if machine.device == "cuda" else bandwidth,
        "cache_bytes": float(machine.cache_bytes),
        "peak_flop_per_s": peaks,
        "streaming_multiprocessors": machine.multiprocessors,
        **limited,
        "attention_libraries": {"fastest": {"by_head_size": {"128": 1.0}}},
        "kernels": known["kernels"],
    }


def gpu_like(device: str) -> str:
    """The preset of the GPU that a driver calls `device`: of those with its chip the one whose name says most of the same.

    Errors: InputError for a chip without a datasheet; its rates are not guessed.

    >>> gpu_like("NVIDIA H100 80GB HBM3"), gpu_like("NVIDIA H100 PCIe"), gpu_like("NVIDIA GH200 480GB")
    ('h100-sxm-80gb', 'h100-pcie-80gb', 'gh200-96gb')
    """
    names = preset_names("gpus")
    same = [name for name in names if chips_in(device) & chips_in(name)]
    if not same:
        raise InputError(f"{shown(device)} has no datasheet here; {did_you_mean_hardware(device, names)}", key="gpu")
    words = set(re.split(r"[^a-z0-9]+", device.lower()))
    return min(same, key=lambda name: (-len(words & set(name.split("-"))), len(name), name))


def _peaks(products: Sequence[Record]) -> dict[str, float]:
    """The best rate of each precision."""
    rates: dict[str, list[float]] = {}
    for each in products:
        rows, columns, inner = (each.sizes[name] for name in ("rows", "columns", "inner"))
        product = Matmul(name="product", rows=rows, columns=columns, inner=inner, precision=each.labels["precision"])
        flop = float(product.flop)
        rates.setdefault(each.labels["precision"], []).append(flop / each.seconds)
    return {name: float(np.max(rates[name])) for name in PRECISIONS if name in rates}


def _shows_memory_rate(each: Record) -> bool:
    """Copies, and what is scaled in place: a core reads the target of a copy, too, before it writes it, which nobody counts."""
    return each.labels["operator"] in ("copy", "scale") and each.labels.get("cache", "cold") == "cold"


def _sources(records: Sequence[Record], machine: Machine) -> dict[str, str]:
    """Where the numbers come from that no fit gave."""
    born = records[0].provenance
    measured = f"measured by perfmodel calibrate on {born['gpu']}, {born['software']}, {born['date']}"
    sheet = "the datasheet of its kind" if machine.device == "cuda" else f"the best that was {measured}"
    return {
        "": f"{measured}; fitted {datetime.now(UTC).date().isoformat()}",
        "gpu.memory_bytes": "what the machine reports, shared by its devices",
        "gpu.peak_flop_per_s": sheet,
        "gpu.memory_bandwidth_bytes_per_s": sheet,
        "gpu.full_load_slowdown": "the preset of its kind, fitted on published runs",
        "spread.compute_scale": "by judgement, how far a machine's speed drifts between a calibration and a run",
        "spread.node_link_scale": (
            "ten launches of two runs on two virtual cores, three of which sent at 0.6 times the rate of the others"
            if machine.device == "cpu"
            else "by judgement, how far collectives inside a machine drift between a calibration and a run"
        ),
        "gpu_speed_deviation": "its devices were measured as one",
        "links.network": "nothing of it was measured: this is one machine",
    }


def _line(source: Any) -> str:
    """A source as one line of text."""
    return source if isinstance(source, str) else "; ".join(f"{key} {value}" for key, value in source.items())
