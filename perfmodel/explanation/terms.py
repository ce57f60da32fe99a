"""What stands behind one term of the iteration: its equations, the operators that make it up, and every number that moves it.

The equations are the docstrings of the very functions that compute the term, so that there is no second copy. The numbers
are not listed by hand either: those behind a term are those that change it when they are moved (planning/sensitivity.py).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pkgutil import resolve_name
from typing import Any, Final

import numpy as np

from perfmodel.count.blocks import is_attention_core
from perfmodel.count.data_parallel import DATA_PARALLEL
from perfmodel.count.operators import Collective, FusedAttention, Matmul, MemoryBound, Operator
from perfmodel.errors import InputError, did_you_mean, shown
from perfmodel.explanation.sensitivity import Effect, Moved
from perfmodel.frames import Tabular
from perfmodel.prediction import StagePrediction
from perfmodel.spec.fields import Numeric
from perfmodel.spec.hardware import Cluster
from perfmodel.spec.phases import OPTIMIZER, RECOMPUTE
from perfmodel.spec.stack import SoftwareStack
from perfmodel.timing.collectives import placement
from perfmodel.timing.kernels import kernel_time_s, loaded
from perfmodel.timing.ledger import Entry, ledger

TIMING: Final = "perfmodel.timing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One term: which operators make it up, what computes it from and beside their times, and which settings decide about it.

    Equations are named by their module, or as module:function.
    """

    selects: Callable[[Operator], bool]
    equations: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()  # categories: of the layout, or of the stack (stack.name)


def _in_passes(operator: Operator) -> bool:
    return operator.phase != OPTIMIZER


def _of_group(name: str) -> Callable[[Operator], bool]:
    return lambda op: isinstance(op, Collective) and _in_passes(op) and op.group.name == name


def _nothing(_: Operator) -> bool:
    return False


TERMS: Final = {
    "matmul": Kind(
        selects=lambda op: isinstance(op, Matmul) and not is_attention_core(op),
        beside=(f"{TIMING}.kernels:slowest_compute_scale",),
        settings=("precision", "stack.fp8_products", "stack.fused_gradient_accumulation", "stack.separate_projections"),
    ),
    "attention": Kind(
        selects=is_attention_core,
        beside=(f"{TIMING}.kernels:slowest_compute_scale",),
        settings=("precision", "stack.fused_attention", "stack.attention_library"),
    ),
    "memory_bound": Kind(
        selects=lambda op: isinstance(op, MemoryBound) and _in_passes(op) and not is_attention_core(op),
        settings=("sequence_parallel", "stack.norm_kernels", "stack.fused_activation", "stack.fused_squared_relu"),
    ),
    "tensor_parallel": Kind(
        selects=_of_group("tensor_parallel"),
        equations=(f"{TIMING}.passes",),
        settings=("sequence_parallel", "stack.tensor_parallel_overlap"),
    ),
    "context_parallel": Kind(
        selects=_of_group("context_parallel"),
        equations=(f"{TIMING}.passes",),
        settings=("stack.context_parallel_exchange", "stack.balanced_context_parallel"),
    ),
    "pipeline_parallel": Kind(
        selects=_of_group("pipeline_parallel"),
        equations=(f"{TIMING}.schedule", f"{TIMING}.pipeline"),
        settings=("pipeline_schedule", "stack.pipeline_overlap", "stack.scatter_gather_pipeline"),
    ),
    "pipeline_bubble": Kind(
        selects=_nothing,
        equations=(f"{TIMING}.schedule", f"{TIMING}.pipeline"),
        settings=("pipeline_schedule", "stack.pipeline_split"),
    ),
    "data_parallel": Kind(
        selects=lambda op: op.name in DATA_PARALLEL,
        equations=(f"{TIMING}.data_parallel", "perfmodel.count.data_parallel:buckets"),
        settings=("sharding", "stack.data_parallel_overlap", "stack.bucket_rule"),
    ),
    "communication_slowdown": Kind(
        selects=lambda op: isinstance(op, Collective) and (bool(op.partner[0]) or op.name in DATA_PARALLEL),
        equations=(f"{TIMING}.passes", f"{TIMING}.passes:sm_fraction"),
        settings=("stack.tensor_parallel_overlap", "stack.data_parallel_overlap"),
    ),
    "recompute": Kind(
        selects=lambda op: op.phase == RECOMPUTE and not isinstance(op, Collective),
        equations=("perfmodel.count.blocks",),
        settings=("recompute", "stack.selective_recompute"),
    ),
    "launch": Kind(selects=_nothing, equations=(f"{TIMING}.passes:Direction._with_waiting",)),
    "unlisted": Kind(selects=_nothing, equations=(f"{TIMING}.passes:Direction._with_waiting",)),
    "optimizer": Kind(
        selects=lambda op: op.phase == OPTIMIZER and op.name not in DATA_PARALLEL,
        equations=(f"{TIMING}.schedule:_optimizer",),
        settings=("sharding", "stack.overwrites_gradients"),
    ),
}
STEPS: Final = {  # of a waterfall -> the term that they are cut from
    "wider_arithmetic": "matmul",
    "uncounted_flop": "matmul",
    "causal_mask": "attention",
    "matmul_kernels": "matmul",
    "attention_kernels": "attention",
    "clocks": "matmul",
    "uneven_stages": "pipeline_bubble",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Equation:
    """What one function, or one module, says that it computes."""

    name: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Behind:
    """One number behind a term, and what a step of it does to the term and to the whole iteration."""

    path: str
    value: float
    step: float  # up, or down for a number at its upper limit
    term_change: float
    iteration_change: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Term(Tabular):
    """One term of one layout; entries are those of all pipeline stages together, each alone."""

    name: str
    seconds: float
    share: float  # of the iteration
    equations: tuple[Equation, ...]
    settings: tuple[tuple[str, Any], ...]
    entries: tuple[Entry, ...]
    numbers: tuple[Behind, ...]

    def rows(self) -> list[dict[str, Any]]:
        """The numbers behind the term, those that move it most first."""
        return [asdict(each) for each in self.numbers]


def term(name: str, predicted: StagePrediction, moved: Moved, *, cluster: Cluster, stack: SoftwareStack) -> Term:
    """The term called so (as a breakdown has it, too), or that a step of the waterfall called so is cut from.

    Errors: InputError with a did-you-mean.
    """
    plain_name = name.strip().replace("-", "_").removesuffix("_s").removesuffix("_exposed")
    known = STEPS.get(plain_name, plain_name)
    if known not in TERMS:
        raise InputError(f"{shown(name)} is not a term of the iteration; {did_you_mean(name, TERMS)}", key="term")
    kind = TERMS[known]
    listed = ledger(predicted.work, gpus=predicted.layout.gpus, cluster=cluster, stack=stack)
    entries = tuple(entry for entry in listed if kind.selects(entry.operator))
    seconds = np.asarray(_recompute_s(moved) if known == "recompute" else getattr(moved.breakdown, part_of(known)))
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


def part_of(name: str) -> str:
    """The part of a Breakdown that a term is.

    >>> part_of("tensor_parallel"), part_of("launch")
    ('tensor_parallel_exposed_s', 'launch_s')
    """
    return f"{name}_exposed_s" if name.endswith("_parallel") else f"{name}_s"


def _recompute_s(moved: Moved) -> Numeric:
    """The kernels of an average GPU that run again."""
    cluster, total_s = loaded(moved.cluster, moved.layout.gpus), 0.0 * moved.breakdown.total_s
    for operator, repeats in moved.work.executions():
        if operator.phase == RECOMPUTE and not isinstance(operator, Collective):
            total_s = total_s + repeats * kernel_time_s(operator, cluster=cluster, stack=moved.stack)
    return total_s / moved.layout.pipeline_parallel


def _numbers(moved: Moved, seconds: Numeric) -> tuple[Behind, ...]:
    """Those that move a time, each alone."""
    whole = {effect.lever.name: effect for effect in moved.effects()}
    alone = [each for each in moved.effects(seconds) if each.matters and len(each.lever.coefficients) == 1]
    found = [_behind(effect, whole[effect.lever.name]) for effect in alone]
    return tuple(sorted(found, key=lambda each: -abs(each.term_change)))


def _behind(term_effect: Effect, whole: Effect) -> Behind:
    (only,) = term_effect.lever.coefficients
    rises = term_effect.up.step != 0.0
    part, iteration = (effect.up if rises else effect.down for effect in (term_effect, whole))
    return Behind(path=only.path, value=only.value, step=part.step, term_change=part.change, iteration_change=iteration.change)


def _setting(path: str, predicted: StagePrediction, stack: SoftwareStack) -> Any:
    owner, _, name = path.rpartition(".")
    return getattr(stack if owner else predicted.layout, name)


def _equations(kind: Kind, operators: Sequence[Operator], cluster: Cluster) -> tuple[Equation, ...]:
    """Those of the term itself, those that time its operators, and what lies beside them; each once."""
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
