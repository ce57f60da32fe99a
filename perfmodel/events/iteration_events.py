"""When every pass of an iteration runs on every pipeline stage, so that all of it takes as long as was predicted.

The order of the passes is that of events/pipeline_order.py, their times are those of events/pipeline_events.py. The iteration
time is the closed form's (timing/pipeline.py), which differs a little where pieces or stages do; kernels never take up
the difference:

    closed form longer     all stages wait for it before the optimizer step
    closed form shorter    each input is there so much earlier that both agree, if need be before it is done

Data parallelism works on the first stage as timing/data_parallel.py says: what is exposed comes before a forward pass or after
a backward pass, what it takes from kernels makes that pass longer. The other stages have the same beside their own, inside
what they wait for the first.

Zero-bubble schedules have stages that end later than others and begin their next iteration later by as much
(arXiv:2401.10241, section 4): each has a window of one iteration that begins at a time of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from perfmodel.errors import InputError
from perfmodel.events.pipeline_events import Message, Pieces, PipelineEvents, simulated
from perfmodel.events.pipeline_order import BACKWARD, FORWARD, WEIGHTS, Order, Task, pipeline_order
from perfmodel.events.stage_passes import PassPlan, StagePasses
from perfmodel.light_dataclass import dataclass, replace
from perfmodel.spec.fields import whole
from perfmodel.spec.layout import Layout
from perfmodel.spec.stack import SoftwareStack
from perfmodel.timing.data_parallel import Window
from perfmodel.timing.schedule import waits_for_messages

CLOSE: Final = 1e-9  # of the iteration: rounding
FITTED: Final = 1e-5  # of the iteration: what is left when inputs are early
TRIALS: Final = 40  # of how early they are


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedPass:
    """One pass on one stage; what data parallelism leaves exposed lies before and after it."""

    task: Task
    plan: PassPlan
    start_s: float
    end_s: float
    exposed_before_s: float = 0.0
    exposed_after_s: float = 0.0

    def at(self, seconds: float) -> float:
        """The time at which so much of the pass is over."""
        return min(self.start_s + seconds, self.end_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class IterationEvents:
    """The passes of each stage in their order, the messages by the pass that made them, and when the optimizer steps begin.

    The window of a stage begins at `start_s` and lasts `period_s`. Before it ends the stages wait `longer_s` for what the
    closed form has more than the events; or it has `shorter_s` less, and inputs are there `early_s` before their messages say.
    """

    passes: Sequence[Sequence[PlacedPass]]
    messages: Mapping[Task, Message]
    message_s: float
    waits_for_messages: bool
    start_s: Sequence[float]
    optimizer_s: Sequence[float]
    period_s: float
    longer_s: float
    shorter_s: float
    early_s: float
    windows: Sequence[Window]

    @property
    def staggered(self) -> bool:
        """Whether stages begin their iterations one after the other."""
        return any(start > 0 for start in self.start_s)


def iteration_events(
    passes: StagePasses,
    windows: Sequence[Window],
    *,
    layout: Layout,
    stack: SoftwareStack,
    optimizer_s: float,
    iteration_time_s: float,
) -> IterationEvents:
    """The events of one layout; all its passes and what data parallelism exposes take what the optimizer step leaves."""
    fit = _FittedEvents(passes, windows, layout=layout, stack=stack, target_s=iteration_time_s - optimizer_s)
    events, shorter_s, early_s = fit.events()
    own = [fit.window(events, stage) for stage in range(passes.stages)]
    together = not fit.may_stagger or max(end for _, end in own) <= fit.target_s * (1.0 + CLOSE)
    last_s = max(end for _, end in own)
    starts_s = [0.0 if together else start for start, _ in own]
    optimizers_s = [max(fit.target_s, last_s) if together else end for _, end in own]
    taken_s = last_s if together else max(end - start for start, end in own)
    longer_s = fit.target_s - taken_s
    return IterationEvents(
        passes=[fit.placed(events, stage) for stage in range(passes.stages)],
        messages=events.messages,
        message_s=passes.message_s,
        waits_for_messages=fit.waits,
        start_s=starts_s,
        optimizer_s=optimizers_s,
        period_s=max(iteration_time_s, taken_s + optimizer_s),
        longer_s=longer_s if longer_s > CLOSE * iteration_time_s else 0.0,
        shorter_s=shorter_s,
        early_s=early_s,
        windows=windows,
    )


class DataParallelEffect(NamedTuple):
    """What data parallelism does to one pass: kernels last `stretch` times as long, and what is exposed before and after it."""

    stretch: float = 1.0
    before_s: float = 0.0
    after_s: float = 0.0


class _FittedEvents:
    """The simulation whose longest stage takes `target_s`."""

    def __init__(
        self, passes: StagePasses, windows: Sequence[Window], *, layout: Layout, stack: SoftwareStack, target_s: float
    ) -> None:
        self.passes, self.windows, self.target_s = passes, windows, target_s
        self.order = pipeline_order(layout)
        self.waits = bool(waits_for_messages(layout, stack))
        self.may_stagger = layout.pipeline_schedule != "1f1b"
        self.exposed_s = tuple(
            sum(float(each.parts.data_parallel_exposed_s) for each in windows if each.forward == forward)
            for forward in (True, False)
        )
        kinds = (FORWARD, BACKWARD, WEIGHTS) if passes.weights_apart else (FORWARD, BACKWARD)
        pieces = range(len(passes.pieces))
        self.plans = {(piece, kind): passes.plan(piece, kind) for piece in pieces for kind in kinds}
        self.beside = _beside(self.plans, self.order, windows)
        self.longer = {
            task: passes.plan(task.piece, task.kind, each.stretch) for task, each in self.beside.items() if each.stretch > 1.0
        }
        forward, backward, *weights = ([self.plans[piece, kind].duration_s for piece in pieces] for kind in kinds)
        self.pieces = Pieces(
            forward_s=forward,
            backward_s=backward,
            weight_s=weights[0] if weights else (),
            longer_s={task: self._longer_s(task) for task in self.beside},
        )

    def plan(self, task: Task) -> PassPlan:
        """The pass that a task of the schedule runs."""
        return self.longer.get(task, self.plans[task.piece, task.kind])

    def _longer_s(self, task: Task) -> float:
        beside = self.beside[task]
        stretched_s = self.plan(task).duration_s - self.plans[task.piece, task.kind].duration_s
        return stretched_s + beside.before_s + beside.after_s

    def window(self, events: PipelineEvents, stage: int) -> tuple[float, float]:
        """From when until when a stage is at work, with what data parallelism exposes before and after it."""
        before_s, after_s = self.exposed_s if stage > 0 else (0.0, 0.0)  # those of the first stage are in its tasks
        return events.start_s[stage] - before_s, events.end_s[stage] + after_s

    def over_s(self, events: PipelineEvents) -> float:
        """What the longest stage takes, or where they wait for each other all of them, beyond the target."""
        own = [self.window(events, stage) for stage in range(self.passes.stages)]
        taken_s = max(end - (start if self.may_stagger else 0.0) for start, end in own)
        return taken_s - self.target_s

    def events(self) -> tuple[PipelineEvents, float, float]:
        """The events that take the target or less; how much more they took, and how much earlier every input is for that.

        Errors: InputError where what the longest stage computes alone takes more than that.
        """
        message_s = self.passes.message_s
        found = self._simulated(message_s)
        high_s, high_over_s = message_s, self.over_s(found)
        if high_over_s <= CLOSE * self.target_s:
            return found, 0.0, 0.0
        shorter_s, low_s = high_over_s, message_s - high_over_s / len(self.passes.pieces)
        while (low_over_s := self.over_s(found := self._simulated(low_s))) > CLOSE * self.target_s:
            if low_over_s >= high_over_s:
                share = f"{low_over_s / self.target_s:.1%}".replace("%", " %")
                sentence = f"passes that take {share} longer one by one than the predicted iteration cannot be drawn"
                raise InputError(sentence, key="virtual_pipeline")
            low_s, high_s, high_over_s = low_s - (message_s - low_s), low_s, low_over_s
        for _ in range(TRIALS):
            if low_over_s > -FITTED * self.target_s:
                break
            middle_s = low_s + (high_s - low_s) * min(max(low_over_s / (low_over_s - high_over_s), 0.01), 0.99)
            events = self._simulated(middle_s)
            if (over_s := self.over_s(events)) > 0:
                high_s, high_over_s = middle_s, over_s
            else:
                low_s, low_over_s, found = middle_s, over_s, events
        return found, shorter_s, message_s - low_s

    def _simulated(self, message_s: float) -> PipelineEvents:
        return simulated(self.order, self.pieces, message_s=message_s, waits=self.waits)

    def placed(self, events: PipelineEvents, stage: int) -> list[PlacedPass]:
        """The passes of one stage."""
        tasks = [task for step in self.order[stage] for task in step]
        nothing = DataParallelEffect()
        found = []
        for task in tasks:
            ran, beside = events.tasks[task], self.beside.get(task, nothing)
            found.append(
                PlacedPass(
                    task=task,
                    plan=self.plan(task),
                    start_s=ran.start_s + beside.before_s,
                    end_s=ran.end_s - beside.after_s,
                    exposed_before_s=beside.before_s,
                    exposed_after_s=beside.after_s,
                )
            )
        if stage > 0 and found:
            found[0] = replace(found[0], exposed_before_s=self.exposed_s[0])
            found[-1] = replace(found[-1], exposed_after_s=self.exposed_s[1])
        return found


def _beside(
    plans: Mapping[tuple[int, str], PassPlan], order: Order, windows: Sequence[Window]
) -> dict[Task, DataParallelEffect]:
    """What data parallelism does to passes of the first stage: those of its first and last micro-batch, or of every one."""
    by_batch: dict[int, list[Task]] = {}
    for task in (task for step in order[0] for task in step):
        by_batch.setdefault(task.micro_batch, []).append(task)
    found: dict[Task, DataParallelEffect] = {}
    for window in windows:
        once = whole(window.times) == 1
        batches = [0 if window.forward else len(by_batch) - 1] if once else list(by_batch)
        exposed_s = float(window.parts.data_parallel_exposed_s)
        for batch in batches:
            tasks = [task for task in by_batch[batch] if (task.kind == FORWARD) == window.forward]
            kernel_s = sum(plans[task.piece, task.kind].kernel_s for task in tasks)
            stretch = 1.0 + float(window.parts.communication_slowdown_s) / kernel_s
            for place, task in enumerate(tasks):
                before_s = exposed_s if window.forward and place == 0 else 0.0
                after_s = exposed_s if not window.forward and place == len(tasks) - 1 else 0.0
                found[task] = DataParallelEffect(stretch, before_s, after_s)
    return found
