"""What an iteration does once, after its micro-batches: reduce gradients, step the optimizer, gather parameters.

Buckets (Megatron-Core, DistributedDataParallelConfig): parameters are grouped, last layer first, into buckets of
max(bucket_parameters, bucket_parameters_per_rank * data_parallel) and each bucket is reduced, and later gathered, on its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perfmodel.count.operators import OPTIMIZER, Collective, MemoryBound, Operator
from perfmodel.count.parameters import ParameterCount, shard_parameter_count
from perfmodel.spec.fields import Numeric
from perfmodel.spec.layout import Layout, data_parallel_group, tensor_parallel_group, world_group
from perfmodel.spec.model import TransformerModel
from perfmodel.spec.stack import SoftwareStack

GRADIENT_REDUCTION = "optimizer.reduce_gradients"
PARAMETER_GATHER = "optimizer.gather_parameters"


@dataclass(frozen=True, slots=True, kw_only=True)
class Buckets:
    """How the parameters of one GPU are grouped for the data-parallel collectives; shares are of all its parameters."""

    count: Numeric
    share: Numeric  # of one full bucket
    uncut_share: Numeric  # of the embeddings, which end the last bucket: tensors are never cut


def buckets(model: TransformerModel, layout: Layout, stack: SoftwareStack) -> Buckets:
    """count = ceil(P / size) of buckets of max(bucket_parameters, bucket_parameters_per_rank * data_parallel) parameters.

    Where the rule is `layer`, size is that of a layer, and the embeddings fill as many buckets as they have room for.

    >>> from perfmodel.exchange.run_files import read_candidates
    >>> run = read_candidates("nemotron-4-15b")[0].run
    >>> [int(buckets(run.model, run.layout(stage), run.stack).count) for stage in run.stages]
    [21, 11, 7]
    """
    shard = shard_parameter_count(model, tensor_parallel=layout.tensor_parallel)
    if stack.bucket_rule == "layer":
        size = shard.non_embedding / model.layers
    else:
        size = np.maximum(stack.bucket_parameters, stack.bucket_parameters_per_rank * layout.data_parallel)
    return Buckets(
        count=np.ceil(shard.total / size),
        share=np.minimum(size / shard.total, 1.0),
        uncut_share=(shard.embedding + shard.positions) / shard.total,
    )


def optimizer_shards(layout: Layout) -> Numeric:
    """Over how many GPUs the optimizer states of one shard of the parameters are spread."""
    return 1 if layout.sharding == "none" else layout.data_parallel


def synchronisation_operators(model: TransformerModel, layout: Layout, stack: SoftwareStack) -> tuple[Operator, ...]:
    """The operators of one optimizer step, collectives cut into buckets."""
    shard = shard_parameter_count(model, tensor_parallel=layout.tensor_parallel)
    number = buckets(model, layout, stack).count
    group = data_parallel_group(layout)
    gradient_bytes = shard.total * stack.gradient_bytes
    reduction = Collective(
        name=GRADIENT_REDUCTION,
        phase=OPTIMIZER,
        kind="all_reduce" if layout.sharding == "none" else "reduce_scatter",
        payload_bytes=gradient_bytes / number,
        repeats=number,
        group=group,
    )
    gather = Collective(
        name=PARAMETER_GATHER,
        phase=OPTIMIZER,
        kind="all_gather",
        payload_bytes=shard.total * stack.parameter_bytes / number,
        repeats=number,
        group=group,
    )
    steps = (reduction, *_steps(model, layout, stack, shard))
    return steps if layout.sharding == "none" else (*steps, gather)


def _steps(model: TransformerModel, layout: Layout, stack: SoftwareStack, shard: ParameterCount) -> tuple[Operator, ...]:
    """Scale, norm, Adam, zero; the norm is one number over all GPUs, and sequence-parallel norms add up their gradients.

    Ignored: the gradients of row-parallel biases, which are added up with those of the norms (2 * h numbers a layer).
    """
    owned = shard.total / optimizer_shards(layout)
    gradient_bytes = shard.total * stack.gradient_bytes
    adam = owned * (4 + 2 * stack.optimizer_bytes + stack.parameter_bytes)  # reads a gradient, reads and writes the states
    steps: list[Operator] = [
        MemoryBound(name="optimizer.scale_gradients", phase=OPTIMIZER, moved_bytes=2 * gradient_bytes),
        MemoryBound(name="optimizer.gradient_norm", phase=OPTIMIZER, moved_bytes=owned * stack.gradient_bytes, kernels=2),
        Collective(
            name="optimizer.gradient_norm.all_reduce",
            phase=OPTIMIZER,
            kind="all_reduce",
            payload_bytes=4.0,
            group=world_group(layout),
        ),
        MemoryBound(name="optimizer.adam", phase=OPTIMIZER, family="optimizer", moved_bytes=adam, kernels=4),
        MemoryBound(name="optimizer.zero_gradients", phase=OPTIMIZER, moved_bytes=gradient_bytes),
    ]
    if layout.sequence_parallel:
        steps.append(
            Collective(
                name="optimizer.norm_gradients.all_reduce",
                phase=OPTIMIZER,
                kind="all_reduce",
                payload_bytes=shard.norms * stack.gradient_bytes,
                group=tensor_parallel_group(layout),
            )
        )
    if layout.precision == "fp8":
        cast = (shard.attention + shard.mlp) * 4  # reads 2 bytes, writes an 8-bit copy and its transpose
        steps.append(
            MemoryBound(
                name="optimizer.quantise_weights",
                phase=OPTIMIZER,
                moved_bytes=cast,
                kernels=4 * model.layers,
                family="cast",
            )
        )
    return tuple(steps)
