"""What data parallelism moves: gradients to be added up, parameters to be handed round; cut into buckets or into layers.

                 gradients                                        parameters
    none         all-reduce, once an iteration                    -
    zero1        reduce-scatter, once                             all-gather, once
    zero2        reduce-scatter, every micro-batch                all-gather, once
    zero3        reduce-scatter, every micro-batch                all-gather, every forward pass and every backward pass
    hsdp         the same among the ranks of a shard group, and an all-reduce of each shard over the copies

With pipeline stages, zero2, zero3 and hsdp also move both once: parameters stay gathered, and gradients whole, over the
micro-batches (PyTorch, torch.distributed.pipelining and reshard_after_forward=False).

Buckets (Megatron-Core, DistributedDataParallelConfig): parameters are grouped, last layer first, into buckets of at least
max(bucket_parameters, bucket_parameters_per_rank * data_parallel) parameters and each bucket is reduced, and later gathered, on
its own. What is gathered for each pass (zero3, hsdp) goes layer by layer. XLA joins all-reduces over the copies of hsdp until
they move so many bytes (xla_gpu_all_reduce_combine_threshold_bytes).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from perfmodel.count.memory.storage import state_bytes
from perfmodel.count.operators import Collective
from perfmodel.count.parameters import ParameterCount, low_precision_parameters, mean_excess, shard_parameter_count
from perfmodel.count.roles import Role
from perfmodel.count.tuning.trained import tuned_wire_bytes
from perfmodel.light_dataclass import dataclass, replace
from perfmodel.spec.fields import Numeric, anywhere, chosen
from perfmodel.spec.layout import (
    GATHERED,
    Layout,
    data_parallel_group,
    expert_data_parallel_group,
    replica_group,
    shard_group,
)
from perfmodel.spec.phases import OPTIMIZER
from perfmodel.spec.setup import Setup

NAMES: Final = {
    Role.GRADIENT_REDUCTION: "optimizer.reduce_gradients",
    Role.REPLICA_REDUCTION: "optimizer.reduce_gradients_over_replicas",
    Role.PARAMETER_GATHER: "optimizer.gather_parameters",
    Role.BACKWARD_GATHER: "optimizer.gather_parameters_again",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Buckets:
    """How the parameters of one GPU are grouped for the data-parallel collectives; shares are of all its parameters."""

    count: Numeric
    share: Numeric  # of one full bucket
    uncut_share: Numeric  # of the embeddings, which end the last bucket: tensors are never cut; of what they are moved with
    of_experts: Numeric  # how many of the same size hold the experts


def buckets(setup: Setup, held: ParameterCount) -> Buckets:
    """count = ceil(P / size) of buckets of a layer each, or of buckets that tensors fill (_filled).

    `held` are the P parameters of the first pipeline stage, the last to have its gradients and the first to need its
    parameters. Where the rule is `layer`, or parameters are gathered for each pass, size is that of a layer, and software may
    move the head with the embedding, before the first layer and behind the last gradient (PyTorch, fully_shard of a model
    whose blocks are sharded one by one).

    >>> from perfmodel.count.iteration import iteration
    >>> from perfmodel.exchange.run_files import read_candidates
    >>> run = read_candidates("nemotron-4-15b")[0].run
    >>> [int(iteration(run.setup(stage)).buckets.count) for stage in run.stages]
    [17, 10, 7]
    """
    model, layout, overlap = setup.model, setup.layout, setup.stack.overlap
    if overlap.bucket_rule == "layer" or layout.sharding in GATHERED:
        every = shard_parameter_count(model, tensor_parallel=layout.tensor_parallel)
        size = (every.non_embedding - every.experts) / model.layers
    elif overlap.blocks(layout.sharding):
        size = held.total
    else:
        return _filled(setup, held)
    found = _of_sizes(held, held.shared, size, size)
    return replace(found, uncut_share=found.uncut_share + held.head / held.shared) if overlap.shared_root else found


def _filled(setup: Setup, held: ParameterCount) -> Buckets:
    """ceil((P - m) / (size + e)) buckets of size = max(bucket_parameters, bucket_parameters_per_rank * data_parallel) or more.

    A bucket ends with the tensor that fills it, of which e (mean_excess) lies beyond on average; m is what the matrices of the
    vocabulary, a bucket each at most, have beyond the size. Source: NVIDIA/Megatron-LM, param_and_grad_buffer.py; e = m = 0 for
    software that ends a bucket before that tensor.
    """
    overlap, layout = setup.stack.overlap, setup.layout
    ranks = data_parallel_group(layout).ranks
    size = np.maximum(overlap.bucket_parameters, overlap.bucket_parameters_per_rank * ranks)
    if not overlap.overfills_buckets:
        return _of_sizes(held, held.shared, size, size)
    beyond = np.maximum(held.embedding - size, 0.0) + np.maximum(held.head - size, 0.0)
    dense, routed = (size + mean_excess(setup.model, layout, routed=each) for each in (False, True))
    return _of_sizes(held, held.shared - beyond, dense, routed)


def _of_sizes(held: ParameterCount, counted: Numeric, size: Numeric, of_experts: Numeric) -> Buckets:
    """Buckets of such sizes, of all but the experts and of these, for so many parameters that fill the former."""
    return Buckets(
        count=np.ceil(counted / size),
        share=np.minimum(size / held.shared, 1.0),
        uncut_share=(held.embedding + held.positions) / held.shared,
        of_experts=np.maximum(np.ceil(held.experts / of_experts), 1),
    )


def windows(role: Role, layout: Layout) -> Numeric:
    """How often an iteration moves all that a collective of this role moves: once, or for every micro-batch.

    >>> from dataclasses import replace
    >>> from perfmodel.exchange.run_files import read_candidates
    >>> run = read_candidates("nemotron-4-15b")[0].run
    >>> layout = replace(run.layout(run.stages[-1]), sharding="zero2", micro_batch_size=1)
    >>> [int(windows(role, layout)) for role in (Role.GRADIENT_REDUCTION, Role.PARAMETER_GATHER)]
    [4, 1]
    """
    if layout.sharding in ("none", "zero1") or (layout.sharding == "zero2" and role is Role.PARAMETER_GATHER):
        return 1
    return chosen(layout.pipeline_parallel > 1, 1, layout.micro_batches)


def gathered_bytes(held: ParameterCount, setup: Setup) -> Numeric:
    """Size of parameters on the wire: those that travel as low-precision copies take the bytes of an operand each.

    Copies with scales of blocks do not travel: there would be two of each (Megatron-Core, reuse_grad_buf_for_mxfp8_param_ag).
    """
    if setup.tuning is not None:
        return tuned_wire_bytes(setup, held, setup.tuning).gathered
    recipe, low = setup.layout.recipe, setup.stack.low_precision
    each = state_bytes(setup.layout, setup.stack).parameter
    if not recipe.casts or not low.parameter_gather or recipe.has_blocks:
        return held.total * each
    narrow = low_precision_parameters(held, setup)
    return (held.total - narrow) * each + narrow * recipe.operand_bytes


def data_parallel_operators(setup: Setup, held: ParameterCount, bucket: Buckets) -> tuple[Collective, ...]:
    """The collectives of the first pipeline stage, which holds `held`, in one iteration; those of experts follow the others.

    Experts lie in buckets of the same size, and are reduced and gathered over the ranks that hold the same ones.
    """
    calls = _moved(setup, replace(held, experts=0), bucket.count)
    if not anywhere(np.asarray(held.experts) > 0):
        return calls
    has_experts = 1 * (np.asarray(held.experts) > 0)
    of_experts = _moved(setup, held.only_experts, bucket.of_experts)
    return (*calls, *(_of_experts(call, setup.layout, has_experts) for call in of_experts))


def _of_experts(call: Collective, layout: Layout, has_experts: Numeric) -> Collective:
    """The same call over the ranks that hold the same experts; never made where a stage has none."""
    group = expert_data_parallel_group(layout)
    if layout.sharding == "hsdp":
        copies = np.minimum(layout.data_parallel_replicas, group.ranks)
        replicated = call.role is Role.REPLICA_REDUCTION
        group = replace(
            group,
            name=f"{group.name}_{'replicas' if replicated else 'shards'}",
            ranks=copies if replicated else group.ranks / copies,
        )
    return replace(call, name=f"{call.name}_of_experts", group=group, repeats=call.repeats * has_experts)


def _moved(setup: Setup, held: ParameterCount, number: Numeric) -> tuple[Collective, ...]:
    """The collectives of some parameters in `number` buckets, over the data-parallel ranks."""
    layout = setup.layout
    stack = setup.stack
    whole = layout.sharding == "zero1" and (stack.overlap.blocking_zero1 or not stack.states.scatters_gradients)
    gather = Collective(
        name=NAMES[Role.PARAMETER_GATHER],
        role=Role.PARAMETER_GATHER,
        phase=OPTIMIZER,
        kind="all_gather",
        payload_bytes=gathered_bytes(held, setup) / number,
        repeats=number * windows(Role.PARAMETER_GATHER, layout),
        group=shard_group(layout),
    )
    reduction = replace(
        gather,
        name=NAMES[Role.GRADIENT_REDUCTION],
        role=Role.GRADIENT_REDUCTION,
        kind="all_reduce" if layout.sharding == "none" or whole else "reduce_scatter",
        payload_bytes=_reduced_bytes(setup, held) / number,
        repeats=number * windows(Role.GRADIENT_REDUCTION, layout),
    )
    if layout.sharding == "none":
        return (replace(reduction, group=data_parallel_group(layout)),)
    if layout.sharding not in GATHERED:
        return (reduction, gather)
    return _gathered(setup, reduction, gather, number)


def _reduced_bytes(setup: Setup, held: ParameterCount) -> Numeric:
    """Size of all gradients on the wire: of a fine-tuning those of what it trains."""
    if setup.tuning is not None:
        return tuned_wire_bytes(setup, held, setup.tuning).reduced
    return held.total * state_bytes(setup.layout, setup.stack).reduced_gradient


def _gathered(setup: Setup, reduction: Collective, gather: Collective, number: Numeric) -> tuple[Collective, ...]:
    """Parameters for both passes; in a pipeline, or where a stack does not gather them again, they stay after the forward.

    What `number` calls move once over the copies of hsdp is moved by as many, or by those that software joins them to.
    """
    layout = setup.layout
    stays = not setup.stack.states.regathers_parameters
    repeats = chosen((layout.pipeline_parallel > 1) | stays, 0, gather.repeats)
    again = replace(gather, name=NAMES[Role.BACKWARD_GATHER], role=Role.BACKWARD_GATHER, repeats=repeats)
    if layout.sharding != "hsdp":
        return (reduction, gather, again)
    shard_bytes = reduction.payload_bytes / reduction.group.ranks
    joined = joined_reductions(setup, shard_bytes * number, number) / number
    over = replace(
        reduction,
        name=NAMES[Role.REPLICA_REDUCTION],
        role=Role.REPLICA_REDUCTION,
        kind="all_reduce",
        payload_bytes=shard_bytes / joined,
        repeats=reduction.repeats * joined,
        group=replica_group(layout),
    )
    return (reduction, over, gather, again)


def joined_reductions(setup: Setup, all_bytes: Numeric, number: Numeric) -> Numeric:
    """min(ceil(n / b), N): how many all-reduces over the copies of hsdp move n bytes that N calls moved, b bytes at most each.

    b is the lesser of so many bytes and of so many for each copy; software with b = 0 leaves its N calls apart.
    """
    overlap = setup.stack.overlap
    if not anywhere(overlap.joined_reduction_bytes):
        return number
    most = np.minimum(
        overlap.joined_reduction_bytes, overlap.joined_reduction_bytes_per_copy * setup.layout.data_parallel_replicas
    )
    joined = np.ceil(all_bytes / np.maximum(most, 1.0))  # of a byte at least: where b = 0, more than there are calls
    return np.minimum(np.maximum(joined, 1.0), number)


def shards(layout: Layout, part: str) -> Numeric:
    """Over how many GPUs one part of the state of a model is spread: optimizer, gradients or parameters; its experts apart.

    >>> from dataclasses import replace
    >>> from perfmodel.exchange.run_files import read_candidates
    >>> run = read_candidates("nemotron-4-15b")[0].run
    >>> layout = replace(run.layout(run.stages[0]), sharding="zero2")
    >>> [int(shards(layout, part)) for part in ("optimizer", "gradients", "parameters")]
    [96, 96, 1]
    """
    return _spread(layout, part, lambda: shard_group(layout).ranks)


def expert_state_shards(layout: Layout, part: str) -> Numeric:
    """The same of experts: over the ranks that hold the same ones, of which there may be a single one."""
    return _spread(layout, part, lambda: np.maximum(layout.expert_data_parallel / layout.data_parallel_replicas, 1))


def owned_parameters(held: ParameterCount, layout: Layout, part: str) -> Numeric:
    """Parameters of which a GPU keeps one part of their state."""
    alike = held.shared / shards(layout, part)
    has_experts = anywhere(np.asarray(held.experts) > 0)
    return alike + held.experts / expert_state_shards(layout, part) if has_experts else alike


def _spread(layout: Layout, part: str, ranks: Callable[[], Numeric]) -> Numeric:
    """Over how many of some ranks a part is spread, which are counted where it is."""
    sharded = {
        "none": (),
        "zero1": ("optimizer",),
        "zero2": ("optimizer", "gradients"),
    }.get(layout.sharding, ("optimizer", "gradients", "parameters"))
    if part not in sharded:
        return 1
    if part == "optimizer":
        return ranks()
    return chosen(layout.pipeline_parallel > 1, 1, ranks())
