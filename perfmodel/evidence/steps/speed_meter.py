"""How fast a training loop runs, step by step: MFU in both conventions beside the prediction of its run.

With t seconds a step of n tokens on g GPUs of peak rate P, and F model FLOPs a token: MFU = F * n / (t * g * P).
"""

from __future__ import annotations

from collections import deque
from statistics import median
from typing import Any, Final

import numpy as np

from perfmodel.count.flops import CONVENTIONS, model_flop_per_token
from perfmodel.errors import InputError, shown
from perfmodel.light_dataclass import dataclass
from perfmodel.prediction import StagePrediction

WINDOW: Final = 100  # steps that the recent speed is of


@dataclass(frozen=True, slots=True, kw_only=True)
class MeteredSpeed:
    """The speed of a step, or the median of several.

    MFU and FLOPs count attention in full, or its causal half. `predicted_interval_s` is the 90 % interval of the prediction.
    """

    iteration_time_s: float
    tokens_per_s_per_gpu: float
    mfu_full: float
    mfu_causal: float
    flop_per_s_per_gpu_full: float
    flop_per_s_per_gpu_causal: float
    predicted_iteration_time_s: float
    predicted_interval_s: tuple[float, float]

    @property
    def is_expected(self) -> bool:
        """Whether the step took as long as was predicted, within the interval."""
        low_s, high_s = self.predicted_interval_s
        return low_s <= self.iteration_time_s <= high_s


class SpeedMeter:
    """Turns seconds of steps into speeds of one stage of a run; keeps the last `window` of them."""

    def __init__(self, predicted: StagePrediction, *, window: int = WINDOW) -> None:
        """A meter beside the prediction of a stage. Errors: InputError for a window of no steps."""
        if not _is_number(window) or window != int(window) or window < 1:
            raise InputError(f"{shown(window)} is no number of steps", key="window")
        self.predicted = predicted
        self._seconds: deque[float] = deque(maxlen=int(window))
        layout = predicted.layout
        self._tokens_per_gpu = float(layout.tokens_per_iteration) / float(layout.gpus)
        self._flop_per_token = {
            convention: float(model_flop_per_token(predicted.work.setup.model, layout.sequence_length, convention=convention))
            for convention in CONVENTIONS
        }

    def update(self, seconds: float | np.floating[Any]) -> MeteredSpeed:
        """The speed of a step that took so long. Errors: InputError for what is no time."""
        if not _is_number(seconds) or seconds <= 0:
            raise InputError(f"{shown(seconds)} is no time of a step in seconds", key="seconds")
        self._seconds.append(float(seconds))
        return self._speed(float(seconds))

    @property
    def recent(self) -> MeteredSpeed:
        """The speed of the median step among the last ones. Errors: InputError before the first step."""
        if not self._seconds:
            raise InputError("no step has been metered; call update(seconds) after each")
        return self._speed(median(self._seconds))

    def _speed(self, seconds: float) -> MeteredSpeed:
        tokens_per_s = self._tokens_per_gpu / seconds
        peak, predicted = float(self.predicted.peak_flop_per_s), self.predicted
        rate = {name: flop * tokens_per_s for name, flop in self._flop_per_token.items()}
        low_s, high_s = predicted.iteration_time_interval_s
        return MeteredSpeed(
            iteration_time_s=seconds,
            tokens_per_s_per_gpu=tokens_per_s,
            mfu_full=rate["full"] / peak,
            mfu_causal=rate["causal"] / peak,
            flop_per_s_per_gpu_full=rate["full"],
            flop_per_s_per_gpu_causal=rate["causal"],
            predicted_iteration_time_s=float(predicted.iteration_time_s),
            predicted_interval_s=(float(low_s), float(high_s)),
        )


def _is_number(value: object) -> bool:
    """Whether a value that a caller may have typed is a finite number."""
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and bool(np.isfinite(value))
