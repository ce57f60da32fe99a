"""Which numbers of GPUs a plan searches: those that are asked for, or those that a deadline or a budget decides."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from perfmodel.count.flops import model_flop_per_token
from perfmodel.search import inverse
from perfmodel.search.option import SizedSearch, SizeOption, lower_bound_search, sized_search
from perfmodel.search.question import PlanQuestion
from perfmodel.units import SECONDS_PER_DAY

MORE: Final = (1.0, 1.5, 2.0)  # times the fewest GPUs that keep a deadline: what an earlier end costs
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
            time_s=_time_s,
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
        bounds = [(each.option.calendar_days, gpus) for gpus, each in self.lower_bounds.items() if each.option is not None]
        self._search_each([gpus for _, gpus in sorted(bounds)[:1]] or self._even_numbers()[:1])

    def _for_budget(self, budget: float) -> None:
        """Search the number of GPUs that is fastest within the budget and some fewer; where none is, the smallest that fits."""
        node = int(self.question.cluster.gpus_per_node)
        fastest = inverse.fastest_within(
            self._option,
            time_s=_time_s,
            cost=lambda option: option.dollars or 0.0,
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
