"""Does a search find what single predictions of all layouts find, with the same figures to the bit?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.prediction import predict_stage
from perfmodel.search.layouts import search as searching
from perfmodel.search.layouts.grids import layout_grids
from perfmodel.search.layouts.search import (
    LayoutCandidate,
    SearchResult,
    evaluated_grid,
    grid_memory_bytes,
    grid_time_s,
    pareto_front,
    search,
)
from perfmodel.search.layouts.space import CATEGORIES, NUMERIC_SETTINGS, LayoutGrid, SearchSpace, Workload, offered_space
from perfmodel.spec.layout import Layout
from tests.search.layouts.single_layouts import alone
from tests.search.layouts.spaces import every_layout, places, space_of, workload
from tests.setups import setup_of

EVERY_RECOMPUTE = ("none", "selective", "full")
SPACES: dict[str, tuple[Workload, SearchSpace]] = {
    "toy": (
        workload(gpus=16, batch=8),
        space_of(
            sharding=("none", "zero1"),
            recompute=EVERY_RECOMPUTE,
            fixed={"micro_batch_size": (1, 2), "context_parallel": (1,), "recompute_layers": (1, 4, 8)},
        ),
    ),
    "nearly full memory": (
        workload("nemotron-4-15b", gpus=16, batch=8, cluster="dgx-a100", length=4096),
        space_of(
            recompute=("none", "full"), fixed={"micro_batch_size": (1, 2), "virtual_pipeline": (1, 2), "recompute_layers": (2,)}
        ),
    ),
    "copies of shards in 8 bits": (
        workload("llama-3.1-8b", gpus=8, batch=8, stack="torchtitan", length=8192),
        space_of(
            precision=("bf16", "fp8"),
            sharding=("zero3", "hsdp"),
            recompute=EVERY_RECOMPUTE,
            fixed={"context_parallel": (1, 2), "virtual_pipeline": (1,), "recompute_layers": (1, 16), "micro_batch_size": (1,)},
        ),
    ),
    "zero bubble": (
        workload("nemotron-4-15b", gpus=24, batch=12, stack="generic", cluster="dgx-h200"),
        space_of(
            sharding=("zero1", "zero2"),
            pipeline_schedule=("1f1b", "zb-h1", "zb-2p"),
            fixed={"micro_batch_size": (1,), "context_parallel": (1,), "virtual_pipeline": (1, 3)},
        ),
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Single:
    """One layout, predicted alone."""

    layout: Layout
    iteration_time_s: float
    memory_bytes: float
    fits: bool
    layers: int  # of the model

    @property
    def figures(self) -> tuple[float, float]:
        """Time and memory."""
        return self.iteration_time_s, self.memory_bytes

    def value(self, setting: str) -> Any:
        """What it has of a setting; as many layers again as it has of a stage where that is all of them."""
        value = getattr(self.layout, setting)
        if setting == "recompute_layers" and self.layout.recompute == "full" and value is None:
            return int(np.ceil(self.layers / self.layout.pipeline_parallel))
        return value


def single(work: Workload, layout: Layout) -> Single:
    """The prediction of one layout."""
    found = alone(work.setup(layout))
    return Single(
        layout=layout,
        iteration_time_s=found.iteration_time_s,
        memory_bytes=float(found.memory.total_bytes),
        fits=bool(found.memory.total_bytes <= work.cluster.gpu.memory_bytes),
        layers=int(work.model.layers),
    )


@cache
def singles(space: str) -> tuple[Single, ...]:
    """Every layout of a space, found and predicted one by one."""
    work, some = SPACES[space]
    return tuple(single(work, layout) for layout in every_layout(work, some))


@cache
def found(space: str) -> SearchResult:
    """The same by the search."""
    work, some = SPACES[space]
    return search(layout_grids(work, some), workers=2)


def figures(candidates: Sequence[LayoutCandidate]) -> list[tuple[float, float]]:
    """Time and memory of each."""
    return [(each.iteration_time_s, each.memory_bytes) for each in candidates]


@pytest.mark.slow
@pytest.mark.parametrize("space", SPACES)
def test_a_search_finds_the_fastest_layouts_that_fit(space: str) -> None:
    """The best hundred of brute force, in their order, and how many there are at all."""
    fitting = sorted(each.figures for each in singles(space) if each.fits)
    assert found(space).complete
    assert (found(space).layouts, found(space).fitting) == (len(singles(space)), len(fitting))
    assert figures(found(space).fastest) == fitting[:100]
    assert len(fitting) > 0


def test_spaces_that_do_not_all_fit_are_among_them() -> None:
    """Else no limit of memory would be seen."""
    assert any(found(space).fitting < found(space).layouts for space in SPACES)


@pytest.mark.parametrize("space", SPACES)
def test_a_candidate_has_the_figures_of_its_prediction(space: str) -> None:
    """To the bit, of the layout that its settings make."""
    work, _ = SPACES[space]
    for candidate in found(space).fastest[::10]:
        predicted = predict_stage(setup_of(work.model, candidate.layout, work.stack, cluster=work.cluster))
        assert candidate.iteration_time_s == predicted.iteration_time_s
        assert candidate.memory_bytes == predicted.memory.total_bytes
        assert candidate.gpus == work.gpus


@pytest.mark.slow
@pytest.mark.parametrize("space", SPACES)
def test_the_front_is_what_no_layout_beats_in_both(space: str) -> None:
    """Every layout is held against every other."""
    fitting = {each.figures for each in singles(space) if each.fits}
    unbeaten = {
        (seconds, needed)
        for seconds, needed in fitting
        if not any((t <= seconds and m < needed) or (t < seconds and m <= needed) for t, m in fitting)
    }
    assert figures(found(space).front) == sorted(unbeaten)


@pytest.mark.slow
@pytest.mark.parametrize("space", SPACES)
def test_for_each_value_of_each_setting_the_fastest_and_the_smallest_are_kept(space: str) -> None:
    """Those that what-if questions about the best layout ask for."""
    expected: dict[tuple[str, Any], list[Single]] = {}
    for each in singles(space):
        for name in (*CATEGORIES, *NUMERIC_SETTINGS):
            if (value := each.value(name)) is not None:
                expected.setdefault((name, value), []).append(each)
    assert found(space).by_setting.keys() == expected.keys()
    for key, layouts in expected.items():
        extremes = found(space).by_setting[key]
        fitting = sorted(each.figures for each in layouts if each.fits)
        assert extremes.smallest is not None
        assert extremes.smallest.memory_bytes == min(each.memory_bytes for each in layouts), key
        assert figures([extremes.fastest] if extremes.fastest else []) == fitting[:1], key


@pytest.mark.slow
@pytest.mark.parametrize("space", SPACES)
def test_the_smallest_layout_of_all_is_known(space: str) -> None:
    """Whether it fits or not."""
    smallest = found(space).smallest
    assert smallest is not None
    assert smallest.memory_bytes == min(each.memory_bytes for each in singles(space))


def assert_as_alone(work: Workload, some: Sequence[LayoutGrid], cells: int) -> None:
    """A sample of the cells of some grids is, to the bit, what a single prediction of each gives."""
    draw = np.random.default_rng(340)
    for grid in some:
        with np.errstate(all="ignore"):
            seconds, needed = grid_time_s(grid), grid_memory_bytes(grid)
        every = list(places(grid))
        for index in draw.choice(len(every), min(cells, len(every)), replace=False):
            place = every[index]
            one = single(work, Layout(**grid.values(*place)))
            assert (seconds[place], needed[place]) == one.figures, grid.values(*place)


@pytest.mark.slow
def test_layouts_of_a_large_search_are_as_alone() -> None:
    """Nemotron-4 340B on 3,072 GPUs, of which a search sees 2.7 million."""
    work = workload("nemotron-4-340b", gpus=3072, batch=2304, length=4096)
    every = list(layout_grids(work, offered_space(work.stack)))
    assert sum(int(grid.allowed.sum()) for grid in every) > 2e6
    assert_as_alone(work, sorted(every, key=lambda grid: grid.allowed.size)[:: len(every) // 11], cells=5)


@pytest.mark.parametrize(
    ("work", "precision"),
    [
        (workload("llama-3.1-70b", gpus=48, batch=96, stack="torchtitan", length=8192), "fp8"),
        (workload("llama-3.1-8b", gpus=96, batch=48, stack="pytorch-fsdp", cluster="dgx-a100"), "bf16"),
        (workload("gpt-3-175b", gpus=64, batch=64, stack="generic", cluster="dgx-h200"), "fp8"),
        (workload("nemotron-4-15b", gpus=40, batch=80, stack="ideal"), "bf16"),
        (workload("gpt-3-175b", gpus=96, batch=48, stack="megatron-lm-2022", cluster="dgx-a100"), "fp16"),
    ],
)
def test_layouts_of_any_stack_are_as_alone(work: Workload, precision: str) -> None:
    """Copies of shards, schedules without bubbles, 8 bits, modules dealt out like layers."""
    every = list(layout_grids(work, offered_space(work.stack, precision=(precision,)), cells=1 << 14))
    assert_as_alone(work, every[:: max(len(every) // 8, 1)], cells=4)


@pytest.mark.slow
@pytest.mark.parametrize("stack", ["ideal", "torchtitan"])
def test_neither_workers_nor_the_size_of_grids_decide_what_is_found(stack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of equally fast layouts too: without communication there are many."""
    monkeypatch.setattr(searching, "KEPT_LAYOUTS", 9)
    work = workload(gpus=4, batch=8, stack=stack)
    few = {"micro_batch_size": (1, 2), "recompute_layers": (1, 8), "context_parallel": (1, 2)}
    some = replace(offered_space(work.stack), fixed=few)
    whole = search(layout_grids(work, some), workers=1)
    for workers, cells in ((2, 1), (3, 100), (2, 2000)):
        assert search(layout_grids(work, some, cells=cells), workers=workers) == whole


def progress_until(stop: int, error: BaseException) -> tuple[list[int], Any]:
    """What was reported, and a function that ends the search at a number of reports."""
    told: list[int] = []

    def tell(layouts: int) -> None:
        told.append(layouts)
        if len(told) == stop:
            raise error

    return told, tell


def test_progress_is_how_many_layouts_were_seen() -> None:
    """It only grows, to all of them."""
    work, some = SPACES["toy"]
    told, tell = progress_until(0, KeyboardInterrupt())
    every = search(layout_grids(work, some, cells=40), on_progress=tell)
    assert told == sorted(told)
    assert told[-1] == every.layouts == found("toy").layouts


def test_ctrl_c_ends_a_search_with_what_was_found() -> None:
    """The best so far, and that it is not all."""
    work, some = SPACES["toy"]
    told, tell = progress_until(5, KeyboardInterrupt())
    stopped = search(layout_grids(work, some, cells=40), workers=2, on_progress=tell)
    assert not stopped.complete
    assert 0 < stopped.layouts == told[-1] < found("toy").layouts
    known = {each.figures for each in singles("toy")}
    assert stopped.fastest
    assert set(figures(stopped.fastest)) <= known


def test_other_errors_are_not_swallowed() -> None:
    """What goes wrong in a worker, or in who listens, is heard."""
    work, some = SPACES["toy"]
    _, tell = progress_until(1, RuntimeError("nobody listens"))
    with pytest.raises(RuntimeError, match="nobody listens"):
        search(layout_grids(work, some), on_progress=tell)
    with pytest.raises(AttributeError):
        search([None])  # type: ignore[list-item]


def test_where_nothing_fits_the_smallest_is_known() -> None:
    """There is no fastest layout, no front, and no best value of any setting."""
    work, some = SPACES["toy"]
    gpu = replace(work.cluster.gpu, memory_bytes=1e9)
    none = search(layout_grids(replace(work, cluster=replace(work.cluster, gpu=gpu)), some))
    assert (none.layouts, none.fitting, none.fastest, none.front) == (found("toy").layouts, 0, [], [])
    assert none.smallest is not None
    assert none.smallest.memory_bytes == min(each.memory_bytes for each in singles("toy"))
    assert {extremes.fastest for extremes in none.by_setting.values()} == {None}


def test_of_no_layouts_nothing_is_found() -> None:
    """A search of nothing is complete."""
    assert search([]) == SearchResult()
    assert SearchResult().smallest is None


def test_grids_tell_time_only_of_what_fits() -> None:
    """Memory of all that may exist; infinity elsewhere."""
    work, some = SPACES["nearly full memory"]
    for grid in layout_grids(work, some):
        seen = evaluated_grid(grid)
        assert np.array_equal(np.isfinite(seen.memory_bytes), grid.allowed)
        fits = seen.memory_bytes <= work.cluster.gpu.memory_bytes
        assert np.array_equal(np.isfinite(seen.iteration_time_s), fits)


def candidates_of(points: Sequence[tuple[int, int]]) -> Iterator[LayoutCandidate]:
    """Candidates with given figures."""
    settings: Mapping[str, Any] = {}
    for seconds, needed in points:
        yield LayoutCandidate(settings=settings, iteration_time_s=float(seconds), memory_bytes=float(needed))


@given(points=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), max_size=30))
def test_a_front_beats_all_that_is_not_on_it(points: list[tuple[int, int]]) -> None:
    """And nothing on it beats anything else on it."""
    front = figures(pareto_front(candidates_of(points)))
    assert set(front) <= {(float(t), float(m)) for t, m in points}
    for seconds, needed in points:
        assert any(t <= seconds and m <= needed for t, m in front)
    assert all(t < later and m > smaller for (t, m), (later, smaller) in pairwise(front))
