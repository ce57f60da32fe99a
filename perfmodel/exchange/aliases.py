"""How many values the aliases (*name) of a YAML text stand for: some lines of text may stand for billions of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import yaml

from perfmodel.errors import InputError, shown

MOST_REPEATED: Final = 20_000  # values that all aliases of a text may stand for together


def refuse_repetition(events: Iterable[Any]) -> None:
    """Raise InputError where aliases stand for far more than is written, each for as much as lies under its anchor (&name).

    Counted are the values that a reader would meet who goes through all of them, as did-you-mean, reports and merges (<<) do.
    """
    walk = _Walk()
    for event in events:
        walk.meet(event)
        if walk.repeated > MOST_REPEATED:
            raise InputError(f"its aliases (*name) stand for more than {MOST_REPEATED:,} values; write out what is meant")


class _Walk:
    """What was met so far: values that are written, values that aliases stand for, and how many lie under each anchor."""

    def __init__(self) -> None:
        self.met = self.repeated = 0
        self.sizes: dict[str, int] = {}
        self.opened: list[tuple[str | None, int]] = []  # the anchor of each collection that is open, and what was met before

    def meet(self, event: Any) -> None:
        if isinstance(event, yaml.AliasEvent):
            self._meet_again(str(event.anchor))
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = self.opened.pop()
            self._keep(anchor, self.met - before)
        elif isinstance(event, yaml.CollectionStartEvent):
            self.opened.append((event.anchor, self.met))
            self.met += 1
        elif isinstance(event, yaml.ScalarEvent):
            self.met += 1
            self._keep(event.anchor, 1)

    def _meet_again(self, anchor: str) -> None:
        if any(anchor == each for each, _ in self.opened):
            raise InputError(f"not valid YAML: *{shown(anchor)[1:-1]} stands inside what it stands for")
        self.met += self.sizes.get(anchor, 1)
        self.repeated += self.sizes.get(anchor, 1)

    def _keep(self, anchor: str | None, size: int) -> None:
        if anchor is not None:
            self.sizes[anchor] = size
