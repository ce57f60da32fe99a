"""How names become text in a picture: drawn as they are written, on one line, no wider than there is room for."""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import Final

from matplotlib.font_manager import FontProperties, get_font_names
from matplotlib.textpath import text_to_path

OTHER_SCRIPTS: Final = (  # where they are installed; DejaVu Sans comes with matplotlib and has Latin, Greek and Cyrillic
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "Hiragino Sans", "PingFang SC", "Microsoft YaHei"),
    *("Noto Sans Arabic", "Noto Sans Hebrew", "Noto Sans Devanagari"),
)
JOINERS: Final = "\u200c\u200d"  # invisible, but they change the letters beside them
CUT: Final = "..."


@cache
def families() -> tuple[str, ...]:
    """DejaVu Sans, and what is installed for the letters that it does not have."""
    known = set(get_font_names())
    return ("DejaVu Sans", *(name for name in OTHER_SCRIPTS if name in known))


@contextmanager
def strange_letters() -> Iterator[None]:
    """Letters that no font has are drawn as boxes: a name is no reason for a warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support", category=UserWarning)
        yield


def literal(text: str) -> str:
    r"""`text` on one line, without what no one can see: line breaks, control characters, marks that turn the direction.

    >>> literal("a\n $b$ \x1b[31m<c>")
    'a $b$ [31m<c>'
    """
    visible = "".join(" " if unicodedata.category(each)[0] in "CZ" and each not in JOINERS else each for each in text)
    return " ".join(visible.split())


@lru_cache(maxsize=4096)
def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """How wide a line of text is [points], at `size` points.

    >>> text_width("mm", 10.0) > text_width("ii", 10.0)
    True
    """
    font = FontProperties(family=list(families()), size=size, weight="bold" if bold else "normal")
    with strange_letters():
        width, _, _ = text_to_path.get_text_width_height_descent(text, font, False)
    return float(width)


def shortened(text: str, points: float, size: float, *, bold: bool = False) -> str:
    """`text` drawn literally in at most so many points, its middle cut where it is longer: both ends of names tell most.

    >>> shortened("layer.mlp.fc1", 1000.0, 8.0)
    'layer.mlp.fc1'
    >>> shortened("a very long name of a run", 60.0, 8.0)
    'a ver...run'
    """
    line = literal(text)
    if text_width(line, size, bold=bold) <= points:
        return line
    least, most = 0, len(line) - 1  # letters that are kept
    while least < most:
        kept = (least + most + 1) // 2
        least, most = (kept, most) if text_width(_cut(line, kept), size, bold=bold) <= points else (least, kept - 1)
    return _cut(line, least)


def _cut(line: str, kept: int) -> str:
    """The first three fifths and the last two fifths of so many letters."""
    last = 2 * kept // 5
    return line[: kept - last].rstrip() + CUT + (line[len(line) - last :].lstrip() if last else "")


def lines_of(text: str, points: float, size: float, *, most: int, bold: bool = False) -> list[str]:
    """`text` in at most so many lines of so many points; what does not fit into the last one is cut.

    >>> lines_of("one two three", 35.0, 8.0, most=2)
    ['one two', 'three']
    """
    words, lines = literal(text).split(), [""]
    for place, word in enumerate(words):
        longer = f"{lines[-1]} {word}".strip()
        if not lines[-1] or text_width(longer, size, bold=bold) <= points:
            lines[-1] = longer
        elif len(lines) < most:
            lines.append(word)
        else:
            lines[-1] = " ".join([lines[-1], *words[place:]]).strip()
            break
    return [shortened(line, points, size, bold=bold) for line in lines]
