"""What a fine-tuning waits for the memory of its host."""

from __future__ import annotations

from dataclasses import replace

import pytest

from perfmodel.count.iteration import iteration
from perfmodel.count.parameters import parameter_count
from perfmodel.count.tuning.offload import host_traffic
from perfmodel.prediction import predict_stage, stage_breakdown
from perfmodel.spec.setup import Setup
from perfmodel.timing.kernels import at_cluster_load
from perfmodel.timing.offload import offload_breakdown
from perfmodel.timing.schedule import all_passes
from tests.tunings import tuned_setup


def waiting_s(setup: Setup, *, passes_s: float = 0.0) -> float:
    """Seconds of one iteration, behind passes that take so long each."""
    parts = offload_breakdown(iteration(setup), setup.cluster, forward_s=passes_s, backward_s=passes_s)
    return float(parts.offload_s)


def test_a_gpu_that_holds_everything_waits_for_nothing() -> None:
    """No part of an iteration is added, nor shown."""
    assert "offload_s" not in dict(stage_breakdown(tuned_setup()).items())


def test_a_step_of_the_host_is_its_transfers_and_its_own_traffic() -> None:
    """Gradients there and parameters back over the link, and 28 bytes a parameter at the rate of one process."""
    setup = tuned_setup(training="full", weights="bf16", offload="optimizer")
    link, rate, numbers = setup.cluster.gpu.host_bytes_per_s, 15e9, parameter_count(setup.model).total
    assert link is not None
    assert waiting_s(setup) == pytest.approx(numbers * 4 / link + numbers * 28 / rate)


def test_processes_of_a_node_share_its_memory() -> None:
    """Sixteen of 200 GB/s have less than 15 each; what is sharded is stepped on in shares."""
    setup = tuned_setup(training="full", weights="bf16", offload="optimizer", sharding="zero2", gpus=8)
    slow = replace(setup, cluster=replace(setup.cluster, host_memory_bytes_per_s=40e9))
    numbers = parameter_count(setup.model).total / 8
    assert waiting_s(slow) - waiting_s(setup) == pytest.approx(numbers * 28 * (8 / 40e9 - 1 / 15e9))


def test_checkpoints_hide_behind_passes_that_take_as_long() -> None:
    """All inputs of layers cross the link twice: exposed is what is left of a pass."""
    setup = tuned_setup(training="lora", offload="activations")
    link = setup.cluster.gpu.host_bytes_per_s
    assert link is not None
    once_s = float(32 * 2048 * 4096 * 2 / link)
    assert waiting_s(setup) == pytest.approx(2 * once_s)
    assert waiting_s(setup, passes_s=once_s / 4) == pytest.approx(2 * 0.75 * once_s)
    assert waiting_s(setup, passes_s=once_s) == 0


def test_a_faster_link_never_takes_longer() -> None:
    """NVLink-C2C against PCIe."""
    setup = tuned_setup(training="full", weights="bf16", gpus=2, sharding="zero3", offload="optimizer parameters")
    slow, fast = (
        predict_stage(replace(setup, cluster=replace(setup.cluster, gpu=replace(setup.cluster.gpu, host_bytes_per_s=rate))))
        for rate in (25e9, 400e9)
    )
    assert fast.iteration_time_s < slow.iteration_time_s


def test_a_rank_fetches_its_shard_for_each_pass() -> None:
    """Half of all parameters, 2 bytes each, forwards and backwards."""
    setup = tuned_setup(training="full", weights="bf16", gpus=2, sharding="zero3", offload="parameters")
    assert setup.tuning is not None
    traffic = host_traffic(iteration(setup), setup.tuning)
    assert traffic.forward == traffic.backward == parameter_count(setup.model).total


def test_transfers_go_on_while_messages_are_waited_for() -> None:
    """As many seconds less as data parallelism leaves exposed, until none is left; the step waits for its own transfers."""
    setup = tuned_setup(training="full", weights="bf16", offload="parameters", sharding="zero3", gpus=8)

    def waits_s(messages_s: float) -> float:
        found = offload_breakdown(iteration(setup), setup.cluster, forward_s=0.0, backward_s=0.0, waiting_s=messages_s)
        return float(found.offload_s)

    step_s = waits_s(1e9)
    alone_s = waiting_s(setup) - step_s
    assert alone_s > 0
    assert waits_s(0.25 * alone_s) == pytest.approx(0.75 * alone_s + step_s)


def test_an_iteration_lets_transfers_go_on_beside_its_exposed_messages() -> None:
    """What is offloaded waits as much less as data parallelism leaves exposed, or not at all."""
    setup = tuned_setup(training="full", weights="bf16", offload="parameters", sharding="zero3", gpus=8)
    short = replace(setup.layout, sequence_length=64)  # whose passes hide little
    setup = replace(setup, layout=short, cluster=at_cluster_load(setup.cluster, short.gpus))
    work, parts = iteration(setup), stage_breakdown(setup)
    passes = all_passes(work, cluster=setup.cluster, stack=setup.stack)
    behind_passes = offload_breakdown(work, setup.cluster, forward_s=passes.forward_s, backward_s=passes.backward_s)
    less_s, exposed_s = float(behind_passes.offload_s - parts.offload_s), float(parts.data_parallel_exposed_s)
    assert less_s == pytest.approx(min(float(behind_passes.offload_s), exposed_s), rel=0.01)
    assert less_s > 0
