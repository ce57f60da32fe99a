"""Where the peak goes: from the model FLOPs at the peak rate down to the predicted iteration, step by step.

    iteration = ideal + sum of steps,    MFU = ideal / iteration = 1 - sum of steps / iteration

so a step of x seconds costs x / iteration of MFU, whatever stands before it. Kernels are timed four times, each time less
ideal: their model FLOPs at the peak rate of the layout, all their arithmetic at the peak rate of its own precision, kernels at
the clocks of the datasheet, kernels at the clocks that the slowest of all GPUs keeps up. The differences are steps.

A GPU here is the average over the pipeline stages, as in the MFU. All wait for the slowest of them: what that one takes
longer is the step of uneven stages. Kernels that run again are one step; collectives that run again are exposed
communication. By how much own runs shift a time (own_runs.py) no kernel tells: it is among what no operator stands for.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from perfmodel.count.operators import Collective, FusedAttention, Matmul, MemoryBound, is_attention_core
from perfmodel.frames import Tabular
from perfmodel.light_dataclass import dataclass, replace
from perfmodel.prediction import StagePrediction
from perfmodel.spec.axes import REPORTED, WITHIN_LAYERS, axes_that_communicate
from perfmodel.spec.fields import Numeric
from perfmodel.spec.machines.coefficients import AttentionCoefficients
from perfmodel.spec.machines.hardware import Cluster, Gpu
from perfmodel.spec.phases import OPTIMIZER, RECOMPUTE
from perfmodel.spec.stack import SoftwareStack
from perfmodel.timing.attention import arithmetic_of, plain_attention_time_s
from perfmodel.timing.breakdown import Breakdown, slower
from perfmodel.timing.kernels import at_cluster_load, kernel_time_s
from perfmodel.timing.passes import both_directions, running_share
from perfmodel.timing.timed_operators import timed_operators

WITHIN: Final = axes_that_communicate(WITHIN_LAYERS)
OUTSIDE: Final = tuple(axis for axis in REPORTED if axis not in WITHIN)
STEPS: Final = (
    "wider_arithmetic",  # 16-bit parts of an 8-bit run, whose MFU is against the 8-bit peak; attention of fp32, at that of TF32
    "uncounted_flop",  # padding of the vocabulary, copies of KV heads
    "causal_mask",  # what kernels skip of the square that the convention counts in full, less the scores they form again
    "matmul_kernels",
    "attention_kernels",
    "clocks",
    "memory_bound",
    "recompute",
    "unlisted",
    "launch",
    *(axis.name for axis in WITHIN),
    "communication_slowdown",
    "uneven_stages",
    *(name for axis in OUTSIDE for name in (axis.bubble, axis.name) if name),
    "optimizer",
    "rank_waiting",
)
ALL_ARITHMETIC: Final = AttentionCoefficients(  # of a kernel that does nothing but its products, at the peak rate
    efficiency=1.0,
    by_head_size=MappingProxyType({"128": 1.0}),
    fixed_s=0.0,
    sequence_half=0.0,
    sequence_half_full=0.0,
    longest_rows=0.0,
    fill_power=1.0,
    wave_weight=0.0,
    tile_rows=1,
    memory_efficiency=1.0,
    growth=0.0,
    growth_s=1.0,
)
NO_WAIT_BYTES_PER_S: Final = 1e30


@dataclass(frozen=True, slots=True, kw_only=True)
class WaterfallStep:
    """One reason why an iteration takes longer than its model FLOPs at the peak rate; negative where it saves time."""

    name: str
    seconds: float
    mfu_change: float  # -seconds / iteration; -0.1 are ten points
    mfu_without: float  # what the MFU would be without this step alone


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Waterfall(Tabular):
    """From the ideal to the prediction; the steps add up to the difference, in seconds and in MFU."""

    ideal_s: float
    steps: tuple[WaterfallStep, ...]
    iteration_time_s: float
    mfu: float

    def rows(self) -> list[dict[str, Any]]:
        """The ideal, every step with the MFU that is left after it, and the prediction."""
        left = 1.0
        rows: list[dict[str, Any]] = [_row("peak", self.ideal_s, 0.0, 1.0)]
        for step in self.steps:
            left += step.mfu_change
            rows.append(_row(step.name, step.seconds, step.mfu_change, left))
        return [*rows, _row("predicted", self.iteration_time_s, self.mfu - 1.0, self.mfu)]


def _row(name: str, seconds: float, change: float, left: float) -> dict[str, Any]:
    return {"step": name, "seconds": seconds, "mfu_change": change, "mfu": left}


def waterfall(predicted: StagePrediction, *, cluster: Cluster, stack: SoftwareStack) -> Waterfall:
    """The steps of one layout, in the order of STEPS.

    >>> from perfmodel.exchange.run_files import read_candidates
    >>> from perfmodel.prediction import predict
    >>> run = read_candidates("nemotron-4-15b")[0].run
    >>> whole = waterfall(predict(run).stages[-1][1], cluster=run.cluster, stack=run.stack)
    >>> abs(1.0 + sum(step.mfu_change for step in whole.steps) - whole.mfu) < 1e-12
    True
    """
    total_s, mfu = float(predicted.iteration_time_s), float(predicted.mfu)
    factor = float(predicted.work.setup.own_shift.factor)
    seconds = _kernel_steps(predicted, cluster, stack) | _other_steps(
        predicted, cluster, stack, predicted.breakdown * (1 / factor)
    )
    seconds["unlisted"] += total_s * (1.0 - 1.0 / factor)
    ideal_s = mfu * total_s
    steps = tuple(
        WaterfallStep(
            name=name,
            seconds=seconds[name],
            mfu_change=0.0 - seconds[name] / total_s,
            mfu_without=ideal_s / (total_s - seconds[name]),
        )
        for name in STEPS
    )
    return Waterfall(ideal_s=ideal_s, steps=steps, iteration_time_s=total_s, mfu=mfu)


def _kernel_steps(predicted: StagePrediction, cluster: Cluster, stack: SoftwareStack) -> dict[str, float]:
    """What the kernels of an average GPU take beyond their model FLOPs at the peak rate of the layout."""
    slowest = at_cluster_load(cluster, predicted.layout.gpus)
    peak = cluster.gpu.peak(predicted.layout.recipe.products)
    nominal = replace(slowest, compute_scale=1.0)
    plain = replace(
        stack,
        host=replace(stack.host, clock_scale=1.0),
        low_precision=replace(stack.low_precision, clock_scale=1.0),
    )
    names = ("wider_arithmetic", "uncounted_flop", "causal_mask", "matmul_kernels", "attention_kernels", "clocks")
    seconds = dict.fromkeys((*names, "memory_bound", "recompute"), 0.0)
    for operator, repeats, in_layer_s in _kernels(predicted, slowest, stack):
        kind = "attention_kernels" if is_attention_core(operator) else "matmul_kernels"
        if operator.phase == RECOMPUTE:
            seconds["recompute"] += in_layer_s
        elif isinstance(operator, MemoryBound):
            seconds["attention_kernels" if is_attention_core(operator) else "memory_bound"] += in_layer_s
        else:
            counted_s = repeats * float(operator.model_flop / cluster.gpu.peak(arithmetic_of(operator, cluster.gpu)))
            arithmetic_s = repeats * _arithmetic_s(operator, cluster.gpu)
            nominal_s = repeats * float(kernel_time_s(operator, cluster=nominal, stack=plain))
            skipped = "causal_mask" if isinstance(operator, FusedAttention) else "uncounted_flop"
            seconds["wider_arithmetic"] += counted_s - repeats * float(operator.model_flop / peak)
            seconds[skipped] += arithmetic_s - counted_s
            seconds[kind] += nominal_s - arithmetic_s
            seconds["clocks"] += in_layer_s - nominal_s
    return seconds


def _kernels(
    predicted: StagePrediction, cluster: Cluster, stack: SoftwareStack
) -> Iterator[tuple[Matmul | FusedAttention | MemoryBound, float, float]]:
    """The operators of the passes that are no collectives: how often, and for how long, an average GPU runs each."""
    stages = float(predicted.layout.pipeline_parallel)
    share = running_share(predicted.work, cluster, stack)
    for operators, times in predicted.work.block_passes():
        for timed in timed_operators(operators, share, cluster, stack):
            kernel, passes = timed.operator, float(times) / stages
            if not isinstance(kernel, Collective) and kernel.phase != OPTIMIZER and np.any(kernel.repeats * times):
                yield kernel, passes * float(kernel.repeats), passes * float(timed.alone_s)


def _arithmetic_s(operator: Matmul | FusedAttention, gpu: Gpu) -> float:
    """One execution if it were nothing but its products at the peak rate; attention leaves out what its mask hides."""
    if isinstance(operator, Matmul):
        return float(operator.flop / gpu.peak(operator.precision))
    unlimited = replace(gpu, memory_bandwidth_bytes_per_s=NO_WAIT_BYTES_PER_S)
    return float(plain_attention_time_s(operator, ALL_ARITHMETIC, gpu=unlimited, compute_scale=1.0))


def _other_steps(predicted: StagePrediction, cluster: Cluster, stack: SoftwareStack, parts: Breakdown) -> dict[str, float]:
    """What is not kernels: waiting, communication, and what the slowest pipeline stage takes longer than the average one."""
    average, slowest = _passes(predicted, cluster, stack)
    beside_passes = parts.communication_slowdown_s - slowest.communication_slowdown_s  # taken by data parallelism
    steps: dict[str, Numeric] = {
        "unlisted": average.unlisted_s,
        "launch": average.launch_s,
        "communication_slowdown": average.communication_slowdown_s + beside_passes,
        "uneven_stages": slowest.total_s - average.total_s,
        "optimizer": parts.optimizer_s,
        "rank_waiting": parts.rank_waiting_s,
    }
    steps |= {axis.name: getattr(average, axis.exposed_part) for axis in WITHIN}
    steps |= {axis.name: getattr(parts, axis.exposed_part) for axis in OUTSIDE}
    steps |= {axis.bubble: getattr(parts, axis.bubble_part) for axis in OUTSIDE if axis.bubble}
    return {name: float(value) for name, value in steps.items()}


def _passes(predicted: StagePrediction, cluster: Cluster, stack: SoftwareStack) -> tuple[Breakdown, Breakdown]:
    """All passes of the average and of the slowest pipeline stage, which are one where there is one."""
    work, micro_batches = predicted.work, predicted.layout.micro_batches
    used = at_cluster_load(cluster, predicted.layout.gpus)
    forward, backward = both_directions(work, used, stack)
    held = [stage for stage in work.stages if np.all(np.asarray(stage.number) > 0)]
    slowest = reduce(slower, [forward.stage(stage).parts + backward.stage(stage).parts for stage in held]) * micro_batches
    if predicted.layout.pipeline_parallel == 1:
        return slowest, slowest
    whole = forward.whole().parts + backward.whole().parts
    return whole * (micro_batches / predicted.layout.pipeline_parallel), slowest
