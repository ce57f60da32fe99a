"""How much longer kernels take where the other devices of a node, which share a memory, run them too."""

from __future__ import annotations

from dataclasses import replace

import pytest

from perfmodel.exchange.presets import cluster_preset, model_preset, stack_preset
from tests.counted import predicted
from tests.layouts import RAMP_STAGE
from tests.stacks import stack_with

MODEL, CLUSTER = model_preset("llama-3.1-8b"), cluster_preset("dgx-h100")
STACK = stack_with(stack_preset("megatron-core"), {"host.launch_s": 0.0, "host.unlisted_work": 1.0})
KERNELS = CLUSTER.gpu.kernels


def memory_bound_s(gpus: int, factor: float) -> float:
    """Seconds of norms, activations and the like on some of the 8 GPUs of a node, whose factor is the same for all kernels."""
    classes = {
        name: replace(known, busy_factor=factor, backward_busy_factor=factor) for name, known in KERNELS.memory_bound.items()
    }
    cluster = replace(CLUSTER, gpu=replace(CLUSTER.gpu, kernels=replace(KERNELS, memory_bound=classes)))
    layout = replace(RAMP_STAGE, tensor_parallel=1, data_parallel=gpus, global_batch_size=gpus, sharding="none")
    return float(predicted(MODEL, cluster, STACK, layout).breakdown.memory_bound_s)


@pytest.mark.parametrize(("gpus", "busy_share"), [(1, 0.0), (4, 3 / 7), (8, 1.0), (64, 1.0)])
@pytest.mark.parametrize("factor", [1.0, 1.6])
def test_kernels_slow_down_by_the_share_of_their_neighbours_that_runs(gpus: int, busy_share: float, factor: float) -> None:
    """1 + (factor - 1) * (min(n, 8) - 1) / 7 times as long."""
    assert memory_bound_s(gpus, factor) == pytest.approx(memory_bound_s(gpus, 1.0) * (1 + (factor - 1) * busy_share), rel=1e-12)
