"""Where the numbers of a run come from: the sources of every preset and file in it, by key path.

presets.source_of finds the source of one number: that of the longest start of its key path.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from perfmodel.exchange.importers.registry import read_settings
from perfmodel.exchange.presets import beside, cluster_priors, inherited, merged, preset_names, read_preset
from perfmodel.exchange.run_files import RunSource, Setting, plain_source
from perfmodel.exchange.syntax.annotations import separated
from perfmodel.exchange.syntax.documents import FILE_SUFFIXES, parse_text
from perfmodel.spec.fields import Part, rule_of
from perfmodel.spec.machines.hardware import Cluster
from perfmodel.spec.run import Run

SET: Final = "given with --set, or as a setting"


def run_sources(source: RunSource, overrides: Sequence[Setting] = ()) -> dict[str, str]:
    """The sources of a run by key path, or by the start of one; empty for a Run, which no file describes.

    >>> from perfmodel.exchange.presets import source_of
    >>> sources = run_sources("nemotron-4-15b", ["cluster.gpu.memory_bandwidth_bytes_per_s=4TB/s"])
    >>> source_of("cluster.links.node.bandwidth_bytes_per_s", sources)
    'NVIDIA H100 datasheet, half of the bidirectional rate'
    >>> source_of("cluster.gpu.memory_bandwidth_bytes_per_s", sources)
    'given with --set, or as a setting'
    """
    source = plain_source(source)
    if isinstance(source, Run):
        return {}
    mapping, sources = separated(_run_mapping(source))
    stated = {key: sentence for key, sentence in sources.items() if "." in key or isinstance(mapping.get(key), Mapping)}
    given = {}
    for override in overrides:
        key, value = _parsed(override)
        mapping = _with_part(mapping, key.split("."), value)
        given[key] = SET
    return dict(_below(Run, mapping, "")) | stated | given


def _run_mapping(source: str | Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(source, str):
        return dict(source)
    if source in preset_names("runs") and not Path(source).is_file():
        return read_preset("runs", source)[0]
    return beside(Path(source), Run, read_settings(Path(source), "runs", spec=Run))


def _parsed(override: Setting) -> tuple[str, Any]:
    if not isinstance(override, str):
        return override
    key, _, text = override.partition("=")
    return key.strip(), parse_text(text)


def _with_part(mapping: Mapping[str, Any], steps: Sequence[str], value: Any) -> dict[str, Any]:
    """The mapping with `value` at the end of the steps; a preset on the way there is extended."""
    first, *rest = steps
    held = mapping.get(first)
    if not rest:
        return {**mapping, first: value}
    below = {"extends": held} if isinstance(held, str) else held
    return {**mapping, first: _with_part(below, rest, value)} if isinstance(below, Mapping) else dict(mapping)


def _below(spec: type, mapping: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
    """The sources of the parts of a spec, inner ones first: an outer source is about what the outer part changes."""
    for entry in fields(spec):
        rule = rule_of(entry)
        if isinstance(rule, Part) and rule.shape == "one" and entry.name in mapping:
            yield from _of_part(rule, mapping[entry.name], f"{path}{entry.name}")


def _of_part(rule: Part, value: Any, path: str) -> Iterator[tuple[str, str]]:
    mapping, sources = _resolved(rule, value)
    yield from _below(rule.spec, mapping, f"{path}.")
    yield from ((f"{path}.{key}" if key else path, sentence) for key, sentence in sources.items())


def _resolved(rule: Part, value: Any) -> tuple[Mapping[str, Any], dict[str, str]]:
    """The mapping of one part, in which names of other presets stay as they are, and its sources."""
    mapping, sources = _read(rule, value)
    if rule.preset and isinstance(parent := mapping.get("extends"), str):
        base, of_base = _resolved(rule, parent)
        own = {key: entry for key, entry in mapping.items() if key != "extends"}
        return merged(base, own), inherited(of_base, own, sources)
    if rule.spec is Cluster:
        sources = cluster_priors()[1] | sources
    return mapping, sources


def _read(rule: Part, value: Any) -> tuple[Mapping[str, Any], dict[str, str]]:
    value = value[0] if isinstance(value, list) and value else value  # of candidates the first
    if isinstance(value, Mapping):
        return separated(value)
    if not isinstance(value, str) or not rule.preset:
        return {}, {}
    if Path(value).suffix.lower() not in FILE_SUFFIXES:
        return read_preset(rule.preset, value)
    mapping, sources = separated(read_settings(Path(value), rule.preset, spec=rule.spec))
    return beside(Path(value), rule.spec, mapping), {"": value} | sources
