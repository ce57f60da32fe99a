"""How a measured speed is read: `200tokens/s/gpu`, `25samples/s`, `3.4s`, `mfu=31%`; and which iteration time it is."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Final

from perfmodel.errors import InputError, UnitError, shown
from perfmodel.light_dataclass import dataclass
from perfmodel.prediction import StagePrediction
from perfmodel.units import SECONDS_PER_DAY, parse_quantity, seconds_text, share_text

EXAMPLES: Final = "200tokens/s/gpu, 6400tokens/s, 25samples/s, 3.4s, mfu=31% or 420TFLOP/s/gpu"
GPU: Final = "/(?:gpu|device)"
TOKENS: Final = re.compile(rf"(.+?)\s*tok(?:en)?s?(?:/s(?:ec)?(?P<each>{GPU})?|(?P<first>{GPU})/s(?:ec)?)", re.IGNORECASE)
SAMPLES: Final = re.compile(r"(.+?)\s*(?:sample|sequence|seq)s?/s(?:ec)?", re.IGNORECASE)  # of all GPUs
RATE: Final = re.compile(rf"(.*?)([MGTP])FLOP(?:s|s?/s(?:ec)?)(?:{GPU})?", re.IGNORECASE)
TIME: Final = re.compile(r"(.+?[a-z])(?:/(?:it|iter|iteration|step))?", re.IGNORECASE)
THOUSANDS: Final = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")  # 42,000 tokens/s
SHARE: Final = re.compile(r"(?:(?P<kind>mfu|hfu)\s*=?\s*)?(?P<value>[\d.]+\s*%)(?:\s*(?P<last>mfu|hfu))?", re.IGNORECASE)
LONGEST_S: Final = 366 * SECONDS_PER_DAY  # of one iteration
BARE_SHARE: Final = re.compile(r"(mfu|hfu)\s*=?\s*(\d+\.?\d*|\.\d+)", re.IGNORECASE)  # without its %
LONGEST_TEXT: Final = 100  # characters of a speed


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredValue:
    """A measured speed as it was written, and the iteration time [s] that it is for one prediction's work."""

    text: str
    iteration_time_s: float


def _by_tokens(rate: float, predicted: StagePrediction) -> float:
    return float(predicted.layout.tokens_per_iteration) / rate


def _by_tokens_of_a_gpu(rate: float, predicted: StagePrediction) -> float:
    return _by_tokens(rate * float(predicted.layout.gpus), predicted)


def _by_samples(rate: float, predicted: StagePrediction) -> float:
    return float(predicted.layout.global_batch_size) / rate


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


def measured_value(measured: object, predicted: StagePrediction) -> MeasuredValue:
    """The iteration time that a measured speed is; a plain number from Python is seconds.

    MFU, HFU and FLOP/s count model FLOPs as predictions do: attention in full, against the peak of the products' format.
    Errors: InputError for what is no speed, or none that a GPU can have.
    """
    is_text = isinstance(measured, str)
    if isinstance(measured, str) and len(measured) > LONGEST_TEXT:
        raise InputError(f"{shown(measured)} is not a measured speed; write it like {EXAMPLES}", key="measured")
    value, seconds_of = _read(THOUSANDS.sub("", str(measured).strip())) if is_text else (_number(measured), _as_it_is)
    if not value > 0.0:
        raise InputError(f"{shown(measured)} must be greater than 0; write it like {EXAMPLES}", key="measured")
    time_s = seconds_of(value, predicted)
    if time_s > LONGEST_S:
        raise InputError(f"{shown(measured)} is too slow: an iteration would take more than a year", key="measured")
    _check_utilisation(measured, time_s, predicted)
    return MeasuredValue(text=str(measured).strip() if is_text else seconds_text(value), iteration_time_s=time_s)


def _number(measured: object) -> float:
    """A plain number of seconds. Errors: InputError for what is no number; true and false are none."""
    if isinstance(measured, bool) or not isinstance(measured, Real):
        raise InputError(f"{shown(measured)} is not a measured speed; write it like {EXAMPLES}", key="measured")
    try:
        return float(measured)
    except OverflowError:
        return float("-inf") if measured < 0 else float("inf")


def _read(text: str) -> tuple[float, Callable[[float, StagePrediction], float]]:
    """The number in SI units, and what makes an iteration time of it."""
    try:
        if found := TOKENS.fullmatch(text):
            is_each = found["each"] or found["first"]
            return parse_quantity(found[1], "count"), _by_tokens_of_a_gpu if is_each else _by_tokens
        if found := SAMPLES.fullmatch(text):
            return parse_quantity(found[1], "count"), _by_samples
        if found := SHARE.fullmatch(text):
            return parse_quantity(found["value"], "ratio"), SHARES[(found["kind"] or found["last"] or "mfu").lower()]
        if found := RATE.fullmatch(text):
            return parse_quantity(f"{found[1]}{found[2].upper()}FLOP/s", "flop_per_s"), _by_flop
        if found := TIME.fullmatch(text):
            return parse_quantity(found[1], "s"), _as_it_is
    except UnitError:
        pass
    near = _nearest_form(text)
    instead = f"did you mean {near}?" if near else f"write it like {EXAMPLES}"
    raise InputError(f"{shown(text)} is not a measured speed; {instead}", key="measured")


def _nearest_form(text: str) -> str:
    """What somebody meant who left out a %; empty where that is not known.

    >>> _nearest_form("mfu=17"), _nearest_form("MFU 0.31"), _nearest_form("fast")
    ('mfu=17%', 'mfu=31%', '')
    """
    if found := BARE_SHARE.fullmatch(text):
        share = float(found[2])
        return f"{found[1].lower()}={100 * share if share < 1 else share:g}%"
    return ""


def _check_utilisation(measured: object, time_s: float, predicted: StagePrediction) -> None:
    """Raise InputError for a speed at which a GPU would do more than its peak."""
    hfu = float(predicted.hfu * predicted.iteration_time_s) / max(time_s, sys.float_info.min)
    if hfu > 1.0:
        does = f"a GPU of this run would do {share_text(hfu)} of its peak rate"
        raise InputError(
            f"{shown(measured)} is too fast: {does}; is it of the whole cluster, or another stage?", key="measured"
        )
