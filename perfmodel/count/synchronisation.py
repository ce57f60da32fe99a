"""What an iteration does once, after its micro-batches: step the optimizer, beside what data parallelism moves."""

from __future__ import annotations

from typing import Final

import numpy as np

from perfmodel.count.data_parallel import (
    Buckets,
    buckets,
    data_parallel_operators,
    expert_state_shards,
    gathered_bytes,
    owned_parameters,
    shards,
    windows,
)
from perfmodel.count.memory.storage import state_bytes
from perfmodel.count.operators import Collective, MemoryBound, Operator
from perfmodel.count.parameters import ParameterCount, low_precision_parameters, parameter_tensors
from perfmodel.count.parts.vocabulary import embedding_matrix
from perfmodel.count.pipeline import PipelineSplit, PipelineStage
from perfmodel.count.roles import Role
from perfmodel.count.tuning.step import tuned_steps
from perfmodel.light_dataclass import replace
from perfmodel.spec.fields import Numeric, anywhere, chosen
from perfmodel.spec.layout import (
    GATHERED,
    ProcessGroup,
    data_parallel_group,
    tensor_parallel_group,
    vocabulary_group,
    world_group,
)
from perfmodel.spec.phases import OPTIMIZER
from perfmodel.spec.setup import Setup

MASTER_BYTES: Final = 4  # of an fp32 master copy


def synchronisation_operators(setup: Setup, split: PipelineSplit, bucket: Buckets) -> tuple[Operator, ...]:
    """The operators of one optimizer step, on the pipeline stage with the most parameters; collectives cut into buckets."""
    reduction, *rest = data_parallel_operators(setup, split.stages.first.parameters, bucket)
    return (reduction, *_steps(setup, split.most_parameters, split.most_layers), *rest)


def synchronisation_of_stage(setup: Setup, stage: PipelineStage) -> tuple[Operator, ...]:
    """The operators of one optimizer step on one pipeline stage of a single layout: what differs from stage to stage, as it is.

    Copies of tied embeddings add up their gradients on the first and the last stage alone.
    """
    held = stage.parameters
    reduction, *rest = data_parallel_operators(setup, held, buckets(setup, held))
    return (reduction, *_steps(setup, held, stage.layers, vocabulary=stage.embedding + stage.head), *rest)


def _steps(setup: Setup, shard: ParameterCount, layers: Numeric, vocabulary: Numeric = 1) -> tuple[Operator, ...]:
    """Scale, norm, Adam, zero; the norm is one number over all GPUs, and sequence-parallel norms add up their gradients.

    Row-parallel biases, at most two a layer, were added to those tokens alone too, and so were routers and other matrices that
    ranks hold whole: their gradients travel with those of the norms. Copies of tied embeddings on both ends of a pipeline add
    up theirs, on stages that hold `vocabulary`.
    """
    model, layout, stack = setup.model, setup.layout, setup.stack
    if setup.tuning is not None:
        return tuned_steps(setup, shard, setup.tuning)
    owned = owned_parameters(shard, layout, "optimizer")
    state = state_bytes(layout, stack)
    gradient_bytes = owned_parameters(shard, layout, "gradients") * state.gradient
    copies = vocabulary_group(layout, tied=model.tied_embeddings)
    matrix_bytes = embedding_matrix(model, layout.tensor_parallel) * state.gradient
    adam = replace(_step("adam", "adam", owned * state.adam, kernels=4), family="optimizer", precision=layout.recipe.rest)
    steps: list[Operator] = [
        *((_all_reduce("embedding_gradients", matrix_bytes, copies),) if vocabulary else ()),
        _step("scale_gradients", "scale", 2 * gradient_bytes),
        _step("gradient_norm", "square_sum", owned * state.gradient, kernels=2),
        _all_reduce("gradient_norm", 4.0, world_group(layout)),
        adam,
        *(() if stack.states.overwrites_gradients else (_step("zero_gradients", "zero", gradient_bytes),)),
    ]
    if layout.sequence_parallel:
        row_biases = model.has_bias("projection") + model.has_bias("mlp")
        numbers = shard.norms + shard.replicated + row_biases * model.hidden_size * layers
        steps.append(_all_reduce("norm_gradients", numbers * state.gradient, tensor_parallel_group(layout)))
    if layout.recipe.casts:
        steps.append(_cast_of_weights(setup, shard, layers))
    if anywhere(stack.states.bucket_copy_bytes):
        is_shared = chosen(np.asarray(data_parallel_group(layout).ranks) > 1, 1.0, 0.0)
        steps.append(_step("copy_buckets", "copy", is_shared * stack.states.bucket_copy_bytes * shard.total, kernels=is_shared))
    if stack.overlap.blocks(layout.sharding):
        steps.append(_placed_parameters(setup, shard, layers))
    if stack.states.copies_gathered and layout.sharding in GATHERED:
        steps.append(_copied_out(setup, shard, layers))
    return tuple(steps)


def _copied_out(setup: Setup, shard: ParameterCount, layers: Numeric) -> MemoryBound:
    """Reads what was gathered and writes each parameter to its place, every time that layers are gathered.

    PyTorch's FSDP2 (foreach_all_gather_copy_out) does so on the stream of the products, which wait for it.
    """
    layout = setup.layout
    again = chosen(layout.pipeline_parallel > 1, 0, 1) * setup.stack.states.regathers_parameters
    return MemoryBound(
        name="optimizer.copy_gathered",
        phase=OPTIMIZER,
        role=Role.STEP,
        kernel="copy",
        repeats=windows(Role.PARAMETER_GATHER, layout) * (1 + again),
        moved_bytes=2.0 * gathered_bytes(shard, setup),
        kernels=layers + 1,
    )


def _placed_parameters(setup: Setup, shard: ParameterCount, layers: Numeric) -> MemoryBound:
    """Three copies of what one gather brought: into buffers, a rank's each, out of PyTorch's own, and slice by slice in place.

    A slice of every tensor comes from every rank, each put in place by a kernel of its own (huggingface/nanotron,
    distributed.py, all_gather_coalesced).
    """
    ranks = data_parallel_group(setup.layout).ranks
    copies = 6.0 * state_bytes(setup.layout, setup.stack).parameter * chosen(np.asarray(ranks) > 1, 1.0, 0.0)
    kernels = chosen(np.asarray(ranks) > 1, ranks * (parameter_tensors(setup.model, layers) + 2), 0)
    return _step("place_parameters", "copy", copies * shard.total, kernels=kernels)


def _cast_of_weights(setup: Setup, shard: ParameterCount, layers: Numeric) -> MemoryBound:
    """Reads a parameter and writes its low-precision copies, one or two; what is gathered anew is cast anew.

    Scales of blocks are found while it is read, that of a tensor beside them in a pass before. Where low-precision copies are
    what is gathered (Megatron-Core's fp8_param_gather, quantize_param_shard), a rank casts the fp32 master copies of its shard
    alone, which scaling by the tensor itself reads once more for the largest; what is left to do after the gather is to
    transpose, where products want that.
    """
    recipe, low = setup.layout.recipe, setup.stack.low_precision
    narrow, copy = low_precision_parameters(shard, setup), recipe.operand_bytes
    copies = recipe.weight_copies(transposed=setup.cluster.gpu.transposed_weights)
    _, reads = recipe.cast_reads
    moved_bytes = narrow * (reads * recipe.activation_bytes + copies * copy)
    if low.parameter_gather and not recipe.has_blocks:
        experts = low_precision_parameters(shard.only_experts, setup)
        ranks = shards(setup.layout, "optimizer"), expert_state_shards(setup.layout, "optimizer")
        owned = (narrow - experts) / ranks[0] + experts / ranks[1]
        moved_bytes = owned * (low.reads_of_a_cast * MASTER_BYTES + copy) + narrow * 2 * copy * (copies - 1)
    return MemoryBound(
        name="optimizer.quantise_weights",
        phase=OPTIMIZER,
        role=Role.CAST,
        repeats=windows(Role.PARAMETER_GATHER, setup.layout),
        moved_bytes=moved_bytes,
        kernels=4 * layers,
        family="cast",
    )


def _step(what: str, kernel: str, moved_bytes: Numeric, kernels: Numeric = 1) -> MemoryBound:
    return MemoryBound(
        name=f"optimizer.{what}",
        phase=OPTIMIZER,
        role=Role.STEP,
        kernel=kernel,
        moved_bytes=moved_bytes,
        kernels=kernels,
    )


def _all_reduce(what: str, payload_bytes: Numeric, group: ProcessGroup) -> Collective:
    return Collective(
        name=f"optimizer.{what}.all_reduce",
        phase=OPTIMIZER,
        role=Role.STEP,
        kind="all_reduce",
        payload_bytes=payload_bytes,
        group=group,
    )
