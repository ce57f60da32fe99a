"""What stands behind one term of the iteration: its equations, the operators that make it up, and every number that moves it.

The equations are the docstrings of the very functions that compute the term, so that there is no second copy. The numbers
are not listed by hand either: those behind a term are those that change it when they are moved (explanation/sensitivity.py).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from operator import attrgetter
from pkgutil import resolve_name
from typing import Any, Final

import numpy as np

from perfmodel.count.operators import (
    Collective,
    FusedAttention,
    Matmul,
    MemoryBound,
    Operator,
    is_attention_core,
    moves_data_parallel,
)
from perfmodel.count.roles import TOKEN_EXCHANGE
from perfmodel.errors import InputError, did_you_mean, shown
from perfmodel.explanation.sensitivity import Effect, Sensitivity
from perfmodel.frames import Tabular
from perfmodel.light_dataclass import dataclass
from perfmodel.prediction import StagePrediction
from perfmodel.spec.axes import BETWEEN_REPLICAS, BETWEEN_STAGES, PIPELINE, REPORTED, WITHIN_LAYERS, Axis
from perfmodel.spec.fields import Numeric, anywhere
from perfmodel.spec.machines.hardware import Cluster
from perfmodel.spec.phases import OPTIMIZER, RECOMPUTE
from perfmodel.spec.stack import SoftwareStack
from perfmodel.timing.breakdown import LAUNCH, RANKS, SLOWDOWN, UNLISTED
from perfmodel.timing.breakdown import OPTIMIZER as OPTIMIZER_PART
from perfmodel.timing.collectives import placement
from perfmodel.timing.kernels import at_cluster_load
from perfmodel.timing.ledger import Entry, ledger
from perfmodel.timing.passes import running_share
from perfmodel.timing.timed_operators import timed_operators

TIMING: Final = "perfmodel.timing"
RECOMPUTED: Final = "recompute"


@dataclass(frozen=True, slots=True, kw_only=True)
class TermKind:
    """One term: which operators make it up, what computes it from and beside their times, and which settings decide about it.

    `part` is the part of a breakdown that it is; empty for a term that lies in several. Equations are named by their module, or
    as module:function.
    """

    part: str
    selects: Callable[[Operator], bool]
    equations: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()  # categories: of the layout, or of the stack (stack.name)


def _in_passes(operator: Operator) -> bool:
    return operator.phase != OPTIMIZER


def _of_axis(axis: Axis) -> Callable[[Operator], bool]:
    if axis.communicates == BETWEEN_REPLICAS:
        return moves_data_parallel
    return lambda op: isinstance(op, Collective) and _in_passes(op) and op.group.axis == axis


def _nothing(_: Operator) -> bool:
    return False


EQUATIONS: Final = {  # of the messages of an axis, by where they are
    WITHIN_LAYERS: (f"{TIMING}.timed_operators",),
    BETWEEN_STAGES: (f"{TIMING}.schedule", f"{TIMING}.pipeline"),
    BETWEEN_REPLICAS: (f"{TIMING}.data_parallel", "perfmodel.count.data_parallel:buckets"),
}


def _terms_of(axis: Axis) -> Iterator[tuple[str, TermKind]]:
    """What of an axis is exposed, and where its ranks wait for each other, that wait."""
    equations = EQUATIONS[axis.communicates]
    yield axis.name, TermKind(part=axis.exposed_part, selects=_of_axis(axis), equations=equations, settings=axis.settings)
    if axis.bubble:
        settings = ("pipeline_schedule", "stack.states.pipeline_split")
        yield axis.bubble, TermKind(part=axis.bubble_part, selects=_nothing, equations=equations, settings=settings)


TERMS: Final = {
    "matmul": TermKind(
        part="matmul_s",
        selects=lambda op: isinstance(op, Matmul) and not is_attention_core(op),
        beside=(f"{TIMING}.kernels:slowest_compute_scale", f"{TIMING}.kernels:power_slowdown"),
        settings=(
            "precision",
            "stack.low_precision.products",
            "stack.fusion.matmul_library",
            "stack.fusion.gradient_accumulation",
            "stack.fusion.separate_projections",
            "stack.fusion.joined_heads",
        ),
    ),
    "attention": TermKind(
        part="attention_s",
        selects=is_attention_core,
        beside=(f"{TIMING}.kernels:slowest_compute_scale", f"{TIMING}.kernels:power_slowdown"),
        settings=(
            "precision",
            "stack.fusion.attention",
            "stack.fusion.attention_library",
            "stack.fusion.wide_attention",
            "stack.low_precision.attention",
            "stack.low_precision.attention_recipes",
        ),
    ),
    "memory_bound": TermKind(
        part="memory_bound_s",
        selects=lambda op: isinstance(op, MemoryBound) and _in_passes(op) and not is_attention_core(op),
        settings=("sequence_parallel", "stack.fusion.norms", "stack.fusion.activation", "stack.fusion.squared_relu"),
    ),
    **dict(term for axis in REPORTED for term in _terms_of(axis)),
    "communication_slowdown": TermKind(
        part=SLOWDOWN,
        selects=lambda op: isinstance(op, Collective) and (bool(op.partner[0]) or moves_data_parallel(op)),
        equations=(f"{TIMING}.timed_operators", f"{TIMING}.timed_operators:sm_fraction"),
        settings=("stack.overlap.tensor_parallel", "stack.overlap.data_parallel"),
    ),
    RECOMPUTED: TermKind(
        part="",
        selects=lambda op: op.phase == RECOMPUTE and not isinstance(op, Collective),
        equations=("perfmodel.count.blocks",),
        settings=("recompute", "stack.fusion.selective_recompute"),
    ),
    "launch": TermKind(part=LAUNCH, selects=_nothing, equations=(f"{TIMING}.passes:Direction._with_waiting",)),
    "unlisted": TermKind(part=UNLISTED, selects=_nothing, equations=(f"{TIMING}.passes:Direction._with_waiting",)),
    "optimizer": TermKind(
        part=OPTIMIZER_PART,
        selects=lambda op: op.phase == OPTIMIZER and not moves_data_parallel(op),
        equations=(f"{TIMING}.schedule:_optimizer", f"{TIMING}.schedule:optimizer_steps"),
        settings=("sharding", "stack.states.overwrites_gradients", "stack.overlap.blocking_zero1"),
    ),
    "rank_waiting": TermKind(part=RANKS, selects=_nothing, equations=(f"{TIMING}.waiting", f"{TIMING}.waiting:rank_waiting_s")),
}
STEPS: Final = {  # of a waterfall -> the term that they are cut from
    "wider_arithmetic": "matmul",
    "uncounted_flop": "matmul",
    "causal_mask": "attention",
    "matmul_kernels": "matmul",
    "attention_kernels": "attention",
    "clocks": "matmul",
    "uneven_stages": PIPELINE.bubble,
}
NAMES: Final = {  # what a term may be called: by its name, by the step or the part that it is, as files and JSON have it
    **{name: name for name in TERMS},
    **STEPS,
    **{kind.part: name for name, kind in TERMS.items() if kind.part},
    **{kind.part.removesuffix("_s"): name for name, kind in TERMS.items() if kind.part},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Equation:
    """What one function, or one module, says that it computes."""

    name: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TermNumber:
    """One number behind a term, and what a step of it does to the term and to the whole iteration."""

    path: str
    value: float
    step: float  # up, or down for a number at its upper limit
    term_change: float
    iteration_change: float


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Term(Tabular):
    """One term of one layout; entries are those of all pipeline stages together, each alone."""

    name: str
    seconds: float
    share: float  # of the iteration
    equations: tuple[Equation, ...]
    settings: tuple[tuple[str, Any], ...]
    entries: tuple[Entry, ...]
    numbers: tuple[TermNumber, ...]

    def rows(self) -> list[dict[str, Any]]:
        """The numbers behind the term, those that move it most first."""
        return [asdict(each) for each in self.numbers]


def term(name: str, predicted: StagePrediction, moved: Sensitivity, *, cluster: Cluster, stack: SoftwareStack) -> Term:
    """The term called so (as a breakdown has it, too), or that a step of the waterfall called so is cut from.

    Errors: InputError with a did-you-mean.
    """
    known = NAMES.get(name.strip().replace("-", "_"))
    if known is None:
        raise InputError(f"{shown(name)} is not a term of the iteration; {did_you_mean(name, TERMS)}", key="term")
    kind = TERMS[known]
    listed = ledger(predicted.work, gpus=predicted.layout.gpus, cluster=cluster, stack=stack)
    entries = tuple(entry for entry in listed if kind.selects(entry.operator))
    seconds = np.asarray(getattr(moved.breakdown, kind.part) if kind.part else _recompute_s(moved))
    now_s = float(seconds.flat[0])
    return Term(
        name=known,
        seconds=now_s,
        share=now_s / float(predicted.iteration_time_s),
        equations=_equations(kind, [entry.operator for entry in entries], cluster),
        settings=tuple((path, _setting(path, predicted, stack)) for path in kind.settings),
        entries=entries,
        numbers=_numbers(moved, seconds),
    )


def _recompute_s(moved: Sensitivity) -> Numeric:
    """The kernels of an average GPU that run again."""
    setup = moved.work.setup
    cluster, total_s = at_cluster_load(setup.cluster, setup.layout.gpus), 0.0 * moved.breakdown.total_s
    share = running_share(moved.work, cluster, setup.stack)
    for operators, times in moved.work.block_passes():
        for each in timed_operators(operators, share, cluster, setup.stack):
            if each.operator.phase == RECOMPUTE and not isinstance(each.operator, Collective):
                total_s = total_s + times * each.alone_s
    return total_s / setup.layout.pipeline_parallel * setup.own_shift.factor


def _numbers(moved: Sensitivity, seconds: Numeric) -> tuple[TermNumber, ...]:
    """Coefficients that change a term's time, each moved alone."""
    whole = {effect.lever.name: effect for effect in moved.effects()}
    alone = [each for each in moved.effects(seconds) if each.matters and len(each.lever.coefficients) == 1]
    found = [_behind(effect, whole[effect.lever.name]) for effect in alone]
    return tuple(sorted(found, key=lambda each: -abs(each.term_change)))


def _behind(term_effect: Effect, whole: Effect) -> TermNumber:
    (only,) = term_effect.lever.coefficients
    rises = term_effect.up.step != 0.0
    part, iteration = (effect.up if rises else effect.down for effect in (term_effect, whole))
    return TermNumber(
        path=only.path, value=only.value, step=part.step, term_change=part.change, iteration_change=iteration.change
    )


def _setting(path: str, predicted: StagePrediction, stack: SoftwareStack) -> Any:
    inside = path.removeprefix("stack.")
    return getattr(predicted.layout, path) if inside == path else attrgetter(inside)(stack)


def _equations(kind: TermKind, operators: Sequence[Operator], cluster: Cluster) -> tuple[Equation, ...]:
    """Equations of the term, of the operators in it, and what lies beside them; each once."""
    timed = [name for operator in operators for name in _of_operator(operator, cluster)]
    names = list(dict.fromkeys((*kind.equations, *timed, *kind.beside)))
    last = {name.partition(":")[0]: name for name in names}  # of each module, after which its symbols stand
    return tuple(_equation(name, with_symbols=name in last.values()) for name in names)


def _of_operator(operator: Operator, cluster: Cluster) -> Iterator[str]:
    match operator:
        case Matmul():
            yield f"{TIMING}.kernels:matmul_time_s"
        case FusedAttention():
            yield f"{TIMING}.attention:fused_attention_time_s"
        case MemoryBound():
            yield f"{TIMING}.kernels:memory_bound_time_s"
        case Collective():
            if operator.role in TOKEN_EXCHANGE:
                yield f"{TIMING}.timed_operators:expert_time_s"
            if anywhere(operator.beside_passes):
                yield f"{TIMING}.timed_operators:hidden_beside_passes"
                yield "perfmodel.count.parts.experts:paired_share"
            if operator.kind == "token_exchange":
                yield f"{TIMING}.collectives:network_exchange_time_s"
                yield f"{TIMING}.collectives:ranks_met"
                yield f"{TIMING}.collectives:places_met"
            if placement(operator.group, cluster).crosses_nodes:
                yield f"{TIMING}.collectives:network_collective_time_s"
                yield f"{TIMING}.collectives:network_efficiency"
                yield f"{TIMING}.collectives:placement"
            else:
                yield f"{TIMING}.collectives:node_collective_time_s"


def _equation(name: str, *, with_symbols: bool) -> Equation:
    """What `name` says of itself without the examples, and what the module of a function says of its symbols."""
    text = (inspect.getdoc(resolve_name(name)) or "").partition(">>>")[0].rstrip()
    module, _, function = name.partition(":")
    paragraphs = (inspect.getdoc(resolve_name(module)) or "").split("\n\n") if function and with_symbols else []
    symbols = [paragraph for paragraph in paragraphs if paragraph.startswith("Symbols:")]
    return Equation(name=name.replace(":", "."), text="\n\n".join([text, *symbols]))
