"""The spans of one pipeline stage: its passes, what it waits for between them, data parallelism and the optimizer step."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise, takewhile
from typing import Final

from perfmodel.planning.spans import PASSES, Place, Span
from perfmodel.planning.stream_spans import Streams, waiting
from perfmodel.timing.breakdown import PARTS
from perfmodel.timing.data_parallel import Window
from perfmodel.timing.iteration_events import IterationEvents, PlacedPass
from perfmodel.timing.passes import TimedOperator
from perfmodel.timing.pipeline_events import Interval
from perfmodel.timing.pipeline_order import Task
from perfmodel.timing.stage_passes import FORWARD, whole

PASS_KINDS: Final = {"F": "forward", "B": "backward", "W": "weight_gradients"}
BUBBLE: Final = "pipeline_bubble_s"
MESSAGES: Final = "pipeline_parallel_exposed_s"
EXPOSED: Final = "data_parallel_exposed_s"
ROUNDING_S: Final = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """How much is drawn: what runs in the first and last `full` micro-batches, each pass of the first and last `alone`."""

    detail: str  # operators | layers | passes
    full: int
    alone: int
    micro_batches: int

    def is_full(self, batch: int) -> bool:
        """Whether what runs in the passes of a micro-batch is drawn."""
        return self.detail != "passes" and min(batch, self.micro_batches - 1 - batch) < self.full

    def is_alone(self, batch: int) -> bool:
        """Whether each pass of a micro-batch is a span of its own."""
        return min(batch, self.micro_batches - 1 - batch) < self.alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimizer:
    """The optimizer step: its operators, what the CPU does once an iteration, and all of it."""

    steps: Sequence[TimedOperator]
    host_s: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSpans:
    """Everything that one stage does in its window of the iteration; `chunks` is how many pieces it holds."""

    stage: int
    chunks: int
    stages: int
    events: IterationEvents
    optimizer: Optimizer
    drawn: Drawn
    streams: Streams
    own_messages: Sequence[Interval]  # that it sends or receives, by their ends

    def __iter__(self) -> Iterator[Span]:
        yield from self._passes()
        yield from self.waits()
        yield from self._optimizer()
        for window in self.events.windows:
            yield from self._window(window)

    @property
    def passes(self) -> Sequence[PlacedPass]:
        """In their order."""
        return self.events.passes[self.stage]

    def place(self, task: Task | None = None) -> Place:
        """Of a pass, or of the stage."""
        if task is None:
            return Place(self.stage)
        return Place(self.stage, task.micro_batch, task.piece // self.stages if self.chunks > 1 else None)

    def _passes(self) -> Iterator[Span]:
        """Each by itself, or many that follow each other as one."""
        for alone, group in groupby(self.passes, lambda placed: self.drawn.is_alone(placed.task.micro_batch)):
            passes = list(group)
            if not alone and len(passes) > 1:
                yield self._folded(passes)
                continue
            for placed in passes:
                yield self._pass(placed)
                if self.drawn.is_full(placed.task.micro_batch):
                    yield from self.streams.of_pass(placed, self.place(placed.task))

    def _pass(self, placed: PlacedPass) -> Span:
        task, parts = placed.task, {part: float(getattr(placed.plan.parts, part)) for part in PARTS}
        name = f"{task.kind} {task.micro_batch + 1}"
        if self.chunks > 1:
            name += f".{task.piece // self.stages + 1}"
        return Span(
            place=self.place(task),
            track=PASSES,
            name=name,
            kind=PASS_KINDS[task.kind],
            start_s=placed.start_s,
            end_s=placed.end_s,
            parts={part: seconds for part, seconds in parts.items() if seconds},
        )

    def _folded(self, passes: Sequence[PlacedPass]) -> Span:
        sums = {part: sum(float(getattr(placed.plan.parts, part)) for placed in passes) for part in PARTS}
        start_s, end_s = passes[0].start_s, passes[-1].end_s
        kinds = [placed.task.kind for placed in passes]
        batches = [placed.task.micro_batch + 1 for placed in passes]
        details = {f"{word}_passes": kinds.count(kind) for kind, word in PASS_KINDS.items() if kind in kinds}
        details |= {"first_micro_batch": min(batches), "last_micro_batch": max(batches)}
        waits = {"waiting_s": max(end_s - start_s - sum(sums.values()), 0.0)}
        return Span(
            place=self.place(),
            track=PASSES,
            name=f"{len(passes)} passes more",
            kind="folded",
            start_s=start_s,
            end_s=end_s,
            parts={part: seconds for part, seconds in sums.items() if seconds},
            details=details | waits,
        )

    def waits(self) -> Iterator[Span]:
        """All time between passes of which at least one is drawn, before the first and after the last one."""
        begin_s = self.events.start_s[self.stage]
        first, last = self.passes[0], self.passes[-1]
        yield from self._gap(begin_s, first.start_s - first.exposed_before_s, following=first.task)
        yield from self._exposed(first)
        for one, other in pairwise(self.passes):
            if self.drawn.is_alone(one.task.micro_batch) or self.drawn.is_alone(other.task.micro_batch):
                start_s, end_s = one.end_s + one.exposed_after_s, other.start_s - other.exposed_before_s
                yield from self._gap(start_s, end_s, following=other.task)
                yield from self._exposed(other)
        step_s, end_s = self.events.optimizer_s[self.stage], begin_s + self.events.period_s
        agrees_s = end_s if self.events.staggered else step_s
        yield from self._gap(last.end_s + last.exposed_after_s, min(step_s, agrees_s - self.events.longer_s))
        yield from self._gap(step_s + self.optimizer.seconds, end_s - self.events.longer_s)
        if self.events.longer_s:
            yield waiting(self.place(), "what the closed form adds", agrees_s - self.events.longer_s, agrees_s, BUBBLE)

    def _exposed(self, placed: PlacedPass) -> Iterator[Span]:
        """What data parallelism leaves exposed before and after a pass."""
        name, place = "waiting for data parallelism", self.place(placed.task)
        if placed.exposed_before_s:
            yield waiting(place, name, placed.start_s - placed.exposed_before_s, placed.start_s, EXPOSED)
        if placed.exposed_after_s:
            yield waiting(place, name, placed.end_s, placed.end_s + placed.exposed_after_s, EXPOSED)

    def _gap(self, start_s: float, end_s: float, following: Task | None = None) -> Iterator[Span]:
        """Waiting for another stage, and while its message is under way for that."""
        if end_s - start_s <= ROUNDING_S:
            return
        clock_s = start_s
        for message in self._messages(start_s, end_s, following):
            under_way = Interval(max(message.start_s, clock_s), min(message.end_s, end_s))
            if under_way.end_s > under_way.start_s:
                if under_way.start_s > clock_s:
                    yield waiting(self.place(), "waiting for another stage", clock_s, under_way.start_s, BUBBLE)
                yield waiting(self.place(), "waiting for a message", *under_way, MESSAGES)
                clock_s = under_way.end_s
        if end_s - clock_s > ROUNDING_S:
            yield waiting(self.place(), "waiting for another stage", clock_s, end_s, BUBBLE)

    def _messages(self, start_s: float, end_s: float, following: Task | None) -> Sequence[Interval]:
        """Those that the stage waits for: of the pass that follows, or where it does nothing else meanwhile all of its own."""
        if not self.events.waits_for_messages:
            message = None if following is None else self.events.messages.get(source_of(following))
            return [] if message is None else [Interval(message.start_s, message.end_s)]
        first = bisect_left(self.own_messages, start_s, key=lambda message: message.end_s)
        later = (self.own_messages[place] for place in range(first, len(self.own_messages)))
        return list(takewhile(lambda message: message.start_s < end_s, later))

    def _optimizer(self) -> Iterator[Span]:
        start_s, place = self.events.optimizer_s[self.stage], self.place()
        end_s, parts = start_s + self.optimizer.seconds, {"optimizer_s": self.optimizer.seconds}
        if end_s > start_s:
            yield Span(place=place, track=PASSES, name="optimizer", kind="optimizer", start_s=start_s, end_s=end_s, parts=parts)
        if self.drawn.detail == "operators":
            host_s = self.optimizer.host_s
            yield from self.streams.of_optimizer(self.optimizer.steps, place, start_s=start_s, end_s=end_s, host_s=host_s)

    def _window(self, window: Window) -> Iterator[Span]:
        """What data parallelism moves beside the first or the last micro-batch, or beside every one that is drawn."""
        last = self.drawn.micro_batches - 1
        once = {0 if window.forward else last} if whole(window.times) == 1 else None
        beside: dict[int, list[PlacedPass]] = {}
        for placed in self.passes:
            batch = placed.task.micro_batch
            if (placed.task.kind == FORWARD) == window.forward and self.drawn.is_alone(batch) and batch in (once or {batch}):
                beside.setdefault(batch, []).append(placed)
        for batch, passes in beside.items():
            in_full = self.drawn.is_full(batch) and self.drawn.detail == "operators"
            yield from self.streams.of_window(window, passes, Place(self.stage, batch), in_full=in_full)


def source_of(task: Task) -> Task:
    """The pass whose output this one needs, where another stage runs it."""
    return task._replace(piece=task.piece + (-1 if task.kind == FORWARD else 1))
