"""What hides behind what: from the times of operators on their own to the time of an iteration, part by part.

A collective beside a matrix product is hidden as long as the product runs; what remains is exposed. While it runs it takes
a share f of the SMs, so the product slows down. With c the collective's time and g the product's:

    hidden = min(c, g / (1 - f)) * (1 - 1 / chunks),   slowdown = f * hidden,   exposed = c - hidden

where `chunks` is infinite for a product and a collective that do not depend on each other, and the number of ranks for a
pair that is pipelined: its first chunk has nothing to hide behind.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Final

import numpy as np

from perfmodel.count.decoder import is_attention_core
from perfmodel.count.iteration import Iteration
from perfmodel.count.operators import Collective, FusedAttention, Matmul, MemoryBound, Operator
from perfmodel.count.synchronisation import GRADIENT_REDUCTION, PARAMETER_GATHER, Buckets
from perfmodel.spec.fields import Numeric
from perfmodel.spec.hardware import Cluster
from perfmodel.spec.stack import SoftwareStack
from perfmodel.timing.collectives import Placement, collective_time_s, placement
from perfmodel.timing.kernels import kernel_time_s, slowest_compute_scale


@dataclass(frozen=True, slots=True, kw_only=True)
class Breakdown:
    """Seconds of one iteration by part; they sum to the total."""

    matmul_s: Numeric = 0.0
    attention_s: Numeric = 0.0
    memory_bound_s: Numeric = 0.0
    tensor_parallel_exposed_s: Numeric = 0.0
    data_parallel_exposed_s: Numeric = 0.0
    communication_slowdown_s: Numeric = 0.0  # compute that waits for SMs which communication took
    launch_s: Numeric = 0.0  # the GPU waiting for the CPU
    unlisted_s: Numeric = 0.0  # work of the passes that no operator stands for, as the stack states it
    optimizer_s: Numeric = 0.0

    @property
    def total_s(self) -> Numeric:
        """The sum of the parts."""
        total: Numeric = 0.0
        for part in PARTS:
            total = total + getattr(self, part)
        return total

    def __add__(self, other: Breakdown) -> Breakdown:
        return Breakdown(**{part: getattr(self, part) + getattr(other, part) for part in PARTS})

    def __mul__(self, times: Numeric) -> Breakdown:
        return Breakdown(**{part: getattr(self, part) * times for part in PARTS})


PARTS: Final = tuple(part.name for part in fields(Breakdown))


def breakdown(work: Iteration, bucket: Buckets, *, gpus: Numeric, cluster: Cluster, stack: SoftwareStack) -> Breakdown:
    """micro_batches * (forward + backward) + optimizer + what data parallelism leaves exposed, on the slowest of `gpus`."""
    cluster = replace(cluster, compute_scale=slowest_compute_scale(cluster, gpus))
    forward = _direction(work, "forward", cluster, stack)
    backward = _direction(work, "backward", cluster, stack)
    once = _optimizer(work, cluster, stack)
    # gradients go behind the last backward pass, parameters behind the first forward pass of the next iteration
    window_s = {GRADIENT_REDUCTION: backward.total_s, PARAMETER_GATHER: forward.total_s}
    exposed = _data_parallel(work, bucket, window_s, cluster, stack)
    return (forward + backward) * work.micro_batches + once + exposed


def _direction(work: Iteration, direction: str, cluster: Cluster, stack: SoftwareStack) -> Breakdown:
    """One direction of a micro-batch; when the CPU launches slower than the GPU computes, the GPU waits for it."""
    layer, *ends = (getattr(block, direction) for block in (work.layer, work.embedding, work.head))
    parts = _pass(layer, cluster, stack) * work.layers
    host_s = _host_s(layer, stack) * work.layers
    for operators in ends:
        parts = parts + _pass(operators, cluster, stack)
        host_s = host_s + _host_s(operators, stack)
    waiting_s = np.maximum(host_s - parts.total_s, 0.0)
    return replace(parts, launch_s=waiting_s, unlisted_s=(stack.unlisted_work - 1.0) * (parts.total_s + waiting_s))


def _host_s(operators: Iterable[Operator], stack: SoftwareStack) -> Numeric:
    """What the CPU needs to launch `operators` once."""
    kernels: Numeric = 0.0
    for operator in operators:
        kernels = kernels + operator.repeats * _kernels(operator)
    return kernels * stack.host_s


def _kernels(operator: Operator) -> Numeric:
    """How many kernels the CPU launches for one execution; a group of one does not call its collective."""
    if isinstance(operator, Collective):
        return np.where(np.asarray(operator.group.ranks) > 1, 1.0, 0.0)
    return operator.kernels if isinstance(operator, MemoryBound) else 1


def _pass(operators: Iterable[Operator], cluster: Cluster, stack: SoftwareStack) -> Breakdown:
    """The parts of one execution of `operators`, each collective beside the product that it can hide behind."""
    sums: dict[str, Numeric] = {}
    product_s: dict[tuple[str, str], Numeric] = {}
    calls: list[Collective] = []
    for operator in operators:
        if isinstance(operator, Collective):
            calls.append(operator)
            continue
        seconds = operator.repeats * kernel_time_s(operator, cluster=cluster, stack=stack)
        part = _compute_part(operator)
        sums[part] = sums.get(part, 0.0) + seconds
        product_s[operator.name, operator.phase] = seconds
    places = {group.name: placement(group, cluster) for group in {call.group.name: call.group for call in calls}.values()}
    for call in calls:
        where = places[call.group.name]
        exposed_s, slowdown_s = _tensor_parallel(call, where, product_s.get(call.partner, 0.0), cluster, stack)
        sums["tensor_parallel_exposed_s"] = sums.get("tensor_parallel_exposed_s", 0.0) + exposed_s
        sums["communication_slowdown_s"] = sums.get("communication_slowdown_s", 0.0) + slowdown_s
    return Breakdown(**sums)


def _compute_part(operator: Matmul | FusedAttention | MemoryBound) -> str:
    if is_attention_core(operator):
        return "attention_s"
    return "matmul_s" if isinstance(operator, Matmul) else "memory_bound_s"


def _tensor_parallel(
    call: Collective, where: Placement, product_s: Numeric, cluster: Cluster, stack: SoftwareStack
) -> tuple[Numeric, Numeric]:
    """Exposed time of one collective, and what it takes from the product beside it."""
    if stack.hide_all:
        return 0.0, 0.0
    alone_s = call.repeats * collective_time_s(call, where, cluster=cluster)
    mode = stack.tensor_parallel_overlap
    if not call.partner[0] or mode == "none" or (call.pipelined and mode == "backward"):
        return alone_s, 0.0
    chunks_hidden = 1.0 - 1.0 / call.group.ranks if call.pipelined else 1.0
    fraction = sm_fraction(where, stack)
    hidden_s = np.minimum(alone_s, product_s / (1.0 - fraction)) * chunks_hidden
    return alone_s - hidden_s, fraction * hidden_s


def _optimizer(work: Iteration, cluster: Cluster, stack: SoftwareStack) -> Breakdown:
    """Everything of the optimizer step but the two data-parallel collectives, one after the other."""
    seconds: Numeric = stack.iteration_host_s
    for operator in work.synchronisation:
        if operator.name in (GRADIENT_REDUCTION, PARAMETER_GATHER):
            continue
        if isinstance(operator, Collective):
            seconds = seconds + (0.0 if stack.hide_all else _alone_s(operator, cluster))
        else:
            seconds = seconds + kernel_time_s(operator, cluster=cluster, stack=stack)
    return Breakdown(optimizer_s=seconds)


def _alone_s(call: Collective, cluster: Cluster) -> Numeric:
    return collective_time_s(call, placement(call.group, cluster), cluster=cluster)


def _data_parallel(
    work: Iteration, bucket: Buckets, window_s: Mapping[str, Numeric], cluster: Cluster, stack: SoftwareStack
) -> Breakdown:
    """Each data-parallel collective behind its window: the pass of the one micro-batch that it can run beside."""
    result = Breakdown()
    for call in work.synchronisation:
        if not isinstance(call, Collective) or call.name not in window_s or stack.hide_all:
            continue
        where = placement(call.group, cluster)
        alone_s = call.repeats * collective_time_s(call, where, cluster=cluster)
        if not stack.data_parallel_overlap:
            result = result + Breakdown(data_parallel_exposed_s=alone_s)
            continue
        window = window_s[call.name]
        last = replace(call, payload_bytes=call.payload_bytes * call.repeats * _last_share(bucket, alone_s, window))
        last_s = collective_time_s(last, where, cluster=cluster)
        fraction = sm_fraction(where, stack)
        result = result + _buckets_behind(window, alone_s, last_s, number=call.repeats, fraction=fraction)
    return result


def _last_share(bucket: Buckets, alone_s: Numeric, window_s: Numeric) -> Numeric:
    """E + size * (1 + min(C/W, 1)) / 2: what is left to send when the backward pass ends (or the forward pass begins).

    The embeddings end the last bucket, with anything from nothing to a full bucket of layers before them: half of one on
    average. While the full bucket before that is still under way, they wait for it: for half of its time when the network is
    as fast as the computation (C = W), for none when it is much faster.
    """
    waiting = bucket.share * (1.0 + np.minimum(alone_s / window_s, 1.0)) / 2.0
    return np.minimum(bucket.uncut_share + waiting, 1.0)


def sm_fraction(where: Placement, stack: SoftwareStack) -> Numeric:
    """The share of the SMs that a collective takes while it runs: for the links of a node, where it crosses any of them."""
    alone_in_its_node = where.crosses_nodes & (np.asarray(where.ranks_per_node) == 1)
    return np.where(alone_in_its_node, stack.network_sm_fraction, stack.node_link_sm_fraction)


def _buckets_behind(window_s: Numeric, alone_s: Numeric, last_s: Numeric, *, number: Numeric, fraction: Numeric) -> Breakdown:
    """max(last, C + W/N - W) is exposed of N buckets that take C and become ready evenly over a window W.

    The first is ready after W/N, so the last cannot end before W/N + C; it is ready at W, so nor before W + last. In the
    forward pass the same holds backwards in time.
    """
    taken_s = fraction * np.minimum(alone_s, window_s / (1.0 - fraction))
    window_s = window_s + taken_s
    exposed_s = np.maximum(last_s, alone_s + window_s / number - window_s)
    return Breakdown(data_parallel_exposed_s=exposed_s, communication_slowdown_s=taken_s)
