"""What the same model needs in other training software, against what people measured and in closed form."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from perfmodel.count.iteration import iteration
from perfmodel.count.memory.needed import MemoryBytes, memory_bytes, stage_activation_bytes, stage_memory_bytes
from perfmodel.count.parameters import shard_parameter_count
from perfmodel.exchange.presets import cluster_preset, model_preset, stack_preset
from perfmodel.spec.layout import Layout
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.setup import Setup
from perfmodel.spec.stack import SoftwareStack
from tests.layouts import RAMP_STAGE
from tests.setups import setup_of
from tests.stacks import stack_with

LLAMA = model_preset("llama-3.1-8b")
LLAMA_2_13B = replace(
    LLAMA,
    name="Llama 2 13B",
    layers=40,
    hidden_size=5120,
    attention_heads=40,
    kv_heads=40,
    head_size=128,
    ffn_hidden_size=13824,
    vocab_size=32000,
)
LAYOUT = replace(RAMP_STAGE, tensor_parallel=1, data_parallel=8, global_batch_size=8 * 64, sequence_length=4096)
ALONE = replace(LAYOUT, data_parallel=1, global_batch_size=2, micro_batch_size=2, sharding="none")
IN_BF16 = {"states.gradient_bytes": 2, "states.reduced_gradient_bytes": 2, "states.parameter_bytes": 2}
COMPILED = stack_with(
    stack_preset("pytorch-compile"), {**IN_BF16, "states.optimizer_bytes": 4, "states.step_gradient_bytes": 0}
)


def needed(stack: SoftwareStack | str, layout: Layout = LAYOUT, model: TransformerModel = LLAMA, **changes: Any) -> MemoryBytes:
    """Memory of the worst stage."""
    software = stack_preset(stack) if isinstance(stack, str) else stack
    return memory_bytes(iteration(setup_of(model, replace(layout, **changes), software)))


def kept_by_a_layer(stack: SoftwareStack | str, model: TransformerModel = LLAMA, **changes: Any) -> float:
    """Bytes that one layer keeps of one token."""
    software = stack_preset(stack) if isinstance(stack, str) else stack
    work = iteration(setup_of(model, replace(LAYOUT, **changes), software))
    kept = float(stage_activation_bytes(work, work.stages.first))
    return float(kept / model.layers / float(work.layout.tokens_per_micro_batch))


@pytest.mark.parametrize(("layers", "measured_gb"), [(2, 11.33), (4, 18.35), (10, 39.43), (20, 74.56)])
def test_a_compiled_model_needs_what_was_measured(layers: int, measured_gb: float) -> None:
    """A user's 13B cut short, everything in bf16, whole model compiled, on one H100: within 1.5 %."""
    found = needed(COMPILED, ALONE, replace(LLAMA_2_13B, layers=layers))
    assert float(found.allocated_bytes) / 1e9 == pytest.approx(measured_gb, rel=0.015)


@pytest.mark.parametrize(("layers", "measured_gb"), [(2, 6.27), (4, 9.95), (10, 21.0), (20, 39.41)])
def test_a_compiled_model_keeps_what_it_gathered(layers: int, measured_gb: float) -> None:
    """The same user's ZeRO-3 on 8 H100: within 10 %, though two layers at a time would be 25 % less."""
    layout = replace(ALONE, data_parallel=8, global_batch_size=16, sharding="zero3")
    found = needed(COMPILED, layout, replace(LLAMA_2_13B, layers=layers))
    assert float(found.allocated_bytes) / 1e9 == pytest.approx(measured_gb, rel=0.1)


def test_a_compiled_layer_keeps_no_result_of_norms_and_activations() -> None:
    """Of a gated layer 2*(2*h + 2*q + 2*v + 2*f) bytes a token are left, and the statistics of attention."""
    assert kept_by_a_layer("pytorch-compile") == pytest.approx(2 * (4 * 4096 + 2 * 1024 + 2 * 14336) + 4 * 32)


def test_every_second_product_is_kept() -> None:
    """2*(h + 2*q + v + f) and the statistics of every token; eager software keeps the output of the MLP too."""
    compiled = 2 * (3 * 4096 + 1024 + 14336) + 4 * 32
    for sequences in (1, 4):
        kept = kept_by_a_layer("torchtitan", recompute="selective", micro_batch_size=sequences)
        assert kept == pytest.approx(compiled)
    assert kept_by_a_layer("torchtitan-eager", recompute="selective") == pytest.approx(compiled + 2 * 4096)


def test_products_of_experts_are_no_calls_that_are_counted() -> None:
    """Of a layer with experts 2*(h + 2*q + v) and the statistics are left: its four linears are those of the attention."""
    mixtral = model_preset("mixtral-8x7b")
    kept = kept_by_a_layer("torchtitan", mixtral, recompute="selective")
    assert kept == pytest.approx(2 * (3 * 4096 + 1024) + 4 * 32)


def test_autocast_keeps_a_stream_of_4_bytes() -> None:
    """Full recompute keeps the stream alone: 4*h a token against 2*h."""
    assert kept_by_a_layer("accelerate-fsdp", recompute="full") == pytest.approx(4 * 4096)
    assert kept_by_a_layer("pytorch-fsdp", recompute="full") == pytest.approx(2 * 4096)


def test_gathered_inputs_are_whole_on_every_rank() -> None:
    """Two inputs a layer of 2*h bytes a token, in place of their t-th part."""
    layout: dict[str, Any] = {"tensor_parallel": 4, "sequence_parallel": True}
    whole = kept_by_a_layer(stack_with(stack_preset("generic"), {"fusion.gathered_inputs": True}), **layout)
    assert whole - kept_by_a_layer("generic", **layout) == pytest.approx(2 * 2 * 4096 * 3 / 4)


def test_shards_that_are_cast_have_no_copy_in_16_bits() -> None:
    """FSDP holds P/n fp32 masters; of 16 bits only what is gathered: two layers and the vocabulary."""
    count = shard_parameter_count(LLAMA, tensor_parallel=1)
    whole = 2 * (count.attention + count.mlp) / LLAMA.layers + count.embedding + count.head
    found = needed("pytorch-fsdp", sharding="zero3")
    assert found.parameters_bytes == pytest.approx(2 * whole)
    assert found.optimizer_bytes == pytest.approx(12 * count.total / 8)


@pytest.mark.parametrize(("precision", "expected"), [("bf16", 4), ("fp16", 2)])
def test_megatron_adds_up_bf16_gradients_in_fp32_and_fp16_gradients_as_they_are(precision: str, expected: int) -> None:
    """18 bytes a parameter in bf16, 16 in fp16 while the passes run."""
    count = shard_parameter_count(LLAMA, tensor_parallel=1)
    found = needed("megatron-lm", sharding="none", precision=precision)
    assert found.gradients_bytes == pytest.approx(expected * count.total)
    assert found.optimizer_bytes == pytest.approx(12 * count.total)


def test_the_copy_of_an_fp16_gradient_takes_room_in_the_step_alone() -> None:
    """4 bytes a parameter, of which activations and the loss have left as much as they had."""
    found = needed("megatron-lm", sharding="none", precision="fp16", recompute="full")
    copies = 4 * shard_parameter_count(LLAMA, tensor_parallel=1).total
    assert found.scratch_bytes == pytest.approx(copies - float(found.activations_bytes) - float(found.loss_bytes))


def test_the_bf16_optimizer_of_deepspeed_holds_a_whole_fp32_gradient() -> None:
    """4 bytes a parameter more, however many ranks share the optimizer."""
    count = shard_parameter_count(LLAMA, tensor_parallel=1)
    for ranks in (8, 64):
        layout = replace(LAYOUT, data_parallel=ranks, global_batch_size=64 * ranks)
        plain, copied = (needed(each, layout).gradients_bytes for each in ("megatron-deepspeed", "megatron-deepspeed-bf16"))
        assert copied - plain == pytest.approx(4 * count.total)


def test_deepspeed_keeps_what_its_stages_send() -> None:
    """One stream of 2*h bytes a token for each micro-batch in flight, but none on the last stage."""
    layout = replace(LAYOUT, pipeline_parallel=4, data_parallel=1, global_batch_size=64)
    kept, left = (
        stack_with(stack_preset("megatron-deepspeed"), {"states.keeps_stage_outputs": each}) for each in (True, False)
    )
    for place, expected in (("first", 4), ("last", 0)):
        works = [iteration(setup_of(LLAMA, layout, each)) for each in (kept, left)]
        more, less = (float(stage_memory_bytes(work, getattr(work.stages, place)).activations_bytes) for work in works)
        stream = 2 * 4096 * float(works[0].layout.tokens_per_micro_batch)
        assert more - less == pytest.approx(expected * stream)


@pytest.mark.parametrize(("cluster", "copies"), [("dgx-h100", 2), ("dgx-b200", 1)])
def test_fp8_parameters_take_a_byte_and_another_where_transposes_are_wanted(cluster: str, copies: int) -> None:
    """Linears of layers in 8 bits alone, the vocabulary in 16; Hopper's products want the transpose of a weight too."""
    stack = stack_with(stack_preset("megatron-core"), {"low_precision.parameter_gather": True})
    layout = replace(LAYOUT, precision="fp8")
    found = memory_bytes(iteration(Setup(model=LLAMA, cluster=cluster_preset(cluster), stack=stack, layout=layout)))
    count = shard_parameter_count(LLAMA, tensor_parallel=1)
    narrow = count.attention + count.mlp
    assert found.parameters_bytes == pytest.approx(copies * narrow + 2 * (count.total - narrow))


def test_allocated_and_reserved_leave_out_what_the_device_counts() -> None:
    """Tensors, then the allocator's loss, then what libraries allocate by themselves."""
    found = needed("generic")
    assert found.reserved_bytes - found.allocated_bytes == pytest.approx(found.fragmentation_bytes)
    assert found.total_bytes - found.reserved_bytes == pytest.approx(found.framework_bytes + found.communication_bytes)


def test_chunks_of_the_loss_hold_their_share_of_the_logits() -> None:
    """A loss in 8 chunks holds an eighth."""
    whole, eighth = (needed(stack_with(stack_preset("generic"), {"fusion.loss_chunks": each})).loss_bytes for each in (1, 8))
    assert eighth == pytest.approx(whole / 8)


def test_a_loss_over_shared_logits_holds_more_of_each() -> None:
    """torchtitan's takes 16 bytes a logit over several ranks, 12 on one."""
    alone, shared = (needed("torchtitan", tensor_parallel=ranks).loss_bytes for ranks in (1, 2))
    assert 2 * shared == pytest.approx(alone * 16 / 12)
