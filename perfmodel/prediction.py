"""Where the pieces meet: a run in, its prediction out; one stage's numbers may be arrays of any shape.

specs -> count.iteration -> count.memory
                         -> timing.schedule -> iteration time -> MFU, tokens/s, days
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from typing import Any, Final

import numpy as np

from perfmodel.count.flops import model_flop_per_token
from perfmodel.count.iteration import Iteration, iteration
from perfmodel.count.memory.fit import DOES_NOT_FIT, fit_probability, fit_verdict
from perfmodel.count.memory.needed import MemoryBytes, memory_bytes, peaks_bytes
from perfmodel.count.operators import executed_flop, hardware_flop, model_flop
from perfmodel.errors import InputError
from perfmodel.frames import OneLine, Tabular
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.axes import AXES, DATA, REPORTED, TENSOR
from perfmodel.spec.evidence.error_law import heaviest_tails
from perfmodel.spec.evidence.spread import most_dimensions
from perfmodel.spec.fields import Numeric, Truth, anywhere
from perfmodel.spec.layout import Layout
from perfmodel.spec.run import RampStage, Run
from perfmodel.spec.setup import Setup
from perfmodel.timing.breakdown import PARTS, Breakdown
from perfmodel.timing.kernels import at_cluster_load
from perfmodel.timing.schedule import all_passes, breakdown, synchronised
from perfmodel.timing.uncertainty import Estimate, Uncertainty, uncertainty, with_ends
from perfmodel.units import HOURS_PER_DAY, SECONDS_PER_DAY, gpus_text, seconds_interval_text, seconds_text

NOT_FINITE: Final = "the numbers of this run give no finite iteration time; one of them is far too large or too small"
LONGEST_S: Final = 1e12  # of an iteration
SLACK: Final = 1e-9  # of rounding, in parts that sum up to a time
SENDING: Final = tuple(axis for axis in AXES if axis not in (TENSOR, DATA))  # whose ranks send to one another
SIZES: Final = (
    *(axis.name for axis in REPORTED),
    *("virtual_pipeline", "gpus", "micro_batch_size", "global_batch_size", "sequence_length"),
)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class StagePrediction(OneLine):
    """What one stage of a run will do. Every number is 0-d for one layout, or has the broadcast shape of the inputs."""

    layout: Layout
    work: Iteration  # the operators that all numbers are folds of
    iteration_time_s: Numeric
    uncertainty: Uncertainty  # of the iteration time
    mfu: Numeric
    hfu: Numeric
    model_flop_per_token: Numeric
    breakdown: Breakdown
    memory: MemoryBytes
    fits: Truth
    headroom_bytes: Numeric  # of the GPU's memory; negative when the layout does not fit
    fit_probability: Numeric  # that it fits, as far as memory is known

    @property
    def summary(self) -> str:
        """Time with its interval, MFU and whether it fits; of arrays only their shape."""
        if np.ndim(self.iteration_time_s):
            return f"arrays of shape {np.shape(self.iteration_time_s)}"
        low_s, high_s, median_s = map(float, (*self.iteration_time_interval_s, self.iteration_time_s))
        ends = seconds_interval_text(low_s, high_s, around_s=median_s)
        time = f"{seconds_text(median_s)} an iteration (90 %: {ends})"
        return f"{gpus_text(int(self.layout.gpus))}, {time}, MFU {100 * float(self.mfu):.1f} %, {self.verdict}"

    @property
    def verdict(self) -> str:
        """Whether one layout fits, is tight or does not fit (count/memory/fit.py)."""
        return fit_verdict(float(np.min(self.fit_probability)))

    @property
    def may_fit(self) -> bool:
        """Whether one layout fits or is tight."""
        return self.verdict != DOES_NOT_FIT

    @property
    def iteration_time_interval_s(self) -> tuple[Numeric, Numeric]:
        """The 90 % interval of the iteration time."""
        return self.uncertainty.low_s, self.uncertainty.high_s

    @property
    def tokens_per_s(self) -> Numeric:
        """Tokens trained on per second by the whole cluster."""
        return self.layout.tokens_per_iteration / self.iteration_time_s

    @property
    def peak_flop_per_s(self) -> Numeric:
        """The dense peak rate that MFU and HFU are of: a GPU's, in the format of the products of the recipe."""
        return self.work.setup.cluster.gpu.peak(self.layout.recipe.products)

    @property
    def tokens_per_s_per_gpu(self) -> Numeric:
        """Tokens trained on per second by one GPU."""
        return self.tokens_per_s / self.layout.gpus

    def convention_factor(self, convention: str) -> Numeric:
        """Model FLOPs of a token in a convention (count/flops.py) over those in full, which `mfu` counts."""
        model, length = self.work.setup.model, self.layout.sequence_length
        return model_flop_per_token(model, length, convention=convention) / self.model_flop_per_token

    def mfu_in(self, convention: str) -> Numeric:
        """MFU with attention counted in `full`, or its `causal` half."""
        return self.mfu * self.convention_factor(convention)

    def flop_per_s_per_gpu(self, convention: str = "full") -> Numeric:
        """Model FLOPs of one GPU in a second: MFU * peak, in either convention."""
        return self.mfu_in(convention) * self.peak_flop_per_s

    def days(self, tokens: Numeric) -> Numeric:
        """Days to train on `tokens`."""
        return tokens / self.tokens_per_s / SECONDS_PER_DAY

    @property
    def estimate_s(self) -> Estimate:
        """The iteration time with its 90 % interval, as an estimate that odds follow from."""
        low_s, high_s = self.iteration_time_interval_s
        return Estimate(median=self.iteration_time_s, low=low_s, high=high_s, laws=(self.uncertainty.law,) * 2)

    def training_days(self, tokens: Numeric) -> Estimate:
        """Days to train on `tokens` with their 90 % interval: as many iterations, each as long as either end of its own."""
        days, (low_s, high_s) = self.days(tokens), self.iteration_time_interval_s
        low, high = (days * (end_s / self.iteration_time_s) for end_s in (low_s, high_s))
        return Estimate(median=days, low=low, high=high, laws=(self.uncertainty.law,) * 2)

    def gpu_hours(self, tokens: Numeric) -> Numeric:
        """GPU-hours to train on `tokens`."""
        return self.days(tokens) * HOURS_PER_DAY * self.layout.gpus

    def quantities(self) -> dict[str, Numeric | Truth]:
        """Every number of it by name, with SI units in the names: the columns of tables for files and notebooks."""
        low_s, high_s = self.iteration_time_interval_s
        values: dict[str, Numeric | Truth] = {name: getattr(self.layout, name) for name in SIZES}
        values |= {"iteration_time_s": self.iteration_time_s, "iteration_time_low_s": low_s, "iteration_time_high_s": high_s}
        values |= {name: getattr(self, name) for name in ("mfu", "hfu", "tokens_per_s", "tokens_per_s_per_gpu")}
        values |= {"mfu_causal": self.mfu_in("causal"), "flop_per_s_per_gpu": self.flop_per_s_per_gpu()}
        values |= {part: getattr(self.breakdown, part) for part in PARTS}
        values |= {"fits": self.fits, "fit_probability": self.fit_probability}
        values |= {"memory_bytes": self.memory.total_bytes, "headroom_bytes": self.headroom_bytes}
        return values | {part.name: getattr(self.memory, part.name) for part in fields(self.memory)}


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Prediction(Tabular):
    """A run and the prediction of each of its stages."""

    run: Run
    stages: tuple[tuple[RampStage, StagePrediction], ...]

    @property
    def summary(self) -> str:
        """The days of the run, where its tokens are stated, and its last stage.

        >>> from perfmodel.exchange.run_files import read_candidates
        >>> predict(read_candidates("nemotron-4-15b")[0].run)
        <Prediction: Nemotron-4 15B, 12.8 days; last of 3 stages: 2,304 GPUs, 0.618 s an iteration (90 %: ...), MFU 31...>
        """
        days, last = self.total_days, self.stages[-1][1]
        length = f", {float(days):,.1f} days" if days is not None and not np.ndim(days) else ""
        stages = f"last of {len(self.stages)} stages: " if len(self.stages) > 1 else ""
        return f"{self.run.name}{length}; {stages}{last.summary}"

    @property
    def total_tokens(self) -> Numeric | None:
        """Tokens of all stages, or None when a stage does not state its tokens."""
        return self._sum(lambda _, tokens: tokens)

    @property
    def total_days(self) -> Numeric | None:
        """Days of all stages, one after the other."""
        return self._sum(lambda predicted, tokens: predicted.days(tokens))

    @property
    def total_training_days(self) -> Estimate | None:
        """Days of all stages with their 90 % interval: its ends are the sums of those of the stages; None without tokens.

        Ends add up because what is uncertain is common to all stages: clocks that are lower than thought slow each of them.
        """
        known = [predicted.training_days(stage.tokens) for stage, predicted in self.stages if stage.tokens is not None]
        if len(known) < len(self.stages):
            return None
        ends = {end: sum(getattr(each, end) for each in known) for end in ("median", "low", "high")}
        return Estimate(**ends, laws=(heaviest_tails(each.laws[0] for each in known),) * 2)

    @property
    def gpu_hours(self) -> Numeric | None:
        """GPU-hours of all stages."""
        return self._sum(lambda predicted, tokens: predicted.gpu_hours(tokens))

    @property
    def fits(self) -> bool:
        """Whether every stage fits."""
        return all(bool(np.all(predicted.fits)) for _, predicted in self.stages)

    @property
    def fit_probability(self) -> float:
        """The odds of the stage that is least likely to fit: what is not known of memory is the same in all."""
        return min(float(np.min(predicted.fit_probability)) for _, predicted in self.stages)

    @property
    def verdict(self) -> str:
        """Whether the run fits, is tight or does not fit."""
        return fit_verdict(self.fit_probability)

    @property
    def may_fit(self) -> bool:
        """Whether the run fits or is tight."""
        return self.verdict != DOES_NOT_FIT

    def rows(self) -> list[dict[str, Any]]:
        """A row a stage, counted from 1; tokens, days and both ends of their interval are None where no tokens are stated."""
        return [
            {"run": self.run.name, "stage": place + 1}
            | {name: np.asarray(value).item() for name, value in predicted.quantities().items()}
            | {"tokens": stage.tokens}
            | _days(predicted, stage.tokens)
            for place, (stage, predicted) in enumerate(self.stages)
        ]

    def _sum(self, term: Callable[[StagePrediction, Numeric], Numeric]) -> Numeric | None:
        total: Numeric = 0.0
        for stage, predicted in self.stages:
            if stage.tokens is None:
                return None
            total = total + term(predicted, stage.tokens)
        return total


def _days(predicted: StagePrediction, tokens: Numeric | None) -> dict[str, float | None]:
    """The days of a ramp stage with both ends of their interval, as columns of a table; None without its tokens."""
    if tokens is None:
        return dict.fromkeys(("days", "days_low", "days_high"))
    days = predicted.training_days(tokens)
    return {"days": float(days.median), "days_low": float(days.low), "days_high": float(days.high)}


def predict(run: Run) -> Prediction:
    """The prediction of every stage of `run`. Errors: InputError when its numbers are too large or small to give one."""
    try:
        with np.errstate(all="ignore"):
            stages = tuple((stage, predict_stage(run.setup(stage))) for stage in run.stages)
    except ArithmeticError:
        raise InputError(NOT_FINITE) from None
    for _, predicted in stages:
        if problem := impossible(predicted):
            raise InputError(problem)
    return Prediction(run=run, stages=stages)


def impossible(predicted: StagePrediction) -> str:
    """Why no run can be as predicted, or "": what is checked of every result, whatever its input was.

    Numbers are finite, no iteration takes 30,000 years, parts of times and memory are not negative, and no GPU computes faster
    than its peak. MFU itself may exceed 1 where the convention counts attention in full and kernels leave out the masked half:
    then the FLOPs count that run.
    """
    times = (predicted.iteration_time_s, *predicted.iteration_time_interval_s)
    numbers = (*times, predicted.mfu, predicted.hfu, predicted.memory.total_bytes)
    if not all(np.all(np.isfinite(number)) for number in numbers) or not all(np.all(time_s > 0) for time_s in times):
        return NOT_FINITE
    longest_s = float(np.max(predicted.iteration_time_s))
    if longest_s > LONGEST_S:
        return f"the numbers of this run make an iteration of {longest_s:.3g} s; one of them is far too large or too small"
    below = -SLACK * predicted.iteration_time_s
    negative = [part for part, seconds in predicted.breakdown.items() if np.any(seconds < below)]
    negative += [part for part, used in predicted.memory.items() if np.any(used < 0)]
    if negative:
        return (
            f"the numbers of this run make {negative[0]} negative, which cannot be; one of them is far too large or too small"
        )
    share = float(np.max(peak_share(predicted)))
    if share > 1.0:
        computing = f"the numbers of this run make GPUs compute at {100 * share:.4g} % of their peak rate, which cannot be"
        return f"{computing}; check those of cluster.gpu and of its kernels"
    return ""


def peak_share(predicted: StagePrediction) -> Numeric:
    """The FLOPs that run over those of the peak rate, where MFU or HFU may exceed 1; else HFU, which is as large or larger."""
    if not anywhere(predicted.hfu > 1.0) and not anywhere(predicted.mfu > 1.0):
        return predicted.hfu
    return predicted.work.fold(executed_flop) / (predicted.iteration_time_s * predicted.peak_flop_per_s)


def predict_stage(setup: Setup) -> StagePrediction:
    """Time, MFU and memory of one layout, or of arrays of them that broadcast, over one cluster or arrays of its numbers."""
    model, cluster, stack, layout = setup.model, setup.cluster, setup.stack, setup.layout
    work = iteration(setup)

    messages = anywhere(layout.ranks_of(SENDING) > 1)
    moved = with_ends(cluster, stack, layout.recipe, most_dimensions(model, layout), messages=messages)
    ends = breakdown(work, cluster=at_cluster_load(moved.cluster, layout.gpus), stack=moved.stack)
    times_s = _with_first_axis(ends.total_s, 1 + 2 * len(moved.paths), moved.dimensions)
    parts = Breakdown(**{part: _as_it_stands(getattr(ends, part), moved.dimensions) for part in PARTS})
    memory = stage_memory(work)
    seconds = parts.total_s
    capacity_flop = seconds * cluster.gpu.peak(layout.recipe.products)
    headroom = cluster.gpu.memory_bytes - memory.total_bytes
    return StagePrediction(
        layout=layout,
        work=work,
        iteration_time_s=seconds,
        uncertainty=uncertainty(times_s, moved.paths, setup.discrepancy, setup.own_shift.remaining, setup.error_law),
        mfu=work.fold(model_flop) / capacity_flop,
        hfu=work.fold(hardware_flop) / capacity_flop,
        model_flop_per_token=model_flop_per_token(model, layout.sequence_length),
        breakdown=parts,
        memory=memory,
        fits=headroom >= 0,
        headroom_bytes=headroom,
        fit_probability=fit_odds(setup, memory),
    )


def fit_odds(setup: Setup, memory: MemoryBytes) -> Numeric:
    """The odds that predicted memory fits the GPU, as far as the memory of this software is known."""
    capacity_bytes, error = setup.cluster.gpu.memory_bytes, setup.stack.states.memory_error
    return fit_probability(needed_bytes=memory.total_bytes, capacity_bytes=capacity_bytes, error=error)


def stage_memory(work: Iteration) -> MemoryBytes:
    """The memory of one layout, or of arrays of them."""
    return memory_bytes(work, scratch=work.setup.cluster.links.node.collectives.scratch)


def stage_peaks_bytes(works: Sequence[Iteration]) -> Iterator[Numeric]:
    """The total of `stage_memory` for layouts that differ in their sharding alone: all that is asked of what does not fit."""
    needed = peaks_bytes(works, scratch=works[0].setup.cluster.links.node.collectives.scratch)
    return (each.total_bytes for each in needed)


def stage_breakdown(setup: Setup) -> Breakdown:
    """The parts of an iteration as `predict_stage` gives them, without its interval."""
    cluster = at_cluster_load(setup.cluster, setup.layout.gpus)
    return breakdown(iteration(setup), cluster=cluster, stack=setup.stack)


def stage_times_s(work: Sequence[Iteration], *, gpus: Numeric) -> list[Numeric]:
    """Iteration times as `predict_stage` gives them, without their intervals: fifty times less work for a search.

    The layouts of `work` differ in their sharding alone: they share all passes. `gpus` is apart from them: of a number that all
    share, what depends on it keeps no axis.
    """
    setup = work[0].setup
    cluster = at_cluster_load(setup.cluster, gpus)
    passes = all_passes(work[0], cluster=cluster, stack=setup.stack)
    return [synchronised(passes, each, cluster=cluster, stack=setup.stack).total_s for each in work]


def _with_first_axis(value: Numeric, length: int, dimensions: int) -> Numeric:
    """A number that no end moves has no axis for them: it gets one, before all others."""
    if np.ndim(value) > dimensions:
        return value
    return np.broadcast_to(np.asarray(value), (length, *(1,) * (dimensions - np.ndim(value)), *np.shape(value)))


def _as_it_stands(value: Numeric, dimensions: int) -> Numeric:
    """Place 0 of the first axis, where there is one."""
    return np.asarray(value)[0] if np.ndim(value) > dimensions else value
