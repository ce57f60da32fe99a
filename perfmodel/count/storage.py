"""How many bytes one number takes where it is kept between operators: a parameter, its gradient, its optimizer states, a logit.

Where a recipe keeps fp32 master copies, a stack says so. Otherwise everything is held as wide as the activations, and there is
no master copy beside the parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from perfmodel.spec.fields import Numeric
from perfmodel.spec.layout import Layout
from perfmodel.spec.stack import SoftwareStack

FP32_BYTES: Final = 4
LOGIT_BYTES: Final = 2  # of the logits that a stack's bytes of the loss are stated for


@dataclass(frozen=True, slots=True, kw_only=True)
class StateBytes:
    """Bytes of one parameter and of all that is kept for it; `adam` is what a step of the optimizer moves."""

    parameter: Numeric
    gradient: Numeric  # as it is held
    reduced_gradient: Numeric  # the same on the wire
    optimizer: Numeric
    adam: Numeric


def state_bytes(layout: Layout, stack: SoftwareStack) -> StateBytes:
    """adam = 4 + 2*optimizer + written: reads a gradient in fp32, reads and writes the states, writes the parameter.

    In 16 bits the master copy is one of the states, so parameters are only written; fp32 parameters, which are their own master
    copy, are read too.

    >>> from dataclasses import replace
    >>> from perfmodel.exchange.run_files import read_candidates
    >>> run = read_candidates("nemotron-4-15b")[0].run
    >>> layout = run.layout(run.stages[0])
    >>> [state_bytes(replace(layout, precision=each), run.stack).adam for each in ("bf16", "fp32")]
    [30.0, 28.0]
    """
    held = stack.states
    if layout.recipe.has_master:
        return StateBytes(
            parameter=held.parameter_bytes,
            gradient=held.gradient_bytes,
            reduced_gradient=held.reduced_gradient_bytes,
            optimizer=held.optimizer_bytes,
            adam=FP32_BYTES + 2 * held.optimizer_bytes + held.parameter_bytes,
        )
    own, states = layout.recipe.activation_bytes, held.optimizer_bytes - FP32_BYTES
    return StateBytes(parameter=own, gradient=own, reduced_gradient=own, optimizer=states, adam=own + 2 * states + 2 * own)


def logit_bytes(stated: Numeric, layout: Layout) -> Numeric:
    """What the loss moves or holds of one logit: what a stack states for 16-bit logits, and by how much these are wider.

    >>> from perfmodel.exchange.run_files import read_candidates
    >>> run = read_candidates("nemotron-4-15b", ["precision=bf16"])[0].run
    >>> logit_bytes(30.0, run.layout(run.stages[0]))
    30.0
    """
    return stated + (layout.recipe.activation_bytes - LOGIT_BYTES)
