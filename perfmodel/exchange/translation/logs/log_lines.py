"""The lines of a log, one after the other: without colours and without the rank that a launcher puts before them.

A log may be larger than memory and broken in any place: it is read in pieces, bytes that are no text become marks, and a line
without an end is cut.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from perfmodel.errors import InputError
from perfmodel.light_dataclass import dataclass
from perfmodel.units import DECIMAL_PREFIXES

LONGEST_LINE: Final = 1 << 16  # bytes; what follows counts as another line
COLOURS: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]{0,300}\x07")
RANK: Final = re.compile(r"\s*(?:\[(?:default|rank|Rank )?(\d+)\]:?\s?|(\d+):\s)")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """A line of a log, and the rank that printed it where that is told ("" where not); `end` is its newline, empty if cut."""

    text: str
    rank: str = ""
    end: str = ""


def plain(text: str) -> str:
    r"""Text without colours.

    >>> plain("\x1b[32mstep:  1\x1b[39m")
    'step:  1'
    """
    return COLOURS.sub("", text) if "\x1b" in text else text


def line_of(text: str, end: str = "") -> LogLine:
    """A line without its colours and its rank.

    >>> line_of("[default7]: iteration 5"), line_of(" 3: iteration 5").rank
    (LogLine(text='iteration 5', rank='7', end=''), '3')
    """
    text = plain(text).rstrip()
    if "\r" in text:  # of a progress bar: what it shows last
        text = text.rpartition("\r")[2]
    found = RANK.match(text)
    if found is None:
        return LogLine(text=text, end=end)
    return LogLine(text=text[found.end() :], rank=found[1] or found[2] or "", end=end)


def lines_of(path: Path, marks: Sequence[bytes]) -> Iterator[LogLine]:
    """The lines of the file at `path` that have one of the `marks`, and what a progress bar shows after each other.

    Errors: InputError for a file that cannot be read.
    """
    try:
        with path.open("rb") as file:
            while raw := file.readline(LONGEST_LINE):
                if any(mark in raw for mark in marks):
                    end = "\n" if raw.endswith(b"\n") else ""
                    shown = [each for each in raw.rstrip(b"\r\n").split(b"\r") if any(mark in each for mark in marks)]
                    for place, each in enumerate(shown, 1):
                        yield line_of(each.decode("utf-8", errors="replace"), end if place == len(shown) else "\n")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {(error.strerror or 'unknown reason').lower()}") from None


def pairs_of(text: str, *, ends: bool = True) -> dict[str, str]:
    """The `key: value` pairs of a line that is parted by `|`; the last one counts only where the line ends, or is let to.

    >>> pairs_of(" iteration 5/ 10 | elapsed time per iteration (ms): 4812.3 | lm loss: 2.1")
    {'elapsed time per iteration (ms)': '4812.3'}
    """
    parts = text.rstrip().split("|")
    if ends:
        parts = parts[:-1]  # empty behind a last |, or cut
    split = (part.partition(":") for part in parts)
    return {key.strip(): value.strip() for key, colon, value in split if colon}


def field_of(text: str, *keys: str) -> float | None:
    """The number behind the first of the keys that a line parted by `|` has; none where the line is cut before the next `|`.

    >>> field_of("elapsed time per iteration (ms): 4812.3 | lm loss: 2", "elapsed time per iteration (ms)")
    4812.3
    """
    for key in keys:
        start = text.find(f"{key}:")
        if start < 0:
            continue
        end = text.find("|", start)
        value = text[start + len(key) + 1 : end] if end >= 0 else ""
        try:
            number = float(value)
        except ValueError:
            return number_in(value)
        return number if number == number and abs(number) != float("inf") else None  # noqa: PLR0124 - not a number
    return None


NUMBER: Final = re.compile(r"([-+]?\d[\d,]*(?:\.\d*)?(?:[eE][-+]?\d+)?)\s*([KMGBT])?(?:iB|B)?\b")


def number_in(text: str | None) -> float | None:
    """The first number of a text, as people write it: 4812.3, 6,150, 61.4K, or 120.1/118.7 of which the first counts.

    >>> number_in("6,150"), number_in("61.4K"), number_in("120.1/118.7"), number_in("nan")
    (6150.0, 61400.0, 120.1, None)
    """
    found = NUMBER.match(text.strip()) if text else None
    return float(found[1].replace(",", "")) * DECIMAL_PREFIXES[found[2] or ""] if found else None
