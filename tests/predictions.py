"""The stages that commands and explanations predict: each setup worked out once for all tests that ask for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from perfmodel import prediction
from perfmodel.explanation import moves, next_measurements, plausibility
from perfmodel.prediction import StagePrediction, predict_stage
from perfmodel.search import alternatives
from perfmodel.spec.setup import Setup
from perfmodel.spec.spread import most_dimensions

MOST = 512  # that are kept


@contextmanager
def predicted_once() -> Iterator[None]:
    """Meanwhile a setup of plain numbers is predicted only if nothing before has: what it gives depends on its values alone.

    Tests of predictions call `predict_stage` themselves, which works out everything anew.
    """
    with pytest.MonkeyPatch.context() as patch:
        remembered = _remembered()
        for module in (prediction, alternatives, moves, next_measurements, plausibility):
            patch.setattr(module, "predict_stage", remembered)
        yield


def _remembered() -> Callable[[Setup], StagePrediction]:
    asked: dict[str, Setup] = {}

    @lru_cache(maxsize=MOST)
    def known(key: str) -> StagePrediction:
        return predict_stage(asked[key])

    def remembered(setup: Setup) -> StagePrediction:
        specs: tuple[Any, ...] = (setup.model, setup.cluster, setup.stack, setup.layout)
        if most_dimensions(*specs):
            return predict_stage(setup)
        with np.printoptions(floatmode="unique"):  # every digit, of what is an array without an axis too
            key = repr(specs)
        asked[key] = setup
        try:
            return known(key)
        finally:
            del asked[key]

    return remembered
