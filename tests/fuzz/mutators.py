"""How an input is broken: bytes, tokens, structures of YAML and JSON, cells of tables, and numbers to their extremes.

Each mutator takes a source of chance and the bytes of a file, and gives other bytes. None knows a format by name: one that
finds nothing of its kind in a file leaves it as it is.
"""

from __future__ import annotations

import copy
import csv
import gzip
import io
import json
import random
import re
import tomllib
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import yaml

from tests.fuzz import edges

Mutator: TypeAlias = Callable[[random.Random, bytes], bytes]
Place: TypeAlias = re.Match[bytes]

BYTES: Final = b"0123456789-.[]{}:\"'$\n\t ,#&*!|>%@`axe\xff\x00\xc3"
NUMBER: Final = re.compile(rb"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
TOKEN: Final = re.compile(rb"[\w.-]+|[^\w\s]")
EXTREMES: Final = (
    *(b"0", b"-0.0", b"-1", b"1", b"2", b"1e-300", b"1e300", b"1e308", b"1e999", b"-1e999", b"nan", b"NaN", b"Infinity"),
    *(b"9" * 20, b"9" * 400, b"0.1", b"1e-6", b"2147483648", b"4294967297", b"1.5", b"true", b'""', b"1e9", b"7", b"1" * 5000),
)
VALUES: Final[tuple[Any, ...]] = (
    *(None, True, False, "", "x", " ", "8 8", "${a}", "400Gb/s", "-1", "1e999", "nan", "=1+1", "../..", "\u00e9\u4e2d"),
    *(0, -1, 1, 3, 7, 10**9, 10**30, -(10**30), 1.5, 1e-300, 1e308, float("inf"), float("nan")),
    *([], {}, [1, 2], {"value": 3}, {"extends": "x"}, [None], [[]], "x" * 2000),
)
MOST_CHANGES: Final = 4
MOST_TRIED: Final = 8
GZIP: Final = b"\x1f\x8b"
INSIDE: Final = 0.8
ALIASED: Final = 0.03


def changed_bytes(chance: random.Random, content: bytes) -> bytes:
    """A few bytes are others."""
    broken = bytearray(content or b" ")
    for _ in range(_few(chance)):
        broken[chance.randrange(len(broken))] = chance.choice(BYTES)
    return bytes(broken)


def cut(chance: random.Random, content: bytes) -> bytes:
    """The end is missing, or a piece from the middle."""
    start, end = sorted(chance.randrange(len(content) + 1) for _ in range(2))
    return content[:start] if chance.random() < 0.5 else content[:start] + content[end:]


def repeated(chance: random.Random, content: bytes) -> bytes:
    """A line, or a piece of one, stands there many times."""
    lines = content.split(b"\n")
    place, times = chance.randrange(len(lines)), chance.choice([2, 3, 50])
    line = lines[place]
    lines[place] = b"\n".join([line] * times) if chance.random() < 0.7 else line * times
    return b"\n".join(lines)


def swapped_lines(chance: random.Random, content: bytes) -> bytes:
    """Two lines have changed places, or one is gone."""
    lines = content.split(b"\n")
    one, other = (chance.randrange(len(lines)) for _ in range(2))
    if chance.random() < 0.5:
        lines[one], lines[other] = lines[other], lines[one]
    else:
        del lines[one]
    return b"\n".join(lines)


def extreme_numbers(chance: random.Random, content: bytes) -> bytes:
    """Some numbers are the least, the greatest, none, or no numbers."""
    places = list(NUMBER.finditer(content))
    return _replaced(chance, content, places, lambda _: chance.choice(EXTREMES))


def nudged_numbers(chance: random.Random, content: bytes) -> bytes:
    """Some whole numbers are others that a person may mean, or nearly."""

    def other(place: re.Match[bytes]) -> bytes:
        value = float(place.group()[:15])
        return f"{chance.choice([value + 1, value - 1, 2 * value, value / 2, 1000 * value, value / 1000]):.15g}".encode()

    places = list(NUMBER.finditer(content))
    return _replaced(chance, content, places, other)


def exchanged_tokens(chance: random.Random, content: bytes) -> bytes:
    """Some words are others that stand in the same file."""
    places = list(TOKEN.finditer(content))
    return _replaced(chance, content, places, lambda _: chance.choice(places).group())


def changed_structure(chance: random.Random, content: bytes) -> bytes:
    """Values of a document are of other types, keys are gone, twice in other places, or unknown."""
    document = _document(content)
    if not isinstance(document, dict | list):
        return content
    changed = copy.deepcopy(document)
    for _ in range(_few(chance)):
        every = list(edges.places_of(changed))
        if every:
            _change(chance, *chance.choice(every))
    return _written(chance, content, changed)


def at_the_edges(chance: random.Random, content: bytes, others: Sequence[bytes] = ()) -> bytes:
    """Values of a document are at the edges of what may be, of other shapes, or pieces of other documents (edges.py)."""
    document = _document(content)
    if not isinstance(document, dict | list):
        return edges.odd_text(chance, content)
    changed = copy.deepcopy(document)
    known = [each for each in map(_document, chance.sample(list(others), min(len(others), 2))) if each]
    try:
        chance.choice([*edges.DOCUMENTS, edges.pieces_of(known), edges.pieces_of(known)])(chance, changed)
    except OverflowError:  # a whole number that was made endless before
        return content
    if chance.random() < ALIASED and not _is_json(content):
        edges.aliases(chance, changed)
    return _written(chance, content, changed)


def _written(chance: random.Random, content: bytes, document: Any) -> bytes:
    """A document in the syntax that it was in: a file of settings that is no JSON is YAML, or TOML where it was."""
    try:
        if _is_json(content):
            return json.dumps(document, ensure_ascii=chance.random() < 0.5).encode("utf-8", errors="surrogatepass")
        if _is_toml(content):
            return _toml(document)
        return yaml.safe_dump(document, sort_keys=False, allow_unicode=True).encode("utf-8", errors="surrogatepass")
    except (yaml.YAMLError, RecursionError, TypeError, ValueError):
        return content


def _is_json(content: bytes) -> bool:
    return content.lstrip().startswith((b"{", b"["))


def _is_toml(content: bytes) -> bool:
    return b" = " in content and content.lstrip().startswith(b"[")


def _toml(document: Any, prefix: str = "") -> bytes:
    """A mapping as TOML: values first, then the sections below it."""
    lines = [f"[{prefix}]"] if prefix else []
    for key, value in document.items():
        if not isinstance(value, dict):
            lines.append(f"{json.dumps(str(key))} = {json.dumps(value)}")
    below = [_toml(value, f"{prefix}.{key}".lstrip(".")) for key, value in document.items() if isinstance(value, dict)]
    return b"\n".join(["\n".join(lines).encode("utf-8", errors="surrogatepass"), *below])


def changed_cells(chance: random.Random, content: bytes) -> bytes:
    """Some cells of a table hold other things, or columns have other names."""
    try:
        rows = list(csv.reader(io.StringIO(content.decode())))
    except (UnicodeDecodeError, csv.Error):
        return content
    if len(rows) < 2 or len(rows[0]) < 3:
        return content
    for _ in range(_few(chance)):
        row = rows[0] if chance.random() < 0.1 else chance.choice(rows[1:])
        if row:
            words = [str(chance.choice(VALUES)), chance.choice(EXTREMES).decode(), chance.choice(row)]
            row[chance.randrange(len(row))] = chance.choice(words)
    written = io.StringIO()
    csv.writer(written).writerows(rows)
    return written.getvalue().encode("utf-8", errors="replace")


def odd_text(chance: random.Random, content: bytes) -> bytes:
    """A line says something that only its syntax knows, or holds odd characters (edges.py)."""
    return edges.odd_text(chance, content)


WEIGHTS: Final[dict[Mutator, int]] = {  # how often each of them is tried first
    changed_bytes: 1,
    cut: 1,
    repeated: 1,
    swapped_lines: 1,
    extreme_numbers: 3,
    nudged_numbers: 4,
    exchanged_tokens: 2,
    changed_structure: 6,
    changed_cells: 4,
    odd_text: 3,
    at_the_edges: 12,
}


def mutated(chance: random.Random, content: bytes, others: Sequence[bytes] = ()) -> bytes:
    """A file broken by one mutator, or by several one after the other; one that finds nothing makes way for another.

    What is compressed is broken as it is, or inside; `others` are files of the same reader, of which pieces may be taken.
    """
    if content.startswith(GZIP) and chance.random() < INSIDE:
        return gzip.compress(mutated(chance, gzip.decompress(content)), mtime=0)
    broken = content
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        for mutator in chance.choices([*WEIGHTS], [*WEIGHTS.values()], k=MOST_TRIED):
            other = at_the_edges(chance, broken, others) if mutator is at_the_edges else mutator(chance, broken)
            if other != broken:
                broken = other
                break
    return broken


def _few(chance: random.Random) -> int:
    """How many changes are made: mostly one, so that what is read goes on to the next check."""
    return chance.choice([1, 1, 1, 2, MOST_CHANGES])


def _replaced(chance: random.Random, content: bytes, places: list[Place], other: Callable[[Place], bytes]) -> bytes:
    """The content with some of its places changed."""
    chosen = chance.sample(places, min(len(places), _few(chance)))
    for place in sorted(chosen, key=lambda match: -match.start()):
        content = content[: place.start()] + other(place) + content[place.end() :]
    return content


def _document(content: bytes) -> Any:
    """What a text says as YAML, JSON or TOML; None where it says nothing."""
    try:
        return tomllib.loads(content.decode()) if _is_toml(content) else yaml.safe_load(content.decode())
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError, TypeError, AttributeError, KeyError):
        return None


def _change(chance: random.Random, parent: Any, key: Any) -> None:
    """One value becomes another, goes, or moves to another key."""
    how = chance.random()
    if how < 0.6:
        parent[key] = copy.deepcopy(chance.choice(VALUES))
    elif how < 0.75:
        del parent[key]
    elif how < 0.85 and isinstance(parent, dict):
        parent[chance.choice(["", "unknown", "extends", "name", 3, None, key])] = parent.pop(key)
    elif isinstance(parent, list):
        parent.append(copy.deepcopy(parent[key]))
    else:
        parent[key] = [parent[key]]
