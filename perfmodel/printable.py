"""What of a text reaches a terminal, a sentence or a spreadsheet: characters that are seen, so many of them, and no formula.

Texts of files (assumptions, sources, names, cells) are shown, and may hold what a terminal obeys: colours, cursor movements,
marks that turn the direction of writing. All printing passes through `printable`.
"""

from __future__ import annotations

import re
from typing import Final

LONGEST_SENTENCE: Final = 320  # characters: four lines of a terminal
_UNSEEN: Final = (
    re.compile(  # controls but for tab and new line, direction marks, joiners, separators of lines, halves of pairs
        "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
        "\U000e0000-\U000e007f]"
    )
)
_FORMULA: Final = re.compile(r"'*[=+\-@\t\r]")
_NUMBER: Final = re.compile(r"[-+]\d+(?:\.\d*)?(?:[eE][-+]?\d+)?")


def printable(text: str) -> str:
    r"""`text` with every character that a terminal would obey, or nobody would see, as its escape; new lines and tabs stay.

    >>> printable("H100 \x1b[31mfast")
    'H100 \\x1b[31mfast'
    """
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode(), text)


def printable_json(text: str) -> str:
    """The text of a JSON document with such characters as its own escapes, so that it reads back as it was."""
    return _UNSEEN.sub(lambda found: _units(found[0]), text)


def _units(character: str) -> str:
    pairs = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{pairs[at]:02x}{pairs[at + 1]:02x}" for at in range(0, len(pairs), 2))


def one_line(sentence: str, *, longest: int = LONGEST_SENTENCE) -> str:
    r"""A sentence on one line, with its middle left out where it is longer than a person reads.

    >>> one_line("a  line\nand another"), one_line("x" * 90 + ".", longest=20)
    ('a line and another', 'xxxxxxxxxxx .. xxxx.')
    """
    line = printable(" ".join(sentence[: 50 * longest].split()))
    if len(line) <= longest:
        return line
    tail = longest // 4
    return f"{line[: longest - tail - 4]} .. {line[-tail:]}"


def as_cell(text: str) -> str:
    """A text as a cell of a table of comma-separated values, with an apostrophe before what a spreadsheet would run.

    >>> as_cell("=1+1"), as_cell("llama"), as_cell("-3.5")
    ("'=1+1", 'llama', '-3.5')
    """
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def of_cell(text: str) -> str:
    """The text that `as_cell` wrote.

    >>> of_cell("'=1+1"), of_cell("''=1+1"), of_cell("'llama'")
    ('=1+1', "'=1+1", "'llama'")
    """
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text
