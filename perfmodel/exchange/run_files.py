"""How a run is read: a preset or a file, with any key overridden; one run for each combination of listed values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import product
from math import prod
from os import PathLike
from pathlib import Path
from typing import Any, Final, TypeAlias

from perfmodel.errors import InputError, PerfmodelError, did_you_mean, shown
from perfmodel.exchange.building import build, leaves
from perfmodel.exchange.importers.registry import assumed, read_settings
from perfmodel.exchange.measured.expert_loads import with_load_in_numbers
from perfmodel.exchange.presets import beside, expand, preset_names, read_preset
from perfmodel.exchange.prices import offer_sentence
from perfmodel.exchange.replicas import with_replicas
from perfmodel.exchange.run_assumptions import (
    STACK_SETTINGS,
    STATED_SETTINGS,
    defaults_taken,
    load_taken,
    of_the_whole,
    other_gpus,
    replaced_evidence,
    uneven_stages,
)
from perfmodel.exchange.spec_mappings import mapping_of
from perfmodel.exchange.syntax.annotations import separated
from perfmodel.exchange.syntax.documents import FILE_SUFFIXES, parse_text
from perfmodel.exchange.syntax.key_paths import SHORT_NAMES, with_value
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.axes import FILLING, REPLICA_AXES
from perfmodel.spec.draft import Draft
from perfmodel.spec.run import Run
from perfmodel.units import gpus_text, parse_quantity

RunSource: TypeAlias = str | PathLike[str] | Mapping[str, Any] | Run  # a preset or a file, the mapping that one holds, or a run
Setting: TypeAlias = str | tuple[str, Any]  # "key.path=value", or key path and value
Settings: TypeAlias = Mapping[str, Any] | Sequence[Setting]
TYPICAL: Final = "typical"  # the terms that stand for those which a run does not give
BESIDE: Final = (".published", ".spread", ".evidence")  # in a key: what is known of a run, not what it is
HARMLESS: Final = ("name", "published", "economics")  # changes after which a run is still the one that was published
EVIDENCE: Final = "cluster.evidence"
NOT_COMPARABLE: Final = "published figures are of other settings, and are left out"
PRICE: Final = "economics.dollars_per_gpu_hour"
MOST_CANDIDATES: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCandidate:
    """One of the runs that a source describes, and the values in which it differs from the others.

    `unstated` are the settings of the layout that the source leaves to their defaults.
    """

    values: Mapping[str, Any]
    run: Run
    assumptions: tuple[str, ...]
    unstated: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()  # of the assumptions, what other evidence stood in the place of
    consequences: tuple[str, ...] = ()  # of the assumptions, what settings changed beside what was asked


def plain_source(source: RunSource) -> str | Mapping[str, Any] | Run:
    """A source of a run, a path as its text. Errors: InputError for a value of any other kind."""
    if isinstance(source, str | Mapping | Run):
        return source
    if isinstance(source, PathLike):
        return str(source)
    needed = "the name of a preset (perfmodel list runs) or of a file, a mapping as a run file holds it, or a Run"
    raise InputError(f"{shown(source)} is not a run; give {needed}", key="run")


def listed_sources(sources: RunSource | Sequence[RunSource]) -> list[str | Mapping[str, Any] | Run]:
    """One source or several as a list. Errors: InputError for none, and for a value that is no source."""
    if isinstance(sources, str | PathLike | Mapping | Run) or not isinstance(sources, Sequence):
        return [plain_source(sources)]
    if not sources:
        raise InputError("no run is given", key="run")
    return [plain_source(each) for each in sources]


def setting_pairs(settings: Settings) -> list[Setting]:
    """Settings as a list of key paths with values, or of texts as in --set."""
    return list(settings.items()) if isinstance(settings, Mapping) else list(settings)


def read_candidates(
    source: RunSource, overrides: Sequence[Setting] = (), *, gpus: Sequence[int] = (), draft: bool = False
) -> tuple[RunCandidate, ...]:
    """The runs that a source describes, with overrides: one candidate for each combination of listed values.

    With `gpus`, each ramp stage keeps this many whatever the overrides do to other degrees: data parallelism gives or takes.
    A `draft` may have layouts that may not exist: the caller checks them.
    Errors: InputError with the path of the key; NotSupportedError for what the equations do not cover.
    """
    kind = Draft if draft else Run
    described = _DescribedRun(source, gpus)
    for override in overrides:
        described.change(*parsed_setting(override))
    described.leave_out_published_figures(kind)
    axes = [(key, values) for key, values in leaves(Run, described.mapping) if isinstance(values, list)]
    built = [(dict(chosen), _built(described.mapping, chosen, gpus, kind)) for chosen in _combinations(axes)]
    return tuple(described.candidate(values, run) for values, run in built)


class _DescribedRun:
    """The mapping of a run while overrides change it, and what has to be known of them to say what was assumed."""

    def __init__(self, source: RunSource, gpus: Sequence[int]) -> None:
        mapping = _mapping(source)
        self.stated = _assumptions(mapping.pop("assumptions", []))
        mapping, _ = separated(mapping)
        self.gpus = gpus  # that each ramp stage keeps
        self.given = [*mapping]  # keys of the source
        self.keys: list[str] = []  # that were changed
        self.model = mapping.get("model")
        self.in_parts = isinstance(mapping.get("cluster"), Mapping)  # the cluster is given by numbers, not by a name alone
        self.mapping = self.original = expand(Run, mapping)
        self.replaced: tuple[str, ...] = ()
        self.lost: tuple[str, ...] = ()

    def change(self, key: str, value: Any) -> None:
        """Set one key. Errors: InputError."""
        if self.gpus and key.endswith(FILLING.name):
            raise InputError("this follows from the number of GPUs, which is kept; leave out one of the two", key=key)
        if key == EVIDENCE and isinstance(self.mapping.get("cluster"), list):
            raise InputError("the run lists several clusters; choose one, as in --set cluster=dgx-h100", key=EVIDENCE)
        self.in_parts = self.in_parts or key.startswith("cluster.") or (key == "cluster" and isinstance(value, Mapping))
        self.model = value if key == "model" else self.model
        before, changed = self.mapping, with_value(_with_terms(self.mapping, key), key, value)
        self.mapping = expand(Run, separated(changed)[0] if isinstance(value, Mapping) else changed)
        if key == EVIDENCE:
            self.replaced = replaced_evidence(_evidence_in(before), _evidence_in(self.mapping), value)
        self.keys.append(key)

    @property
    def subjects(self) -> list[str]:
        """The keys of a run of which something was changed."""
        return ["published" if any(word in key for word in BESIDE) else re.split(r"[.\[]", key)[0] for key in self.keys]

    def leave_out_published_figures(self, kind: type[Run]) -> None:
        """Without them where the run is another one than the one that was published."""
        may_be_other = any(key not in self.stated and key not in HARMLESS for key in self.subjects)
        has_figures = may_be_other and _has_published(self.mapping.get("stages"))
        if has_figures and not _is_as_published(self.original, self.mapping, self.gpus, kind):
            self.mapping, self.lost = _without_published_figures(self.mapping), (NOT_COMPARABLE,)

    def candidate(self, values: Mapping[str, Any], run: Run) -> RunCandidate:
        """One run of it with all that was assumed, in the order in which people read it."""
        given, subjects = [*self.given, *self.subjects], self.subjects
        degrees = {axis.name: self.original.get(axis.name, 1) for axis in REPLICA_AXES}
        grown = () if self.gpus or "stages" in subjects else other_gpus(run, degrees)
        consequences = (*grown, *(uneven_stages(run) if self.keys else ()), *self.lost)
        return RunCandidate(
            values=values,
            run=run,
            assumptions=(
                *self.replaced,
                *(sentence for key, sentence in self.stated.items() if key not in subjects),
                *defaults_taken(run, given),
                *consequences,
                *(sentence for sentence in of_the_whole(run, in_parts=self.in_parts) if sentence not in consequences),
                *(sentence for key, sentence in assumed(self.model).items() if f"model.{key}" not in self.keys),
                *load_taken(run, given),
                *(() if PRICE in self.keys else offer_sentence(run.economics)),
            ),
            unstated=tuple(name for name in STATED_SETTINGS if name not in given),
            replaced=self.replaced,
            consequences=consequences,
        )


def _has_published(stages: Any) -> bool:
    known = stages if isinstance(stages, list) else []
    return any(isinstance(stage, Mapping) and stage.get("published") for stage in known)


def _is_as_published(original: Mapping[str, Any], changed: Mapping[str, Any], gpus: Sequence[int], kind: type[Run]) -> bool:
    """Whether a run is still the one that was published after all overrides: they set what stood there already."""
    if any(isinstance(values, list) for mapping in (original, changed) for _, values in leaves(Run, mapping)):
        return False
    try:
        before, after = (mapping_of(_built(mapping, (), gpus, kind)) for mapping in (original, changed))
    except PerfmodelError:
        return False
    return all(before.get(key) == after.get(key) for key in before.keys() | after.keys() if key not in HARMLESS)


def _evidence_in(mapping: Mapping[str, Any]) -> Any:
    cluster = mapping.get("cluster")
    return cluster.get("evidence") if isinstance(cluster, Mapping) else None


def _mapping(source: RunSource) -> dict[str, Any]:
    """The mapping of a run from any source."""
    source = plain_source(source)
    if isinstance(source, Run):
        mapping: dict[str, Any] = mapping_of(source)
        return mapping
    given = {"name": "run", **source} if isinstance(source, Mapping) else {"name": Path(source).stem} | _read(source)
    return with_replicas(_with_typical_terms(given))


def _with_typical_terms(mapping: dict[str, Any]) -> dict[str, Any]:
    """The mapping of a run; economic terms in it that neither extend others nor have a name extend the typical ones."""
    given = mapping.get("economics")
    if not isinstance(given, Mapping) or "extends" in given or "name" in given:
        return mapping
    return {**mapping, "economics": {"extends": TYPICAL, **given}}


def _with_terms(mapping: dict[str, Any], key: str) -> dict[str, Any]:
    """The mapping of a run; it gets typical economic terms where it has none and `key` is one of them."""
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
        return beside(path, Run, read_settings(path, "runs", spec=Run, needs="at least model, cluster, stack and stages"))
    raise InputError(
        f"{shown(name_or_path)} is neither a run file nor a preset run; {did_you_mean(name_or_path, preset_names('runs'))}"
    )


def _assumptions(value: Any) -> dict[str, str]:
    """The assumptions of a run by the key that they are about; by their place where they are a list."""
    entries = dict(enumerate(value)) if isinstance(value, list) else value
    if not isinstance(entries, Mapping) or not all(isinstance(sentence, str) for sentence in entries.values()):
        raise InputError(f"{shown(value)} where sentences, or a mapping of keys to sentences, are needed", key="assumptions")
    return {str(key): sentence for key, sentence in entries.items()}


def _without_published_figures(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping without published figures, which belong to the run as it was published."""
    stages = mapping.get("stages")
    if not isinstance(stages, list):
        return dict(mapping)
    kept = [
        {key: value for key, value in stage.items() if key != "published"} if isinstance(stage, dict) else stage
        for stage in stages
    ]
    return {**mapping, "stages": kept}


def parsed_setting(override: Setting) -> tuple[str, Any]:
    """The key path and the value of a setting. Errors: InputError for a text that is not key.path=value."""
    if not isinstance(override, str):
        return override
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise InputError(f"{shown(override)} is not a setting; write --set key.path=value, as in --set tensor_parallel=4")
    if key.strip().split(".")[-1] == "extends":
        raise InputError("this cannot be set; set the part itself, as in --set cluster=dgx-h200", key=key.strip())
    try:
        return key.strip(), parse_text(text)
    except PerfmodelError as error:
        raise error.under(key.strip()) from None


def _combinations(axes: Sequence[tuple[str, list[Any]]]) -> list[tuple[tuple[str, Any], ...]]:
    number = 1
    for key, values in axes:
        if not values:
            raise InputError("an empty list of values; name at least one", key=key)
        number *= len(values)
    if number > MOST_CANDIDATES:
        raise InputError(f"{number:,} combinations of listed values; at most {MOST_CANDIDATES} are predicted", key=axes[0][0])
    return list(product(*([(key, value) for value in values] for key, values in axes)))


def _built(mapping: Mapping[str, Any], chosen: Sequence[tuple[str, Any]], gpus: Sequence[int], kind: type[Run]) -> Run:
    for key, value in chosen:
        mapping = with_value(mapping, key, value)
    mapping = with_load_in_numbers(expand(Run, _on_gpus(mapping, gpus) if gpus else mapping))
    stack = mapping.get("stack")
    defaults = stack.get("defaults") if isinstance(stack, Mapping) else None
    if isinstance(defaults, Mapping):
        mapping = {key: defaults[key] for key in STACK_SETTINGS if key in defaults} | mapping
    try:
        return build(kind, _with_head_size(mapping))
    except InputError as error:
        raise _told_how(error) from None


def _with_head_size(mapping: Mapping[str, Any]) -> Mapping[str, Any]:
    """The mapping of a run whose inline model has the head size that follows from its width, where it gives none."""
    model = mapping.get("model")
    if not isinstance(model, Mapping) or "head_size" in model:
        return mapping
    latent = model.get("latent")
    parts = ("nope_head_size", "rotary_head_size")
    if isinstance(latent, Mapping) and all(isinstance(latent.get(part), int) for part in parts):
        return {**mapping, "model": {**model, "head_size": sum(latent[part] for part in parts)}}
    hidden, heads = model.get("hidden_size"), model.get("attention_heads")
    if not isinstance(hidden, int) or not isinstance(heads, int) or heads < 1 or hidden % heads:
        return mapping
    return {**mapping, "model": {**model, "head_size": hidden // heads}}


def _told_how(error: InputError) -> InputError:
    """The error, with the option that gives what is missing, or the key that a word is short for."""
    if error.problem.startswith("unknown key") and (meant := SHORT_NAMES.get(error.key.rpartition(".")[2].lower())):
        return InputError(f"unknown key; did you mean {meant}?", key=error.key)
    if error.problem.startswith("missing") and error.key == "cluster":
        return InputError("missing; give one, as in --cluster dgx-h100 (perfmodel list clusters)", key=error.key)
    if error.problem.startswith("missing") and error.key == "model":
        return InputError(
            "missing; give one, as in --model llama-3.1-8b (perfmodel list models) or a config.json", key=error.key
        )
    if error.problem.startswith("missing") and error.key.endswith(f".{FILLING.name}"):
        return InputError("missing; give it, or the GPUs of the run, as in --gpus 64", key=error.key)
    return error


def _on_gpus(mapping: Mapping[str, Any], gpus: Sequence[int]) -> dict[str, Any]:
    """The mapping of a run with data_parallel set so that each ramp stage has its number of `gpus`."""
    degrees = {key: _degree(mapping, key) for key in (axis.name for axis in REPLICA_AXES)}
    ranks, stages, result = prod(degrees.values()), mapping.get("stages"), dict(mapping)
    if not isinstance(stages, list) or len(stages) != len(gpus):
        raise InputError(f"the numbers of GPUs of {len(gpus)} stages cannot be kept: the stages change", key="stages")
    for index, number in enumerate(gpus):
        if ranks < 1 or number % ranks:
            named = " x ".join(f"{key} {degree}" for key, degree in degrees.items() if degree != 1)
            raise InputError(f"{gpus_text(number)} cannot be kept: {named} does not divide them", key=f"stages[{index}]")
        result = with_value(result, f"stages[{index}].{FILLING.name}", number // ranks)
    return result


def _degree(mapping: Mapping[str, Any], key: str) -> int:
    try:
        return int(parse_quantity(mapping.get(key, 1), "count"))
    except PerfmodelError as error:
        raise error.under(key) from None
