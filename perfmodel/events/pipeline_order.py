"""In which order each stage of a pipeline runs its passes: 1F1B, interleaved 1F1B and zero-bubble schedules.

Symbols: p stages, i = 0 .. p - 1 one of them, v virtual_pipeline.

The model is cut into p*v pieces; piece g is on stage g % p. A task is one pass of one micro-batch over one piece: "F" forward,
"B" backward (of the inputs only, where weight gradients are apart), "W" weight gradients.

Orders: 1F1B and its interleaved form as in Megatron-Core (pipeline_parallel/schedules.py); ZB-H1 and ZB-H2 as in
arXiv:2401.10241, section 2. The schedules of that paper which are searched for, ZB-1p and ZB-2p, are taken to run in the order
of those two, which hold as many micro-batches.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from perfmodel.spec.fields import whole
from perfmodel.spec.layout import Layout

FORWARD: Final = "F"
BACKWARD: Final = "B"
WEIGHTS: Final = "W"


class Task(NamedTuple):
    """One pass of one micro-batch over one piece."""

    kind: str  # F | B | W
    piece: int
    micro_batch: int


Step = tuple[Task, ...]  # tasks with no exchange between them
Order = list[list[Step]]  # the steps of each stage


def pipeline_order(layout: Layout) -> Order:
    """The order of one layout.

    >>> from dataclasses import replace
    >>> from perfmodel.exchange.run_files import read_candidates
    >>> run = read_candidates("nemotron-4-15b")[0].run
    >>> layout = replace(run.layout(run.stages[0]), pipeline_parallel=2, data_parallel=96, global_batch_size=96 * 3)
    >>> ["".join(task.kind for step in steps for task in step) for steps in pipeline_order(layout)]
    ['FFBFBB', 'FBFBFB']
    """
    stages, virtual = whole(layout.pipeline_parallel), whole(layout.virtual_pipeline)
    batches = whole(layout.micro_batches)
    if layout.pipeline_schedule == "1f1b":
        return interleaved(stages, virtual, batches) if virtual > 1 else one_forward_one_backward(stages, batches)
    return (zero_bubble_h2 if layout.pipeline_schedule == "zb-2p" else zero_bubble_h1)(stages, batches)


def one_forward_one_backward(stages: int, micro_batches: int) -> Order:
    """1F1B: p - 1 - i forward passes, then forward and backward in turn, then the backward passes that are left."""
    return [_in_turn(stage, stages - 1 - stage, micro_batches) for stage in range(stages)]


def zero_bubble_h1(stages: int, micro_batches: int) -> Order:
    """1F1B whose stage i keeps the weight gradients of i micro-batches: p are in flight on every stage."""
    return [_in_turn(stage, stages - 1 - stage, micro_batches, kept=stage) for stage in range(stages)]


def zero_bubble_h2(stages: int, micro_batches: int) -> Order:
    """2*(p - 1 - i) forward passes first, weight gradients kept for 2*i: 2*p - 1 are in flight on every stage."""
    return [_in_turn(stage, 2 * (stages - 1 - stage), micro_batches, kept=2 * stage) for stage in range(stages)]


def _in_turn(stage: int, warm_up: int, micro_batches: int, kept: int | None = None) -> list[Step]:
    """`warm_up` forward passes, then forward, backward and, of the micro-batch `kept` before it, weight gradients."""
    steps = [(FORWARD, each) for each in range(min(warm_up, micro_batches))]
    for each in range(micro_batches):
        if each + warm_up < micro_batches:
            steps.append((FORWARD, each + warm_up))
        steps.append((BACKWARD, each))
        if kept is not None and each >= kept:
            steps.append((WEIGHTS, each - kept))
    if kept is not None:
        steps += [(WEIGHTS, each) for each in range(max(micro_batches - kept, 0), micro_batches)]
    return [(Task(kind, stage, each),) for kind, each in steps]


def interleaved(stages: int, virtual: int, micro_batches: int) -> Order:
    """Megatron's interleaved 1F1B: (p - 1 - i)*2 + (v - 1)*p passes first; p micro-batches on one piece, then on the next."""
    groups = range(0, micro_batches, stages)
    turns = [(chunk, group + each) for group in groups for chunk in range(virtual) for each in range(stages)]
    order: Order = []
    for stage in range(stages):
        forward = [Task(FORWARD, chunk * stages + stage, each) for chunk, each in turns]
        backward = [Task(BACKWARD, (virtual - 1 - chunk) * stages + stage, each) for chunk, each in turns]
        warm_up = min((stages - 1 - stage) * 2 + (virtual - 1) * stages, len(turns))
        steady = len(turns) - warm_up
        pairs = zip(forward[warm_up:], backward[:steady], strict=True)
        order.append([*((task,) for task in forward[:warm_up]), *pairs, *((task,) for task in backward[steady:])])
    return order
