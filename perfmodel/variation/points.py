"""One stage of a run under many numbers: what each would do, or why it cannot be.

All that can be are arrays of one call of `predict_stage`: the same equations, bit for bit what single predictions give.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from perfmodel.count.parameters import parameter_count
from perfmodel.economics.cost import dollars
from perfmodel.economics.goodput import calendar_days, effective_share
from perfmodel.errors import InputError, PerfmodelError
from perfmodel.prediction import StagePrediction, predict_stage
from perfmodel.spec.economics import Economics
from perfmodel.spec.fields import Numeric
from perfmodel.spec.hardware import Cluster
from perfmodel.spec.layout import Layout
from perfmodel.spec.model import TransformerModel
from perfmodel.spec.refusals import check_layout, check_stack, may_exist
from perfmodel.spec.run import Run, Stage
from perfmodel.spec.stack import SoftwareStack

GPUS: Final = "gpus"  # a key of its own: data parallelism is what makes that many
AT_ONCE: Final = 4096  # points in one call, so that memory stays small
NO_TIME: Final = "its numbers give no finite time; one of them is far too large or too small"
TOTALS: Final = ("tokens", "days", "gpu_hours", "calendar_days", "calendar_gpu_hours", "dollars")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one point does, by the names of `StagePrediction.quantities` and the totals of the stage; or why it is refused."""

    numbers: Mapping[str, Any] | None = None
    refusal: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One stage of a run: what its prediction needs. Any number may be an array."""

    model: TransformerModel
    cluster: Cluster
    stack: SoftwareStack
    layout: Layout
    tokens: Numeric | None
    economics: Economics | None

    def check(self) -> None:
        """Raise PerfmodelError for a layout that cannot exist."""
        check_layout(self.model, self.cluster, self.layout)
        check_stack(self.stack, self.layout)


def outcomes(
    run: Run, place: int, numbers: Mapping[str, Sequence[float]], *, number: int, is_weak: bool = False
) -> list[Outcome]:
    """What each of `number` points does; point i has the i-th value at each key path of `numbers`, the rest as the run has it.

    Key paths are those of a run; what a stage holds is written without `stages[..]`, and the key `gpus` sets data_parallel.
    When `is_weak` the global batch grows with data parallelism.
    """
    columns = {key: np.asarray(values) for key, values in numbers.items()}
    found: list[Outcome] = []
    for first in range(0, number, AT_ONCE):
        some = {key: values[first : first + AT_ONCE] for key, values in columns.items()}
        found += _outcomes(run, place, some, min(AT_ONCE, number - first), is_weak=is_weak)
    return found


def _outcomes(run: Run, place: int, columns: Mapping[str, NDArray[Any]], number: int, *, is_weak: bool) -> list[Outcome]:
    """The same for few enough points; halves of them where one is so wrong that arrays of all cannot be made."""
    try:
        subject = _subject(run, place, columns, is_weak=is_weak)
        allowed = may_exist(subject.model, subject.cluster, subject.stack, subject.layout)
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


def _refused(run: Run, place: int, columns: Mapping[str, NDArray[Any]], *, is_weak: bool) -> Outcome:
    """Why one point cannot be, in the words that it would get alone."""
    alone = {key: values[0].item() for key, values in columns.items()}
    try:
        _subject(run, place, alone, is_weak=is_weak).check()
    except PerfmodelError as error:
        return Outcome(refusal=str(error))
    return Outcome(refusal="a rule of layouts is broken")


def _predicted(subject: Subject, number: int) -> Iterator[Outcome]:
    """The numbers of each of `number` points."""
    with np.errstate(all="ignore"):
        predicted = predict_stage(subject.model, subject.cluster, subject.stack, subject.layout)
        values = {**predicted.quantities(), **_totals(predicted, subject)}
    columns = {name: None if value is None else np.broadcast_to(value, (number,)) for name, value in values.items()}
    for point in range(number):
        numbers: dict[str, Any] = {name: None if each is None else each[point].item() for name, each in columns.items()}
        known = [each for each in numbers.values() if each is not None]
        is_sound = bool(np.all(np.isfinite(known))) and numbers["iteration_time_s"] > 0
        yield Outcome(numbers=numbers) if is_sound else Outcome(refusal=NO_TIME)


def _totals(predicted: StagePrediction, subject: Subject) -> dict[str, Numeric | None]:
    """Of the stage alone; None for what does not follow without its tokens, terms or a price."""
    tokens, terms, gpus = subject.tokens, subject.economics, predicted.layout.gpus
    totals: dict[str, Numeric | None] = dict.fromkeys(TOTALS)
    if tokens is None:
        return totals
    totals |= {"tokens": tokens, "days": predicted.days(tokens), "gpu_hours": predicted.gpu_hours(tokens)}
    if terms is None:
        return totals
    share = effective_share(gpus=gpus, parameters=parameter_count(subject.model).total, terms=terms)
    days, used = calendar_days(days=predicted.days(tokens), effective_share=share), predicted.gpu_hours(tokens) / share
    bill = dollars(gpu_hours=used, gpus=gpus, calendar_days=days, terms=terms)
    return totals | {"calendar_days": days, "calendar_gpu_hours": used, "dollars": bill}


def _subject(run: Run, place: int, columns: Mapping[str, Numeric], *, is_weak: bool) -> Subject:
    """The stage with each number in its place. Errors: InputError for one that cannot stand there."""
    stage = run.stages[place]
    names = {entry.name for entry in fields(Layout)} | {entry.name for entry in fields(Stage)}
    own: dict[str, Any] = {key: value for key, value in columns.items() if key in names}
    parts = {}
    for part in ("model", "cluster", "stack", "economics"):
        below = {key: value for key, value in columns.items() if key.startswith(f"{part}.")}
        changes = {tuple(key.split(".")[1:]): value for key, value in below.items()}
        parts[part] = _with_numbers(getattr(run, part), changes) if changes else getattr(run, part)
    tokens = own.pop("tokens", stage.tokens)
    layout = run.layout(stage)
    if GPUS in columns:
        own["data_parallel"] = _replicas(columns[GPUS], replace(layout, **{**own, "data_parallel": 1}))
    if is_weak:
        own["global_batch_size"] = own["data_parallel"] * (layout.global_batch_size // layout.data_parallel)
    return Subject(**parts, layout=replace(layout, **own), tokens=tokens)


def _replicas(gpus: Numeric, replica: Layout) -> Numeric:
    """How many replicas make that many GPUs; `replica` is one."""
    ranks = replica.gpus
    if np.any(np.remainder(gpus, ranks)):
        raise InputError(f"{gpus} GPUs are no whole number of replicas of {ranks}", key=GPUS)
    return gpus // ranks


def _with_numbers(spec: Any, changes: Mapping[tuple[str, ...], Numeric]) -> Any:
    """The same spec with other numbers at the end of the steps, all at once: one may only be right with another."""
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
