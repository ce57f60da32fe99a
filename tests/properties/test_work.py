"""Is more work ever faster, and does a breakdown always sum to what it breaks down?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from perfmodel.count.flops import CONVENTIONS, model_flop_per_token
from perfmodel.count.iteration import iteration
from perfmodel.prediction import predict_stage, stage_breakdown, stage_memory
from perfmodel.spec.axes import AXES
from perfmodel.spec.evidence.spread import with_numbers
from perfmodel.spec.fields import Numeric
from perfmodel.spec.machines.hardware import Cluster
from perfmodel.spec.refusals import may_exist
from perfmodel.spec.setup import Setup
from perfmodel.timing.breakdown import COMMUNICATION, PARTS
from tests.properties.depth import examples
from tests.properties.runs import DrawnRun, runs
from tests.properties.test_hardware import beside_a_ready_host, faster_host, most_slower
from tests.stacks import stack_with

TIMES: Final = np.array([1, 2, 3, 4, 7])
SLOWER: Final = np.array([1.0, 1.5, 10.0, 1000.0])
ROUNDING: Final = 1e-9
LAST_NORM: Final = 1e-5  # of the memory of a fine-tuning
LATENCIES: Final = ("latency_s", "rank_latency_s")
NETWORK_LATENCIES: Final = (*LATENCIES, "node_latency_s", "tree_start_s", "tree_latency_s", "peer_latency_s", "point_latency_s")
KINDS: Final = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")


def seconds_of(setup: Setup) -> Numeric:
    """The iteration time."""
    return stage_breakdown(setup).total_s


def never_falls(values: Numeric, number: int, *, rounding: float = ROUNDING) -> bool:
    """Whether each of some values is at least the one before it, up to rounding."""
    every = np.broadcast_to(np.asarray(values, dtype=float), (number,))
    return bool(np.all(np.diff(every) >= -rounding * every[0]))


def of_layout(given: Setup, **numbers: Any) -> Setup:
    """The same in a layout with other numbers, which may exist."""
    setup = beside_a_ready_host(given)
    changed = replace(setup, layout=replace(setup.layout, **numbers))
    assume(np.all(may_exist(changed)))
    return changed


@examples(25)
@given(drawn=runs())
def test_more_layers_never_take_less_time_or_memory(drawn: DrawnRun) -> None:
    """Whatever kinds of layers they are, wherever they lie; whole periods, as many on every piece of a pipeline.

    Where they do not divide, the ends hold fewer of them beside the vocabulary, which may be what took longest or most; and
    where those that take longest come once in a period, a deeper model may spread them over more stages than a shallow one. The
    mean layer of a fine-tuning, two of which are gathered at a time, is that of a whole period, and has its share of the last
    norm: less of it in a deeper model.
    """
    setup = beside_a_ready_host(drawn.setup)
    pieces = int(setup.layout.pipeline_parallel * setup.layout.virtual_pipeline)
    period = max(len(setup.model.layer_pattern), 1)
    least = pieces * period if pieces > 1 else setup.model.layers // period * period or period
    deeper = replace(setup, model=with_numbers(setup.model, {"layers": least * TIMES}))
    assume(np.all(may_exist(deeper)))
    assert never_falls(seconds_of(deeper), len(TIMES))
    rounding = ROUNDING if setup.tuning is None else LAST_NORM
    assert never_falls(stage_memory(iteration(deeper)).total_bytes, len(TIMES), rounding=rounding)


@examples(25)
@given(drawn=runs())
def test_more_micro_batches_never_take_less_time(drawn: DrawnRun) -> None:
    """Nor does any part of their iterations."""
    more = of_layout(drawn.setup, global_batch_size=drawn.setup.layout.global_batch_size * TIMES)
    assert never_falls(seconds_of(more), len(TIMES)), np.asarray(seconds_of(more)).tolist()


@examples(25)
@given(drawn=runs())
def test_longer_sequences_never_take_less_time_or_memory(drawn: DrawnRun) -> None:
    """Of as many sequences."""
    longer = of_layout(drawn.setup, sequence_length=drawn.setup.layout.sequence_length * TIMES)
    assert never_falls(seconds_of(longer), len(TIMES)), np.asarray(seconds_of(longer)).tolist()
    assert never_falls(stage_memory(iteration(longer)).total_bytes, len(TIMES))


@examples(25)
@given(drawn=runs())
def test_more_latency_is_never_faster(drawn: DrawnRun) -> None:
    """Of every collective, inside a node and between nodes."""
    setup = beside_a_ready_host(drawn.setup)
    slower = replace(setup, cluster=with_latencies(setup.cluster, SLOWER))
    assert never_falls(seconds_of(slower), len(SLOWER)), np.asarray(seconds_of(slower)).tolist()


def with_latencies(cluster: Cluster, times: Numeric) -> Cluster:
    """The cluster whose messages start later."""
    node, network = cluster.links.node, cluster.links.network
    starts = {
        kind: with_numbers(own, {name: getattr(own, name) * times for name in LATENCIES})
        for kind in KINDS
        for own in [getattr(node.collectives, kind)]
    }
    later = {name: getattr(network.collectives, name) * times for name in NETWORK_LATENCIES}
    links = {
        "node": with_numbers(node, {"collectives": with_numbers(node.collectives, starts)}),
        "network": with_numbers(network, {"collectives": with_numbers(network.collectives, later)}),
    }
    return with_numbers(cluster, {"links": with_numbers(cluster.links, links)})


@examples(20)
@given(drawn=runs(), setting=st.sampled_from(["host.operator_s", "host.launch_s", "host.pass_s", "host.iteration_s"]))
def test_a_slower_host_is_never_faster(drawn: DrawnRun, setting: str) -> None:
    """What the CPU takes for an operator, a launch, a pass or an iteration; but for the power limit (test_hardware.py)."""
    section, name = setting.split(".")
    value, setup = getattr(getattr(drawn.setup.stack, section), name), drawn.setup
    slower = replace(setup, stack=stack_with(setup.stack, {setting: value * SLOWER}))
    seconds = np.broadcast_to(seconds_of(slower), SLOWER.shape)
    assert np.all(seconds[1:] >= (1.0 - most_slower(faster_host, setup)) * seconds[:-1]), seconds.tolist()


@examples(40)
@given(drawn=runs())
def test_parts_are_of_no_less_than_nothing_and_sum_to_the_whole(drawn: DrawnRun) -> None:
    """Time and memory of any run, and a speed between nothing and the peak: of the half of attention that is not masked."""
    predicted = predict_stage(drawn.setup)
    parts = [float(seconds) for _, seconds in predicted.breakdown.items()]
    assert all(np.isfinite(parts))
    assert min(parts) >= -ROUNDING * sum(parts), dict(zip(PARTS, parts, strict=True))
    assert sum(parts) == pytest.approx(float(predicted.iteration_time_s), rel=1e-12)
    held = [float(size) for name, size in predicted.memory.items() if name != "total_bytes"]
    assert min(held) >= 0
    assert sum(held) == pytest.approx(float(predicted.memory.total_bytes), rel=1e-12)
    counted = [
        model_flop_per_token(drawn.setup.model, drawn.setup.layout.sequence_length, convention=each) for each in CONVENTIONS
    ]
    masked = float(counted[0] / counted[1])  # FLOPs of a token as MFU counts them, over those that kernels cannot leave out
    assert 0 < float(predicted.mfu) <= masked
    assert 0 < float(predicted.hfu) <= masked


@examples(20)
@given(drawn=runs())
def test_one_gpu_sends_nothing(drawn: DrawnRun) -> None:
    """Any run with every degree at one: no message, no bubble."""
    setup = drawn.setup
    plain: dict[str, Any] = dict.fromkeys((axis.name for axis in AXES), 1)
    plain |= {"virtual_pipeline": 1, "pipeline_schedule": "1f1b", "data_parallel_replicas": 1, "global_batch_size": 4}
    sharding = "zero3" if setup.layout.sharding == "hsdp" else setup.layout.sharding
    layout = replace(setup.layout, **plain, micro_batch_size=2, sharding=sharding, recompute_layers=None)
    parts = stage_breakdown(replace(setup, layout=layout))
    assert {part: float(getattr(parts, part)) for part in COMMUNICATION} == dict.fromkeys(COMMUNICATION, 0.0)
