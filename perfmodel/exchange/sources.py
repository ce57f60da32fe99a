"""Where the numbers of a run come from: the sources of every preset and file that stand for a part of it, by key path.

Read them with presets.source_of: the longest start of a key path that has a source.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from perfmodel.exchange.documents import FILE_SUFFIXES, parse_text, read_mapping
from perfmodel.exchange.presets import PRIORS, merged, preset_names, read_preset, source_sentence
from perfmodel.exchange.run_files import RunSource, Setting
from perfmodel.spec.fields import Part, rule_of
from perfmodel.spec.hardware import Cluster
from perfmodel.spec.run import Run

SET: Final = "given with --set, or as a setting"


def run_sources(source: RunSource, overrides: Sequence[Setting] = ()) -> dict[str, str]:
    """Key path, or the start of one, to the source of what lies below; empty for a spec, which no file describes.

    >>> from perfmodel.exchange.presets import source_of
    >>> sources = run_sources("nemotron-4-15b", ["cluster.gpu.memory_bandwidth_bytes_per_s=4TB/s"])
    >>> source_of("cluster.links.node.bandwidth_bytes_per_s", sources)
    'NVIDIA H100 datasheet, half of the bidirectional rate'
    >>> source_of("cluster.gpu.memory_bandwidth_bytes_per_s", sources)
    'given with --set, or as a setting'
    """
    if isinstance(source, Run):
        return {}
    mapping, given = _run_mapping(source), {}
    for override in overrides:
        key, value = _parsed(override)
        mapping = _with_part(mapping, key.split("."), value)
        given[key] = SET
    return dict(_below(Run, mapping, "")) | given


def _run_mapping(source: str | Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(source, str):
        return dict(source)
    if source in preset_names("runs") and not Path(source).is_file():
        mapping, _ = read_preset("runs", source)
        return mapping
    return read_mapping(Path(source))


def _parsed(override: Setting) -> tuple[str, Any]:
    if not isinstance(override, str):
        return override
    key, _, text = override.partition("=")
    return key.strip(), parse_text(text)


def _with_part(mapping: Mapping[str, Any], steps: Sequence[str], value: Any) -> dict[str, Any]:
    """The mapping with another preset, or another number, at a place that a preset may stand for: it is then extended."""
    first, *rest = steps
    held = mapping.get(first)
    if not rest:
        return {**mapping, first: value}
    below = {"extends": held} if isinstance(held, str) else held
    return {**mapping, first: _with_part(below, rest, value)} if isinstance(below, Mapping) else dict(mapping)


def _below(spec: type, mapping: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
    """Sources of the parts of a spec, those of outer ones last: they speak of what they change."""
    for entry in fields(spec):
        rule = rule_of(entry)
        if isinstance(rule, Part) and rule.shape == "one" and entry.name in mapping:
            yield from _of_part(rule, mapping[entry.name], f"{path}{entry.name}")


def _of_part(rule: Part, value: Any, path: str) -> Iterator[tuple[str, str]]:
    mapping, sources = _resolved(rule, value)
    yield from _below(rule.spec, mapping, f"{path}.")
    yield from ((f"{path}.{key}" if key else path, sentence) for key, sentence in sources.items())


def _resolved(rule: Part, value: Any) -> tuple[Mapping[str, Any], dict[str, str]]:
    """What stands for one part, without what stands for the parts of it in turn, and the sources that it gives."""
    mapping, sources = _read(rule, value)
    if rule.preset and isinstance(parent := mapping.get("extends"), str):
        base, of_base = _resolved(rule, parent)
        own = {key: entry for key, entry in mapping.items() if key != "extends"}
        return merged(base, own), of_base | sources
    if rule.spec is Cluster:
        sources = _sentences(read_mapping(PRIORS)) | sources
    return mapping, sources


def _read(rule: Part, value: Any) -> tuple[Mapping[str, Any], dict[str, str]]:
    value = value[0] if isinstance(value, list) and value else value  # of candidates the first
    if isinstance(value, Mapping):
        return value, _sentences(value)
    if not isinstance(value, str) or not rule.preset:
        return {}, {}
    if Path(value).suffix.lower() not in FILE_SUFFIXES:
        return read_preset(rule.preset, value)
    if re.search(r"\.json$", value, re.IGNORECASE) and rule.preset == "models":
        return {}, {"": value}
    mapping = read_mapping(Path(value))
    return mapping, {"": value} | _sentences(mapping)


def _sentences(mapping: Mapping[str, Any]) -> dict[str, str]:
    """The sources of a mapping in words; what a person's own file has there may be anything."""
    sources = mapping.get("sources")
    if not isinstance(sources, Mapping):
        return {}
    fitted = {key: isinstance(source, Mapping) and "held_out" in source for key, source in sources.items()}
    return {str(key): source_sentence(source) if fitted[key] else str(source) for key, source in sources.items()}
