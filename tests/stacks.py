"""Software stacks of tests: presets with some settings changed, by their key paths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from perfmodel.spec.stack import SoftwareStack


def stack_with(stack: SoftwareStack, settings: Mapping[str, Any]) -> SoftwareStack:
    """`stack` with each setting in place of its own, as in {"overlap.hide_all": True}."""
    for path, value in settings.items():
        section, name = path.split(".")
        stack = replace(stack, **{section: replace(getattr(stack, section), **{name: value})})
    return stack
