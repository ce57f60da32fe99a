"""How a question about a measured run is read: its speed, nccl-tests, a profile, and which software it may have been."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Final

from perfmodel.count.operators import Collective
from perfmodel.errors import InputError
from perfmodel.evidence.steps.profiled_step import SPAN, ProfiledStep, profiled_step
from perfmodel.exchange.building import build
from perfmodel.exchange.measured.nccl_calls import call_of, rows_at
from perfmodel.exchange.measured.nccl_tests import NcclRow
from perfmodel.exchange.measured.trace_files import read_trace
from perfmodel.exchange.presets import DATA
from perfmodel.exchange.questions.measured_values import measured_value
from perfmodel.exchange.questions.varied_runs import stage_index
from perfmodel.exchange.run_files import RunSource, Settings, read_candidates, setting_pairs
from perfmodel.exchange.stack_fit import software_offering
from perfmodel.exchange.syntax.documents import read_mapping
from perfmodel.explanation.measured.diagnosis import Diagnosis, diagnosis
from perfmodel.explanation.measured.readings import Reading, collective_reading, kernel_reading
from perfmodel.light_dataclass import replace
from perfmodel.prediction import predict
from perfmodel.spec.evidence.causes import DiagnosisPriors
from perfmodel.spec.machines.hardware import Cluster
from perfmodel.timing.collectives import collective_time_s

KERNEL: Final = "kernel"  # what a profile calls what ran on a GPU
MOST_ERROR: Final = 1e6  # of a reading, relative: it tells nothing
ONE_BYTE: Final = 1.0  # the size of a message that takes the latency alone


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
    """The bus bandwidth of the largest size of each test in an output of nccl-tests.

    Errors: InputError for a text that is none, or does not say which test it was.
    """
    largest: dict[tuple[str, tuple[str, ...]], NcclRow] = {}
    for row in sorted(rows_at(path), key=lambda each: each.payload_bytes):
        largest[row.operator, row.hosts] = row
    error = float(priors.collective_error.value)
    return [_reading(call_of(row, path, cluster), row, cluster, error) for row in largest.values() if row.bus_ratio]


def _reading(call: Collective, row: NcclRow, cluster: Cluster, error: float) -> Reading:
    """One row as a reading; the less of its time is the bandwidth's, the greater its error: error / (1 - t(1 byte) / t(n))."""
    seconds, least_s = (
        float(collective_time_s(replace(call, payload_bytes=size), cluster=cluster)) for size in (call.payload_bytes, ONE_BYTE)
    )
    share = max(1.0 - least_s / seconds, error / MOST_ERROR)
    return collective_reading(call, row.bus_bytes_per_s, error=error / share)


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
        named = {name for name in {event.name for event in kernels} if re.search(words.pattern, name)}
        yield kind, sum(event.end_ns - event.start_ns for event in kernels if event.name in named) / 1e9
        kernels = [event for event in kernels if event.name not in named]
