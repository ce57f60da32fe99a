"""What to do where nothing fits: which part of memory is in the way, and the nearest change after which something does.

Changes are tried from the smallest on: every setting that the question left out of its search space, a sharding that the stack
does not offer, then more GPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from functools import partial
from typing import Any, Final

from perfmodel.light_dataclass import dataclass, replace
from perfmodel.prediction import StagePrediction
from perfmodel.search.alternatives import candidate_prediction
from perfmodel.search.layouts.search import LayoutCandidate
from perfmodel.search.layouts.space import Workload, offered_space
from perfmodel.search.option import SizedSearch, sized_search
from perfmodel.search.question import PlanQuestion
from perfmodel.spec.layout import SHARDINGS

MOST_DOUBLINGS: Final = 8
OFFERED: Final = (
    "sharding",
    "pipeline_schedule",
    "recompute",
    "sequence_parallel",
)  # settings of which a search space may leave values out


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """A change after which something fits: its kind (gpus, choice or sharding), and the fastest layout after it."""

    kind: str
    gpus: int
    candidate: LayoutCandidate


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """Why nothing fits: the layout that comes nearest, its largest part of memory, and what would help."""

    workload: Workload
    nearest: LayoutCandidate
    prediction: StagePrediction
    part: str  # the largest, a field of MemoryBytes
    remedies: tuple[Remedy, ...]

    @property
    def missing_bytes(self) -> float:
        """How much more memory the nearest layout needs than the GPU has."""
        return self.nearest.memory_bytes - float(self.workload.cluster.gpu.memory_bytes)


def obstacle(
    question: PlanQuestion, last: SizedSearch, *, workers: int | None, on_progress: Callable[[int], None], most: int
) -> Obstacle | None:
    """What keeps every layout of a search from fitting, and what would help; None where no layout may exist at all."""
    result, work = last.results[-1], last.workloads[len(last.results) - 1]
    if result.smallest is None or result.fitting:
        return None
    prediction, node = candidate_prediction(result.smallest, work), int(question.cluster.gpus_per_node)
    parts = {part.name: float(getattr(prediction.memory, part.name)) for part in fields(prediction.memory)}

    def fitting(kind: str, changed: PlanQuestion, gpus: int) -> Remedy | None:
        option = sized_search(changed, gpus, workers=workers, on_progress=on_progress).option
        return None if option is None else Remedy(kind=kind, gpus=gpus, candidate=option.chain.layouts[-1])

    remedies: dict[Any, Remedy] = {}
    for kind, changed, numbers in _changes(question, last.gpus, most):
        if (remedy := _fewest(partial(fitting, kind, changed), numbers, node)) is not None:
            remedies.setdefault(tuple(remedy.candidate.settings.items()), remedy)
    return Obstacle(
        workload=work,
        nearest=result.smallest,
        prediction=prediction,
        part=max(parts, key=lambda name: parts[name]),
        remedies=tuple(remedies.values()),
    )


def _changes(question: PlanQuestion, gpus: int, most: int) -> Iterator[tuple[str, PlanQuestion, list[int]]]:
    """Kind of change, the question after it, and the numbers of GPUs to try, the nearest first."""
    space = question.space
    offered = offered_space(question.stack, precision=space.precision)
    shared = replace(question, stages=tuple(replace(stage, gpus=None) for stage in question.stages))
    if any(set(getattr(offered, name)) - set(getattr(space, name)) for name in OFFERED) or space.fixed:
        yield "choice", replace(shared, space=offered), [gpus]
    if set(SHARDINGS) - set(space.sharding):
        yield "sharding", replace(shared, space=replace(space, sharding=SHARDINGS)), [gpus]
    yield "gpus", shared, [number for step in range(1, MOST_DOUBLINGS + 1) if (number := gpus * 2**step) <= most]


def _fewest(fitting: Callable[[int], Remedy | None], numbers: Sequence[int], step: int) -> Remedy | None:
    """The first number of GPUs that helps, and then the fewest between it and the one before, in whole nodes."""
    low = numbers[0] // 2 if numbers else 0
    for number in numbers:
        remedy = fitting(number)
        if remedy is not None:
            while len(numbers) > 1 and remedy.gpus - low > step:
                middle = (low + remedy.gpus) // 2 // step * step
                nearer = fitting(middle) if middle > low else None
                remedy, low = (remedy, max(middle, low + 1)) if nearer is None else (nearer, low)
            return remedy
        low = number
    return None
