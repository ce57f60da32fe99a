"""Does every memory-bound operator say which kernel it runs, on numbers of which precision?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from perfmodel.count.iteration import iteration
from perfmodel.count.operators import MemoryBound
from perfmodel.exchange.presets import model_preset, stack_preset
from perfmodel.spec.machines.coefficients import FUSED_KERNELS, MEMORY_BOUND_KERNELS
from perfmodel.spec.stack import SoftwareStack
from tests.layouts import RAMP_STAGE
from tests.setups import setup_of
from tests.stacks import stack_with

LLAMA = model_preset("llama-3.1-8b")
REFERENCE = stack_preset("reference")
ADDING = stack_with(REFERENCE, {"states.overwrites_gradients": False})
EXPECTED = {
    "embedding.lookup": "lookup",
    "layer.attention.norm": "rmsnorm",
    "layer.attention.rotary": "rotary",
    "layer.attention.residual": "residual",
    "layer.attention.qkv.accumulate": "accumulate",
    "layer.mlp.norm": "rmsnorm",
    "layer.mlp.activation": "swiglu",
    "layer.mlp.residual": "residual",
    "head.norm": "rmsnorm",
    "head.loss": "loss",
    "optimizer.scale_gradients": "scale",
    "optimizer.gradient_norm": "square_sum",
    "optimizer.adam": "adam",
    "optimizer.zero_gradients": "zero",
}


def kernels(
    precision: str = "bf16", *, norm: str = "rmsnorm", activation: str = "swiglu", stack: SoftwareStack = ADDING
) -> dict[str, tuple[str, str]]:
    """Kernel and precision of the memory-bound operators of Llama, or of a changed one, by name."""
    model = replace(LLAMA, norm=norm, activation=activation)
    work = iteration(setup_of(model, replace(RAMP_STAGE, precision=precision), stack))
    return {op.name: (op.kernel, op.precision) for op in work.operators if isinstance(op, MemoryBound)}


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
def test_operators_name_their_kernels(precision: str) -> None:
    """And the precision of activations; what works on gradients and states in fp32 names none, but Adam."""
    found = kernels(precision)
    assert {name: found[name][0] for name in EXPECTED} == EXPECTED
    for name, (_, on) in found.items():
        in_fp32 = name.startswith("optimizer.") and name != "optimizer.adam"
        assert on == ("" if in_fp32 else precision), name


def test_between_8_bit_products_kernels_work_on_16_bits() -> None:
    """Casts alone name no kernel, but what they cast to: they have a class of their own."""
    found = kernels("fp8")
    assert {on for kernel, on in found.values() if kernel and on} == {"bf16"}
    assert {name for name, (kernel, _) in found.items() if not kernel} == {
        *(name for name in found if name.endswith(".quantise")),
        "optimizer.quantise_weights",
    }


@pytest.mark.parametrize("activation", ["gelu", "squared_relu", "swiglu", "geglu"])
@pytest.mark.parametrize("norm", ["layernorm", "rmsnorm"])
def test_norms_and_activations_are_kernels_of_their_kind(norm: str, activation: str) -> None:
    """By the words of the model; a profile may know each of them."""
    found = kernels(norm=norm, activation=activation)
    assert found["layer.mlp.activation"][0] == activation
    assert {found[name][0] for name in ("layer.attention.norm", "layer.mlp.norm", "head.norm")} == {norm}
    assert {kernel for kernel, _ in found.values()} <= set(MEMORY_BOUND_KERNELS)


def test_a_stack_that_fuses_a_chain_runs_another_kernel() -> None:
    """Not those of the eager chain, whose rate is another; GELU is one kernel either way."""
    fusing = stack_with(ADDING, {"fusion.rotary": True, "fusion.activation": True})
    found = kernels(stack=fusing)
    assert (found["layer.mlp.activation"][0], found["layer.attention.rotary"][0]) == ("fused_swiglu", "fused_rotary")
    assert {kernel for kernel, _ in found.values()} <= {*MEMORY_BOUND_KERNELS, *FUSED_KERNELS}
    assert kernels(activation="gelu", stack=fusing)["layer.mlp.activation"][0] == "gelu"


def test_a_norm_that_is_a_chain_of_kernels_is_not_the_one_that_a_profile_knows() -> None:
    """It is timed as the elementwise kernels it is made of."""
    stack = stack_with(stack_preset("reference"), {"fusion.norms": "eager_fp32"})
    operators = iteration(setup_of(LLAMA, RAMP_STAGE, stack)).operators
    norm = next(op for op in operators if op.name == "layer.mlp.norm")
    assert isinstance(norm, MemoryBound)
    assert (norm.kernel, norm.family) == ("", "elementwise")


def test_the_first_micro_batch_overwrites_and_the_others_add() -> None:
    """Of m = 4 once and three times; nothing is set to zero. In one precision the product writes into the gradient itself."""
    for precision, writes in (("bf16", 1), ("fp32", 0)):
        layout = replace(RAMP_STAGE, precision=precision, micro_batch_size=1)
        assert layout.micro_batches == 4
        runs = {op.name: float(op.repeats) / LLAMA.layers for op in iteration(setup_of(LLAMA, layout, REFERENCE)).operators}
        assert runs.get("layer.mlp.fc1.overwrite", 0) == writes
        assert runs["layer.mlp.fc1.accumulate"] == 3
        assert "optimizer.zero_gradients" not in runs


def test_overwriting_reads_nothing() -> None:
    """2 bytes of the product, 4 written; adding also reads 4. A table of embeddings is spared as much on average."""
    layout = replace(RAMP_STAGE, micro_batch_size=1)
    moved = {
        op.name: op.moved_bytes for op in iteration(setup_of(LLAMA, layout, REFERENCE)).operators if isinstance(op, MemoryBound)
    }
    assert moved["layer.mlp.fc1.accumulate"] / moved["layer.mlp.fc1.overwrite"] == pytest.approx(10 / 6)
    lookups = [
        next(
            op
            for op in iteration(setup_of(LLAMA, layout, stack)).operators
            if op.name == "embedding.lookup" and op.phase != "forward"
        )
        for stack in (ADDING, REFERENCE)
    ]
    table = LLAMA.padded_vocab_size(layout.tensor_parallel) * LLAMA.hidden_size / layout.tensor_parallel
    assert lookups[0].moved_bytes - lookups[1].moved_bytes == pytest.approx(4 * table / 4)  # type: ignore[union-attr]
