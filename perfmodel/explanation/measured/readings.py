"""What was measured of a run, and what the equations give for it: an iteration, a collective, the kernels of a profile.

A reading is compared as ln(measured / predicted); its standard deviation follows from the same ends of uncertain numbers as the
interval of an iteration (timing/uncertainty.py), beside an error of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final

import numpy as np

from perfmodel.count.iteration import iteration
from perfmodel.count.operators import Collective, FusedAttention, Matmul, Operator
from perfmodel.light_dataclass import dataclass, replace
from perfmodel.prediction import StagePrediction, stage_breakdown
from perfmodel.spec.evidence.spread import DEVIATIONS, most_dimensions
from perfmodel.spec.fields import Numeric
from perfmodel.spec.setup import Setup
from perfmodel.timing.collectives import collective_time_s, placement
from perfmodel.timing.ledger import seconds_of_a_gpu
from perfmodel.timing.uncertainty import Uncertainty, uncertainty, with_ends

ITERATION: Final = "iteration"
SETUPS: Final = 2  # whose kernels are remembered, for a profile has a reading of each kind: a diagnosis takes 0.45 s, not 0.74
LEAST_DEVIATION: Final = 0.005  # of ln(measured / predicted): nobody repeats a measurement better
NODE_CALLS, NETWORK_CALLS, OTHER_KERNELS = "collectives inside the node", "collectives between nodes", "other kernels"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One measured quantity [s, or bytes/s], and the equations for it; `error` is a relative half width beside its interval."""

    name: str
    measured: float
    predicted: Callable[[Setup], Numeric]
    error: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How far ln of a reading may be from its prediction, as standard deviations: of all, and of each number alone."""

    below: float
    above: float
    of_number: Mapping[str, float]

    def widened(self, error: float) -> Spread:
        """With an independent error beside, given as the relative half width of its 90 % interval."""
        own = float(np.log1p(error)) / DEVIATIONS
        return replace(self, below=float(np.hypot(self.below, own)), above=float(np.hypot(self.above, own)))

    def towards(self, gap: float, *, without: str = "") -> float:
        """On the side of a gap ln(measured / predicted), with one number held."""
        whole = self.above if gap > 0 else self.below
        return max(float(np.sqrt(max(whole**2 - self.of_number.get(without, 0.0) ** 2, 0.0))), LEAST_DEVIATION)


def iteration_reading(measured_s: float) -> Reading:
    """A measured iteration time."""
    return Reading(name=ITERATION, measured=measured_s, predicted=lambda setup: stage_breakdown(setup).total_s)


def collective_reading(call: Collective, bus_bytes_per_s: float, *, error: float) -> Reading:
    """The bus bandwidth of a collective, as nccl-tests define it: the bytes that each rank sends / the time."""
    return Reading(
        name=f"{call.kind} of {int(call.group.ranks)}",
        measured=bus_bytes_per_s,
        predicted=lambda setup: bus_bandwidth(call, setup),
        error=error,
    )


def kernel_reading(kind: str, measured_s: float, *, error: float) -> Reading:
    """The seconds that a GPU runs kernels of one kind in an iteration; `kind` is one of `kernel_seconds`, or `collective`."""
    return Reading(name=f"{kind} kernels", measured=measured_s, predicted=lambda setup: _of_kind(setup, kind), error=error)


def _of_kind(setup: Setup, kind: str) -> Numeric:
    seconds = kernel_seconds(setup)
    return seconds[NODE_CALLS] + seconds[NETWORK_CALLS] if kind == "collective" else seconds[kind]


def bus_bandwidth(call: Collective, setup: Setup) -> Numeric:
    """wire_bytes / t of one call on the cluster of a setup."""
    return call.wire_bytes / collective_time_s(call, cluster=setup.cluster)


@lru_cache(maxsize=SETUPS)
def kernel_seconds(setup: Setup) -> Mapping[str, Numeric]:
    """Seconds of an iteration in which an average GPU runs each kind of kernel, each alone, hidden or not."""
    seconds: dict[str, Numeric] = dict.fromkeys(("matmul", "attention", OTHER_KERNELS, NODE_CALLS, NETWORK_CALLS), 0.0)
    work = iteration(setup)
    for operator, taken_s in seconds_of_a_gpu(work, gpus=setup.layout.gpus, cluster=setup.cluster, stack=setup.stack):
        kind = _kind(operator, setup)
        seconds[kind] = seconds[kind] + taken_s
    return MappingProxyType(seconds)


def _kind(operator: Operator, setup: Setup) -> str:
    match operator:
        case Matmul():
            return "matmul"
        case FusedAttention():
            return "attention"
        case Collective():
            return NETWORK_CALLS if np.all(placement(operator.group, setup.cluster).crosses_nodes) else NODE_CALLS
    return OTHER_KERNELS


def interval_of(reading: Reading, setup: Setup) -> Spread:
    """How sure a reading is, from the cluster and the stack with every uncertain number at both ends."""
    dimensions = most_dimensions(setup.model, setup.layout)
    ends = with_ends(setup.cluster, setup.stack, setup.layout.recipe, dimensions, messages=True)  # calls of any kind are read
    values = np.asarray(reading.predicted(replace(setup, cluster=ends.cluster, stack=ends.stack)))
    every = np.broadcast_to(values, (1 + 2 * len(ends.paths), *values.shape[1:]))
    return _spread(uncertainty(every, ends.paths), float(every[0])).widened(reading.error)


def iteration_interval(predicted: StagePrediction) -> Spread:
    """How sure a predicted iteration is."""
    return _spread(predicted.uncertainty, float(predicted.iteration_time_s))


def _spread(known: Uncertainty, value: float) -> Spread:
    below, above = (abs(float(np.log(end / value))) / DEVIATIONS for end in (known.low_s, known.high_s))
    alone = {path: float(half) / value / DEVIATIONS for path, half in known.numbers_s.items()}
    return Spread(below=below, above=above, of_number=alone)
