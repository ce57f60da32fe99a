"""Do products and attention slow down by the share of a pass in which they run, where a power limit meets them?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from perfmodel.count.iteration import iteration
from perfmodel.count.operators import Collective, FusedAttention, Matmul, MemoryBound, Operator
from perfmodel.exchange.presets import cluster_preset, gpu_preset, model_preset, stack_preset
from perfmodel.prediction import predict_stage
from perfmodel.spec.axes import TENSOR
from perfmodel.spec.layout import ProcessGroup
from perfmodel.spec.phases import DATA_GRADIENT
from perfmodel.timing.kernels import at_power_limit, clock_share, kernel_time_s, power_slowdown
from perfmodel.timing.passes import running_share
from perfmodel.timing.schedule import breakdown
from perfmodel.timing.timed_operators import TimedOperator, added_up, load, timed_blocks, timed_operators
from tests.layouts import RAMP_STAGE
from tests.setups import setup_of

STACK = stack_preset("megatron-core")
LIMITED = cluster_preset("dgx-h100")
H100 = LIMITED.gpu
FREE = replace(LIMITED, gpu=replace(H100, full_load_slowdown=0.0))
PRODUCT = Matmul(name="fc1", rows=8192, columns=8192, inner=8192, precision="bf16")
ATTENTION = FusedAttention(
    name="core", sequences=8, heads=16, kv_heads=16, head_size=128, query_length=4096, key_length=4096, precision="bf16"
)
NORM = MemoryBound(name="norm", family="norm", moved_bytes=1e9)
PIPELINE = replace(
    RAMP_STAGE,
    tensor_parallel=1,
    pipeline_parallel=4,
    data_parallel=2,
    virtual_pipeline=1,
    micro_batch_size=1,
    global_batch_size=16,
)
GROUP = ProcessGroup(name="tensor_parallel", ranks=8, stride=1, axis=TENSOR)
REDUCED = Collective(name="reduce", kind="all_reduce", payload_bytes=1e9, group=GROUP)


def test_the_clock_is_the_cube_root_of_the_power_that_is_left() -> None:
    """Products alone meet all of it, an eighth of them clocks twice as high; nothing runs faster than without a limit."""
    gpu = replace(H100, full_load_slowdown=1.5)
    assert power_slowdown(gpu, clock_share(1.0)) == pytest.approx(2.5)
    assert power_slowdown(gpu, clock_share(1 / 8)) == pytest.approx(1.25)
    assert power_slowdown(gpu, clock_share(0.0)) == 1.0
    shares = clock_share(np.linspace(0.0, 1.0, 21))
    assert np.all(np.diff(power_slowdown(gpu, shares)) >= 0)
    assert np.all(power_slowdown(replace(H100, full_load_slowdown=0.0), shares) == 1.0)


def test_the_duty_is_the_share_of_products_and_what_attention_draws() -> None:
    """Of kernels and of what collectives leave exposed and slow down; hidden messages take no time of the pass."""
    sent = TimedOperator(operator=REDUCED, free_s=9.0, hidden_s=7.5, sm_fraction=1 / 15)
    kernels = [TimedOperator(operator=op, free_s=s) for op, s in ((PRODUCT, 3.0), (ATTENTION, 2.0), (NORM, 1.0))]
    assert load([*kernels, sent]).duty == pytest.approx((3.0 + 2.0 * 0.5) / 8.0)
    assert load(kernels[:1]).duty == 1.0
    assert load([]).duty == load([TimedOperator(operator=NORM, free_s=0.0)]).duty == 0.0


def test_tensor_cores_that_wait_for_their_sums_draw_nothing() -> None:
    """An FP8 gradient on Hopper takes longer for the energy of the forward product, so that its clocks fall less."""
    forward = replace(PRODUCT, precision="fp8")
    gradient = replace(forward, phase=DATA_GRADIENT)
    factor = H100.matmul("fp8").split_accumulator_factor
    for product, share in ((forward, 1.0), (gradient, 1.0 / factor)):
        ((timed,),), _ = timed_blocks([[product]], LIMITED, STACK)
        assert load([timed]).duty == pytest.approx(share)
    assert seconds(gradient)[0] < seconds(forward)[0]


def test_a_product_meets_the_tighter_of_both_limits() -> None:
    """Its own within milliseconds is in its time already; attention meets that of the pass alone."""
    own, full = 1.0 + H100.matmul("bf16").slowdown, 1.0 + H100.full_load_slowdown
    slowed = {op.name: at_power_limit(op, 1.2 / full, gpu=H100, stack=STACK) for op in (PRODUCT, ATTENTION)}
    assert slowed == pytest.approx({"fc1": 1.2 / own, "core": 1.2})
    assert at_power_limit(PRODUCT, (1.0 + (own - 1.0) / 2) / full, gpu=H100, stack=STACK) == 1.0


@pytest.mark.parametrize("burst", [0.9, 1.25])
def test_a_limit_does_not_know_the_clocks_of_a_table(burst: float) -> None:
    """Products timed at higher clocks lose as much more, and what is left does not depend on them; free ones lose nothing."""
    law = H100.matmul("bf16")
    faster = replace(law, efficiency=law.efficiency * burst, fixed_s=0.0, memory_efficiency=1.0, burst_clocks=burst)
    gpu = replace(H100, kernels=replace(H100.kernels, matmul={"bf16": faster}))
    assert at_power_limit(PRODUCT, 1.0, gpu=gpu, stack=STACK) == pytest.approx(
        burst * at_power_limit(PRODUCT, 1.0, gpu=H100, stack=STACK)
    )
    assert at_power_limit(PRODUCT, 0.1, gpu=gpu, stack=STACK) == 1.0
    assert at_power_limit(ATTENTION, 1.0, gpu=gpu, stack=STACK) == at_power_limit(ATTENTION, 1.0, gpu=H100, stack=STACK)


def seconds(*operators: Operator) -> list[float]:
    """Each of them in one pass, over what it takes where no power limit of a pass is met."""
    timed = timed_operators(operators, 1.0, LIMITED, STACK)
    free = timed_operators(operators, 1.0, FREE, STACK)
    return [float(one.alone_s / other.alone_s) for one, other in zip(timed, free, strict=True)]


def test_what_a_pass_waits_for_raises_its_clocks() -> None:
    """A product beside nothing, beside a norm, and beside messages that are exposed."""
    own = 1.0 + H100.matmul("bf16").slowdown
    assert seconds(PRODUCT) == pytest.approx([(1.0 + H100.full_load_slowdown) / own])
    (beside_norm, norm), (beside_message, message) = seconds(PRODUCT, NORM), seconds(PRODUCT, REDUCED)
    assert norm == message == 1.0
    assert 1.0 <= beside_message < seconds(PRODUCT)[0]
    product_s, norm_s = (float(kernel_time_s(op, cluster=FREE, stack=STACK)) for op in (PRODUCT, NORM))
    share = product_s / (product_s + norm_s)
    assert beside_norm == pytest.approx(max(1.0, (1.0 + H100.full_load_slowdown) * share ** (1 / 3) / own))


def test_slower_products_hide_more_of_what_runs_beside_them() -> None:
    """What the partner hides grows as the partner does."""
    product = replace(PRODUCT, phase=DATA_GRADIENT)
    call = replace(REDUCED, payload_bytes=5e8, partner=("fc1", DATA_GRADIENT))
    hidden = [
        float(timed.alone_s - timed.exposed_s)
        for cluster in (FREE, LIMITED)
        for timed in timed_operators(
            (product, call), 1.0, cluster, replace(STACK, overlap=replace(STACK.overlap, tensor_parallel="backward"))
        )
        if timed.operator is call
    ]
    assert hidden[0] < hidden[1]


def test_a_layout_that_waits_loses_less_to_the_limit() -> None:
    """Eight-way tensor parallelism waits for messages, none does not; GPUs without the limit are as they were."""
    model = model_preset("llama-3.1-8b")

    def loss(tensor_parallel: int) -> float:
        layout = replace(RAMP_STAGE, tensor_parallel=tensor_parallel, data_parallel=8, global_batch_size=64)
        limited, free = (
            predict_stage(setup_of(model, layout, STACK, cluster=cluster)).breakdown.matmul_s for cluster in (LIMITED, FREE)
        )
        return float(limited / free)

    assert 1.0 < loss(8) < loss(1) < 1.0 + H100.full_load_slowdown
    assert gpu_preset("a100-sxm-80gb").full_load_slowdown == 0.0


def test_what_waits_for_its_cpu_runs_for_less_of_the_time() -> None:
    """The CPU's share is that of the kernels of a GPU without a limit; where none is known there is nothing to share."""
    slow = replace(STACK, host=replace(STACK.host, pass_s=STACK.host.pass_s * 10))
    model = model_preset("llama-3.1-8b")
    work, waiting = (iteration(setup_of(model, PIPELINE, stack, cluster=LIMITED)) for stack in (STACK, slow))
    idle = breakdown(waiting, cluster=FREE, stack=slow)
    passes_s = idle.total_s - idle.pipeline_bubble_s - idle.pipeline_parallel_exposed_s
    assert running_share(work, FREE, STACK) == 1.0
    assert running_share(waiting, LIMITED, slow) < running_share(work, LIMITED, STACK) < 1.0
    waits = idle.launch_s / passes_s
    assert running_share(waiting, LIMITED, slow) == pytest.approx(1.0 - waits, rel=0.02)


def test_a_bubble_leaves_the_clocks() -> None:
    """Products of one micro-batch take as long with few micro-batches as with many: a stage waits for others in one stretch."""
    model = model_preset("llama-3.1-8b")

    def product_s(micro_batches: int) -> float:
        layout = replace(PIPELINE, global_batch_size=micro_batches * PIPELINE.micro_batch_size * PIPELINE.data_parallel)
        return float(predict_stage(setup_of(model, layout, STACK, cluster=LIMITED)).breakdown.matmul_s) / micro_batches

    assert [product_s(number) for number in (4, 32)] == pytest.approx([product_s(256)] * 2)


def test_the_parts_of_a_pass_are_the_sums_over_its_operators() -> None:
    """Of calls of one group, only some of which may hide; of products at the clocks that are left."""
    beside = ("fc1", DATA_GRADIENT)
    exposed = replace(REDUCED, name="gather", payload_bytes=1e6, partner=beside, pipelined=True)
    operators = (exposed, replace(PRODUCT, phase=DATA_GRADIENT), replace(REDUCED, payload_bytes=1e8, partner=beside))
    stack = replace(STACK, overlap=replace(STACK.overlap, tensor_parallel="backward"))
    timed = timed_operators(operators, 1.0, LIMITED, stack)
    parts = added_up(timed, weights_apart=False).parts
    assert float(timed[0].slowdown_s) == 0.0
    assert float(timed[2].slowdown_s) > 0.0
    assert parts.communication_slowdown_s == pytest.approx(sum(float(each.slowdown_s) for each in timed))
    assert parts.tensor_parallel_exposed_s == pytest.approx(sum(float(each.exposed_s) for each in timed))
    assert parts.matmul_s == pytest.approx(float(timed[1].alone_s))
    assert timed[1].alone_s > timed[1].free_s
