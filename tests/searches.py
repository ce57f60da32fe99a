"""The searches that plans make, and the predictions of what they find: each worked out once for all tests that ask for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from perfmodel.prediction import StagePrediction
from perfmodel.search import option, plan, remedies
from perfmodel.search.alternatives import candidate_prediction
from perfmodel.search.layouts.grids import layout_grids
from perfmodel.search.layouts.search import LayoutCandidate, SearchResult, search
from perfmodel.search.layouts.space import SearchSpace, Workload

RESULTS: dict[str, SearchResult] = {}
PREDICTED: dict[str, StagePrediction] = {}


@contextmanager
def searched_once() -> Iterator[None]:
    """Plans that are made meanwhile search a workload in a space only where no plan before them has.

    A search that was stopped is not kept. Tests of the searches themselves do without this.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(option, "layout_grids", lambda work, space: (work, space))
        patch.setattr(option, "search", lambda asked, **how: _found(*asked, **how))
        for module in (option, plan, remedies):
            patch.setattr(module, "candidate_prediction", _candidate_prediction)
        yield


def _found(
    work: Workload, space: SearchSpace, *, workers: int | None = None, on_progress: Callable[[int], None] = lambda _: None
) -> SearchResult:
    """What a search finds, which is the same whoever asks."""
    key = repr((work, space))
    if key in RESULTS:
        on_progress(RESULTS[key].layouts)
        return RESULTS[key]
    one_core = 1  # is what a worker of pytest-xdist has
    result = search(layout_grids(work, space), workers=workers or one_core, on_progress=on_progress)
    if result.complete:
        RESULTS[key] = result
    return result


def _candidate_prediction(candidate: LayoutCandidate, work: Workload) -> StagePrediction:
    key = repr((candidate, work))
    if key not in PREDICTED:
        PREDICTED[key] = candidate_prediction(candidate, work)
    return PREDICTED[key]
