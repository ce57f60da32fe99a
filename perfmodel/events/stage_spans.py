"""The spans of one pipeline stage: its passes, what it waits for between them, data parallelism and the optimizer step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from typing import Any, Final, NamedTuple

from perfmodel.events.iteration_events import IterationEvents, PlacedPass
from perfmodel.events.pipeline_events import Interval, Message
from perfmodel.events.pipeline_order import BACKWARD, FORWARD, WEIGHTS, Task
from perfmodel.events.spans import PASSES, Span, SpanPlace
from perfmodel.events.stream_spans import Streams, waiting
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.axes import DATA, PIPELINE
from perfmodel.spec.fields import whole
from perfmodel.timing.breakdown import OPTIMIZER, Breakdown
from perfmodel.timing.data_parallel import Window
from perfmodel.timing.timed_operators import TimedOperator

PASS_KINDS: Final = {FORWARD: "forward", BACKWARD: "backward", WEIGHTS: "weight_gradients"}
BUBBLE, MESSAGES, EXPOSED = PIPELINE.bubble_part, PIPELINE.exposed_part, DATA.exposed_part
ANOTHER: Final = "waiting for another stage"
ROUNDING_S: Final = 1e-12
EXCHANGED: Final = 2  # passes on either side of an exchange, at most


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnDetail:
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


class PassGroup(NamedTuple):
    """Passes that follow each other and are drawn as one span: one by itself, or many that are folded."""

    passes: Sequence[PlacedPass]

    @property
    def start_s(self) -> float:
        """With what data parallelism leaves exposed before the first."""
        return self.passes[0].start_s - self.passes[0].exposed_before_s

    @property
    def end_s(self) -> float:
        """With what it leaves exposed after the last."""
        return self.passes[-1].end_s + self.passes[-1].exposed_after_s


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSpans:
    """Everything that one stage does in its window of the iteration; `chunks` is how many pieces it holds."""

    stage: int
    stages: int
    chunks: int
    events: IterationEvents
    optimizer: Optimizer
    drawn: DrawnDetail
    streams: Streams

    def __iter__(self) -> Iterator[Span]:
        groups = list(self._groups())
        for group in groups:
            yield from self._folded(group) if len(group.passes) > 1 else self._pass(group.passes[0])
        yield from self._waits(groups)
        yield from self._optimizer()
        for window in self.events.windows:
            yield from self._window(window)

    @property
    def passes(self) -> Sequence[PlacedPass]:
        """Passes of the stage, in the order they run."""
        return self.events.passes[self.stage]

    def place(self, task: Task | None = None) -> SpanPlace:
        """Place of a pass, or of the whole stage."""
        if task is None:
            return SpanPlace(self.stage)
        return SpanPlace(self.stage, task.micro_batch, task.piece // self.stages if self.chunks > 1 else None)

    def _groups(self) -> Iterator[PassGroup]:
        for alone, group in groupby(self.passes, lambda placed: self.drawn.is_alone(placed.task.micro_batch)):
            passes = list(group)
            yield from (PassGroup([placed]) for placed in passes) if alone else [PassGroup(passes)]

    def _pass(self, placed: PlacedPass) -> Iterator[Span]:
        """One pass, what data parallelism leaves exposed before and after it, and what runs in it."""
        task, place = placed.task, self.place(placed.task)
        chunk = f".{task.piece // self.stages + 1}" if self.chunks > 1 else ""
        yield Span(
            place=place,
            track=PASSES,
            name=f"{task.kind} {task.micro_batch + 1}{chunk}",
            kind=PASS_KINDS[task.kind],
            start_s=placed.start_s,
            end_s=placed.end_s,
            parts=_seconds(placed.plan.parts),
        )
        group, exposed = PassGroup([placed]), "waiting for data parallelism"
        if placed.exposed_before_s:
            yield waiting(place, exposed, group.start_s, placed.start_s, EXPOSED)
        if placed.exposed_after_s:
            yield waiting(place, exposed, placed.end_s, group.end_s, EXPOSED)
        if self.drawn.is_full(task.micro_batch):
            yield from self.streams.of_pass(placed, place)

    def _folded(self, group: PassGroup) -> Iterator[Span]:
        """Many passes as one span that has their sums, and what the stage waits between them."""
        kinds, batches = [each.task.kind for each in group.passes], [each.task.micro_batch + 1 for each in group.passes]
        exposed_s = sum(each.exposed_before_s + each.exposed_after_s for each in group.passes)
        sums: Counter[str] = Counter({EXPOSED: exposed_s} if exposed_s else {})
        for each in group.passes:
            sums.update(_seconds(each.plan.parts))
        details: dict[str, Any] = {f"{word}_passes": kinds.count(kind) for kind, word in PASS_KINDS.items() if kind in kinds}
        details |= {"first_micro_batch": min(batches), "last_micro_batch": max(batches)}
        details["waiting_s"] = max(group.end_s - group.start_s - sum(sums.values()), 0.0)
        yield Span(
            place=self.place(),
            track=PASSES,
            name=f"{len(group.passes)} passes more",
            kind="folded",
            start_s=group.start_s,
            end_s=group.end_s,
            parts=sums,
            details=details,
        )

    def _waits(self, groups: Sequence[PassGroup]) -> Iterator[Span]:
        """Before the first passes, between them, and after the last."""
        events, begin_s = self.events, self.events.start_s[self.stage]
        yield from self._gap(begin_s, groups[0].start_s, following=groups[0].passes)
        for one, other in pairwise(groups):
            yield from self._gap(one.end_s, other.start_s, before=one.passes, following=other.passes)
        step_s, end_s = events.optimizer_s[self.stage], begin_s + events.period_s
        agrees_s = end_s if events.staggered else step_s
        yield from self._gap(groups[-1].end_s, min(step_s, agrees_s - events.longer_s), before=groups[-1].passes)
        yield from self._gap(step_s + self.optimizer.seconds, end_s - (events.longer_s if events.staggered else 0.0))
        if events.longer_s:
            yield waiting(self.place(), "what the closed form adds", agrees_s - events.longer_s, agrees_s, BUBBLE)

    def _gap(
        self, start_s: float, end_s: float, *, before: Sequence[PlacedPass] = (), following: Sequence[PlacedPass] = ()
    ) -> Iterator[Span]:
        """Waiting for another stage, and while its message is under way for that."""
        if end_s - start_s <= ROUNDING_S:
            return
        clock_s = start_s
        for message in self._messages(before, following):
            under_way = Interval(max(message.start_s, clock_s), min(message.end_s, end_s))
            if under_way.end_s > under_way.start_s:
                if under_way.start_s > clock_s:
                    yield waiting(self.place(), ANOTHER, clock_s, under_way.start_s, BUBBLE)
                yield waiting(self.place(), "waiting for a message", *under_way, MESSAGES)
                clock_s = under_way.end_s
        if end_s - clock_s > ROUNDING_S:
            yield waiting(self.place(), ANOTHER, clock_s, end_s, BUBBLE)

    def _messages(self, before: Sequence[PlacedPass], following: Sequence[PlacedPass]) -> list[Message]:
        """Messages that the next pass needs; where stages wait for a whole exchange, those of both sides."""
        waits = self.events.waits_for_messages
        needed = [source_of(each.task) for each in following[: EXCHANGED if waits else 1]]
        sent = [each.task for each in before[-EXCHANGED:]] if waits else []
        return sorted(self.events.messages[task] for task in (*sent, *needed) if task in self.events.messages)

    def _optimizer(self) -> Iterator[Span]:
        start_s, place = self.events.optimizer_s[self.stage], self.place()
        end_s, parts = start_s + self.optimizer.seconds, {OPTIMIZER: self.optimizer.seconds}
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
            yield from self.streams.of_window(window, passes, SpanPlace(self.stage, batch), in_full=in_full)


def _seconds(parts: Breakdown) -> dict[str, float]:
    """The parts that are there."""
    return {part: float(seconds) for part, seconds in parts.items() if seconds}


def source_of(task: Task) -> Task:
    """The pass whose output this one needs, where another stage runs it."""
    return task._replace(piece=task.piece + (-1 if task.kind == FORWARD else 1))
