"""What to do where nothing fits: which part of memory is in the way, and the nearest change after which something does.

Changes are tried from the smallest on: everything that the question left out of the choice, a sharding that the stack does not
offer, then more GPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Final

from perfmodel.prediction import StagePrediction
from perfmodel.search.alternatives import predicted
from perfmodel.search.option import Looked, looked
from perfmodel.search.question import Question
from perfmodel.search.search import Candidate
from perfmodel.search.space import Workload, offered_choices
from perfmodel.spec.layout import SHARDINGS

MOST_DOUBLINGS: Final = 8
OFFERED: Final = ("sharding", "pipeline_schedule", "recompute", "sequence_parallel")  # choices that may leave something out


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """A change after which something fits: what it changes (gpus, choice or sharding), and the fastest layout then."""

    kind: str
    gpus: int
    candidate: Candidate


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """The layout that comes nearest to fitting, its largest part of memory, and what would help."""

    workload: Workload
    nearest: Candidate
    prediction: StagePrediction
    part: str  # of MemoryBytes
    remedies: tuple[Remedy, ...]

    @property
    def missing_bytes(self) -> float:
        """What the nearest layout needs beyond the memory of the GPU."""
        return self.nearest.memory_bytes - float(self.workload.cluster.gpu.memory_bytes)


def obstacle(
    question: Question, last: Looked, *, workers: int | None, on_progress: Callable[[int], None], most: int
) -> Obstacle | None:
    """What keeps every layout of a search out of memory, and what would help; None where no layout can exist at all."""
    found, work = last.found[-1], last.workloads[len(last.found) - 1]
    if found.smallest is None or found.fitting:
        return None
    prediction, node = predicted(found.smallest, work), int(question.cluster.gpus_per_node)
    parts = {part.name: float(getattr(prediction.memory, part.name)) for part in fields(prediction.memory)}

    def fitting(kind: str, changed: Question, gpus: int) -> Remedy | None:
        seen = looked(changed, gpus, workers=workers, on_progress=on_progress)
        return None if seen.option is None else Remedy(kind=kind, gpus=gpus, candidate=seen.option.chain.layouts[-1])

    remedies: dict[Any, Remedy] = {}
    for kind, changed, numbers in _changes(question, last.gpus, most):
        if (remedy := _fewest(partial(fitting, kind, changed), numbers, node)) is not None:
            remedies.setdefault(tuple(remedy.candidate.settings.items()), remedy)
    return Obstacle(
        workload=work,
        nearest=found.smallest,
        prediction=prediction,
        part=max(parts, key=lambda name: parts[name]),
        remedies=tuple(remedies.values()),
    )


def _changes(question: Question, gpus: int, most: int) -> Iterator[tuple[str, Question, list[int]]]:
    """Kind of change, the question after it, and the numbers of GPUs to try, the nearest first."""
    choices = question.choices
    offered = offered_choices(question.stack, precision=choices.precision)
    shared = replace(question, stages=tuple(replace(stage, gpus=None) for stage in question.stages))
    if any(set(getattr(offered, name)) - set(getattr(choices, name)) for name in OFFERED) or choices.fixed:
        yield "choice", replace(shared, choices=offered), [gpus]
    if set(SHARDINGS) - set(choices.sharding):
        yield "sharding", replace(shared, choices=replace(choices, sharding=SHARDINGS)), [gpus]
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
