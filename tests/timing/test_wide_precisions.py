"""Do fp32 and TF32 take the time that others measured on GPUs, in the order of their peak rates, and as surely as is known?

Products are squares of a side n, as PyTorch runs them (zzc0721/torch-performance-test-data on GitHub, issues by GPU); attention
is PyTorch's memory-efficient kernel on A100 (facebookresearch/xformers, pull requests 467 and 587).
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from perfmodel.count.operators import FusedAttention, Matmul
from perfmodel.exchange.presets import cluster_preset, gpu_preset, model_preset, preset_names, stack_preset
from perfmodel.prediction import StagePrediction, predict_stage
from perfmodel.spec.machines.hardware import Cluster, Gpu
from perfmodel.spec.phases import DATA_GRADIENT, FORWARD
from perfmodel.timing.attention import arithmetic_of, fused_attention_time_s
from perfmodel.timing.kernels import at_power_limit, kernel_time_s, matmul_time_s
from perfmodel.timing.ledger import operator_confidence
from tests.layouts import RAMP_STAGE
from tests.setups import setup_of

MODEL = model_preset("nemotron-4-15b")
CLUSTER = cluster_preset("dgx-h100")
STACK = stack_preset("megatron-core")
WIDE = ("tf32", "fp32")
SIZES = (4096, 8192, 10240)
MEASURED = {  # TFLOP/s at each size
    ("h100-sxm-80gb", "fp32"): (51.9, 51.8, 49.6),  # issue 79
    ("h100-sxm-80gb", "tf32"): (402.2, 372.1, 376.7),
    ("h100-pcie-80gb", "fp32"): (36.5, 37.0, 35.8),  # issue 95
    ("h20", "fp32"): (30.3, 32.0, 31.9),  # issue 77
    ("h20", "tf32"): (71.1, 71.8, 71.8),
    ("h20", "bf16"): (133.4, 138.6, 142.3),
    ("a100-pcie-80gb", "fp32"): (15.5, 17.6, 16.7),  # issue 108, of 40 GB
    ("rtx-4090", "fp32"): (53.0, 53.4, 51.4),  # issue 78
    ("rtx-4090", "tf32"): (84.4, 85.7, 84.5),
    ("rtx-4090", "bf16"): (151.5, 160.2, 158.5),
    ("rtx-5090", "bf16"): (182.2, 234.7, 237.0),  # issue 124
    ("a10g", "bf16"): (62.5, 66.6, 69.5),  # issue 126
    ("v100-sxm2-16gb", "fp32"): (13.9, 14.4, 14.5),  # issue 140
    ("a40", "tf32"): (54.9, 59.5, 59.4),  # issue 185
}
FASTEST = {  # TFLOP/s, of squares of 1,024 to 10,240, the median over machines, in its database.md and issues
    ("rtx-3090", "bf16"): 76.6,
    ("rtx-3090", "fp32"): 24.8,
    ("rtx-4090", "bf16"): 164.8,
    ("rtx-5090", "bf16"): 237.0,
    ("a10g", "bf16"): 69.5,
    ("a40", "bf16"): 122.3,
    ("rtx-a6000", "bf16"): 123.3,
    ("rtx-a6000", "fp32"): 23.9,
    ("v100-sxm2-16gb", "fp16"): 97.4,
}
ATTENTION = FusedAttention(
    name="core",
    sequences=64,
    heads=16,
    kv_heads=16,
    head_size=128,
    query_length=1024,
    key_length=1024,
    precision="fp32",
    causal=False,
)


def square(side: int, precision: str) -> Matmul:
    """A product of two square matrices."""
    return Matmul(name="square", rows=side, columns=side, inner=side, precision=precision)


def predicted(precision: str, stack: str = "megatron-core", cluster: Cluster = CLUSTER, **changes: Any) -> StagePrediction:
    """The first stage of the ramp in another precision."""
    layout = replace(RAMP_STAGE, precision=precision, **changes)
    return predict_stage(setup_of(MODEL, layout, stack_preset(stack), cluster=cluster))


@pytest.mark.parametrize(("gpu", "precision"), MEASURED)
def test_square_products_run_as_others_measured(gpu: str, precision: str) -> None:
    """Each to 7 %; of the cards whose 16-bit products the law is not held to, fp32 alone."""
    for side, rate in zip(SIZES, MEASURED[gpu, precision], strict=True):
        product = square(side, precision)
        seconds = matmul_time_s(product, gpu=gpu_preset(gpu), compute_scale=1.0)
        assert float(product.flop / seconds) == pytest.approx(rate * 1e12, rel=0.07)


@pytest.mark.parametrize(("gpu", "precision"), FASTEST)
def test_the_fastest_square_is_as_fast_as_on_most_machines(gpu: str, precision: str) -> None:
    """GeForce cards run above the clocks of their whitepapers, and not all alike: to 5 %."""
    products = [square(side, precision) for side in (1024, 2048, *SIZES)]
    rates = [float(each.flop / matmul_time_s(each, gpu=gpu_preset(gpu), compute_scale=1.0)) for each in products]
    assert max(rates) == pytest.approx(FASTEST[gpu, precision] * 1e12, rel=0.05)


@pytest.mark.parametrize(("phase", "sequences", "measured_s"), [(FORWARD, 64, 12.77e-3), (DATA_GRADIENT, 16, 22.86e-3)])
def test_memory_efficient_attention_runs_as_others_measured(phase: str, sequences: int, measured_s: float) -> None:
    """At a head size of 128 and 1,024 tokens, without a mask; the same in TF32, which it computes in three times over."""
    for precision in WIDE:
        attention = replace(ATTENTION, phase=phase, sequences=sequences, precision=precision)
        seconds = fused_attention_time_s(attention, gpu=gpu_preset("a100-sxm-80gb"), compute_scale=1.0)
        assert float(seconds) == pytest.approx(measured_s, rel=0.05)


def test_three_products_for_one_never_beat_a_third_of_their_peak() -> None:
    """Forwards; backwards the law counts 5 products, of which a kernel may leave out none."""
    for name in preset_names("gpus"):
        carried = gpu_preset(name).carried_attention
        assert carried is not None
        assert carried.backward < carried.forward < 1 / 3


@pytest.mark.parametrize("stack", ["megatron-core", "generic", "torchtitan"])
@pytest.mark.parametrize("cluster", ["dgx-a100", "dgx-h100", "dgx-b200", "hgx-h20", "l40s", "rtx-4090"])
def test_wider_products_take_longer(cluster: str, stack: str) -> None:
    """Where TF32 has twice the rate of fp32 or as much; and so does every bound of the interval."""
    stages = [predicted(each, stack, cluster_preset(cluster), tensor_parallel=1) for each in ("bf16", "tf32", "fp32")]
    for times in ([float(each.iteration_time_s) for each in stages], *zip(*(_ends(each) for each in stages), strict=True)):
        assert sorted(times) == list(times)
        assert len(set(times)) == 3


def _ends(stage: StagePrediction) -> tuple[float, float]:
    low, high = stage.iteration_time_interval_s
    return float(low), float(high)


def test_with_the_rate_bytes_and_law_of_bf16_a_large_product_is_one_of_bf16() -> None:
    """A limit: nothing but the peak rate, the ratio and the bytes of operands tells the formats apart."""
    gpu = CLUSTER.gpu
    alike = {"tf32": replace(gpu.carried_products["tf32"], efficiency=1.0)}
    fast = replace(
        gpu,
        memory_bandwidth_bytes_per_s=1e30,
        peak_flop_per_s=MappingProxyType({**gpu.peak_flop_per_s, "tf32": gpu.peak("bf16")}),
        carried_products=MappingProxyType(alike),
    )
    times = [float(matmul_time_s(square(8192, each), gpu=fast, compute_scale=0.9, sustained=True)) for each in ("bf16", "tf32")]
    assert times[0] == pytest.approx(times[1], rel=1e-12)


def test_mfu_is_counted_against_the_rate_of_the_products() -> None:
    """The same model FLOPs, against 494.7 and 67 TFLOP/s on H100."""
    for precision, peak in (("tf32", 494.7e12), ("fp32", 67e12)):
        stage = predicted(precision)
        rate = stage.model_flop_per_token * RAMP_STAGE.tokens_per_iteration / RAMP_STAGE.gpus / stage.iteration_time_s
        assert float(stage.mfu) == pytest.approx(float(rate) / peak, rel=1e-9)


@pytest.mark.parametrize("precision", WIDE)
def test_nothing_that_is_carried_over_counts_as_measured(precision: str) -> None:
    """Of products and of fused attention."""
    for operator in (square(8192, precision), replace(ATTENTION, precision=precision)):
        assert operator_confidence(operator, cluster=CLUSTER, stack=stack_preset("generic")) == "extrapolated"


@pytest.mark.parametrize("precision", ["bf16", "fp8", *WIDE])
@pytest.mark.parametrize("stack", ["megatron-core", "generic"])
def test_numbers_that_are_carried_over_move_what_rests_on_them(stack: str, precision: str) -> None:
    """The ratio of the format that runs, attention where it is fused, and the law that both are carried over from."""
    moved = predicted(precision, stack).uncertainty.half_widths_s
    carried = {path for path in moved if path.startswith("cluster.gpu.carried")}
    products = {f"cluster.gpu.carried_products.{precision}.efficiency"}
    attention = {f"cluster.gpu.carried_attention.{way}" for way in ("forward", "backward")}
    wide = precision in WIDE
    assert carried == (products if wide else set()) | (attention if wide and stack == "generic" else set())
    assert all(float(moved[path]) > 0 for path in carried)
    assert "cluster.gpu.kernels.matmul.bf16.efficiency" in moved


def test_the_interval_is_wider_than_in_16_bits() -> None:
    """What carrying a law over costs comes on top of what the law itself leaves open."""
    gpu = replace(CLUSTER.gpu, full_load_slowdown=0.0)  # what fp32 does not meet would hide it
    widths = []
    for each in ("bf16", *WIDE):
        low, high = _ends(predicted(each, "generic", replace(CLUSTER, gpu=gpu), data_parallel=1, global_batch_size=4))
        widths.append(high / low)
    assert min(widths[1:]) > widths[0]


def test_only_tensor_cores_meet_the_power_limit() -> None:
    """Products of fp32 take what they take alone; those of TF32 take longer, and so does attention on tensor cores."""
    clocks = 1.3 / (1.0 + CLUSTER.gpu.full_load_slowdown)
    at = {each: at_power_limit(square(8192, each), clocks, gpu=CLUSTER.gpu, stack=STACK) for each in ("bf16", *WIDE)}
    assert (at["bf16"], at["fp32"]) == (at["tf32"], 1.0)
    assert at["bf16"] > 1.0
    assert at_power_limit(ATTENTION, clocks, gpu=CLUSTER.gpu, stack=STACK) == pytest.approx(1.3)


@pytest.mark.parametrize("library", ["fastest", "flash2", "triton"])
def test_libraries_of_flash_attention_are_of_16_bits(library: str) -> None:
    """The kernel on 4 bytes is the same whichever of them a stack has."""
    one, other = (_attention_s(CLUSTER.gpu, each) for each in ("fastest", library))
    assert one == other


def _attention_s(gpu: Gpu, library: str) -> float:
    return float(fused_attention_time_s(ATTENTION, gpu=gpu, compute_scale=1.0, library=library))


def test_what_a_kernel_computes_in_bounds_it() -> None:
    """Products in the format of their operands; fused attention on 4 bytes on tensor cores."""
    found = {each: arithmetic_of(replace(ATTENTION, precision=each), CLUSTER.gpu) for each in ("bf16", *WIDE)}
    assert found == {"bf16": "bf16", "tf32": "tf32", "fp32": "tf32"}
    assert arithmetic_of(square(8, "fp32"), CLUSTER.gpu) == "fp32"
    assert float(kernel_time_s(square(8192, "tf32"), cluster=CLUSTER, stack=STACK)) > 2 * 8192**3 / CLUSTER.gpu.peak("tf32")


@pytest.mark.parametrize("precision", WIDE)
def test_laws_of_flash_attention_are_not_moved_on_4_bytes(precision: str) -> None:
    """Of the library that the stack calls in 16 bits; they could only have moved nothing."""
    laws = "cluster.gpu.kernels.attention_"
    found = {each: predicted(each, "torchtitan").uncertainty.half_widths_s for each in ("bf16", precision)}
    assert any(path.startswith(laws) for path in found["bf16"])
    assert not any(path.startswith(laws) for path in found[precision])
