"""A block: forward operators with the backward operators that answer them; and what of a layer is run again.

Recompute drops what operators keep and forms it again before the backward pass: the attention core (selective, as in
arXiv:2205.05198), every second product and all that is not a product (selective, as in torchtitan), or everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final

from perfmodel.count.operators import Collective, FusedAttention, Matmul, MemoryBound, Operator, gradients
from perfmodel.spec.phases import RECOMPUTE

CORE: Final = tuple(f"layer.attention.{name}" for name in ("core", "core_ring", "scores", "softmax", "dropout", "context"))
BETWEEN_RANKS: Final = ("layer.attention.exchange", "layer.attention.join")  # of context-parallel ranks, for the core
SCORES: Final = ("layer.attention.softmax", "layer.attention.dropout")
SECOND_PRODUCTS: Final = ("layer.attention.projection", "layer.mlp.fc2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Forward operators and the backward operators that answer them, both in the order in which they run."""

    forward: tuple[Operator, ...] = ()
    backward: tuple[Operator, ...] = ()

    def __add__(self, later: Block) -> Block:
        return Block(forward=self.forward + later.forward, backward=later.backward + self.backward)

    @property
    def operators(self) -> tuple[Operator, ...]:
        """Forward, then backward."""
        return self.forward + self.backward


def local(operator: Matmul | FusedAttention | MemoryBound) -> Block:
    """A block of one operator that needs no communication."""
    return Block(forward=(operator,), backward=gradients(operator))


def is_attention_core(operator: Operator) -> bool:
    """Whether `operator` works on queries, keys, values and scores alone."""
    return operator.name in CORE


def runs_again(mode: str, selection: str) -> Callable[[Operator], bool]:
    """Which forward operators a recompute mode repeats; `selection` says what a stack's selective mode selects."""
    if mode == "none":
        return lambda _: False
    if mode == "full":
        return lambda _: True
    if selection == "attention":
        return lambda op: is_attention_core(op) or op.name in BETWEEN_RANKS
    return lambda op: isinstance(op, MemoryBound) or op.name in SECOND_PRODUCTS


def with_recompute(layer: Block, mode: str, selection: str = "attention") -> Block:
    """The layer when `mode` of it is run again: selected operators right before the gradient that needs them first."""
    chosen = runs_again(mode, selection)
    repeated = tuple(_again(op) for op in layer.forward if chosen(op))
    if not repeated:
        return layer
    first = 0 if mode == "full" else _first(layer.backward, {op.name for op in repeated})
    return Block(forward=layer.forward, backward=layer.backward[:first] + repeated + layer.backward[first:])


def _first(operators: Iterable[Operator], names: set[str]) -> int:
    return next(index for index, op in enumerate(operators) if op.name in names)


def _again(operator: Operator) -> Operator:
    if isinstance(operator, Collective):
        partner = (operator.partner[0], RECOMPUTE) if operator.partner[0] else operator.partner
        return replace(operator, phase=RECOMPUTE, partner=partner)
    return replace(operator, phase=RECOMPUTE, saved_bytes=0.0)
