"""One number a layer, as Megatron-LM's flags have it: a number N, or a list in the words of Python such as ([0]*3+[1]*58).

The text is read, never evaluated.
"""

from __future__ import annotations

import re
from typing import Any, Final

from perfmodel.errors import InputError, shown

TOKEN: Final = re.compile(r"\d+|[][()+*,]")
LONGEST: Final = 10_000
DEEPEST: Final = 20


def flags_of_layers(value: Any) -> int | list[int]:
    """The number, or the list of 0 and 1, that a value stands for. Errors: InputError.

    >>> flags_of_layers("([0]*2+[1,0]*2)"), flags_of_layers(2)
    ([0, 0, 1, 0, 1, 0], 2)
    """
    if isinstance(value, int) and not isinstance(value, bool):
        if not 1 <= value <= LONGEST:
            raise InputError(f"{value} is no number of layers")
        return value
    text = f"[{','.join(map(str, value))}]" if isinstance(value, list) and "[" not in str(value[0]) else str(value)
    if isinstance(value, list) and "[" in str(value[0]):
        text = "".join(map(str, value))
    return _Expression(text).value()


class _Expression:
    """Reads sums and multiples of lists: sum = product {+ product}, product = list {* number}, list = [..] or (sum)."""

    def __init__(self, text: str) -> None:
        self.text, self.at, self.depth = text, 0, 0
        self.tokens = TOKEN.findall(text)
        if "".join(self.tokens) != re.sub(r"[\s'\"]", "", text):
            raise self._error()

    def value(self) -> list[int]:
        """The list of the whole text. Errors: InputError."""
        found = self._sum()
        if self.at != len(self.tokens) or not found or set(found) - {0, 1}:
            raise self._error()
        return found

    def _sum(self) -> list[int]:
        found = self._product()
        while self._takes("+"):
            found = self._bounded(len(found) + 1, found) + self._product()
        return found

    def _product(self) -> list[int]:
        found = self._list()
        while self._takes("*"):
            times = self._number()
            found = self._bounded(len(found) * times, found) * times
        return found

    def _list(self) -> list[int]:
        if self._takes("("):
            self.depth += 1
            found = self._sum() if self.depth <= DEEPEST else []
            self.depth -= 1
            self._needs(")")
            return found
        self._needs("[")
        numbers = [self._number()]
        while self._takes(","):
            numbers.append(self._number())
        self._needs("]")
        return numbers

    def _number(self) -> int:
        token = self.tokens[self.at] if self.at < len(self.tokens) else ""
        if not token.isdecimal() or len(token) > len(str(LONGEST)):
            raise self._error()
        self.at += 1
        return int(token)

    def _takes(self, token: str) -> bool:
        is_next = self.at < len(self.tokens) and self.tokens[self.at] == token
        self.at += is_next
        return is_next

    def _needs(self, token: str) -> None:
        if not self._takes(token):
            raise self._error()

    def _bounded(self, length: int, found: list[int]) -> list[int]:
        if length > LONGEST:
            raise self._error()
        return found

    def _error(self) -> InputError:
        return InputError(f"{shown(self.text)} is neither a number nor a list of 0 and 1 such as ([0]*3+[1]*58)")
