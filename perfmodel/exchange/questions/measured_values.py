"""How a measured speed is read: `200tokens/s/gpu`, `3.4s`, `mfu=31%`, `420TFLOP/s/gpu`; and which iteration time it is."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from perfmodel.errors import InputError, UnitError, shown
from perfmodel.prediction import StagePrediction
from perfmodel.units import parse_quantity, seconds_text, share_text

EXAMPLES: Final = "200tokens/s/gpu, 6400tokens/s, 3.4s, mfu=31% or 420TFLOP/s/gpu"
GPU: Final = "/(?:gpu|device)"
TOKENS: Final = re.compile(rf"(.+?)\s*tok(?:en)?s?(?:/s(?:ec)?(?P<each>{GPU})?|(?P<first>{GPU})/s(?:ec)?)", re.IGNORECASE)
RATE: Final = re.compile(rf"(.*?)([MGTP])FLOP(?:s|s?/s(?:ec)?)(?:{GPU})?", re.IGNORECASE)
TIME: Final = re.compile(r"(.+?[a-z])(?:/(?:it|iter|iteration|step))?", re.IGNORECASE)
THOUSANDS: Final = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")  # 42,000 tokens/s
SHARE: Final = re.compile(r"(?:(?P<kind>mfu|hfu)\s*=?\s*)?(?P<value>[\d.]+\s*%)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredValue:
    """A measured speed as it was written, and the iteration time [s] that it is for one prediction's work."""

    text: str
    iteration_time_s: float


def _by_tokens(rate: float, predicted: StagePrediction) -> float:
    return float(predicted.layout.tokens_per_iteration) / rate


def _by_tokens_of_a_gpu(rate: float, predicted: StagePrediction) -> float:
    return _by_tokens(rate * float(predicted.layout.gpus), predicted)


def _by_mfu(share: float, predicted: StagePrediction) -> float:
    return float(predicted.mfu * predicted.iteration_time_s) / share


def _by_hfu(share: float, predicted: StagePrediction) -> float:
    return float(predicted.hfu * predicted.iteration_time_s) / share


def _by_flop(rate: float, predicted: StagePrediction) -> float:
    setup = predicted.work.setup
    return _by_mfu(rate / float(setup.cluster.gpu.peak(setup.layout.recipe.products)), predicted)


def _as_it_is(seconds: float, _: StagePrediction) -> float:
    return seconds


SHARES: Final[Mapping[str, Callable[[float, StagePrediction], float]]] = {"mfu": _by_mfu, "hfu": _by_hfu}


def measured_value(measured: str | float, predicted: StagePrediction) -> MeasuredValue:
    """The iteration time that a measured speed is; a plain number from Python is seconds.

    MFU, HFU and FLOP/s count model FLOPs as predictions do: attention in full, against the peak of the products' format.
    Errors: InputError for what is no speed, or none that a GPU can have.
    """
    if not isinstance(measured, str):
        return MeasuredValue(text=seconds_text(float(measured)), iteration_time_s=_checked(float(measured), measured))
    value, seconds_of = _read(THOUSANDS.sub("", measured.strip()))
    time_s = seconds_of(_checked(value, measured), predicted)
    _check_utilisation(measured, time_s, predicted)
    return MeasuredValue(text=measured.strip(), iteration_time_s=time_s)


def _read(text: str) -> tuple[float, Callable[[float, StagePrediction], float]]:
    """The number in SI units, and what makes an iteration time of it."""
    try:
        if found := TOKENS.fullmatch(text):
            is_each = found["each"] or found["first"]
            return parse_quantity(found[1], "count"), _by_tokens_of_a_gpu if is_each else _by_tokens
        if found := SHARE.fullmatch(text):
            return parse_quantity(found["value"], "ratio"), SHARES[(found["kind"] or "mfu").lower()]
        if found := RATE.fullmatch(text):
            return parse_quantity(f"{found[1]}{found[2].upper()}FLOP/s", "flop_per_s"), _by_flop
        if found := TIME.fullmatch(text):
            return parse_quantity(found[1], "s"), _as_it_is
    except UnitError:
        pass
    raise InputError(f"{shown(text)} is not a measured speed; write it like {EXAMPLES}", key="measured")


def _checked(value: float, measured: object) -> float:
    if not 0.0 < value < 1e30:
        raise InputError(f"{shown(measured)} must be greater than 0; write it like {EXAMPLES}", key="measured")
    return value


def _check_utilisation(measured: str, time_s: float, predicted: StagePrediction) -> None:
    """Raise InputError for a speed at which a GPU would do more than its peak."""
    hfu = float(predicted.hfu * predicted.iteration_time_s) / time_s
    if hfu > 1.0:
        does = f"a GPU of this run would do {share_text(hfu)} of its peak rate"
        raise InputError(
            f"{shown(measured)} is too fast: {does}; is it of the whole cluster, or another stage?", key="measured"
        )
