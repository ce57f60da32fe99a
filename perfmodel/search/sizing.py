"""Which numbers of GPUs a plan searches: those that are asked for, or those that a deadline or a budget decides.

A deadline and a budget are met at a confidence p: by the time, and the dollars, that are not exceeded with that probability.
A search of millions of layouts knows their median times only. The width of the interval is that of a full prediction of the
fastest layout, for each number of GPUs that may be the answer: an option that meets the limit by its median and misses it at p
is passed over, and the next number is tried. Numbers are ruled out by their lower bound (the fastest layout if memory had no
limit) at p. As the layout that fits may be surer than the one that memory forbids, a lower bound that misses the limit by less
than CLOSER counts as the surest of the layouts that are nearly as fast.

Assumed: what p asks for of the layout that fits is at most CLOSER below that of the lower bound. In 77 pairs of both, of five
models on up to 4,000 GPUs, it was up to 1.5 % below.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from perfmodel.count.flops import model_flop_per_token
from perfmodel.economics.calendar import CalendarOdds
from perfmodel.search import inverse
from perfmodel.search.option import SizedSearch, SizeOption, lower_bound_search, sized_search
from perfmodel.search.question import PlanQuestion
from perfmodel.units import SECONDS_PER_DAY

MORE: Final = (1.0, 1.5, 2.0)  # times the fewest GPUs that keep a deadline: what an earlier end costs
CLOSER: Final = 0.02  # the most by which an option at the confidence undercuts its lower bound at it
FEWER: Final = (0.125, 0.25, 0.5)  # times the GPUs that a budget pays for: how much longer a cheaper run takes


class Sizing:
    """The searches of several numbers of GPUs, each made once; after one that was stopped no other begins."""

    def __init__(
        self, question: PlanQuestion, *, most: int, workers: int | None, on_progress: Callable[[int], None] = lambda _: None
    ) -> None:
        self.question, self.most = question, most
        self.workers, self.on_progress = workers, on_progress
        self.searches: dict[int, SizedSearch] = {}
        self.lower_bounds: dict[int, SizedSearch] = {}
        self.layouts = 0
        self.complete = True

    def search(self, gpus: Sequence[int]) -> None:
        """Search the numbers of GPUs in `gpus`; where it is empty, those that the deadline or the budget decides."""
        if gpus:
            self._search_each(gpus)
        elif self.question.deadline_s is not None:
            self._for_deadline(self.question.deadline_s)
        elif self.question.budget_dollars is not None:
            self._for_budget(self.question.budget_dollars)

    def _option(self, gpus: int) -> SizeOption | None:
        return self._remembered(gpus, self.searches, sized_search)

    def _lower_bound(self, gpus: int) -> SizeOption | None:
        return self._remembered(gpus, self.lower_bounds, lower_bound_search)

    def _remembered(self, gpus: int, known: dict[int, SizedSearch], search: Callable[..., SizedSearch]) -> SizeOption | None:
        if gpus not in known:
            if not self.complete:
                return None
            before = self.layouts
            known[gpus] = search(
                self.question, gpus, workers=self.workers, on_progress=lambda number: self.on_progress(before + number)
            )
            self.layouts += sum(result.layouts for result in known[gpus].results)
            self.complete = known[gpus].complete
        return known[gpus].option

    def _search_each(self, gpus: Iterable[int]) -> None:
        for number in gpus:
            self._option(number)

    def _for_deadline(self, deadline_s: float) -> None:
        """Search the fewest GPUs that keep the deadline and some more; where none do, the number that comes nearest."""
        if least_gpus(self.question) > self.most:
            return
        node = int(self.question.cluster.gpus_per_node)
        fewest = inverse.fewest_gpus(
            self._option,
            time_s=self._sure_time_s,
            least_time_s=self._least_time_s,
            deadline_s=deadline_s,
            least=least_gpus(self.question),
            most=self.most,
            step=node,
            lower_bound=self._lower_bound,
            is_even=self.is_even,
        )
        if fewest is not None:
            wanted = [min(share * fewest.gpus, self.most) for share in MORE]
            self._search_each(self._even_numbers_from(wanted))
            return
        known = ((each.option, gpus) for gpus, each in self.lower_bounds.items())
        bounds = [(self._least_time_s(option), gpus) for option, gpus in known if option is not None]
        self._search_each([gpus for _, gpus in sorted(bounds)[:1]] or self._even_numbers()[:1])

    def _for_budget(self, budget: float) -> None:
        """Search the number of GPUs that is fastest within the budget and some fewer; where none is, the smallest that fits."""
        node = int(self.question.cluster.gpus_per_node)
        fastest = inverse.fastest_within(
            self._option,
            time_s=_time_s,
            cost=self._sure_dollars,
            least_cost=self._least_dollars,
            budget=budget,
            least=node,
            most=self.most,
            step=node,
            lower_bound=self._lower_bound,
            is_even=self.is_even,
        )
        if fastest is not None:
            self._search_each(self._even_numbers_from([share * fastest.gpus for share in FEWER]))
            return
        for gpus in self._even_numbers_from([node * 2**power for power in range((self.most // node).bit_length())]):
            if self._option(gpus) is not None:
                return

    def _sure_time_s(self, option: SizeOption) -> float:
        """The calendar time that an option does not exceed at the confidence."""
        return option.calendar_days_at(self.question.confidence) * SECONDS_PER_DAY

    def _sure_dollars(self, option: SizeOption) -> float:
        """The dollars that an option does not exceed at the confidence."""
        return option.dollars_at(self.question.confidence) or 0.0

    def _least_time_s(self, bound: SizeOption) -> float:
        """The least time at the confidence that a lower bound leaves."""
        return least_left(
            sure=self._sure_time_s(bound),
            median=_time_s(bound),
            limit=self.question.deadline_s,
            surest=lambda: float(self._surest_odds(bound).days.quantile(self.question.confidence)) * SECONDS_PER_DAY,
        )

    def _least_dollars(self, bound: SizeOption) -> float:
        """The least dollars at the confidence that a lower bound leaves."""

        def surest() -> float:
            bill = self._surest_odds(bound).dollars
            return 0.0 if bill is None else float(bill.quantile(self.question.confidence))

        limit = self.question.budget_dollars
        return least_left(sure=self._sure_dollars(bound), median=bound.dollars or 0.0, limit=limit, surest=surest)

    def _surest_odds(self, bound: SizeOption) -> CalendarOdds:
        return bound.surest_odds(self.question.confidence, within=CLOSER)

    def is_even(self, gpus: int) -> bool:
        """Whether the number of nodes divides every global batch, or is a multiple of it: many layouts then exist."""
        nodes = max(gpus // int(self.question.cluster.gpus_per_node), 1)
        batches = [work.global_batch_size for work in self.question.workloads(gpus)]
        return all(batch % nodes == 0 or nodes % batch == 0 for batch in batches)

    def _even_numbers(self) -> list[int]:
        node = int(self.question.cluster.gpus_per_node)
        return [gpus for gpus in inverse.node_counts(least=node, most=self.most, step=node) if self.is_even(gpus)]

    def _even_numbers_from(self, wanted: Sequence[float]) -> list[int]:
        """For each wanted number the next larger even number of GPUs, where there is one."""
        evens = self._even_numbers()
        places = [bisect_left(evens, number) for number in wanted]
        return [evens[place] for place in places if place < len(evens)]


def least_left(*, sure: float, median: float, limit: float | None, surest: Callable[[], float]) -> float:
    """What a lower bound leaves at least at a confidence, from its own figure at it (`sure`) and its median.

    It is CLOSER less than `sure`, but no less than a median that the confidence lies above. Where that alone would bring it
    within the limit, it is what the surest of the layouts that are nearly as fast take.

    >>> [least_left(sure=10.0, median=9.0, limit=limit, surest=lambda: 9.95) for limit in (9.7, 9.9, 10.1)]
    [9.8, 9.95, 9.8]
    """
    least = (1.0 - CLOSER) * sure
    if sure >= median:
        least = max(least, median)
    return surest() if limit is not None and least <= limit < sure else least


def least_gpus(question: PlanQuestion) -> int:
    """The GPUs that the deadline needs at their peak rate: no smaller number can keep it. 1 without a deadline."""
    if question.deadline_s is None:
        return 1
    peak = max(float(question.cluster.gpu.peak(precision)) for precision in question.space.precision)
    flop = float(model_flop_per_token(question.model, question.sequence_length))
    tokens = sum(stage.tokens or 0.0 for stage in question.stages)
    return max(int(flop * tokens / (peak * question.deadline_s)), 1)


def _time_s(option: SizeOption) -> float:
    return option.calendar_days * SECONDS_PER_DAY
