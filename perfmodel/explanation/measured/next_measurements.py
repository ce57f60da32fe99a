"""What to measure next, to tell the most plausible causes apart: each measurement with what every one of them predicts for it.

A measurement for which all of them predict nearly the same is left out: it would tell nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final

import numpy as np

from perfmodel.count.operators import Collective
from perfmodel.errors import PerfmodelError
from perfmodel.explanation.measured.diagnosis import Diagnosis
from perfmodel.explanation.measured.hypotheses import OffNumber
from perfmodel.explanation.measured.plausibility import Finding
from perfmodel.explanation.measured.readings import bus_bandwidth, kernel_seconds
from perfmodel.light_dataclass import dataclass, replace
from perfmodel.prediction import StagePrediction, predict_stage
from perfmodel.spec.refusals import check_setup
from perfmodel.spec.setup import Setup
from perfmodel.timing.collectives import collective_time_s, placement

CONTENDERS: Final = 5  # causes that are told apart, beside the run as it was predicted
TELLING: Final = 1.05  # greatest / least prediction of a measurement that tells something
CLOCKS: Final = "cluster.compute_scale"
NETWORK, NODE, ONE_NODE, PROFILE, CLOCK_QUERY = "network", "node", "one_node", "profile", "clocks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Something to measure: `quantities` by name for the run as predicted and for each contender.

    `call` is the collective that nccl-tests shall run, `setup` the smaller run, each where the measurement is one.
    """

    kind: str  # network | node | one_node | profile | clocks
    quantities: Mapping[str, tuple[float, ...]]  # bytes/s, seconds, or a ratio
    call: Collective | None = None
    setup: Setup | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NextMeasurements:
    """The causes that are told apart, each by its best finding, and what tells them apart."""

    contenders: tuple[Finding, ...]
    measurements: tuple[Measurement, ...]


def next_measurements(found: Diagnosis) -> NextMeasurements:
    """The measurements that tell the most plausible causes of a diagnosis apart."""
    causes = found.explaining or found.causes
    contenders = tuple(cause.best for cause in causes[:CONTENDERS] if cause.plausibility > found.elsewhere / 10)
    setups = (found.predicted.work.setup, *(each.setup for each in contenders))
    every = [*_tests(found.predicted, setups), *_one_node(found.predicted, contenders), _profile(setups), _clocks(contenders)]
    telling = tuple(each for each in every if any(_tells(values) for values in each.quantities.values()))
    return NextMeasurements(contenders=contenders, measurements=telling)


def _tells(values: Sequence[float]) -> bool:
    known = [each for each in values if np.isfinite(each) and each > 0]
    return len(known) > 1 and max(known) > TELLING * min(known)


def _tests(predicted: StagePrediction, setups: Sequence[Setup]) -> Iterator[Measurement]:
    """nccl-tests of the collectives that take longest, between nodes and inside one."""
    cluster = setups[0].cluster
    calls: dict[str, list[tuple[float, Collective]]] = {NETWORK: [], NODE: []}
    for operator, repeats in predicted.work.executions():
        if isinstance(operator, Collective) and operator.group.ranks > 1:
            kind = NETWORK if placement(operator.group, cluster).crosses_nodes else NODE
            calls[kind].append((float(repeats * collective_time_s(operator, cluster=cluster)), operator))
    for kind, several in calls.items():
        if several:
            call = replace(max(several, key=lambda each: each[0])[1], stepwise=False)
            rates = _over(setups, partial(bus_bandwidth, call))
            yield Measurement(kind=kind, call=call, quantities={"bus bandwidth": rates})


def _over(setups: Sequence[Setup], quantity: Callable[[Setup], object]) -> tuple[float, ...]:
    """The quantity for each setup; NaN where its layout cannot exist."""
    values = []
    for setup in setups:
        try:
            values.append(float(np.asarray(quantity(setup))))
        except PerfmodelError:
            values.append(float("nan"))
    return tuple(values)


def _one_node(predicted: StagePrediction, contenders: Sequence[Finding]) -> Iterator[Measurement]:
    """The same layers on one node, without a pipeline: no message leaves it."""
    smaller = one_node_setup(predicted.work.setup)
    if smaller is None:
        return
    changes: list[Callable[[Setup], Setup]] = [lambda setup: setup, *(_change_of(each) for each in contenders)]
    times = _over([smaller] * len(changes), _each(changes))
    yield Measurement(kind=ONE_NODE, setup=smaller, quantities={"iteration": times})


def _each(changes: Sequence[Callable[[Setup], Setup]]) -> Callable[[Setup], object]:
    """The iteration time of a setup under one change after the other."""
    following = iter(changes)

    def time_s(setup: Setup) -> object:
        changed = next(following)(setup)
        check_setup(changed)
        return predict_stage(changed).iteration_time_s

    return time_s


def _change_of(finding: Finding) -> Callable[[Setup], Setup]:
    hypothesis, factor = finding.hypothesis, finding.factor
    if isinstance(hypothesis, OffNumber):
        return lambda setup: hypothesis.at(setup, 1.0 if factor is None else factor)
    return hypothesis.change


def one_node_setup(setup: Setup) -> Setup | None:
    """One node of a run of several: as many replicas as it holds, of one pipeline stage's layers, or of fewer until they fit.

    None where the run has one node already, or a replica without its pipeline does not fit a node's GPUs.
    """
    layout, node = setup.layout, int(setup.cluster.gpus_per_node)
    ranks = int(layout.tensor_parallel * layout.context_parallel)
    if layout.gpus <= node or node % ranks:
        return None
    replicas, batch = node // ranks, int(layout.global_batch_size // layout.data_parallel)
    sharding = "zero3" if layout.sharding == "hsdp" else layout.sharding
    small = replace(
        layout,
        pipeline_parallel=1,
        virtual_pipeline=1,
        pipeline_schedule="1f1b",
        data_parallel=replicas,
        data_parallel_replicas=1,
        sharding=sharding,
        global_batch_size=batch * replicas,
    )
    layers = max(int(setup.model.layers // layout.pipeline_parallel), 1)
    while layers:
        try:
            found = replace(setup, model=replace(setup.model, layers=layers), layout=small)
            check_setup(found)
            if predict_stage(found).fits:
                return found
        except PerfmodelError:
            return None
        layers //= 2
    return None


def _profile(setups: Sequence[Setup]) -> Measurement:
    """Seconds of every kind of kernel that a profile of one GPU shows."""
    several = [kernel_seconds(each) for each in setups]
    quantities = {kind: tuple(float(each[kind]) for each in several) for kind in several[0]}
    return Measurement(kind=PROFILE, quantities={kind: values for kind, values in quantities.items() if any(values)})


def _clocks(contenders: Sequence[Finding]) -> Measurement:
    """Clocks under load over those of a healthy run."""
    ratios = (1.0, *(each.factor or 1.0 if each.hypothesis.key == CLOCKS else 1.0 for each in contenders))
    return Measurement(kind=CLOCK_QUERY, quantities={"clock": ratios})
