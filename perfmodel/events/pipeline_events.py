"""When each pass of a pipeline runs: an event simulation of the order in which each stage runs its tasks.

It is the oracle of the closed form in timing/pipeline.py, and what a timeline draws. A stage runs its tasks in their order
(events/pipeline_order.py), each as soon as the one before it is done and its input is there. A message takes `message_s`:

    overlapped   it leaves when its task is done and the stage's earlier messages have left; only who needs it waits for it
    waiting      between two steps a stage exchanges what it has made for what it needs next, and does nothing else meanwhile; a
                 message starts when both its ends have come to it, and shares the link with the others of its exchange (NCCL)

A negative `message_s` lets a task start so much before its input is done.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from itertools import pairwise
from typing import NamedTuple

from perfmodel.events.pipeline_order import BACKWARD, FORWARD, WEIGHTS, Order, Step, Task
from perfmodel.light_dataclass import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Pieces:
    """Seconds of one micro-batch on each piece; `weight_s` is empty where B forms both gradients.

    `longer_s` are tasks that take longer than the others of their piece, and by how much.
    """

    forward_s: Sequence[float]
    backward_s: Sequence[float]
    weight_s: Sequence[float] = ()
    longer_s: Mapping[Task, float] = field(default_factory=dict)

    def seconds(self, task: Task) -> float:
        """How long one task takes."""
        usual_s = {FORWARD: self.forward_s, BACKWARD: self.backward_s, WEIGHTS: self.weight_s}[task.kind][task.piece]
        return usual_s + self.longer_s.get(task, 0.0)

    def end(self, kind: str) -> int:
        """The piece whose output goes nowhere."""
        return len(self.forward_s) - 1 if kind == FORWARD else 0


class Interval(NamedTuple):
    """From when until when something lasts."""

    start_s: float
    end_s: float


class Message(NamedTuple):
    """From when until when what a task made is under way, on a link that so many of its exchange share."""

    start_s: float
    end_s: float
    sharing: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineEvents:
    """When each task runs, when its message is under way, and when each stage begins its first task and ends its last."""

    tasks: Mapping[Task, Interval]
    messages: Mapping[Task, Message]  # by the task that made it
    start_s: Sequence[float]
    end_s: Sequence[float]

    @property
    def total_s(self) -> float:
        """From the first start to the last end: all stages wait for each other before the next iteration."""
        return max(self.end_s) - min(self.start_s)

    @property
    def longest_s(self) -> float:
        """The longest that a stage takes: each goes on to its next iteration alone (arXiv:2401.10241, section 4)."""
        return max(end - start for start, end in zip(self.start_s, self.end_s, strict=True))


def simulated(order: Order, pieces: Pieces, *, message_s: float = 0.0, waits: bool = False) -> PipelineEvents:
    """Run `order`: each stage in its turn goes on until it needs another."""
    run = _Run(len(order), pieces, message_s)
    running = [(run.waiting if waits else run.overlapped)(stage, steps) for stage, steps in enumerate(order)]
    while running:
        before = run.events
        running = [stage for stage in running if next(stage, "ended") != "ended"]
        if running and run.events == before:
            message = "the stages wait for each other"
            raise RuntimeError(message)
    return PipelineEvents(tasks=run.ran, messages=run.sent, start_s=run.start_s, end_s=run.clock_s)


class _Run:
    """The clocks of all stages and what passes between them; a stage is a generator that yields where it needs another."""

    def __init__(self, stages: int, pieces: Pieces, message_s: float) -> None:
        self.stages, self.pieces, self.message_s, self.events = stages, pieces, message_s, 0
        self.start_s, self.clock_s, self.link_free_s = [-1.0] * stages, [0.0] * stages, [0.0] * stages
        self.ran: dict[Task, Interval] = {}
        self.sent: dict[Task, Message] = {}  # until the output of a task is where it is needed
        self.come: dict[tuple[str, Task], tuple[float, int]] = {}  # when an end comes to a message; how many share the link

    def source(self, task: Task) -> Task | None:
        """The task of another stage whose output this one needs."""
        begins = task.piece == self.pieces.end(BACKWARD if task.kind == FORWARD else FORWARD)
        if self.stages == 1 or task.kind == WEIGHTS or begins:
            return None
        return task._replace(piece=task.piece + (-1 if task.kind == FORWARD else 1))

    def is_sent(self, task: Task) -> bool:
        """Whether another stage needs the output of this task."""
        return self.stages > 1 and task.kind != WEIGHTS and task.piece != self.pieces.end(task.kind)

    def overlapped(self, stage: int, steps: Sequence[Step]) -> Iterator[None]:
        """Run tasks while their messages are on the way: the stage does not wait for what it sends."""
        for task in (task for step in steps for task in step):
            yield from self.compute(stage, task)
            if self.is_sent(task):
                leaves_s = max(self.clock_s[stage], self.link_free_s[stage])
                self.sent[task] = Message(leaves_s, leaves_s + self.message_s, 1)
                self.link_free_s[stage] = leaves_s + self.message_s

    def waiting(self, stage: int, steps: Sequence[Step]) -> Iterator[None]:
        """Run tasks, and wait for an exchange of messages between each step and the next."""
        nothing: Step = ()
        for step, following in pairwise([nothing, *steps, nothing]):
            for task in step:
                yield from self.compute(stage, task)
            sends = [task for task in step if self.is_sent(task)]
            receives = [source for task in following if (source := self.source(task))]
            yield from self.exchange(stage, sends, receives)

    def compute(self, stage: int, task: Task) -> Iterator[None]:
        """Run one task as soon as its input is there."""
        source = self.source(task)
        while source and source not in self.sent:
            yield
        begin_s = max(self.clock_s[stage], self.sent[source].end_s if source else 0.0)
        self.start_s[stage] = begin_s if self.start_s[stage] < 0 else self.start_s[stage]
        self.clock_s[stage] = begin_s + self.pieces.seconds(task)
        self.ran[task] = Interval(begin_s, self.clock_s[stage])
        self.events += 1

    def exchange(self, stage: int, sends: list[Task], receives: list[Task]) -> Iterator[None]:
        """Messages that are all over before the stage goes on."""
        begin_s = self.clock_s[stage]
        both = (("send", "receive", sends), ("receive", "send", receives))
        for own, _, tasks in both:
            self.come.update({(own, task): (begin_s, len(tasks)) for task in tasks})
            self.events += len(tasks)
        for own, other, task in ((own, other, task) for own, other, tasks in both for task in tasks):
            while (other, task) not in self.come:
                yield
            ends = self.come[own, task], self.come[other, task]
            both_come_s, sharing = max(come for come, _ in ends), max(number for _, number in ends)
            self.sent[task] = Message(both_come_s, both_come_s + sharing * self.message_s, sharing)
            self.clock_s[stage] = max(self.clock_s[stage], self.sent[task].end_s)
