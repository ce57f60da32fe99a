"""Attention that takes 8-bit queries, keys and values: what is cast and kept, and which layers keep 16 bits.

Symbols: T tokens of a micro-batch, q and v columns of queries and of KV heads on a rank, e bytes of a number of 8 bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from perfmodel.count.iteration import Iteration, iteration
from perfmodel.count.operators import Collective, FusedAttention, MemoryBound, Operator, hardware_flop, model_flop, saved_bytes
from perfmodel.count.roles import Role
from perfmodel.exchange.presets import cluster_preset, model_preset, stack_preset
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.phases import DATA_GRADIENT, FORWARD, RECOMPUTE
from tests.count.mixtures import layout_of, mixture_setup
from tests.counted import moved_bytes, named
from tests.layouts import RAMP_STAGE
from tests.setups import layer_of, setup_of
from tests.stacks import stack_with

LLAMA = model_preset("llama-3.1-8b")  # 32 heads and 8 KV heads of 128
T, Q, V, RANKS = 2 * 4096, 4096 / 2, 1024 / 2, 2
LAYOUT = replace(RAMP_STAGE, tensor_parallel=RANKS, micro_batch_size=2, precision="nvfp4")
FP8 = {"low_precision.attention": "fp8", "low_precision.attention_recipes": ("nvfp4",), "low_precision.spared_layers": 0.0}
FORMATS = pytest.mark.parametrize(("attention", "size", "cast"), [("fp8", 1, 2 + 1), ("mxfp8", 33 / 32, 2 + 2 * 33 / 32)])


def work_of(
    settings: Mapping[str, Any] = FP8, model: TransformerModel = LLAMA, cluster: str = "gb200-nvl72", **layout: Any
) -> Iteration:
    """An iteration in NVFP4, on a stack that casts what attention takes, or with other settings."""
    stack = stack_with(stack_preset("megatron-core"), {"low_precision.spared_layers": 0.0, **settings})
    return iteration(setup_of(model, replace(LAYOUT, **layout), stack, cluster=cluster_preset(cluster)))


def cores(work: Iteration) -> set[str]:
    """The number formats of its attention kernels."""
    return {op.precision for op in work.operators if isinstance(op, FusedAttention)}


def casts(work: Iteration) -> list[MemoryBound]:
    """The casts around its attention kernels."""
    return [op for op in work.operators if isinstance(op, MemoryBound) and op.name.endswith("core.quantise")]


@FORMATS
def test_queries_keys_and_values_are_cast_and_backwards_the_gradient_of_the_output(
    attention: str, size: float, cast: float
) -> None:
    """2 bytes read and e written, or e twice where blocks share a scale: T*(q + 2*v) numbers, then T*q."""
    work = work_of(FP8 | {"low_precision.attention": attention})
    assert cores(work) == {attention}
    assert moved_bytes(work, "layer.attention.core.quantise") == cast * T * (Q + 2 * V)
    assert moved_bytes(work, "layer.attention.core.quantise", DATA_GRADIENT) == cast * T * Q
    assert {(op.role, op.precision) for op in casts(work)} == {(Role.CAST, attention)}


def test_a_scale_of_the_moment_reads_what_is_cast_once_more() -> None:
    """As casts of linears do."""
    work = work_of(FP8 | {"low_precision.scaling": "current"})
    assert moved_bytes(work, "layer.attention.core.quantise", DATA_GRADIENT) == (2 + 2 + 1) * T * Q


@FORMATS
def test_what_is_kept_of_queries_keys_and_values_has_8_bits(attention: str, size: float, cast: float) -> None:
    """(2 - e)*T*(q + 2*v) bytes a layer fewer; output and statistics stay."""
    forward = layer_of(work_of(FP8 | {"low_precision.attention": attention})).plain.forward
    plain = layer_of(work_of({})).plain.forward
    assert saved_bytes(plain) - saved_bytes(forward) == pytest.approx((2 - size) * T * (Q + 2 * V), rel=1e-12)


def test_flop_do_not_change() -> None:
    """Of the convention and of the hardware."""
    low, plain = work_of(), work_of({})
    assert low.fold(model_flop) == pytest.approx(plain.fold(model_flop), rel=1e-12)
    assert low.fold(hardware_flop) == pytest.approx(plain.fold(hardware_flop), rel=1e-12)


@pytest.mark.parametrize("precision", ["bf16", "fp8", "mxfp8"])
def test_recipes_that_the_stack_does_not_name_keep_16_bits(precision: str) -> None:
    """Attention of other recipes is the same as on a stack that casts nothing for it."""
    assert work_of(precision=precision).operators == work_of({}, precision=precision).operators


def test_a_gpu_without_such_kernels_keeps_16_bits() -> None:
    """H200, on which they are slower at head size 128, and H100, its twin."""
    settings = FP8 | {"low_precision.attention_recipes": ("fp8",)}
    for cluster in ("dgx-h200", "dgx-h100"):
        assert cores(work_of(settings, cluster=cluster, precision="fp8")) == {"bf16"}
    assert cores(work_of(settings, precision="fp8")) == {"fp8"}


@pytest.mark.parametrize(("heads", "head_size", "expected"), [(64, 64, "bf16"), (32, 128, "fp8"), (16, 256, "bf16")])
def test_a_head_size_that_gains_nothing_keeps_16_bits(heads: int, head_size: int, expected: str) -> None:
    """Heads of 64 and 256 numbers have no kernels that are worth it."""
    model = replace(LLAMA, attention_heads=heads, head_size=head_size)
    assert cores(work_of(model=model)) == {expected}


def test_windows_keep_16_bits_beside_layers_without() -> None:
    """Gemma 3 with heads of 128: five layers in six have a window."""
    model = replace(model_preset("gemma-3-27b"), head_size=128)
    formats = {(op.window is None, op.precision) for op in work_of(model=model).operators if isinstance(op, FusedAttention)}
    assert formats == {(True, "fp8"), (False, "bf16")}


@pytest.mark.parametrize("part", [{"sinks": True}, {"softcaps": ("attention",)}, {"dropout": True}])
def test_sinks_caps_and_dropout_keep_16_bits(part: dict[str, Any]) -> None:
    """No such kernel has them."""
    assert cores(work_of(model=replace(LLAMA, **part))) == {"bf16"}


def test_another_library_keeps_16_bits() -> None:
    """Kernels of 8 bits belong to the fastest one."""
    assert cores(work_of(FP8 | {"fusion.attention_library": "flash2"})) == {"bf16"}


def test_latent_attention_is_in_8_bits_by_the_mean_of_its_head_sizes() -> None:
    """DeepSeek-V3: keys of 192 and values of 128 numbers."""
    model = model_preset("deepseek-v3")
    stack = stack_with(stack_preset("megatron-core"), FP8)
    setup = replace(mixture_setup(model, layout_of(precision="nvfp4")), stack=stack, cluster=cluster_preset("gb200-nvl72"))
    work = iteration(setup)
    assert cores(work) == {"fp8"}
    (tokens,) = {float(op.sequences * op.query_length) for op in work.operators if isinstance(op, FusedAttention)}
    assert {float(op.moved_bytes) for op in casts(work)} == {3 * tokens * 128 * (192 + 192 + 128), 3 * tokens * 128 * 128}


def test_layers_that_a_recipe_spares_keep_16_bits() -> None:
    """A share of 15 %: kernels and casts of 8 bits run 0.85 times in the mean layer, those of 16 bits 0.15 times."""
    work = work_of(FP8 | {"low_precision.spared_layers": 0.15})
    narrow = named(work, "layer.attention.core", FusedAttention)
    wide = named(work, "layer.attention.wide.core", FusedAttention)
    assert (narrow.precision, wide.precision) == ("fp8", "bf16")
    assert narrow.repeats / (narrow.repeats + wide.repeats) == pytest.approx(0.85, rel=1e-12)
    plain = layer_of(work_of({"low_precision.spared_layers": 0.15})).plain.forward
    kept = saved_bytes(plain) - saved_bytes(layer_of(work).plain.forward)
    assert kept == pytest.approx(0.85 * T * (Q + 2 * V), rel=1e-12)


@pytest.mark.parametrize("exchange", ["ring", "all_gather"])
def test_ranks_that_share_a_sequence_send_16_bits_and_cast_their_own_tokens(exchange: str) -> None:
    """Every piece of the core takes 8 bits; messages are those of 16."""
    settings = {"overlap.context_parallel_exchange": exchange}
    low, plain = (work_of(settings | each, context_parallel=4) for each in (FP8, {}))
    assert cores(low) == {"fp8"}
    assert messages(low) == messages(plain)
    assert moved_bytes(low, "layer.attention.core.quantise") == 3 * T / 4 * (Q + 2 * V)


def messages(work: Iteration) -> list[Operator]:
    """The collectives of a layer."""
    return [op for op in layer_of(work).plain.operators if isinstance(op, Collective)]


@pytest.mark.parametrize("spared", [0.0, 0.15])
def test_a_core_that_is_run_again_keeps_its_format_and_casts_nothing_again(spared: float) -> None:
    """What the cast wrote is kept, so that it need not run again."""
    settings = FP8 | {"low_precision.spared_layers": spared, "fusion.selective_recompute": "attention"}
    again = [op for op in work_of(settings, recompute="selective").operators if op.phase == RECOMPUTE]
    expected = {"fp8", "bf16"} if spared else {"fp8"}
    assert {op.precision for op in again if isinstance(op, FusedAttention)} == expected
    assert not [op for op in again if op.role is Role.CAST]


def test_many_layouts_are_counted_as_one_by_one() -> None:
    """Arrays of tensor-parallel degrees."""
    together = moved_bytes(work_of(tensor_parallel=np.array([1, 2, 4])), "layer.attention.core.quantise")
    assert np.asarray(together).tolist() == [
        moved_bytes(work_of(tensor_parallel=each), "layer.attention.core.quantise") for each in (1, 2, 4)
    ]


def test_stacks_that_are_shipped_cast_where_their_recipes_do() -> None:
    """NVFP4 as in MLPerf, MXFP8 and NVFP4 of Megatron-Bridge of 2026; nobody else, nor the reference model."""
    found = {
        name: {each for each in ("bf16", "fp8", "mxfp8", "nvfp4") if cores(shipped(name, each)) != {"bf16"}}
        for name in ("nemo-mlperf", "megatron-bridge-2026", "megatron-bridge", "megatron-core-2025", "reference")
    }
    assert found == {
        "nemo-mlperf": {"nvfp4"},
        "megatron-bridge-2026": {"mxfp8", "nvfp4"},
        "megatron-bridge": set(),
        "megatron-core-2025": set(),
        "reference": set(),
    }


def shipped(name: str, precision: str) -> Iteration:
    """An iteration of Llama on a shipped stack; what of it is in 16 bits under any recipe stays apart."""
    layout = replace(LAYOUT, precision=precision)
    stack = stack_with(stack_preset(name), {"low_precision.spared_layers": 0.0})
    return iteration(setup_of(LLAMA, layout, stack, cluster=cluster_preset("gb200-nvl72")))


def test_casts_belong_to_forward_and_backward_passes() -> None:
    """One of each a layer."""
    assert sorted(op.phase for op in casts(work_of())) == sorted([FORWARD, DATA_GRADIENT])


def test_recipes_that_spare_layers_or_none_broadcast() -> None:
    """One share of spared layers is none: there the wide kernels run no times."""
    work = work_of(FP8 | {"low_precision.spared_layers": np.array([0.0, 0.15])})
    narrow = named(work, "layer.attention.core", FusedAttention)
    wide = named(work, "layer.attention.wide.core", FusedAttention)
    share = np.asarray(wide.repeats / (narrow.repeats + wide.repeats))
    assert share == pytest.approx(np.array([0.0, 0.15]), rel=1e-12)
