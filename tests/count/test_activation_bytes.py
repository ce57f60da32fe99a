"""What the forward operators keep equals Table 2 of arXiv:2205.05198, and what training states take those of ZeRO.

Symbols: b micro_batch_size, s sequence_length, h hidden_size, a attention_heads, L layers, t tensor_parallel.
"""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from perfmodel.count.iteration import iteration
from perfmodel.count.memory.needed import MemoryBytes, memory_bytes, stage_activation_bytes
from perfmodel.count.memory.recompute import rerun_layer_bytes
from perfmodel.count.parameters import shard_parameter_count
from perfmodel.exchange.presets import model_preset, stack_preset
from perfmodel.spec.fields import Numeric
from perfmodel.spec.layout import Layout
from perfmodel.spec.models.model import TransformerModel
from tests.setups import layer_of, setup_of
from tests.stacks import stack_with

GPT3 = model_preset("gpt-3-175b")  # dropout, biases, GELU and as many KV heads as heads, like the models of the paper
LLAMA = model_preset("llama-3.1-8b")
NEMOTRON = model_preset("nemotron-4-15b")
WIDE_HEADS = replace(LLAMA, name="heads wider than the stream", head_size=192)
TENSOR_PARALLEL = np.array([1, 2, 4, 8])
MICRO_BATCH_SIZE = np.array([[1], [2], [4]])
SEQUENCE_LENGTH = 2048
LAYOUT = Layout(
    precision="bf16",
    tensor_parallel=TENSOR_PARALLEL,
    data_parallel=4,
    sequence_parallel=True,
    sharding="zero1",
    recompute="none",
    micro_batch_size=MICRO_BATCH_SIZE,
    global_batch_size=64,
    sequence_length=SEQUENCE_LENGTH,
)
STREAM = SEQUENCE_LENGTH * MICRO_BATCH_SIZE * GPT3.hidden_size  # s * b * h
SCORES = 5 * GPT3.attention_heads * SEQUENCE_LENGTH / GPT3.hidden_size  # 5 * a * s / h: 80


def kept(model: TransformerModel, *, stack: str = "megatron-lm", layout: Layout = LAYOUT) -> Numeric:
    """Count the bytes that all layers keep of one micro-batch: a pipeline of one stage has one in flight."""
    software = stack_preset(stack)
    work = iteration(setup_of(model, layout, software))
    return stage_activation_bytes(work, work.stages.first)


def rerun(model: TransformerModel, layout: Layout) -> Numeric:
    """Count the bytes of the layer that runs again."""
    work = iteration(setup_of(model, layout, stack_preset("megatron-lm")))
    return rerun_layer_bytes(work, layer_of(work), next(iter(work.layers)))


def states(layout: Layout, stack: str) -> MemoryBytes:
    """Count the bytes of Llama 3.1 8B."""
    software = stack_preset(stack)
    return memory_bytes(iteration(setup_of(LLAMA, layout, software)))


def test_tensor_parallelism_alone_splits_what_is_between_its_linears() -> None:
    """Without sequence parallelism a layer keeps s*b*h * (10 + 24/t + 5*a*s/(h*t)) bytes."""
    per_layer = STREAM * (10 + 24 / TENSOR_PARALLEL + SCORES / TENSOR_PARALLEL)
    assert kept(GPT3, layout=replace(LAYOUT, sequence_parallel=False)) == pytest.approx(GPT3.layers * per_layer, rel=1e-14)


def test_sequence_parallelism_splits_everything() -> None:
    """With sequence parallelism a layer keeps s*b*h/t * (34 + 5*a*s/h) bytes."""
    per_layer = STREAM / TENSOR_PARALLEL * (34 + SCORES)
    assert kept(GPT3) == pytest.approx(GPT3.layers * per_layer, rel=1e-14)


@pytest.mark.parametrize("sequence_parallel", [False, True])
def test_selective_recompute_keeps_no_scores_but_those_of_one_layer(*, sequence_parallel: bool) -> None:
    """34*s*b*h/t a layer (10 + 24/t without sequence parallelism), and 5*a*s^2*b/t of the one that runs again."""
    linear = 34 / TENSOR_PARALLEL if sequence_parallel else 10 + 24 / TENSOR_PARALLEL
    layout = replace(LAYOUT, recompute="selective", sequence_parallel=sequence_parallel)
    assert kept(GPT3, layout=layout) == pytest.approx(GPT3.layers * STREAM * linear, rel=1e-14)
    assert rerun(GPT3, layout) == pytest.approx(STREAM * SCORES / TENSOR_PARALLEL, rel=1e-14)


@pytest.mark.parametrize("sequence_parallel", [False, True])
def test_full_recompute_keeps_the_input_of_each_layer_and_one_layer_whole(*, sequence_parallel: bool) -> None:
    """2*s*b*h bytes a layer, shared by the ranks under sequence parallelism, and the rest of the layer that runs again."""
    shards = TENSOR_PARALLEL if sequence_parallel else 1
    whole_layer = STREAM * (10 / shards + (24 + SCORES) / TENSOR_PARALLEL)
    layout = replace(LAYOUT, recompute="full", sequence_parallel=sequence_parallel)
    inputs = np.broadcast_to(GPT3.layers * 2 * STREAM / shards, (3, 4))
    assert np.broadcast_to(kept(GPT3, layout=layout), (3, 4)) == pytest.approx(inputs, rel=1e-14)
    assert rerun(GPT3, layout) == pytest.approx(whole_layer - 2 * STREAM / shards, rel=1e-14)


def test_a_layer_that_runs_again_shares_its_memory_with_the_loss() -> None:
    """They are never there together: only what the layer needs beyond the logits adds to the peak."""
    stack = stack_preset("megatron-lm")
    large, none = (replace(LAYOUT, recompute="full"), stack_with(stack, {"fusion.loss_peak_bytes": 0}))
    with_loss, without = (memory_bytes(iteration(setup_of(GPT3, large, each))) for each in (stack, none))
    assert with_loss.activations_bytes + with_loss.loss_bytes == pytest.approx(
        np.maximum(without.activations_bytes, with_loss.activations_bytes + with_loss.loss_bytes)
    )
    assert np.all(with_loss.activations_bytes <= without.activations_bytes)


def test_selective_recompute_saves_70_percent_of_gpt3() -> None:
    """arXiv:2205.05198, section 5: 5*a*s/h is 80 for GPT-3, and selective recompute saves 70 % of its activation bytes."""
    assert SCORES == 80
    saving = 1 - kept(GPT3, layout=replace(LAYOUT, recompute="selective")) / kept(GPT3)
    assert saving == pytest.approx(np.full((3, 4), 0.70), abs=0.01)


def test_without_dropout_no_masks_are_kept() -> None:
    """34 loses the masks of both residuals, 1 byte each, and the 5 of a score its mask and masked copy, 3 bytes."""
    per_layer = STREAM / TENSOR_PARALLEL * (32 + 2 / 5 * SCORES)
    assert kept(replace(GPT3, dropout=False)) == pytest.approx(GPT3.layers * per_layer, rel=1e-14)


@pytest.mark.parametrize("sequence_parallel", [False, True])
@pytest.mark.parametrize("model", [LLAMA, NEMOTRON, WIDE_HEADS], ids=lambda model: model.name)
def test_fused_attention_keeps_no_scores(model: TransformerModel, *, sequence_parallel: bool) -> None:
    """Tokens * (8*h + (4*q + 4*v + 4*a + 4*f)/t) bytes: inputs of norms and linears, Q, K, V, a log-sum, the MLP's 2 middles.

    The middle of a gated MLP has two halves, both kept: 6*f. 8*h is divided by t under sequence parallelism.
    """
    shards = TENSOR_PARALLEL if sequence_parallel else 1
    middle = 6 if model.activation == "swiglu" else 4
    split = 4 * model.query_size + 4 * model.kv_size + 4 * model.attention_heads + middle * model.ffn_hidden_size
    per_layer = SEQUENCE_LENGTH * MICRO_BATCH_SIZE * (8 * model.hidden_size / shards + split / TENSOR_PARALLEL)
    layout = replace(LAYOUT, sequence_parallel=sequence_parallel)
    assert kept(model, stack="megatron-core", layout=layout) == pytest.approx(model.layers * per_layer, rel=1e-14)


@pytest.mark.parametrize("stack", ["megatron-core", "megatron-lm"])
@pytest.mark.parametrize("model", [GPT3, LLAMA, NEMOTRON], ids=lambda model: model.name)
def test_more_recompute_never_keeps_more(model: TransformerModel, stack: str) -> None:
    """None keeps at least as much as selective, and selective more than full."""
    none, selective, full = (
        kept(model, stack=stack, layout=replace(LAYOUT, recompute=m)) for m in ("none", "selective", "full")
    )
    assert np.all(none >= selective)
    assert np.all(selective > full)


@pytest.mark.parametrize(("sharding", "sharers"), [("none", 1), ("zero1", 64)])
def test_training_states_take_4_bytes_a_parameter_and_12_of_optimizer(sharding: str, sharers: int) -> None:
    """arXiv:1910.02054: 2 + 2 + 12/N bytes a parameter in mixed precision, N being 64 sharers under ZeRO-1."""
    layout = replace(LAYOUT, data_parallel=64, sharding=sharding)
    parameters = shard_parameter_count(LLAMA, tensor_parallel=TENSOR_PARALLEL).total
    parts = states(layout, "megatron-core")
    assert parts.parameters_bytes == pytest.approx(2 * parameters)
    assert parts.gradients_bytes == pytest.approx(2 * parameters)
    assert parts.optimizer_bytes == pytest.approx(12 / sharers * parameters)


@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
def test_parts_of_the_memory_add_up_to_its_total(recompute: str) -> None:
    """The total is the sum of the parts, each of them positive but for the scratch of steps that need less than the passes."""
    memory = states(replace(LAYOUT, recompute=recompute), "megatron-core")
    parts = [np.broadcast_to(getattr(memory, part.name), (3, 4)) for part in fields(memory)]
    positive = [bool(np.all(part > 0)) for part in parts]
    assert [part.name for part, found in zip(fields(memory), positive, strict=True) if not found] == ["scratch_bytes"]
    assert np.all(memory.scratch_bytes >= 0)
    assert memory.total_bytes == pytest.approx(np.sum(parts, axis=0), rel=1e-14)
