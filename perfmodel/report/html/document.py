"""One page of HTML that needs nothing else: it opens from disk, prints, follows the reader's theme, and asks no network.

A page is a verdict, what is to be seen at a glance, and sections. What a reader asks for first is open, the rest is folded
under its title with a few words of what is in it. Parts may be views (a stage, a scenario), of which a reader chooses one:
rules of CSS hide the others, so that this works without scripts, and where it does not, all are shown. Tables behind pictures
are folded, so that a number stands once in what is open.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import field
from functools import cache
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from string import Template
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from perfmodel import __version__
from perfmodel.exchange.output import write_text
from perfmodel.frames import OneLine
from perfmodel.light_dataclass import dataclass
from perfmodel.report.html.blocks import escaped, with_whole_percents

if TYPE_CHECKING:
    from perfmodel.report.figures.drawing.style import Drawing

EVERY: Final = "all"
LONG_TITLE: Final = 60  # letters; longer ones are written smaller
NO_FIGURES: Final[Mapping[str, Drawing]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of a page under a title; `name` is its anchor, `content` is HTML.

    Folded, it has its title and `gist`, a few words of what is in it. What is `half` wide stands beside another one.
    """

    name: str
    title: str
    content: str
    gist: str = ""
    is_open: bool = False
    is_half: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PageChoice:
    """What views differ in (stage, scenario): the label of each, and the place of the one that is shown first."""

    what: str
    labels: tuple[str, ...]
    first: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PageHeader:
    """What a page begins with; `verdict` and `live` are HTML. `answer` is whether everything fits.

    `live` are sliders (live.py), which move the numbers at a glance that `moved` names by their labels.
    """

    title: str
    subtitle: str
    answer: bool
    verdict: str
    glance: Mapping[str, tuple[str, str]]  # label -> number, and what is said of it in small letters
    live: str = ""
    moved: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Page(OneLine):
    """A page and the figures that are in it, by name in their order."""

    title: str
    fits: bool
    html: str
    figures: Mapping[str, Drawing]

    @property
    def summary(self) -> str:
        """Its title, and how much is on it."""
        return f"{self.title}, {len(self.figures)} figures, {len(self.html) / 1e3:,.0f} kB of HTML"

    def save(self, path: str | Path) -> None:
        """Write the page to a file, whole or not at all."""
        write_text(Path(path), self.html)

    def _repr_html_(self) -> str:
        """A notebook shows it in a frame of its own."""
        return f'<iframe srcdoc="{escaped(self.html)}" title="{escaped(self.title)}" width="100%" height="800"></iframe>'


def page(
    opening: PageHeader,
    sections: Sequence[Section],
    *,
    choice: PageChoice | None = None,
    command: str = "",
    figures: Mapping[str, Drawing] = NO_FIGURES,
) -> Page:
    """The whole page; `command` is the one that makes it again."""
    script = _asset("page.js")
    rules = "" if choice is None else _rules(choice)
    text = Template(_asset("page.html")).substitute(
        title=escaped(opening.title),
        heading=escaped(opening.title),
        size="long" if len(opening.title) > LONG_TITLE else "short",
        subtitle=escaped(opening.subtitle),
        answer="yes" if opening.answer else "no",
        verdict=opening.verdict,
        glance=_glance(opening.glance, opening.moved),
        live=opening.live,
        contents="\n".join(f'<li><a href="#{each.name}">{escaped(each.title)}</a></li>' for each in sections),
        switch="" if choice is None else _switch(choice),
        sections="\n".join(_section(each) for each in sections),
        origin=_origin(command),
        style=_asset("page.css") + rules,
        script=script,
        script_hash=b64encode(sha256(f"\n{script}\n".encode()).digest()).decode(),
    )
    return Page(title=opening.title, fits=opening.answer, html=text, figures=figures)


def views(contents: Sequence[str], choice: PageChoice | None) -> str:
    """One part of a page for each choice, under its label; without a choice there is one part."""
    if choice is None:
        return "\n".join(contents)
    labelled = zip(choice.labels, contents, strict=True)
    return "\n".join(
        f'<div class="view" data-view="{place}">\n<h3>{escaped(label)}</h3>\n{content}\n</div>'
        for place, (label, content) in enumerate(labelled)
    )


def _section(section: Section) -> str:
    gist = f' <span class="gist">{with_whole_percents(escaped(section.gist))}</span>' if section.gist else ""
    kinds, state = "part half" if section.is_half else "part", " open" if section.is_open else ""
    return (
        f'<details class="{kinds}"{state}>\n<summary><h2>{escaped(section.title)}</h2>{gist}</summary>\n'
        f'<section id="{section.name}">\n{section.content}\n</section>\n</details>'
    )


def _glance(numbers: Mapping[str, tuple[str, str]], moved: Mapping[str, str]) -> str:
    cells = []
    for label, (number, more) in numbers.items():
        said = f" <small>{with_whole_percents(escaped(more))}</small>" if more else ""
        name = f' data-quantity="{escaped(moved[label])}"' if label in moved else ""
        cells.append(f"<div{name}><dt>{escaped(label)}</dt><dd><b>{escaped(number)}</b>{said}</dd></div>")
    return f'<dl class="glance">\n{chr(10).join(cells)}\n</dl>' if cells else ""


def _switch(choice: PageChoice) -> str:
    """A radio button for each view, and one for all of them."""
    buttons = [(str(place), label, place == choice.first) for place, label in enumerate(choice.labels)]
    labels = [
        f'<label><input type="radio" name="view" id="view-{key}"{" checked" if first else ""}> {escaped(label)}</label>'
        for key, label, first in [*buttons, (EVERY, f"every {choice.what}", False)]
    ]
    return f"<fieldset>\n<legend>{escaped(choice.what)}</legend>\n" + "\n".join(labels) + "\n</fieldset>"


def _rules(choice: PageChoice) -> str:
    """Rules that hide all views but the one whose button is pressed."""
    return "\n".join(
        f'body:has(#view-{place}:checked) .view:not([data-view="{place}"]) {{ display: none; }}'
        for place in range(len(choice.labels))
    )


def _origin(command: str) -> str:
    made = f"Made by perfmodel {__version__}"
    return f"{made}: <code>{escaped(command)}</code>" if command else f"{made}."


@cache
def _asset(name: str) -> str:
    return files("perfmodel.report.html").joinpath("assets", name).read_text(encoding="utf-8").strip()
