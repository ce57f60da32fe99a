"""Pages of docs/ before they are laid out: each fence with the name of a maker becomes what the maker writes, in Markdown.

    ```{shell} lines=20
    perfmodel predict nemotron-4-15b
    ```

is the command and what it prints when the page is built; `keys`, `commands`, `documents` and the like are references of
what the code declares. A page reads well without the makers, too: elsewhere such a fence is a block of code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

FENCE: Final = re.compile(r"^```\{(?P<name>[a-z-]+)\}(?P<words>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """One fence of a page: the words behind its name, its lines, and the folder that commands of the page run in."""

    words: tuple[str, ...]
    body: str
    folder: Path

    def option(self, name: str, default: str = "") -> str:
        """The value of `name=value` among its words."""
        return next((word.partition("=")[2] for word in self.words if word.startswith(f"{name}=")), default)


Maker: TypeAlias = Callable[[Fence], str]


def expanded(text: str, makers: Mapping[str, Maker], folder: Path) -> str:
    """The text of a page with every fence of a known maker in its place; others are for the program that lays pages out."""

    def made(found: re.Match[str]) -> str:
        maker = makers.get(found["name"])
        if maker is None:
            return found[0]
        return maker(Fence(words=tuple(found["words"].split()), body=found["body"], folder=folder))

    return FENCE.sub(made, text)


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A table in Markdown."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines) + "\n"


def code(text: str) -> str:
    """Words as code, in which nothing is markup."""
    return f"`{text}`" if text else ""


def escaped(text: str) -> str:
    r"""Words of a docstring or of help, in which only what stands in backticks is markup.

    >>> escaped("times <n> of a*b, as in `a*b`")
    'times \\<n\\> of a\\*b, as in `a*b`'
    """
    pieces = text.split("`")
    return "`".join(re.sub(r"([*_<>\[\]$#~])", r"\\\1", each) if place % 2 == 0 else each for place, each in enumerate(pieces))
