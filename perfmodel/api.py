"""What `import perfmodel as pm` offers: each question of the command line as a function that returns a typed result.

A run is the name of a preset or a file, a mapping such as a run file holds, or a spec.run.Run. Settings are those of `--set`: a
mapping of key paths to values, or texts like "tensor_parallel=4".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

from perfmodel.errors import InputError, PerfmodelError
from perfmodel.exchange.presets import source_of
from perfmodel.exchange.run_files import Candidate, RunSource, Setting, read_candidates
from perfmodel.exchange.sources import run_sources
from perfmodel.planning.explanation import Explanation, explanation
from perfmodel.planning.scenarios import Scenario, WhatIf
from perfmodel.prediction import Prediction
from perfmodel.prediction import predict as predict_run
from perfmodel.spec.run import Run

Settings: TypeAlias = Mapping[str, Any] | Sequence[str]


def load(run: RunSource, settings: Settings = ()) -> Run:
    """The run with `settings` changed; where a value is a list of candidates, the first.

    >>> load("nemotron-4-15b", {"tensor_parallel": 4}).tensor_parallel
    4
    """
    return read_candidates(run, _pairs(settings))[0].run


def predict(run: RunSource, settings: Settings = ()) -> Prediction:
    """Iteration time, MFU, memory and days of each stage of the run.

    >>> round(float(predict("nemotron-4-15b").total_days))
    13
    """
    return predict_run(load(run, settings))


def whatif(
    run: RunSource,
    scenarios: Mapping[str, Settings],
    *,
    base: Settings = (),
    stage: int | None = None,
    same_gpus: bool = False,
) -> WhatIf:
    """The run beside itself with the settings of each scenario changed.

    `base` are settings of both sides, `stage` is which stage of the ramp to look at, counted from 1 (the last without). With
    `same_gpus` data parallelism gives or takes, so that every stage keeps its GPUs.

    >>> whatif("nemotron-4-15b", {"H200": {"cluster": "dgx-h200"}}).to_pandas()["scenario"].tolist()
    ['before', 'H200']
    """
    first = read_candidates(run, _pairs(base))[0]
    before = _scenario("before", (), first)
    gpus = [int(predicted.layout.gpus) for _, predicted in before.prediction.stages] if same_gpus else []
    after = []
    for name, settings in scenarios.items():
        try:
            candidates = read_candidates(run, [*_pairs(base), *_pairs(settings)], gpus=gpus)
            after += [_scenario(each, settings, candidate) for each, candidate in _columns(name, settings, candidates, first)]
        except PerfmodelError as error:
            raise (type(error)(f"{name}: {error}") if len(scenarios) > 1 else error) from None
    if not after:
        raise InputError("no scenario is given; name at least one, with the settings that it changes")
    for each in (before, *after):
        _check_stage(each, stage)
    return WhatIf(before=before, scenarios=tuple(after), place=-1 if stage is None else stage - 1)


def explain(run: RunSource, settings: Settings = (), *, stage: int | None = None) -> Explanation:
    """Where the time of one stage of the run goes, from the peak to the prediction, and what would change it.

    `stage` is which one of the ramp, counted from 1 (the last without). `.term(name)` has what stands behind one term.

    >>> explained = explain("nemotron-4-15b")
    >>> round(explained.term("data_parallel").share, 1)
    0.3
    """
    first = read_candidates(run, _pairs(settings))[0]
    number = len(first.run.stages)
    if stage is not None and not 1 <= stage <= number:
        raise InputError(f"{stage} is not a stage of {first.run.name}: they are 1 to {number}", key="stage")
    source = partial(source_of, sources=run_sources(run, _pairs(settings)))
    return explanation(first.run, place=-1 if stage is None else stage - 1, source=source, chosen=first.values)


def _columns(
    name: str, settings: Settings, candidates: Sequence[Candidate], first: Candidate
) -> Iterator[tuple[str, Candidate]]:
    """A scenario is one for each value where its settings list several; of what the run itself lists, the first is taken."""
    for each in candidates:
        if all(each.values.get(key, value) == value for key, value in first.values.items()):
            chosen = {key: f"{key}={value}" for key, value in each.values.items() if key not in first.values}
            yield _column_name(name, _texts(settings), chosen), each


def _column_name(name: str, texts: Sequence[str], chosen: dict[str, str]) -> str:
    """The name of a scenario with the listed values that it has; where its settings are its name, in their place."""
    if name != ", ".join(texts):
        return ", ".join([name, *chosen.values()])
    return ", ".join([*(chosen.pop(text.partition("=")[0], text) for text in texts), *chosen.values()])


def _scenario(name: str, settings: Settings, candidate: Candidate) -> Scenario:
    prediction, settings_texts = predict_run(candidate.run), tuple(_texts(settings))
    return Scenario(name=name, settings=settings_texts, prediction=prediction, assumptions=candidate.assumptions)


def _texts(settings: Settings) -> list[str]:
    return [setting if isinstance(setting, str) else "{}={}".format(*setting) for setting in _pairs(settings)]


def _check_stage(scenario: Scenario, stage: int | None) -> None:
    number = len(scenario.prediction.stages)
    if stage is not None and not 1 <= stage <= number:
        raise InputError(f"{stage} is not a stage of this run: they are 1 to {number}", key="stage")


def _pairs(settings: Settings) -> Sequence[Setting]:
    return list(settings.items()) if isinstance(settings, Mapping) else list(settings)
