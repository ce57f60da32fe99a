"""What becomes of a file of other software: a run, what it takes for granted, what is not read, and what cannot be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field, fields
from typing import TYPE_CHECKING, Any, Final

from perfmodel.errors import InputError, NotSupportedError
from perfmodel.light_dataclass import dataclass, replace
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.run import RampStage, Run

if TYPE_CHECKING:
    from perfmodel.exchange.translation.logs.log_records import LogRecord

DERIVED: Final = ("gpus",)  # from which data_parallel follows
ORDER: Final = (
    *(each.name for each in fields(Run) if each.name not in ("stages", "economics")),
    *DERIVED,
    "stages",
    "economics",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """A file of other software as a run, or as a measured record, or both.

    `run` has the keys of a run file (None where the file describes none), `gpus` among them where the file says how many.
    `assumed`, `ignored` and `refused` are sentences; `about` has the key of those that are about one.
    """

    format: str
    run: Mapping[str, Any] | None = None
    record: LogRecord | None = None
    assumed: tuple[str, ...] = ()
    about: Mapping[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


WAY_ON: Final = "perfmodel convert writes the rest as a run file"


def run_mapping(conversion: Conversion) -> dict[str, Any]:
    """The mapping of a run, with what it takes for granted.

    Errors: NotSupportedError for what cannot be expressed, by name; InputError where the file describes no run.
    """
    if conversion.refused:
        raise NotSupportedError(f"{'; '.join(conversion.refused)}; {WAY_ON}")
    if conversion.run is None:
        way_on = "compare RUN with it, as in perfmodel compare train.sh train.log"
        raise InputError(f"this {conversion.format} does not say which run it is of; {way_on}")
    told = {conversion.about.get(sentence, f"{place}"): sentence for place, sentence in enumerate(conversion.assumed)}
    return {**conversion.run, "assumptions": told}


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Key paths with their values as nested mappings, in the order of a run file.

    >>> nested({"stack.overlap.pipeline": False, "model.layers": 2})
    {'model': {'layers': 2}, 'stack': {'overlap': {'pipeline': False}}}
    """
    result: dict[str, Any] = {}
    for key, value in settings.items():
        place = result
        *steps, last = key.split(".")
        for step in steps:
            place = place.setdefault(step, {})
        place[last] = value
    if isinstance(result.get("model"), dict):
        result["model"] = _ordered(result["model"], [each.name for each in fields(TransformerModel)])
    return _ordered(result, ORDER)


def _ordered(mapping: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    known = {name: mapping[name] for name in names if name in mapping}
    return known | {key: value for key, value in mapping.items() if key not in known}


def uncovered(settings: Mapping[str, Any], names: Mapping[str, str] = {}) -> tuple[str, ...]:
    """A sentence for each setting that no run has yet: a key, or a value of a choice; `names` are the words behind them."""
    known = {each.name for each in fields(Run)} | {*DERIVED, "stages"}
    found = []
    for key, value in settings.items():
        first = key.partition(".")[0]
        if first not in known:
            found.append(f"{names.get(key, key)} {value}: {key} is known but not supported yet")
        elif problem := _unknown_choice(key, value):
            found.append(f"{names.get(key, key)}: {problem}")
    return tuple(found)


def _unknown_choice(key: str, value: Any) -> str:
    from perfmodel.spec.fields import Choice, rule_of

    entry = Run.__dataclass_fields__.get(key)
    rule = rule_of(entry) if entry is not None else None
    if isinstance(rule, Choice) and rule.problem(value):
        return f"{key} {value} is known but not supported yet; {', '.join(rule.options)} are"
    return ""


def stage(batch: int | None, tokens: float | None = None) -> dict[str, Any]:
    """One ramp stage as a run file has it: a batch that is not known is left out."""
    given = {"global_batch_size": batch, "tokens": tokens}
    return {key: value for key, value in given.items() if value is not None}


def with_replicas(run: Mapping[str, Any], replicas: Iterable[int]) -> dict[str, Any]:
    """The mapping of a run whose ramp stages have these data-parallel degrees."""
    stages = [{"data_parallel": each, **entry} for each, entry in zip(replicas, run["stages"], strict=True)]
    return {
        **{key: value for key, value in run.items() if key != "gpus"},
        "stages": [_ordered(each, OF_STAGE) for each in stages],
    }


OF_STAGE: Final = tuple(each.name for each in fields(RampStage))


def renamed(conversion: Conversion, name: str) -> Conversion:
    """The conversion whose run has another name."""
    return conversion if conversion.run is None else replace(conversion, run={**conversion.run, "name": name})
