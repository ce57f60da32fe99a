"""What do fp32 and TF32 share, what does each have of its own, and which attention runs on numbers of 4 bytes?"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from perfmodel.count.iteration import Iteration, iteration
from perfmodel.count.memory.needed import memory_bytes
from perfmodel.count.operators import Collective, FusedAttention, Matmul, MemoryBound
from perfmodel.count.parameters import shard_parameter_count
from perfmodel.exchange.presets import model_preset, preset_names, stack_preset
from perfmodel.spec.precision import RECIPES
from perfmodel.spec.stack import SoftwareStack
from tests.layouts import RAMP_STAGE
from tests.setups import layer_of, setup_of
from tests.stacks import stack_with

LLAMA = model_preset("llama-3.1-8b")
STACK = stack_preset("megatron-core")
WIDE = ("tf32", "fp32")


def work_of(precision: str, stack: SoftwareStack = STACK, **changes: Any) -> Iteration:
    """An iteration of the first stage of the ramp, in another precision."""
    return iteration(setup_of(LLAMA, replace(RAMP_STAGE, precision=precision, **changes), stack))


@pytest.mark.parametrize("stack", ["megatron-core", "pytorch-fsdp", "megatron-lm"])
def test_tf32_differs_from_fp32_in_its_products_alone(stack: str) -> None:
    """The same operators, bytes and messages; tensor cores take 19 bits of what memory holds as 32."""
    tf32, fp32 = (work_of(each, stack_preset(stack)).operators for each in WIDE)
    for one, other in zip(tf32, fp32, strict=True):
        different = {entry.name for entry in fields(one) if getattr(one, entry.name) != getattr(other, entry.name)}
        assert different == ({"precision"} if isinstance(one, Matmul | FusedAttention) else set()), one.name


@pytest.mark.parametrize("stack", ["megatron-core", "megatron-bridge", "deepspeed-zero", "megatron-deepspeed-bf16"])
@pytest.mark.parametrize("precision", WIDE)
def test_a_parameter_takes_16_bytes_whatever_the_software(precision: str, stack: str) -> None:
    """4 of itself, 4 of its gradient, 8 of Adam's moments; no master copy and no second gradient."""
    memory = memory_bytes(work_of(precision, stack_preset(stack), sharding="none"))
    parameters = shard_parameter_count(LLAMA, tensor_parallel=8).total
    state = (memory.parameters_bytes, memory.gradients_bytes, memory.optimizer_bytes)
    assert state == (4 * parameters, 4 * parameters, 8 * parameters)


@pytest.mark.parametrize("precision", WIDE)
def test_the_stream_travels_in_4_bytes(precision: str) -> None:
    """Twice the payload of bf16, in every collective of a layer and between pipeline stages."""
    wide, sixteen = (_payloads(work_of(each, pipeline_parallel=2)) for each in (precision, "bf16"))
    assert wide.keys() == sixteen.keys() >= {"layer.mlp.fc1.gather", "layer.mlp.fc2.scatter", "pipeline.send_activations"}
    assert wide == {name: 2 * payload for name, payload in sixteen.items()}


def _payloads(work: Iteration) -> dict[str, Any]:
    """Of the collectives of a layer, and of what goes from one pipeline stage to the next."""
    sent = (op for op in work.operators if isinstance(op, Collective))
    return {op.name: op.payload_bytes for op in sent if op.name.startswith(("layer.", "pipeline."))}


@pytest.mark.parametrize("precision", WIDE)
def test_transformer_engine_forms_scores_where_numbers_have_4_bytes(precision: str) -> None:
    """Two batched products and a chain of eager kernels, 4 bytes of each score kept; in bf16 one kernel."""
    core = {op.name: op for op in layer_of(work_of(precision)).again.forward if op.name.startswith("layer.attention.")}
    scores = LLAMA.attention_heads / 8 * 4096**2
    softmax = core["layer.attention.softmax"]
    assert isinstance(softmax, MemoryBound)
    assert (softmax.moved_bytes, softmax.backward_bytes, softmax.saved_bytes) == (24 * scores, 28 * scores, 4 * scores)
    products = [core[f"layer.attention.{name}"] for name in ("scores", "context")]
    assert all(isinstance(op, Matmul) and op.precision == precision for op in products)
    assert any(isinstance(op, FusedAttention) for op in layer_of(work_of("bf16")).again.forward)


@pytest.mark.parametrize(("wide", "kernels"), [("fused", 0), ("fused_softmax", 1), ("unfused", 3)])
def test_a_stack_says_what_runs_on_4_bytes(wide: str, kernels: int) -> None:
    """A kernel of fused attention has no softmax of its own; a compiler fuses the chain of three; 16 bits do not ask."""
    stack = stack_with(STACK, {"fusion.wide_attention": wide})
    found = {each: _softmax_kernels(work_of(each, stack)) for each in (*WIDE, "bf16", "fp16", "fp8")}
    assert found == {"tf32": kernels, "fp32": kernels, "bf16": 0, "fp16": 0, "fp8": 0}


def _softmax_kernels(work: Iteration) -> float:
    """Kernels of the softmax of a layer; none where it lies inside fused attention."""
    forward = layer_of(work).again.forward
    return sum(float(op.kernels) for op in forward if isinstance(op, MemoryBound) and op.name == "layer.attention.softmax")


def test_a_stack_without_fused_attention_forms_scores_whatever_it_says_of_4_bytes() -> None:
    """The kernel that would run on them is one of fused attention."""
    stack = stack_with(STACK, {"fusion.attention": False, "fusion.wide_attention": "fused"})
    assert not any(isinstance(op, FusedAttention) for op in work_of("fp32", stack).operators)


@pytest.mark.parametrize("precision", WIDE)
def test_memory_efficient_attention_keeps_no_scores(precision: str) -> None:
    """Queries, keys and values, and one fp32 log-sum a query and head; of a longer sequence as much longer."""
    stack, bytes_ = stack_preset("generic"), []
    for length in (4096, 8192):
        forward = layer_of(work_of(precision, stack, sequence_length=length)).again.forward
        (core,) = (op for op in forward if isinstance(op, FusedAttention))
        heads = LLAMA.attention_heads / 8
        kept = 4 * length * (LLAMA.query_size + 2 * LLAMA.kv_size) / 8 + 4 * length * heads
        assert core.saved_bytes == kept
        bytes_.append(core.saved_bytes)
    assert bytes_[1] == 2 * bytes_[0]


@pytest.mark.parametrize("name", preset_names("stacks"))
def test_every_stack_knows_what_it_runs_in_every_precision(name: str) -> None:
    """Of software whose kernels take 2 bytes alone it says that there is none."""
    fusion = stack_preset(name).fusion
    has = {each: fusion.has_attention(recipe) for each, recipe in RECIPES.items()}
    assert has == {each: name != "nanotron" or each not in WIDE for each in RECIPES}
