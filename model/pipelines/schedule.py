"""In which order a pipeline stage runs its passes: 1F1B, and its interleaved form where a stage holds several pieces.

Symbols: p stages, i = 0 .. p - 1 one of them, v pieces of each, m micro-batches. Sources: arXiv:2104.04473, section 2.2;
Megatron-Core, pipeline_parallel/schedules.py.
"""

from __future__ import annotations

from typing import NamedTuple

from perfmodel.spec.layout import Layout


class Task(NamedTuple):
    """One pass of one micro-batch over one of a stage's own pieces; all count from 0."""

    backward: bool
    chunk: int
    micro_batch: int


Step = tuple[Task, ...]  # tasks with no messages between them


def schedule_of_stage(layout: Layout, stage: int) -> list[Step]:
    """A warm-up of forward passes, then forward and backward in turn, then the backward passes that are left.

    The warm-up is p - 1 - i passes; interleaved, where p micro-batches at a time go over one piece and then over the next,
    2*(p - 1 - i) + (v - 1)*p, and a forward and a backward pass are one step.

    >>> from perfmodel.spec.layout import Layout
    >>> sizes = {"tensor_parallel": 1, "data_parallel": 1, "micro_batch_size": 1, "sequence_length": 8}
    >>> words = {"precision": "fp32", "sequence_parallel": False, "sharding": "none", "recompute": "none"}
    >>> layout = Layout(pipeline_parallel=2, global_batch_size=3, **sizes, **words)
    >>> ["".join("FB"[task.backward] for task in step) for step in schedule_of_stage(layout, 0)]
    ['F', 'F', 'B', 'F', 'B', 'B']
    """
    stages, pieces, batches = (int(each) for each in (layout.pipeline_parallel, layout.virtual_pipeline, layout.micro_batches))
    after, together = stages - 1 - stage, stages if pieces > 1 else 1
    turns = [
        (chunk, first + each)
        for first in range(0, batches, together)
        for chunk in range(pieces)
        for each in range(min(together, batches - first))
    ]
    forward = [Task(False, chunk, batch) for chunk, batch in turns]
    backward = [Task(True, pieces - 1 - chunk, batch) for chunk, batch in turns]
    warm_up = min(2 * after + (pieces - 1) * stages if pieces > 1 else after, len(turns))
    steps: list[Step] = [(task,) for task in forward[:warm_up]]
    for pair in zip(forward[warm_up:], backward, strict=False):
        steps += [pair] if pieces > 1 else [(task,) for task in pair]
    return [*steps, *((task,) for task in backward[len(turns) - warm_up :])]
