"""How many bytes a GPU needs at the peak of a fine-tuning iteration: the greatest of four moments, part by part.

    loss       parameters, states, all that layers keep, and the loss at its largest
    rerun      the last layer forms again what it did not keep; logits and copies of checkpoints that software holds by then
    end        all gradients are there, and one layer; what layers kept is gone
    step       all gradients and states, and what the optimizer allocates

Gradients are there before the loss where earlier micro-batches left them, or in a buffer that stays. Sharded parameters are
gathered a layer at a time in the passes, and not in the step. Frozen parameters have neither gradients nor states.

Ignored: gradients grow while checkpoints are given up, linearly both, so that no moment between the ends needs more.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Final

import numpy as np

from perfmodel.count.data_parallel import shards
from perfmodel.count.iteration import Iteration
from perfmodel.count.layer import layer_parts
from perfmodel.count.memory.recompute import rerun_layer_bytes
from perfmodel.count.memory.storage import logit_bytes, state_bytes, stream_bytes
from perfmodel.count.operators import Matmul, saved_bytes
from perfmodel.count.parameters import ParameterCount
from perfmodel.count.parts.adapters import WIDE_BYTES, is_frozen, tuning_work
from perfmodel.count.pipeline import PipelineStage
from perfmodel.count.tuning.trained import TunedNumbers, optimizer_state_bytes, part_sizes, tuned_bytes, tuned_numbers
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.fields import Numeric, chosen
from perfmodel.spec.layout import GATHERED
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.precision import FP32_BYTES
from perfmodel.spec.setup import Setup
from perfmodel.spec.tuning.fine_tuning import AS_THE_STACK, FineTuning
from perfmodel.spec.tuning.optimizers import optimizer

MODELS: Final = 64  # whose largest matrices are remembered
LAYERS_AT_ONCE: Final = 2  # the one that runs and the one that is fetched, or sent, meanwhile


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """Bytes of one moment of an iteration, by part."""

    parameters: Numeric
    gradients: Numeric
    optimizer: Numeric
    activations: Numeric = 0.0
    loss: Numeric = 0.0
    scratch: Numeric = 0.0

    @property
    def total(self) -> Numeric:
        """The sum of its parts."""
        return self.parameters + self.gradients + self.optimizer + self.activations + self.loss + self.scratch


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedStates:
    """Bytes of all states that a GPU keeps, and of what is whole at a time while a layer runs."""

    parameters: Numeric
    gathered: Numeric
    gradients: Numeric
    unreduced: Numeric
    optimizer: Numeric
    step: Numeric


def peak_moment(work: Iteration, stage: PipelineStage, tuning: FineTuning) -> Moment:
    """The moment that needs most; of arrays of layouts that of each."""
    first, *others = _moments(work, stage, tuning)
    for other in others:
        more = np.asarray(other.total > first.total)
        parts = {name: chosen(more, getattr(other, name), getattr(first, name)) for name in Moment.__dataclass_fields__}
        first = Moment(**parts)
    return first


def _moments(work: Iteration, stage: PipelineStage, tuning: FineTuning) -> Iterator[Moment]:
    setup, states = work.setup, tuned_states(work.setup, stage, tuning)
    logits = next(op for op in work.head.forward if isinstance(op, Matmul))
    number = logits.rows * logits.columns / setup.stack.fusion.loss_chunks
    kept, rerun = _kept_bytes(work, stage, tuning), _rerun_bytes(work, tuning)
    head = saved_bytes(work.head.forward)
    passing = states.parameters + states.gathered
    software, is_gathered = tuning_work(setup), work.layout.sharding in GATHERED
    is_there = (np.asarray(work.layout.micro_batches) > 1) | software.holds_gradients
    before = chosen(is_there, states.gradients, 0.0)
    held = (software.sharded_loss_held_bytes if is_gathered else software.loss_held_bytes) * number
    loss = logit_bytes(setup.stack.fusion.loss_peak_bytes, work.layout) * number
    rest = {"optimizer": states.optimizer}
    yield Moment(parameters=passing, gradients=before, activations=kept + head, loss=loss, **rest)
    during = before + states.unreduced
    again = kept * software.sharded_checkpoints if is_gathered and work.layout.recompute == "full" else kept
    yield Moment(parameters=passing, gradients=during, activations=again + rerun, loss=held, **rest)
    yield Moment(parameters=passing, gradients=states.gradients + states.unreduced, activations=rerun, **rest)
    yield Moment(parameters=states.parameters, gradients=states.gradients, scratch=states.step, **rest)


def tuned_states(setup: Setup, stage: PipelineStage, tuning: FineTuning) -> TunedStates:
    """Parameters, gradients and optimizer states over their shards; those that lie in the host's memory take nothing."""
    numbers = tuned_numbers(setup.model, stage.parameters, stage.held.every, tuning)
    layout, ranks = setup.layout, {part: shards(setup.layout, part) for part in ("parameters", "gradients", "optimizer")}
    whole = _parameter_bytes(setup, numbers, tuning)
    each, row = state_bytes(layout, setup.stack, tuning), optimizer(tuning.optimizer)
    own = tuned_bytes(setup, tuning).own if tuning.weights != AS_THE_STACK else each.all_gradients
    gradients = numbers.own * own + numbers.adapters * tuned_bytes(setup, tuning).adapter
    sizes = part_sizes(stage.parameters)
    vocabulary = sum(sizes[part] for part in ("embedding", "head") if tuning.trains(part))
    of_layers = gradients - vocabulary * own  # as for what is gathered: embedding and head are no layers
    of_states = _state_bytes(setup, numbers, tuning)
    copies = numbers.own * each.step if tuning.weights == AS_THE_STACK else gradients * row.temporary
    largest = FP32_BYTES * row.largest * _largest_trained(setup, tuning) if row.largest else 0.0
    temporary = copies / ranks["optimizer"] + largest
    is_gathered = layout.sharding in GATHERED
    shard = whole / ranks["parameters"]
    if tuning.weights == AS_THE_STACK and is_gathered and setup.stack.states.casts_shards:
        shard = 0.0 * shard  # the master copies are the shards
    return TunedStates(
        parameters=0.0 * shard if "parameters" in tuning.offload and is_gathered else shard,
        gathered=_gathered_bytes(setup, stage, numbers, tuning) if is_gathered else 0.0,
        gradients=0.0 * gradients if _steps_on_host(tuning, is_gathered=is_gathered) else gradients / ranks["gradients"],
        unreduced=chosen(np.asarray(ranks["gradients"]) > 1, LAYERS_AT_ONCE * of_layers / setup.model.layers, 0.0),
        optimizer=0.0 * of_states if "optimizer" in tuning.offload else of_states / ranks["optimizer"],
        step=0.0 * temporary if "optimizer" in tuning.offload else temporary,
    )


def _steps_on_host(tuning: FineTuning, *, is_gathered: bool) -> bool:
    """Whether gradients leave the GPU as they are formed: where both the optimizer and sharded parameters are the host's."""
    return "optimizer" in tuning.offload and is_gathered


def _parameter_bytes(setup: Setup, numbers: TunedNumbers, tuning: FineTuning) -> Numeric:
    """All parameters, unsharded; trained copies of parts stand beside the originals of software with adapters (PEFT)."""
    widths = tuned_bytes(setup, tuning)
    if tuning.weights == AS_THE_STACK:
        return (numbers.own + numbers.wide) * state_bytes(setup.layout, setup.stack).parameter
    originals = 2 if tuning.has_adapters else 1
    wide = numbers.wide * widths.wide + originals * numbers.own * widths.own
    return numbers.narrow * widths.narrow + wide + numbers.adapters * widths.adapter


def _state_bytes(setup: Setup, numbers: TunedNumbers, tuning: FineTuning) -> Numeric:
    """Optimizer states, unsharded; with master copies where the stack holds parameters its own way."""
    if tuning.weights != AS_THE_STACK:
        return optimizer_state_bytes(setup, numbers, tuning)
    master = setup.stack.states.optimizer_bytes - 2 * FP32_BYTES
    return numbers.own * master + optimizer_state_bytes(setup, numbers, tuning)


def _gathered_bytes(setup: Setup, stage: PipelineStage, numbers: TunedNumbers, tuning: FineTuning) -> Numeric:
    """Two layers, or as much as stays gathered, and the vocabulary, in what they are held in; or all of it."""
    held, whole = stage.parameters, _parameter_bytes(setup, numbers, tuning)
    if not setup.stack.states.regathers_parameters:
        return whole
    vocabulary = _vocabulary_bytes(setup, held, tuning)
    layers = whole - vocabulary
    live = tuning_work(setup).live_parameters / (held.total - held.embedding - held.positions - held.head) * layers
    return vocabulary + np.minimum(np.maximum(LAYERS_AT_ONCE * layers / setup.model.layers, live), layers)


def _vocabulary_bytes(setup: Setup, held: ParameterCount, tuning: FineTuning) -> Numeric:
    """Both matrices of the vocabulary and positions; where adapters train one of them, its copy stands beside it."""
    widths, sizes = tuned_bytes(setup, tuning), part_sizes(held)
    total: Numeric = 0.0
    for part in ("embedding", "head"):
        if tuning.weights == AS_THE_STACK:
            each: Numeric = state_bytes(setup.layout, setup.stack).parameter
        else:
            each = (2 if tuning.has_adapters else 1) * widths.own if tuning.trains(part) else widths.wide
        total = total + sizes[part] * each
    return total


def _largest_trained(setup: Setup, tuning: FineTuning) -> Numeric:
    """Numbers of the largest trained matrix; Muon orthogonalises those of layers alone, and leaves the vocabulary to Adam."""
    model, of_layers = setup.model, optimizer(tuning.optimizer).iterations > 0
    has_vocabulary = not of_layers and (tuning.trains("embedding") or tuning.trains("head"))
    most: Numeric = model.vocab_size * model.hidden_size if has_vocabulary else 0
    for kind in model.kinds.values():
        for part in layer_parts(model, kind, 1):
            sides = [each.rank * np.maximum(each.linear.inner, each.linear.columns) for each in part.adapters(tuning)]
            trained = [each.inner * each.columns for each in part.separate if not is_frozen(each.component, tuning)]
            for size in (*sides, *trained):
                most = np.maximum(most, size)
    return most


def _kept_bytes(work: Iteration, stage: PipelineStage, tuning: FineTuning) -> Numeric:
    """What all layers keep for the backward pass; of checkpoints in the host's memory, those of two layers are on the GPU."""
    total: Numeric = 0.0
    for kind, blocks in work.layers.items():
        again = rerun_layer_bytes(work, blocks, kind)
        layer = saved_bytes(blocks.again.forward)
        total = total + stage.held.every[kind] * (layer - again) + stage.held.plain[kind] * again
    if "activations" in tuning.offload:
        total = np.minimum(total, LAYERS_AT_ONCE * stream_bytes(work.setup))
    return total + saved_bytes(work.embedding.forward) + _cast_weights_bytes(work, stage, tuning)


def _cast_weights_bytes(work: Iteration, stage: PipelineStage, tuning: FineTuning) -> Numeric:
    """16-bit copies of fp32 weights that products keep for the gradient of their input, where autocast casts each of them."""
    is_cast = tuning.held_bytes == FP32_BYTES and work.layout.recipe.activation_bytes < FP32_BYTES
    if not is_cast or work.layout.recompute != "none":
        return 0.0
    return WIDE_BYTES * (stage.parameters.attention + stage.parameters.mlp + stage.parameters.experts)


def _rerun_bytes(work: Iteration, tuning: FineTuning) -> Numeric:
    """What the largest layer forms again, the gradient of its widest part, and the largest weight, widened."""
    most: Numeric = 0.0
    for kind, blocks in work.layers.items():
        most = np.maximum(most, rerun_layer_bytes(work, blocks, kind))
    inner = work.layout.recipe.activation_bytes * work.layout.tokens_per_micro_batch * _widest_input(work.setup.model)
    return most + inner + (WIDE_BYTES * _largest_matrix(work.setup.model) if tuning.is_quantised else 0.0)


@lru_cache(maxsize=MODELS)
def _widest_input(model: TransformerModel) -> Numeric:
    """Columns of the widest input of a linear that ends a part of a layer, whose gradient is there while the rest is kept."""
    most: Numeric = 0
    for kind in model.kinds.values():
        for part in layer_parts(model, kind, 1):
            most = np.maximum(most, part.out.inner if part.out else 0)
    return most


@lru_cache(maxsize=MODELS)
def _largest_matrix(model: TransformerModel) -> Numeric:
    """Numbers of the largest matrix of a layer."""
    most: Numeric = 0
    for kind in model.kinds.values():
        for part in layer_parts(model, kind, 1):
            for linear in part.separate:
                most = np.maximum(most, linear.inner * linear.columns)
    return most
