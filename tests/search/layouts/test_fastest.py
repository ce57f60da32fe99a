"""The fastest layout that fits is the one that a search of all layouts finds, though few of them are timed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from perfmodel.search.layouts import search as searching
from perfmodel.search.layouts.fastest import fastest_layout
from perfmodel.search.layouts.grids import layout_grids
from perfmodel.search.layouts.search import search
from perfmodel.search.layouts.space import SearchSpace, Workload, offered_space
from tests.search.layouts.spaces import space_of, workload

ALL: tuple[Workload, ...] = (
    workload(gpus=16, batch=8),
    workload("nemotron-4-15b", gpus=16, batch=8, cluster="dgx-a100", length=4096),  # hardly any layout fits
    workload("llama-3.1-70b", gpus=64, batch=64, length=8192),
    workload("mixtral-8x7b", gpus=64, batch=256, stack="megatron-bridge", length=4096),
    workload("deepseek-v3", gpus=128, batch=128, stack="megatron-bridge", length=4096),
    workload("llama-3.1-8b", gpus=8, batch=8, stack="torchtitan", length=8192),
)


@pytest.mark.parametrize("work", ALL, ids=lambda work: work.model.name)
@pytest.mark.parametrize("recompute", [("none", "selective", "full"), ("full",)], ids="-".join)
def test_it_is_what_a_search_finds(work: Workload, recompute: tuple[str, ...]) -> None:
    """Whatever may run again: where a pass may not do without, the bound is of layouts that are not looked at."""
    some = replace(offered_space(work.stack), recompute=recompute)
    assert fastest_layout(work, some, workers=1) == search(layout_grids(work, some), workers=1).fastest[0]


def test_of_several_precisions() -> None:
    """Each has bounds of its own."""
    work = workload("llama-3.1-8b", gpus=8, batch=16, length=8192)
    some = offered_space(work.stack, precision=("bf16", "fp8"))
    best = fastest_layout(work, some, workers=2)
    assert best == search(layout_grids(work, some), workers=1).fastest[0]
    assert best is not None
    assert best.settings["precision"] == "fp8"


@pytest.mark.parametrize("some", [space_of(fixed={"tensor_parallel": (5,)}), space_of()], ids=["none exists", "none fits"])
def test_where_nothing_fits_there_is_none(some: SearchSpace) -> None:
    """A model of 340B does not fit a node, and no model has five heads of six."""
    assert fastest_layout(workload("nemotron-4-340b", gpus=8, batch=8), some, workers=1) is None


def test_few_layouts_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more than a hundred thousand layouts not a tenth goes through the equations of time."""
    work, timed = workload("nemotron-4-15b", gpus=256, batch=512, length=4096), []
    some = offered_space(work.stack)
    evaluated = searching.evaluated_grid

    def counted(grid: Any) -> Any:
        timed.append(grid.allowed.sum())
        return evaluated(grid)

    monkeypatch.setattr(searching, "evaluated_grid", counted)
    assert fastest_layout(work, some, workers=1) is not None
    assert 0 < sum(timed) < 0.1 * sum(int(grid.allowed.sum()) for grid in layout_grids(work, some))
