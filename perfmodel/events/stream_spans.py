"""The spans of the streams of one pipeline stage: the operators of a pass, data parallelism beside it, the optimizer step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from perfmodel.count.operators import Collective, Operator
from perfmodel.errors import InputError
from perfmodel.events.iteration_events import PlacedPass
from perfmodel.events.pass_spans import ExposedInterval, OperatorSpan
from perfmodel.events.spans import COMPUTE, DATA_STREAM, WAITING, OperatorRun, Span, SpanPlace, kind_of, stream_of
from perfmodel.events.stage_passes import PlacedBlock
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.fields import whole
from perfmodel.spec.machines.hardware import Cluster
from perfmodel.spec.stack import SoftwareStack
from perfmodel.timing.breakdown import LAUNCH, OPTIMIZER, exposed_part
from perfmodel.timing.collectives import collective_time_s
from perfmodel.timing.data_parallel import Window
from perfmodel.timing.ledger import operator_confidence
from perfmodel.timing.timed_operators import TimedOperator

MOST_BUCKETS: Final = 100_000  # of one window: more are no drawing
CPU: Final = "waiting for the CPU"


@dataclass(frozen=True, slots=True, kw_only=True)
class Streams:
    """Writes down what runs on the streams of a stage, on a cluster as the GPUs of the layout find it."""

    cluster: Cluster
    stack: SoftwareStack
    with_operators: bool
    known: dict[int, str]  # how sure operators are, by identity: each serves many passes, and a timeline takes a fifth less

    def of_pass(self, placed: PlacedPass, place: SpanPlace) -> Iterator[Span]:
        """Spans of a pass: layers and their operators, then the wait for the CPU and unmodelled work."""
        plan = placed.plan
        for block in plan.blocks:
            yield from self._of_block(placed, block, place._replace(layer=block.layer))
        begin_s, waited_s = placed.at(plan.blocks_s), placed.at(plan.blocks_s + plan.launch_s)
        if plan.launch_s > 0:
            yield waiting(place, CPU, begin_s, waited_s, LAUNCH)
        if plan.unlisted_s > 0:
            end_s = placed.at(plan.duration_s)
            yield Span(place=place, track=COMPUTE, name="unlisted work", kind="unlisted", start_s=waited_s, end_s=end_s)

    def _of_block(self, placed: PlacedPass, block: PlacedBlock, place: SpanPlace) -> Iterator[Span]:
        """A layer, the embedding or the head, its operators, and what kernels wait for."""
        begin_s, laid = block.start_s, block.laid
        name = block.name if block.layer is None else f"layer {block.layer + 1}"
        start_s, end_s = placed.at(begin_s), placed.at(begin_s + laid.duration_s)
        yield Span(place=place, track=COMPUTE, name=name, kind="layer", start_s=start_s, end_s=end_s)
        if not self.with_operators:
            return
        for span in laid.operators:
            if self._is_drawn(span.timed.operator):
                ran = self._ran(span)
                yield _of_operator(place, ran, placed.at(begin_s + span.start_s), placed.at(begin_s + span.end_s))
        for wait in laid.waits:
            yield _exposed(place, wait, placed.at(begin_s + wait.start_s), placed.at(begin_s + wait.end_s))

    def _is_drawn(self, operator: Operator) -> bool:
        """Kernels, and collectives of more than one rank where they take time."""
        return not isinstance(operator, Collective) or bool(operator.group.ranks > 1 and not self.stack.overlap.hide_all)

    def _ran(self, span: OperatorSpan) -> OperatorRun:
        """What a span says of its operator."""
        operator, alone_s = span.timed.operator, float(span.timed.alone_s)
        if isinstance(operator, Collective):
            return OperatorRun(operator, alone_s, self._confidence(operator), exposed_s=float(span.timed.exposed_s))
        return OperatorRun(operator, alone_s, self._confidence(operator), slowdown_s=span.slowdown_s)

    def _confidence(self, operator: Operator) -> str:
        if id(operator) not in self.known:
            self.known[id(operator)] = operator_confidence(operator, cluster=self.cluster, stack=self.stack)
        return self.known[id(operator)]

    def of_window(self, window: Window, passes: Sequence[PlacedPass], place: SpanPlace, *, in_full: bool) -> Iterator[Span]:
        """What data parallelism moves beside `passes`: buckets one after the other, or all of them as one span.

        Those behind a backward pass end when what is exposed is over, those before a forward pass begin when it begins. They
        follow each other as they are ready, or where that is slower as they move.
        """
        exposed_s = float(window.parts.data_parallel_exposed_s)
        calls = [(call, float(collective_time_s(call, cluster=self.cluster))) for call in window.calls if whole(call.repeats)]
        buckets = _buckets(calls)
        if not any(seconds for _, seconds in calls):
            return
        passes_s = sum(each.end_s - each.start_s for each in passes)
        ready_s = passes_s / len(buckets) if self.stack.overlap.data_parallel else 0.0
        starts_s, all_s = [], 0.0
        for place_of_it, bucket in enumerate(buckets):
            starts_s.append(max(all_s, place_of_it * ready_s))
            all_s = starts_s[-1] + sum(seconds for _, seconds in bucket)
        begin_s = passes[0].start_s - exposed_s if window.forward else passes[-1].end_s + exposed_s - all_s
        if not in_full:
            yield _all_buckets(place, calls, begin_s, begin_s + all_s)
            return
        for number, (start_s, bucket) in enumerate(zip(starts_s, buckets, strict=True), start=1):
            clock_s = begin_s + start_s
            for call, seconds in bucket:
                ran = OperatorRun(call, seconds, self._confidence(call))
                yield _of_operator(place, ran, clock_s, clock_s + seconds, {"bucket": f"{number} of {len(buckets)}"})
                clock_s += seconds

    def of_optimizer(
        self, steps: Sequence[TimedOperator], place: SpanPlace, *, start_s: float, end_s: float, host_s: float
    ) -> Iterator[Span]:
        """The operators of the step one after the other, then what the CPU does once an iteration."""
        clock_s = start_s
        for each in steps:
            alone_s = float(each.alone_s)
            if self._is_drawn(each.operator) and alone_s > 0:
                begin_s, clock_s = clock_s, min(clock_s + alone_s, end_s)
                exposed_s = alone_s if isinstance(each.operator, Collective) else None
                yield _of_operator(
                    place, OperatorRun(each.operator, alone_s, self._confidence(each.operator), exposed_s), begin_s, clock_s
                )
        if host_s > 0:
            yield waiting(place, CPU, clock_s, end_s, OPTIMIZER)


def waiting(place: SpanPlace, name: str, start_s: float, end_s: float, part: str) -> Span:
    """Time in which no kernel of a stage runs."""
    parts = {part: end_s - start_s}
    return Span(place=place, track=WAITING, name=name, kind="wait", start_s=start_s, end_s=end_s, parts=parts)


def _exposed(place: SpanPlace, wait: ExposedInterval, start_s: float, end_s: float) -> Span:
    return waiting(place, f"waiting for {wait.call.name}", start_s, end_s, exposed_part(wait.call.group.axis))


def _of_operator(
    place: SpanPlace, ran: OperatorRun, start_s: float, end_s: float, details: Mapping[str, str] | None = None
) -> Span:
    operator = ran.operator
    track = stream_of(operator.group) if isinstance(operator, Collective) else COMPUTE
    return Span(
        place=place,
        track=track,
        name=operator.name,
        kind=kind_of(operator),
        start_s=start_s,
        end_s=end_s,
        ran=ran,
        details=details or {},
    )


def _buckets(calls: Sequence[tuple[Collective, float]]) -> list[list[tuple[Collective, float]]]:
    """The calls of each bucket: those that repeat most are in all of them, others as evenly among them as they repeat."""
    number = max((whole(call.repeats) for call, _ in calls), default=0)
    if number > MOST_BUCKETS:
        raise InputError(f"{number:,} buckets of gradients cannot be drawn; {MOST_BUCKETS:,} or fewer can")

    def has(call: Collective, bucket: int) -> bool:
        repeats = whole(call.repeats)
        return (bucket + 1) * repeats // number > bucket * repeats // number

    return [[(call, seconds) for call, seconds in calls if has(call, bucket)] for bucket in range(number)]


def _all_buckets(place: SpanPlace, calls: Sequence[tuple[Collective, float]], start_s: float, end_s: float) -> Span:
    """All that one window moves, where each bucket would be too much."""
    names, numbers = [call.name for call, _ in calls], [whole(call.repeats) for call, _ in calls]
    alone_s = sum(number * seconds for number, (_, seconds) in zip(numbers, calls, strict=True))
    return Span(
        place=place,
        track=DATA_STREAM,
        name=f"{names[0]} x {max(numbers)}",
        kind="collective",
        start_s=start_s,
        end_s=end_s,
        details={"operators": ", ".join(names), "calls": sum(numbers), "alone_s": alone_s},
    )
