"""How many bytes one GPU needs at the peak of an iteration, part by part, on the pipeline stage that needs most.

Parameters, gradients and optimizer states are exact; activations are what the operators keep (the fold of count/operators
over the list) times the micro-batches in flight; the rest (framework, buffers, fragmentation) comes from the software stack's
data. Ignored: the mask of the embedding's dropout, one byte a number of the stream (a thirty-fourth of one layer).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from types import MappingProxyType
from typing import Final

import numpy as np

from perfmodel.count.data_parallel import owned_parameters, shards
from perfmodel.count.declarations import expert_shards
from perfmodel.count.iteration import Iteration
from perfmodel.count.memory.recompute import rerun_layer_bytes
from perfmodel.count.memory.storage import StateBytes, logit_bytes, state_bytes, stream_bytes
from perfmodel.count.memory.tuned import Moment, peak_moment
from perfmodel.count.operators import Collective, Matmul, saved_bytes
from perfmodel.count.parameters import ParameterCount, layer_parameters, low_precision_parameters
from perfmodel.count.pipeline import PipelineStage, in_flight
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.arithmetic import added, is_nothing
from perfmodel.spec.axes import AXES
from perfmodel.spec.fields import Numeric, Truth, anywhere, chosen
from perfmodel.spec.layout import axis_group, data_parallel_group
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
    scratch_bytes: Numeric  # what the optimizer's step allocates beyond what the passes had, which is free by then
    workspaces_bytes: Numeric  # of libraries, from PyTorch's allocator
    communication_bytes: Numeric
    framework_bytes: Numeric
    fragmentation_bytes: Numeric

    def items(self) -> Iterator[tuple[str, Numeric]]:
        """Every part with its bytes."""
        return ((part.name, getattr(self, part.name)) for part in fields(self))

    @property
    def total_bytes(self) -> Numeric:
        """The sum of the parts: what the device reports in use (nvidia-smi)."""
        total: Numeric = 0.0
        for part in fields(self):
            total = added(total, getattr(self, part.name))
        return total

    def or_larger(self, other: MemoryBytes, *, there: Truth) -> MemoryBytes:
        """The parts of the other where it is `there` and needs more, elsewhere these."""
        more = (other.total_bytes > self.total_bytes) & there
        return MemoryBytes(**{name: chosen(more, value, getattr(self, name)) for name, value in other.items()})

    @property
    def reserved_bytes(self) -> Numeric:
        """What PyTorch's caching allocator reserves: all but what libraries allocate by themselves."""
        return self.total_bytes - self.framework_bytes - self.communication_bytes

    @property
    def allocated_bytes(self) -> Numeric:
        """What tensors take at the peak (torch.cuda.max_memory_allocated): what is reserved less its fragmentation."""
        return self.reserved_bytes - self.fragmentation_bytes


def memory_bytes(work: Iteration, *, scratch: Mapping[str, Numeric] = NONE) -> MemoryBytes:
    """The peak of the fullest pipeline stage; `scratch` is what a kind of collective allocates for each byte of its payload."""
    (needed,) = peaks_bytes([work], scratch=scratch)
    return needed


def peaks_bytes(works: Sequence[Iteration], *, scratch: Mapping[str, Numeric]) -> Iterator[MemoryBytes]:
    """The memory_bytes of each of some iterations that differ in their sharding alone: they share all passes."""
    present = [(stage, there, pass_bytes(works[0], stage)) for stage, there in _stages(works[0])]
    for work in works:
        needed = ((stage_memory_bytes(work, stage, scratch=scratch, passes=held), there) for stage, there, held in present)
        fullest, _ = next(needed)
        for other, there in needed:
            fullest = fullest.or_larger(other, there=there)
        yield fullest


def _stages(work: Iteration) -> Iterator[tuple[PipelineStage, Truth]]:
    """The distinct pipeline stages, and where there is such a one."""
    yield work.stages.first, True
    for stage in (work.stages.middle, work.stages.last):
        if anywhere(stage.number) and anywhere(work.layout.pipeline_parallel > 1):
            yield stage, np.asarray(stage.number) > 0


@dataclass(frozen=True, kw_only=True)
class PassBytes:
    """What the passes of a stage hold when its backward pass begins, however its states are sharded."""

    buffers: Numeric  # of the groups that it communicates in
    kept: Numeric  # by layers and the embedding for all micro-batches in flight, and of what was sent on
    head: Numeric
    loss: Numeric
    rerun: Numeric  # by the largest layer that runs again, while it does

    def activations(self, unreduced: Numeric) -> Numeric:
        """All but the loss, beside so many bytes of gradients that are not yet reduced.

        The loss is over when the first layer runs again: only what that and its gradients need beyond it adds to the peak.
        """
        return self.at_its_end if is_nothing(unreduced) else self._activations(unreduced)

    @cached_property
    def at_its_end(self) -> Numeric:
        """The activations where all gradients are whole: the same for several shardings."""
        return self._activations(0.0)

    def _activations(self, unreduced: Numeric) -> Numeric:
        return self.kept + self.head + np.maximum(added(self.rerun, unreduced) - self.loss - self.head, 0)


def pass_bytes(work: Iteration, stage: PipelineStage) -> PassBytes:
    """What layers, embedding and head of a stage hold for its micro-batches in flight; on the last stage the logits too."""
    layout, fusion = work.layout, work.setup.stack.fusion
    logits = next(op for op in work.head.forward if isinstance(op, Matmul))
    ranks = layout.tensor_parallel if fusion.gathered_logits else 1
    embedding = stage.embedding * saved_bytes(work.embedding.forward) * in_flight(layout, stage)
    return PassBytes(
        buffers=_groups(work.setup) * work.setup.stack.states.communication_buffer_bytes,
        kept=added(stage_activation_bytes(work, stage) + embedding, _sent_bytes(work, stage)),
        head=stage.head * saved_bytes(work.head.forward),
        loss=stage.head * _loss_bytes(work) * logits.rows * logits.columns * ranks / fusion.loss_chunks,
        rerun=_largest_rerun_bytes(work, stage),
    )


def stage_memory_bytes(
    work: Iteration, stage: PipelineStage, *, scratch: Mapping[str, Numeric] = NONE, passes: PassBytes | None = None
) -> MemoryBytes:
    """The peak of one stage, when its backward pass begins; its `passes` hold what pass_bytes says, where that is known."""
    if work.setup.tuning is not None:
        return _tuned_memory_bytes(work, stage, peak_moment(work, stage, work.setup.tuning))
    layout, stack, held = work.layout, work.setup.stack, stage.parameters
    passes = pass_bytes(work, stage) if passes is None else passes
    loss, activations = passes.loss, passes.activations(_unreduced_bytes(work.setup, stage))
    parameters, gradients = _weights_bytes(work.setup, stage)
    states, owned, each = stack.states, owned_parameters(held, layout, "optimizer"), state_bytes(layout, stack)
    step = np.maximum(_scratch_bytes(work, scratch), owned * each.step)
    return MemoryBytes(
        parameters_bytes=parameters,
        gradients_bytes=gradients,
        optimizer_bytes=owned * each.optimizer,
        activations_bytes=activations,
        loss_bytes=loss,
        scratch_bytes=np.maximum(step - activations - loss, 0.0) if anywhere(step) else 0.0,
        workspaces_bytes=states.workspace_bytes + 0.0 * held.total,
        communication_bytes=added(passes.buffers, _bucket_bytes(work, held, each)),
        framework_bytes=states.framework_bytes + 0.0 * held.total,
        fragmentation_bytes=states.fragmentation * (activations + loss),
    )


def _tuned_memory_bytes(work: Iteration, stage: PipelineStage, peak: Moment) -> MemoryBytes:
    """The greatest moment of a fine-tuning, and what the software allocates beside it."""
    states, nothing = work.setup.stack.states, 0.0 * stage.parameters.total
    return MemoryBytes(
        parameters_bytes=peak.parameters,
        gradients_bytes=peak.gradients,
        optimizer_bytes=peak.optimizer,
        activations_bytes=peak.activations,
        loss_bytes=peak.loss,
        scratch_bytes=peak.scratch,
        workspaces_bytes=states.workspace_bytes + nothing,
        communication_bytes=_groups(work.setup) * states.communication_buffer_bytes,
        framework_bytes=states.framework_bytes + nothing,
        fragmentation_bytes=states.fragmentation * (peak.activations + peak.loss),
    )


def _bucket_bytes(work: Iteration, held: ParameterCount, each: StateBytes) -> Numeric:
    """Buffers of as many numbers as a data-parallel bucket, where it is no view of the gradients."""
    buffers = work.setup.stack.states.bucket_buffers
    if not anywhere(buffers):
        return 0.0
    several = np.asarray(data_parallel_group(work.layout).ranks) > 1
    return chosen(several, buffers * each.reduced_gradient * np.minimum(work.buckets.share, 1.0) * held.total, 0.0)


def _loss_bytes(work: Iteration) -> Numeric:
    """Bytes of one logit at the peak of the loss, more where ranks share the vocabulary."""
    fusion = work.setup.stack.fusion
    shared = np.asarray(work.layout.tensor_parallel) > 1
    return logit_bytes(fusion.loss_peak_bytes, work.layout) + fusion.parallel_loss_bytes * shared


def _groups(setup: Setup) -> Numeric:
    """How many kinds of groups of several ranks a GPU communicates in; ranks of an axis that another joins use its group."""
    joined = {name for axis in AXES for name in axis.joins}
    groups: Numeric = 0.0
    for axis in AXES:
        if axis.name not in joined:
            groups = groups + chosen(axis_group(setup.layout, axis).ranks > 1, 1.0, 0.0)
    return groups


def _scratch_bytes(work: Iteration, scratch: Mapping[str, Numeric]) -> Numeric:
    """What the largest collective of the optimizer step allocates while it runs."""
    most: Numeric = 0.0
    for call in work.synchronisation if scratch else ():
        if isinstance(call, Collective) and call.kind in scratch:
            needs = chosen(call.group.ranks > 1, scratch[call.kind] * call.payload_bytes, 0.0)
            most = np.maximum(most, needs)
    return most


def _weights_bytes(setup: Setup, stage: PipelineStage) -> tuple[Numeric, Numeric]:
    """Parameters with their low-precision copies, and gradients; of sharded parameters, also what is whole at a time.

    Whole at a time are two layers, and the matrices of the vocabulary, which do not belong to a layer; or all of them. Shards
    that are cast when they are gathered are the optimizer's master copies: they are counted there.
    """
    layout, held = setup.layout, stage.parameters
    state = state_bytes(layout, setup.stack)
    is_gathered = np.asarray(shards(layout, "parameters")) > 1
    shard = 0.0 if setup.stack.states.casts_shards and layout.recipe.has_master else state.parameter
    gradients: Numeric = owned_parameters(held, layout, "gradients") * state.all_gradients
    whole_bytes = _whole_parameter_bytes(setup, held, state.parameter)
    if not is_gathered.any():
        return whole_bytes, gradients
    gathered = whole_bytes
    if setup.stack.states.regathers_parameters:
        layers = LAYERS_GATHERED * _largest_layer(setup, stage) * _layer_parameter_bytes(setup, state.parameter)
        gathered = layers + _vocabulary(held) * state.parameter
    shards_bytes = owned_parameters(held, layout, "parameters") * shard
    return chosen(is_gathered, shards_bytes + gathered, whole_bytes), gradients


def _unreduced_bytes(setup: Setup, stage: PipelineStage) -> Numeric:
    """Gradients that are whole at a time before they are reduced to shards: of two layers, and of the vocabulary."""
    unreduced = np.asarray(shards(setup.layout, "gradients")) > 1
    if not unreduced.any():
        return 0.0
    numbers = LAYERS_GATHERED * _largest_layer(setup, stage) + _vocabulary(stage.parameters)
    return chosen(unreduced, numbers, 0.0) * setup.layout.recipe.activation_bytes


def _vocabulary(held: ParameterCount) -> Numeric:
    """Parameters that do not belong to a layer."""
    return held.embedding + held.positions + held.head


def _whole_parameter_bytes(setup: Setup, held: ParameterCount, parameter_bytes: Numeric) -> Numeric:
    """All that a rank holds for its parameters where it holds all of each."""
    narrow = low_precision_parameters(held, setup)
    return (held.total - narrow) * parameter_bytes + narrow * _layer_parameter_bytes(setup, parameter_bytes)


def _layer_parameter_bytes(setup: Setup, parameter_bytes: Numeric) -> Numeric:
    """Bytes of one parameter of a linear: in 16 bits, the operands of its products, or those alone."""
    recipe, low = setup.layout.recipe, setup.stack.low_precision
    if not recipe.casts:
        return parameter_bytes
    copies = recipe.operand_bytes * recipe.weight_copies(transposed=setup.cluster.gpu.transposed_weights)
    return copies if low.parameter_gather and not recipe.holds_wide else parameter_bytes + copies


def _largest_layer(setup: Setup, stage: PipelineStage) -> Numeric:
    """Parameters of the linears of the largest layer that a stage holds, on one GPU: what is gathered at a time."""
    most: Numeric = 0.0
    for kind, number in stage.held.every.items():
        experts = expert_shards(setup.layout)
        layer = layer_parameters(setup.model, kind, tensor_parallel=setup.layout.tensor_parallel, experts=experts)
        most = np.maximum(most, chosen(number > 0, layer.matrices, 0.0))
    return most


def stage_activation_bytes(work: Iteration, stage: PipelineStage) -> Numeric:
    """What the layers of a stage keep of all its micro-batches in flight; s*b*h*(34 + 5*a*s/h)/t a layer, unfused, once.

    Selective recompute keeps all but the scores (or what a stack forms again), full recompute the input of each layer.
    Source: arXiv:2205.05198, section 4.
    """
    kept: Numeric = 0.0
    for kind, blocks in work.layers.items():
        again = rerun_layer_bytes(work, blocks, kind)
        layer = saved_bytes(blocks.again.forward)
        kept = kept + stage.held.every[kind] * (layer - again) + stage.held.plain[kind] * again
    return in_flight(work.layout, stage) * kept


def _sent_bytes(work: Iteration, stage: PipelineStage) -> Numeric:
    """What a stage keeps of what it sent on: one input of the next stage for each micro-batch in flight, or nothing."""
    layout = work.layout
    if not work.setup.stack.states.keeps_stage_outputs:
        return 0.0
    sends = np.asarray(stage.position) < np.asarray(layout.pipeline_parallel) - 1
    return chosen(sends, in_flight(layout, stage) * stream_bytes(work.setup), 0.0)


def _largest_rerun_bytes(work: Iteration, stage: PipelineStage) -> Numeric:
    """Bytes that the largest layer which a stage runs again forms while it does."""
    most: Numeric = 0.0
    for kind, blocks in work.layers.items():
        reruns = np.asarray(stage.held.every[kind] - stage.held.plain[kind]) > 0
        most = np.maximum(most, chosen(reruns, rerun_layer_bytes(work, blocks, kind), 0.0))
    return most
