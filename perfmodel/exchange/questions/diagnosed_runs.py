"""How a question about a measured run is read: its speed, nccl-tests, a profile, and which software it may have been."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np

from perfmodel.count.operators import Collective
from perfmodel.errors import InputError
from perfmodel.evidence.profiled_step import SPAN, ProfiledStep, profiled_step
from perfmodel.exchange.building import build
from perfmodel.exchange.documents import read_mapping, read_text
from perfmodel.exchange.nccl_tests import NcclRow, Reader, program_named
from perfmodel.exchange.presets import DATA
from perfmodel.exchange.questions.measured_values import measured_value
from perfmodel.exchange.questions.varied_runs import stage_index
from perfmodel.exchange.run_files import RunSource, Settings, read_candidates, setting_pairs
from perfmodel.exchange.stack_fit import software_offering
from perfmodel.exchange.trace_files import read_trace
from perfmodel.explanation.diagnosis import Diagnosis, diagnosis
from perfmodel.explanation.readings import Reading, collective_reading, kernel_reading
from perfmodel.prediction import predict
from perfmodel.spec.causes import DiagnosisPriors
from perfmodel.spec.hardware import Cluster
from perfmodel.spec.layout import ProcessGroup
from perfmodel.timing.collectives import collective_time_s, placement

KERNEL: Final = "kernel"  # what a profile calls what ran on a GPU
MOST_RATE: Final = 4.0  # bus bandwidth / published rate of a link: rings side by side and in-network sums reach 1 to 2
MOST_ERROR: Final = 1e6  # of a reading, relative: it tells nothing
ONE_BYTE: Final = 1.0  # the size of a message that takes the latency alone
NEAR_ONE: Final = 0.005  # as two decimals of a bandwidth round


@cache
def diagnosis_priors() -> DiagnosisPriors:
    """What a diagnosis takes for granted (data/diagnosis.yaml)."""
    return build(DiagnosisPriors, read_mapping(DATA / "diagnosis.yaml"))


def run_diagnosis(
    source: RunSource,
    measured: str | float,
    *,
    settings: Settings = (),
    stage: int | None = None,
    nccl_tests: Sequence[Path] = (),
    profile: Path | None = None,
) -> Diagnosis:
    """One ramp stage of a run beside its measured speed, and what was measured besides."""
    first, priors = read_candidates(source, setting_pairs(settings))[0], diagnosis_priors()
    run, place = first.run, stage_index(first.run, stage)
    speed = measured_value(measured, predict(run).stages[place][1])
    beside = [reading for path in nccl_tests for reading in nccl_readings(path, run.cluster, priors)]
    if profile is not None:
        beside += profile_readings(profile, priors)
    return diagnosis(
        run,
        place=place,
        measured_s=speed.iteration_time_s,
        stated=speed.text,
        priors=priors,
        beside=beside,
        stacks=software_offering(run, run.layout(run.stages[place])),
        unstated=first.unstated,
    )


def nccl_readings(path: Path, cluster: Cluster, priors: DiagnosisPriors) -> list[Reading]:
    """The bus bandwidth of the largest size of each test in a text of nccl-tests.

    Errors: InputError for a text that is none, or does not say which test it was.
    """
    rows = Reader(str(path), operator=program_named(path.name)).read(read_text(path))
    largest: dict[tuple[str, tuple[str, ...]], NcclRow] = {}
    for row in sorted(rows, key=lambda each: each.payload_bytes):
        largest[row.operator, row.hosts] = row
    error = float(priors.collective_error.value)
    return [_reading(_call(row, path, cluster), row, path, cluster, error) for row in largest.values() if row.bus_ratio]


def _reading(call: Collective, row: NcclRow, path: Path, cluster: Cluster, error: float) -> Reading:
    """One row as a reading; the less of its time is the bandwidth's, the greater its error: error / (1 - t(1 byte) / t(n))."""
    where, rate = placement(call.group, cluster), float(cluster.links.node.bandwidth_bytes_per_s)
    if where.crosses_nodes:
        rate = float(where.network_bytes_per_s)
    if row.bus_bytes_per_s > MOST_RATE * rate:
        measured = f"a bus bandwidth of {row.bus_bytes_per_s / 1e9:.4g} GB/s"
        raise InputError(f"{path}: {measured} cannot be: the link between these ranks has a rate of {rate / 1e9:.4g} GB/s")
    seconds, least_s = (
        float(collective_time_s(replace(call, payload_bytes=size), cluster=cluster)) for size in (call.payload_bytes, ONE_BYTE)
    )
    share = max(1.0 - least_s / seconds, error / MOST_ERROR)
    return collective_reading(call, row.bus_bytes_per_s, error=error / share)


def _call(row: NcclRow, path: Path, cluster: Cluster) -> Collective:
    """The collective of a row, between as many ranks as the text says, or as its ratio of bandwidths means."""
    operator = row.operator or ("all_reduce" if row.bus_ratio > 1.0 + NEAR_ONE else "")
    if not operator:
        raise InputError(f"{path}: nothing says which test it was; name the file after it, as in all_gather.txt")
    ranks = len(row.hosts) or _ranks(row, operator, path)
    nodes = len(set(row.hosts)) or int(np.ceil(ranks / cluster.gpus_per_node))
    stride = max(int(cluster.gpus_per_node) // max(ranks // nodes, 1), 1) if nodes > 1 else 1
    group = ProcessGroup(name="nccl-tests", ranks=ranks, stride=stride)
    return Collective(name="nccl-tests", kind=operator, payload_bytes=row.payload_bytes, group=group)


def _ranks(row: NcclRow, operator: str, path: Path) -> int:
    """p of bus / algorithm bandwidth = 2(p-1)/p of an all-reduce, (p-1)/p of others."""
    missing = 1.0 - row.bus_ratio / (2.0 if operator == "all_reduce" else 1.0)
    if operator == "point_to_point" or missing < NEAR_ONE:
        raise InputError(f"{path}: no '# Rank' line says how many ranks there were")
    return round(1.0 / missing)


def profile_readings(path: Path, priors: DiagnosisPriors) -> list[Reading]:
    """The seconds that the GPU of a profile (a Kineto trace) ran kernels of each kind in its last step.

    Errors: InputError for a file that is no trace, or has no kernels.
    """
    try:
        seconds = dict(_kernel_seconds(profiled_step(read_trace(path)), priors))
    except InputError as error:
        raise error.under("" if str(path) in str(error) else str(path)) from None
    if not any(seconds.values()):
        raise InputError(f"{path}: no kernel of a GPU is in this trace; profile with ProfilerActivity.CUDA")
    known = priors.kernels
    return [kernel_reading(kind, each, error=float(known[kind].error)) for kind, each in seconds.items() if each > 0]


def _kernel_seconds(step: ProfiledStep, priors: DiagnosisPriors) -> Iterator[tuple[str, float]]:
    """By kind of kernel, what its kernels take; one that two patterns name is of the first."""
    kernels = [event for event in step.events if event.phase == SPAN and event.kind == KERNEL]
    for kind, words in priors.kernels.items():
        own = [event for event in kernels if re.search(words.pattern, event.name)]
        kernels = [event for event in kernels if event not in own]
        yield kind, sum(event.end_ns - event.start_ns for event in own) / 1e9
