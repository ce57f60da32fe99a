"""A run at every combination of a few values of a few settings: what a page needs to answer "what if" without Python.

The settings are the rates of links, memory and arithmetic, as multiples of those of the run, and the micro-batch. Every point
is what a prediction with the same settings gives (variation/points.py), so that nothing is interpolated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from math import gcd
from typing import Final

import numpy as np

from perfmodel.count.memory.fit import fit_verdict
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.run import Run
from perfmodel.variation.points import PointOutcome, outcomes

FACTORS: Final = (0.5, 0.75, 1.0, 1.5, 2.0)
FEWER_FACTORS: Final = (0.5, 1.0, 2.0)
MOST_SEQUENCES: Final = 16  # of a micro-batch, unless the run's own is larger
MOST_STAGES: Final = 6  # of a ramp whose days are summed; of longer ones only the stage that is shown is told
LEAST_CHANGE: Final = 1e-6  # of the time: a setting that does less is left out
MICRO_BATCH: Final = "micro_batch_size"


@dataclass(frozen=True, slots=True, kw_only=True)
class GridAxis:
    """One setting: what people call it, its values at each of its key paths, and the place of the run's own."""

    name: str
    paths: Mapping[str, tuple[float, ...]]  # several where numbers move together: the peak rates of all formats
    place: int

    @property
    def values(self) -> tuple[float, ...]:
        """The values at the first key path."""
        return next(iter(self.paths.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class GridPoint:
    """What a run does at one point; days and GPU-hours are those of all its ramp stages, None where they are not known."""

    iteration_time_s: float
    mfu: float
    tokens_per_s_per_gpu: float
    memory_bytes: float  # of the ramp stage that needs most
    verdict: str
    days: float | None
    calendar_gpu_hours: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingGrid:
    """Points in the order of the axes, of which the last varies fastest; None where a layout cannot be."""

    axes: tuple[GridAxis, ...]
    points: tuple[GridPoint | None, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """How many values each axis has."""
        return tuple(len(axis.values) for axis in self.axes)

    def settings(self, at: Sequence[int]) -> dict[str, float]:
        """The value at every key path at a place of the grid."""
        return {path: values[where] for axis, where in zip(self.axes, at, strict=True) for path, values in axis.paths.items()}

    def point(self, at: Sequence[int]) -> GridPoint | None:
        """The point at a place on each axis."""
        return self.points[int(np.ravel_multi_index(tuple(at), self.shape))] if self.axes else self.points[0]

    @property
    def here(self) -> tuple[int, ...]:
        """The place of the run as it is."""
        return tuple(axis.place for axis in self.axes)


def setting_grid(run: Run, place: int = -1) -> SettingGrid:
    """The grid around a run, of which the stage at `place` is shown; settings without effect are left out.

    >>> from perfmodel.exchange.run_files import read_candidates
    >>> grid = setting_grid(read_candidates("nemotron-4-15b")[0].run)
    >>> [axis.name for axis in grid.axes][2:], grid.shape
    (['GPU memory bandwidth', 'peak rate', 'micro-batch'], (5, 3, 3, 5, 3))
    """
    axes = [axis for axis in _axes(run) if _matters(run, place, axis)]
    return SettingGrid(axes=tuple(axes), points=tuple(_points(run, place, axes)))


def _axes(run: Run) -> Iterator[GridAxis]:
    gpu, links = run.cluster.gpu, run.cluster.links
    rates = (
        (f"{links.network.name} bandwidth", {"cluster.links.network.bandwidth_bytes_per_s": links.network}, FACTORS),
        (f"{links.node.name} bandwidth", {"cluster.links.node.bandwidth_bytes_per_s": links.node}, FEWER_FACTORS),
    )
    for name, paths, factors in rates:
        yield _scaled(name, {path: float(link.bandwidth_bytes_per_s) for path, link in paths.items()}, factors)
    memory = float(gpu.memory_bandwidth_bytes_per_s)
    yield _scaled("GPU memory bandwidth", {"cluster.gpu.memory_bandwidth_bytes_per_s": memory}, FEWER_FACTORS)
    peaks = {f"cluster.gpu.peak_flop_per_s.{name}": float(rate) for name, rate in gpu.peak_flop_per_s.items()}
    products = f"cluster.gpu.peak_flop_per_s.{run.layout(run.stages[0]).recipe.products}"
    yield _scaled("peak rate", dict(sorted(peaks.items(), key=lambda entry: entry[0] != products)), FACTORS)
    sizes = _micro_batches(run)
    if len(sizes) > 1:
        own = int(run.layout(run.stages[0]).micro_batch_size)
        yield GridAxis(name="micro-batch", paths={MICRO_BATCH: tuple(sizes)}, place=sizes.index(own))


def _scaled(name: str, own: Mapping[str, float], factors: Sequence[float]) -> GridAxis:
    paths = {path: tuple(factor * value for factor in factors) for path, value in own.items()}
    return GridAxis(name=name, paths=paths, place=factors.index(1.0))


def _micro_batches(run: Run) -> list[int]:
    """Powers of two, and the run's own, that divide the sequences of a replica in every ramp stage."""
    layouts = [run.layout(stage) for stage in run.stages]
    shares = gcd(*(int(each.global_batch_size // each.data_parallel) for each in layouts))
    own = int(layouts[0].micro_batch_size)
    sizes = {own, *(2**power for power in range(MOST_SEQUENCES.bit_length()))}
    return sorted(size for size in sizes if shares % size == 0 or size == own)


def _matters(run: Run, place: int, axis: GridAxis) -> bool:
    """Whether the setting alone changes the iteration."""
    found = outcomes(run, place, _columns([axis]), number=len(axis.values))
    times = [each.numbers["iteration_time_s"] for each in found if each.numbers]
    return len(times) > 1 and max(times) > (1.0 + LEAST_CHANGE) * min(times)


def _columns(axes: Sequence[GridAxis]) -> dict[str, list[float]]:
    """The values of every point at each key path."""
    grid = list(product(*(range(len(axis.values)) for axis in axes)))
    return {
        path: [values[at[number]] for at in grid] for number, axis in enumerate(axes) for path, values in axis.paths.items()
    }


def _points(run: Run, place: int, axes: Sequence[GridAxis]) -> Iterator[GridPoint | None]:
    number = int(np.prod([len(axis.values) for axis in axes], dtype=int))
    shown = place % len(run.stages)
    told = range(len(run.stages)) if len(run.stages) <= MOST_STAGES else (shown,)
    columns = {each: outcomes(run, each, _columns(axes), number=number) for each in told}
    for point in range(number):
        yield _point([columns[each][point] for each in told], columns[shown][point], is_whole=len(told) == len(run.stages))


def _point(stages: Sequence[PointOutcome], shown: PointOutcome, *, is_whole: bool) -> GridPoint | None:
    """The totals of all ramp stages with the speed of the one that is shown; None where one of them cannot be."""
    every = [each.numbers for each in stages if each.numbers]
    if not shown.numbers or len(every) < len(stages):
        return None
    worst = max(every, key=lambda numbers: numbers["memory_bytes"])
    return GridPoint(
        iteration_time_s=shown.numbers["iteration_time_s"],
        mfu=shown.numbers["mfu"],
        tokens_per_s_per_gpu=shown.numbers["tokens_per_s_per_gpu"],
        memory_bytes=worst["memory_bytes"],
        verdict=fit_verdict(min(numbers["fit_probability"] for numbers in every)),
        days=_sum([numbers["days"] for numbers in every]) if is_whole else None,
        calendar_gpu_hours=_sum([numbers["calendar_gpu_hours"] for numbers in every]) if is_whole else None,
    )


def _sum(values: Sequence[float | None]) -> float | None:
    """Nothing where one of them is not known."""
    known = [each for each in values if each is not None]
    return sum(known) if len(known) == len(values) else None
