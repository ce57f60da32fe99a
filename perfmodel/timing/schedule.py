"""What hides behind what: from the times of operators on their own to the time of an iteration, part by part.

A collective beside a matrix product is hidden as long as the product runs; what remains is exposed. While it runs it takes
a share f of the SMs, so the product slows down. With c the collective's time and g the product's:

    hidden = min(c, g / (1 - f)) * (1 - 1 / chunks),   slowdown = f * hidden,   exposed = c - hidden

where `chunks` is infinite for a product and a collective that do not depend on each other, and the number of ranks for a
pair that is pipelined: its first chunk has nothing to hide behind.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

import numpy as np

from perfmodel.count.decoder import Block
from perfmodel.count.iteration import Iteration
from perfmodel.count.operators import Collective, FusedAttention, Matmul, MemoryBound, Operator
from perfmodel.count.synchronisation import GRADIENT_REDUCTION, PARAMETER_GATHER, Buckets
from perfmodel.spec.fields import Numeric
from perfmodel.spec.hardware import Cluster
from perfmodel.spec.stack import SoftwareStack
from perfmodel.timing.collectives import collective_time_s
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
    optimizer_s: Numeric = 0.0

    @property
    def total_s(self) -> Numeric:
        """The sum of the parts."""
        total: Numeric = 0.0
        for part in fields(self):
            total = total + getattr(self, part.name)
        return total

    def __add__(self, other: Breakdown) -> Breakdown:
        return Breakdown(**{part.name: getattr(self, part.name) + getattr(other, part.name) for part in fields(self)})

    def __mul__(self, times: Numeric) -> Breakdown:
        return Breakdown(**{part.name: getattr(self, part.name) * times for part in fields(self)})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pass:
    """One direction of one or more blocks: its parts, and what the CPU needs to launch it."""

    parts: Breakdown
    host_s: Numeric

    def __add__(self, other: _Pass) -> _Pass:
        return _Pass(parts=self.parts + other.parts, host_s=self.host_s + other.host_s)

    def __mul__(self, times: Numeric) -> _Pass:
        return _Pass(parts=self.parts * times, host_s=self.host_s * times)

    def launched(self) -> Breakdown:
        """The parts, with the time the GPU waits when the CPU launches slower than it computes."""
        return self.parts + Breakdown(launch_s=np.maximum(self.host_s - self.parts.total_s, 0.0))


def breakdown(work: Iteration, bucket: Buckets, *, gpus: Numeric, cluster: Cluster, stack: SoftwareStack) -> Breakdown:
    """micro_batches * (forward + backward) + optimizer + what data parallelism leaves exposed, on the slowest of `gpus`."""
    cluster = replace(cluster, compute_scale=slowest_compute_scale(cluster, gpus))
    forward = _direction(work, "forward", cluster, stack).launched()
    backward = _direction(work, "backward", cluster, stack).launched()
    once = _optimizer(work, cluster, stack)
    exposed = _data_parallel(work, bucket, forward.total_s, backward.total_s, cluster, stack)
    return (forward + backward) * work.micro_batches + once + exposed


def _direction(work: Iteration, direction: str, cluster: Cluster, stack: SoftwareStack) -> _Pass:
    def one(block: Block) -> _Pass:
        return _pass(getattr(block, direction), cluster, stack)

    return one(work.embedding) + one(work.layer) * work.layers + one(work.head)


def _pass(operators: Iterable[Operator], cluster: Cluster, stack: SoftwareStack) -> _Pass:
    parts, host_s = Breakdown(), 0.0
    product_s: dict[tuple[str, str], Numeric] = {}
    calls: list[Collective] = []
    for operator in operators:
        if isinstance(operator, Collective):
            calls.append(operator)
            host_s = host_s + operator.repeats * stack.host_s
            continue
        seconds = operator.repeats * kernel_time_s(operator, cluster=cluster, stack=stack)
        parts = parts + _compute_part(operator, seconds)
        kernels = operator.kernels if isinstance(operator, MemoryBound) else 1
        host_s = host_s + operator.repeats * kernels * stack.host_s
        product_s[operator.name, operator.phase] = seconds
    for call in calls:
        parts = parts + _tensor_parallel(call, product_s.get(call.partner, 0.0), cluster, stack)
    return _Pass(parts=parts, host_s=host_s)


def _compute_part(operator: Matmul | FusedAttention | MemoryBound, seconds: Numeric) -> Breakdown:
    if operator.name.startswith("layer.attention.") and operator.name.endswith((".core", ".scores", ".context", ".softmax", ".dropout")):
        return Breakdown(attention_s=seconds)
    return Breakdown(matmul_s=seconds) if isinstance(operator, Matmul) else Breakdown(memory_bound_s=seconds)


def _tensor_parallel(call: Collective, product_s: Numeric, cluster: Cluster, stack: SoftwareStack) -> Breakdown:
    if stack.hide_all:
        return Breakdown()
    alone_s = call.repeats * collective_time_s(call, cluster=cluster)
    mode = stack.tensor_parallel_overlap
    if not call.partner[0] or mode == "none" or (call.pipelined and mode == "backward"):
        return Breakdown(tensor_parallel_exposed_s=alone_s)
    share = 1.0 - 1.0 / call.group.ranks if call.pipelined else 1.0
    return _overlapped(alone_s, product_s, share, stack.node_link_sm_fraction)


def _overlapped(alone_s: Numeric, product_s: Numeric, share: Numeric, sm_fraction: Numeric) -> Breakdown:
    hidden_s = np.minimum(alone_s, product_s / (1.0 - sm_fraction)) * share
    return Breakdown(tensor_parallel_exposed_s=alone_s - hidden_s, communication_slowdown_s=sm_fraction * hidden_s)


def _optimizer(work: Iteration, cluster: Cluster, stack: SoftwareStack) -> Breakdown:
    """Everything of the optimizer step but the two data-parallel collectives, one after the other."""
    seconds: Numeric = stack.iteration_host_s
    for operator in work.synchronisation:
        if operator.name in (GRADIENT_REDUCTION, PARAMETER_GATHER):
            continue
        if isinstance(operator, Collective):
            seconds = seconds + (0.0 if stack.hide_all else collective_time_s(operator, cluster=cluster))
        else:
            seconds = seconds + kernel_time_s(operator, cluster=cluster, stack=stack)
    return Breakdown(optimizer_s=seconds)


def _data_parallel(
    work: Iteration, bucket: Buckets, forward_s: Numeric, backward_s: Numeric, cluster: Cluster, stack: SoftwareStack
) -> Breakdown:
    """Reduction behind the last backward pass, gathering behind the first forward pass of the next iteration."""
    window_s = {GRADIENT_REDUCTION: backward_s, PARAMETER_GATHER: forward_s}
    result = Breakdown()
    for call in work.synchronisation:
        if not isinstance(call, Collective) or call.name not in window_s or stack.hide_all:
            continue
        alone_s = call.repeats * collective_time_s(call, cluster=cluster)
        if not stack.data_parallel_overlap:
            result = result + Breakdown(data_parallel_exposed_s=alone_s)
            continue
        result = result + _buckets_behind(call, alone_s, window_s[call.name], bucket, cluster, stack)
    return result


def _buckets_behind(
    call: Collective, alone_s: Numeric, window_s: Numeric, bucket: Buckets, cluster: Cluster, stack: SoftwareStack
) -> Breakdown:
    """max(last, C + W/N - W) is exposed of N buckets that take C and become ready evenly over a window W.

    The first is ready after W/N, so the last cannot end before W/N + C; it is ready at W, so nor before W + last. In the
    forward pass the same holds backwards in time.
    """
    taken_s = stack.network_sm_fraction * np.minimum(alone_s, window_s / (1.0 - stack.network_sm_fraction))
    window_s = window_s + taken_s
    last = replace(call, payload_bytes=call.payload_bytes * call.repeats * bucket.last_share)
    last_s = collective_time_s(last, cluster=cluster)
    exposed_s = np.maximum(last_s, alone_s + window_s / call.repeats - window_s)
    return Breakdown(data_parallel_exposed_s=exposed_s, communication_slowdown_s=taken_s)
