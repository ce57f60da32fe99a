"""An oracle for pipelines: what an event simulation makes of the order in which each stage runs its tasks.

Symbols: p stages, i = 0 .. p - 1 one of them, v virtual_pipeline.

The model is cut into p*v pieces; piece g is on stage g % p. A task is one pass of one micro-batch over one piece: "F" forward,
"B" backward (of the inputs only, where weight gradients are apart), "W" weight gradients. A stage runs its tasks in their
order, each as soon as the one before it is done and its input is there. A message takes `message_s`:

    overlapped   it leaves when its task is done and the stage's earlier messages have left; only who needs it waits for it
    waiting      between two steps a stage exchanges what it has made for what it needs next, and does nothing else meanwhile; a
                 message starts when both its ends have come to it, and shares the link with the others of its exchange (NCCL)

Orders: 1F1B and its interleaved form as in Megatron-Core (pipeline_parallel/schedules.py); ZB-H1 and ZB-H2 as in
arXiv:2401.10241, section 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple


class Task(NamedTuple):
    """One pass of one micro-batch over one piece."""

    kind: str  # F | B | W
    piece: int
    micro_batch: int


Step = tuple[Task, ...]  # tasks with no exchange between them
Order = list[list[Step]]  # the steps of each stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Pieces:
    """Seconds of one micro-batch on each piece; `weight_s` is empty where "B" forms both gradients."""

    forward_s: Sequence[float]
    backward_s: Sequence[float]
    weight_s: Sequence[float] = ()

    def seconds(self, task: Task) -> float:
        """How long one task takes."""
        return {"F": self.forward_s, "B": self.backward_s, "W": self.weight_s}[task.kind][task.piece]

    def end(self, kind: str) -> int:
        """The piece whose output goes nowhere."""
        return len(self.forward_s) - 1 if kind == "F" else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """When each stage starts its first task and ends its last."""

    start_s: list[float]
    end_s: list[float]

    @property
    def total_s(self) -> float:
        """From the first start to the last end: all stages wait for each other before the next iteration."""
        return max(self.end_s) - min(self.start_s)

    @property
    def longest_s(self) -> float:
        """The longest that a stage takes: each goes on to its next iteration alone (arXiv:2401.10241, section 4)."""
        return max(end - start for start, end in zip(self.start_s, self.end_s, strict=True))


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
    steps = [("F", each) for each in range(min(warm_up, micro_batches))]
    for each in range(micro_batches):
        if each + warm_up < micro_batches:
            steps.append(("F", each + warm_up))
        steps.append(("B", each))
        if kept is not None and each >= kept:
            steps.append(("W", each - kept))
    if kept is not None:
        steps += [("W", each) for each in range(max(micro_batches - kept, 0), micro_batches)]
    return [(Task(kind, stage, each),) for kind, each in steps]


def interleaved(stages: int, virtual: int, micro_batches: int) -> Order:
    """Megatron's interleaved 1F1B: (p - 1 - i)*2 + (v - 1)*p passes first; p micro-batches on one piece, then on the next."""
    groups = range(0, micro_batches, stages)
    turns = [(chunk, group + each) for group in groups for chunk in range(virtual) for each in range(stages)]
    order: Order = []
    for stage in range(stages):
        forward = [Task("F", chunk * stages + stage, each) for chunk, each in turns]
        backward = [Task("B", (virtual - 1 - chunk) * stages + stage, each) for chunk, each in turns]
        warm_up = min((stages - 1 - stage) * 2 + (virtual - 1) * stages, len(turns))
        steady = len(turns) - warm_up
        pairs = zip(forward[warm_up:], backward[:steady], strict=True)
        order.append([*((task,) for task in forward[:warm_up]), *pairs, *((task,) for task in backward[steady:])])
    return order


def in_flight_peak(steps: Sequence[Step]) -> int:
    """The most pieces of micro-batches that a stage holds: each from its forward pass until its last gradient is formed."""
    tasks = [task for step in steps for task in step]
    last = "W" if any(task.kind == "W" for task in tasks) else "B"
    held = peak = 0
    for task in tasks:
        held += (task.kind == "F") - (task.kind == last)
        peak = max(peak, held)
    return peak


def simulated(order: Order, pieces: Pieces, *, message_s: float = 0.0, waits: bool = False) -> Timeline:
    """Run `order`: each stage in its turn goes on until it needs another."""
    run = _Run(len(order), pieces, message_s)
    running = [(run.waiting if waits else run.overlapped)(stage, steps) for stage, steps in enumerate(order)]
    while running:
        before = run.events
        running = [stage for stage in running if next(stage, "ended") != "ended"]
        if running and run.events == before:
            message = "the stages wait for each other"
            raise RuntimeError(message)
    return Timeline(start_s=run.start_s, end_s=run.clock_s)


class _Run:
    """The clocks of all stages and what passes between them; a stage is a generator that yields where it needs another."""

    def __init__(self, stages: int, pieces: Pieces, message_s: float) -> None:
        self.stages, self.pieces, self.message_s, self.events = stages, pieces, message_s, 0
        self.start_s, self.clock_s, self.link_free_s = [-1.0] * stages, [0.0] * stages, [0.0] * stages
        self.ready_s: dict[Task, float] = {}  # when the output of a task is where it is needed
        self.come: dict[tuple[str, Task], tuple[float, int]] = {}  # when an end comes to a message; how many share the link

    def source(self, task: Task) -> Task | None:
        """The task of another stage whose output this one needs."""
        begins = task.piece == self.pieces.end("B" if task.kind == "F" else "F")
        if self.stages == 1 or task.kind == "W" or begins:
            return None
        return task._replace(piece=task.piece + (-1 if task.kind == "F" else 1))

    def is_sent(self, task: Task) -> bool:
        """Whether another stage needs the output of this task."""
        return self.stages > 1 and task.kind != "W" and task.piece != self.pieces.end(task.kind)

    def overlapped(self, stage: int, steps: Sequence[Step]) -> Iterator[None]:
        """Tasks whose messages leave by themselves."""
        for task in (task for step in steps for task in step):
            yield from self.compute(stage, task)
            if self.is_sent(task):
                self.link_free_s[stage] = max(self.clock_s[stage], self.link_free_s[stage]) + self.message_s
                self.ready_s[task] = self.link_free_s[stage]

    def waiting(self, stage: int, steps: Sequence[Step]) -> Iterator[None]:
        """Tasks, and an exchange between each step and the next."""
        nothing: Step = ()
        for step, following in pairwise([nothing, *steps, nothing]):
            for task in step:
                yield from self.compute(stage, task)
            sends = [task for task in step if self.is_sent(task)]
            receives = [source for task in following if (source := self.source(task))]
            yield from self.exchange(stage, sends, receives)

    def compute(self, stage: int, task: Task) -> Iterator[None]:
        """One task, when its input is there."""
        source = self.source(task)
        while source and source not in self.ready_s:
            yield
        begin_s = max(self.clock_s[stage], self.ready_s[source] if source else 0.0)
        self.start_s[stage] = begin_s if self.start_s[stage] < 0 else self.start_s[stage]
        self.clock_s[stage] = begin_s + self.pieces.seconds(task)
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
            both_come_s, sharing = map(max, zip(self.come[own, task], self.come[other, task], strict=True))
            self.ready_s[task] = both_come_s + sharing * self.message_s
            self.clock_s[stage] = max(self.clock_s[stage], self.ready_s[task])
