"""The predicted iteration in time: what every pipeline stage does when, from its passes down to their operators.

All of it is a fold over the operator list: events/stage_passes.py says where an operator lies in its pass,
events/iteration_events.py when each pass runs. Whatever is drawn, its times are exact: where there are many micro-batches,
passes between the first and the last of them are folded into spans that say how many they stand for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from perfmodel.errors import InputError, NotSupportedError, did_you_mean, shown
from perfmodel.events.iteration_events import IterationEvents, PlacedPass, iteration_events
from perfmodel.events.pipeline_events import Message
from perfmodel.events.pipeline_order import FORWARD, Task
from perfmodel.events.spans import ACTIVATIONS, GRADIENTS, PASSES, Arrow, ArrowPoint, OperatorRun, Span, SpanPlace
from perfmodel.events.stage_passes import StagePasses
from perfmodel.events.stage_spans import DrawnDetail, Optimizer, StageSpans
from perfmodel.events.stream_spans import Streams
from perfmodel.frames import Tabular
from perfmodel.light_dataclass import dataclass, replace
from perfmodel.prediction import StagePrediction
from perfmodel.spec.fields import whole
from perfmodel.spec.machines.hardware import Cluster
from perfmodel.spec.run import Run
from perfmodel.timing.data_parallel import DataParallel
from perfmodel.timing.kernels import at_cluster_load
from perfmodel.timing.ledger import operator_confidence
from perfmodel.timing.schedule import optimizer_steps
from perfmodel.units import seconds_text

DETAILS: Final = ("operators", "layers", "passes")
USUAL_SPANS: Final = 60_000  # a file of some 25 MB
MOST_SPANS: Final = 1_000_000
MOST_PASSES: Final = 400_000  # of an iteration, each of which is followed: some eight seconds
MOST_LAYERS_DRAWN: Final = 10_000  # fewer than a model may have: each is drawn on its own
OF_A_PASS: Final = 4  # spans and arrows of a pass by itself: a wait and a message


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Timeline(Tabular):
    """One stage of a run, in time: `layers` are those of each pipeline stage, in pieces of (first, number).

    `longer_s` is what the closed form of the pipeline takes longer than the event order, and stages wait before they go on;
    `shorter_s` what it takes less, and `early_s` how much earlier than its message says an input is there for that. Where
    stages of a zero-bubble schedule begin one after the other (`is_staggered`), it shows one iteration of a run that goes on:
    what a stage does after the end lies at the beginning, as what it still does of the iteration before.
    """

    run: Run
    stage: int  # of the ramp, from 0
    predicted: StagePrediction
    spans: Sequence[Span]
    arrows: Sequence[Arrow]
    layers: Sequence[Sequence[tuple[int, int]]]
    passes_s: Sequence[float]  # of each pipeline stage: all its passes, with what kernels wait for in them
    drawn: DrawnDetail
    longer_s: float
    shorter_s: float
    early_s: float
    is_staggered: bool

    @property
    def summary(self) -> str:
        """How long it is, and in how many spans."""
        stages = f"{len(self.layers)} pipeline stage{'' if len(self.layers) == 1 else 's'}"
        return f"{self.run.name}: {seconds_text(self.span_s)} on {stages}, {len(self.spans):,} spans"

    @property
    def span_s(self) -> float:
        """From the first start to the last end."""
        return max(span.end_s for span in self.spans) - min(span.start_s for span in self.spans)

    def rows(self) -> list[dict[str, Any]]:
        """One row for each span."""
        return [span.row() for span in self.spans]


def timeline(
    run: Run, predicted: StagePrediction, *, stage: int = 0, detail: str | None = None, micro_batches: int | None = None
) -> Timeline:
    """The iteration of one stage of a run.

    `detail` is how much of a pass is drawn: operators, layers or passes; without, as much as makes a file that opens quickly.
    `micro_batches` is how many at the beginning and at the end of the iteration are drawn one by one. Errors: InputError.

    >>> from perfmodel.exchange.run_files import read_candidates
    >>> from perfmodel.prediction import predict
    >>> run = read_candidates("nemotron-4-15b")[0].run
    >>> first = predict(run).stages[0][1]
    >>> round(timeline(run, first).span_s / float(first.iteration_time_s), 9)
    1.0
    """
    if run.offload:
        raise NotSupportedError("waiting for the host is not drawn; predict shows how long that is", key="offload")
    if detail is not None and detail not in DETAILS:
        raise InputError(f"{shown(detail)} is not one of them; {did_you_mean(detail, DETAILS)}", key="detail")
    if micro_batches is not None and micro_batches < 1:
        raise InputError(f"{micro_batches} micro-batches cannot be drawn; 1 or more can", key="micro_batches")
    _check_size(run, predicted)
    drawing = _LayoutEvents(run, predicted, detail, micro_batches)
    spans, arrows = list(drawing.spans()), list(drawing.arrows())
    events, passes = drawing.events, drawing.passes
    if events.staggered:
        spans = [part for span in spans for part in _within(span, events.period_s)]
        arrows = [moved for arrow in arrows if (moved := _moved(arrow, events.period_s))]
    pieces = [passes.pieces[at :: passes.stages] for at in range(passes.stages)]
    return Timeline(
        run=run,
        stage=stage,
        predicted=predicted,
        spans=spans,
        arrows=arrows,
        layers=[[(piece.first_layer, piece.layers) for piece in of_stage] for of_stage in pieces],
        passes_s=[sum(placed.plan.duration_s for placed in of_stage) for of_stage in events.passes],
        drawn=drawing.drawn,
        longer_s=events.longer_s,
        shorter_s=events.shorter_s,
        early_s=events.early_s,
        is_staggered=events.staggered,
    )


def _check_size(run: Run, predicted: StagePrediction) -> None:
    """Raise InputError for an iteration of more passes, or layers, than can be followed one by one."""
    layout = predicted.layout
    passes = 2.0 * layout.micro_batches * layout.pipeline_parallel * layout.virtual_pipeline
    for number, name, most in ((passes, "passes", MOST_PASSES), (run.model.layers, "layers", MOST_LAYERS_DRAWN)):
        if number > most:
            raise InputError(f"an iteration of {float(number):,.0f} {name} cannot be drawn; one of {most:,} or fewer can")


class _LayoutEvents:
    """The events of one layout, and how much of them is drawn."""

    def __init__(self, run: Run, predicted: StagePrediction, detail: str | None, micro_batches: int | None) -> None:
        layout, work, stack = predicted.layout, predicted.work, run.stack
        self.work, self.stack = work, stack
        self.cluster: Cluster = at_cluster_load(run.cluster, layout.gpus)
        self.passes = StagePasses(work, cluster=self.cluster, stack=stack)
        moved = DataParallel(work=work, cluster=self.cluster, stack=stack)
        first_s = (direction.first.parts.total_s for direction in (self.passes.forward, self.passes.backward))
        forward_s, backward_s = first_s
        self.optimizer = Optimizer(
            steps=list(optimizer_steps(work, self.cluster, stack)),
            host_s=float(stack.host.iteration_s),
            seconds=float(predicted.breakdown.optimizer_s),
        )
        self.events: IterationEvents = iteration_events(
            self.passes,
            list(moved.windows(forward_s=forward_s, backward_s=backward_s)),
            layout=layout,
            stack=stack,
            optimizer_s=self.optimizer.seconds,
            iteration_time_s=float(predicted.iteration_time_s),
        )
        self.drawn = _drawn(self.passes, self.events, whole(layout.micro_batches), detail, micro_batches)

    def spans(self) -> Iterator[Span]:
        """Spans of each stage, then the messages between stages."""
        streams = Streams(cluster=self.cluster, stack=self.stack, with_operators=self.drawn.detail == "operators", known={})
        for stage in range(self.passes.stages):
            yield from StageSpans(
                stage=stage,
                stages=self.passes.stages,
                chunks=self.passes.virtual,
                events=self.events,
                optimizer=self.optimizer,
                drawn=self.drawn,
                streams=streams,
            )
        if self.events.message_s > 0:
            yield from (self._message(task, message) for task, message in self._messages())

    def _messages(self) -> Iterator[tuple[Task, Message]]:
        """Between passes that are drawn."""
        for task, message in self.events.messages.items():
            if self.drawn.is_alone(task.micro_batch):
                yield task, message

    def _message(self, task: Task, message: Message) -> Span:
        """On its sender; the time is that of the forecast, of both ways alike, though not beyond the iteration."""
        forward = task.kind == FORWARD
        first, *others = self.work.boundary.forward if forward else self.work.boundary.backward
        sure = operator_confidence(first, cluster=self.cluster, stack=self.stack)
        alone_s, stage = self.events.message_s, task.piece % self.passes.stages
        details: dict[str, Any] = {"to_pipeline_stage": _next(task).piece % self.passes.stages + 1}
        if message.sharing > 1:
            details |= {"messages_that_share_the_link": message.sharing}
        if others:
            details |= {"then": ", ".join(each.name for each in others)}
        return Span(
            place=SpanPlace(stage, task.micro_batch, task.piece // self.passes.stages if self.passes.virtual > 1 else None),
            track=ACTIVATIONS if forward else GRADIENTS,
            name=first.name,
            kind="message",
            start_s=message.start_s,
            end_s=min(message.start_s + message.sharing * alone_s, max(self.events.period_s, message.end_s)),
            ran=OperatorRun(first, alone_s, sure),
            details=details,
        )

    def arrows(self) -> Iterator[Arrow]:
        """From the end of each pass by way of its message to the pass that needs it."""
        alone = self.drawn.is_alone
        placed = {each.task: each for of_stage in self.events.passes for each in of_stage if alone(each.task.micro_batch)}
        for task, message in self._messages():
            yield self._arrow(placed[task], message, placed[_next(task)])

    def _arrow(self, source: PlacedPass, message: Message, target: PlacedPass) -> Arrow:
        forward, stage = source.task.kind == FORWARD, source.task.piece % self.passes.stages
        leaves_s = max(min(source.end_s - 1e-9, target.start_s), source.start_s)  # inside its pass, and never after it is there
        points = [ArrowPoint(stage, PASSES, leaves_s)]
        if self.events.message_s > 0 and leaves_s <= message.start_s <= target.start_s:
            points.append(ArrowPoint(stage, ACTIVATIONS if forward else GRADIENTS, message.start_s))
        points.append(ArrowPoint(target.task.piece % self.passes.stages, PASSES, target.start_s))
        return Arrow("activations" if forward else "gradients", tuple(points))


def _next(task: Task) -> Task:
    """The pass that needs the output of this one."""
    return task._replace(piece=task.piece + (1 if task.kind == FORWARD else -1))


def _drawn(
    passes: StagePasses, events: IterationEvents, number: int, detail: str | None, micro_batches: int | None
) -> DrawnDetail:
    """What was asked for, or as much as USUAL_SPANS hold."""
    half = (number + 1) // 2
    each = len(passes.pieces) * (3 if passes.weights_apart else 2) * OF_A_PASS
    costs = {name: _spans_of_a_micro_batch(passes, events, name) for name in DETAILS}
    alone = min(micro_batches or max(USUAL_SPANS // 3 // each // 2, 1), half)
    left = max(USUAL_SPANS - 2 * alone * each, 0)
    for name in DETAILS if detail is None else (detail,):
        full = alone if micro_batches is not None else min(left // (2 * max(costs[name], 1)), alone)
        if detail is not None or micro_batches is not None or full >= 1:
            break
    full = max(full, 1)
    spans = 2 * (alone * each + full * costs[name])
    if spans > MOST_SPANS:
        raise InputError(f"that would be some {spans:,} spans; fewer micro-batches, or less detail than {name}, can be drawn")
    return DrawnDetail(detail=name, full=full, alone=alone, micro_batches=number)


def _spans_of_a_micro_batch(passes: StagePasses, events: IterationEvents, detail: str) -> int:
    """What drawing its passes in full adds."""
    if detail == "passes":
        return 0
    blocks = [block.laid for pieces in events.passes for each in _of_first(pieces) for block in each.plan.blocks]
    if detail == "layers":
        return len(blocks)
    beside = sum(whole(call.repeats) for window in events.windows for call in window.calls) * passes.stages
    return sum(1 + len(laid.operators) + len(laid.waits) for laid in blocks) + beside


def _of_first(passes: Sequence[PlacedPass]) -> Iterator[PlacedPass]:
    return (each for each in passes if each.task.micro_batch == 0)


def _within(span: Span, period_s: float) -> Iterator[Span]:
    """The span in the window of one iteration; what sticks out lies at its beginning, part of the iteration before."""
    before = {"of_iteration": "the one before"}
    if span.end_s <= period_s:
        yield span
    elif span.start_s >= period_s:
        yield replace(span, start_s=span.start_s - period_s, end_s=span.end_s - period_s, details={**span.details, **before})
    else:  # what is counted is counted with the first half
        cut = {"cut": f"by the end of the iteration; it lasts {span.duration_s:.9f} s"}
        share = (period_s - span.start_s) / span.duration_s
        halves = [{part: seconds * of_it for part, seconds in span.parts.items()} for of_it in (share, 1.0 - share)]
        yield replace(span, end_s=period_s, parts=halves[0], details={**span.details, **cut})
        rest = replace(span, start_s=0.0, end_s=span.end_s - period_s, parts=halves[1], ran=None)
        yield replace(rest, details={**cut, **before})


def _moved(arrow: Arrow, period_s: float) -> Arrow | None:
    """The arrow in the same window; none where its ends lie in two of them."""
    points = [point._replace(at_s=point.at_s - period_s) if point.at_s >= period_s else point for point in arrow.points]
    return Arrow(arrow.name, tuple(points)) if points[0].at_s <= points[-1].at_s else None
