"""Which numbers of GPUs a plan looks at: those that are asked for, or those that a deadline or a budget decides."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from perfmodel.count.iteration import model_flop_per_token
from perfmodel.search import inverse
from perfmodel.search.option import Looked, Option, floor, looked
from perfmodel.search.question import Question
from perfmodel.units import SECONDS_PER_DAY

MORE: Final = (1.0, 1.5, 2.0)  # times the fewest that keep a deadline: what sooner would cost
FEWER: Final = (0.125, 0.25, 0.5)  # times those that a budget pays for: what cheaper would take


class Sizing:
    """Numbers of GPUs that were searched, each once; nothing more is searched once one search was stopped."""

    def __init__(
        self, question: Question, *, most: int, workers: int | None, on_progress: Callable[[int], None] = lambda _: None
    ) -> None:
        self.question, self.most = question, most
        self.workers, self.on_progress = workers, on_progress
        self.looked: dict[int, Looked] = {}
        self.floors: dict[int, Looked] = {}
        self.layouts = 0
        self.complete = True

    def look_at(self, gpus: Sequence[int]) -> None:
        """Search the numbers that are asked for; without any, those that the limits ask for."""
        if gpus:
            self._look_at_each(gpus)
        elif self.question.deadline_s is not None:
            self._for_deadline(self.question.deadline_s)
        elif self.question.budget_dollars is not None:
            self._for_budget(self.question.budget_dollars)

    def _option(self, gpus: int) -> Option | None:
        return self._seen(gpus, self.looked, looked)

    def _floor(self, gpus: int) -> Option | None:
        return self._seen(gpus, self.floors, floor)

    def _seen(self, gpus: int, known: dict[int, Looked], search: Callable[..., Looked]) -> Option | None:
        if gpus not in known:
            if not self.complete:
                return None
            before = self.layouts
            seen = search(
                self.question, gpus, workers=self.workers, on_progress=lambda number: self.on_progress(before + number)
            )
            self.layouts += sum(found.layouts for found in seen.found)
            self.complete = seen.complete
            known[gpus] = seen
        return known[gpus].option

    def _look_at_each(self, gpus: Iterable[int]) -> None:
        for number in gpus:
            self._option(number)

    def _for_deadline(self, deadline_s: float) -> None:
        """The fewest that keep it, and what more would do; or the one that comes nearest (none where no rate suffices)."""
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
            floor=self._floor,
            is_even=self.is_even,
        )
        if fewest is not None:
            wanted = [min(share * fewest.gpus, self.most) for share in MORE]
            self._look_at_each(self._even_numbers_from(wanted))
            return
        floors = [(each.option.calendar_days, gpus) for gpus, each in self.floors.items() if each.option is not None]
        self._look_at_each([gpus for _, gpus in sorted(floors)[:1]] or self._even_numbers()[:1])

    def _for_budget(self, budget: float) -> None:
        """The fastest that it pays for, and what fewer would do; or the smallest cluster that fits, as the cheapest."""
        node = int(self.question.cluster.gpus_per_node)
        fastest = inverse.fastest_within(
            self._option,
            time_s=_time_s,
            cost=lambda option: option.dollars or 0.0,
            budget=budget,
            least=node,
            most=self.most,
            step=node,
            floor=self._floor,
            is_even=self.is_even,
        )
        if fastest is not None:
            self._look_at_each(self._even_numbers_from([share * fastest.gpus for share in FEWER]))
            return
        for gpus in self._even_numbers_from([node * 2**power for power in range((self.most // node).bit_length())]):
            if self._option(gpus) is not None:
                return

    def is_even(self, gpus: int) -> bool:
        """Whether the nodes divide every batch, or are a multiple of it: there the choice of layouts is large."""
        nodes = max(gpus // int(self.question.cluster.gpus_per_node), 1)
        batches = [work.global_batch_size for work in self.question.workloads(gpus)]
        return all(batch % nodes == 0 or nodes % batch == 0 for batch in batches)

    def _even_numbers(self) -> list[int]:
        node = int(self.question.cluster.gpus_per_node)
        return [gpus for gpus in inverse.node_counts(least=node, most=self.most, step=node) if self.is_even(gpus)]

    def _even_numbers_from(self, wanted: Sequence[float]) -> list[int]:
        """For each wanted number the first even one that is larger, where there is one."""
        evens = self._even_numbers()
        places = [bisect_left(evens, number) for number in wanted]
        return [evens[place] for place in places if place < len(evens)]


def least_gpus(question: Question) -> int:
    """At the peak rate: no fewer can keep the deadline."""
    if question.deadline_s is None:
        return 1
    peak = max(float(question.cluster.gpu.peak(precision)) for precision in question.choices.precision)
    flop = float(model_flop_per_token(question.model, question.sequence_length))
    tokens = sum(stage.tokens or 0.0 for stage in question.stages)
    return max(int(flop * tokens / (peak * question.deadline_s)), 1)


def _time_s(option: Option) -> float:
    return option.calendar_days * SECONDS_PER_DAY
