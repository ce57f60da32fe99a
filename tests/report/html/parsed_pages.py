"""Pages as a reader's browser takes them apart, with the standard library's parser."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from html.parser import HTMLParser

VOID = frozenset({"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"})
LOADING = ("src", "href", "srcset", "data", "action", "formaction", "poster", "background")


class ParsedPage(HTMLParser):
    """What a page holds; `faults` are tags that are not closed, or closed where they are not open."""

    def __init__(self, text: str) -> None:
        """Take `text` apart."""
        super().__init__(convert_charrefs=True)
        self.text = text
        self.faults: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []  # of all attributes that lead somewhere
        self.handlers: list[str] = []  # attributes that run something
        self.styles: list[str] = []
        self.tags: Counter[str] = Counter()
        self.meta: dict[str, str] = {}
        self.words: list[tuple[tuple[str, ...], str]] = []  # the sections and tags around each piece of text
        self.tables: dict[str, list[list[list[str]]]] = {}  # by section: tables of rows of cells
        self._open: list[str] = []
        self._section = ""
        self._is_glued = False  # whether the text goes on with the same word
        self.feed(text)
        self.close()
        self.faults += [f"<{tag}> is never closed" for tag in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what it says, and that it is open."""
        self.tags[tag] += 1
        known = {name: value or "" for name, value in attrs}
        if len(known) < len(attrs):
            self.faults.append(f"<{tag}> says something twice")
        self.ids += [known["id"]] if "id" in known else []
        self.targets += [value for name, value in known.items() if name.rpartition(":")[2] in LOADING]
        self.handlers += [name for name in known if name.startswith("on")]
        self.styles += [value for name, value in known.items() if name == "style" or "url(" in value]
        if tag == "meta":
            self.meta[known.get("http-equiv") or known.get("name") or "charset"] = known.get("content", "")
        if tag == "section":
            self._section = known["id"]
        if tag == "table":
            self.tables.setdefault(self._section, []).append([])
        elif tag == "tr":
            self.tables[self._section][-1].append([])
        elif tag in ("td", "th"):
            self.tables[self._section][-1][-1].append("")
        elif tag == "br" and self._cell():
            self.handle_data("\n")
        self._is_glued = tag == "wbr"
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """One of SVG's that has nothing in it."""
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        """Close what is open."""
        if not self._open or self._open[-1] != tag:
            self.faults.append(f"</{tag}> inside <{self._open[-1] if self._open else ''}>, line {self.getpos()[0]}")
        if tag in self._open:
            while self._open.pop() != tag:
                pass
        if tag == "section":
            self._section = ""

    def handle_data(self, data: str) -> None:
        """Text, also of the cell that it stands in."""
        if data.strip() and self._is_glued:
            around, before = self.words.pop()
            self.words.append((around, before + data))
        elif data.strip():
            self.words.append(((self._section, *self._open), data))
        if self._cell():
            self.tables[self._section][-1][-1][-1] += data

    def _cell(self) -> bool:
        return "td" in self._open or "th" in self._open

    def said(self, inside: str = "body") -> str:
        """All text inside a tag or a section that a reader sees, its spaces made one."""
        hidden = {"script", "style", "title", "desc"}
        pieces = [words for around, words in self.words if inside in around and not hidden & set(around)]
        return " ".join(" ".join(pieces).split())


class FirstSight(HTMLParser):
    """The text that is to be seen before anything is opened or chosen, pictures left out."""

    def __init__(self, text: str) -> None:
        """Read `text`."""
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self._first = next(iter(re.findall(r'id="view-(\d+)" checked', text)), "")
        self._open: list[tuple[str, bool]] = []  # tags, and whether what is in them is hidden
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what hides its content: a script, a picture, what is folded, a view that is not the first."""
        known = {name: value or "" for name, value in attrs}
        hides = tag in ("script", "style", "svg", "title", "head") or "hidden" in known
        hides |= tag == "details" and ("open" not in known or known.get("class") == "alone")
        hides |= known.get("data-view", self._first) != self._first
        if tag not in VOID:
            self._open.append((tag, hides))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """It has no text."""

    def handle_endtag(self, tag: str) -> None:
        """Its content has been read."""
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        """Keep what is to be seen, the titles of what is folded among it."""
        tags = [tag for tag, _ in self._open]
        around = self._open if "summary" not in tags else self._open[: tags.index("summary") - 1]
        if not any(hides for _, hides in around):
            self.pieces.append(data)


def first_sight(text: str) -> str:
    """What a reader sees of a page at first, as words."""
    return " ".join(" ".join(FirstSight(text).pieces).split())


@cache
def parsed_page(text: str) -> ParsedPage:
    """A page that several tests look at, taken apart once."""
    return ParsedPage(text)
