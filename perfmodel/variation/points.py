"""One ramp stage under many other numbers: the prediction of each point, or why it is refused.

Points that may exist are arrays of one call of `predict_stage`: the same equations, bit for bit what single predictions give.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from perfmodel.count.parameters import parameter_count
from perfmodel.economics.cost import dollars
from perfmodel.economics.goodput import calendar_days, effective_share
from perfmodel.errors import InputError, PerfmodelError
from perfmodel.light_dataclass import dataclass, replace
from perfmodel.prediction import LONGEST_S, StagePrediction, peak_share, predict_stage
from perfmodel.spec.axes import FILLING
from perfmodel.spec.economics import Economics
from perfmodel.spec.fields import Numeric, plain
from perfmodel.spec.layout import Layout
from perfmodel.spec.refusals import check_setup, may_exist
from perfmodel.spec.run import RampStage, Run
from perfmodel.spec.setup import Setup

GPUS: Final = "gpus"  # not a key of a run: sets data_parallel so that the run has this many GPUs
POINTS_AT_ONCE: Final = 4096  # points in one call, so that memory stays small
NO_TIME: Final = "its numbers give no finite time: one of them is far too large or too small"
TOO_FAST: Final = "its numbers make GPUs compute faster than their peak rate, which cannot be"
NOT_REACHED: Final = "not predicted: the sweep was stopped before it"
TOTALS: Final = ("tokens", "days", "gpu_hours", "calendar_days", "calendar_gpu_hours", "dollars")


@dataclass(frozen=True, slots=True, kw_only=True)
class PointOutcome:
    """The numbers of a point, by the names of `StagePrediction.quantities` and TOTALS; or why the point is refused."""

    numbers: Mapping[str, Any] | None = None
    refusal: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VariedStage:
    """What the prediction of one ramp stage needs, with numbers changed; any of them may be an array."""

    setup: Setup
    tokens: Numeric | None
    economics: Economics | None

    def check(self) -> None:
        """Raise PerfmodelError for a layout that may not exist."""
        check_setup(self.setup)


def outcomes(
    run: Run,
    place: int,
    numbers: Mapping[str, Sequence[float]],
    *,
    number: int,
    is_weak: bool = False,
    gpus: int | None = None,
) -> list[PointOutcome]:
    """The outcome of each of `number` points; point i has the i-th value at each key path of `numbers`, all else as the run.

    Key paths are those of a run, but keys of a ramp stage are written without `stages[..]`, and `gpus` sets data_parallel.
    When `is_weak` the global batch grows with data parallelism. With `gpus` every point keeps so many.
    """
    columns = {key: np.asarray(values) for key, values in numbers.items()}
    found: list[PointOutcome] = []
    if gpus is not None:
        columns[GPUS] = np.full(number, gpus)
    for first in range(0, number, POINTS_AT_ONCE):
        some = {key: values[first : first + POINTS_AT_ONCE] for key, values in columns.items()}
        found += _outcomes(run, place, some, min(POINTS_AT_ONCE, number - first), is_weak=is_weak)
    return found


def _outcomes(run: Run, place: int, columns: Mapping[str, NDArray[Any]], number: int, *, is_weak: bool) -> list[PointOutcome]:
    """The outcomes of few enough points; in halves where one number is so wrong that no array of all can be made."""
    try:
        subject = _subject(run, place, columns, is_weak=is_weak)
        allowed = may_exist(subject.setup)
        can_be = np.flatnonzero(np.broadcast_to(allowed, (number,)))
        chosen = _subject(run, place, _at(columns, can_be), is_weak=is_weak)
        if len(can_be):
            chosen.check()
    except PerfmodelError:
        if number == 1:
            return [_refused(run, place, columns, is_weak=is_weak)]
        halves = np.array_split(np.arange(number), 2)
        return [each for half in halves for each in _outcomes(run, place, _at(columns, half), len(half), is_weak=is_weak)]
    predicted = dict(zip(can_be.tolist(), _predicted(chosen, len(can_be)), strict=True)) if len(can_be) else {}
    return [predicted.get(point) or _refused(run, place, _at(columns, [point]), is_weak=is_weak) for point in range(number)]


def _at(columns: Mapping[str, NDArray[Any]], points: Any) -> dict[str, NDArray[Any]]:
    return {key: values[points] for key, values in columns.items()}


def _refused(run: Run, place: int, columns: Mapping[str, NDArray[Any]], *, is_weak: bool) -> PointOutcome:
    """Why one point is refused: the sentence of a run with its numbers."""
    alone = {key: values[0].item() for key, values in columns.items()}
    try:
        _subject(run, place, alone, is_weak=is_weak).check()
    except PerfmodelError as error:
        return PointOutcome(refusal=str(error))
    return PointOutcome(refusal="a rule of layouts is broken")


def _predicted(subject: VariedStage, number: int) -> Iterator[PointOutcome]:
    """The outcome of each of `number` points that may exist."""
    with np.errstate(all="ignore"):
        predicted = predict_stage(subject.setup)
        values = {**predicted.quantities(), **_totals(predicted, subject)}
        shares = np.broadcast_to(peak_share(predicted), (number,))
    columns = {name: None if value is None else np.broadcast_to(value, (number,)) for name, value in values.items()}
    for point in range(number):
        numbers: dict[str, Any] = {name: None if each is None else each[point].item() for name, each in columns.items()}
        known = [each for each in numbers.values() if each is not None]
        is_sound = bool(np.all(np.isfinite(known))) and 0 < numbers["iteration_time_s"] <= LONGEST_S
        refusal = NO_TIME if not is_sound else TOO_FAST if shares[point] > 1.0 else ""
        yield PointOutcome(refusal=refusal) if refusal else PointOutcome(numbers=numbers)


def _totals(predicted: StagePrediction, subject: VariedStage) -> dict[str, Numeric | None]:
    """The totals of one ramp stage; None for what does not follow without its tokens, terms or a price."""
    tokens, terms, gpus = subject.tokens, subject.economics, predicted.layout.gpus
    totals: dict[str, Numeric | None] = dict.fromkeys(TOTALS)
    if tokens is None:
        return totals
    totals |= {"tokens": tokens, "days": predicted.days(tokens), "gpu_hours": predicted.gpu_hours(tokens)}
    if terms is None:
        return totals
    share = effective_share(gpus=gpus, parameters=parameter_count(subject.setup.model).total, terms=terms)
    days, used = calendar_days(days=predicted.days(tokens), effective_share=share), predicted.gpu_hours(tokens) / share
    bill = dollars(gpu_hours=used, gpus=gpus, calendar_days=days, terms=terms)
    return totals | {"calendar_days": days, "calendar_gpu_hours": used, "dollars": bill}


def _subject(run: Run, place: int, columns: Mapping[str, Numeric], *, is_weak: bool) -> VariedStage:
    """The ramp stage with each number at its key path. Errors: InputError for a number that may not stand there."""
    stage = run.stages[place]
    names = {entry.name for entry in fields(Layout)} | {entry.name for entry in fields(RampStage)}
    own: dict[str, Any] = {key: value for key, value in columns.items() if key in names}
    parts = {}
    for part in ("model", "cluster", "stack", "economics"):
        below = {key: value for key, value in columns.items() if key.startswith(f"{part}.")}
        changes = {tuple(key.split(".")[1:]): value for key, value in below.items()}
        parts[part] = _with_numbers(getattr(run, part), changes) if changes else getattr(run, part)
    tokens = own.pop("tokens", stage.tokens)
    layout = run.layout(stage)
    if GPUS in columns:
        own[FILLING.name] = _replicas(columns[GPUS], replace(layout, **{**own, FILLING.name: 1}))
    if is_weak:
        own["global_batch_size"] = own[FILLING.name] * (layout.global_batch_size // layout.data_parallel)
    economics = parts.pop("economics")
    setup = Setup(**parts, layout=replace(layout, **own), tuning=run.fine_tuning)
    return VariedStage(setup=setup, tokens=tokens, economics=economics)


def _replicas(gpus: Numeric, replica: Layout) -> Numeric:
    """How many data-parallel replicas make this many GPUs; `replica` is the layout of one."""
    ranks = replica.gpus
    if np.any(np.remainder(gpus, ranks)):
        raise InputError(f"{plain(gpus)} GPUs cannot be divided into replicas of {plain(ranks)}", key=GPUS)
    return gpus // ranks


def _with_numbers(spec: Any, changes: Mapping[tuple[str, ...], Numeric]) -> Any:
    """The spec with other numbers at the end of these steps; all at once, as one may only be right with another."""
    below: dict[str, dict[tuple[str, ...], Numeric]] = {}
    for steps, value in changes.items():
        if not steps:
            return value
        below.setdefault(steps[0], {})[steps[1:]] = value
    if isinstance(spec, Mapping):
        return MappingProxyType({**spec, **{step: _with_numbers(spec[step], rest) for step, rest in below.items()}})
    if isinstance(spec, tuple):
        return tuple(_with_numbers(each, below[str(at)]) if str(at) in below else each for at, each in enumerate(spec))
    return replace(spec, **{step: _with_numbers(getattr(spec, step), rest) for step, rest in below.items()})
