"""Do the measurements that are proposed tell causes apart, and is what each cause predicts for them right?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from perfmodel.exchange.questions.diagnosed_runs import run_diagnosis
from perfmodel.exchange.run_files import read_candidates
from perfmodel.explanation.measured.diagnosis import Diagnosis
from perfmodel.explanation.measured.next_measurements import (
    CLOCK_QUERY,
    NETWORK,
    NODE,
    ONE_NODE,
    PROFILE,
    Measurement,
    next_measurements,
    one_node_setup,
)
from perfmodel.explanation.measured.readings import kernel_seconds
from perfmodel.prediction import predict_stage
from perfmodel.timing.collectives import collective_time_s

RUN = "nemotron-4-15b"


@pytest.fixture(scope="module")
def found() -> Diagnosis:
    """A run of 2,304 GPUs at a third of its predicted speed."""
    return run_diagnosis(RUN, 1.9)


@pytest.fixture(scope="module")
def measurements(found: Diagnosis) -> dict[str, Measurement]:
    """What to measure of it, by kind."""
    return {each.kind: each for each in next_measurements(found).measurements}


def place_of(found: Diagnosis, name: str) -> int:
    """Where the values of a cause stand."""
    return 1 + [each.hypothesis.cause for each in next_measurements(found).contenders].index(name)


def test_a_bandwidth_between_nodes_tells_the_network_alone(found: Diagnosis, measurements: dict[str, Measurement]) -> None:
    """Each cause has the bandwidth that its cluster gives the longest collective of the run."""
    values, call = measurements[NETWORK].quantities["bus bandwidth"], measurements[NETWORK].call
    assert call is not None
    assert int(call.group.ranks) == 288
    place = place_of(found, "network")
    network = next_measurements(found).contenders[place - 1].setup.cluster
    assert values[place] == pytest.approx(float(call.wire_bytes / collective_time_s(call, cluster=network)))
    assert values[place] < 0.5 * values[0]
    assert all(value == values[0] for at, value in enumerate(values) if at != place)


@pytest.mark.parametrize("measured_s", [0.85, 1.9])
def test_what_tells_nothing_is_left_out(measured_s: float) -> None:
    """Nobody tests the links of a node, or asks for clocks, where no likely cause is there."""
    following = next_measurements(run_diagnosis(RUN, measured_s, settings={"cluster.host_scale": 1.0}))
    causes = {each.hypothesis.cause for each in following.contenders}
    kinds = {each.kind for each in following.measurements}
    assert {NETWORK, ONE_NODE, PROFILE} <= kinds
    assert (NODE in kinds) == ("links inside the node" in causes)
    assert (CLOCK_QUERY in kinds) == ("clocks" in causes)


def test_a_run_on_one_node_fits_and_sends_nothing_out_of_it(found: Diagnosis, measurements: dict[str, Measurement]) -> None:
    """So that the network does not change it, and what is in the node does."""
    setup, times = measurements[ONE_NODE].setup, measurements[ONE_NODE].quantities["iteration"]
    assert setup is not None
    assert int(setup.layout.gpus) == 8
    assert predict_stage(setup).fits
    assert times[0] == pytest.approx(float(predict_stage(setup).iteration_time_s))
    assert times[place_of(found, "network")] == pytest.approx(times[0])
    assert max(times) > 1.2 * times[0]


def test_a_run_on_one_node_holds_one_pipeline_stage(found: Diagnosis) -> None:
    """All its layers, or fewer where they do not fit; a run of one node has no smaller one."""
    setup = found.predicted.work.setup
    piped = replace(setup, layout=replace(setup.layout, pipeline_parallel=2, data_parallel=144))
    small = one_node_setup(piped)
    assert small is not None
    assert int(small.model.layers) == int(setup.model.layers) // 2
    assert one_node_setup(small) is None


def test_a_run_on_one_node_has_as_many_layers_as_fit() -> None:
    """70B on one node: half of its layers, and not all of them."""
    run = {
        "model": "llama-3.1-70b",
        "cluster": "dgx-h200",
        "stack": "torchtitan-eager",
        "tensor_parallel": 8,
        "sharding": "zero3",
    }
    run |= {"recompute": "full", "micro_batch_size": 8, "sequence_length": 8192}
    whole = read_candidates(run | {"stages": [{"data_parallel": 4, "global_batch_size": 32}]})[0].run
    small = one_node_setup(whole.setup(whole.stages[0]))
    assert small is not None
    assert int(small.model.layers) == 40
    assert predict_stage(small).fits
    assert not predict_stage(replace(small, model=whole.model)).fits


def test_stages_of_a_pipeline_share_the_kernels(found: Diagnosis) -> None:
    """Two stages of half of the layers, on the same GPUs, compute as long as one of all, and step half as many parameters."""
    setup = found.predicted.work.setup
    piped = replace(setup, layout=replace(setup.layout, pipeline_parallel=2, data_parallel=144))
    one, two = kernel_seconds(setup), kernel_seconds(piped)
    assert float(two["matmul"]) == pytest.approx(float(one["matmul"]), rel=0.05)  # clocks fall less
    assert float(two["collectives between nodes"]) == pytest.approx(0.5 * float(one["collectives between nodes"]), rel=0.25)


def test_a_profile_shows_what_each_cause_does_to_kernels(found: Diagnosis, measurements: dict[str, Measurement]) -> None:
    """A slow network in the messages between nodes, and in nothing else."""
    place, quantities = place_of(found, "network"), measurements[PROFILE].quantities
    changed = {kind for kind, values in quantities.items() if values[place] > 1.01 * values[0]}
    assert changed == {"collectives between nodes"}


def test_kernels_add_up_to_what_runs_one_after_the_other(found: Diagnosis) -> None:
    """Without messages, and beside nothing, what kernels take is the breakdown of the iteration."""
    setup = found.predicted.work.setup
    alone = replace(setup.layout, tensor_parallel=1, data_parallel=1, sequence_parallel=False, global_batch_size=4)
    one = replace(setup, layout=alone)
    seconds, parts = kernel_seconds(one), predict_stage(one).breakdown
    step_s = parts.optimizer_s - setup.stack.host.iteration_s
    kernels_s = float(parts.matmul_s + parts.attention_s + parts.memory_bound_s + step_s)
    assert sum(float(each) for each in seconds.values()) == pytest.approx(kernels_s, rel=1e-9)
