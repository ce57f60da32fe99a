"""How long one pass over a pipeline stage takes, forward and backward: blocks of operators, each as often as it runs.

A block's pass repeats for as many layers and micro-batches as there are, longer than the limiter of a GPU's power averages
over: the share of it in which products run decides the clocks of its products and attention (timing/kernels.py). A GPU that
waits for its CPU between kernels draws little meanwhile: that share is the one of a block times `running_share`. What it waits
for its pipeline is one stretch of an iteration, longer than the limiter averages over, and leaves the clocks of the rest alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import islice

import numpy as np

from perfmodel.count.iteration import Iteration
from perfmodel.count.layer_numbers import LayerNumbers
from perfmodel.count.operators import Collective, Operator
from perfmodel.count.pipeline import PipelineStage
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.arithmetic import added, multiplied
from perfmodel.spec.fields import Numeric, anywhere, chosen
from perfmodel.spec.machines.hardware import Cluster
from perfmodel.spec.stack import SoftwareStack
from perfmodel.timing.breakdown import Breakdown
from perfmodel.timing.collectives import collective_time_s
from perfmodel.timing.kernels import clock_share
from perfmodel.timing.timed_operators import (
    HostSeconds,
    Load,
    Pass,
    added_up,
    at_clocks,
    host_seconds,
    load,
    timed_blocks,
)


@dataclass(frozen=True, kw_only=True)
class Direction:
    """One direction of a micro-batch through the model: a pass through each block, of which every stage is a sum."""

    work: Iteration
    cluster: Cluster
    stack: SoftwareStack
    embedding: Pass
    head: Pass
    layers: Mapping[str, tuple[Pass, Pass | None]]  # by kind: with what runs again, and without where any layer is so
    messages: Sequence[Operator]  # between stages

    @cached_property
    def message_s(self) -> Numeric:
        """What a stage waits for each of its exchanges of a micro-batch with a neighbour: a message, or 2 in turn.

        Between two passes a stage sends what it made to one neighbour and receives what it needs next from the same one, both
        at once, or one after the other (torch.distributed.send and recv, each of which the stream of the kernels waits for).
        Slices are joined of what it receives alone.
        """
        calls = [call for call in self.messages if isinstance(call, Collective)] if anywhere(self.work.boundaries) else []
        in_turn = 2 if self.stack.overlap.pipeline_in_turn else 1
        times = [call.repeats * (in_turn if call.kind == "point_to_point" else 1) for call in calls]
        return sum(
            (often * collective_time_s(call, cluster=self.cluster) for often, call in zip(times, calls, strict=True)), 0.0
        )

    @cached_property
    def first(self) -> Pass:
        """The pass through the first pipeline stage, which is the whole model where there is one stage."""
        return self.stage(self.work.stages.first)

    @cached_property
    def last(self) -> Pass:
        """The pass through the last pipeline stage."""
        return self.stage(self.work.stages.last)

    def whole(self) -> Pass:
        """The passes through all pipeline stages one after the other; each waits for its own CPU."""
        if not anywhere(self.work.several):
            return self.first
        between = self.through(self.work.split.between, stages=self.work.stages.middle.number)
        return self.first + self.last * self.work.several + between

    def stage(self, stage: PipelineStage) -> Pass:
        """The pass through one pipeline stage."""
        return self.through(stage.held, stage.embedding, stage.head)

    def through(self, held: LayerNumbers, embedding: Numeric = 0, head: Numeric = 0, *, stages: Numeric = 1) -> Pass:
        """The pass through some layers of each kind on so many `stages`, with the embedding and the head as often as given."""
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
        schedule and launched again: c = pass_s, 0 where passes are replayed from graphs. H is the cluster's host_scale, u the
        stack's unlisted_work.
        """
        layout, host, scale = self.work.layout, self.stack.host, self.cluster.host_scale
        asked_s = multiplied(alone.wait_s, scale)
        seconds = added(alone.parts.total_s, asked_s)
        waiting_s = added(np.maximum(multiplied(alone.host_s, scale) - seconds, 0.0), asked_s)
        more = host.unlisted_work - 1.0
        unlisted_s = more * (alone.parts.total_s + waiting_s) if anywhere(more) else 0.0
        chunks = chosen(layout.pipeline_parallel > 1, layout.virtual_pipeline * stages, 0)
        idle_s = (0.0 if host.cuda_graphs else scale * host.pass_s) * chunks
        parts = alone.parts + Breakdown(launch_s=waiting_s + idle_s, unlisted_s=unlisted_s)
        return Pass(parts=parts, weight_gradient_s=alone.weight_gradient_s, host_s=alone.host_s, wait_s=alone.wait_s)


def both_directions(work: Iteration, cluster: Cluster, stack: SoftwareStack) -> tuple[Direction, Direction]:
    """Forward and backward; each block is timed once."""
    blocks = _distinct_blocks(work)
    timed, fractions = timed_blocks(blocks, cluster, stack)
    hosts = [host_seconds(each, stack) for each in blocks]
    if anywhere(cluster.gpu.full_load_slowdown):
        loads = [load(each) for each in timed]
        running = clock_share(_share(work, loads, hosts, cluster, stack))
        clocks = [clock_share(each.duty) * running for each in loads]
        timed = [at_clocks(each, at, fractions, cluster, stack) for each, at in zip(timed, clocks, strict=True)]
    passes = [added_up(each, host, weights_apart=work.layout.weights_apart) for each, host in zip(timed, hosts, strict=True)]
    return _directions(work, passes, cluster, stack)


def running_share(work: Iteration, cluster: Cluster, stack: SoftwareStack) -> Numeric:
    """The share of its passes in which a GPU does not wait for its CPU, at clocks that nothing holds down.

    1 of a GPU whose power limit is not known.
    """
    if not anywhere(cluster.gpu.full_load_slowdown):
        return 1.0
    blocks = _distinct_blocks(work)
    loads = [load(each) for each in timed_blocks(blocks, cluster, stack)[0]]
    return _share(work, loads, [host_seconds(each, stack) for each in blocks], cluster, stack)


def _share(
    work: Iteration, loads: Sequence[Load], hosts: Sequence[HostSeconds], cluster: Cluster, stack: SoftwareStack
) -> Numeric:
    kernels = [
        Pass(parts=Breakdown(matmul_s=each.total_s), host_s=host.launch_s, wait_s=host.wait_s)
        for each, host in zip(loads, hosts, strict=True)
    ]
    forward, backward = _directions(work, kernels, cluster, stack)
    parts = forward.whole().parts + backward.whole().parts
    return 1.0 - parts.launch_s / parts.total_s


def _blocks(work: Iteration) -> list[Sequence[Operator]]:
    """Embedding, head, layers that run again, and the kinds of layers that are also plain: forward, then backward."""
    plain = [blocks.plain for kind, blocks in work.layers.items() if kind in work.plain_kinds]
    blocks = [work.embedding, work.head, *(each.again for each in work.layers.values()), *plain]
    return [*(block.forward for block in blocks), *(block.backward for block in blocks)]


def _distinct_blocks(work: Iteration) -> list[Sequence[Operator]]:
    """Each of `_blocks` once: what runs again is the forward pass of plain layers too."""
    return list({id(block): block for block in _blocks(work)}.values())


def _directions(work: Iteration, blocks: Iterable[Pass], cluster: Cluster, stack: SoftwareStack) -> tuple[Direction, Direction]:
    """Both of them from the passes of their `_distinct_blocks`."""
    known = dict(zip(map(id, _distinct_blocks(work)), blocks, strict=True))
    passes, plain = (known[id(block)] for block in _blocks(work)), work.plain_kinds

    def direction(messages: Sequence[Operator]) -> Direction:
        embedding, head, *again = islice(passes, 2 + len(work.layers))
        without = dict(zip(plain, islice(passes, len(plain)), strict=True))
        return Direction(
            work=work,
            cluster=cluster,
            stack=stack,
            embedding=embedding,
            head=head,
            layers={kind: (each, without.get(kind)) for kind, each in zip(work.layers, again, strict=True)},
            messages=messages,
        )

    return direction(work.boundary.forward), direction(work.boundary.backward)
