"""What the marks of all ranks say of a step: the time of every operator, and what pipeline stages wait for each other.

Ranks run the same operators one after the other, those of one pipeline stage as often as each other. In a collective the rank
that comes last does not wait: what the others take longer is waiting. All messages between pipeline stages have one size, and
the slowest stage finds them there: what a receiver takes longer than in the shortest receipt of the step is waiting, too.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from math import comb
from typing import NamedTuple

from perfmodel.evidence.steps.step_records import OperatorTime, StageTime
from perfmodel.model.operators import BETWEEN, Label
from perfmodel.model.pipelines.messages import WAITS

RankSeconds = Mapping[Label, Sequence[float]]  # of every execution of every operator of one rank


class LabelTime(NamedTuple):
    """Seconds of one operator in one step: of each rank, and as fast as the fastest rank in each execution."""

    by_rank: Sequence[float]
    fastest_by_rank: Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkedStep:
    """One step of all ranks, which the stages of a pipeline share evenly, one after the other.

    `messages` are the labels of communication, and whether each is between pipeline stages.
    """

    ranks: Sequence[RankSeconds]
    messages: Mapping[Label, bool]
    stages: int

    def times(self) -> dict[Label, LabelTime]:
        """Of every operator; what a receiver waits for a message is part of the message."""
        waits = {label for of_message in WAITS.values() for label in of_message}
        labels = dict.fromkeys(label for rank in self.ranks for label in rank)
        return {label: self._time(label) for label in labels if label not in waits and label != BETWEEN}

    def between_s(self) -> list[float]:
        """What each rank spent in no operator."""
        return [sum(rank[BETWEEN]) for rank in self.ranks]

    def _time(self, label: Label) -> LabelTime:
        executions = [rank.get(label, ()) for rank in self.ranks]
        if label in WAITS:
            arrivals, departures = ([rank.get(each, ()) for rank in self.ranks] for each in WAITS[label])
            return LabelTime(
                by_rank=_sums(map(sum, each) for each in (executions, arrivals, departures)),
                fastest_by_rank=_sums((map(sum, executions), (len(each) * self._shortest_receipt_s for each in arrivals))),
            )
        together = [executions] if self.messages.get(label) else self._by_stage(executions)
        return LabelTime(
            by_rank=[sum(each) for each in executions],
            fastest_by_rank=[fastest for group in together for fastest in _fastest(group)],
        )

    @property
    def _shortest_receipt_s(self) -> float:
        return min(seconds for rank in self.ranks for waits in WAITS.values() for seconds in rank.get(waits.arrival, ()))

    def _by_stage(self, ranks: Sequence[Sequence[float]]) -> list[Sequence[Sequence[float]]]:
        size = len(ranks) // self.stages
        return [ranks[first : first + size] for first in range(0, len(ranks), size)]

    def stage_times(self) -> list[StageTime]:
        """Of each pipeline stage, the mean over its ranks."""
        times = self.times()
        across = [time for label, time in times.items() if self.messages.get(label)]
        own = [time for label, time in times.items() if not self.messages.get(label)]
        parts = {
            "operators_s": _sums(time.by_rank for time in own),
            "messages_s": _sums(time.fastest_by_rank for time in across),
            "waiting_s": _sums(_more(time) for time in across),
            "between_s": self.between_s(),
        }
        size = len(self.ranks) // self.stages
        return [
            StageTime(**{name: statistics.fmean(each[first : first + size]) for name, each in parts.items()})
            for first in range(0, len(self.ranks), size)
        ]


def _fastest(ranks: Sequence[Sequence[float]]) -> list[float]:
    """The sum over executions of the fastest rank, of each rank that runs them; 0 of those that do not."""
    running = [each for each in ranks if each]
    fastest = sum(min(each) for each in zip(*running, strict=True))
    return [fastest if each else 0.0 for each in ranks]


def _more(time: LabelTime) -> list[float]:
    return [seconds - fastest for seconds, fastest in zip(time.by_rank, time.fastest_by_rank, strict=True)]


def _sums(by_rank: Iterable[Iterable[float]]) -> list[float]:
    """Sums over the first axis, one for each rank."""
    return [sum(each) for each in zip(*by_rank, strict=True)]


class StepProfile(NamedTuple):
    """What marks showed of a step: medians over several."""

    iteration_time_s: float
    between_s: float  # in no operator
    exposed_communication_s: float  # without what pipeline stages wait for each other
    rank_waiting_s: float  # of that, what ranks of a stage wait for the last of them
    operators: list[OperatorTime]
    pipeline_stages: list[StageTime]


def step_profile(steps: Sequence[MarkedStep]) -> StepProfile:
    """The step that several marked steps show; the same operators ran in all of them."""
    times = [step.times() for step in steps]
    between = [statistics.fmean(step.between_s()) for step in steps]
    whole = [_mean_total(of_step) + gap for of_step, gap in zip(times, between, strict=True)]
    operators = [
        OperatorTime(
            name=name,
            phase=phase,
            seconds=statistics.median(statistics.fmean(each[name, phase].by_rank) for each in times),
            fastest_s=statistics.median(statistics.fmean(each[name, phase].fastest_by_rank) for each in times),
            interval_s=median_interval([statistics.fmean(each[name, phase].by_rank) for each in times]),
        )
        for name, phase in times[0]
    ]
    messages = steps[0].messages
    exposed = sum(
        each.fastest_s if messages[each.name, each.phase] else each.seconds
        for each in operators
        if (each.name, each.phase) in messages
    )
    return StepProfile(
        iteration_time_s=statistics.median(whole),
        between_s=statistics.median(between),
        exposed_communication_s=exposed,
        rank_waiting_s=sum(
            each.seconds - each.fastest_s for each in operators if not messages.get((each.name, each.phase), True)
        ),
        operators=operators,
        pipeline_stages=_stage_means([step.stage_times() for step in steps]) if steps[0].stages > 1 else [],
    )


def median_interval(values: Sequence[float], level: float = 0.9) -> tuple[float, ...]:
    """The k-th smallest and the k-th greatest of n values, k the greatest with 2*B(k - 1) <= 1 - level; () of too few.

    B(k) = sum of C(n, i)/2^n for i <= k: that so few of n values lie below the median of whatever they were drawn from, which
    nothing need be known of (W. J. Conover, Practical Nonparametric Statistics, section 3.2).

    >>> median_interval([5.0, 1.0, 3.0, 2.0, 4.0]), median_interval([1.0, 2.0, 3.0, 4.0])
    ((1.0, 5.0), ())
    """
    ordered, number = sorted(values), len(values)
    outside, place = 2.0 ** (1 - number), 0  # 2*B(0): of both ends
    while outside <= 1.0 - level:
        place += 1
        outside += comb(number, place) * 2.0 ** (1 - number)
    return (ordered[place - 1], ordered[-place]) if place else ()


def _mean_total(times: Mapping[Label, LabelTime]) -> float:
    return sum(statistics.fmean(each.by_rank) for each in times.values())


def _stage_means(steps: Sequence[Sequence[StageTime]]) -> list[StageTime]:
    """Means over steps of every part of the time of each pipeline stage."""
    return [
        StageTime(**{part.name: statistics.fmean(getattr(each, part.name) for each in of_stage) for part in fields(StageTime)})
        for of_stage in zip(*steps, strict=True)
    ]
