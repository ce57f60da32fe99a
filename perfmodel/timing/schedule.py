"""From the passes of one micro-batch to the time of an iteration: all passes of the pipeline, the optimizer, data parallelism.

    iteration = (m * max(t) + bubble + messages + optimizer + what data parallelism leaves exposed + waiting) * exp(shift)

m micro-batches, max(t) what one takes on the slowest pipeline stage. With T of timing/pipeline.py, bubble is T without messages
less the passes of the slowest stage, messages what T grows by when they take their time, waiting that for the last of the ranks
that meet (timing/waiting.py), none on machines of which nobody measured it. shift is what somebody's own runs say
(spec/evidence/own_runs.py), 0 without any.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.count.iteration import Iteration
from perfmodel.count.operators import Collective, MemoryBound, moves_data_parallel
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.arithmetic import less
from perfmodel.spec.evidence.own_runs import NOTHING
from perfmodel.spec.fields import Numeric, anywhere, chosen
from perfmodel.spec.layout import Layout
from perfmodel.spec.machines.hardware import Cluster
from perfmodel.spec.stack import SoftwareStack
from perfmodel.timing.breakdown import Breakdown, slower
from perfmodel.timing.collectives import collective_time_s
from perfmodel.timing.data_parallel import DataParallel
from perfmodel.timing.kernels import kernel_time_s
from perfmodel.timing.offload import offload_breakdown
from perfmodel.timing.passes import both_directions
from perfmodel.timing.pipeline import NO_SECONDS, Messages, StageSeconds, StageTimes, pipeline_time_s
from perfmodel.timing.timed_operators import Pass, TimedOperator
from perfmodel.timing.waiting import known_dispersion_s, rank_waiting_s


def breakdown(work: Iteration, *, cluster: Cluster, stack: SoftwareStack) -> Breakdown:
    """The iteration part by part, on a `cluster` as its GPUs find it (timing/kernels.py, at_cluster_load)."""
    return synchronised(all_passes(work, cluster=cluster, stack=stack), work, cluster=cluster, stack=stack)


@dataclass(frozen=True, slots=True, kw_only=True)
class AllPasses:
    """Every pass of an iteration, and those of one micro-batch over the first stage, which data parallelism hides behind."""

    parts: Breakdown
    forward_s: Numeric
    backward_s: Numeric


def all_passes(work: Iteration, *, cluster: Cluster, stack: SoftwareStack) -> AllPasses:
    """The passes of all micro-batches, which do not depend on how states are sharded."""
    layout = work.layout
    forward, backward = both_directions(work, cluster, stack)
    first = PassPair(forward=forward.first, backward=backward.first)
    if anywhere(layout.pipeline_parallel > 1):
        middle = PassPair(forward=forward.stage(work.stages.middle), backward=backward.stage(work.stages.middle))
        last = PassPair(forward=forward.last, backward=backward.last)
        whole = PassPair(forward=forward.whole(), backward=backward.whole())
        message_s = (forward.message_s + backward.message_s) / 2.0
        parts = pipelined([first, middle, last], whole, message_s, layout=layout, stack=stack)
    else:
        parts = (first.forward.parts + first.backward.parts) * layout.micro_batches
    forward_s, backward_s = first.forward.parts.total_s, first.backward.parts.total_s
    return AllPasses(parts=parts, forward_s=forward_s, backward_s=backward_s)


def synchronised(passes: AllPasses, work: Iteration, *, cluster: Cluster, stack: SoftwareStack) -> Breakdown:
    """All passes, the optimizer, and what data parallelism leaves exposed; every part as much longer as own runs were."""
    moved = DataParallel(work=work, cluster=cluster, stack=stack)
    exposed = moved.breakdown(forward_s=passes.forward_s, backward_s=passes.backward_s)
    if work.setup.tuning is not None:
        hidden_behind = {"forward_s": passes.forward_s, "backward_s": passes.backward_s, "waiting_s": exposed.total_s}
        exposed = exposed + offload_breakdown(work, cluster, **hidden_behind)
    parts, own = passes.parts + _optimizer(work, cluster, stack) + exposed, work.setup.own_shift
    if (dispersion_s := known_dispersion_s(cluster, stack)) is not None:
        busy_s = parts.total_s - parts.pipeline_bubble_s
        parts = parts + Breakdown(rank_waiting_s=rank_waiting_s(work, busy_s, dispersion_s=dispersion_s))
    return parts if own is NOTHING else parts * own.factor


def mean_waiting_s(work: Iteration, *, cluster: Cluster, stack: SoftwareStack) -> Numeric:
    """T without messages, less m*mean(t): what a GPU waits for other pipeline stages, on average over the stages.

    The bubble of a breakdown is that of the slowest stage; the others wait for it too.
    """
    forward, backward = both_directions(work, cluster, stack)
    parts, layout = all_passes(work, cluster=cluster, stack=stack).parts, work.layout
    mean_s = (forward.whole().parts.total_s + backward.whole().parts.total_s) / layout.pipeline_parallel
    return parts.total_s - parts.pipeline_parallel_exposed_s - layout.micro_batches * mean_s


@dataclass(frozen=True, slots=True, kw_only=True)
class PassPair:
    """Both passes of one micro-batch over a stage, or over all."""

    forward: Pass
    backward: Pass

    def seconds(self, layout: Layout) -> StageSeconds:
        """Weight gradients have a place of their own only in zero-bubble schedules."""
        apart_s = self.backward.weight_gradient_s if layout.weights_apart else 0.0
        backward_s = less(self.backward.parts.total_s, apart_s)
        return StageSeconds(forward_s=self.forward.parts.total_s, backward_s=backward_s, weight_s=apart_s)


def pipelined(
    stages: Sequence[PassPair], whole: PassPair, message_s: Numeric, *, layout: Layout, stack: SoftwareStack
) -> Breakdown:
    """All passes of the slowest stage, what it waits for the others, and for messages of `message_s` each.

    `stages` are the first, the fullest between the ends (anything where there is none) and the last.
    """
    several = layout.pipeline_parallel > 2
    parts = [each.forward.parts + each.backward.parts for each in stages]
    slowest = slower(slower(parts[0], parts[1], there=several), parts[2])
    first, middle, last = (each.seconds(layout) for each in stages)
    times = StageTimes(first=first, middle=middle.where(several, NO_SECONDS), last=last, whole=whole.seconds(layout))
    axes = (message_s, slowest.total_s, layout.micro_batches, layout.pipeline_parallel, layout.virtual_pipeline)
    known_s = np.zeros((1,) * max(map(np.ndim, axes))) + (0.0 if stack.overlap.hide_all else message_s)
    both_s = np.stack([np.zeros_like(known_s), known_s])
    without_s, with_s = _all_passes_s(times, layout, both_s, stack)
    bubble_s = np.maximum(without_s - layout.micro_batches * slowest.total_s, 0.0)
    waiting = Breakdown(
        pipeline_bubble_s=chosen(layout.pipeline_parallel > 1, bubble_s, 0.0),
        pipeline_parallel_exposed_s=np.maximum(with_s - without_s, 0.0),
    )
    return slowest * layout.micro_batches + waiting


def _all_passes_s(times: StageTimes, layout: Layout, message_s: NDArray[Any], stack: SoftwareStack) -> NDArray[Any]:
    """T for each of the messages on a new first axis.

    1F1B waits for its messages, interleaved where the stack has nothing run beside them, zero-bubble schedules never.
    """
    beside, waiting = (Messages(seconds=message_s, waits=waits) for waits in (False, True))
    waits = waits_for_messages(layout, stack)
    if waits.all():
        return np.asarray(pipeline_time_s(times, layout, waiting))
    beside_s = np.asarray(pipeline_time_s(times, layout, beside))
    return np.where(waits, pipeline_time_s(times, layout, waiting), beside_s) if waits.any() else beside_s


def waits_for_messages(layout: Layout, stack: SoftwareStack) -> NDArray[np.bool_]:
    """Whether a stage does nothing else while its messages are under way."""
    if layout.pipeline_schedule != "1f1b":
        return np.asarray(False)
    return np.asarray(layout.virtual_pipeline) <= 1 if stack.overlap.pipeline else np.asarray(True)


def _optimizer(work: Iteration, cluster: Cluster, stack: SoftwareStack) -> Breakdown:
    """Everything of the optimizer step but what data parallelism moves, one after the other."""
    seconds: Numeric = stack.host.iteration_s
    for step in optimizer_steps(work, cluster, stack):
        seconds = seconds + (0.0 if stack.overlap.hide_all and isinstance(step.operator, Collective) else step.alone_s)
    return Breakdown(optimizer_s=seconds)


def optimizer_steps(work: Iteration, cluster: Cluster, stack: SoftwareStack) -> Iterator[TimedOperator]:
    """The operators of the optimizer step in their order, without what data parallelism moves.

    One that takes the CPU longer to launch than the GPU to run waits for it, max(t, H * kernels * launch_s), without graphs.
    """
    launch_s = 0.0 if stack.host.cuda_graphs else cluster.host_scale * stack.host.launch_s
    for operator in work.synchronisation:
        if moves_data_parallel(operator):
            continue
        if isinstance(operator, Collective):
            alone_s = collective_time_s(operator, cluster=cluster)
        else:
            alone_s = operator.repeats * kernel_time_s(operator, cluster=cluster, stack=stack)
            if isinstance(operator, MemoryBound):
                alone_s = np.maximum(alone_s, launch_s * operator.repeats * operator.kernels)
        yield TimedOperator(operator=operator, free_s=alone_s)
