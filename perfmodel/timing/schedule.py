"""From the passes of one micro-batch to the time of an iteration: the pipeline, the optimizer, and data parallelism.

Symbols: p pipeline_parallel, v virtual_pipeline, m micro-batches, t_i forward and backward pass of stage i, w_i its weight
gradients, c a message between neighbours, forwards and back.

    T = m * max_i(t_i) + B + E + optimizer + data parallel

    1f1b, interleaved   B = (sum_i(t_i) - max_i(t_i)) / v               arXiv:2104.04473, section 2.2
    zb-h1, zb-1p        B = max(sum - max - 2*(p - 1)*w, 0)             arXiv:2401.10241, section 2
    zb-2p               B = max(sum - max - 3*(p - 1)*w, 0)

A stage's messages wait for each other where nothing overlaps them: E = (m*v + p - 1)*c. Where an interleaved schedule runs them
beside the passes, those that fill and drain the pipeline stay: E = (p - 1)*c, and what is longer than a pass over one piece.

Ignored: that stages of different length can hide each other's messages.
"""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

import numpy as np

from perfmodel.count.data_parallel import DATA_PARALLEL, Buckets
from perfmodel.count.iteration import Iteration
from perfmodel.count.operators import Collective
from perfmodel.spec.fields import Numeric
from perfmodel.spec.hardware import Cluster
from perfmodel.spec.layout import Layout
from perfmodel.spec.stack import SoftwareStack
from perfmodel.timing.breakdown import Breakdown, slower
from perfmodel.timing.collectives import collective_time_s, placement
from perfmodel.timing.data_parallel import DataParallel
from perfmodel.timing.kernels import kernel_time_s, slowest_compute_scale
from perfmodel.timing.passes import Direction

WEIGHT_GRADIENTS_IN_BUBBLE = {"1f1b": 0.0, "zb-h1": 2.0, "zb-1p": 2.0, "zb-2p": 3.0}


def breakdown(work: Iteration, bucket: Buckets, *, layout: Layout, cluster: Cluster, stack: SoftwareStack) -> Breakdown:
    """The iteration on the slowest GPUs of all, part by part."""
    cluster = replace(cluster, compute_scale=slowest_compute_scale(cluster, layout.gpus))
    forward, backward = (Direction(work, direction, cluster, stack) for direction in ("forward", "backward"))
    first_forward, first_backward = (each.stage(work.stages.first).parts for each in (forward, backward))
    if np.any(np.asarray(layout.pipeline_parallel) > 1):
        passes = _pipelined(forward, backward, first_forward + first_backward, layout, stack)
    else:
        passes = (first_forward + first_backward) * layout.micro_batches
    synchronised = DataParallel(bucket=bucket, layout=layout, cluster=cluster, stack=stack)
    exposed = synchronised.breakdown(work, forward_s=first_forward.total_s, backward_s=first_backward.total_s)
    return passes + _optimizer(work, cluster, stack) + exposed


def _pipelined(forward: Direction, backward: Direction, first: Breakdown, layout: Layout, stack: SoftwareStack) -> Breakdown:
    """All passes of the slowest stage, what it waits for the others, and the messages that it waits for."""
    stages = forward.work.stages
    present = [stage for stage in (stages.middle, stages.last) if np.any(stage.number)]
    others = [(forward.stage(stage).parts + backward.stage(stage).parts) * np.minimum(stage.number, 1) for stage in present]
    slowest = reduce(slower, others, first)
    whole = backward.whole()
    sum_s = forward.whole().parts.total_s + whole.parts.total_s
    slowest_s, pipeline = slowest.total_s, layout.pipeline_parallel
    weight_s = WEIGHT_GRADIENTS_IN_BUBBLE[layout.pipeline_schedule] * whole.weight_gradient_s * (pipeline - 1) / pipeline
    bubble_s = np.maximum(sum_s - slowest_s - weight_s, 0.0) / layout.virtual_pipeline
    messages_s = 0.0 if stack.hide_all else _messages_s(forward, backward, layout, stack, slowest_s)
    waiting = Breakdown(pipeline_bubble_s=bubble_s, pipeline_parallel_exposed_s=messages_s)
    return slowest * layout.micro_batches + waiting


def _messages_s(forward: Direction, backward: Direction, layout: Layout, stack: SoftwareStack, slowest_s: Numeric) -> Numeric:
    both_s = forward.message_s + backward.message_s
    virtual, pipeline = layout.virtual_pipeline, layout.pipeline_parallel
    fill_s = (pipeline - 1) * both_s
    steady_s: Numeric = virtual * both_s
    if stack.pipeline_overlap:
        steady_s = np.where(np.asarray(virtual) > 1, np.maximum(steady_s - slowest_s, 0.0), steady_s)
    return np.where(np.asarray(pipeline) > 1, layout.micro_batches * steady_s + fill_s, 0.0)


def _optimizer(work: Iteration, cluster: Cluster, stack: SoftwareStack) -> Breakdown:
    """Everything of the optimizer step but what data parallelism moves, one after the other."""
    seconds: Numeric = stack.iteration_host_s
    for operator in work.synchronisation:
        if operator.name in DATA_PARALLEL:
            continue
        if isinstance(operator, Collective):
            alone_s = collective_time_s(operator, placement(operator.group, cluster), cluster=cluster)
            seconds = seconds + (0.0 if stack.hide_all else alone_s)
        else:
            seconds = seconds + kernel_time_s(operator, cluster=cluster, stack=stack)
    return Breakdown(optimizer_s=seconds)
