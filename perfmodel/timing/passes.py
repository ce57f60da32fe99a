"""How long one pass over a pipeline stage takes: kernels one after the other, collectives beside the products that hide them.

A collective beside a matrix product is hidden as long as the product runs; what remains is exposed. While it runs it takes
a share f of the SMs, so the product slows down. With c the collective's time and g the product's:

    hidden = min(c, g / (1 - f)) * (1 - 1 / chunks),   slowdown = f * hidden,   exposed = c - hidden

where `chunks` is infinite for a product and a collective that do not depend on each other, and the number of ranks for a
pair that is pipelined: its first chunk has nothing to hide behind.

A block's pass repeats for as many layers and micro-batches as there are, longer than the limiter of a GPU's power averages
over: the share of it in which products run decides the clocks of its products and attention (timing/kernels.py). A GPU that
waits for its pipeline or its CPU draws little meanwhile: that share is the one of a block times `running_share`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice

import numpy as np

from perfmodel.count.iteration import Iteration
from perfmodel.count.layer_numbers import LayerNumbers
from perfmodel.count.operators import Collective, FusedAttention, Matmul, MemoryBound, Operator, is_attention_core
from perfmodel.count.pipeline import PipelineStage
from perfmodel.spec.axes import TENSOR
from perfmodel.spec.fields import Numeric, anywhere, chosen
from perfmodel.spec.hardware import Cluster
from perfmodel.spec.phases import WEIGHT_GRADIENT
from perfmodel.spec.stack import SoftwareStack
from perfmodel.timing.breakdown import Breakdown, added, exposed_part
from perfmodel.timing.collectives import Placement, collective_time_s, collective_times_s, placement
from perfmodel.timing.kernel_times import kernel_times_s
from perfmodel.timing.kernels import ATTENTION_POWER, at_power_limit, power_slowdown
from perfmodel.timing.pipeline import even_share


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """One execution of some operators: seconds by part, of weight gradients among them, and of the CPU launching all."""

    parts: Breakdown = Breakdown()
    weight_gradient_s: Numeric = 0.0
    host_s: Numeric = 0.0

    def __add__(self, other: Pass) -> Pass:
        return Pass(
            parts=self.parts + other.parts,
            weight_gradient_s=added(self.weight_gradient_s, other.weight_gradient_s),
            host_s=added(self.host_s, other.host_s),
        )

    def __mul__(self, times: Numeric) -> Pass:
        return Pass(parts=self.parts * times, weight_gradient_s=self.weight_gradient_s * times, host_s=self.host_s * times)


@dataclass(frozen=True, kw_only=True)
class Direction:
    """One direction of a micro-batch through the model: a pass through each block, of which every stage is a sum."""

    work: Iteration
    cluster: Cluster
    stack: SoftwareStack
    embedding: Pass
    head: Pass
    layers: Mapping[str, tuple[Pass, Pass | None]]  # by kind: with what runs again, and without where any layer is so
    message_s: Numeric  # what a message between stages takes

    @cached_property
    def first(self) -> Pass:
        """Through the first stage: all of the model where there is one."""
        return self.stage(self.work.stages.first)

    @cached_property
    def last(self) -> Pass:
        """Through the last one."""
        return self.stage(self.work.stages.last)

    def whole(self) -> Pass:
        """Through all stages: both ends, and what lies between; each waits for its own CPU."""
        if not anywhere(self.work.several):
            return self.first
        between = self.through(self.work.split.between, stages=self.work.stages.middle.number)
        return self.first + self.last * self.work.several + between

    def stage(self, stage: PipelineStage) -> Pass:
        """Through one of them."""
        return self.through(stage.held, stage.embedding, stage.head)

    def through(self, held: LayerNumbers, embedding: Numeric = 0, head: Numeric = 0, *, stages: Numeric = 1) -> Pass:
        """Through some layers of each kind on some stages, and the embedding and the head as often as they are among them."""
        total = Pass()
        for kind, (again, without) in self.layers.items():
            every, plain = held.every[kind], held.plain[kind]
            total = total + (again * every if without is None else again * (every - plain) + without * plain)
        for block, times in ((self.embedding, embedding), (self.head, head)):
            if anywhere(times):
                total = total + block * times
        return self._with_waiting(total, stages)

    def _with_waiting(self, alone: Pass, stages: Numeric) -> Pass:
        """launch = max(H*host - t, 0) + H*v*c, unlisted = (u - 1)*(t + max(H*host - t, 0)).

        t seconds of kernels take the CPU `host` to launch: where it is slower than the GPU, the GPU waits for it. In a
        pipeline each of v chunks ends with messages that both wait for, and the GPU is idle until the CPU has called the
        schedule and launched again: c = pass_s. H is the cluster's host_scale, u the stack's unlisted_work.
        """
        layout, host, scale = self.work.layout, self.stack.host, self.cluster.host_scale
        seconds = alone.parts.total_s
        waiting_s = np.maximum(scale * alone.host_s - seconds, 0.0)
        unlisted_s = (host.unlisted_work - 1.0) * (seconds + waiting_s)
        chunks = chosen(layout.pipeline_parallel > 1, layout.virtual_pipeline * stages, 0)
        idle_s = scale * host.pass_s * chunks
        parts = alone.parts + Breakdown(launch_s=waiting_s + idle_s, unlisted_s=unlisted_s)
        return Pass(parts=parts, weight_gradient_s=alone.weight_gradient_s, host_s=alone.host_s)


def both_directions(work: Iteration, cluster: Cluster, stack: SoftwareStack) -> tuple[Direction, Direction]:
    """Forward and backward; each block is timed once."""
    plain = {kind: blocks.plain for kind, blocks in work.layers.items() if anywhere(work.whole(kind)[1])}
    blocks = [work.embedding, work.head, *(each.again for each in work.layers.values()), *plain.values()]
    operators = [*(block.forward for block in blocks), *(block.backward for block in blocks)]
    timed, places = _timed_blocks(operators, cluster, stack)
    free = _directions(work, list(plain), timed, cluster, stack)
    if not anywhere(cluster.gpu.full_load_slowdown):
        return free
    share = _share(work, free)
    slowed = [_at_power_limit(each, share, places, cluster, stack) for each in timed]
    return _directions(work, list(plain), slowed, cluster, stack)


def running_share(work: Iteration, cluster: Cluster, stack: SoftwareStack) -> Numeric:
    """The share of its passes in which a GPU waits for neither its pipeline nor its CPU, at clocks that nothing holds down.

    1 of a GPU whose power limit is not known.
    """
    if not anywhere(cluster.gpu.full_load_slowdown):
        return 1.0
    return _share(work, both_directions(work, replace(cluster, gpu=replace(cluster.gpu, full_load_slowdown=0.0)), stack))


def _share(work: Iteration, free: tuple[Direction, Direction]) -> Numeric:
    parts = free[0].whole().parts + free[1].whole().parts
    return even_share(work.layout) * (1.0 - parts.launch_s / parts.total_s)


def _directions(
    work: Iteration, plain: Sequence[str], timed: Sequence[Sequence[TimedOperator]], cluster: Cluster, stack: SoftwareStack
) -> tuple[Direction, Direction]:
    """Both of them from their blocks: embedding, head, layers that run again, and the kinds of layers that are also `plain`."""
    passes = iter([added_up(block, stack) for block in timed])

    def direction(messages: Sequence[Operator]) -> Direction:
        embedding, head, *again = islice(passes, 2 + len(work.layers))
        without = dict(zip(plain, islice(passes, len(plain)), strict=True))
        calls = [call for call in messages if isinstance(call, Collective)] if anywhere(work.boundaries) else []
        return Direction(
            work=work,
            cluster=cluster,
            stack=stack,
            embedding=embedding,
            head=head,
            layers={kind: (each, without.get(kind)) for kind, each in zip(work.layers, again, strict=True)},
            message_s=sum((call.repeats * collective_time_s(call, cluster=cluster) for call in calls), 0.0),
        )

    return direction(work.boundary.forward), direction(work.boundary.backward)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedOperator:
    """One operator of a pass: seconds of all its executions alone; what of a collective is exposed, and what it slows down."""

    operator: Operator
    alone_s: Numeric
    exposed_s: Numeric = 0.0
    slowdown_s: Numeric = 0.0  # of the product beside it


def added_up(operators: Iterable[TimedOperator], stack: SoftwareStack) -> Pass:
    """The parts of a pass, each the sum over its operators."""
    sums: dict[str, Numeric] = {}
    weight_gradient_s: Numeric = 0.0
    kernels: Numeric = 0.0
    called: Numeric = 0.0
    for timed in operators:
        operator = timed.operator
        kernels = kernels + operator.repeats * _kernels(operator)
        called = called + operator.repeats * _calls(operator)
        if isinstance(operator, Collective):
            part = exposed_part(operator.group.axis)
            sums[part] = sums.get(part, 0.0) + timed.exposed_s
            sums["communication_slowdown_s"] = sums.get("communication_slowdown_s", 0.0) + timed.slowdown_s
            continue
        part = compute_part(operator)
        sums[part] = sums.get(part, 0.0) + timed.alone_s
        if operator.phase == WEIGHT_GRADIENT:
            weight_gradient_s = weight_gradient_s + timed.alone_s
    host_s = 0.0 * kernels if stack.host.cuda_graphs else called * stack.host.operator_s + kernels * stack.host.launch_s
    return Pass(parts=Breakdown(**sums), weight_gradient_s=weight_gradient_s, host_s=host_s)


def timed_operators(
    operators: Iterable[Operator], share: Numeric, cluster: Cluster, stack: SoftwareStack
) -> list[TimedOperator]:
    """The operators of one block in their order, each with the time that it takes, or leaves exposed, in a pass of it.

    `share` is what `running_share` says of their iteration.
    """
    (timed,), places = _timed_blocks([tuple(operators)], cluster, stack)
    limited = anywhere(cluster.gpu.full_load_slowdown)
    return _at_power_limit(timed, share, places, cluster, stack) if limited else timed


def _timed_blocks(
    blocks: Sequence[Sequence[Operator]], cluster: Cluster, stack: SoftwareStack
) -> tuple[list[list[TimedOperator]], Mapping[str, Placement]]:
    """The operators of each block in their order, at clocks that nothing holds down, and where the groups of their calls are.

    Kernels and calls of all blocks are timed together, then laid out, each collective beside the product it can hide behind.
    """
    every = [operator for block in blocks for operator in block]
    calls = [operator for operator in every if isinstance(operator, Collective)]
    places = {group.name: placement(group, cluster) for group in {call.group.name: call.group for call in calls}.values()}
    call_s = iter(collective_times_s(calls, places, cluster=cluster))
    kernels = [operator for operator in every if not isinstance(operator, Collective)]
    kernel_s = iter(kernel_times_s(kernels, cluster=cluster, stack=stack))
    timed = []
    for block in blocks:
        alone = [operator.repeats * next(call_s if isinstance(operator, Collective) else kernel_s) for operator in block]
        timed.append(_beside_products(block, alone, places, stack))
    return timed, places


def _at_power_limit(
    timed: Sequence[TimedOperator], share: Numeric, places: Mapping[str, Placement], cluster: Cluster, stack: SoftwareStack
) -> list[TimedOperator]:
    """The same pass at the clocks that its duty leaves."""
    busy = duty(timed)
    if not anywhere(busy):
        return list(timed)
    slowdown = power_slowdown(cluster.gpu, busy, share)
    longer: dict[str, Numeric] = {}  # the factor, by what it depends on: once for many operators of many layouts
    slowed = []
    for each in timed:
        operator = each.operator
        if isinstance(operator, Matmul | FusedAttention):
            kind = operator.precision if isinstance(operator, Matmul) else "attention"
            if kind not in longer:
                longer[kind] = at_power_limit(operator, slowdown, gpu=cluster.gpu, stack=stack)
            slowed.append(each.alone_s * longer[kind])
        else:
            slowed.append(each.alone_s)
    return _beside_products([each.operator for each in timed], slowed, places, stack)


def duty(timed: Iterable[TimedOperator]) -> Numeric:
    """The share of a pass in which products run, attention counted by the power that it draws; 0 of a pass of no length."""
    busy_s: Numeric = 0.0
    total_s: Numeric = 0.0
    for each in timed:
        operator = each.operator
        if isinstance(operator, Collective):
            total_s = total_s + each.exposed_s + each.slowdown_s
            continue
        total_s = total_s + each.alone_s
        if isinstance(operator, Matmul):
            busy_s = busy_s + each.alone_s
        elif isinstance(operator, FusedAttention):
            busy_s = busy_s + ATTENTION_POWER * each.alone_s
    return busy_s / chosen(total_s > 0, total_s, 1.0)


def _beside_products(
    operators: Sequence[Operator], alone: Sequence[Numeric], places: Mapping[str, Placement], stack: SoftwareStack
) -> list[TimedOperator]:
    """Operators that take `alone` seconds each, where collectives hide behind the kernels beside them."""
    timed = list(zip(operators, alone, strict=True))
    beside_s = {(operator.name, operator.phase): alone_s for operator, alone_s in timed if not isinstance(operator, Collective)}
    return [
        _beside(operator, alone_s, places[operator.group.name], beside_s.get(operator.partner, 0.0), stack)
        if isinstance(operator, Collective)
        else TimedOperator(operator=operator, alone_s=alone_s)
        for operator, alone_s in timed
    ]


def _kernels(operator: Operator) -> Numeric:
    """How many kernels the CPU launches for one execution; a group of one does not call its collective."""
    if isinstance(operator, Collective):
        return 1.0 * (operator.group.ranks > 1)
    return operator.kernels if isinstance(operator, MemoryBound) else 1


def _calls(operator: Operator) -> Numeric:
    """How many times the CPU runs the code around one execution: not of what has no kernels, nor of messages."""
    if isinstance(operator, Collective):
        return 0.0
    return 1.0 * (operator.kernels > 0) if isinstance(operator, MemoryBound) else 1.0


def compute_part(operator: Matmul | FusedAttention | MemoryBound) -> str:
    """The part of a breakdown that a kernel counts to."""
    if is_attention_core(operator):
        return "attention_s"
    return "matmul_s" if isinstance(operator, Matmul) else "memory_bound_s"


def _beside(call: Collective, alone_s: Numeric, where: Placement, product_s: Numeric, stack: SoftwareStack) -> TimedOperator:
    """One collective: what of it is exposed, and what it takes from the product beside it."""
    if stack.overlap.hide_all:
        return TimedOperator(operator=call, alone_s=alone_s)
    if not _may_hide(call, stack):
        return TimedOperator(operator=call, alone_s=alone_s, exposed_s=alone_s)
    chunks_hidden = 1.0 - 1.0 / call.group.ranks if call.pipelined else 1.0
    fraction = 0.0 if call.stepwise else sm_fraction(where, stack)
    hidden_s = np.minimum(alone_s, product_s / (1.0 - fraction)) * chunks_hidden
    return TimedOperator(operator=call, alone_s=alone_s, exposed_s=alone_s - hidden_s, slowdown_s=fraction * hidden_s)


def _may_hide(call: Collective, stack: SoftwareStack) -> bool:
    if not call.partner[0]:
        return False
    if call.group.axis != TENSOR:
        return True
    mode = stack.overlap.tensor_parallel
    return mode == "pipelined" or (mode == "backward" and not call.pipelined)


def sm_fraction(where: Placement, stack: SoftwareStack) -> Numeric:
    """The share of the SMs that a collective takes while it runs: for the links of a node, where it crosses any of them."""
    alone_in_its_node = where.crosses_nodes & (np.asarray(where.ranks_per_node) == 1)
    return chosen(alone_in_its_node, stack.overlap.network_sm_fraction, stack.overlap.node_link_sm_fraction)
