"""How a run is read: a preset or a file, overrides of any key in it, and candidates for what a source does not state."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np

from perfmodel.errors import InputError, PerfmodelError, did_you_mean, shown
from perfmodel.exchange.building import build, leaves
from perfmodel.exchange.documents import FILE_SUFFIXES, parse_text, read_mapping
from perfmodel.exchange.key_paths import with_value
from perfmodel.exchange.presets import expand, preset_names, read_preset
from perfmodel.exchange.spec_mappings import mapping_of
from perfmodel.spec.draft import Draft
from perfmodel.spec.run import Run
from perfmodel.units import parse_quantity

RunSource: TypeAlias = str | Mapping[str, Any] | Run  # a preset or a file by its name, the mapping of one, or a run itself
Setting: TypeAlias = str | tuple[str, Any]  # key.path=value, or both apart
STATED_SETTINGS: Final = ("precision", "sequence_parallel", "sharding", "recompute", "micro_batch_size")
STACK_SETTINGS: Final = ("sequence_parallel", "sharding")  # a run that does not give them takes those of its stack
TYPICAL: Final = "typical"  # the terms that stand for those which a run does not give
HARMLESS: Final = ("name", "published", "economics")  # what may change and leave a run the one that was published
MOST_CANDIDATES: Final = 64
MODEL_DEGREES: Final = ("tensor_parallel", "pipeline_parallel", "context_parallel")  # their product: GPUs of one replica


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One run, and the values by which it differs from its siblings."""

    values: Mapping[str, Any]
    run: Run
    assumptions: tuple[str, ...]


def read_candidates(
    source: RunSource, overrides: Sequence[Setting] = (), *, gpus: Sequence[int] = (), draft: bool = False
) -> tuple[Candidate, ...]:
    """The run called so, with `key.path=value` overrides: one candidate for each combination of listed values.

    `gpus` are those that each stage keeps, whatever the overrides do to the other degrees: data parallelism gives or takes.
    A `draft` may have layouts that cannot exist: whoever asks for it checks them.
    Errors: InputError with the path of the key; NotSupportedError for what the equations do not cover.
    """
    mapping = _mapping(source)
    stated = _assumptions(mapping.pop("assumptions", []))
    mapping.pop("sources", None)
    given = [*mapping]
    mapping = expand(Run, mapping)
    for override in overrides:
        key, value = _parsed(override)
        if gpus and key.endswith("data_parallel"):
            raise InputError("it follows from the number of GPUs that is kept; leave out one of the two", key=key)
        mapping = expand(Run, with_value(_with_terms(mapping, key), key, value))
        given.append("published" if ".published" in key or ".spread" in key else re.split(r"[.\[]", key)[0])
    changed = given[len(given) - len(overrides) :]
    if any(key not in stated and key not in HARMLESS for key in changed):
        mapping = _without_published_figures(mapping)
    assumptions = (*(sentence for key, sentence in stated.items() if key not in changed), *_defaults_taken(given))
    axes = [(key, values) for key, values in leaves(Run, mapping) if isinstance(values, list)]
    built = [(dict(chosen), _built(mapping, chosen, gpus, Draft if draft else Run)) for chosen in _combinations(axes)]
    return tuple(
        Candidate(values=values, run=run, assumptions=(*assumptions, *_kept_in_a_pipeline(run))) for values, run in built
    )


def _mapping(source: RunSource) -> dict[str, Any]:
    """The settings of a run, wherever they are."""
    if isinstance(source, Run):
        mapping: dict[str, Any] = mapping_of(source)
        return mapping
    if isinstance(source, Mapping):
        return _with_typical_terms({"name": "run", **source})
    return _with_typical_terms({"name": Path(source).stem} | _read(source))


def _with_typical_terms(mapping: dict[str, Any]) -> dict[str, Any]:
    """Economics that neither extend others nor have a name of their own are changes of the typical ones."""
    given = mapping.get("economics")
    if not isinstance(given, Mapping) or "extends" in given or "name" in given:
        return mapping
    return {**mapping, "economics": {"extends": TYPICAL, **given}}


def _with_terms(mapping: dict[str, Any], key: str) -> dict[str, Any]:
    """The same for a key of the economics of a run that has none."""
    has_none = key.startswith("economics.") and mapping.get("economics") is None
    return expand(Run, {**mapping, "economics": TYPICAL}) if has_none else mapping


def _read(name_or_path: str) -> dict[str, Any]:
    path = Path(name_or_path)
    looks_like_file = path.suffix.lower() in FILE_SUFFIXES or "/" in name_or_path
    try:
        exists = path.exists()
    except (OSError, ValueError):
        exists = False
    if name_or_path in preset_names("runs") and not path.is_file():
        mapping, _ = read_preset("runs", name_or_path)
        return mapping
    if name_or_path and (looks_like_file or exists):
        return read_mapping(path, needs="at least model, cluster, stack and stages")
    raise InputError(
        f"{shown(name_or_path)} is neither a run file nor a preset run; {did_you_mean(name_or_path, preset_names('runs'))}"
    )


def _assumptions(value: Any) -> dict[str, str]:
    """Sentences by the key that they speak of; those of a plain list speak of none."""
    entries = dict(enumerate(value)) if isinstance(value, list) else value
    if not isinstance(entries, Mapping) or not all(isinstance(sentence, str) for sentence in entries.values()):
        raise InputError(f"{shown(value)} where sentences, or a mapping of keys to sentences, are needed", key="assumptions")
    return {str(key): sentence for key, sentence in entries.items()}


def _without_published_figures(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """What was published of one run says nothing of another: drop it once more than an assumption is changed."""
    stages = mapping.get("stages")
    if not isinstance(stages, list):
        return dict(mapping)
    kept = [
        {key: value for key, value in stage.items() if key != "published"} if isinstance(stage, dict) else stage
        for stage in stages
    ]
    return {**mapping, "stages": kept}


def _defaults_taken(given: Sequence[str]) -> tuple[str, ...]:
    """One sentence for each setting of the layout that the run leaves to its default."""
    taken = {name: getattr(Run.__dataclass_fields__[name], "default", "") for name in STATED_SETTINGS}
    taken |= dict.fromkeys(STACK_SETTINGS, "that of the stack")
    return tuple(f"{name} is not given: {value} is assumed" for name, value in taken.items() if name not in given)


def _kept_in_a_pipeline(run: Run) -> tuple[str, ...]:
    """What is sharded by name but not in a pipeline (count/data_parallel.py)."""
    if run.sharding in ("none", "zero1") or np.all(np.asarray(run.pipeline_parallel) == 1):
        return ()
    what = "gradients stay" if run.sharding == "zero2" else "parameters stay gathered and gradients"
    return (f"with pipeline stages {what} whole over the micro-batches of {run.sharding}, as PyTorch's pipelining keeps them",)


def _parsed(override: Setting) -> tuple[str, Any]:
    if not isinstance(override, str):
        return override
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise InputError(f"{shown(override)} is not an override; write --set key.path=value, as in --set tensor_parallel=4")
    if key.strip().split(".")[-1] == "extends":
        raise InputError("set the whole of it instead, as in --set cluster=dgx-h200", key=key.strip())
    try:
        return key.strip(), parse_text(text)
    except PerfmodelError as error:
        raise error.under(key.strip()) from None


def _combinations(axes: Sequence[tuple[str, list[Any]]]) -> list[tuple[tuple[str, Any], ...]]:
    number = 1
    for key, values in axes:
        if not values:
            raise InputError("an empty list of candidates; name at least one", key=key)
        number *= len(values)
    if number > MOST_CANDIDATES:
        raise InputError(f"{number} combinations of candidates; at most {MOST_CANDIDATES} are shown", key=axes[0][0])
    return list(product(*([(key, value) for value in values] for key, values in axes)))


def _built(mapping: Mapping[str, Any], chosen: Sequence[tuple[str, Any]], gpus: Sequence[int], kind: type[Run]) -> Run:
    for key, value in chosen:
        mapping = with_value(mapping, key, value)
    mapping = expand(Run, _on_gpus(mapping, gpus) if gpus else mapping)
    stack = mapping.get("stack")
    if isinstance(stack, Mapping):
        mapping = {key: stack[key] for key in STACK_SETTINGS if key in stack} | mapping
    return build(kind, mapping)


def _on_gpus(mapping: Mapping[str, Any], gpus: Sequence[int]) -> dict[str, Any]:
    """The same run with as many data-parallel replicas in each stage as its GPUs make."""
    degrees = {key: _degree(mapping, key) for key in MODEL_DEGREES}
    ranks, stages, result = prod(degrees.values()), mapping.get("stages"), dict(mapping)
    if not isinstance(stages, list) or len(stages) != len(gpus):
        raise InputError(f"the GPUs of {len(gpus)} stages cannot be kept where the stages are others", key="stages")
    for index, number in enumerate(gpus):
        if ranks < 1 or number % ranks:
            named = " x ".join(f"{key} {degree}" for key, degree in degrees.items() if degree != 1)
            raise InputError(f"{number} GPUs cannot be kept: they are no whole number of {named}", key=f"stages[{index}]")
        result = with_value(result, f"stages[{index}].data_parallel", number // ranks)
    return result


def _degree(mapping: Mapping[str, Any], key: str) -> int:
    try:
        return int(parse_quantity(mapping.get(key, 1), "count"))
    except PerfmodelError as error:
        raise error.under(key) from None
