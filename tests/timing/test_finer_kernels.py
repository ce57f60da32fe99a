"""Are the finer coefficients of a profile taken where it has them: kernels of their own, caches, gradients, fp32?"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from perfmodel.count.operators import FusedAttention, Matmul, MemoryBound, gradients
from perfmodel.exchange.presets import gpu_preset, model_preset, stack_preset
from perfmodel.prediction import StagePrediction, predict_stage
from perfmodel.spec.evidence.spread import moved, uncertain_numbers
from perfmodel.spec.machines.coefficients import MEMORY_BOUND_CLASSES, MemoryBoundCoefficients
from perfmodel.spec.machines.hardware import Cluster, Gpu
from perfmodel.spec.phases import DATA_GRADIENT, FORWARD, WEIGHT_GRADIENT
from perfmodel.timing.attention import plain_attention_time_s
from perfmodel.timing.kernels import kernel_time_s, matmul_bytes, matmul_time_s, memory_bound_class, memory_bound_time_s
from tests.layouts import RAMP_STAGE
from tests.setups import setup_of
from tests.timing.fp32_hardware import FP32_CLUSTER, FP32_GPU, SLOW

MEASURED = gpu_preset("h100-sxm-80gb")
CLASSES = {name: known for name, known in MEASURED.kernels.memory_bound.items() if name in (*MEMORY_BOUND_CLASSES, "cast")}
# a profile that knows classes alone, and no single kernel
H100 = replace(MEASURED, kernels=replace(MEASURED.kernels, memory_bound=MappingProxyType(CLASSES)))
STACK = stack_preset("reference")
MODEL = model_preset("nemotron-4-15b")
GELU = MemoryBound(name="any", kernel="gelu", precision="bf16", moved_bytes=3.35e9, backward_bytes=3.35e9)
SQUARE = Matmul(name="square", rows=8192, columns=8192, inner=8192, precision="bf16", accumulates=False)
FP32_ATTENTION = FusedAttention(
    name="core", sequences=1, heads=32, kv_heads=8, head_size=128, query_length=4096, key_length=4096, precision="fp32"
)


def knowing(gpu: Gpu = H100, **classes: MemoryBoundCoefficients) -> Gpu:
    """A GPU that knows further kernels; `_` in a name stands for the dash before a precision."""
    finer = {name.replace("_bf16", "-bf16").replace("_fp32", "-fp32"): known for name, known in classes.items()}
    kernels = replace(gpu.kernels, memory_bound=MappingProxyType({**gpu.kernels.memory_bound, **finer}))
    return replace(gpu, kernels=kernels)


def with_products(**changes: Any) -> Gpu:
    """A GPU whose 16-bit products have other coefficients."""
    matmul = {**H100.kernels.matmul, "bf16": replace(H100.kernels.matmul["bf16"], **changes)}
    return replace(H100, kernels=replace(H100.kernels, matmul=MappingProxyType(matmul)))


def class_of(operator: MemoryBound, gpu: Gpu) -> str:
    """The key by which it is timed."""
    return memory_bound_class(operator, gpu=gpu, stack=STACK)


def test_a_kernel_is_timed_by_the_closest_that_the_profile_knows() -> None:
    """That of its precision, that of any, and else its class."""
    precise, plain = knowing(gelu=SLOW, gelu_bf16=SLOW, gelu_fp32=SLOW), knowing(gelu=SLOW, gelu_fp32=SLOW)
    assert [class_of(GELU, gpu) for gpu in (precise, plain, knowing(gelu_fp32=SLOW), H100)] == [
        "gelu-bf16",
        "gelu",
        "elementwise",
        "elementwise",
    ]
    assert class_of(replace(GELU, precision=""), precise) == "gelu"
    assert class_of(replace(GELU, kernel="rotary"), precise) == "elementwise"


def test_a_fused_kernel_goes_before_the_chain_that_it_stands_for() -> None:
    """Its own numbers, else those of the chain, else its class."""
    fused = replace(GELU, kernel="fused_swiglu")
    both = (knowing(swiglu=SLOW, fused_swiglu=SLOW), knowing(swiglu=SLOW), H100)
    assert [class_of(fused, gpu) for gpu in both] == ["fused_swiglu", "swiglu", "elementwise"]
    assert class_of(replace(GELU, kernel="swiglu"), knowing(fused_swiglu=SLOW)) == "elementwise"


def test_a_norm_that_the_profile_knows_is_not_that_of_the_stack() -> None:
    """What was measured of this very kernel goes before the class of its kind."""
    norm = replace(GELU, kernel="rmsnorm", family="norm")
    assert class_of(norm, H100) == STACK.fusion.norms
    assert class_of(norm, knowing(rmsnorm=SLOW)) == "rmsnorm"


@pytest.mark.parametrize(("phase", "expected"), [("forward", 1e-3 + 1e-3 / 0.1), ("data_gradient", 2e-3 + 1e-3 / 0.05)])
def test_a_known_kernel_takes_its_own_time(phase: str, expected: float) -> None:
    """t0 + bytes / (M*e), both ways; 1 ms of the memory rate."""
    operator = GELU if phase == FORWARD else gradients(GELU)[0]
    assert isinstance(operator, MemoryBound)
    assert memory_bound_time_s(operator, gpu=knowing(gelu=SLOW), stack=STACK) == pytest.approx(expected)


@pytest.mark.parametrize("field", ["cached_speedup", "backward_cached_speedup"])
def test_what_fits_the_cache_moves_faster_and_what_is_far_larger_does_not(field: str) -> None:
    """1 + u in the limit of nothing, 1 + u/2 at the size of the cache, 1 in the limit of much; each direction its own."""
    speedup: dict[str, Any] = {field: 3.0}
    plain = replace(SLOW, fixed_s=0.0, backward_fixed_s=0.0)
    gpu, bare = knowing(gelu=replace(plain, **speedup)), knowing(gelu=plain)
    phase = DATA_GRADIENT if field.startswith("backward") else FORWARD
    for size, gain in ((1e-4, 4.0), (1.0, 2.5), (1e4, 1.0)):
        operator = replace(GELU, phase=phase, moved_bytes=size * H100.cache_bytes)
        plain_s, cached_s = (memory_bound_time_s(operator, gpu=each, stack=STACK) for each in (bare, gpu))
        assert plain_s / cached_s == pytest.approx(gain, rel=1e-6)
        other = replace(operator, phase=FORWARD if phase == DATA_GRADIENT else DATA_GRADIENT)
        assert memory_bound_time_s(other, gpu=gpu, stack=STACK) == memory_bound_time_s(other, gpu=bare, stack=STACK)


def test_each_kernel_of_a_chain_has_the_cache_to_itself() -> None:
    """Four kernels that move a cache's worth each gain what one does; none moves nothing."""
    gpu = knowing(gelu=replace(SLOW, fixed_s=0.0, cached_speedup=3.0))
    one = replace(GELU, moved_bytes=H100.cache_bytes)
    four = replace(one, moved_bytes=4 * H100.cache_bytes, kernels=4)
    assert memory_bound_time_s(four, gpu=gpu, stack=STACK) == 4 * memory_bound_time_s(one, gpu=gpu, stack=STACK)
    assert memory_bound_time_s(replace(one, moved_bytes=0.0, kernels=0), gpu=gpu, stack=STACK) == 0


def test_a_gain_of_nothing_beside_others_changes_no_bit() -> None:
    """Arrays of coefficients give what each gives alone."""
    sizes = np.array([1e3, 1e7, 1e11])
    speedups = np.array([[0.0], [0.7]])
    many = knowing(gelu=replace(SLOW, cached_speedup=speedups))
    together = np.asarray(memory_bound_time_s(replace(GELU, moved_bytes=sizes), gpu=many, stack=STACK))
    for row, column in np.ndindex(2, 3):
        gpu = knowing(gelu=replace(SLOW, cached_speedup=float(speedups[row, 0])))
        operator = replace(GELU, moved_bytes=float(sizes[column]))
        assert together[row, column] == memory_bound_time_s(operator, gpu=gpu, stack=STACK)


def test_each_pass_of_a_product_has_its_own_factor() -> None:
    """dX = dY W one, dW = X^T dY another, the forward product none; adding to fp32 comes on top."""
    gpu = with_products(data_gradient_factor=0.9, transposed_factor=1.3, weight_gradient_factor=1.1)
    for phase, accumulates, factor in (
        (FORWARD, False, 1.0),
        (DATA_GRADIENT, False, 0.9),
        (WEIGHT_GRADIENT, False, 1.3),
        (WEIGHT_GRADIENT, True, 1.3 * 1.1),
    ):
        product = replace(SQUARE, phase=phase, accumulates=accumulates, weight_gradient_bytes=4)
        without = with_products(weight_gradient_factor=1.0)
        plain_s = matmul_time_s(product, gpu=without, compute_scale=1.0)
        assert matmul_time_s(product, gpu=gpu, compute_scale=1.0) == pytest.approx(factor * plain_s)


def test_sums_of_gradients_that_leave_the_tensor_cores_take_longer() -> None:
    """Those of both gradients, beside the factors of their passes; forward products keep their sums where they are."""
    gpu = with_products(split_accumulator_factor=1.25, transposed_factor=1.3)
    for phase, factor in ((FORWARD, 1.0), (DATA_GRADIENT, 1.25), (WEIGHT_GRADIENT, 1.25 * 1.3)):
        product = replace(SQUARE, phase=phase)
        plain_s = matmul_time_s(product, gpu=with_products(), compute_scale=1.0)
        assert matmul_time_s(product, gpu=gpu, compute_scale=1.0) == pytest.approx(factor * plain_s)


@pytest.mark.parametrize(("name", "precision", "splits"), [("h100-sxm-80gb", "fp8", True), ("h100-sxm-80gb", "bf16", False)])
def test_hopper_splits_sums_in_8_bits_alone(name: str, precision: str, *, splits: bool) -> None:
    """Its tensor cores round them; those of bf16 are in fp32 anyway, and Blackwell has no other way of adding up."""
    assert (gpu_preset(name).matmul(precision).split_accumulator_factor > 1) is splits
    assert gpu_preset("h200-sxm-141gb").matmul("fp8").split_accumulator_factor > 1
    assert gpu_preset("b200").matmul(precision).split_accumulator_factor == 1


def test_products_of_two_activations_have_no_factor() -> None:
    """Their gradients are not those of a linear."""
    scores = replace(SQUARE, phase=DATA_GRADIENT, has_weight=False)
    gpu = with_products(data_gradient_factor=2.0, transposed_factor=2.0, split_accumulator_factor=2.0)
    assert matmul_time_s(scores, gpu=gpu, compute_scale=1.0) == matmul_time_s(scores, gpu=H100, compute_scale=1.0)


def test_operands_and_results_in_fp32_take_4_bytes() -> None:
    """Twice those in 16 bits; an fp32 gradient that the product adds to takes what it takes."""
    full = replace(SQUARE, precision="fp32")
    assert matmul_bytes(full) == 2 * matmul_bytes(SQUARE) == 3 * 4 * 8192**2
    adds = replace(full, phase=WEIGHT_GRADIENT, accumulates=True, weight_gradient_bytes=4)
    assert matmul_bytes(adds) == (2 * 4 + 2 * 4) * 8192**2


@pytest.mark.parametrize("phase", [FORWARD, DATA_GRADIENT])
def test_attention_in_fp32_has_a_law_of_its_own(phase: str) -> None:
    """At the fp32 peak, with operands of 4 bytes."""
    kernels, attention = FP32_GPU.kernels, replace(FP32_ATTENTION, phase=phase)
    known = kernels.attention_backward_fp32 if phase == DATA_GRADIENT else kernels.attention_forward_fp32
    assert known is not None
    expected = plain_attention_time_s(attention, known, gpu=FP32_GPU, compute_scale=0.9 * STACK.host.clock_scale)
    cluster = replace(FP32_CLUSTER, compute_scale=0.9)
    assert kernel_time_s(attention, cluster=cluster, stack=STACK) == pytest.approx(expected)
    loaded = replace(FP32_GPU, memory_bandwidth_bytes_per_s=1e3, peak_flop_per_s=MappingProxyType({"fp32": 1e29, "bf16": 1e29}))
    four, two = (
        plain_attention_time_s(replace(attention, precision=each), known, gpu=loaded, compute_scale=1.0)
        for each in ("fp32", "bf16")
    )
    assert four == pytest.approx(2 * two)


def predicted(cluster: Cluster = FP32_CLUSTER, **changes: Any) -> StagePrediction:
    """The first ramp stage under the reference stack."""
    return predict_stage(setup_of(MODEL, replace(RAMP_STAGE, **changes), STACK, cluster=cluster))


def test_a_run_in_fp32_takes_longer_and_needs_more_activations() -> None:
    """A tenth of the peak, twice the bytes."""
    sixteen, full = predicted(), predicted(precision="fp32")
    assert full.iteration_time_s > 5 * sixteen.iteration_time_s
    assert full.memory.activations_bytes > 1.9 * sixteen.memory.activations_bytes
    assert 0 < full.mfu < 1


def test_arrays_in_fp32_give_exactly_what_a_loop_gives() -> None:
    """Degrees and micro-batches, on a GPU with kernels and caches of its own."""
    gpu = knowing(FP32_GPU, squared_relu_fp32=replace(SLOW, cached_speedup=2.0, backward_cached_speedup=1.0), adam=SLOW)
    cluster = replace(FP32_CLUSTER, gpu=gpu)
    tensor, micro = np.array([1, 2, 8]), np.array([[1], [4]])
    together = predicted(cluster, precision="fp32", tensor_parallel=tensor, micro_batch_size=micro)
    for row, column in np.ndindex(2, 3):
        sizes = {"tensor_parallel": int(tensor[column]), "micro_batch_size": int(micro[row, 0])}
        alone = predicted(cluster, precision="fp32", **sizes)
        for part, seconds in alone.breakdown.items():
            assert np.broadcast_to(getattr(together.breakdown, part), (2, 3))[row, column] == seconds, part
        assert np.asarray(together.iteration_time_interval_s[1])[row, column] == alone.iteration_time_interval_s[1]


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp8", "fp32"])
def test_coefficients_of_other_precisions_are_not_moved(precision: str) -> None:
    """They could only have moved nothing: kernels, products and attention of fp32 in 16 bits, and the other way round."""
    cluster = replace(FP32_CLUSTER, gpu=knowing(FP32_GPU, squared_relu_bf16=SLOW, squared_relu_fp32=SLOW))
    found = predicted(cluster, precision=precision)
    numbers = found.uncertainty.half_widths_s
    kernels = "cluster.gpu.kernels"
    in_fp32 = {f"{kernels}.memory_bound.squared_relu-fp32.efficiency", f"{kernels}.attention_forward_fp32.efficiency"}
    in_16_bits = {f"{kernels}.memory_bound.squared_relu-bf16.efficiency", f"{kernels}.attention_forward.efficiency"}
    used, unused = (in_fp32, in_16_bits) if precision == "fp32" else (in_16_bits, in_fp32)
    assert used <= set(numbers)
    assert not unused & set(numbers)
    stated = {path: 1.5 for path, _ in uncertain_numbers(cluster, "cluster.") if any(each in path for each in unused)}
    assert len(stated) == 2
    again = predicted(moved(cluster, stated, "cluster."), precision=precision)
    assert again.iteration_time_s == found.iteration_time_s


def test_only_the_cast_to_4_bits_has_kernels_of_its_own() -> None:
    """Those of 8 bits share one class, whatever their scales belong to."""
    gpu, stack = gpu_preset("b200"), stack_preset("megatron-core")
    cast = {
        each: MemoryBound(name="cast", moved_bytes=1e8, family="cast", precision=each) for each in ("fp8", "mxfp8", "nvfp4")
    }
    found = {each: memory_bound_class(operator, gpu=gpu, stack=stack) for each, operator in cast.items()}
    assert found == {"fp8": "cast", "mxfp8": "cast", "nvfp4": "cast-nvfp4"}


@pytest.mark.parametrize(("most", "parts"), [(1, 1), (2, 2), (3, 3), (5, 4), (6, 6), (7, 6), (8, 8), (99, 8)])
def test_one_tile_is_split_over_so_many_multiprocessors(most: int, parts: int) -> None:
    """1, 2, 3, 4, 6 or 8 of them share a sum over a long inner side, as many as are allowed, each with a part of it."""
    tile = replace(SQUARE, rows=128, columns=128, inner=1 << 22)
    ideal = {"fixed_s": 0.0, "slowdown": 0.0, "k_half": 0.0, "split_traffic": 0.0, "padding_weight": 0.0, "fill_weight": 1.0}
    gpus = [replace(with_products(most_splits=each, **ideal), memory_bandwidth_bytes_per_s=1e21) for each in (1, most)]
    alone_s, shared_s = (matmul_time_s(tile, gpu=gpu, compute_scale=1.0) for gpu in gpus)
    assert alone_s / shared_s == pytest.approx(parts)
