"""Where the pieces meet: a run in, its prediction out; one stage's numbers may be arrays of any shape.

    specs -> count.iteration -> count.memory
                             -> timing.schedule -> iteration time -> MFU, tokens/s, days
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from perfmodel.count.iteration import Iteration, iteration, model_flop_per_token
from perfmodel.count.memory import MemoryBytes, memory_bytes
from perfmodel.count.operators import hardware_flop, model_flop
from perfmodel.count.parameters import shard_parameter_count
from perfmodel.count.synchronisation import Buckets, buckets
from perfmodel.spec.fields import Numeric, Truth
from perfmodel.spec.hardware import Cluster
from perfmodel.spec.layout import Layout
from perfmodel.spec.model import TransformerModel
from perfmodel.spec.run import Run, Stage
from perfmodel.spec.stack import SoftwareStack
from perfmodel.timing.schedule import Breakdown, breakdown

SECONDS_PER_DAY = 86400.0
SCALES = ("compute_scale", "node_link_scale", "network_scale")


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePrediction:
    """What one stage of a run will do. Every number is 0-d for one layout, or has the broadcast shape of the inputs."""

    layout: Layout
    iteration_time_s: Numeric
    iteration_time_interval_s: tuple[Numeric, Numeric]  # 90 %
    mfu: Numeric
    hfu: Numeric
    model_flop_per_token: Numeric
    breakdown: Breakdown
    memory: MemoryBytes
    fits: Truth
    headroom_bytes: Numeric  # of the GPU's memory; negative when the layout does not fit

    @property
    def tokens_per_s(self) -> Numeric:
        """Tokens trained on per second by the whole cluster."""
        return self.layout.tokens_per_iteration / self.iteration_time_s

    @property
    def tokens_per_s_per_gpu(self) -> Numeric:
        """The same for one GPU."""
        return self.tokens_per_s / self.layout.gpus

    def days(self, tokens: Numeric) -> Numeric:
        """Days to train on `tokens`."""
        return tokens / self.tokens_per_s / SECONDS_PER_DAY


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """A run and the prediction of each of its stages."""

    run: Run
    stages: tuple[tuple[Stage, StagePrediction], ...]

    @property
    def total_tokens(self) -> Numeric | None:
        """Tokens of all stages, or None when a stage does not state its tokens."""
        return self._sum(lambda _, tokens: tokens)

    @property
    def total_days(self) -> Numeric | None:
        """Days of all stages, one after the other."""
        return self._sum(lambda predicted, tokens: predicted.days(tokens))

    @property
    def gpu_hours(self) -> Numeric | None:
        """GPU-hours of all stages."""
        return self._sum(lambda predicted, tokens: predicted.days(tokens) * 24.0 * predicted.layout.gpus)

    @property
    def fits(self) -> bool:
        """Whether every stage fits."""
        return all(bool(np.all(predicted.fits)) for _, predicted in self.stages)

    def _sum(self, term: Callable[[StagePrediction, Numeric], Numeric]) -> Numeric | None:
        total: Numeric = 0.0
        for stage, predicted in self.stages:
            if stage.tokens is None:
                return None
            total = total + term(predicted, stage.tokens)
        return total


def predict(run: Run) -> Prediction:
    """The prediction of every stage of `run`."""
    stages = tuple((stage, predict_stage(run.model, run.cluster, run.stack, run.layout(stage))) for stage in run.stages)
    return Prediction(run=run, stages=stages)


def predict_stage(model: TransformerModel, cluster: Cluster, stack: SoftwareStack, layout: Layout) -> StagePrediction:
    """Time, MFU and memory of one layout, or of arrays of them that broadcast, over one cluster or arrays of its numbers."""
    work = iteration(model, layout, stack)
    shard = shard_parameter_count(model, tensor_parallel=layout.tensor_parallel)
    bucket = buckets(shard, layout, stack)
    parts = breakdown(work, bucket, gpus=layout.gpus, cluster=cluster, stack=stack)
    memory = memory_bytes(model, layout, stack, work)
    seconds = parts.total_s
    capacity_flop = seconds * cluster.gpu.peak(layout.precision)
    headroom = cluster.gpu.memory_bytes - memory.total_bytes
    return StagePrediction(
        layout=layout,
        iteration_time_s=seconds,
        iteration_time_interval_s=_interval(work, bucket, layout.gpus, seconds, cluster, stack),
        mfu=model_flop(work.operators) / capacity_flop,
        hfu=hardware_flop(work.operators) / capacity_flop,
        model_flop_per_token=model_flop_per_token(model, layout.sequence_length),
        breakdown=parts,
        memory=memory,
        fits=headroom >= 0,
        headroom_bytes=headroom,
    )


def _interval(
    work: Iteration, bucket: Buckets, gpus: Numeric, seconds: Numeric, cluster: Cluster, stack: SoftwareStack
) -> tuple[Numeric, Numeric]:
    """T - sqrt(sum(fast_i^2)) .. T + sqrt(sum(slow_i^2)): each scale of the cluster moved to both ends of its own 90 % interval.

    The same equations are evaluated for each end; the three scales are independent of each other, and each moves all of its
    operators at once.
    """
    gained, lost = 0.0 * seconds, 0.0 * seconds
    for scale in SCALES:
        value, spread = getattr(cluster, scale), getattr(cluster, f"{scale}_spread")
        fast = replace(cluster, **{scale: value * (1.0 + spread)})
        slow = replace(cluster, **{scale: value / (1.0 + spread)})
        fast_s, slow_s = (breakdown(work, bucket, gpus=gpus, cluster=end, stack=stack).total_s for end in (fast, slow))
        gained = gained + (seconds - fast_s) * (seconds - fast_s)
        lost = lost + (slow_s - seconds) * (slow_s - seconds)
    return seconds - np.sqrt(gained), seconds + np.sqrt(lost)
