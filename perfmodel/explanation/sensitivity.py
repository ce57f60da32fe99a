"""How much each number of the hardware and of the software matters: the iteration with it 10 % up, and 10 % down.

    change = T(c * 1.1) / T - 1,    T(c * 0.9) / T - 1

All of them at once: the cluster and the stack get a first axis, whose place 0 is both as they stand, place 1 + 2*i has lever i
10 % up, place 2 + 2*i 10 % down; the equations of an iteration are called once. A number that may not go that far (an
efficiency of more than 1) goes as far as it may, and says how far that is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perfmodel.count.iteration import Iteration, iteration
from perfmodel.explanation.levers import PEAK, Lever, levers
from perfmodel.frames import Tabular
from perfmodel.light_dataclass import dataclass, replace
from perfmodel.spec.evidence.spread import moved
from perfmodel.spec.fields import Numeric
from perfmodel.spec.machines.hardware import Cluster
from perfmodel.spec.setup import Setup
from perfmodel.timing.breakdown import Breakdown
from perfmodel.timing.kernels import at_cluster_load
from perfmodel.timing.schedule import breakdown

UP, DOWN = 1.1, 0.9
NOTHING: Final = 1e-9  # a relative change that is rounding


class Shift(NamedTuple):
    """A number moved by a share of itself, and the relative change of a time that this makes."""

    step: float
    change: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What one lever does to a time, up and down."""

    lever: Lever
    up: Shift
    down: Shift

    @property
    def helping(self) -> Shift:
        """The direction that shortens the time, or lengthens it less."""
        return self.up if self.up.change <= self.down.change else self.down

    @property
    def hurting(self) -> Shift:
        """The direction that lengthens the time, or shortens it less."""
        return self.down if self.up.change <= self.down.change else self.up

    @property
    def matters(self) -> bool:
        """Whether the time depends on it at all."""
        return max(abs(self.up.change), abs(self.down.change)) > NOTHING


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Sensitivity(Tabular):
    """An iteration with every lever up and down: arrays whose first axis holds one place a lever and direction."""

    levers: tuple[Lever, ...]
    work: Iteration  # of the setup with every number in all its places
    breakdown: Breakdown

    def effects(self, seconds: Numeric | None = None) -> tuple[Effect, ...]:
        """What every lever does to the iteration, or to the `seconds` of a part of it; those that help most first."""
        times = self._places(self.breakdown.total_s if seconds is None else seconds)
        if times[0] == 0.0:
            return ()
        changes = times[1:] / times[0] - 1.0
        every = [_effect(lever, changes[2 * index], changes[2 * index + 1]) for index, lever in enumerate(self.levers)]
        return tuple(sorted(every, key=lambda effect: (effect.helping.change, -effect.hurting.change)))

    def _places(self, seconds: Numeric) -> NDArray[np.float64]:
        return np.broadcast_to(np.asarray(seconds, dtype=np.float64), (1 + 2 * len(self.levers),))

    def rows(self) -> list[dict[str, Any]]:
        """Every lever, those that help most first."""
        return [
            {
                "name": effect.lever.name,
                "kind": effect.lever.kind,
                "headline": effect.lever.headline,
                "step": effect.helping.step,
                "time_change": effect.helping.change,
                "other_step": effect.hurting.step,
                "other_time_change": effect.hurting.change,
            }
            for effect in self.effects()
        ]


def _effect(lever: Lever, up: float, down: float) -> Effect:
    steps = [max((each.moved_by(factor) for each in lever.coefficients), key=abs) for factor in (UP, DOWN)]
    return Effect(lever=lever, up=Shift(steps[0], float(up)), down=Shift(steps[1], float(down)))


def sensitivity(setup: Setup) -> Sensitivity:
    """One layout under every lever.

    >>> from perfmodel.exchange.run_files import read_candidates
    >>> run = read_candidates("nemotron-4-15b")[0].run
    >>> effects = sensitivity(run.setup(run.stages[0])).effects()
    >>> latency = next(effect for effect in effects if effect.lever.name == "network latency")
    >>> latency.helping.step < 0, latency.helping.change < 0, latency.hurting.change > 0
    (True, True, True)
    """
    cluster, stack = setup.cluster, setup.stack
    every = levers(cluster, stack)
    factors = _factors(every)
    moved_cluster = _with_peak(moved(cluster, factors, "cluster."), factors)
    moved_stack = moved(stack, factors, "stack.")
    with np.errstate(all="ignore"):
        work = iteration(replace(setup, cluster=moved_cluster, stack=moved_stack))
        parts = breakdown(work, cluster=at_cluster_load(moved_cluster, setup.layout.gpus), stack=moved_stack)
    return Sensitivity(levers=every, work=work, breakdown=parts)


def _factors(every: Sequence[Lever]) -> dict[str, NDArray[np.float64]]:
    """For each key path the factor at every place of the axis."""
    factors: dict[str, NDArray[np.float64]] = {}
    for index, lever in enumerate(every):
        for each in lever.coefficients:
            factor = factors.setdefault(each.path, np.ones(1 + 2 * len(every)))
            factor[1 + 2 * index], factor[2 + 2 * index] = 1.0 + each.moved_by(UP), 1.0 + each.moved_by(DOWN)
    return factors


def _with_peak(cluster: Cluster, factors: Mapping[str, NDArray[np.float64]]) -> Cluster:
    """The rates of a table, which `moved` leaves alone."""
    rates = {name: rate * factors[f"{PEAK}.{name}"] for name, rate in cluster.gpu.peak_flop_per_s.items()}
    return replace(cluster, gpu=replace(cluster.gpu, peak_flop_per_s=MappingProxyType(rates)))
