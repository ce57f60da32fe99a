"""A measured step in time: what each operator took on average, in the order in which the prediction runs them.

A record has the time of each operator in a whole iteration. Every execution gets its share of that, one after the other (the
reference model overlaps nothing); time that belongs to no execution shown comes after them. In a pipeline the record has the
mean over the stages: all layers of the model share that, and what stages wait for each other comes last.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from perfmodel.count.blocks import Block
from perfmodel.count.iteration import Iteration
from perfmodel.count.operators import Operator
from perfmodel.events.pipeline_order import BACKWARD, FORWARD
from perfmodel.evidence.steps.compared import OVERHEAD, ComparedOperator
from perfmodel.evidence.steps.step_comparison import StepComparison
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.fields import whole
from perfmodel.spec.phases import OPTIMIZER

MOST_EXECUTIONS: Final = 60_000  # as many micro-batches are shown as have fewer executions together


class Execution(NamedTuple):
    """One operator in one pass (F, B or optimizer) of a measured step; micro-batches and layers count from 0.

    `share` is its part of all executions of the operator.
    """

    operator: Operator
    direction: str
    micro_batch: int | None
    layer: int | None
    start_s: float
    end_s: float
    pair: ComparedOperator  # of all executions of the operator
    share: float

    @property
    def predicted_s(self) -> float:
        """The seconds that are predicted for this execution alone."""
        return self.share * self.pair.predicted


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredStep:
    """The executions of the first micro-batches and of the optimizer step, then the time that belongs to none of them."""

    executions: tuple[Execution, ...]
    others: tuple[tuple[str, float, float], ...]  # name, start, end
    duration_s: float


def measured_step(comparison: StepComparison) -> MeasuredStep:
    """The profiled step of a record in time: its executions and the other time add up to the step."""
    pairs = {(pair.name, pair.phase): pair for pair in comparison.operators}
    left_s = {(pair.name, pair.phase): pair.measured for pair in comparison.operators if pair.name != OVERHEAD}
    executions, clock_s = [], 0.0
    stages = whole(comparison.predicted.layout.pipeline_parallel)
    for direction, batch, layer, operator in _in_order(comparison.predicted.work):
        pair = pairs.get((operator.name, operator.phase))
        if pair is None or not pair.measured or not pair.runs:
            continue
        share = _share(operator, pair, stages)
        start_s, seconds = clock_s, share * pair.measured
        clock_s += seconds
        left_s[operator.name, operator.phase] -= seconds
        executions.append(Execution(operator, direction, batch, layer, start_s, clock_s, pair, share))
    others = []
    for (name, phase), seconds in left_s.items():
        if seconds > 1e-6 * comparison.record.profiled_iteration_time_s:
            others.append((f"{name} ({phase})" if phase else name, clock_s, clock_s + seconds))
            clock_s += seconds
    return MeasuredStep(executions=tuple(executions), others=tuple(others), duration_s=clock_s)


def _share(operator: Operator, pair: ComparedOperator, stages: int) -> float:
    """The share of one pass in all executions of an operator, which are those of one stage of a pipeline on average."""
    every = pair.runs if operator.phase == OPTIMIZER else pair.runs * stages
    return float(operator.repeats) / every


def _in_order(work: Iteration) -> Iterator[tuple[str, int | None, int | None, Operator]]:
    """Direction, micro-batch, layer and operator of everything that one pipeline stage runs."""
    layers, batches = whole(work.setup.model.layers), whole(work.layout.micro_batches)
    most = work.layout.recompute_layers
    again = layers if most is None else min(whole(most), layers)
    blocks: list[tuple[int | None, Block]] = [(None, work.embedding)]
    for layer in range(layers):
        of_kind = work.layers[work.setup.model.kind_at(layer)]
        blocks.append((layer, of_kind.again if layer < again else of_kind.plain))
    blocks += [(None, work.head)]
    each = sum(len(block.operators) for _, block in blocks)
    for batch in range(min(batches, max(MOST_EXECUTIONS // each, 1))):
        yield from ((FORWARD, batch, layer, operator) for layer, block in blocks for operator in block.forward)
        yield from ((BACKWARD, batch, layer, operator) for layer, block in reversed(blocks) for operator in block.backward)
    yield from (("optimizer", None, None, operator) for operator in work.synchronisation)
