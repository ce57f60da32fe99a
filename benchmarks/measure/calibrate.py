"""Measures this machine's kernels and collectives, and fits the profile that a run file can name as its cluster.

Every record is kept as soon as it is measured: a calibration that was stopped goes on where it was.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

from perfmodel.benchmarks.fit.machine.calibrated import Machine, machine_profile
from perfmodel.benchmarks.fit.profile import write_profile
from perfmodel.benchmarks.measure.core_distance import near_s, nearest
from perfmodel.benchmarks.measure.kernels.plan import kernel_points, plan_of
from perfmodel.benchmarks.measure.kernels.points import key_of
from perfmodel.benchmarks.measure.kernels.record_file import read_lines
from perfmodel.benchmarks.measure.kernels.served.served_plan import served_points
from perfmodel.benchmarks.measure.neighbours import OTHERS
from perfmodel.benchmarks.measure.processes import start
from perfmodel.benchmarks.measure.steps.ranks import devices
from perfmodel.errors import InputError, shown
from perfmodel.evidence.steps.odd_records import sound
from perfmodel.evidence.steps.records import Record
from perfmodel.units import parse_quantity

Progress: TypeAlias = Callable[[int, int], None]  # how many records are there, of how many
Warn: TypeAlias = Callable[[Sequence[str]], None]  # says what was left out
KERNELS: Final = "perfmodel.benchmarks.measure.kernels.kernels"
COLLECTIVES: Final = "perfmodel.benchmarks.measure.kernels.collectives"
STATED_CORES: Final = re.compile(r"\d{1,6}\.\d{1,6}")
MOST_S: Final = 3 * 3600.0
MOST: Final = 1e15  # of bytes or multiprocessors of a device
HEADER: Final = "# Written by perfmodel calibrate: a cluster for run files, fitted on this machine's own kernels.\n"


def records_beside(output: Path) -> Path:
    """Where the records of a profile lie: profile.yaml has profile.records.jsonl."""
    return output.with_suffix(".records.jsonl")


def calibrate(
    output: Path, *, device: str, smallest: bool = False, on_progress: Progress | None = None, warn: Warn | None = None
) -> dict[str, Any]:
    """Measure what is not there yet, fit and write the profile. Errors: InputError, PerfmodelError; records stay."""
    records = records_beside(output)
    if not output.parent.is_dir():
        raise InputError(f"{output.parent} is not a folder", key="--output")
    number = devices(device)
    total = len(kernel_points(plan_of(device, smallest=smallest))) + len(served_points(device, smallest=smallest))
    total += _collectives(device, smallest) if number > 1 else 0
    small = ["--smallest"] if smallest else []
    _run([KERNELS, "--device", device, *small, "--output", str(records)], records, total, on_progress)
    if number > 1:
        _run([COLLECTIVES, "--device", device, *small, "--output", str(records)], records, total, on_progress, ranks=number)
    return fit_file(output, records, warn=warn)


def fit_file(output: Path, records: Path, *, warn: Warn | None = None) -> dict[str, Any]:
    """Fit and write the profile of a machine from a file of records; lines that are none are said. Errors: InputError."""
    found = read_lines(records)
    if warn:
        warn(found.problems)
    return write_fitted(output, found.records, warn=warn)


def write_fitted(output: Path, records: Sequence[Record], *, warn: Warn | None = None) -> dict[str, Any]:
    """Fit and write the profile of a machine, from records of one calibration or of several: of each point the median.

    Records that others contradict are said, and left out. Errors: InputError where what is left is too little to fit.
    """
    if not records:
        raise InputError("there are no records to fit")
    machine, found = machine_of(records), sound(pooled(records))
    if warn:
        warn([*found.left_out, *neighbours_of(records)])
    try:
        profile = machine_profile(found.records, machine)
    except (ValueError, ArithmeticError, LookupError) as error:  # of NumPy and SciPy, where rows are too few for coefficients
        raise InputError(f"these records are too few or too odd to fit: {type(error).__name__}, {shown(str(error))}") from None
    write_profile(output, profile, header=HEADER)
    return profile


def neighbours_of(records: Sequence[Record]) -> list[str]:
    """The sentence on records that say of themselves that others used the cores meanwhile."""
    said = [each.provenance[OTHERS] for each in records if OTHERS in each.provenance]
    used = [float(cores) for cores in said if STATED_CORES.fullmatch(cores)]
    if not used:
        return []
    sentence = (
        f"others used up to {max(used):.1f} cores while {len(used):,} of {len(records):,} records were taken: this is the "
        "profile of a machine that does something else too; calibrate again when it is quiet"
    )
    return [sentence]


def pooled(records: Sequence[Record]) -> list[Record]:
    """One record a point: that with the median time (the faster of the middle two).

    Of those that were taken alone if there are any, and with the cores near each other, or as near as they were at this point.
    """
    usual_s = near_s(each.provenance for each in records)
    points: dict[str, list[Record]] = {}
    for each in records:
        points.setdefault(key_of(each), []).append(each)
    alone = ([each for each in group if OTHERS not in each.provenance] or group for group in points.values())
    ordered = (sorted(nearest(group, usual_s), key=lambda each: each.seconds) for group in alone)
    return [group[(len(group) - 1) // 2] for group in ordered]


def _collectives(device: str, smallest: bool) -> int:
    """How many points the collectives of this machine are."""
    from perfmodel.benchmarks.measure.kernels.collectives import PRECISION, groups_of
    from perfmodel.benchmarks.measure.kernels.plan import busy_points, collective_points
    from perfmodel.benchmarks.measure.kernels.rank_times import rank_time_points
    from perfmodel.model.training.launch import BACKENDS

    ranks = devices(device)
    sizes = [each.size for each in groups_of(ranks, ranks)]
    plan = plan_of(device, smallest=smallest)
    busy = [*busy_points(plan), *rank_time_points(ranks)] if device == "cpu" else []
    return len([*busy, *collective_points(plan, sizes, backend=BACKENDS[device], precision=PRECISION[device])])


def machine_of(records: Sequence[Record]) -> Machine:
    """The machine that records were taken on, as they say themselves. Errors: InputError when they do not."""
    born = records[0].provenance
    if "nccl_tests" in str(born.get("command", "")) and "device" not in born:
        fits = "perfmodel calibrate --from-nccl-tests FILE --cluster NAME fits the links of a cluster to what they printed"
        raise InputError(f"these are records of nccl-tests, which say nothing of a machine's kernels; {fits}")
    for name in ("device", "memory_bytes", "cache_bytes", "multiprocessors"):
        if name not in born:
            raise InputError(
                "missing; records of `perfmodel calibrate` and `perfmodel.benchmarks.measure.kernels.kernels` have it",
                key=f"provenance.{name}",
            )
    inside = [each.sizes["ranks"] for each in records if each.kind == "collective" and each.sizes.get("nodes", 1) == 1]
    return Machine(
        name=born["gpu"].removeprefix("cpu: "),
        device=born["device"],
        devices=int(max(inside, default=1)),
        memory_bytes=_stated(born, "memory_bytes"),
        cache_bytes=_stated(born, "cache_bytes"),
        multiprocessors=int(_stated(born, "multiprocessors")),
    )


def _stated(born: Mapping[str, str], name: str) -> float:
    """A number that a machine states of itself."""
    number = parse_quantity(born[name], "count") if born[name][:1].isdecimal() else 0.0
    if not 1.0 <= number <= MOST:
        raise InputError(f"{shown(born[name])} is not a number of a machine", key=f"provenance.{name}")
    return number


def _run(command: Sequence[str], records: Path, total: int, on_progress: Progress | None, *, ranks: int = 0) -> None:
    """One measuring process, or ranks of one; what they have written so far is the progress."""
    start(command, ranks, meanwhile=lambda: _tell(records, total, on_progress), timeout_s=MOST_S)
    _tell(records, total, on_progress)


def _tell(records: Path, total: int, on_progress: Progress | None) -> None:
    if on_progress and records.is_file():
        on_progress(records.read_bytes().count(b"\n"), total)
