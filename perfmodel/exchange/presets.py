"""Where the presets are, and how the name of one, a mapping that extends one, or a file becomes a full mapping.

A preset is a YAML file in perfmodel/data/<kind>/ whose numbers have their sources beside them
(exchange/syntax/annotations.py). A file
anywhere else may stand in its place, by its path. A mapping may say `extends: NAME` and give only what differs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import cache
from os.path import relpath
from pathlib import Path
from typing import Any, Final, TypeVar

from perfmodel.errors import InputError, PerfmodelError, did_you_mean, shown
from perfmodel.exchange.building import build
from perfmodel.exchange.chip_names import did_you_mean_hardware
from perfmodel.exchange.families.table import family_table
from perfmodel.exchange.importers.registry import DESCRIBED, Document, imported, read_settings
from perfmodel.exchange.syntax.annotations import separated
from perfmodel.exchange.syntax.documents import FILE_SUFFIXES, read_mapping
from perfmodel.spec.economics import Economics
from perfmodel.spec.fields import Part, Spec, rule_of
from perfmodel.spec.machines.hardware import Cluster, Gpu
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.stack import SoftwareStack

DATA: Final = Path(__file__).parent.parent / "data"
KINDS: Final = tuple(DESCRIBED)
FAMILIES: Final = "families"  # of models that a config.json describes: no presets, but listed beside them
HARDWARE: Final = ("clusters", "gpus", "links", "kernels", "collectives", "serving")  # whose names speak of chips
S = TypeVar("S", bound=Spec)
PRIORS: Final = DATA / "cluster_priors.yaml"


@cache
def preset_names(kind: str) -> Sequence[str]:
    """The names of the presets of one kind, in alphabetical order."""
    return tuple(sorted(path.stem for path in (DATA / kind).glob("*.yaml")))


def preset_path(kind: str, name: str) -> Path:
    """The file of a preset. Errors: InputError for an unknown name, with the nearest known one."""
    names = preset_names(kind)
    if name not in names:
        hint = did_you_mean_hardware(name, names) if kind in HARDWARE else did_you_mean(name, names)
        raise InputError(f"{shown(name)} is not a preset of {kind}; {hint}")
    return DATA / kind / f"{name}.yaml"


def read_preset(kind: str, name: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The mapping of a preset as its file has it, with `extends` resolved, and the sources of its numbers."""
    mapping, sources = _shipped(preset_path(kind, name))
    if "extends" not in mapping:
        return dict(mapping), dict(sources)
    own = {key: value for key, value in mapping.items() if key != "extends"}
    base, base_sources = read_preset(kind, mapping["extends"])
    return merged(base, own), inherited(base_sources, own, sources)


def inherited(base: Mapping[str, str], own: Mapping[str, Any], sources: Mapping[str, str]) -> dict[str, str]:
    """The sources of settings that extend others: a value of one's own never has the source of what it replaces."""
    return {**base, **{key: source_of(key, sources) for key, _ in settings(own)}, **sources}


def preset_titles(kind: str = "") -> dict[str, dict[str, str]]:
    """By kind, the names of presets with their titles, and families of models; all without a kind. Errors: InputError."""
    if kind and kind not in (*KINDS, FAMILIES):
        raise InputError(f"{shown(kind)} is not a kind of preset; {did_you_mean(kind, (*KINDS, FAMILIES))}")
    kinds = (kind,) if kind else (*KINDS, FAMILIES)
    return {each: _titles(each) for each in kinds}


def _titles(kind: str) -> dict[str, str]:
    if kind == FAMILIES:
        return dict(family_table().titles)
    return {name: str(read_preset(kind, name)[0]["name"]) for name in preset_names(kind)}


def preset_settings(name: str) -> list[tuple[str, list[tuple[str, Any, str]]]]:
    """Every preset or family called `name` (or `kind/name`): its title, and key path, value and source of each setting."""
    kinds, bare = ((name.split("/", 1)[0],), name.split("/", 1)[1]) if "/" in name else ((*KINDS, FAMILIES), name)
    found = []
    if FAMILIES in kinds and bare in family_table().titles:
        row = settings(family_table().rows[bare])
        found.append((f"{FAMILIES}/{bare}", [(key, value, family_table().source) for key, value in row]))
    for kind in kinds:
        if kind in KINDS and bare in preset_names(kind):
            mapping, sources = read_preset(kind, bare)
            if kind == "clusters":
                priors, their_sources = _shipped(PRIORS)
                mapping, sources = merged(merged(mapping, priors), mapping), their_sources | sources
            found.append((f"{kind}/{bare}", [(key, value, source_of(key, sources)) for key, value in settings(mapping)]))
    if not found:
        known = {preset for kind in KINDS for preset in preset_names(kind)}
        known = {*family_table().titles} if FAMILIES in name.split("/")[:-1] else known
        raise InputError(f"{shown(name)} is not a preset; {did_you_mean_hardware(name, known)}")
    return found


def settings(mapping: Any, path: str = "") -> list[tuple[str, Any]]:
    """The key path and the value of every single value in nested mappings and lists."""
    if isinstance(mapping, Mapping):
        entries = [(f"{path}.{key}" if path else str(key), value) for key, value in mapping.items()]
    elif isinstance(mapping, list) and any(isinstance(value, Mapping) for value in mapping):
        entries = [(f"{path}[{index}]", value) for index, value in enumerate(mapping)]
    else:
        return [(path, mapping)]
    return [leaf for key, value in entries for leaf in settings(value, key)]


def source_of(key: str, sources: Mapping[str, str]) -> str:
    """The source of the number at `key`: that of the longest start of the path that has one; "" stands for the preset.

    A spread without a source of its own has that of its number.
    """
    start = key if key in sources else re.sub(r"(^|\.)spread\.", r"\1", key, count=1)
    while start and start not in sources:
        start = start[: max(start.rfind("."), start.rfind("["), 0)]
    return sources.get(start, "")


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the keys of `over` in place of its own, mapping by mapping; one that extends another preset is a whole."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping) and "extends" not in value:
            result[key] = merged(old, value)
        else:
            result[key] = value
    return result


def expand(spec: type, mapping: Mapping[str, Any]) -> dict[str, Any]:
    """`mapping` with every name of a preset, every `extends` and every file replaced by what it stands for."""
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
    """The full mapping of one part; `below` are the names of what extends it."""
    if isinstance(value, str) and rule.preset:
        if value in below:
            raise InputError(f"{shown(value)} extends itself")
        below = (*below, value)
        value = _read_part(rule.spec, rule.preset, value)
    elif isinstance(value, Mapping) and rule.preset:
        value = imported(Document(path=None, text="", mapping=value), rule.preset, spec=rule.spec) or value
    if not isinstance(value, Mapping):
        return value
    value = in_sections(value, getattr(rule.spec, "moved_keys", {}))
    if rule.preset and "extends" in value:
        parent, value = value["extends"], {key: entry for key, entry in value.items() if key != "extends"}
        base = _expand_part(rule, parent if isinstance(parent, str) else shown(parent), below)
        return expand(rule.spec, merged(base, value))
    if rule.spec is Cluster:
        value = merged(_shipped(PRIORS)[0], value)
    return expand(rule.spec, value)


def in_sections(mapping: Mapping[str, Any], moved_keys: Mapping[str, str]) -> dict[str, Any]:
    """`mapping` with the keys of earlier versions where they are now: launch_s of `host` for host_s, its spread beside it.

    >>> in_sections({"name": "mine", "host_s": "6us", "spread": {"host_s": "9%"}}, {"host_s": "host.launch_s", "spread": "..."})
    {'name': 'mine', 'host': {'spread': {'launch_s': '9%'}, 'launch_s': '6us'}}
    """
    result = {key: value for key, value in mapping.items() if key not in moved_keys}
    spreads = mapping.get("spread") if "spread" in moved_keys else None
    for key, value in mapping.items():
        if key in moved_keys and key != "spread":
            section, _, name = moved_keys[key].partition(".")
            result[section] = merged({name: value}, result.get(section, {}))
    for key, value in spreads.items() if isinstance(spreads, Mapping) else ():
        section, _, name = moved_keys.get(key, f"spread.{key}").partition(".")
        result[section] = merged({"spread": {name: value}} if section != "spread" else {name: value}, result.get(section, {}))
    return result


def _read_part(spec: type, kind: str, name: str) -> dict[str, Any]:
    """The mapping of a preset, or of the file at a path, which may be one of other software (exchange/importers)."""
    if Path(name).suffix.lower() in FILE_SUFFIXES:
        path = Path(name)
        return beside(path, spec, separated(read_settings(path, kind, spec=spec))[0])
    return read_preset(kind, name)[0]


def beside(path: Path, spec: type, mapping: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping of a file with the files that it names where they are: in its own folder first, then in the current one."""
    return _with_files(spec, mapping, lambda name: str(path.parent / name) if (path.parent / name).is_file() else name)


def seen_from(folder: Path, spec: type, mapping: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping for a file in `folder`: files that it names from the current folder as they are called from there."""
    here = folder.resolve()
    return _with_files(spec, mapping, lambda name: relpath(Path(name).resolve(), here) if Path(name).is_file() else name)


def _with_files(spec: type, mapping: Mapping[str, Any], located: Callable[[str], str]) -> dict[str, Any]:
    """The mapping with every file that it names in place of a part, or extends, called as `located` says."""

    def named(value: Any) -> Any:
        return located(value) if isinstance(value, str) and Path(value).suffix.lower() in FILE_SUFFIXES else value

    def of_part(rule: Part, value: Any) -> Any:
        if isinstance(value, list):
            return [of_part(rule, each) for each in value]
        return _with_files(rule.spec, value, located) if isinstance(value, Mapping) else named(value)

    parts = {entry.name: rule for entry in fields(spec) if isinstance(rule := rule_of(entry), Part) and rule.shape == "one"}
    result = {key: of_part(parts[key], value) if key in parts else value for key, value in mapping.items()}
    return {**result, "extends": named(result["extends"])} if "extends" in result else result


def cluster_priors() -> tuple[dict[str, Any], dict[str, str]]:
    """What a cluster takes that does not say, and where that comes from."""
    return _shipped(PRIORS)


@cache
def _shipped(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The settings of a file of perfmodel/data and their sources, read once; nobody writes to what is returned."""
    return separated(read_mapping(path))


def expand_part(spec: type, kind: str, value: Any) -> Any:
    """What stands for one part of a run (a preset's name, or a mapping) as a full mapping."""
    return _expand_part(Part(spec, "one", kind), separated(value)[0] if isinstance(value, Mapping) else value)


def _preset(spec: type[S], kind: str, name: str) -> S:
    """The spec of a shipped file, made once because nothing can change it; of any other file as it is now."""
    if name not in preset_names(kind):
        return _read_spec(spec, kind, name)
    plain: type = spec
    shipped: S = _shipped_spec(plain, kind, name)
    return shipped


def _read_spec(spec: type[S], kind: str, name: str) -> S:
    return build(spec, expand_part(spec, kind, name))


@cache
def _shipped_spec(spec: type, kind: str, name: str) -> Any:
    made: Any = _read_spec(spec, kind, name)
    return made


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
