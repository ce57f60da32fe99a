"""What a shell completes: keys of a run with their values, settings of a plan, terms, kinds of presets. Loaded when it asks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any, Final

DEEPEST: Final = 4  # parts of a key path
IN_A_STAGE: Final = "stages[*]"


def setting_words(incomplete: str) -> list[str]:
    """Keys of a run for --set and --base, ending in =; behind it the values of keys that have few.

    >>> setting_words("tensor_p"), setting_words("sharding=zero1")
    (['tensor_parallel='], ['sharding=zero1'])
    """
    key, equals, value = incomplete.partition("=")
    if equals:
        return [f"{key}={each}" for each in _values(key) if each.startswith(value)]
    return [f"{each}=" for each in _run_keys() if each.startswith(incomplete)]


def varied_words(incomplete: str) -> list[str]:
    """Keys of a run for --vary, which may be seen from its ramp stage, and gpus.

    >>> varied_words("gp"), varied_words("data_parallel")
    (['gpus='], ['data_parallel=', 'data_parallel_replicas='])
    """
    if "=" in incomplete:
        return setting_words(incomplete)
    keys = ["gpus", *(key.removeprefix(f"{IN_A_STAGE}.") for key in _run_keys())]
    return sorted(f"{each}=" for each in set(keys) if each.startswith(incomplete))


def chosen_words(incomplete: str) -> list[str]:
    """Settings that a plan chooses, for --choose.

    >>> chosen_words("pipeline_s"), chosen_words("sharding=zero")
    (['pipeline_schedule='], ['sharding=zero1', 'sharding=zero2', 'sharding=zero3'])
    """
    from perfmodel.exchange.questions.plan_arguments import CATEGORY_VALUES, CHOSEN

    key, equals, value = incomplete.partition("=")
    if equals:
        return [f"{key}={each}" for each in CATEGORY_VALUES.get(key, ()) if each.startswith(value)]
    return [f"{each}=" for each in CHOSEN if each.startswith(incomplete)]


def term_names(incomplete: str) -> list[str]:
    """Terms of an iteration, for --term.

    >>> term_names("tensor")
    ['tensor_parallel']
    """
    from perfmodel.explanation.terms import TERMS

    return [name for name in TERMS if name.startswith(incomplete)]


def preset_kinds(incomplete: str) -> list[str]:
    """Kinds of presets, for `perfmodel list`.

    >>> preset_kinds("cl")
    ['clusters']
    """
    from perfmodel.exchange.presets import FAMILIES, KINDS

    return [kind for kind in (*KINDS, FAMILIES) if kind.startswith(incomplete)]


def _run_keys() -> Iterator[str]:
    from perfmodel.spec.run import Run

    yield from _keys(Run, "", DEEPEST)


def _keys(spec: type, path: str, deep: int) -> Iterator[str]:
    """The key paths of a spec: its single values, and those of its parts."""
    from perfmodel.spec.fields import Part, is_derived, rule_of

    for entry in fields(spec):
        rule = rule_of(entry)
        if is_derived(entry) or entry.name == "spread":
            continue
        here = f"{path}{entry.name}"
        if not isinstance(rule, Part):
            yield here
            continue
        if rule.preset:
            yield here
        if rule.shape in ("one", "sequence") and deep > 1:
            inner = here if rule.shape == "one" else f"{here}[*]"
            yield from _keys(rule.spec, f"{inner}.", deep - 1)


def _values(key: str) -> list[str]:
    """The values of a key that has few: presets of a part, words of a choice, true and false."""
    from perfmodel.exchange.presets import preset_names
    from perfmodel.spec.fields import Choice, Flag, Part

    rule = _rule(key)
    if isinstance(rule, Part) and rule.preset:
        return [*preset_names(rule.preset)]
    if isinstance(rule, Choice):
        return [*rule.options]
    return ["true", "false"] if isinstance(rule, Flag) else []


def _rule(key: str) -> Any:
    """The declaration of the field at a key path; None where there is none."""
    from perfmodel.spec.fields import Part, rules_of
    from perfmodel.spec.run import Run

    rules, rule = rules_of(Run), None
    for step in key.replace("[*]", "").split("."):
        rule = rules.get(step)
        if not isinstance(rule, Part):
            return rule
        rules = rules_of(rule.spec)
    return rule
