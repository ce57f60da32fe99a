"""How many bytes one number takes where it is kept between operators: a parameter, its gradient, its optimizer states, a logit.

Where a recipe keeps fp32 master copies, a stack says so. Otherwise everything is held as wide as the activations, and there is
no master copy beside the parameters.
"""

from __future__ import annotations

from typing import Final

from perfmodel.light_dataclass import dataclass
from perfmodel.spec.fields import Numeric, anywhere, chosen
from perfmodel.spec.layout import Layout
from perfmodel.spec.precision import FP32_BYTES
from perfmodel.spec.setup import Setup
from perfmodel.spec.stack import SoftwareStack
from perfmodel.spec.tuning.fine_tuning import AS_THE_STACK, FineTuning, TuningWork
from perfmodel.spec.tuning.optimizers import optimizer

LOGIT_BYTES: Final = 2  # of the logits that a stack's bytes of the loss are stated for


@dataclass(frozen=True, slots=True, kw_only=True)
class StateBytes:
    """Bytes of one parameter and of all that is kept for it; `adam` is what a step of the optimizer moves."""

    parameter: Numeric
    gradient: Numeric  # what micro-batches are added to
    all_gradients: Numeric  # that, and what they are added from where a stack holds both
    reduced_gradient: Numeric  # of a gradient on the wire
    optimizer: Numeric
    step: Numeric  # of the copy of a gradient that lives while the optimizer steps
    adam: Numeric


def state_bytes(layout: Layout, stack: SoftwareStack, tuning: FineTuning | None = None) -> StateBytes:
    """adam = 4 + 2*step + 2*optimizer + written: reads a gradient in fp32, reads and writes the states, writes the parameter.

    A gradient in 16 bits becomes a copy in fp32 first, of `step` bytes, written and read. The master copy is one of the states,
    so parameters in 16 bits are only written; fp32 parameters, which are their own master copy, are read too. That is one
    kernel; a chain of them moves the `unfused_step_bytes` of its stack more.

    >>> from dataclasses import replace
    >>> from perfmodel.exchange.run_files import read_candidates
    >>> run = read_candidates("nemotron-4-15b")[0].run
    >>> layout = run.layout(run.stages[0])
    >>> [float(state_bytes(replace(layout, precision=each), run.stack).adam) for each in ("bf16", "fp32")]
    [38.0, 28.0]
    """
    held = stack.states
    if tuning is not None and tuning.weights != AS_THE_STACK and stack.tuning is not None:
        return _tuned_state_bytes(tuning, stack.tuning)
    if not layout.recipe.has_master:
        own, states = layout.recipe.activation_bytes, held.optimizer_bytes - FP32_BYTES
        return StateBytes(
            parameter=own,
            gradient=own,
            all_gradients=own,
            reduced_gradient=own,
            optimizer=states,
            step=0,
            adam=own + 2 * states + 2 * own + held.unfused_step_bytes,
        )
    scaled, copy = layout.recipe.scales_loss, held.accumulated_gradient_bytes
    gradient = held.scaled_gradient_bytes if scaled else held.gradient_bytes
    added_to = chosen(copy > 0, copy, gradient) if anywhere(copy) else gradient
    step = held.step_gradient_bytes * (added_to < FP32_BYTES)
    return StateBytes(
        parameter=held.parameter_bytes,
        gradient=added_to,
        all_gradients=gradient + copy,
        reduced_gradient=held.scaled_gradient_bytes if scaled else held.reduced_gradient_bytes,
        optimizer=held.optimizer_bytes,
        step=step,
        adam=FP32_BYTES + 2 * step + 2 * held.optimizer_bytes + held.parameter_bytes + held.unfused_step_bytes,
    )


def _tuned_state_bytes(tuning: FineTuning, work: TuningWork) -> StateBytes:
    """Of a parameter that a fine-tuning trains, an adapter's where it has adapters: gradient and states are as wide as it is.

    adam = width + 2*states + 2*width + 2*temporary: the gradient read, states and parameter read and written, copies too.
    """
    own = work.adapter_bytes if tuning.has_adapters else tuning.held_bytes or work.wide_bytes
    row = optimizer(tuning.optimizer)
    states = row.bytes_of_state(own)
    return StateBytes(
        parameter=own,
        gradient=own,
        all_gradients=own,
        reduced_gradient=own,
        optimizer=states,
        step=row.temporary * own,
        adam=own + 2 * states + 2 * own + 2 * row.temporary * own,
    )


def logit_bytes(stated: Numeric, layout: Layout) -> Numeric:
    """What the loss moves or holds of one logit: what a stack states for 16-bit logits, and by how much these are wider.

    >>> from perfmodel.exchange.run_files import read_candidates
    >>> run = read_candidates("nemotron-4-15b", ["precision=bf16"])[0].run
    >>> logit_bytes(30.0, run.layout(run.stages[0]))
    30.0
    """
    return stated + (layout.recipe.activation_bytes - LOGIT_BYTES)


def stream_bytes(setup: Setup) -> Numeric:
    """The residual stream of a micro-batch on one GPU: e*T*h/S, of 4 bytes a number under autocast with fp32 parameters."""
    layout = setup.layout
    each = max(layout.recipe.activation_bytes, FP32_BYTES) if has_fp32_stream(setup) else layout.recipe.activation_bytes
    return each * layout.tokens_per_micro_batch * setup.model.hidden_size / layout.sequence_shards


def has_fp32_stream(setup: Setup) -> bool:
    """Whether the residual stream is in fp32: where parameters are, or where software makes it so beside quantised ones."""
    tuning, work = setup.tuning, setup.stack.tuning
    if tuning is None or work is None or tuning.weights == AS_THE_STACK:
        return setup.stack.fusion.fp32_stream
    return work.upcasts_stream if tuning.is_quantised else tuning.held_bytes == FP32_BYTES
