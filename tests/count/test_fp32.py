"""Does fp32 double what is 2 bytes wide in 16 bits, and nothing else?

Symbols: P parameters of one GPU, N data-parallel ranks, T tokens of a micro-batch, a heads, V logits of a token.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from perfmodel.count.iteration import Iteration, iteration
from perfmodel.count.memory.needed import memory_bytes
from perfmodel.count.memory.storage import logit_bytes, state_bytes
from perfmodel.count.operators import Collective, FusedAttention, Matmul, MemoryBound, hardware_flop, saved_bytes
from perfmodel.count.parameters import shard_parameter_count
from perfmodel.exchange.presets import model_preset, stack_preset
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.stack import SoftwareStack
from tests.layouts import RAMP_STAGE
from tests.setups import GRADIENT_REDUCTION, PARAMETER_GATHER, layer_of, setup_of
from tests.stacks import stack_with

LLAMA = model_preset("llama-3.1-8b")
GPT3 = model_preset("gpt-3-175b")
STACK = stack_preset("reference")
FP32 = replace(RAMP_STAGE, precision="fp32", sequence_length=2048)
BF16 = replace(FP32, precision="bf16")
TOKENS = 2048


def both(model: TransformerModel = LLAMA, stack: SoftwareStack = STACK, **changes: Any) -> tuple[Iteration, Iteration]:
    """The same work in 16 and in 32 bits."""
    sixteen, full = (iteration(setup_of(model, replace(layout, **changes), stack)) for layout in (BF16, FP32))
    return sixteen, full


def bound(work: Iteration) -> dict[tuple[str, str], MemoryBound]:
    """Its memory-bound operators by name and phase."""
    return {(op.name, op.phase): op for op in work.operators if isinstance(op, MemoryBound)}


@pytest.mark.parametrize(("precision", "expected"), [("bf16", 2), ("fp16", 2), ("fp8", 2), ("fp32", 4)])
def test_an_activation_is_as_wide_as_its_precision(precision: str, expected: int) -> None:
    """Those between 8-bit products are of 16 bits."""
    layout = replace(RAMP_STAGE, precision=precision)
    assert layout.recipe.activation_bytes == expected
    assert layout.recipe.rest == layout.recipe.attention == ("bf16" if precision == "fp8" else precision)


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp8"])
@pytest.mark.parametrize("stack", ["megatron-core", "generic", "megatron-lm"])
def test_in_16_bits_the_state_is_what_the_stack_says(precision: str, stack: str) -> None:
    """Adam reads a gradient in fp32, made of one in 16 bits, reads and writes the states, and writes the parameter."""
    known = stack_preset(stack)
    state = state_bytes(replace(BF16, precision=precision), known)
    scaled, held = known.states.scaled_gradient_bytes, (known.states.gradient_bytes, known.states.reduced_gradient_bytes)
    gradients = (scaled, scaled) if precision == "fp16" else held
    assert (state.parameter, state.optimizer) == (known.states.parameter_bytes, known.states.optimizer_bytes)
    assert (state.gradient, state.reduced_gradient) == gradients
    copies = 4 if gradients[0] < 4 else 0
    assert state.adam == 4 + 2 * copies + 2 * known.states.optimizer_bytes + known.states.parameter_bytes
    assert logit_bytes(22, replace(BF16, precision=precision)) == 22


def test_in_fp32_everything_takes_4_bytes_and_no_master_copy_is_kept() -> None:
    """4 + 4 + 8 bytes a parameter; Adam moves a gradient, two moments twice and the parameter twice: 4 + 16 + 8."""
    state = state_bytes(FP32, stack_preset("megatron-core"))
    assert (state.parameter, state.gradient, state.reduced_gradient, state.optimizer, state.adam) == (4, 4, 4, 8, 28)


def test_memory_of_the_state_in_fp32() -> None:
    """4 P of parameters, 4 P of gradients and 8 P / N of moments."""
    work = iteration(setup_of(LLAMA, FP32, STACK))
    memory = memory_bytes(work)
    parameters = shard_parameter_count(LLAMA, tensor_parallel=8).total
    assert memory.parameters_bytes == 4 * parameters
    assert memory.gradients_bytes == 4 * parameters
    assert memory.optimizer_bytes == pytest.approx(8 * parameters / 96)


def test_every_message_between_operators_is_twice_as_wide() -> None:
    """Of the stream, and of parameters; gradients travel in fp32 either way, and the loss exchanges fp32 numbers."""
    messages = [[op for op in work.operators if isinstance(op, Collective)] for work in both(pipeline_parallel=2)]
    for one, two in zip(*messages, strict=True):
        same = (
            one.name == GRADIENT_REDUCTION or "loss" in one.name or ("optimizer" in one.name and one.name != PARAMETER_GATHER)
        )
        assert two.payload_bytes == (1 if same else 2) * one.payload_bytes, one.name


def test_gathered_logits_are_twice_as_wide() -> None:
    """They are activations like any other."""
    sixteen, full = both(stack=stack_with(STACK, {"fusion.gathered_logits": True}))
    payloads = [
        next(op.payload_bytes for op in work.head.forward if isinstance(op, Collective) and op.name == "head.loss.gather")
        for work in (sixteen, full)
    ]
    assert payloads[1] == 2 * payloads[0]


def test_products_and_attention_run_in_fp32_and_cost_the_same_flop() -> None:
    """None of them is left in 16 bits, and each weight gradient is added to one in fp32."""
    sixteen, full = both()
    compute = [op for op in full.operators if isinstance(op, Matmul | FusedAttention)]
    assert {op.precision for op in compute} == {"fp32"}
    assert {op.weight_gradient_bytes for op in compute if isinstance(op, Matmul)} == {4}
    assert hardware_flop(full.operators) == hardware_flop(sixteen.operators)


def test_a_layer_keeps_twice_the_bytes_but_for_the_statistics_of_attention() -> None:
    """One fp32 log-sum a query and head, 4 T a / t, is one in either precision."""
    sixteen, full = (saved_bytes(layer_of(work).again.forward) for work in both())
    statistics = 4 * TOKENS * LLAMA.attention_heads / 8
    assert full - statistics == 2 * (sixteen - statistics)


@pytest.mark.parametrize(
    "name", ["layer.attention.norm", "layer.attention.rotary", "layer.mlp.activation", "layer.mlp.residual", "head.norm"]
)
def test_operators_on_activations_move_twice_the_bytes(name: str) -> None:
    """Forwards and backwards, in as many kernels."""
    sixteen, full = (bound(work) for work in both())
    for phase in ("forward", "data_gradient"):
        one, two = sixteen[name, phase], full[name, phase]
        assert two.moved_bytes == 2 * one.moved_bytes
        assert two.kernels == one.kernels


def test_an_eager_chain_of_a_norm_casts_nothing_in_fp32() -> None:
    """36 bytes less both casts, 6 each, and 4 more for the weight; 84 less 12, and 12 more for the weight and its gradient."""
    stack = stack_with(STACK, {"fusion.norms": "eager_fp32"})
    sixteen, full = (bound(work) for work in both(stack=stack))
    numbers = TOKENS * LLAMA.hidden_size / 8
    forward, backward = (full["layer.mlp.norm", phase] for phase in ("forward", "data_gradient"))
    assert (forward.moved_bytes, forward.kernels) == ((36 - 12 + 4) * numbers, 4)
    assert (backward.moved_bytes, backward.kernels) == ((84 - 12 + 12) * numbers, 10)
    assert sixteen["layer.mlp.norm", "forward"].moved_bytes == 36 * numbers


@pytest.mark.parametrize(("fused", "moved", "saved"), [(True, (8, 12), 4), (False, (24, 28), 4)])
def test_unfused_attention_in_fp32(moved: tuple[int, int], saved: int, *, fused: bool) -> None:
    """A fused softmax moves twice the bytes; an eager one has no casts and keeps one copy: 3 passes of 8, backwards 28."""
    kernels = {"fusion.wide_attention": "fused_softmax" if fused else "unfused", "fusion.softmax": not fused}
    stack = stack_with(stack_preset("megatron-lm"), kernels)
    _, full = both(GPT3, stack)
    scores = GPT3.attention_heads / 8 * TOKENS * TOKENS
    operators = bound(full)
    found = tuple(operators["layer.attention.softmax", phase].moved_bytes / scores for phase in ("forward", "data_gradient"))
    assert found == moved
    kept = {op.name: op.saved_bytes / scores for op in layer_of(full).again.forward if isinstance(op, MemoryBound)}
    assert kept["layer.attention.softmax"] == saved
    assert kept["layer.attention.dropout"] == 1 + 4
    assert operators["layer.attention.dropout", "forward"].moved_bytes == 9 * scores


def test_joining_the_kernels_of_a_ring_in_fp32() -> None:
    """Of each number 8 bytes in fp32 and 3 of the precision forwards, 7 of it backwards: 20 and 28, where 16 bits move 14."""
    sixteen, full = (bound(work) for work in both(context_parallel=4, tensor_parallel=1))
    for phase, ratio in (("forward", 20 / 14), ("data_gradient", 2)):
        key = ("layer.attention.join", phase)
        assert full[key].moved_bytes == pytest.approx(ratio * sixteen[key].moved_bytes)


def test_the_loss_moves_and_holds_the_logits_2_bytes_wider() -> None:
    """What the stack says of a 16-bit logit, and 2 more: forwards, backwards and at the peak."""
    sixteen, full = both()
    logits = TOKENS * LLAMA.padded_vocab_size(8) / 8
    for phase in ("forward", "data_gradient"):
        more = bound(full)["head.loss", phase].moved_bytes - bound(sixteen)["head.loss", phase].moved_bytes
        assert more == 2 * logits
    peaks = [memory_bytes(iteration(setup_of(LLAMA, layout, STACK))).loss_bytes for layout in (BF16, FP32)]
    assert peaks == [6 * logits, 8 * logits]


def test_the_optimizer_step_in_fp32() -> None:
    """Gradients are those of the reference stack in either precision; Adam moves 28 bytes a parameter of its own, not 30."""
    sixteen, full = (bound(work) for work in both())
    parameters = shard_parameter_count(LLAMA, tensor_parallel=8).total
    assert full["optimizer.adam", "optimizer"].moved_bytes == pytest.approx(28 * parameters / 96)
    assert sixteen["optimizer.adam", "optimizer"].moved_bytes == pytest.approx(30 * parameters / 96)
    for name in ("scale_gradients", "gradient_norm"):
        key = (f"optimizer.{name}", "optimizer")
        assert full[key].moved_bytes == sixteen[key].moved_bytes


def test_gradients_in_16_bits_become_fp32_ones() -> None:
    """Megatron-Core's recipes reduce in 16 bits; nothing is left of that in fp32."""
    sixteen, full = both(stack=stack_preset("megatron-core"))
    reductions = [next(op for op in work.synchronisation if op.name == GRADIENT_REDUCTION) for work in (sixteen, full)]
    assert isinstance(reductions[0], Collective)
    assert isinstance(reductions[1], Collective)
    assert reductions[1].payload_bytes == 2 * reductions[0].payload_bytes


def test_adding_a_weight_gradient_in_fp32_moves_12_bytes() -> None:
    """It reads what the product wrote, 4 bytes, and reads and writes the gradient; in 16 bits 2 + 8."""
    for work, expected in zip(both(), (10, 12), strict=True):
        add = bound(work)["layer.mlp.fc2.accumulate", "weight_gradient"]
        assert add.moved_bytes == expected * LLAMA.hidden_size * LLAMA.ffn_hidden_size / 8


def test_the_dense_gradient_of_the_embedding_in_fp32() -> None:
    """Written and read in its precision, then added to the fp32 one: 4 bytes a number of the table more than in 16 bits."""
    sixteen, full = (bound(work)["embedding.lookup", "data_gradient"].moved_bytes for work in both())
    table = LLAMA.padded_vocab_size(8) * LLAMA.hidden_size / 8
    stream = TOKENS * LLAMA.hidden_size
    assert full - sixteen == 4 * table + 3 * 2 * stream


def test_shards_that_are_gathered_are_fp32_too() -> None:
    """Two layers and the matrices of the vocabulary whole: 4 bytes each; their gradients are whole when the loss is over."""
    layout = replace(FP32, sharding="zero3", tensor_parallel=1)
    memory = memory_bytes(iteration(setup_of(LLAMA, layout, STACK)))
    held = shard_parameter_count(LLAMA, tensor_parallel=1)
    whole = 2 * (held.attention + held.mlp) / LLAMA.layers + held.embedding + held.head
    assert memory.parameters_bytes == pytest.approx(4 * (held.total / 96 + whole))
    assert memory.gradients_bytes == pytest.approx(4 * held.total / 96)


def test_arrays_of_layouts_count_in_fp32_what_each_counts() -> None:
    """Bit for bit."""
    tensor = np.array([1, 2, 4, 8])
    many = replace(FP32, tensor_parallel=tensor)
    together = np.asarray(memory_bytes(iteration(setup_of(LLAMA, many, STACK))).total_bytes)
    for index, degree in enumerate(tensor):
        one = replace(FP32, tensor_parallel=int(degree))
        assert together[index] == memory_bytes(iteration(setup_of(LLAMA, one, STACK))).total_bytes
