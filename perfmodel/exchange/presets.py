"""Where the shipped specs are, and how a name, a mapping that extends one, or a file becomes a full mapping.

A preset is a YAML file in perfmodel/data/<kind>/ with a `sources` table: the path of a key, or the start of one, to where
its numbers come from. A file anywhere else may stand in its place, by its path. A mapping may say `extends: NAME` and give only
what differs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar

from perfmodel.errors import InputError, PerfmodelError, did_you_mean, shown
from perfmodel.exchange.building import build
from perfmodel.exchange.documents import FILE_SUFFIXES, read_mapping
from perfmodel.exchange.importers.huggingface import read_model_config
from perfmodel.spec.economics import Economics
from perfmodel.spec.fields import Part, rule_of
from perfmodel.spec.hardware import Cluster, Gpu
from perfmodel.spec.model import TransformerModel
from perfmodel.spec.stack import SoftwareStack

DATA: Final = Path(__file__).parent.parent / "data"
KINDS: Final = ("runs", "models", "clusters", "gpus", "kernels", "links", "collectives", "stacks", "economics")
S = TypeVar("S")
PRIORS: Final = DATA / "cluster_priors.yaml"


def preset_names(kind: str) -> list[str]:
    """The presets of one kind, in alphabetical order."""
    return sorted(path.stem for path in (DATA / kind).glob("*.yaml"))


def preset_path(kind: str, name: str) -> Path:
    """The file of a preset. Errors: InputError with a did-you-mean."""
    names = preset_names(kind)
    if name not in names:
        raise InputError(f"{shown(name)} is not a preset of {kind}; {did_you_mean(name, names)}")
    return DATA / kind / f"{name}.yaml"


def read_preset(kind: str, name: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The mapping of a preset as its file has it, with `extends` resolved, and the sources of its numbers."""
    mapping = dict(_shipped(preset_path(kind, name)))
    sources = {key: source_sentence(source) for key, source in mapping.pop("sources", {}).items()}
    if "extends" in mapping:
        parent = mapping.pop("extends")
        base, base_sources = read_preset(kind, parent)
        return merged(base, mapping), base_sources | sources
    return mapping, sources


def source_sentence(source: Any) -> str:
    """A source in words; those of fitted numbers are mappings of what was fitted, on what, when, and how wrong it is."""
    if not isinstance(source, Mapping):
        return str(source)
    errors = (
        f"{'' if name == 'all' else f'{name} '}{100 * error['median']:.1f} % / {100 * error['p90']:.1f} % of {error['rows']}"
        for name, error in source["held_out"].items()
    )
    origin = f"{source['table']}, {source['version']}, {source['licence']}"
    return (
        f"fitted on {source['what']} ({origin}), {source['rows']} rows, {source['fitted']}; "
        f"error on rows not fitted (median / p90) {', '.join(errors)}"
        + (f"; the rows leave {source['at_bounds']} at a bound" if "at_bounds" in source else "")
    )


def preset_titles(kind: str = "") -> dict[str, dict[str, str]]:
    """The names of the presets of one kind, or of all, each with its title. Errors: InputError for an unknown kind."""
    if kind and kind not in KINDS:
        raise InputError(f"{shown(kind)} is not a kind of preset; {did_you_mean(kind, KINDS)}")
    kinds = (kind,) if kind else KINDS
    return {each: {name: str(read_preset(each, name)[0]["name"]) for name in preset_names(each)} for each in kinds}


def preset_settings(name: str) -> list[tuple[str, list[tuple[str, Any, str]]]]:
    """Every preset called `name` (or `kind/name`): its title and the (key path, value, source) of each setting."""
    kinds, bare = ((name.split("/", 1)[0],), name.split("/", 1)[1]) if "/" in name else (KINDS, name)
    found = []
    for kind in kinds:
        if kind in KINDS and bare in preset_names(kind):
            mapping, sources = read_preset(kind, bare)
            if kind == "clusters":
                mapping = mapping | {key: value for key, value in _cluster_priors().items() if key not in mapping}
                sources = dict(_shipped(PRIORS)["sources"]) | sources
            found.append((f"{kind}/{bare}", [(key, value, source_of(key, sources)) for key, value in settings(mapping)]))
    if not found:
        known = sorted({preset for kind in KINDS for preset in preset_names(kind)})
        raise InputError(f"{shown(name)} is not a preset; {did_you_mean(name, known)}")
    return found


def settings(mapping: Any, path: str = "") -> list[tuple[str, Any]]:
    """(key path, value) of every single value in nested mappings and lists."""
    if isinstance(mapping, Mapping):
        entries = [(f"{path}.{key}" if path else str(key), value) for key, value in mapping.items()]
    elif isinstance(mapping, list) and any(isinstance(value, Mapping) for value in mapping):
        entries = [(f"{path}[{index}]", value) for index, value in enumerate(mapping)]
    else:
        return [(path, mapping)]
    return [leaf for key, value in entries for leaf in settings(value, key)]


def source_of(key: str, sources: Mapping[str, str]) -> str:
    """The source of the longest start of `key` that has one; the key "" stands for the whole preset.

    A spread that has none of its own comes from where its number comes from.
    """
    start = key
    while start and start not in sources:
        start = start[: max(start.rfind("."), start.rfind("["), 0)]
    if start in sources or not re.search(r"(^|\.)spread\.", key):
        return sources.get(start, "")
    return source_of(re.sub(r"(^|\.)spread\.", r"\1", key, count=1), sources)


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the keys of `over` in place of its own, mapping by mapping."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def expand(spec: type, mapping: Mapping[str, Any]) -> dict[str, Any]:
    """`mapping` with every name of a preset, `extends` and model file in it replaced by what it stands for."""
    result = dict(mapping)
    for entry in fields(spec):
        rule = rule_of(entry)
        if isinstance(rule, Part) and rule.shape == "one" and entry.name in result:
            try:
                result[entry.name] = _expand_part(rule, result[entry.name])
            except PerfmodelError as error:
                raise error.under(entry.name) from None
    return result


def _expand_part(rule: Part, value: Any, below: tuple[str, ...] = ()) -> Any:
    """What stands for one part; `below` are the files that extend it."""
    if isinstance(value, str) and rule.preset:
        if value in below:
            raise InputError(f"{shown(value)} extends itself")
        below = (*below, value)
        value = _read_part(rule.preset, value)
    if not isinstance(value, Mapping):
        return value
    value = {key: entry for key, entry in value.items() if key != "sources"}
    if rule.preset and "extends" in value:
        parent = value.pop("extends")
        base = _expand_part(rule, parent if isinstance(parent, str) else shown(parent), below)
        return expand(rule.spec, merged(base, value))
    if rule.spec is Cluster:
        value = merged(_cluster_priors(), value)
    return expand(rule.spec, value)


def _read_part(kind: str, name: str) -> dict[str, Any]:
    """The mapping of a preset, or of the file at a path; a model's .json is Hugging Face's."""
    suffix = Path(name).suffix.lower()
    if kind == "models" and suffix == ".json":
        return read_model_config(Path(name))
    return read_mapping(Path(name)) if suffix in FILE_SUFFIXES else read_preset(kind, name)[0]


def _cluster_priors() -> dict[str, Any]:
    return {key: value for key, value in _shipped(PRIORS).items() if key != "sources"}


@cache
def _shipped(path: Path) -> dict[str, Any]:
    """A file of perfmodel/data, read once; nobody writes to what is returned."""
    return read_mapping(path)


def expand_part(spec: type, kind: str, value: Any) -> Any:
    """What stands for one part of a run (a preset's name, or a mapping) as a full mapping."""
    return _expand_part(Part(spec, "one", kind), value)


def _preset(spec: type[S], kind: str, name: str) -> S:
    return build(spec, expand_part(spec, kind, name))


def model_preset(name: str) -> TransformerModel:
    """The shipped model called `name`."""
    return _preset(TransformerModel, "models", name)


def gpu_preset(name: str) -> Gpu:
    """The shipped GPU called `name`."""
    return _preset(Gpu, "gpus", name)


def cluster_preset(name: str) -> Cluster:
    """The shipped cluster called `name`."""
    return _preset(Cluster, "clusters", name)


def stack_preset(name: str) -> SoftwareStack:
    """The shipped software stack called `name`."""
    return _preset(SoftwareStack, "stacks", name)


def economics_preset(name: str) -> Economics:
    """The shipped terms called `name`."""
    return _preset(Economics, "economics", name)
