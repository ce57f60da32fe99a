"""Strong scaling of one ramp stage: the same global batch on fewer and on more data-parallel replicas."""

from __future__ import annotations

from math import log
from typing import Final

from perfmodel.spec.axes import FILLING
from perfmodel.spec.layout import Layout
from perfmodel.spec.models.model import divisors
from perfmodel.spec.run import Run
from perfmodel.variation.points import outcomes
from perfmodel.variation.sweep import Sweep, SweptAxis, SweptPoint

KEY: Final = FILLING.name
FEWER, MORE = 5, 3  # halvings and doublings of the run's own replicas


def strong_scaling(run: Run, place: int = -1) -> Sweep:
    """A sweep of data parallelism, from a few halvings of that of the run to a few doublings, where the batch allows it.

    >>> from perfmodel.exchange.run_files import read_candidates
    >>> swept = strong_scaling(read_candidates("nemotron-4-15b")[0].run)
    >>> [point.labels[0] for point in swept.points], swept.scaling.kind
    (['9', '18', '36', '72', '144', '288', '576', '1152'], 'strong')
    """
    values = replicas(run.layout(run.stages[place]))
    found = outcomes(run, place, {KEY: values}, number=len(values))
    points = [
        SweptPoint(labels=(str(value),), values=(value,), model=run.model.name, outcome=outcome)
        for value, outcome in zip(values, found, strict=True)
        if outcome.numbers is not None
    ]
    axis = SweptAxis(key=KEY, labels=tuple(point.labels[0] for point in points))
    number = len(run.stages)
    return Sweep(name=run.name, stage=place % number + 1, stages=number, axes=(axis,), points=tuple(points))


def replicas(layout: Layout) -> list[int]:
    """Degrees of data parallelism that divide the global batch, near halvings and doublings of the layout's own."""
    own, sequences = int(layout.data_parallel), int(layout.global_batch_size // layout.micro_batch_size)
    possible = divisors(sequences)
    wanted = [own * 2.0**power for power in range(-FEWER, MORE + 1) if 1.0 <= own * 2.0**power <= sequences]
    return sorted({own, *(_nearest(possible, each) for each in wanted)})


def _nearest(values: list[int], wanted: float) -> int:
    return min(values, key=lambda value: abs(log(value / wanted)))
