"""What data parallelism leaves exposed: gradients behind the backward pass, parameters behind the forward pass.

Gradients that are reduced once an iteration hide behind the last backward pass of the first pipeline stage, parameters behind
its first forward pass. With W that window, C the time of all N buckets and `last` that of what is left when the window ends:

    exposed = max(last, C + W/N - W)

The first bucket is ready after W/N, so the last cannot end before W/N + C; it is ready at W, so nor before W + last. In the
forward pass the same holds backwards in time. What is moved for every micro-batch is exposed as often.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from perfmodel.count.data_parallel import (
    BACKWARD_GATHER,
    DATA_PARALLEL,
    GRADIENT_REDUCTION,
    PARAMETER_GATHER,
    REPLICA_REDUCTION,
    Buckets,
    every_micro_batch,
)
from perfmodel.count.iteration import Iteration
from perfmodel.count.operators import Collective
from perfmodel.spec.fields import Numeric
from perfmodel.spec.hardware import Cluster
from perfmodel.spec.layout import GATHERED, Layout
from perfmodel.spec.stack import SoftwareStack
from perfmodel.timing.breakdown import Breakdown
from perfmodel.timing.collectives import collective_time_s, placement
from perfmodel.timing.passes import sm_fraction


def data_parallel_breakdown(
    work: Iteration,
    bucket: Buckets,
    *,
    layout: Layout,
    forward_s: Numeric,
    backward_s: Numeric,
    cluster: Cluster,
    stack: SoftwareStack,
) -> Breakdown:
    """Exposed time and slowdown; `forward_s` and `backward_s` are the passes of one micro-batch over the first stage."""
    calls = {op.name: op for op in work.synchronisation if isinstance(op, Collective) and op.name in DATA_PARALLEL}
    if stack.hide_all:
        return Breakdown()
    forward = [calls[name] for name in (PARAMETER_GATHER,) if name in calls]
    backward = [calls[name] for name in (GRADIENT_REDUCTION, REPLICA_REDUCTION, BACKWARD_GATHER) if name in calls]
    if not stack.data_parallel_overlap:
        alone_s = sum((call.repeats * _alone_s(call, cluster) for call in forward + backward), 0.0)
        return Breakdown(data_parallel_exposed_s=alone_s)
    result = Breakdown()
    for window_calls, pass_s in ((backward, backward_s), (forward, forward_s)):
        if window_calls:
            result = result + _behind(window_calls, bucket, pass_s, layout, cluster, stack)
    return result


def _behind(
    calls: Sequence[Collective], bucket: Buckets, window_s: Numeric, layout: Layout, cluster: Cluster, stack: SoftwareStack
) -> Breakdown:
    """What the collectives that share one window leave exposed, every time that they run."""
    times = 1 if layout.sharding in ("none", "zero1") else every_micro_batch(layout)
    if layout.sharding == "zero2" and calls[0].name == PARAMETER_GATHER:
        times = 1
    all_s: Numeric = 0.0
    for call in calls:
        all_s = all_s + call.repeats / times * _alone_s(call, cluster)
    fraction = sm_fraction(placement(calls[0].group, cluster), stack)
    share = _last_share(bucket, all_s, window_s) if layout.sharding not in GATHERED else bucket.uncut_share
    last_s: Numeric = 0.0
    for call in calls:
        per_pass = call.repeats / times
        if call.name == BACKWARD_GATHER:
            last_s = last_s + np.where(per_pass > 0, _alone_s(call, cluster), 0.0)
        else:
            last = replace(call, payload_bytes=call.payload_bytes * per_pass * share)
            last_s = last_s + _alone_s(last, cluster)
            if layout.sharding in GATHERED and call.name == PARAMETER_GATHER:
                last_s = last_s + _alone_s(call, cluster)
    return _buckets_behind(window_s, all_s, last_s, number=bucket.count, fraction=fraction) * times


def _last_share(bucket: Buckets, alone_s: Numeric, window_s: Numeric) -> Numeric:
    """E + size * (1 + min(C/W, 1)) / 2: what is left to send when the backward pass ends (or the forward pass begins).

    The embeddings end the last bucket, with anything from nothing to a full bucket of layers before them: half of one on
    average. While the full bucket before that is still under way, they wait for it: for half of its time when the network is
    as fast as the computation (C = W), for none when it is much faster.
    """
    waiting = bucket.share * (1.0 + np.minimum(alone_s / window_s, 1.0)) / 2.0
    return np.minimum(bucket.uncut_share + waiting, 1.0)


def _buckets_behind(window_s: Numeric, alone_s: Numeric, last_s: Numeric, *, number: Numeric, fraction: Numeric) -> Breakdown:
    """max(last, C + W/N - W) of N buckets that take C and become ready evenly over a window W; the SMs they take slow it down."""
    taken_s = fraction * np.minimum(alone_s, window_s / (1.0 - fraction))
    window_s = window_s + taken_s
    exposed_s = np.maximum(last_s, alone_s + window_s / number - window_s)
    return Breakdown(data_parallel_exposed_s=exposed_s, communication_slowdown_s=taken_s)


def _alone_s(call: Collective, cluster: Cluster) -> Numeric:
    return collective_time_s(call, placement(call.group, cluster), cluster=cluster)
