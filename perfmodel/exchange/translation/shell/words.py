"""The words of a shell script, as text: quotes, comments, line continuations, arrays and here-documents. Nothing is run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from perfmodel.light_dataclass import dataclass

BARE, DOUBLE, SINGLE = "bare", "double", "single"
SPACES: Final = " \t\r"
OPERATORS: Final = ("&&", "||", ";;", "\n", ";", "|", "&", "(", ")")
ARRAY: Final = re.compile(r"([A-Za-z_]\w*)(\+?)=")
REDIRECTION: Final = re.compile(r"\d*(?:&>>?|>>|>&|<&|<>|>\||<|>)")
HERE: Final = re.compile(r"\d*<<(-?)[ \t]*(['\"]?)([^\s'\";|&<>()]+)\2")
PLAIN: Final = re.compile(r"[A-Za-z_]\w*|[0-9@*#?$!]")  # the name of a variable
DEEPEST: Final = 20  # parentheses inside each other
CLOSING: Final = {"(": ")", "{": "}"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ShellPiece:
    """Part of a word, and how it was quoted."""

    text: str
    quoting: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A word, an operator, an array that is assigned (its words), or the text of a here-document."""

    kind: str  # word | operator | array | here
    text: str = ""
    pieces: tuple[ShellPiece, ...] = ()
    words: tuple[Token, ...] = ()
    appends: bool = False


def tokens(script: str) -> list[Token]:
    """The tokens of a script; what is not closed ends where the text does."""
    return list(_Scanner(script).tokens())


class _Scanner:
    """Reads a script from its start to its end."""

    def __init__(self, script: str) -> None:
        self.text, self.at = script, 0
        self.awaited: list[str] = []  # delimiters of here-documents that begin at the next line

    def tokens(self, closing: str = "") -> Iterator[Token]:
        """Tokens up to the end, or to an operator `closing`."""
        while self._skip_blanks():
            if here := HERE.match(self.text, self.at):
                self.at = here.end()
                self.awaited.append(here[3])
            elif not self.text.startswith(("<(", ">("), self.at) and (found := REDIRECTION.match(self.text, self.at)):
                self.at = found.end()
                self._skip_blanks()
                self._word()
            elif operator := next((each for each in OPERATORS if self.text.startswith(each, self.at)), ""):
                self.at += len(operator)
                if operator == closing:
                    return
                yield Token(kind="operator", text=operator)
                if operator == "\n":
                    yield from self._here_documents()
            else:
                yield self._array_or_word(inside=bool(closing))

    def _skip_blanks(self) -> bool:
        """Skip blanks, continued lines and comments; whether anything is left."""
        while self.at < len(self.text):
            if self.text[self.at] in SPACES:
                self.at += 1
            elif self._continues():
                self.at = self.text.index("\n", self.at) + 1
            elif self.text[self.at] == "#":
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
            else:
                return True
        return False

    def _continues(self) -> bool:
        """Whether a line is continued in the next one here."""
        return self.text.startswith(("\\\n", "\\\r\n"), self.at)

    def _here_documents(self) -> Iterator[Token]:
        for delimiter in self.awaited:
            found = re.compile(rf"^[ \t]*{re.escape(delimiter)}[ \t]*$", re.MULTILINE).search(self.text, self.at)
            end = found.start() if found else len(self.text)
            yield Token(kind="here", text=self.text[self.at : end])
            self.at = found.end() if found else len(self.text)
        self.awaited = []

    def _array_or_word(self, *, inside: bool) -> Token:
        array = None if inside else ARRAY.match(self.text, self.at)
        if array and self.text.startswith("(", array.end()):
            self.at = array.end() + 1
            words = tuple(each for each in self.tokens(")") if each.kind == "word")
            return Token(kind="array", text=array[1], words=words, appends=bool(array[2]))
        start = self.at
        word = self._word()
        self.at = max(self.at, start + 1)  # never stands still
        return word

    def _word(self) -> Token:
        pieces = []
        while self.at < len(self.text):
            letter = self.text[self.at]
            if letter == "'":
                pieces.append(self._single())
            elif letter == '"':
                pieces.append(self._double())
            elif letter in f"{SPACES}<>" or self.text.startswith(OPERATORS, self.at) or self._continues():
                break
            else:
                pieces.append(self._bare())
        return Token(kind="word", pieces=tuple(pieces))

    def _single(self) -> ShellPiece:
        end = self.text.find("'", self.at + 1)
        end = len(self.text) if end < 0 else end
        text, self.at = self.text[self.at + 1 : end], end + 1
        return ShellPiece(text=text, quoting=SINGLE)

    def _double(self) -> ShellPiece:
        self.at += 1
        start = self.at
        while self.at < len(self.text) and self.text[self.at] != '"':
            self.at = self._past_expansion() if self.text[self.at] == "$" else self.at + 1 + (self.text[self.at] == "\\")
        text = re.sub(r"\\\r?\n", " ", self.text[start : self.at])
        self.at += 1
        return ShellPiece(text=re.sub(r'\\(["\\])', r"\1", text), quoting=DOUBLE)

    def _bare(self) -> ShellPiece:
        start = self.at
        if self.text[self.at] == "\\":
            self.at += 2
            return ShellPiece(text=self.text[start + 1 : self.at], quoting=SINGLE)
        if self.text[self.at] in "$`":
            self.at = self._past_expansion()
            return ShellPiece(text=self.text[start : self.at], quoting=BARE)
        self.at += 1
        while self.at < len(self.text) and self.text[self.at] not in " \t\r\n;|&()<>'\"\\$`":
            self.at += 1
        return ShellPiece(text=self.text[start : self.at], quoting=BARE)

    def _past_expansion(self) -> int:
        """Where an expansion that begins here ends: `$NAME`, `${..}`, `$(..)`, or text between backquotes."""
        if self.text[self.at] == "`":
            end = self.text.find("`", self.at + 1)
            return len(self.text) if end < 0 else end + 1
        opening = self.text[self.at + 1 : self.at + 2]
        if opening not in CLOSING:
            name = PLAIN.match(self.text, self.at + 1)
            return name.end() if name else self.at + 1
        closing, depth, at = CLOSING[opening], 0, self.at + 1
        while at < len(self.text):
            depth += (self.text[at] == opening) - (self.text[at] == closing)
            at += 1
            if depth == 0 or depth > DEEPEST:
                break
        return at
