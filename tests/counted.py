"""What tests ask of a counted iteration and of its prediction: the one place that knows how both are called."""

from __future__ import annotations

from typing import TypeVar

from perfmodel.count.data_parallel import Buckets
from perfmodel.count.iteration import Iteration, iteration
from perfmodel.count.operators import MemoryBound, Operator
from perfmodel.prediction import StagePrediction, predict_stage
from perfmodel.spec.fields import Numeric
from perfmodel.spec.layout import Layout
from perfmodel.spec.machines.hardware import Cluster
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.phases import FORWARD
from perfmodel.spec.stack import SoftwareStack
from tests.setups import setup_of

Kind = TypeVar("Kind", bound=Operator)


def counted(model: TransformerModel, layout: Layout, stack: SoftwareStack) -> Iteration:
    """The operators of one iteration."""
    return iteration(setup_of(model, layout, stack))


def bucketed(model: TransformerModel, layout: Layout, stack: SoftwareStack) -> Buckets:
    """How its parameters are grouped for data parallelism."""
    return iteration(setup_of(model, layout, stack)).buckets


def predicted(model: TransformerModel, cluster: Cluster, stack: SoftwareStack, layout: Layout) -> StagePrediction:
    """Its prediction."""
    return predict_stage(setup_of(model, layout, stack, cluster=cluster))


def named(work: Iteration, name: str, kind: type[Kind], phase: str = FORWARD) -> Kind:
    """The operator of one name and phase."""
    (found,) = (op for op in work.operators if isinstance(op, kind) and (op.name, op.phase) == (name, phase))
    return found


def moved_bytes(work: Iteration, name: str, phase: str = FORWARD) -> Numeric:
    """What one execution of a memory-bound operator reads and writes."""
    return named(work, name, MemoryBound, phase).moved_bytes
