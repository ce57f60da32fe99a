"""Is a law that is carried over from another format the measured one, but for what was said to differ?"""

from __future__ import annotations

from dataclasses import fields, replace
from types import MappingProxyType
from typing import Any

import pytest

from perfmodel.errors import InputError, NotSupportedError
from perfmodel.exchange.presets import cluster_preset, gpu_preset
from perfmodel.spec.evidence.spread import moved
from perfmodel.spec.machines.carried_laws import CarriedProducts
from perfmodel.spec.machines.hardware import Gpu
from perfmodel.spec.precision import RECIPES

H100 = gpu_preset("h100-sxm-80gb")
CPU = cluster_preset("amd-epyc-2-cores").gpu
WIDE = ("tf32", "fp32")


def carrying(gpu: Gpu = H100, precision: str = "tf32", **changes: Any) -> Gpu:
    """A GPU with other settings of the products of one format."""
    table = {**gpu.carried_products, precision: replace(gpu.carried_products[precision], **changes)}
    return replace(gpu, carried_products=MappingProxyType(table))


def test_what_is_kept_of_the_measured_law_are_its_terms_of_shape() -> None:
    """The efficiency differs by a ratio; what rests on it is no longer a measurement of this format."""
    measured, carried = H100.matmul("bf16"), carrying(efficiency=0.8).matmul("tf32")
    different = {entry.name for entry in fields(measured) if getattr(measured, entry.name) != getattr(carried, entry.name)}
    assert different == {"efficiency", "evidence"}
    assert carried.efficiency == pytest.approx(0.8 * measured.efficiency)
    assert (carried.evidence.basis, carried.evidence.sizes) == ("transferred", measured.evidence.sizes)


def test_what_the_power_limit_does_not_meet_does_not_slow_down() -> None:
    """Neither within a kernel nor over a pass."""
    assert H100.matmul("fp32").slowdown == 0.0
    assert H100.matmul("tf32").slowdown == H100.matmul("bf16").slowdown > 0.0
    assert [H100.power_limited(each) for each in ("bf16", "fp8", "tf32", "fp32")] == [True, True, True, False]


def test_no_product_is_faster_than_a_law_admits() -> None:
    """1.2 of the peak rate, as for laws that are read."""
    fast = carrying(replace(H100, name="fast"), efficiency=1.5)
    assert fast.matmul("tf32").efficiency == 1.2


def test_the_library_of_a_stack_is_carried_over_too() -> None:
    """Where an older library has a law of the other format, it is the one that is carried."""
    older, newest = H100.matmul("tf32", "cublas_2023"), H100.matmul("tf32")
    assert older.efficiency == H100.matmul("bf16", "cublas_2023").efficiency
    assert older.fixed_s == H100.matmul("bf16", "cublas_2023").fixed_s != newest.fixed_s


def test_what_was_measured_is_not_carried_over() -> None:
    """The CPU has kernels of its own in fp32, and no TF32 at all."""
    like_bf16 = MappingProxyType({"fp32": H100.carried_products["fp32"]})
    cpu = replace(CPU, carried_products=like_bf16, carried_attention=H100.carried_attention)
    assert cpu.matmul("fp32") == CPU.matmul("fp32")
    assert cpu.attention("fp32", backward=False) == CPU.attention("fp32", backward=False)
    assert (cpu.attention_circuits("fp32"), H100.attention_circuits("fp32")) == ("fp32", "tf32")
    assert cpu.product_formats(RECIPES["fp32"]) == {"fp32"}
    assert cpu.power_limited("fp32")
    with pytest.raises(NotSupportedError, match="has no tf32 rate; it has fp32, bf16"):
        cpu.check_recipe(RECIPES["tf32"])


def test_a_format_like_one_that_was_not_measured_is_refused() -> None:
    """Nor can a format be like itself."""
    for like in ("fp32", "tf32"):
        with pytest.raises(NotSupportedError, match="no tf32 kernels were measured on H100"):
            carrying(like=like).check_recipe(RECIPES["tf32"])


def test_a_format_that_is_none_is_a_slip_of_the_pen() -> None:
    """As in the table of peak rates."""
    wrong = MappingProxyType({"tf23": H100.carried_products["tf32"]})
    with pytest.raises(InputError, match="unknown number format; did you mean tf32") as caught:
        replace(H100, carried_products=wrong)
    assert caught.value.key == "carried_products.tf23"
    with pytest.raises(InputError, match="did you mean bf16"):
        CarriedProducts(like="bf61", efficiency=1.0, power_limited=True)


@pytest.mark.parametrize("precision", WIDE)
def test_attention_on_4_bytes_is_one_kernel_whatever_its_products(precision: str) -> None:
    """With an efficiency for each direction, of the peak rate of TF32."""
    carried = H100.carried_attention
    assert carried is not None
    laws = [H100.attention(precision, backward=backward, library="flash2") for backward in (False, True)]
    assert [law.efficiency for law in laws] == [carried.forward, carried.backward]
    assert [law.sequence_half for law in laws] == [H100.kernels.attention_forward.sequence_half, laws[1].sequence_half]
    assert H100.attention_circuits(precision) == "tf32"
    assert H100.attention_circuits("bf16") == "bf16"


def test_the_numbers_of_both_laws_move_what_is_carried_over() -> None:
    """A ratio and the efficiency that it multiplies, each by its own spread."""
    paths = ("gpu.kernels.matmul.bf16.efficiency", "gpu.carried_products.tf32.efficiency")
    cluster = cluster_preset("dgx-h100")
    for path in paths:
        there = moved(cluster, {path: 0.9}).gpu.matmul("tf32").efficiency
        assert there == pytest.approx(0.9 * H100.matmul("tf32").efficiency)
    assert H100.product_formats(RECIPES["tf32"]) == {"tf32", "bf16"}


@pytest.mark.parametrize("name", ["b200", "gb200", "b300", "gb300"])
def test_mxfp8_products_are_those_of_fp8_at_a_share_of_their_rate(name: str) -> None:
    """Of which one shape was published; its terms of shape, and what the power limit does to it, are those of FP8."""
    gpu = gpu_preset(name)
    block, tensor = gpu.matmul("mxfp8"), gpu.matmul("fp8")
    assert block.efficiency == pytest.approx(0.93 * tensor.efficiency)
    assert (block.k_half, block.slowdown, block.tiles) == (tensor.k_half, tensor.slowdown, tensor.tiles)
    assert block.evidence.basis == "transferred"
    assert gpu.power_limited("mxfp8")


@pytest.mark.parametrize(
    ("name", "precision"), [("h100-sxm-80gb", "mxfp8"), ("h200-sxm-141gb", "nvfp4"), ("rtx-5090", "nvfp4")]
)
def test_a_gpu_without_a_rate_refuses_a_recipe(name: str, precision: str) -> None:
    """Whatever it has of other formats."""
    with pytest.raises(NotSupportedError, match=f"no {precision} rate"):
        gpu_preset(name).check_recipe(RECIPES[precision])
