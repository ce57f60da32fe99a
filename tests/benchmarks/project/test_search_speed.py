"""Does the benchmark of searches look at what it says?"""

from __future__ import annotations

import pytest

from perfmodel.benchmarks.project import search_speed
from perfmodel.benchmarks.project.search_speed import WORK, every_layout, many_grids, report_many, some_layouts
from perfmodel.search.layouts.grids import layout_grids
from perfmodel.search.layouts.search import search
from tests.search.layouts.spaces import space_of

FEW = space_of(fixed={"tensor_parallel": (8,), "micro_batch_size": (1,), "context_parallel": (1,), "virtual_pipeline": (1, 2)})


def test_it_counts_the_layouts_of_a_search() -> None:
    """All legal ones, whether they fit or not."""
    assert every_layout(FEW) == search(layout_grids(WORK, FEW)).layouts > 0


def test_single_layouts_are_of_the_same_space(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as asked for, of all its GPUs."""
    monkeypatch.setattr(search_speed, "SINGLES", 7)
    assert [layout.gpus for layout in some_layouts(FEW)] == [WORK.gpus] * 7


def test_many_layouts_are_no_more_than_a_block_too_many(capsys: pytest.CaptureFixture[str]) -> None:
    """Then the best of them is shown."""
    sizes = [int(grid.allowed.sum()) for grid in many_grids(1000)]
    assert sum(sizes[:-1]) < 1000 <= sum(sizes)
    report_many(1000)
    shown = capsys.readouterr().out
    assert f"all of them: {sum(sizes):,} layouts" in shown
    assert "best so far" in shown
