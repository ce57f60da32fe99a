"""Which layouts can exist: every refusal, with the reason and what would work instead."""

from __future__ import annotations

import numpy as np

from perfmodel.errors import InputError
from perfmodel.spec.fields import Numeric, plain
from perfmodel.spec.hardware import Cluster
from perfmodel.spec.layout import Layout
from perfmodel.spec.model import TransformerModel, divisors
from perfmodel.spec.stack import SoftwareStack


def check_layout(model: TransformerModel, cluster: Cluster, layout: Layout) -> None:
    """Raise for a layout that cannot exist (InputError), or that the GPU has no kernels for (NotSupportedError)."""
    cluster.gpu.peak(layout.precision)
    cluster.gpu.matmul(layout.precision)
    for backward in (False, True):
        cluster.gpu.attention(layout.precision, backward=backward)
    tensor = layout.tensor_parallel
    for size, what in (
        (model.attention_heads, "attention heads"),
        (model.ffn_hidden_size, "columns of the MLP (ffn_hidden_size)"),
        (model.hidden_size, "columns (hidden_size)"),
    ):
        _check_divides(tensor, size, what, key="tensor_parallel")
    if not np.all((np.remainder(model.kv_heads, tensor) == 0) | (np.remainder(tensor, model.kv_heads) == 0)):
        raise InputError(
            f"{plain(tensor)} neither divides {plain(model.kv_heads)} KV heads nor is a multiple of them", key="tensor_parallel"
        )
    _check_sequence(layout)
    if model.position == "learned" and not np.all(layout.sequence_length <= (model.max_positions or 0)):
        raise InputError(
            f"{layout.sequence_length} exceeds the {model.max_positions} learned positions of {model.name}",
            key="sequence_length",
        )
    _check_batch(layout)
    _check_pipeline(model, layout)
    _check_sharding(layout)
    _check_recompute(model, layout)
    _check_nodes(cluster, layout)


def check_stack(stack: SoftwareStack, layout: Layout) -> None:
    """Raise for a layout that the software cannot run. Errors: InputError."""
    if not stack.fused_attention and np.any(np.asarray(layout.context_parallel) > 1):
        raise InputError(
            f"attention over several ranks needs fused kernels, which {stack.name} does not run; 1 would do",
            key="context_parallel",
        )


def _check_divides(degree: Numeric, size: Numeric, what: str, *, key: str) -> None:
    if not np.all(np.remainder(size, degree) == 0):
        raise InputError(f"{plain(degree)} does not divide {plain(size)} {what}{_would(size, size)}", key=key)


def _context_degrees(layout: Layout) -> Numeric:
    """What context_parallel may divide: half of an even sequence, and what sequence parallelism leaves of it."""
    length = np.asarray(layout.sequence_length, dtype=np.int64)
    share = length // np.asarray(layout.tensor_parallel if layout.sequence_parallel else 1, dtype=np.int64)
    return np.where(length % 2 == 0, np.gcd(length // 2, share), 1)


def _would(size: Numeric, shown: Numeric) -> str:
    """What divides a single size, or nothing to say of several."""
    return f"; {', '.join(map(str, divisors(float(size))[:24]))} would" if np.ndim(size) == np.ndim(shown) == 0 else ""


def _check_batch(layout: Layout) -> None:
    data = layout.data_parallel
    if not np.all(np.remainder(layout.global_batch_size, data) == 0):
        near = (
            f"; {_nearest_multiples(layout.global_batch_size, data)} would"
            if np.ndim(layout.global_batch_size + data) == 0
            else ""
        )
        raise InputError(
            f"{plain(layout.global_batch_size)} sequences do not divide over {plain(data)} data-parallel replicas{near}",
            key="global_batch_size",
        )
    per_replica = layout.global_batch_size / data
    if not np.all(np.remainder(per_replica, layout.micro_batch_size) == 0):
        would = f"; {', '.join(map(str, divisors(float(per_replica))))} would" if np.ndim(per_replica) == 0 else ""
        raise InputError(
            f"{plain(layout.micro_batch_size)} does not divide the {plain(per_replica)} sequences of a replica{would}",
            key="micro_batch_size",
        )


def _check_sequence(layout: Layout) -> None:
    """Causal masks give the first tokens less work: each context-parallel rank takes one piece from either end."""
    context, tensor = layout.context_parallel, layout.tensor_parallel
    pieces = np.where(np.asarray(context) > 1, 2 * context, 1)
    if not np.all(np.remainder(layout.sequence_length, pieces) == 0):
        raise InputError(
            f"{plain(layout.sequence_length)} tokens of a sequence do not divide into two pieces for each of "
            f"{plain(context)} ranks{_would(_context_degrees(layout), context)}",
            key="context_parallel",
        )
    if layout.sequence_parallel:
        _check_divides(tensor, layout.sequence_length / context, "tokens of a sequence on one rank", key="tensor_parallel")


def _check_pipeline(model: TransformerModel, layout: Layout) -> None:
    pipeline, virtual = np.asarray(layout.pipeline_parallel), np.asarray(layout.virtual_pipeline)
    chunks = pipeline * virtual
    if not np.all(chunks <= model.layers + np.where(chunks > 2, 2, 0)):
        raise InputError(
            f"{plain(chunks)} pieces of the pipeline are more than {plain(model.layers)} layers, an embedding and a head",
            key="pipeline_parallel",
        )
    over = np.remainder(model.layers, chunks)
    even = (over == 0) | (over == chunks - 1) | (over == chunks - 2)  # or with head, or embedding and head, as a layer each
    if np.any((virtual > 1) & ~even):
        raise InputError(
            f"{plain(model.layers)} layers do not divide into {plain(chunks)} pieces, nor with the head, or the embedding and "
            "the head, counted as layers",
            key="virtual_pipeline",
        )
    if np.any((virtual > 1) & (pipeline == 1)):
        raise InputError(f"{plain(virtual)} pieces a stage need more than one pipeline stage", key="virtual_pipeline")
    if layout.pipeline_schedule != "1f1b":
        if np.any(pipeline == 1):
            raise InputError(f"{layout.pipeline_schedule} needs more than one pipeline stage", key="pipeline_schedule")
        if np.any(virtual > 1):
            raise InputError(f"{layout.pipeline_schedule} is not interleaved; virtual_pipeline 1 is", key="virtual_pipeline")
    elif np.any((virtual > 1) & (np.remainder(layout.micro_batches, pipeline) != 0)):
        raise InputError(
            f"{plain(layout.micro_batches)} micro-batches do not divide into groups of {plain(pipeline)}, one for each stage, "
            "as an interleaved schedule runs them; virtual_pipeline 1 would do, or another global_batch_size",
            key="virtual_pipeline",
        )


def _check_sharding(layout: Layout) -> None:
    replicas = np.asarray(layout.data_parallel_replicas)
    if layout.sharding != "hsdp" and np.any(replicas > 1):
        raise InputError(f"only hsdp keeps several copies of its shards, not {layout.sharding}", key="data_parallel_replicas")
    if layout.sharding == "hsdp" and np.any(replicas == 1):
        raise InputError(
            "hsdp with one copy of the shards is zero3; give the number of copies, often one a node",
            key="data_parallel_replicas",
        )
    if layout.sharding == "hsdp" and np.any(replicas == np.asarray(layout.data_parallel * layout.context_parallel)):
        raise InputError("hsdp with a copy for every rank shards nothing; that is none, or zero1", key="data_parallel_replicas")
    _check_divides(replicas, layout.data_parallel, "data-parallel replicas", key="data_parallel_replicas")


def _check_recompute(model: TransformerModel, layout: Layout) -> None:
    if layout.recompute_layers is None:
        return
    if layout.recompute != "full":
        raise InputError(f"it is for recompute full; this run has {layout.recompute}", key="recompute_layers")
    most = np.ceil(model.layers / layout.pipeline_parallel)
    if not np.all(layout.recompute_layers <= most):
        raise InputError(
            f"{plain(layout.recompute_layers)} is more than the {plain(most)} layers of a pipeline stage",
            key="recompute_layers",
        )


def _nearest_multiples(size: Numeric, divisor: Numeric) -> str:
    low = int(size // divisor) * int(divisor)
    return " or ".join(str(multiple) for multiple in (low, low + int(divisor)) if multiple > 0)


def _check_nodes(cluster: Cluster, layout: Layout) -> None:
    tensor, node = layout.tensor_parallel, cluster.gpus_per_node
    fits = (np.remainder(node, tensor) == 0) | (np.remainder(tensor, node) == 0)
    if not np.all(fits | (layout.gpus < node)):
        raise InputError(f"{plain(tensor)} neither divides a node of {node} GPUs nor fills whole nodes", key="tensor_parallel")
