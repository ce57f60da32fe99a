"""What each word of a format (a flag, a key path) is to a run, as data/formats/ has it, and what a file says in such words.

A word sets a key of the run, is a fact that the format's own module makes something of, is ignored, or is refused. A word that
is in no table is listed as unknown: it is never dropped in silence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from fnmatch import fnmatchcase
from functools import cache
from typing import Any, Final

from perfmodel.errors import InputError, shown
from perfmodel.exchange.presets import DATA
from perfmodel.exchange.syntax.documents import read_mapping
from perfmodel.exchange.translation.words.word_values import check_fact, check_key
from perfmodel.light_dataclass import dataclass

TABLES: Final = DATA / "formats"
NOTHING: Final = ("", "none", "null")  # values with which a word says nothing
WITHOUT_EFFECT: Final = "without effect, as the rest of the file has it"
UNKNOWN: Final = "nobody here knows it; it is not read"


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """What one word is to a run: the `key` that takes its value, or the `fact` that it is; `value` is what it means bare."""

    name: str
    key: str = ""
    fact: str = ""
    value: Any = None
    values: Mapping[str, Any] | None = None  # what stands for the values that are covered
    argument: str = ""  # its name where all arguments are printed
    when: bool = True  # the truth of that argument that is the word
    free: bool = False  # a name of which a part is enough: variables in it need not be set
    text: bool = False  # its value is no number where it looks like one: commas in it part two
    needs: str = ""  # the degree of the run without which, or with 1 of which, it changes nothing

    def meaning(self, given: Any) -> Any:
        """What a given value means. Errors: InputError for a value that is not covered."""
        if self.values is None:
            if self.key and isinstance(given, list | dict):
                raise InputError(f"{shown(given)} where one value is needed")
            return given if self.text else number_or_text(given)
        folded = {_folded(name): meaning for name, meaning in self.values.items()}
        if isinstance(given, list) and len(set(map(_folded, given))) == 1:  # the same for every layer
            given = given[0]
        if _folded(given) not in folded:
            raise InputError(f"{shown(given)} is not covered; {', '.join(map(str, self.values))} are")
        return folded[_folded(given)]

    def is_silent(self, given: Any) -> bool:
        """Whether a value stands for no value: none does, unless it is one of the values that are covered."""
        is_named = isinstance(given, str) and _folded(given) in map(_folded, self.values or ())
        return says_nothing(given) and not is_named


@dataclass(frozen=True, slots=True, kw_only=True)
class Ignored:
    """Words that are not read, by their subject, and how they could matter: empty where they do not."""

    what: str
    words: tuple[str, ...]
    matters: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotYet:
    """Patterns of words for what is known and not covered yet, and the values with which they ask for nothing."""

    what: str
    words: tuple[str, ...]
    off: tuple[str, ...] = ()

    def is_asked(self, name: str, value: Any) -> bool:
        """Whether a word asks for it."""
        return any(fnmatchcase(str(name), each) for each in self.words) and _folded(value) not in self.off


@dataclass(frozen=True, slots=True, kw_only=True)
class WordTable:
    """All words of one format."""

    read: Mapping[str, Word]
    ignored: Sequence[Ignored]
    refused: Mapping[str, str]
    not_yet: Sequence[NotYet]

    def is_off(self, name: str) -> bool:
        """Whether a word that asks for nothing is one of what is not covered yet."""
        return name in self.refused or any(fnmatchcase(str(name), pattern) for each in self.not_yet for pattern in each.words)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileReading:
    """What a file says: keys of a run, facts, and a sentence for every word that is neither."""

    settings: Mapping[str, Any]
    facts: Mapping[str, Any]
    ignored: tuple[str, ...]
    refused: tuple[str, ...]
    names: Mapping[str, str] = field(default_factory=dict)  # the word that a key or a fact was read from


@cache
def word_table(name: str) -> WordTable:
    """The table of a format, with what is not covered yet in any format."""
    table, not_yet = read_mapping(TABLES / f"{name}.yaml"), _not_yet()
    read = {word: _word(word, row) for word, row in table["read"].items()}
    ignored = tuple(
        Ignored(what=row["what"], matters=row.get("matters", ""), words=tuple(row["words"].split())) for row in table["ignored"]
    )
    return WordTable(read=read, ignored=ignored, refused=table.get("refused", {}), not_yet=not_yet)


@cache
def _not_yet() -> tuple[NotYet, ...]:
    rows = read_mapping(TABLES / "not_yet.yaml")["not_yet"]
    return tuple(
        NotYet(what=row["what"], words=tuple(row["words"].split()), off=tuple(map(_folded, (*row["off"], *NOTHING))))
        for row in rows
    )


def _word(name: str, row: Any) -> Word:
    return Word(name=name, key=row) if isinstance(row, str) else Word(name=name, **row)


def reading(given: Mapping[str, Any], table: WordTable) -> FileReading:
    """What words with their values say of a run. Errors: InputError, under the word, for a value that cannot be read."""
    settings: dict[str, Any] = {}
    facts: dict[str, Any] = {}
    names: dict[str, str] = {}
    ignored: list[str] = []
    refused: list[str] = []
    needing: dict[str, str] = {}
    for name, value in given.items():
        word = table.read.get(name)
        if reason := next(_refusals(name, value, table), ""):
            refused.append(reason)
        elif word is not None and not word.is_silent(value):
            if word.value is not None and not is_true(value):
                continue
            try:
                meaning = word.value if word.value is not None else word.meaning(value if word.free else _resolved(value))
                if word.values is None:
                    _check(word, meaning)
            except InputError as error:
                if value is True and name.startswith("--"):
                    raise InputError("it needs a value, and has none", key=name) from None
                if word.values is None:
                    raise error.under(name) from None
                refused.append(f"{name} {error}")
                needing |= {refused[-1]: word.needs} if word.needs else {}
                continue
            (settings if word.key else facts)[word.key or word.fact] = meaning
            names[word.key or word.fact] = name
        elif word is None and not says_nothing(value) and not table.is_off(name):
            ignored.append(_ignored(name, table))
    idle = [each for each in refused if each in needing and settings.get(needing[each], 1) == 1]
    ignored += [f"{each.split(' ', 1)[0]}: {WITHOUT_EFFECT}" for each in idle]
    refused = [each for each in refused if each not in idle]
    return FileReading(settings=settings, facts=facts, ignored=tuple(ignored), refused=tuple(refused), names=names)


def _check(word: Word, meaning: Any) -> None:
    """Refuse a value that the key or the fact of a word cannot have. Errors: InputError."""
    if word.key:
        check_key(word.key, meaning)
    else:
        check_fact(word.fact, meaning, table=str(TABLES / "facts.yaml"))


def _refusals(name: str, value: Any, table: WordTable) -> Iterator[str]:
    """Why a word is refused, where it is."""
    typed = name if is_true(value) and isinstance(value, bool) else f"{name} {_typed(value)}"
    for each in table.not_yet:
        if each.is_asked(name, value):
            yield f"{typed}: {each.what} is known but not supported yet"
    if name in table.refused and not says_nothing(value) and _folded(value) != "false":
        yield f"{typed}: {table.refused[name]} cannot be expressed yet"


def _ignored(name: str, table: WordTable) -> str:
    for each in table.ignored:
        if any(fnmatchcase(str(name), pattern) for pattern in each.words):
            return f"{name}: {each.what}" + (f" ({each.matters})" if each.matters else "")
    return f"{name}: {UNKNOWN}"


def _resolved(value: Any) -> Any:
    """A value in which no variable of a shell or a configuration is left. Errors: InputError."""
    for each in value if isinstance(value, list) else (value,):
        if isinstance(each, str) and "$" in each:
            raise InputError(f"{shown(each)} is set nowhere in this file; write its value there")
    return value


def _typed(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _folded(value: Any) -> str:
    return str(value).strip().lower()


def says_nothing(value: Any) -> bool:
    """Whether a value stands for no value: null, none, an empty text or list."""
    return value is None or value == [] or (isinstance(value, str) and _folded(value) in NOTHING)


def is_true(value: Any) -> bool:
    """Whether a switch is on: bare, true, yes, or a number that is not 0."""
    return value is True or (value is not False and _folded(value) not in ("false", "0", "no", "off", *NOTHING))


def number_or_text(value: Any) -> Any:
    """A value from a command line as a whole number or a number where it is one.

    >>> number_or_text("4096"), number_or_text("1e-5"), number_or_text("rope")
    (4096, 1e-05, 'rope')
    """
    if not isinstance(value, str):
        return value
    for kind in (int, float):
        try:
            number = kind(value.replace(",", "")) if kind is int else kind(value)
        except ValueError:
            continue
        return number if abs(number) < float("inf") else value
    return value


def interpolated(given: Mapping[str, Any]) -> dict[str, Any]:
    """Key paths whose values may be `${other.key}`, with what stands there.

    >>> interpolated({"a.b": 2, "c": "${a.b}", "d": "${sum:1,2}"})
    {'a.b': 2, 'c': 2, 'd': '${sum:1,2}'}
    """
    return {key: _at(value, given) for key, value in given.items()}


def _at(value: Any, given: Mapping[str, Any], depth: int = 5) -> Any:
    if not depth or not isinstance(value, str) or not (value.startswith("${") and value.endswith("}")):
        return value
    key = value[2:-1].strip()
    return _at(given[key], given, depth - 1) if key in given else value


def flattened(mapping: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Nested mappings as key paths with their values; lists stay whole.

    >>> flattened({"optim": {"name": "adam"}, "lr": 1})
    {'optim.name': 'adam', 'lr': 1}
    """
    result: dict[str, Any] = {}
    for key, value in mapping.items():
        here = f"{path}.{key}" if path else str(key)
        if isinstance(value, Mapping) and value:
            result |= flattened(value, here)
        else:
            result[here] = value
    return result
