"""Is a measured speed read in whatever unit people print it, and is what is none refused in one sentence?"""

from __future__ import annotations

import pytest

from perfmodel.errors import InputError
from perfmodel.exchange.questions.measured_values import measured_value
from perfmodel.exchange.run_files import read_candidates
from perfmodel.prediction import StagePrediction, predict


@pytest.fixture(scope="module")
def predicted() -> StagePrediction:
    """The last stage of a ramp, on 2,304 GPUs."""
    return predict(read_candidates("nemotron-4-15b")[0].run).stages[-1][1]


def test_the_predicted_speed_is_the_predicted_time(predicted: StagePrediction) -> None:
    """In every unit."""
    time_s = float(predicted.iteration_time_s)
    flop = float(predicted.mfu) * 989.4
    peak = float(predicted.work.setup.cluster.gpu.peak("bf16"))
    for text in (
        f"{float(predicted.tokens_per_s_per_gpu)}tokens/s/gpu",
        f"{float(predicted.tokens_per_s_per_gpu) / 1e3} k tok/s/GPU",
        f"{float(predicted.tokens_per_s_per_gpu)} tokens/sec/device",
        f"{float(predicted.tokens_per_s_per_gpu)} tokens/GPU/s",
        f"{float(predicted.tokens_per_s)} tokens/s",
        f"{float(predicted.tokens_per_s):,}tokens/sec",
        f"{float(predicted.layout.global_batch_size) / time_s} samples/s",
        f"{float(predicted.layout.global_batch_size) / time_s}sequences/sec",
        f"{time_s}s",
        f"{time_s * 1e3} ms",
        f"{time_s} s/it",
        f"{time_s * 1e3}ms/step",
        f"mfu={100 * float(predicted.mfu)}%",
        f"{100 * float(predicted.mfu)} %",
        f"hfu = {100 * float(predicted.hfu)}%",
        f"{flop * peak / 989.4e12}TFLOP/s/gpu",
        f"{flop * peak / 989.4e12} TFLOPs/s/GPU",
        f"{flop * peak / 989.4e15} PFLOP/s",
        f"{flop * peak / 989.4e12} tflops",
        f"{flop * peak / 989.4e12} TFLOPS/GPU",
    ):
        assert measured_value(text, predicted).iteration_time_s == pytest.approx(time_s, rel=1e-9), text


def test_a_number_from_python_is_seconds(predicted: StagePrediction) -> None:
    """And is written as such."""
    value = measured_value(0.9, predicted)
    assert (value.text, value.iteration_time_s) == ("0.900 s", 0.9)


def test_a_text_is_kept_as_it_was_written(predicted: StagePrediction) -> None:
    """For the sentence about it."""
    assert measured_value(" mfu=31% ", predicted).text == "mfu=31%"


@pytest.mark.parametrize(
    "text",
    ["", "fast", "20", "0.31", "5GB", "200tokens/s/gpuu", "tokens/s", "12 km/s", "nans", "420TFLOP", "1,2 s"],
)
def test_what_is_no_speed_is_refused_with_what_would_be_one(predicted: StagePrediction, text: str) -> None:
    """A number without a unit may be anything."""
    with pytest.raises(InputError, match=r"^measured: '.*' is not a measured speed; write it like 200tokens/s/gpu, "):
        measured_value(text, predicted)


@pytest.mark.parametrize("measured", ["0s", "-3s", "0tokens/s", "mfu=0%", 0.0, -1.0, -(10**400), float("nan")])
def test_a_speed_is_greater_than_nothing(predicted: StagePrediction, measured: str | float) -> None:
    """Whatever its unit."""
    with pytest.raises(InputError, match="must be greater than 0"):
        measured_value(measured, predicted)


@pytest.mark.parametrize("text", ["mfu=300%", "1e9tokens/s", "1us", "5000TFLOP/s/gpu"])
def test_a_speed_beyond_the_peak_rate_is_refused(predicted: StagePrediction, text: str) -> None:
    """It is of another unit, or of another stage."""
    with pytest.raises(InputError, match=r"is too fast: a GPU of this run would do .* of its peak rate"):
        measured_value(text, predicted)


@pytest.mark.parametrize("measured", ["1e300s", "2000d", "1e-300tokens/s", 1e300, 10**400, float("inf")])
def test_an_iteration_of_more_than_a_year_is_refused(predicted: StagePrediction, measured: object) -> None:
    """As too slow, which is true of it; one of a day is read."""
    with pytest.raises(InputError, match=r"^measured: .* is too slow: an iteration would take more than a year$"):
        measured_value(measured, predicted)
    assert measured_value("1d", predicted).iteration_time_s == 86400.0


@pytest.mark.parametrize("measured", [1e-300, 5e-324, 1e-6, "1e300tokens/s", "1e308tokens/s/gpu", "1e-300s"])
def test_a_number_beyond_the_peak_rate_is_refused_as_a_text_is(predicted: StagePrediction, measured: object) -> None:
    """However small the time."""
    with pytest.raises(InputError, match=r"is too fast: a GPU of this run would do .* of its peak rate"):
        measured_value(measured, predicted)


@pytest.mark.parametrize("measured", [None, [1], {}, b"0.9", True, False, 1j])
def test_what_is_neither_text_nor_number_is_refused(predicted: StagePrediction, measured: object) -> None:
    """In the same sentence; true is no time."""
    with pytest.raises(InputError, match=r"^measured: .* is not a measured speed; write it like 200tokens/s/gpu, "):
        measured_value(measured, predicted)


@pytest.mark.parametrize(
    ("text", "meant"),
    [("2 weeks", "14d"), ("5 minutes", "5min"), ("3.4 sec", "3.4s"), ("1 Hour", "1h"), ("25% MFU", "mfu=25%")],
)
def test_units_may_be_words(predicted: StagePrediction, text: str, meant: str) -> None:
    """As people write them."""
    assert measured_value(text, predicted).iteration_time_s == measured_value(meant, predicted).iteration_time_s


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("mfu=17", "mfu=17%"),
        ("MFU 0.31", "mfu=31%"),
        ("hfu=0.3", "hfu=30%"),
    ],
)
def test_a_speed_that_is_nearly_written_right_names_the_right_form(predicted: StagePrediction, text: str, meant: str) -> None:
    """Which then is read."""
    with pytest.raises(InputError, match=f"'{text}' is not a measured speed; did you mean {meant}\\?$"):
        measured_value(text, predicted)
    assert measured_value(meant, predicted).iteration_time_s > 0
