"""What data parallelism leaves exposed: gradients behind the backward pass, parameters behind the forward pass.

Gradients that are reduced once an iteration hide behind the last backward pass of the first pipeline stage, parameters behind
its first forward pass. With W that window, C the time of all N buckets and `last` that of what is left when the window ends:

    exposed = max(last, C + W/N - W)

The first bucket is ready after W/N, so the last cannot end before W/N + C; it is ready at W, so nor before W + last. In the
forward pass the same holds backwards in time. What is moved for every micro-batch is exposed as often.

Where a stage holds v model chunks, interleaved, each chunk reduces its gradients for itself (Megatron-Core core_v0.9.0,
schedules.py, grad_sync_func). The last micro-batches pass a chunk in groups of g = min(p, m), one chunk after the other: all
chunks but the last hide behind the groups of those that follow, the last behind its own pass. With t of one micro-batch
backwards through all chunks, W = (g*(v - 1) + 1) * t/v, and a bucket holds a chunk at most. Gathers of parameters hide as
they do without chunks: align_param_gather starts those of all chunks together, and runs show no wider window.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np

from perfmodel.count.data_parallel import Buckets, windows
from perfmodel.count.iteration import Iteration
from perfmodel.count.operators import Collective, moves_data_parallel
from perfmodel.count.roles import Role
from perfmodel.light_dataclass import dataclass, replace
from perfmodel.spec.fields import Numeric, anywhere, chosen
from perfmodel.spec.layout import GATHERED
from perfmodel.spec.machines.hardware import Cluster
from perfmodel.spec.stack import SoftwareStack
from perfmodel.timing.breakdown import Breakdown
from perfmodel.timing.collectives import Placement, collective_time_s, placement
from perfmodel.timing.timed_operators import sm_fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The collectives that hide behind one pass over the first stage: `calls` repeat as often as they run beside one pass.

    They come before a forward pass or after a backward pass, `times` an iteration; `parts` are what one time leaves exposed
    and slows down.
    """

    calls: tuple[Collective, ...]
    forward: bool
    times: Numeric
    alone_s: Numeric
    parts: Breakdown


@dataclass(frozen=True, kw_only=True)
class DataParallel:
    """The data-parallel collectives of one iteration, on one cluster."""

    work: Iteration
    cluster: Cluster
    stack: SoftwareStack

    def breakdown(self, *, forward_s: Numeric, backward_s: Numeric) -> Breakdown:
        """Exposed time and slowdown; `forward_s` and `backward_s` are the passes of one micro-batch over the first stage."""
        result = Breakdown()
        for window in self.windows(forward_s=forward_s, backward_s=backward_s):
            result = result + window.parts * window.times
        return result

    def windows(self, *, forward_s: Numeric, backward_s: Numeric) -> Iterator[Window]:
        """What hides behind backward passes, then what hides behind forward passes; nothing where a stack hides all."""
        if self.stack.overlap.hide_all:
            return
        known = [op for op in self.work.synchronisation if isinstance(op, Collective) and moves_data_parallel(op)]
        before = [op for op in known if op.role is Role.PARAMETER_GATHER]
        after = [op for op in known if op.role is not Role.PARAMETER_GATHER]
        for window_s, beside, forward in ((backward_s, after, False), (forward_s, before, True)):
            if beside:
                yield self._window(beside, window_s, forward=forward)

    def _window(self, calls: Sequence[Collective], window_s: Numeric, *, forward: bool) -> Window:
        """The collectives that share one window."""
        times = windows(calls[0].role, self.work.layout)
        window_s = window_s if forward else window_s * self._passes_of_window(times)
        per_pass = tuple(replace(call, repeats=call.repeats / times) for call in calls)
        all_s: Numeric = 0.0
        for call in per_pass:
            all_s = all_s + call.repeats * self._alone_s(call)
        parts = self._beside(per_pass, all_s, window_s)
        return Window(calls=per_pass, forward=forward, times=times, alone_s=all_s, parts=parts)

    def _passes_of_window(self, times: Numeric) -> Numeric:
        """(g*(v - 1) + 1) / v, where the collectives run once an iteration: 1 without interleaving."""
        layout = self.work.layout
        chunks = chosen(times == 1, layout.virtual_pipeline, 1)
        group = np.minimum(layout.pipeline_parallel, layout.micro_batches)
        passes: Numeric = (group * (chunks - 1.0) + 1.0) / chunks
        return passes

    def _beside(self, per_pass: Sequence[Collective], all_s: Numeric, window_s: Numeric) -> Breakdown:
        """What they leave exposed, every time that they run."""
        if not self.stack.overlap.hides_data_parallel(self.work.layout.sharding):
            return Breakdown(data_parallel_exposed_s=all_s)
        chunks = np.asarray(self.work.layout.virtual_pipeline)
        whole = self.work.buckets
        bucket = replace(whole, count=np.maximum(whole.count, chunks), share=np.minimum(whole.share, 1.0 / chunks))
        share = bucket.uncut_share if self._gathers else _last_share(bucket, all_s, window_s)
        last_s: Numeric = 0.0
        for call, before in zip(per_pass, (per_pass[0], *per_pass), strict=False):
            if call.role is Role.REPLICA_REDUCTION and anywhere(self.stack.overlap.joined_reduction_bytes):
                last_s = last_s + self._last_joined_s(call, before.repeats, bucket, window_s)
            else:
                last_s = last_s + self._last_s(call, share)
        fraction = sm_fraction(self._place(per_pass[0]), self.stack)
        return _buckets_behind(window_s, all_s, last_s, number=bucket.count, fraction=fraction)

    def _last_joined_s(self, call: Collective, shards: Numeric, bucket: Buckets, window_s: Numeric) -> Numeric:
        """What of N all-reduces over copies, joined from more buckets, cannot hide: max(last, C + W/N - W), C and N theirs.

        As many as the `shards`, whose reductions over a shard group come before them, are not joined: the embeddings are left.
        """
        number, alone_s = np.maximum(call.repeats, 1.0), call.repeats * self._alone_s(call)
        half = replace(bucket, share=chosen(number < shards, 1.0 / number, 0.0))
        last_s = self._last_s(call, _last_share(half, alone_s, window_s))
        return np.maximum(last_s, alone_s + window_s / number - window_s)

    def _last_s(self, call: Collective, share: Numeric) -> Numeric:
        """What of one collective cannot hide: a share of all it moves, and the first layer of what is gathered for a pass."""
        last_s: Numeric = 0.0
        if call.role is not Role.BACKWARD_GATHER:
            last_s = self._alone_s(replace(call, payload_bytes=call.payload_bytes * call.repeats * share))
            if anywhere(np.asarray(call.repeats) == 0):
                last_s = chosen(call.repeats > 0, last_s, 0.0)
        if call.role is Role.BACKWARD_GATHER or (call.role is Role.PARAMETER_GATHER and self._gathers):
            last_s = last_s + chosen(call.repeats > 0, self._alone_s(call), 0.0)
        return last_s

    @property
    def _gathers(self) -> bool:
        return self.work.layout.sharding in GATHERED

    def _alone_s(self, call: Collective) -> Numeric:
        return collective_time_s(call, cluster=self.cluster, where=self._place(call))

    def _place(self, call: Collective) -> Placement:
        """Where its group is, whose calls are many."""
        if call.group.name not in self._places:
            self._places[call.group.name] = placement(call.group, self.cluster)
        return self._places[call.group.name]

    @cached_property
    def _places(self) -> dict[str, Placement]:
        return {}


def _last_share(bucket: Buckets, alone_s: Numeric, window_s: Numeric) -> Numeric:
    """E + size * (1 + min(C/W, 1)) / 2: what is left to send when the backward pass ends (or the forward pass begins).

    The embeddings end the last bucket, with anything from nothing to a full bucket of layers before them: half of one on
    average. While the full bucket before that is still under way, they wait for it: for half of its time when the network is
    as fast as the computation (C = W), for none when it is much faster.
    """
    waiting = bucket.share * (1.0 + np.minimum(alone_s / window_s, 1.0)) / 2.0
    return np.minimum(bucket.uncut_share + waiting, 1.0)


def _buckets_behind(window_s: Numeric, alone_s: Numeric, last_s: Numeric, *, number: Numeric, fraction: Numeric) -> Breakdown:
    """max(last, C + W/N - W) of N buckets that take C and are ready evenly over a window W, which the SMs they take prolong."""
    taken_s = fraction * np.minimum(alone_s, window_s / (1.0 - fraction))
    window_s = window_s + taken_s
    exposed_s = np.maximum(last_s, alone_s + window_s / number - window_s)
    return Breakdown(data_parallel_exposed_s=exposed_s, communication_slowdown_s=taken_s)
