"""What an iteration does once, after its micro-batches: step the optimizer, beside what data parallelism moves."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

import numpy as np

from perfmodel.count.data_parallel import PARAMETER_GATHER, data_parallel_operators, shards, windows
from perfmodel.count.operators import Collective, MemoryBound, Operator
from perfmodel.count.parameters import ParameterCount, eight_bit_parameters, most_parameters, stage_parameter_count
from perfmodel.count.pipeline import pipeline_stages
from perfmodel.count.storage import state_bytes
from perfmodel.spec.fields import Numeric
from perfmodel.spec.layout import (
    Layout,
    ProcessGroup,
    tensor_parallel_group,
    vocabulary_group,
    world_group,
)
from perfmodel.spec.model import TransformerModel
from perfmodel.spec.phases import OPTIMIZER
from perfmodel.spec.stack import SoftwareStack


def synchronisation_operators(model: TransformerModel, layout: Layout, stack: SoftwareStack) -> tuple[Operator, ...]:
    """The operators of one optimizer step, on the pipeline stage with the most parameters; collectives cut into buckets."""
    stages = pipeline_stages(model, layout, stack)
    present = [np.where(np.asarray(stage.number) > 0, 1.0, 0.0) for stage in stages]
    counts = [stage_parameter_count(model, stage, tensor_parallel=layout.tensor_parallel) for stage in stages]
    most = most_parameters([count.times(there) for count, there in zip(counts, present, strict=True)])
    layers = reduce(np.maximum, (stage.layers * there for stage, there in zip(stages, present, strict=True)))
    reduction, *rest = data_parallel_operators(model, layout, stack)
    return (reduction, *_steps(model, layout, stack, most, layers), *rest)


def _steps(
    model: TransformerModel, layout: Layout, stack: SoftwareStack, shard: ParameterCount, layers: Numeric
) -> tuple[Operator, ...]:
    """Scale, norm, Adam, zero; the norm is one number over all GPUs, and sequence-parallel norms add up their gradients.

    Row-parallel biases, two a layer, were added to those tokens alone too: their gradients travel with those of the norms.
    Copies of tied embeddings on both ends of a pipeline add up theirs.
    """
    owned = shard.total / shards(layout, "optimizer")
    state = state_bytes(layout, stack)
    gradient_bytes = shard.total / shards(layout, "gradients") * state.gradient
    vocabulary = model.padded_vocab_size(layout.tensor_parallel) * model.hidden_size / layout.tensor_parallel
    steps: list[Operator] = [
        _all_reduce("embedding_gradients", vocabulary * state.gradient, vocabulary_group(layout, tied=model.tied_embeddings)),
        _step("scale_gradients", "scale", 2 * gradient_bytes),
        _step("gradient_norm", "square_sum", owned * state.gradient, kernels=2),
        _all_reduce("gradient_norm", 4.0, world_group(layout)),
        replace(_step("adam", "adam", owned * state.adam, kernels=4), family="optimizer", precision=layout.wide_precision),
        *(() if stack.overwrites_gradients else (_step("zero_gradients", "zero", gradient_bytes),)),
    ]
    if layout.sequence_parallel:
        numbers = shard.norms + 2 * model.hidden_size * layers if model.biases else shard.norms
        steps.append(_all_reduce("norm_gradients", numbers * state.gradient, tensor_parallel_group(layout)))
    if layout.precision == "fp8":
        cast = eight_bit_parameters(shard, stack.fp8_products) * 4  # reads 2 bytes, writes an 8-bit copy and its transpose
        again = windows(PARAMETER_GATHER, layout)  # what is gathered anew is cast anew
        steps.append(
            MemoryBound(
                name="optimizer.quantise_weights",
                phase=OPTIMIZER,
                repeats=again,
                moved_bytes=cast,
                kernels=4 * layers,
                family="cast",
            )
        )
    return tuple(steps)


def _step(what: str, kernel: str, moved_bytes: Numeric, kernels: int = 1) -> MemoryBound:
    return MemoryBound(name=f"optimizer.{what}", phase=OPTIMIZER, kernel=kernel, moved_bytes=moved_bytes, kernels=kernels)


def _all_reduce(what: str, payload_bytes: Numeric, group: ProcessGroup) -> Collective:
    return Collective(
        name=f"optimizer.{what}.all_reduce", phase=OPTIMIZER, kind="all_reduce", payload_bytes=payload_bytes, group=group
    )
