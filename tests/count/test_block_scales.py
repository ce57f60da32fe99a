"""What recipes whose scales belong to blocks of numbers read, write, keep and send, and what per-tensor ones do on Blackwell.

Symbols: T tokens of a micro-batch, h hidden_size, S GPUs that share the tokens between linears, q bytes of an operand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from perfmodel.count.data_parallel import gathered_bytes
from perfmodel.count.iteration import Iteration, iteration
from perfmodel.count.memory.needed import memory_bytes, stage_activation_bytes
from perfmodel.count.operators import Collective, Matmul, MemoryBound, hardware_flop, model_flop
from perfmodel.count.parameters import low_precision_parameters
from perfmodel.exchange.presets import cluster_preset, model_preset, stack_preset
from perfmodel.spec.phases import DATA_GRADIENT, FORWARD, OPTIMIZER
from perfmodel.spec.precision import FORMATS, RECIPES
from tests.counted import moved_bytes, named
from tests.layouts import RAMP_STAGE
from tests.setups import setup_of
from tests.stacks import stack_with

LLAMA = model_preset("llama-3.1-8b")
T, H, RANKS = 2 * 4096, 4096, 4
LAYOUT = replace(RAMP_STAGE, tensor_parallel=RANKS, micro_batch_size=2)
ALL_LAYERS = {"low_precision.spared_layers": 0.0, "fusion.separate_projections": False}
BLOCKS = pytest.mark.parametrize(("precision", "q", "reads"), [("mxfp8", 33 / 32, 1), ("nvfp4", 9 / 16, 3)])
HELD = pytest.mark.parametrize(
    ("precision", "parameter_gather", "each"),
    [("mxfp8", False, 2 + 2 * 33 / 32), ("mxfp8", True, 2 * 33 / 32), ("nvfp4", False, 3.125), ("nvfp4", True, 3.125)],
)


def work_of(precision: str, mechanisms: Mapping[str, Any] = ALL_LAYERS, cluster: str = "dgx-b200", **layout: Any) -> Iteration:
    """An iteration of Llama in one precision, on a stack with other mechanisms."""
    stack = stack_with(stack_preset("megatron-core"), {**ALL_LAYERS, **mechanisms})
    layout = {"precision": precision, **layout}
    return iteration(setup_of(LLAMA, replace(LAYOUT, **layout), stack, cluster=cluster_preset(cluster)))


@pytest.mark.parametrize(("name", "numbers", "scale_bytes", "number_bytes"), [("mxfp8", 32, 1, 1), ("nvfp4", 16, 1, 0.5)])
def test_a_number_carries_its_share_of_the_scale_of_its_block(
    name: str, numbers: int, scale_bytes: float, number_bytes: float
) -> None:
    """OCP Microscaling specification: one byte for 32 numbers; NVFP4: one for 16."""
    assert FORMATS[name].bytes == number_bytes + scale_bytes / numbers
    assert FORMATS[name].block == numbers


@BLOCKS
def test_a_cast_writes_two_copies_of_the_share_of_a_rank(precision: str, q: float, reads: int) -> None:
    """2 bytes read as often as the recipe says, q written twice: forwards of the input, backwards of the gradient alone."""
    work, each = work_of(precision), 2 * reads + 2 * q
    assert moved_bytes(work, "layer.mlp.fc1.quantise") == each * T * H / RANKS
    assert moved_bytes(work, "layer.mlp.fc1.quantise", DATA_GRADIENT) == each * T * 2 * 14336 / RANKS
    assert moved_bytes(work, "layer.mlp.fc2.quantise") == each * T * 14336 / RANKS
    assert moved_bytes(work, "layer.mlp.fc2.quantise", DATA_GRADIENT) == each * T * H / RANKS


@BLOCKS
def test_every_pass_of_a_cast_is_a_kernel(precision: str, q: float, reads: int) -> None:
    """NVFP4 looks for the largest number, casts along rows, and casts behind a Hadamard transform along columns."""
    work = work_of(precision)
    for phase in (FORWARD, DATA_GRADIENT):
        assert named(work, "layer.mlp.fc1.quantise", MemoryBound, phase).kernels == reads


@pytest.mark.parametrize(("precision", "less"), [("nvfp4", 1), ("mxfp8", 0), ("fp8", 0)])
def test_without_a_hadamard_transform_one_kernel_casts_both_copies(precision: str, less: int) -> None:
    """NVTE_NVFP4_DISABLE_RHT of Transformer Engine: an operand is read once less; other formats have no transform."""
    with_it, without = (
        named(work_of(precision, {"low_precision.hadamard": each}), "layer.mlp.fc1.quantise", MemoryBound)
        for each in (True, False)
    )
    assert with_it.moved_bytes - without.moved_bytes == 2 * less * T * H / RANKS
    assert with_it.kernels - without.kernels == less


@BLOCKS
def test_the_scaling_of_a_stack_does_not_touch_blocks(precision: str, q: float, reads: int) -> None:
    """What it says is of scales of tensors."""
    delayed, current = (work_of(precision, {"low_precision.scaling": each}) for each in ("delayed", "current"))
    assert moved_bytes(delayed, "layer.mlp.fc1.quantise") == moved_bytes(current, "layer.mlp.fc1.quantise")


@pytest.mark.parametrize(("precision", "reads"), [("mxfp8", 1), ("nvfp4", 2)])
def test_weights_are_cast_into_two_copies(precision: str, reads: int) -> None:
    """NVFP4 reads them for the scale of the tensor first; in squares of 16 x 16 no transform is needed."""
    work, q = work_of(precision), FORMATS[precision].bytes
    narrow = low_precision_parameters(work.stages.first.parameters, work.setup)
    assert moved_bytes(work, "optimizer.quantise_weights", OPTIMIZER) == narrow * (2 * reads + 2 * q)


@BLOCKS
def test_a_gathered_gradient_travels_as_both_copies(precision: str, q: float, reads: int) -> None:
    """One for each product behind it; an input travels as the one that the product wants."""
    work = work_of(precision)
    gradient = named(work, "layer.mlp.fc2.gather_gradient", Collective, DATA_GRADIENT)
    gathered = named(work, "layer.mlp.fc1.gather", Collective)
    assert (gradient.payload_bytes, gathered.payload_bytes) == (2 * q * T * H, q * T * H)


@BLOCKS
def test_a_linear_keeps_the_copy_that_its_weight_gradient_wants(precision: str, q: float, reads: int) -> None:
    """That along columns: q of each number."""
    work = work_of(precision)
    assert named(work, "layer.mlp.fc2", Matmul, FORWARD).saved_bytes == q * T * 14336 / RANKS
    assert named(work, "layer.mlp.fc1", Matmul, FORWARD).saved_bytes == q * T * H / RANKS


@HELD
def test_two_copies_of_a_weight_are_held(precision: str, parameter_gather: bool, each: float) -> None:
    """Beside 16 bits, or alone where a stack holds no others; NVFP4 always has the 16 bits beside."""
    work = work_of(precision, {"low_precision.parameter_gather": parameter_gather})
    held = work.stages.first.parameters
    narrow = low_precision_parameters(held, work.setup)
    assert memory_bytes(work).parameters_bytes == pytest.approx(2 * (held.total - narrow) + each * narrow, rel=1e-12)


@pytest.mark.parametrize("precision", ["mxfp8", "nvfp4"])
def test_parameters_travel_in_16_bits(precision: str) -> None:
    """Two copies of each would be no less; those with scales of tensors travel in 8."""
    narrow = {"low_precision.parameter_gather": True}
    sizes = [
        gathered_bytes(work.stages.first.parameters, work.setup)
        for work in (work_of(each, narrow) for each in ("bf16", precision, "fp8"))
    ]
    assert sizes[0] == sizes[1] > sizes[2]


def test_on_blackwell_8_bits_with_scales_of_tensors_need_no_transposes() -> None:
    """Its products take either order: a cast writes once, and a weight is held once."""
    work = work_of("fp8")
    assert moved_bytes(work, "layer.mlp.fc1.quantise", DATA_GRADIENT) == (2 + 1) * T * 2 * 14336 / RANKS
    assert moved_bytes(work, "layer.mlp.fc2.quantise", DATA_GRADIENT) == (2 + 1) * T * H / RANKS
    narrow = low_precision_parameters(work.stages.first.parameters, work.setup)
    assert moved_bytes(work, "optimizer.quantise_weights", OPTIMIZER) == narrow * (2 + 1)


@pytest.mark.parametrize("share", [0.0, 0.15, 1.0])
def test_spared_layers_keep_16_bits(share: float) -> None:
    """What a layer keeps and what parameters are held in lie between NVFP4 and bf16, by the share of the layers."""
    sparing = work_of("nvfp4", {"low_precision.spared_layers": share})
    ends = [work_of("bf16"), work_of("nvfp4")]
    kept = [float(stage_activation_bytes(work, work.stages.first)) for work in (sparing, *ends)]
    held = [float(memory_bytes(work).parameters_bytes) for work in (sparing, *ends)]
    for mean, wide, narrow in (kept, held):
        assert mean == pytest.approx(share * wide + (1 - share) * narrow, rel=1e-12)


@pytest.mark.parametrize("sequence_parallel", [True, False])
def test_spared_layers_change_no_flop(sequence_parallel: bool) -> None:
    """What is computed in 16 bits is not computed in 4."""
    some, none = (
        work_of("nvfp4", {"low_precision.spared_layers": share}, sequence_parallel=sequence_parallel) for share in (0.3, 0.0)
    )
    for count in (model_flop, hardware_flop):
        assert some.fold(count) == pytest.approx(none.fold(count), rel=1e-12)
    wide = [op for op in some.operators if isinstance(op, Matmul) and op.name == "layer.mlp.fc1.wide"]
    assert {op.precision for op in wide} == {"bf16"}
    shares = [float(op.repeats / other.repeats) for op, other in zip(wide, _products(none), strict=True)]
    assert shares == pytest.approx([0.3] * len(shares))


def _products(work: Iteration) -> list[Matmul]:
    return [op for op in work.operators if isinstance(op, Matmul) and op.name == "layer.mlp.fc1"]


@pytest.mark.parametrize("precision", ["fp8", "mxfp8", "bf16"])
def test_recipes_that_spare_no_layers_run_all_of_them(precision: str) -> None:
    """The share of a stack is of those that do."""
    assert not RECIPES[precision].spares_layers
    assert not any("wide" in op.name for op in work_of(precision, {"low_precision.spared_layers": 0.5}).operators)
