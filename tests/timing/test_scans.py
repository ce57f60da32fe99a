"""How long do scans of states take, against those of flash-linear-attention that were measured?"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import pytest

from perfmodel.count.iteration import iteration
from perfmodel.count.operators import Collective, MemoryBound
from perfmodel.count.roles import SCANS, Role
from perfmodel.exchange.presets import cluster_preset, model_preset, stack_preset
from perfmodel.spec.stack import SoftwareStack
from perfmodel.timing.kernels import kernel_time_s
from perfmodel.timing.ledger import operator_confidence
from perfmodel.timing.timed_operators import timed_operators
from tests.layouts import RAMP_STAGE
from tests.setups import setup_of
from tests.stacks import stack_with

QWEN: Final = model_preset("qwen3-next-80b-a3b")
STACK: Final = stack_preset("megatron-core")
OF_THE_RULE: Final = {  # what chunk_gated_delta_rule runs itself
    *("key_scores", "inverse", "inverse_copy", "key_correction", "value_correction", "predicted_values", "states", "scores"),
    *("chunk_output", "state_output", "chain"),
}
MEASURED: Final = [  # QwenLM/FlashQLA, benchmark_results_H200.txt and _GB200.txt: FLA 0.5.1, ms forwards and backwards
    ("dgx-h200", 32, 8192, 0.472, 1.444),
    ("dgx-h200", 32, 32768, 1.890, 5.697),
    ("dgx-h200", 16, 8192, 0.316, 0.957),
    ("dgx-h200", 8, 8192, 0.234, 0.722),
    ("dgx-h200", 8, 32768, 0.902, 2.743),
    ("gb200-nvl72", 32, 8192, 0.468, 1.446),
    ("gb200-nvl72", 32, 32768, 1.770, 5.714),
    ("gb200-nvl72", 16, 8192, 0.333, 1.013),
    ("gb200-nvl72", 8, 32768, 1.016, 3.068),
]


def rule_s(cluster: str, heads: int, tokens: int, stack: SoftwareStack = STACK) -> tuple[float, float]:
    """Seconds of the gated delta rule of so many value heads in one layer, forwards and backwards, at free clocks."""
    assert QWEN.delta is not None
    model = replace(QWEN, delta=replace(QWEN.delta, key_heads=heads // 2, value_heads=heads))
    layout = replace(
        RAMP_STAGE, tensor_parallel=1, data_parallel=8, global_batch_size=8, sequence_length=tokens, sequence_parallel=False
    )
    setup = setup_of(model, layout, stack, cluster=cluster_preset(cluster))
    block = iteration(setup).layers["gated_delta"].plain
    ways = []
    for operators in (block.forward, block.backward):
        of_rule = [op for op in operators if op.role is Role.DELTA_RULE and op.name.rpartition(".")[2] in OF_THE_RULE]
        assert not any(isinstance(op, Collective) for op in of_rule)
        ways.append(sum(float(each.free_s) for each in timed_operators(of_rule, 0.0, setup.cluster, stack)))
    return ways[0], ways[1]


@pytest.mark.parametrize(("cluster", "heads", "tokens", "forward_ms", "backward_ms"), MEASURED)
def test_the_delta_rule_takes_what_was_measured(
    cluster: str, heads: int, tokens: int, forward_ms: float, backward_ms: float
) -> None:
    """Within 15 % both ways together, however few heads share the multiprocessors."""
    measured = (forward_ms + backward_ms) * 1e-3
    assert sum(rule_s(cluster, heads, tokens)) == pytest.approx(measured, rel=0.15)


def test_software_whose_scans_take_twice_as_long_needs_twice_the_time() -> None:
    """For all that scans run, and for nothing else."""
    work = float(STACK.fusion.delta_rule_work)
    unchained = stack_with(STACK, {"fusion.scan_step_s": 0.0})
    slower = stack_with(unchained, {"fusion.delta_rule_work": 2 * work})
    once, twice = rule_s("dgx-h100", 32, 4096, unchained), rule_s("dgx-h100", 32, 4096, slower)
    assert twice == pytest.approx((2 * once[0], 2 * once[1]))
    setup = setup_of(QWEN, replace(RAMP_STAGE, tensor_parallel=1, sequence_parallel=False))
    others = [op for op in iteration(setup).layers["gated_delta"].plain.forward if op.role is not Role.DELTA_RULE]
    times = [[float(each.free_s) for each in timed_operators(others, 0.0, setup.cluster, stack)] for stack in (STACK, slower)]
    assert times[0] == times[1]


@pytest.mark.parametrize("kind", ["mamba2", "gated_delta"])
def test_scans_take_what_the_gpu_makes_of_such_kernels(kind: str) -> None:
    """Twice as long where its profile says twice, the convolution and the norm around them as before."""
    model = QWEN if kind == "gated_delta" else model_preset("nemotron-3-nano")
    setup = setup_of(model, replace(RAMP_STAGE, tensor_parallel=1, sequence_parallel=False))
    assert setup.cluster.gpu.kernels.scan is not None
    kernels = replace(setup.cluster.gpu.kernels, scan=replace(setup.cluster.gpu.kernels.scan, work=2.0))
    once, twice = (
        replace(setup.cluster, gpu=replace(setup.cluster.gpu, kernels=each)) for each in (replace(kernels, scan=None), kernels)
    )
    stack = stack_with(STACK, {"fusion.scan_step_s": 0.0})
    operators = iteration(setup).layers[kind].plain.forward
    for before, after in zip(*(timed_operators(operators, 0.0, each, stack) for each in (once, twice)), strict=True):
        assert after.free_s == pytest.approx((2.0 if before.operator.role in SCANS else 1.0) * before.free_s)


def test_a_convolution_is_timed_by_its_own_kernel() -> None:
    """On GB200 it moves half as many bytes a second as a copy: by NVIDIA AIConfigurator, 78 us of 8,192 tokens of Nano."""
    nano = replace(
        RAMP_STAGE, tensor_parallel=1, data_parallel=8, global_batch_size=8, sequence_length=8192, sequence_parallel=False
    )
    setup = setup_of(model_preset("nemotron-3-nano"), nano, cluster=cluster_preset("gb200-nvl72"))
    (one,) = (each for each in iteration(setup).layers["mamba2"].plain.forward if each.name.endswith(".convolution"))
    assert isinstance(one, MemoryBound)
    assert float(kernel_time_s(one, cluster=setup.cluster, stack=setup.stack)) == pytest.approx(78e-6, rel=0.15)


def test_chunks_of_a_sequence_wait_for_each_other() -> None:
    """64 chunks of 64 tokens: one way forwards, three backwards, and as many more microseconds for each that a step takes."""
    step_s = float(STACK.fusion.scan_step_s)
    slower = stack_with(STACK, {"fusion.scan_step_s": step_s + 1e-6})
    once, more = rule_s("dgx-h100", 32, 4096), rule_s("dgx-h100", 32, 4096, slower)
    assert more[0] - once[0] == pytest.approx(64e-6)
    assert more[1] - once[1] == pytest.approx(192e-6)


@pytest.mark.parametrize("kind", ["gated_delta", "full"])
def test_every_operator_of_a_hybrid_has_a_confidence(kind: str) -> None:
    """The chain of chunks too, which is no kernel of its own: timelines show all of them."""
    setup = setup_of(QWEN, replace(RAMP_STAGE, tensor_parallel=1, sequence_parallel=False))
    operators = iteration(setup).layers[kind].plain.operators
    assert all(operator_confidence(op, cluster=setup.cluster, stack=setup.stack) for op in operators)
