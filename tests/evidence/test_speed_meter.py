"""Does a meter give the speeds of steps that the prediction of the same time has?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import perfmodel as pm

PRESET = "nemotron-4-15b"


def test_a_step_of_the_predicted_time_has_the_predicted_speed() -> None:
    """MFU in full, tokens and FLOPs a GPU, of the stage that is asked for."""
    predicted = pm.predict(PRESET).stages[0][1]
    speed = pm.MFUMeter(PRESET, stage=1).update(float(predicted.iteration_time_s))
    assert speed.mfu_full == pytest.approx(float(predicted.mfu), rel=1e-9)
    assert speed.tokens_per_s_per_gpu == pytest.approx(float(predicted.tokens_per_s_per_gpu), rel=1e-12)
    assert speed.flop_per_s_per_gpu_full == pytest.approx(speed.mfu_full * float(predicted.peak_flop_per_s), rel=1e-12)
    assert speed.predicted_interval_s == tuple(map(float, predicted.iteration_time_interval_s))
    assert speed.is_expected


def test_a_number_of_numpy_is_one() -> None:
    """As the mean of several steps may be."""
    assert pm.MFUMeter(PRESET).update(np.float32(0.5)).iteration_time_s == 0.5


def test_half_of_attention_counts_in_the_causal_convention() -> None:
    """6 * layers * sequence * heads * head size FLOPs a token fewer."""
    speed = pm.MFUMeter(PRESET).update(1.0)
    fewer = speed.flop_per_s_per_gpu_full - speed.flop_per_s_per_gpu_causal
    assert fewer / speed.tokens_per_s_per_gpu == pytest.approx(6 * 32 * 4096 * 48 * 128, rel=1e-3)
    assert speed.mfu_causal / speed.mfu_full == pytest.approx(speed.flop_per_s_per_gpu_causal / speed.flop_per_s_per_gpu_full)


def test_recent_speed_is_that_of_the_median_of_the_last_steps() -> None:
    """An outlier does not move it, and old steps are forgotten."""
    meter = pm.MFUMeter(PRESET, window=3)
    for seconds in (5.0, 5.0, 5.0, 0.6, 9.0, 0.7):
        meter.update(seconds)
    assert meter.recent.iteration_time_s == 0.7
    assert not meter.update(9.0).is_expected


def test_settings_change_what_is_metered() -> None:
    """Half the batch is half the tokens of a step."""
    one, half = pm.MFUMeter(PRESET), pm.MFUMeter(PRESET, {"stages[*].global_batch_size": "x0.5"})
    assert half.update(1.0).tokens_per_s_per_gpu == pytest.approx(one.update(1.0).tokens_per_s_per_gpu / 2)


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan"), float("inf"), "1s", True, None])
def test_what_is_no_time_is_refused(seconds: Any) -> None:
    """In one sentence."""
    with pytest.raises(pm.InputError, match="is no time of a step in seconds"):
        pm.MFUMeter(PRESET).update(seconds)


def test_there_is_no_speed_before_a_step() -> None:
    """Nor a window of no steps."""
    with pytest.raises(pm.InputError, match="no step has been metered"):
        _ = pm.MFUMeter(PRESET).recent
    with pytest.raises(pm.InputError, match="window: 0 is no number of steps"):
        pm.MFUMeter(PRESET, window=0)
