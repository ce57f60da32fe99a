"""Is every cell of the map of a plan the best that a search with its degrees alone finds?"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import pytest

import perfmodel as pm
from perfmodel.search.layouts.grids import layout_grids
from perfmodel.search.layouts.search import search
from perfmodel.search.plan import Plan
from perfmodel.search.plan_map import PlanMap, plan_map
from perfmodel.spec.axes import PIPELINE, TENSOR


@pytest.fixture(scope="module")
def plan() -> Plan:
    """Of a model that does not fit everywhere."""
    return pm.plan("llama-3.1-70b", cluster="dgx-h100", gpus="64")


@pytest.fixture(scope="module")
def found(plan: Plan) -> PlanMap:
    """Its map."""
    assert plan.best is not None
    return plan_map(plan.best.workloads[-1], plan.question.space)


def test_the_fastest_cell_is_the_plan(plan: Plan, found: PlanMap) -> None:
    """The best layout of all is that of its own cell."""
    best = plan.stages[-1].best
    cell = found.cells[best.settings[TENSOR.name], best.settings[PIPELINE.name]]
    times = [each.fastest.iteration_time_s for each in found.cells.values() if each.fastest is not None]
    assert cell.fastest is not None
    assert cell.fastest.iteration_time_s == best.iteration_time_s == min(times)


def test_each_cell_is_a_search_with_its_degrees_fixed(plan: Plan, found: PlanMap) -> None:
    """Time, memory and whether anything fits; cells that are not there have no layout."""
    assert plan.best is not None
    work, space = plan.best.workloads[-1], plan.question.space
    for degrees in [(1, 1), (8, 1), (1, 8), (4, 2), (2, 80)]:
        fixed = {**space.fixed, TENSOR.name: (degrees[0],), PIPELINE.name: (degrees[1],)}
        alone, cell = search(layout_grids(work, replace(space, fixed=MappingProxyType(fixed)))), found.cells.get(degrees)
        assert (cell is None) is (alone.smallest is None), degrees
        if cell is not None and alone.smallest is not None:
            assert cell.least_bytes == alone.smallest.memory_bytes
            assert (cell.fastest is None) is (not alone.fastest)
            if cell.fastest is not None:
                assert cell.fastest.figures == alone.fastest[0].figures


def test_a_model_too_large_has_cells_that_do_not_fit(found: PlanMap) -> None:
    """They say how much memory is needed at least."""
    assert any(cell.fastest is None and cell.least_bytes > 80e9 for cell in found.cells.values())
