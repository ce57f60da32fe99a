"""What a key of a file means, in words: the comment beside its declaration, or its line in data/keys.yaml."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Mapping
from functools import cache
from typing import Final

from perfmodel.exchange.presets import DATA
from perfmodel.exchange.syntax.documents import read_mapping

FILE: Final = DATA / "keys.yaml"
SPREAD: Final = "relative half widths of the 90 % intervals of the numbers beside it, by name"
COMMENT: Final = re.compile(r"(?<=\s\s)# *(.*)$")


def key_words(spec: type, name: str) -> str:
    """What one key of a spec means, as a sentence; "" where nothing says so.

    >>> from perfmodel.spec.run import Run
    >>> key_words(Run, "sequence_length")
    'Tokens of a sequence.'
    """
    words = SPREAD if name == "spread" else written_words().get(spec.__name__, {}).get(name) or _comments(spec).get(name, "")
    return f"{words[0].upper()}{words[1:].rstrip('.')}." if words else ""


@cache
def written_words() -> Mapping[str, Mapping[str, str]]:
    """The words of data/keys.yaml, by the name of a class and of its field."""
    return read_mapping(FILE)


@cache
def _comments(spec: type) -> Mapping[str, str]:
    """The comments on the lines of each field of a class."""
    source = inspect.getsource(spec)
    lines = source.splitlines()
    (made,) = ast.parse(source).body
    entries = [node for node in getattr(made, "body", ()) if isinstance(node, ast.AnnAssign)]
    beside = [[_comment(line) for line in lines[node.lineno - 1 : node.end_lineno]] for node in entries]
    return {getattr(node.target, "id", ""): " ".join(filter(None, each)) for node, each in zip(entries, beside, strict=True)}


def _comment(line: str) -> str:
    found = COMMENT.search(line)
    return found[1] if found else ""
