"""How many bytes one GPU needs at the peak of an iteration, part by part, on the pipeline stage that needs most.

Parameters, gradients and optimizer states are exact; activations are what the operators keep (the fold of count/operators
over the list) times the micro-batches in flight; the rest (framework, buffers, fragmentation) comes from the software stack's
data. Ignored: the mask of the embedding's dropout, one byte a number of the stream (a thirty-fourth of one layer).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Final

import numpy as np

from perfmodel.count.blocks import Block, runs_again
from perfmodel.count.data_parallel import shards
from perfmodel.count.iteration import Iteration
from perfmodel.count.operators import Collective, Matmul, saved_bytes
from perfmodel.count.parameters import layer_parameters, low_precision_parameters
from perfmodel.count.pipeline import PipelineStage, in_flight
from perfmodel.count.roles import Role
from perfmodel.count.storage import logit_bytes, state_bytes
from perfmodel.spec.axes import AXES
from perfmodel.spec.fields import Numeric
from perfmodel.spec.layout import axis_group
from perfmodel.spec.setup import Setup

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

    def items(self) -> Iterator[tuple[str, Numeric]]:
        """Every part with its bytes."""
        return ((part.name, getattr(self, part.name)) for part in fields(self))

    @property
    def total_bytes(self) -> Numeric:
        """The sum of the parts."""
        total: Numeric = 0.0
        for part in fields(self):
            total = total + getattr(self, part.name)
        return total


def memory_bytes(work: Iteration, *, scratch: Mapping[str, Numeric] = NONE) -> MemoryBytes:
    """The peak of the worst pipeline stage; `scratch` is what a kind of collective allocates for each byte of its payload."""
    worst = stage_memory_bytes(work, work.stages.first, scratch=scratch)
    for stage in (work.stages.middle, work.stages.last):
        if np.any(stage.number) and np.any(np.asarray(work.layout.pipeline_parallel) > 1):
            other = stage_memory_bytes(work, stage, scratch=scratch)
            more = (other.total_bytes > worst.total_bytes) & (np.asarray(stage.number) > 0)
            parts = {part.name: (getattr(other, part.name), getattr(worst, part.name)) for part in fields(worst)}
            worst = MemoryBytes(**{name: np.where(more, *both) for name, both in parts.items()})
    return worst


def stage_memory_bytes(work: Iteration, stage: PipelineStage, *, scratch: Mapping[str, Numeric] = NONE) -> MemoryBytes:
    """The peak of one stage, when its backward pass begins: its micro-batches in flight, on the last stage the logits too."""
    layout, stack, held = work.layout, work.setup.stack, stage.parameters
    logits = next(op for op in work.head.forward if isinstance(op, Matmul))
    ranks = layout.tensor_parallel if stack.fusion.gathered_logits else 1
    loss = stage.head * logit_bytes(stack.fusion.loss_peak_bytes, layout) * logits.rows * logits.columns * ranks
    head = stage.head * saved_bytes(work.head.forward)
    # the loss is over when the first layer runs again: only what that needs beyond it adds to the peak
    rerun = np.maximum(_largest_rerun_bytes(work, stage) - loss - head, 0)
    activations = stage_activation_bytes(work, stage) + head + rerun
    parameters, gradients = _weights_bytes(work.setup, stage)
    states = stack.states
    return MemoryBytes(
        parameters_bytes=parameters,
        gradients_bytes=gradients,
        optimizer_bytes=held.total / shards(layout, "optimizer") * state_bytes(layout, stack).optimizer,
        activations_bytes=activations,
        loss_bytes=loss,
        scratch_bytes=np.maximum(_scratch_bytes(work, scratch) - activations - loss, 0.0),
        communication_bytes=_groups(work.setup) * states.communication_buffer_bytes,
        framework_bytes=states.framework_bytes + 0.0 * held.total,
        fragmentation_bytes=states.fragmentation * (activations + loss),
    )


def _groups(setup: Setup) -> Numeric:
    """How many kinds of groups of several ranks a GPU communicates in; ranks of an axis that another joins use its group."""
    joined = {name for axis in AXES for name in axis.joins}
    groups: Numeric = 0.0
    for axis in AXES:
        if axis.name not in joined:
            groups = groups + np.where(np.asarray(axis_group(setup.layout, axis).ranks) > 1, 1.0, 0.0)
    return groups


def _scratch_bytes(work: Iteration, scratch: Mapping[str, Numeric]) -> Numeric:
    """What the largest collective of the optimizer step allocates while it runs."""
    most: Numeric = 0.0
    for call in work.synchronisation if scratch else ():
        if isinstance(call, Collective) and call.kind in scratch:
            needs = np.where(np.asarray(call.group.ranks) > 1, scratch[call.kind] * call.payload_bytes, 0.0)
            most = np.maximum(most, needs)
    return most


def _weights_bytes(setup: Setup, stage: PipelineStage) -> tuple[Numeric, Numeric]:
    """Parameters with their low-precision copies, and gradients; of what is sharded, also what is whole at a time.

    Whole at a time are two layers, and the matrices of the vocabulary, which do not belong to a layer.
    """
    layout, recipe, held = setup.layout, setup.layout.recipe, stage.parameters
    state = state_bytes(layout, setup.stack)
    parameters: Numeric = held.total / shards(layout, "parameters") * state.parameter
    gradients: Numeric = held.total / shards(layout, "gradients") * state.gradient
    copies = 2 * recipe.operand_bytes  # a low-precision weight and its transpose
    kept = copies * low_precision_parameters(held, setup.stack.low_precision.products) if recipe.casts else 0.0
    is_gathered, is_unreduced = (np.asarray(shards(layout, part)) > 1 for part in ("parameters", "gradients"))
    if not is_gathered.any() and not is_unreduced.any():
        return parameters + kept, gradients
    layer = _largest_layer(setup, stage)
    whole = LAYERS_GATHERED * layer + held.embedding + held.positions + held.head
    gathered = whole * state.parameter
    if recipe.casts:
        gathered = gathered + copies * LAYERS_GATHERED * layer
    parameters = parameters + np.where(is_gathered, gathered, kept)
    return parameters, gradients + np.where(is_unreduced, whole, 0.0) * recipe.activation_bytes


def _largest_layer(setup: Setup, stage: PipelineStage) -> Numeric:
    """Parameters of the linears of the largest layer that a stage holds, on one GPU: what is gathered at a time."""
    most: Numeric = 0.0
    for kind, number in stage.held.every.items():
        layer = layer_parameters(setup.model, kind, tensor_parallel=setup.layout.tensor_parallel)
        most = np.maximum(most, np.where(np.asarray(number) > 0, layer.matrices, 0.0))
    return most


def stage_activation_bytes(work: Iteration, stage: PipelineStage) -> Numeric:
    """What the layers of a stage keep of all its micro-batches in flight; s*b*h*(34 + 5*a*s/h)/t a layer, unfused, once.

    Selective recompute keeps all but the scores (or what a stack forms again), full recompute the input of each layer.
    Source: arXiv:2205.05198, section 4.
    """
    kept: Numeric = 0.0
    for kind, blocks in work.layers.items():
        again = rerun_layer_bytes(work, blocks.again)
        layer = saved_bytes(blocks.again.forward)
        kept = kept + stage.held.every[kind] * (layer - again) + stage.held.plain[kind] * again
    return in_flight(work.layout, stage) * kept


def _largest_rerun_bytes(work: Iteration, stage: PipelineStage) -> Numeric:
    """Bytes that the largest layer which a stage runs again forms while it does."""
    most: Numeric = 0.0
    for kind, blocks in work.layers.items():
        reruns = np.asarray(stage.held.every[kind] - stage.held.plain[kind]) > 0
        most = np.maximum(most, np.where(reruns, rerun_layer_bytes(work, blocks.again), 0.0))
    return most


def rerun_layer_bytes(work: Iteration, layer: Block) -> Numeric:
    """What one layer forms again before its backward pass, and holds while that runs."""
    layout, selection = work.layout, work.setup.stack.fusion.selective_recompute
    saved = saved_bytes(layer.forward)
    if layout.recompute == "full":
        stream = layout.recipe.activation_bytes * layout.tokens_per_micro_batch * work.setup.model.hidden_size
        return np.maximum(saved - stream / layout.sequence_shards, 0)
    if layout.recompute == "selective" and selection == "attention":
        return saved_bytes(op for op in layer.forward if op.role is Role.SCORES) + 0.0 * saved
    chosen = runs_again(layout.recompute, selection)
    return saved_bytes(op for op in layer.forward if chosen(op)) + 0.0 * saved
