"""The layouts around that of a run: tensor against data parallel on the same GPUs, pipeline parallel takes the rest.

    pipeline = gpus / (tensor * data * what all other axes have)

Where that leaves too few layouts to choose from (one GPU, a handful), the number of GPUs grows with both degrees instead: the
pipeline and the sequences of each replica stay. All other settings stay as they are; so do the degrees of experts, which share
the GPUs of a pipeline stage. One call of `points.outcomes` predicts all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from typing import Any, Final

from perfmodel.frames import Tabular
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.axes import DATA, MESH, PIPELINE, TENSOR
from perfmodel.spec.layout import Layout
from perfmodel.spec.models.model import divisors
from perfmodel.spec.run import Run
from perfmodel.variation.points import PointOutcome, outcomes

KEPT: Final = tuple(axis for axis in MESH if axis not in (TENSOR, DATA, PIPELINE))
MOST_COLUMNS: Final = 12
FEWEST: Final = 4  # layouts that are enough for a map
MOST_STAGES: Final = 64
GROWTH: Final = 5  # doublings of data parallelism, where GPUs grow


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """One layout of a map: its degrees and its numbers, as `StagePrediction.quantities` names them."""

    tensor_parallel: int
    data_parallel: int
    numbers: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class LayoutMap(Tabular):
    """Layouts by tensor and data parallel; `gpus` is the number of GPUs of all, None where it grows with the degrees."""

    gpus: int | None
    tensor_parallel: tuple[int, ...]
    data_parallel: tuple[int, ...]
    neighbours: tuple[Neighbour, ...]
    here: tuple[int, int]  # tensor and data parallel of the run itself

    def rows(self) -> list[dict[str, Any]]:
        """A row for each layout."""
        return [dict(each.numbers) for each in self.neighbours]


def layout_map(run: Run, place: int = -1) -> LayoutMap:
    """The map around the layout of the ramp stage at `place`.

    >>> from perfmodel.exchange.run_files import read_candidates
    >>> found = layout_map(read_candidates("nemotron-4-15b")[0].run)
    >>> found.gpus, found.tensor_parallel, found.here
    (2304, (1, 2, 4, 8, 16), (8, 288))
    """
    layout = run.layout(run.stages[place])
    here = int(layout.tensor_parallel), int(layout.data_parallel)
    fixed = _neighbours(run, place, list(_filling(run, layout)), is_weak=False)
    if len(fixed) >= FEWEST:
        return _map(_widest(fixed, here), here, gpus=int(layout.gpus))
    grown = _neighbours(run, place, list(_growing(run, layout)), is_weak=True)
    return _map(_widest(grown, here), here, gpus=None)


def _map(neighbours: list[Neighbour], here: tuple[int, int], *, gpus: int | None) -> LayoutMap:
    return LayoutMap(
        gpus=gpus,
        tensor_parallel=tuple(sorted({each.tensor_parallel for each in neighbours})),
        data_parallel=tuple(sorted({each.data_parallel for each in neighbours})),
        neighbours=tuple(neighbours),
        here=here,
    )


def _tensor_degrees(run: Run, layout: Layout) -> list[int]:
    """Degrees of tensor parallelism: powers of two that divide the heads, up to two nodes, and that of the run."""
    heads, most = int(run.model.attention_heads), 2 * int(run.cluster.gpus_per_node)
    most = most if TENSOR.name in run.stack.offers.degrees else 1
    powers = {2**power for power in range(most.bit_length()) if heads % 2**power == 0}
    return sorted(powers | {int(layout.tensor_parallel)})


def _filling(run: Run, layout: Layout) -> Iterator[dict[str, int]]:
    """Degrees of layouts on the GPUs of the run: pipeline parallel takes what the others leave."""
    shared = int(layout.gpus) // int(layout.ranks_of(KEPT))
    most = min(int(run.model.layers) + 2, MOST_STAGES)
    for tensor in _tensor_degrees(run, layout):
        for stages in divisors(shared // tensor) if shared % tensor == 0 else ():
            if stages <= most and (stages in (1, layout.pipeline_parallel) or PIPELINE.name in run.stack.offers.degrees):
                yield _degrees(layout, tensor, stages, shared // tensor // stages)


def _growing(run: Run, layout: Layout) -> Iterator[dict[str, int]]:
    """Degrees of layouts on any number of GPUs: pipeline parallel stays as it is."""
    data = [2**power * int(layout.data_parallel) for power in range(GROWTH)]
    for tensor, replicas in product(_tensor_degrees(run, layout), data):
        yield _degrees(layout, tensor, int(layout.pipeline_parallel), replicas)


def _degrees(layout: Layout, tensor: int, stages: int, replicas: int) -> dict[str, int]:
    """The settings of a layout with these degrees, interleaved as the run is where it has a pipeline."""
    pieces = int(layout.virtual_pipeline) if stages > 1 else 1
    return {TENSOR.name: tensor, PIPELINE.name: stages, "virtual_pipeline": pieces, DATA.name: replicas}


def _neighbours(run: Run, place: int, degrees: list[dict[str, int]], *, is_weak: bool) -> list[Neighbour]:
    """The layouts with these degrees that may exist, predicted."""
    columns = {name: [each[name] for each in degrees] for name in degrees[0]}
    found: list[PointOutcome] = outcomes(run, place, columns, number=len(degrees), is_weak=is_weak)
    return [
        Neighbour(tensor_parallel=each[TENSOR.name], data_parallel=each[DATA.name], numbers=outcome.numbers)
        for each, outcome in zip(degrees, found, strict=True)
        if outcome.numbers is not None
    ]


def _widest(neighbours: Iterable[Neighbour], here: tuple[int, int]) -> list[Neighbour]:
    """At most MOST_COLUMNS columns: those with the best layouts that fit, and that of the run."""
    every = list(neighbours)
    best: dict[int, tuple[bool, float]] = {}
    for each in every:
        score = bool(each.numbers["fits"]), float(each.numbers["mfu"])
        best[each.data_parallel] = max(best.get(each.data_parallel, score), score)
    ranked = sorted(best, key=lambda data: (data != here[1], *(-float(part) for part in best[data])))
    return [each for each in every if each.data_parallel in ranked[:MOST_COLUMNS]]
