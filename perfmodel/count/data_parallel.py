"""What data parallelism moves: gradients to be added up, parameters to be handed round; cut into buckets or into layers.

                 gradients                                        parameters
    none         all-reduce, once an iteration                    -
    zero1        reduce-scatter, once                             all-gather, once
    zero2        reduce-scatter, every micro-batch                all-gather, once
    zero3        reduce-scatter, every micro-batch                all-gather, every forward pass and every backward pass
    hsdp         the same among the ranks of a shard group, and an all-reduce of each shard over the copies

With pipeline stages, zero2, zero3 and hsdp also move both once: parameters stay gathered, and gradients whole, over the
micro-batches (PyTorch, torch.distributed.pipelining and reshard_after_forward=False).

Buckets (Megatron-Core, DistributedDataParallelConfig): parameters are grouped, last layer first, into buckets of
max(bucket_parameters, bucket_parameters_per_rank * data_parallel) parameters and each bucket is reduced, and later gathered, on
its own. What is gathered for each pass (zero3, hsdp) goes layer by layer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from perfmodel.count.operators import Collective
from perfmodel.count.parameters import (
    ParameterCount,
    eight_bit_parameters,
    shard_parameter_count,
    stage_parameter_count,
)
from perfmodel.count.pipeline import PipelineStage, pipeline_stages
from perfmodel.count.storage import state_bytes
from perfmodel.spec.fields import Numeric
from perfmodel.spec.layout import GATHERED, Layout, data_parallel_group, replica_group, shard_group
from perfmodel.spec.model import TransformerModel
from perfmodel.spec.phases import OPTIMIZER
from perfmodel.spec.stack import SoftwareStack

GRADIENT_REDUCTION: Final = "optimizer.reduce_gradients"
REPLICA_REDUCTION: Final = "optimizer.reduce_gradients_over_replicas"
PARAMETER_GATHER: Final = "optimizer.gather_parameters"
BACKWARD_GATHER: Final = "optimizer.gather_parameters_again"
DATA_PARALLEL: Final = (GRADIENT_REDUCTION, REPLICA_REDUCTION, PARAMETER_GATHER, BACKWARD_GATHER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Buckets:
    """How the parameters of one GPU are grouped for the data-parallel collectives; shares are of all its parameters."""

    count: Numeric
    share: Numeric  # of one full bucket
    uncut_share: Numeric  # of the embeddings, which end the last bucket: tensors are never cut


def first_stage_parameters(model: TransformerModel, layout: Layout, stack: SoftwareStack) -> ParameterCount:
    """Those of the first pipeline stage: the last to have its gradients and the first to need its parameters."""
    first = pipeline_stages(model, layout, stack).first
    return stage_parameter_count(model, first, tensor_parallel=layout.tensor_parallel)


def buckets(model: TransformerModel, layout: Layout, stack: SoftwareStack) -> Buckets:
    """count = ceil(P / size) of buckets of max(bucket_parameters, bucket_parameters_per_rank * data_parallel) parameters.

    Where the rule is `layer`, or parameters are gathered for each pass, size is that of a layer.

    >>> from perfmodel.exchange.run_files import read_candidates
    >>> run = read_candidates("nemotron-4-15b")[0].run
    >>> [int(buckets(run.model, run.layout(stage), run.stack).count) for stage in run.stages]
    [21, 11, 7]
    """
    shard = first_stage_parameters(model, layout, stack)
    if stack.bucket_rule == "layer" or layout.sharding in GATHERED:
        size = shard_parameter_count(model, tensor_parallel=layout.tensor_parallel).non_embedding / model.layers
    else:
        size = np.maximum(stack.bucket_parameters, stack.bucket_parameters_per_rank * data_parallel_group(layout).ranks)
    return Buckets(
        count=np.ceil(shard.total / size),
        share=np.minimum(size / shard.total, 1.0),
        uncut_share=(shard.embedding + shard.positions) / shard.total,
    )


def windows(name: str, layout: Layout) -> Numeric:
    """How often an iteration moves all that one of DATA_PARALLEL moves: once, or for every micro-batch.

    >>> from dataclasses import replace
    >>> from perfmodel.exchange.run_files import read_candidates
    >>> run = read_candidates("nemotron-4-15b")[0].run
    >>> layout = replace(run.layout(run.stages[-1]), sharding="zero2", micro_batch_size=1)
    >>> [int(windows(name, layout)) for name in (GRADIENT_REDUCTION, PARAMETER_GATHER)]
    [4, 1]
    """
    if layout.sharding in ("none", "zero1") or (layout.sharding == "zero2" and name == PARAMETER_GATHER):
        return 1
    return np.where(np.asarray(layout.pipeline_parallel) > 1, 1, layout.micro_batches)


def gathered_bytes(held: ParameterCount, layout: Layout, stack: SoftwareStack) -> Numeric:
    """Size of parameters on the wire: a byte each for those that travel as 8-bit copies."""
    each = state_bytes(layout, stack).parameter
    if layout.precision != "fp8" or not stack.fp8_parameter_gather:
        return held.total * each
    eight_bit = eight_bit_parameters(held, stack.fp8_products)
    return (held.total - eight_bit) * each + eight_bit


def data_parallel_operators(model: TransformerModel, layout: Layout, stack: SoftwareStack) -> tuple[Collective, ...]:
    """The collectives of the first pipeline stage in one iteration."""
    held = first_stage_parameters(model, layout, stack)
    number = buckets(model, layout, stack).count
    whole = layout.sharding == "zero1" and not stack.scatters_gradients
    gather = Collective(
        name=PARAMETER_GATHER,
        phase=OPTIMIZER,
        kind="all_gather",
        payload_bytes=gathered_bytes(held, layout, stack) / number,
        repeats=number * windows(PARAMETER_GATHER, layout),
        group=shard_group(layout),
    )
    reduction = replace(
        gather,
        name=GRADIENT_REDUCTION,
        kind="all_reduce" if layout.sharding == "none" or whole else "reduce_scatter",
        payload_bytes=held.total * state_bytes(layout, stack).reduced_gradient / number,
        repeats=number * windows(GRADIENT_REDUCTION, layout),
    )
    if layout.sharding == "none":
        return (replace(reduction, group=data_parallel_group(layout)),)
    if layout.sharding not in GATHERED:
        return (reduction, gather)
    return _gathered(layout, reduction, gather)


def _gathered(layout: Layout, reduction: Collective, gather: Collective) -> tuple[Collective, ...]:
    """Parameters for both passes; in a pipeline they stay after the forward pass."""
    again = replace(gather, name=BACKWARD_GATHER, repeats=np.where(np.asarray(layout.pipeline_parallel) > 1, 0, gather.repeats))
    if layout.sharding != "hsdp":
        return (reduction, gather, again)
    over = replace(
        reduction,
        name=REPLICA_REDUCTION,
        kind="all_reduce",
        payload_bytes=reduction.payload_bytes / reduction.group.ranks,
        group=replica_group(layout),
    )
    return (reduction, over, gather, again)


def shards(layout: Layout, part: str) -> Numeric:
    """Over how many GPUs one part of the state of a model is spread: optimizer, gradients or parameters.

    >>> from dataclasses import replace
    >>> from perfmodel.exchange.run_files import read_candidates
    >>> run = read_candidates("nemotron-4-15b")[0].run
    >>> layout = replace(run.layout(run.stages[0]), sharding="zero2")
    >>> [int(shards(layout, part)) for part in ("optimizer", "gradients", "parameters")]
    [96, 96, 1]
    """
    sharded = {
        "none": (),
        "zero1": ("optimizer",),
        "zero2": ("optimizer", "gradients"),
    }.get(layout.sharding, ("optimizer", "gradients", "parameters"))
    if part not in sharded:
        return 1
    ranks = shard_group(layout).ranks
    if part == "optimizer":
        return ranks
    return np.where(np.asarray(layout.pipeline_parallel) > 1, 1, ranks)


def layer_parameters(model: TransformerModel, layout: Layout, stage: PipelineStage) -> Numeric:
    """Those of one layer on one GPU: what is gathered at a time."""
    shard = stage_parameter_count(model, stage, tensor_parallel=layout.tensor_parallel)
    return (shard.attention + shard.mlp) / np.maximum(stage.layers, 1)
