"""How an input is brought to the edges of what may be: sizes, shapes, characters, references, and pieces of other files.

As in mutators.py each function takes a source of chance and a document or a text, and none knows a format by name. What
comes out is often allowed: these look for what a reader lets through, not for what it refuses.
"""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

Place = tuple[Any, Any]  # a mapping or a list, and a key of it
EDGES: Final = (0, 1, 2, -1, 0.5, 1e-9, 1e-3, 0.999999, 1.000001, 64, 1000, 65536, 10**6, 10**9, 10**12, 2**53, 1e15)
SIZES: Final = ("400Gb/s", "1B", "80GiB", "1e3 TB", "0GB", "-1GB", "1e30GB", "1b/s", "8T", "3 %", "1e-9s", "20B", "1M", "infGB")
CHARACTERS: Final = (
    *("\x00", "\x07", "\x1b[31m", "\x1b]0;x\x07", "\x7f", "\x85", "\u2028", "\u202e", "\u200b", "\ufeff", "\ud800", "\udcff"),
    *("e\u0301", "\u0130", "\u00df", "\U0001f600", "\uff11\uff12", "\u0663", "\u00b2", "\u00a0", "\u2212"),
    *(
        "1_000",
        "0x10",
        "0b1",
        "0o7",
        "1,000",
        "+7",
        " 7 ",
        "7.",
        ".5",
        "1e3",
        "12:30:45",
        "2024-01-01",
        "~",
        "0777",
        "007",
        "1e",
    ),
    *(
        "\n",
        "\r",
        "\t",
        "\\",
        "'",
        '"',
        "`id`",
        "$(id)",
        "${HOME}",
        "%s",
        "{0}",
        "/dev/zero",
        "/etc/passwd",
        "../../x",
        "~/x",
        "-",
    ),
    *("=1+1", "@SUM(1)", "[red]x[/red]", "[/]", "<script>alert(1)</script>", "&amp;", "</script>", "=cmd|' /C calc'!A0"),
)
YAML_WORDS: Final = (
    *(
        "!!python/object/apply:os.system [id]",
        "!!binary aGk=",
        "!!timestamp 2024-01-01",
        "!!set {a, b}",
        "!!float 1",
        "!!str 1",
    ),
    *(
        "!!int '0x10'",
        "!!null ''",
        "!unknown 1",
        "&a [*a]",
        "*nothing",
        "{<<: {layers: 4}}",
        "|\n  8\n",
        ">-\n  8",
        "? a\n: b",
        "---",
        "...",
    ),
    *("{? [a, b] : c}", "!!omap [a: 1]", "%TAG ! x", "!<tag:yaml.org,2002:int> 8", "[1, 2,]", "{a: 1,}", "@x", "`x", "- - - 8"),
)
LINE: Final = re.compile(rb"(?m)^([ \t]*)([\w.\-\"']+)(\s*[:=][ \t]*)(\S.*)$")
FACTORS: Final = 12.0  # powers of ten by which a number is larger or smaller


def leaves(value: Any, kinds: type | tuple[type, ...]) -> list[Place]:
    """Every place of a document that holds a value of some kinds; truth values are no numbers."""
    return [
        (parent, key)
        for parent, key in places_of(value)
        if isinstance(parent[key], kinds) and not isinstance(parent[key], bool)
    ]


def places_of(value: Any) -> Iterator[Place]:
    """Every place of a document; what stands under an alias once, however often it is referred to, and within itself."""
    left, seen = [value], set()
    while left:
        each = left.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        entries = list(each.items() if isinstance(each, dict) else enumerate(each) if isinstance(each, list) else ())
        yield from ((each, key) for key, _ in entries)
        left += [entry for _, entry in reversed(entries) if isinstance(entry, dict | list)]


def edge_numbers(chance: random.Random, document: Any) -> None:
    """One number, two or three are at an edge: nothing, one, huge but allowed, a fraction, negative, a size with a unit."""
    places = leaves(document, (int, float))
    for parent, key in chance.sample(places, min(len(places), chance.choice([1, 1, 2, 2, 3]))):
        parent[key] = chance.choice(SIZES) if chance.random() < 0.1 else chance.choice(EDGES)


def scaled_numbers(chance: random.Random, document: Any) -> None:
    """One number or two are larger or smaller by any power of ten; whole ones stay whole."""
    places = leaves(document, (int, float))
    for parent, key in chance.sample(places, min(len(places), chance.choice([1, 1, 2, 3]))):
        value = (parent[key] or 1) * 10.0 ** chance.uniform(-FACTORS, FACTORS)
        parent[key] = int(value) if isinstance(parent[key], int) and abs(value) < 1e30 else value


def other_shapes(chance: random.Random, document: Any) -> None:
    """A list is a word, a word a list, a mapping its keys or its values, and a value has another around it."""
    places = list(places_of(document))
    if not places:
        return
    parent, key = chance.choice(places)
    value = parent[key]
    if isinstance(value, list):
        parent[key] = chance.choice(
            [",".join(map(str, value)), " ".join(map(str, value)), dict(enumerate(value)), value[:1], value * 40]
        )
    elif isinstance(value, dict):
        parent[key] = chance.choice([list(value), list(value.values()), [value], " ".join(map(str, value)), {key: value}])
    else:
        parent[key] = chance.choice(
            [[value], [value, value], {"value": value}, {key: value}, [[value]], f"{value} {value}", [value] * 300]
        )


def odd_characters(chance: random.Random, document: Any) -> None:
    """A word holds characters that steer terminals, are no letters, or look like numbers; or a key does."""
    places = list(places_of(document))
    if not places:
        return
    parent, key = chance.choice(places)
    character = chance.choice(CHARACTERS)
    if isinstance(parent, dict) and chance.random() < 0.2:
        parent[f"{key}{character}"] = parent.pop(key)
        return
    word = str(parent[key]) if not isinstance(parent[key], dict | list) else ""
    at = chance.randrange(len(word) + 1)
    parent[key] = chance.choice([character, word[:at] + character + word[at:], character * 300])


def moved_values(chance: random.Random, document: Any) -> None:
    """Two places hold each other's values."""
    places = list(places_of(document))
    if len(places) > 1:
        (one, first), (other, second) = chance.sample(places, 2)
        held, taken = copy.deepcopy(one[first]), copy.deepcopy(other[second])
        one[first], other[second] = taken, held


def pieces_of(others: Sequence[Any]) -> Callable[[random.Random, Any], None]:
    """A mutator that puts values of other documents of the same kind into one, under their keys or others."""

    def change(chance: random.Random, document: Any) -> None:
        places = [place for place in places_of(chance.choice(others)) if isinstance(place[0], dict)] if others else []
        mappings = [document, *(parent[key] for parent, key in places_of(document))]
        mappings = [each for each in mappings if isinstance(each, dict)]
        for _ in range(chance.choice([1, 1, 2, 3])):
            if places and mappings:
                parent, key = chance.choice(places)
                same = [each for each in mappings if key in each]
                chance.choice(same if same and chance.random() < 0.6 else mappings)[key] = copy.deepcopy(parent[key])

    return change


def aliases(chance: random.Random, document: Any) -> None:
    """A value stands in many places: a dump writes it once, under an anchor, and refers to it from each."""
    places = [place for place in places_of(document) if isinstance(place[0][place[1]], dict | list)]
    if not places:
        return
    parent, key = chance.choice(places)
    shared: Any = parent[key]
    for _ in range(chance.choice([1, 2, 12])):  # to 4,096 places: what goes further is in tests/exchange/test_hostile_files.py
        shared = chance.choice([[shared, shared], {"a": shared, "b": shared}])
    parent[key] = shared


DOCUMENTS: Final = (edge_numbers, edge_numbers, scaled_numbers, scaled_numbers, other_shapes, odd_characters, moved_values)
"""Mutators of a document; those that are tried more often stand there more than once."""


def odd_text(chance: random.Random, content: bytes) -> bytes:
    """A value of a line, in whatever syntax, is one that only its syntax knows, or has odd characters in it."""
    places = list(LINE.finditer(content))
    if not places:
        at = chance.randrange(len(content) + 1)
        return content[:at] + chance.choice(CHARACTERS).encode("utf-8", errors="surrogatepass") + content[at:]
    place = chance.choice(places)
    words = [chance.choice(YAML_WORDS), chance.choice(CHARACTERS), str(chance.choice(EDGES)), chance.choice(SIZES)]
    value = chance.choice(words).encode("utf-8", errors="surrogatepass")
    return content[: place.start(4)] + value + content[place.end(4) :]
