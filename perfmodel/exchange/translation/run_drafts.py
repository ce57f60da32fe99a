"""A run as far as an importer has made it: what was read, what was taken for granted, and what cannot be expressed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from perfmodel.errors import InputError, NotSupportedError, shown
from perfmodel.exchange.translation.conversion import Conversion, nested, uncovered
from perfmodel.exchange.translation.defaults import Default, defaults_of
from perfmodel.exchange.translation.words.word_table import WITHOUT_EFFECT, reading, says_nothing, word_table
from perfmodel.exchange.translation.words.word_values import LARGEST
from perfmodel.light_dataclass import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """Words for the same facts: the table of a format, and what its software is called in sentences.

    `switches_groups`: groups of queries count only where a word of its own switches them on.
    """

    table: str
    software: str
    switches_groups: bool = False


class Facts(dict[str, Any]):
    """Facts by name, and in `used` the names of those that were asked for."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        super().__init__(given)
        self.used: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.used.add(name)
        return super().__getitem__(name)

    def __contains__(self, name: object) -> bool:
        self.used.add(str(name))
        return super().__contains__(name)

    def get(self, name: str, default: Any = None) -> Any:
        """The fact; the default where there is none."""
        self.used.add(name)
        return super().get(name, default)


class RunDraft:
    """Settings by key path and facts of a run, and sentences about them."""

    def __init__(self, given: Mapping[str, Any], dialect: Dialect) -> None:
        """What words with their values say in a dialect. Errors: InputError, under the word, for a value that is none."""
        table = word_table(dialect.table)
        self.said = reading(given, table)
        silent = {each.key.removeprefix("fact."): each.value for each in defaults_of(dialect.table, "fact.")}
        self.facts, self.settings = Facts({**silent, **self.said.facts}), dict(self.said.settings)
        self.dialect, self.given = dialect, given
        self.words = {word.key or word.fact: name for name, word in reversed(list(table.read.items()))}
        self.assumed: list[str] = []
        self.about: dict[str, str] = {}  # of sentences among them the key: with another value of it they are no longer true
        self.ignored: list[str] = []
        self.refused: list[str] = []

    def assume(self, key: str, sentence: str) -> None:
        """Say what is taken for granted of a key."""
        self.assumed.append(sentence)
        self.about[sentence] = key

    def need(self, key: str) -> None:
        """Refuse a file without a setting. Errors: InputError."""
        if key not in self.settings:
            raise InputError("missing; the run needs it", key=self.words[key])

    def take(self, default: Default) -> None:
        """A default, where nothing was said."""
        if default.key not in self.settings:
            self.settings[default.key] = default.value
            self.assumed += [default.says] if default.says else []

    def silent(self, name: str, taken: str) -> None:
        """Say what is taken where a word is not given."""
        self.assumed.append(f"{self.words.get(name, name)} is not given: {taken}")

    def attempt(self, key: str, value: Callable[[], Any]) -> None:
        """A setting that may not be covered: then the reason is kept."""
        try:
            self.settings[key] = value()
        except NotSupportedError as error:
            self.refused.append(str(error))

    def conversion(self, *, format_name: str, name: str, gpus: int | None, stages: Sequence[Mapping[str, Any]]) -> Conversion:
        """The run with its stages, on so many GPUs where that is known."""
        settings = {"name": name, **self.settings, **({"gpus": gpus} if gpus else {}), "stages": list(stages)}
        recipe = next((self.said.names[each] for each in ("fp4_recipe", "fp8_recipe") if each in self.said.names), None)
        names = {**({"precision": recipe} if recipe else {}), **self.said.names}
        if any(key.startswith("model.") for key in settings):
            settings.setdefault("model.name", name)
        return Conversion(
            format=format_name,
            run=nested(settings),
            assumed=tuple(self.assumed),
            about=dict(self.about),
            ignored=(*self.said.ignored, *self.ignored, *self._without_effect()),
            refused=(*self.said.refused, *self.refused, *uncovered(settings, names)),
        )

    def _without_effect(self) -> Iterator[str]:
        """A sentence for each word that was read and that nothing was made of, as the rest of the file leaves it none."""
        unused = (self.said.names[each] for each in self.said.facts if each not in self.facts.used)
        yield from (f"{name}: {WITHOUT_EFFECT}" for name in unused)


def whole(value: Any) -> int | None:
    """A whole number; None where nothing is said. Errors: InputError for what is another value."""
    return None if value is None or says_nothing(value) else number(value, "")


def number(value: Any, key: str) -> int:
    """A whole number. Errors: InputError with the key."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST
    if not is_number or value != int(value):
        raise InputError(f"{shown(value)} where a whole number is needed", key=key)
    return int(value)
