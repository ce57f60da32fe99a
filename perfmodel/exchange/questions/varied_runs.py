"""How a run is read under many settings: as scenarios beside each other, or as the points of a sweep."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from math import prod
from typing import Any, Final, TypeAlias

from perfmodel.economics.outlook import outlook
from perfmodel.errors import InputError, PerfmodelError, shown
from perfmodel.exchange.measured.own_evidence import own_runs_sentences, with_evidence
from perfmodel.exchange.presets import economics_preset
from perfmodel.exchange.questions.swept_axes import ParsedAxis, read_axis
from perfmodel.exchange.run_files import TYPICAL, RunCandidate, RunSource, Setting, Settings, read_candidates, setting_pairs
from perfmodel.light_dataclass import replace
from perfmodel.prediction import predict
from perfmodel.spec.axes import FILLING, REPLICA_AXES
from perfmodel.spec.run import Run
from perfmodel.units import gpus_text, typed_text
from perfmodel.variation.points import GPUS, NOT_REACHED, PointOutcome, outcomes
from perfmodel.variation.scenarios import Scenario, WhatIf
from perfmodel.variation.sweep import Sweep, SweptAxis, SweptPoint

Varied: TypeAlias = Sequence[tuple[str, str | Iterable[Any]]]  # key paths and their values
PointIndex: TypeAlias = tuple[int, ...]  # which value of each axis a point has

RUN_AXIS: Final = "run"  # the axis of several runs
MOST_AXES: Final = 2
MOST_POINTS: Final = 10_000


def stage_index(run: Run, stage: int | None) -> int:
    """The index of a ramp stage that is counted from 1; of the last for None. Errors: InputError for one that the run lacks."""
    number = len(run.stages)
    if stage is not None and (isinstance(stage, bool) or not isinstance(stage, int)):
        raise InputError(f"{shown(stage)} is not the number of a stage: those of {run.name} are 1 to {number}", key="stage")
    if stage is not None and not 1 <= stage <= number:
        raise InputError(f"{run.name} has no stage {stage}: its stages are 1 to {number}", key="stage")
    return number - 1 if stage is None else stage - 1


def scenario_comparison(
    source: RunSource,
    scenarios: Mapping[str, Settings],
    *,
    base: Settings,
    stage: int | None,
    same_gpus: bool,
    evidence: str | None = None,
) -> WhatIf:
    """A run beside itself with the settings of each scenario changed."""
    first = read_candidates(source, with_evidence(base, evidence))[0]
    before = _scenario("before", (), first)
    gpus = [int(predicted.layout.gpus) for _, predicted in before.prediction.stages] if same_gpus else []
    after = []
    for name, settings in scenarios.items():
        try:
            changed = with_evidence([*setting_pairs(base), *setting_pairs(settings)], evidence)
            candidates = read_candidates(source, changed, gpus=gpus)
            after += [_scenario(each, settings, candidate) for each, candidate in _columns(name, settings, candidates, first)]
        except PerfmodelError as error:
            raise (type(error)(f"{name}: {error}") if len(scenarios) > 1 else error) from None
    if not after:
        raise InputError("no scenario is given; give at least one, with the settings that it changes")
    for each in (before, *after):
        stage_index(each.prediction.run, stage)
    place = -1 if stage is None else stage - 1
    told = own_runs_sentences(first.run.cluster.evidence, "scenario", before.stage(place).work.setup)
    taken = (*_taken(first.values), *first.replaced, *told)
    return WhatIf(before=before, scenarios=tuple(after), place=place, taken=taken)


def _taken(values: Mapping[str, Any]) -> tuple[str, ...]:
    """A sentence for each key for which a run lists several values."""
    return tuple(f"{key} lists several values: the first, {typed_text(value)}, is taken" for key, value in values.items())


def _columns(
    name: str, settings: Settings, candidates: Sequence[RunCandidate], first: RunCandidate
) -> Iterator[tuple[str, RunCandidate]]:
    """The names and runs of a scenario: one for each value that its settings list; of what the run itself lists, the first."""
    for each in candidates:
        if all(each.values.get(key, value) == value for key, value in first.values.items()):
            chosen = {key: f"{key}={typed_text(value)}" for key, value in each.values.items() if key not in first.values}
            yield _column_name(name, _texts(settings), chosen), each


def _column_name(name: str, texts: Sequence[str], chosen: dict[str, str]) -> str:
    """The name of a scenario with the values chosen from lists: after it, or in their place where settings are the name."""
    if name != ", ".join(texts):
        return ", ".join([name, *chosen.values()])
    return ", ".join([*(chosen.pop(text.partition("=")[0], text) for text in texts), *chosen.values()])


def _scenario(name: str, settings: Settings, candidate: RunCandidate) -> Scenario:
    texts, prediction = tuple(_texts(settings)), predict(candidate.run)
    terms = outlook(prediction, candidate.run.economics or economics_preset(TYPICAL))
    return Scenario(name=name, settings=texts, prediction=prediction, outlook=terms, assumptions=candidate.assumptions)


def _texts(settings: Settings) -> list[str]:
    return [each if isinstance(each, str) else f"{each[0]}={typed_text(each[1])}" for each in setting_pairs(settings)]


def run_sweep(
    sources: Sequence[RunSource],
    vary: Varied,
    *,
    settings: Settings,
    stage: int | None,
    is_weak: bool,
    grow_gpus: bool = False,
    evidence: str | None = None,
) -> Sweep:
    """One ramp stage of each run at every combination of the values of the axes; numbers are arrays of one prediction.

    Where degrees of parallelism are varied, each run keeps its GPUs, and data parallelism gives or takes, unless they may grow.
    Ctrl-C ends it early: the points that were not reached say so.
    Errors: InputError for axes that make no sweep; a layout that may not exist is a point with a refusal.
    """
    candidates = [_draft(source, with_evidence(settings, evidence)) for source in sources]
    drafts = [each.run for each in candidates]
    places = [stage_index(draft, stage) for draft in drafts]
    axes = [[read_axis(*each, draft, place) for each in vary] for draft, place in zip(drafts, places, strict=True)]
    _check(axes[0], runs=len(sources), is_weak=is_weak)
    shown = [SweptAxis(key=axis.name, labels=axis.labels) for axis in axes[0]]
    names = [source if isinstance(source, str) else draft.name for source, draft in zip(sources, drafts, strict=True)]
    points: list[SweptPoint] = []
    is_kept = not grow_gpus and _changes_replicas(axes[0])
    gpus = [
        int(draft.layout(draft.stages[place]).gpus) if is_kept else None for draft, place in zip(drafts, places, strict=True)
    ]
    found = [dict.fromkeys(_indices(own_axes), ("", PointOutcome(refusal=NOT_REACHED))) for own_axes in axes]
    try:
        for source, place, own_axes, own_gpus, own in zip(sources, places, axes, gpus, found, strict=True):
            growth = {"is_weak": is_weak, "gpus": own_gpus}
            own.update(_outcomes(source, settings, own_axes, place, growth, evidence=evidence))
    except KeyboardInterrupt:
        if all(outcome.refusal == NOT_REACHED for own in found for _, outcome in own.values()):
            raise
    for name, own_axes, own in zip(names, axes, found, strict=True):
        points += [_point(each, own_axes, at, [name] if len(sources) > 1 else []) for at, each in own.items()]
    several = [SweptAxis(key=RUN_AXIS, labels=tuple(names))] if len(sources) > 1 else []
    varied = {axis.key for axis in axes[0]}
    listed = {key: value for each in candidates for key, value in each.values.items() if key not in varied}
    return Sweep(
        name=drafts[0].name if len(sources) == 1 else f"{len(sources)} runs",
        stage=places[0] + 1,
        stages=len(drafts[0].stages),
        axes=(*several, *shown),
        points=tuple(points),
        base=drafts[0] if len(sources) == 1 else None,
        taken=(
            *_taken(listed),
            *dict.fromkeys(_kept(number) for number in gpus if number is not None),
            *dict.fromkeys(sentence for each in candidates for sentence in each.replaced),
            *dict.fromkeys(each for draft in drafts for each in own_runs_sentences(draft.cluster.evidence, "point")),
        ),
    )


def _changes_replicas(axes: Sequence[ParsedAxis]) -> bool:
    """Whether degrees of parallelism are varied, and neither GPUs nor replicas, which say themselves how many there are."""
    names = {axis.name for axis in axes}
    return bool(names & {axis.name for axis in REPLICA_AXES}) and not names & {GPUS, FILLING.name}


def _kept(gpus: int) -> str:
    return f"Every point keeps {gpus_text(gpus)}: {FILLING.name} adapts; --grow-gpus keeps {FILLING.name}"


def _draft(source: RunSource, settings: Sequence[Setting]) -> RunCandidate:
    """The run, whose layouts may not exist, with typical terms where it gives none; the first of values that it lists."""
    candidate = read_candidates(source, settings, draft=True)[0]
    terms = candidate.run.economics or economics_preset(TYPICAL)
    return replace(candidate, run=replace(candidate.run, economics=terms))


def _check(axes: Sequence[ParsedAxis], *, runs: int, is_weak: bool) -> None:
    """Raise InputError for axes that do not make a sweep."""
    number = len(axes) + (runs > 1)
    if not 1 <= number <= MOST_AXES:
        few = "nothing is varied; give an axis, as in --vary tensor_parallel=1,2,4,8, or several runs"
        raise InputError(
            few if number == 0 else f"{number} axes are given; a sweep has one or two, and several runs count as one"
        )
    if len({axis.key for axis in axes}) < len(axes):
        raise InputError(f"{' and '.join(axis.name for axis in axes)} set the same number; leave out one of them")
    points = runs * prod(len(axis.labels) for axis in axes)
    if points > MOST_POINTS:
        raise InputError(f"{points:,} points; at most {MOST_POINTS:,} are swept (perfmodel plan searches more)")
    if is_weak and not any(axis.is_array and axis.name in (GPUS, FILLING.name) for axis in axes):
        raise InputError("weak scaling needs an axis gpus=.. or data_parallel=.., without factors")
    if is_weak and any(axis.name == "global_batch_size" for axis in axes):
        raise InputError("weak scaling sets this number: it grows with data parallelism", key="global_batch_size")


def _indices(axes: Sequence[ParsedAxis]) -> Iterator[PointIndex]:
    """Every point of one run, the values of the last axis varying fastest."""
    return product(*(range(len(axis.values)) for axis in axes))


def _outcomes(
    source: RunSource,
    settings: Settings,
    axes: Sequence[ParsedAxis],
    place: int,
    growth: Mapping[str, Any],
    *,
    evidence: str | None,
) -> Iterator[tuple[PointIndex, tuple[str, PointOutcome]]]:
    """The model and the outcome of every point of one run: numbers are arrays, all else takes a run for each combination."""
    grid = list(product(*(range(len(axis.values)) if axis.is_array else range(1) for axis in axes)))
    numbers = {axis.name: [axis.values[at[each]] for at in grid] for each, axis in enumerate(axes) if axis.is_array}
    for chosen in product(*(range(1) if axis.is_array else range(len(axis.values)) for axis in axes)):
        changed = [(axis.key, axis.values[at]) for axis, at in zip(axes, chosen, strict=True) if not axis.is_array]
        model = ""
        try:
            run = _draft(source, with_evidence([*setting_pairs(settings), *changed], evidence)).run
            model, several = run.model.name, outcomes(run, place, numbers, number=len(grid), **growth)
        except PerfmodelError as error:
            several = [PointOutcome(refusal=str(error))] * len(grid)
        for at, outcome in zip(grid, several, strict=True):
            yield tuple(one + other for one, other in zip(chosen, at, strict=True)), (model, outcome)


def _point(found: tuple[str, PointOutcome], axes: Sequence[ParsedAxis], at: PointIndex, names: Sequence[str]) -> SweptPoint:
    labels = [axis.labels[each] for axis, each in zip(axes, at, strict=True)]
    values = [axis.values[each] for axis, each in zip(axes, at, strict=True)]
    return SweptPoint(labels=(*names, *labels), values=(*names, *values), model=found[0], outcome=found[1])
