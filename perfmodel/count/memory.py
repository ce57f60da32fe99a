"""How many bytes one GPU needs at the peak of an iteration, part by part, on the pipeline stage that needs most.

Parameters, gradients and optimizer states are exact; activations are what the operators keep (the fold of count/operators
over the list) times the micro-batches in flight; the rest (framework, buffers, fragmentation) comes from the software stack's
data. Ignored: the mask of the embedding's dropout, one byte a number of the stream (a thirty-fourth of one layer).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Final

import numpy as np

from perfmodel.count.blocks import SCORES, runs_again
from perfmodel.count.data_parallel import layer_parameters, shards
from perfmodel.count.iteration import Iteration
from perfmodel.count.operators import Collective, Matmul, saved_bytes
from perfmodel.count.parameters import ParameterCount, eight_bit_parameters, stage_parameter_count
from perfmodel.count.pipeline import PipelineStage, in_flight
from perfmodel.count.storage import logit_bytes, state_bytes
from perfmodel.spec.fields import Numeric
from perfmodel.spec.layout import Layout
from perfmodel.spec.model import TransformerModel
from perfmodel.spec.stack import SoftwareStack

NONE: Final[Mapping[str, Numeric]] = MappingProxyType({})
LAYERS_GATHERED: Final = 2  # the one that runs and the one that is fetched meanwhile


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryBytes:
    """Bytes by part; they sum to the total."""

    parameters_bytes: Numeric
    gradients_bytes: Numeric
    optimizer_bytes: Numeric
    activations_bytes: Numeric
    loss_bytes: Numeric
    scratch_bytes: Numeric  # what the optimizer's collectives allocate beyond what the passes had, which is free by then
    communication_bytes: Numeric
    framework_bytes: Numeric
    fragmentation_bytes: Numeric

    @property
    def total_bytes(self) -> Numeric:
        """The sum of the parts."""
        total: Numeric = 0.0
        for part in fields(self):
            total = total + getattr(self, part.name)
        return total


def memory_bytes(
    model: TransformerModel, layout: Layout, stack: SoftwareStack, work: Iteration, *, scratch: Mapping[str, Numeric] = NONE
) -> MemoryBytes:
    """The peak of the worst pipeline stage; `scratch` is what a kind of collective allocates for each byte of its payload."""
    worst = stage_memory_bytes(model, layout, stack, work, work.stages.first, scratch=scratch)
    for stage in (work.stages.middle, work.stages.last):
        if np.any(stage.number) and np.any(np.asarray(layout.pipeline_parallel) > 1):
            other = stage_memory_bytes(model, layout, stack, work, stage, scratch=scratch)
            more = (other.total_bytes > worst.total_bytes) & (np.asarray(stage.number) > 0)
            parts = {part.name: (getattr(other, part.name), getattr(worst, part.name)) for part in fields(worst)}
            worst = MemoryBytes(**{name: np.where(more, *both) for name, both in parts.items()})
    return worst


def stage_memory_bytes(
    model: TransformerModel,
    layout: Layout,
    stack: SoftwareStack,
    work: Iteration,
    stage: PipelineStage,
    *,
    scratch: Mapping[str, Numeric] = NONE,
) -> MemoryBytes:
    """The peak of one stage, when its backward pass begins: its micro-batches in flight, on the last stage the logits too."""
    held = stage_parameter_count(model, stage, tensor_parallel=layout.tensor_parallel)
    logits = next(op for op in work.head.forward if isinstance(op, Matmul))
    ranks = layout.tensor_parallel if stack.gathered_logits else 1
    loss = stage.head * logit_bytes(stack.loss_peak_bytes, layout) * logits.rows * logits.columns * ranks
    head = stage.head * saved_bytes(work.head.forward)
    # the loss is over when the first layer runs again: only what that needs beyond it adds to the peak
    again = np.where(
        np.asarray(stage.layers - work.plain(stage.layers)) > 0, rerun_layer_bytes(model, layout, stack, work), 0.0
    )
    rerun = np.maximum(again - loss - head, 0)
    activations = stage_activation_bytes(model, layout, stack, work, stage) + head + rerun
    degrees = (layout.tensor_parallel, layout.data_parallel * layout.context_parallel, layout.pipeline_parallel)
    groups: Numeric = 0.0
    for degree in degrees:
        groups = groups + np.where(np.asarray(degree) > 1, 1.0, 0.0)
    parameters, gradients = _weights_bytes(model, layout, stack, stage, held)
    return MemoryBytes(
        parameters_bytes=parameters,
        gradients_bytes=gradients,
        optimizer_bytes=held.total / shards(layout, "optimizer") * state_bytes(layout, stack).optimizer,
        activations_bytes=activations,
        loss_bytes=loss,
        scratch_bytes=np.maximum(_scratch_bytes(work, scratch) - activations - loss, 0.0),
        communication_bytes=groups * stack.communication_buffer_bytes,
        framework_bytes=stack.framework_bytes + 0.0 * held.total,
        fragmentation_bytes=stack.fragmentation * (activations + loss),
    )


def _scratch_bytes(work: Iteration, scratch: Mapping[str, Numeric]) -> Numeric:
    """What the largest collective of the optimizer step allocates while it runs."""
    most: Numeric = 0.0
    for call in work.synchronisation if scratch else ():
        if isinstance(call, Collective) and call.kind in scratch:
            needs = np.where(np.asarray(call.group.ranks) > 1, scratch[call.kind] * call.payload_bytes, 0.0)
            most = np.maximum(most, needs)
    return most


def _weights_bytes(
    model: TransformerModel, layout: Layout, stack: SoftwareStack, stage: PipelineStage, held: ParameterCount
) -> tuple[Numeric, Numeric]:
    """Parameters with their 8-bit copies, and gradients; of what is sharded, also what is whole at a time.

    Whole at a time are two layers, and the matrices of the vocabulary, which do not belong to a layer.
    """
    state = state_bytes(layout, stack)
    parameters: Numeric = held.total / shards(layout, "parameters") * state.parameter
    gradients: Numeric = held.total / shards(layout, "gradients") * state.gradient
    kept = 2 * eight_bit_parameters(held, stack.fp8_products) if layout.precision == "fp8" else 0.0
    is_gathered, is_unreduced = (np.asarray(shards(layout, part)) > 1 for part in ("parameters", "gradients"))
    if not is_gathered.any() and not is_unreduced.any():
        return parameters + kept, gradients
    whole = LAYERS_GATHERED * layer_parameters(model, layout, stage) + held.embedding + held.positions + held.head
    gathered = whole * state.parameter
    if layout.precision == "fp8":  # 8-bit weights and their transposes
        gathered = gathered + 2 * LAYERS_GATHERED * layer_parameters(model, layout, stage)
    parameters = parameters + np.where(is_gathered, gathered, kept)
    return parameters, gradients + np.where(is_unreduced, whole, 0.0) * layout.activation_bytes


def stage_activation_bytes(
    model: TransformerModel, layout: Layout, stack: SoftwareStack, work: Iteration, stage: PipelineStage
) -> Numeric:
    """What the layers of a stage keep of all its micro-batches in flight; s*b*h*(34 + 5*a*s/h)/t a layer, unfused, once.

    Selective recompute keeps all but the scores (or what a stack forms again), full recompute the input of each layer.
    Source: arXiv:2205.05198, section 4.
    """
    again = rerun_layer_bytes(model, layout, stack, work)
    layer = saved_bytes(work.layer.forward)
    plain = work.plain(stage.layers)
    return in_flight(layout, stage) * (stage.layers * (layer - again) + plain * again)


def rerun_layer_bytes(model: TransformerModel, layout: Layout, stack: SoftwareStack, work: Iteration) -> Numeric:
    """What one layer forms again before its backward pass, and holds while that runs."""
    layer = saved_bytes(work.layer.forward)
    if layout.recompute == "full":
        layer_input = layout.activation_bytes * layout.tokens_per_micro_batch * model.hidden_size / layout.sequence_shards
        return np.maximum(layer - layer_input, 0)
    if layout.recompute == "selective" and stack.selective_recompute == "attention":
        return saved_bytes(op for op in work.layer.forward if op.name in SCORES) + 0.0 * layer
    chosen = runs_again(layout.recompute, stack.selective_recompute)
    return saved_bytes(op for op in work.layer.forward if chosen(op)) + 0.0 * layer
