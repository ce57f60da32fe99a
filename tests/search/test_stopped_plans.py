"""Does a search that Ctrl-C ends keep the best that it has found, and say how far it came?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.search.small_plans import small_plan


def stopping_after(calls: int) -> Callable[[int], None]:
    """Progress that is interrupted, as Ctrl-C does it."""
    left = [calls]

    def advance(_: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt

    return advance


def test_stopped_with_the_best_so_far() -> None:
    """A search that is interrupted says so, and keeps what it has."""
    found = small_plan(gpus=8, on_progress=stopping_after(1))
    assert not found.complete
    assert 0 < found.layouts < small_plan(gpus=8).layouts
    assert found.best is not None
    assert found.obstacle is None


def test_stopped_between_numbers_of_gpus() -> None:
    """Those that were searched are options; nothing more is searched."""
    found = small_plan(gpus="4..64", on_progress=stopping_after(20))
    assert not found.complete
    assert found.best is not None
    assert 1 <= len(found.options) < 5


def test_stopped_while_looking_for_a_number() -> None:
    """Without an option there is no plan, and no obstacle either."""
    found = small_plan(gpus=None, tokens="100B", deadline="2d", on_progress=stopping_after(0))
    assert (found.complete, found.best, found.obstacle) == (False, None, None)


@pytest.mark.parametrize("share", [0.2, 0.6, 0.9, 1.0])
def test_stopped_anywhere_it_keeps_the_limits(share: float) -> None:
    """Whatever had been found by then; who does not stop it has the fewest GPUs."""
    asked: dict[str, Any] = {"gpus": None, "tokens": "100B", "deadline": "34h", "most_gpus": 256}
    told: list[int] = []
    small_plan(**asked, on_progress=told.append)
    found = small_plan(**asked, on_progress=stopping_after(int(share * len(told))))
    assert found.complete == (share == 1.0)
    assert found.best is None or found.best.calendar_days_at(0.9) <= 34 / 24
    assert found.best is not None or not found.complete


def test_progress_rises() -> None:
    """It tells how many layouts were looked at, over all numbers of GPUs."""
    told: list[int] = []
    found = small_plan(gpus="4,8", on_progress=told.append)
    assert told == sorted(told)
    assert told[-1] == found.layouts
    assert np.all(np.diff(told) > 0)
