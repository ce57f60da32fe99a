"""A block: forward operators with the backward operators that answer them; and what of a layer is run again.

Recompute drops what operators keep and forms it again before the backward pass: the attention core (selective, as in
arXiv:2205.05198), every second product and all that is not a product (selective, as in torchtitan), or everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from perfmodel.count.operators import Collective, FusedAttention, Matmul, MemoryBound, Operator, gradients, is_attention_core
from perfmodel.count.roles import Role
from perfmodel.errors import NotSupportedError
from perfmodel.light_dataclass import dataclass, replace
from perfmodel.spec.fields import Numeric, anywhere
from perfmodel.spec.phases import RECOMPUTE

Selection = Callable[[Operator], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Forward operators and the backward operators that answer them, both in the order in which they run."""

    forward: tuple[Operator, ...] = ()
    backward: tuple[Operator, ...] = ()

    def __add__(self, later: Block) -> Block:
        return Block(forward=self.forward + later.forward, backward=later.backward + self.backward)

    def times(self, number: Numeric) -> Block:
        """The same operators, so many times each."""
        forward, backward = (tuple(_times(op, number) for op in way) for way in (self.forward, self.backward))
        return Block(forward=forward, backward=backward)

    def replayed(self) -> Block:
        """The same operators, launched by a CUDA graph."""
        forward, backward = (tuple(replace(op, replayed=True) for op in way) for way in (self.forward, self.backward))
        return Block(forward=forward, backward=backward)

    @property
    def operators(self) -> tuple[Operator, ...]:
        """Forward, then backward."""
        return self.forward + self.backward


def _times(operator: Operator, number: Numeric) -> Operator:
    if isinstance(operator, Collective):
        return replace(operator, repeats=operator.repeats * number)
    return replace(operator, repeats=operator.repeats * number, saved_bytes=operator.saved_bytes * number)


def local(operator: Matmul | FusedAttention | MemoryBound) -> Block:
    """A block of one operator that needs no communication."""
    return Block(forward=(operator,), backward=gradients(operator))


def _of_the_core(operator: Operator) -> bool:
    """The attention core, and what ranks that share a sequence exchange for it."""
    return is_attention_core(operator) or operator.role is Role.CORE_EXCHANGE


def _but_first_products(operator: Operator) -> bool:
    """Every second product, and all memory-bound operators and gathers."""
    is_gather = isinstance(operator, Collective) and operator.kind == "all_gather" and operator.role is Role.COLLECTIVE
    return isinstance(operator, MemoryBound) or operator.role is Role.OUTPUT_PRODUCT or is_gather


@dataclass(frozen=True, slots=True, kw_only=True)
class RecomputedModule:
    """A module that software runs again for itself: what runs, and whose inputs are not kept, being its results.

    One that `is_whole` is a feed-forward part of a layer behind its norm, of the kind called so: all of it runs again, and what
    its first product reads is kept.
    """

    reruns: frozenset[Role] = frozenset()
    frees: frozenset[Role] = frozenset()
    whole: str = ""


MODULES: Final[Mapping[str, RecomputedModule]] = MappingProxyType(  # Megatron-Core, recompute_modules
    {
        "core_attn": RecomputedModule(
            reruns=frozenset({Role.CORE, Role.SCORES, Role.CORE_EXCHANGE}), frees=frozenset({Role.SCORES})
        ),
        "layernorm": RecomputedModule(reruns=frozenset({Role.NORM}), frees=frozenset({Role.PRODUCT})),
        "mla_up_proj": RecomputedModule(reruns=frozenset({Role.UP_PROJECTION}), frees=frozenset({Role.CORE})),
        "moe_act": RecomputedModule(reruns=frozenset({Role.EXPERT_ACTIVATION}), frees=frozenset({Role.EXPERT_OUTPUT})),
        "shared_experts": RecomputedModule(reruns=frozenset({Role.SHARED_EXPERT}), frees=frozenset({Role.SHARED_EXPERT})),
        "mlp": RecomputedModule(whole="dense"),
        "moe": RecomputedModule(whole="experts"),
    }
)


def roles_run_again(modules: Iterable[str]) -> frozenset[Role]:
    """The roles whose operators the modules called so run again.

    >>> [str(role) for role in roles_run_again(["moe_act"])]
    ['expert_activation']
    """
    return frozenset().union(*(MODULES[name].reruns for name in modules))


class Rerun(NamedTuple):
    """Operators that run again, and the bytes that are formed then instead of being kept."""

    operators: tuple[Operator, ...]
    freed_bytes: Numeric


def rerun_of_modules(attention: Block, feed_forward: Block, kind: str, modules: Iterable[str]) -> Rerun:
    """What the modules called so run again of a layer whose feed-forward part is of `kind`."""
    roles = {op.role for op in (*attention.forward, *feed_forward.forward)}
    chosen = [each for name in modules if (each := MODULES[name]).whole or each.reruns & roles]  # what this layer has of them
    reruns, frees = (frozenset().union(*(getattr(each, what) for each in chosen)) for what in ("reruns", "frees"))
    inside = [op for op in feed_forward.forward if op.role is not Role.NORM]
    whole = inside if any(each.whole == kind for each in chosen) else []
    first = next((op for op in whole if isinstance(op, Matmul)), None)
    again: list[Operator] = []
    freed: Numeric = 0.0
    for operator in (*attention.forward, *feed_forward.forward):
        is_whole = any(operator is each for each in whole)
        if is_whole or operator.role in reruns:
            again.append(operator)
        if not isinstance(operator, Collective) and (operator.role in frees or is_whole) and operator is not first:
            freed = freed + operator.saved_bytes
    return Rerun(tuple(again), freed)


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


def with_recompute(layer: Block, mode: str, selection: str, *, stops_early: bool) -> Block:
    """The layer when `mode` of it is run again: selected operators right before the gradient that needs them first.

    Full recompute that `stops_early` leaves out what no gradient needs: the last product, and all that comes after it.
    """
    chosen = runs_again(mode, selection)
    again = [op for op in layer.forward if chosen(op)]
    if mode == "full" and stops_early:
        again = _until_all_is_kept(again)
    return with_operators_again(layer, again, is_all=mode == "full")


def _until_all_is_kept(forward: Sequence[Operator]) -> list[Operator]:
    """Forward operators up to the last that keeps something: with it, or before it if it is a product, which keeps its input.

    PyTorch, torch/utils/checkpoint.py: without reentrant autograd it raises _StopRecomputationError once it has as many tensors
    as the forward pass kept. A mask of dropout behind the last product is kept, and the product with it is needed.
    """
    keeping = [place for place, op in enumerate(forward) if not isinstance(op, Collective) and anywhere(op.saved_bytes)]
    if not keeping:
        return list(forward)
    last = keeping[-1]
    return list(forward[: last if isinstance(forward[last], Matmul) else last + 1])


def with_operators_again(layer: Block, operators: Iterable[Operator], *, is_all: bool = False) -> Block:
    """The layer with some of its forward operators once more in its backward pass, before it needs the first of them."""
    repeated = tuple(_again(op) for op in operators)
    if not repeated:
        return layer
    names = {op.name for op in repeated}
    first = 0 if is_all else next((place for place, op in enumerate(layer.backward) if op.name in names), 0)
    return Block(forward=layer.forward, backward=layer.backward[:first] + repeated + layer.backward[first:])


def _again(operator: Operator) -> Operator:
    if isinstance(operator, Collective):
        partner = (operator.partner[0], RECOMPUTE) if operator.partner[0] else operator.partner
        return replace(operator, phase=RECOMPUTE, partner=partner)
    return replace(operator, phase=RECOMPUTE, saved_bytes=0.0)
