"""A block: forward operators with the backward operators that answer them; and what of a layer is run again.

Recompute drops what operators keep and forms it again before the backward pass: the attention core (selective, as in
arXiv:2205.05198), every second product and all that is not a product (selective, as in torchtitan), or everything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from perfmodel.count.operators import Collective, FusedAttention, Matmul, MemoryBound, Operator, gradients, is_attention_core
from perfmodel.count.roles import Role
from perfmodel.errors import NotSupportedError
from perfmodel.spec.fields import Numeric
from perfmodel.spec.phases import RECOMPUTE

Selection = Callable[[Operator], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Forward operators and the backward operators that answer them, both in the order in which they run."""

    forward: tuple[Operator, ...] = ()
    backward: tuple[Operator, ...] = ()

    def __add__(self, later: Block) -> Block:
        return Block(forward=self.forward + later.forward, backward=later.backward + self.backward)

    def of_layers(self, share: Numeric) -> Block:
        """What a `share` of the layers runs and keeps, in the mean layer."""
        return Block(
            forward=tuple(_of_layers(operator, share) for operator in self.forward),
            backward=tuple(_of_layers(operator, share) for operator in self.backward),
        )

    @property
    def operators(self) -> tuple[Operator, ...]:
        """Forward, then backward."""
        return self.forward + self.backward


def _of_layers(operator: Operator, share: Numeric) -> Operator:
    if isinstance(operator, Collective):
        return replace(operator, repeats=operator.repeats * share)
    return replace(operator, repeats=operator.repeats * share, saved_bytes=operator.saved_bytes * share)


def local(operator: Matmul | FusedAttention | MemoryBound) -> Block:
    """A block of one operator that needs no communication."""
    return Block(forward=(operator,), backward=gradients(operator))


def _of_the_core(operator: Operator) -> bool:
    """The attention core, and what ranks that share a sequence exchange for it."""
    return is_attention_core(operator) or operator.role is Role.CORE_EXCHANGE


def _but_first_products(operator: Operator) -> bool:
    """Every second product, and all memory-bound operators."""
    return isinstance(operator, MemoryBound) or operator.role is Role.OUTPUT_PRODUCT


SELECTIONS: Final[dict[str, Selection]] = {"attention": _of_the_core, "every_second_product": _but_first_products}


def runs_again(mode: str, selection: str) -> Selection:
    """Which forward operators a recompute mode repeats; `selection` says what a stack's selective mode selects.

    Errors: NotSupportedError for a mode or a selection that is not known here.
    """
    if mode in ("none", "full"):
        return lambda _: mode == "full"
    if mode != "selective" or selection not in SELECTIONS:
        raise NotSupportedError(f"{mode} recompute of {selection} is not counted", key="recompute")
    return SELECTIONS[selection]


def with_recompute(layer: Block, mode: str, selection: str = "attention") -> Block:
    """The layer when `mode` of it is run again: selected operators right before the gradient that needs them first."""
    chosen = runs_again(mode, selection)
    repeated = tuple(_again(op) for op in layer.forward if chosen(op))
    if not repeated:
        return layer
    names = {op.name for op in repeated}
    first = 0 if mode == "full" else next(place for place, op in enumerate(layer.backward) if op.name in names)
    return Block(forward=layer.forward, backward=layer.backward[:first] + repeated + layer.backward[first:])


def _again(operator: Operator) -> Operator:
    if isinstance(operator, Collective):
        partner = (operator.partner[0], RECOMPUTE) if operator.partner[0] else operator.partner
        return replace(operator, phase=RECOMPUTE, partner=partner)
    return replace(operator, phase=RECOMPUTE, saved_bytes=0.0)
