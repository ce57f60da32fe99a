"""The stages that commands and explanations predict: each setup worked out once for all tests that ask for it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import pytest

from perfmodel import prediction
from perfmodel.explanation import moves
from perfmodel.explanation.measured import next_measurements, plausibility
from perfmodel.prediction import StagePrediction, predict_stage
from perfmodel.search import alternatives
from perfmodel.spec.fields import Spec
from perfmodel.spec.setup import Setup

MOST = 512  # that are kept


@contextmanager
def predicted_once() -> Iterator[None]:
    """Meanwhile a setup is predicted only if nothing before has: what it gives depends on its values alone.

    Tests of predictions call `predict_stage` themselves, which works out everything anew.
    """
    with pytest.MonkeyPatch.context() as patch:
        remembered = _remembered()
        for module in (prediction, alternatives, moves, next_measurements, plausibility):
            patch.setattr(module, "predict_stage", remembered)
        yield


def _remembered() -> Callable[[Setup], StagePrediction]:
    asked: dict[str, Setup] = {}
    written: dict[int, tuple[Spec, str]] = {}  # with the spec itself, so that no other takes its place in memory

    @lru_cache(maxsize=MOST)
    def known(key: str) -> StagePrediction:
        return predict_stage(asked[key])

    def text(spec: Spec) -> str:
        if id(spec) not in written:
            written[id(spec)] = spec, repr(spec)
        return written[id(spec)][1]

    def remembered(setup: Setup) -> StagePrediction:
        if len(written) > MOST:
            written.clear()
        with np.printoptions(floatmode="unique", threshold=sys.maxsize):  # every digit of every number of an array
            key = "".join(map(text, (setup.model, setup.cluster, setup.stack, setup.layout)))
        asked[key] = setup
        try:
            return known(key)
        finally:
            del asked[key]

    return remembered
