"""How a picture becomes part of a page: an SVG fragment in the colours and the font of the page around it.

matplotlib writes files that stand alone. In a page, names must not clash (each gets a prefix of the picture's own), colours of
text and grid are those of the page (`currentColor`, `var(--grid)`, `var(--muted)`, `var(--paper)`), the size is what the page
gives, and readers who do not see it get a title, a description, and the values of bars and points.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from hashlib import sha256
from typing import Final
from xml.etree import ElementTree as ET

from perfmodel.report.figures.drawing.palette import GRID, INK, MUTED, PAPER

SVG: Final = "{http://www.w3.org/2000/svg}"
LINK: Final = "{http://www.w3.org/1999/xlink}href"
OF_THE_PAGE: Final = {
    INK: "currentColor",
    MUTED: "var(--muted, currentColor)",
    GRID: f"var(--grid, {GRID})",
    PAPER: "var(--paper, #ffffff)",
}
REFERENCE: Final = re.compile(r"url\(#([^)]+)\)")
LONG: Final = re.compile(r"(\d+\.\d\d)\d+")  # a hundredth of a point is enough


def fragment(
    text: str,
    *,
    title: str,
    description: str,
    hover: Mapping[str, str],
    name: str = "",
    heights: tuple[float, float] | None = None,
) -> str:
    """What matplotlib wrote as an element for a page; `hover` are texts by the id of the group that they belong to.

    `name` begins its ids; without one, what no other picture has. `heights` are where it is cut, from above.
    """
    root = ET.fromstring(text)  # noqa: S314 - what matplotlib has just written, nothing from outside
    prefix = f"{name}-" if name else f"f{sha256(text.encode()).hexdigest()[:10]}-"
    _strip(root)
    known = set(_references(root))
    for element in root.iter():
        _tell(element, hover.get(element.get("id", ""), ""))
        _rename(element, prefix, known)
        _recolour(element)
    _open(root, prefix, title, description)
    if heights is not None:
        left, _, width, _ = root.attrib["viewBox"].split()
        root.set("viewBox", f"{left} {heights[0]:g} {width} {heights[1] - heights[0]:g}")
    ET.register_namespace("", SVG[1:-1])
    return ET.tostring(root, encoding="unicode")


def _strip(root: ET.Element) -> None:
    """Without metadata and rules of style, which would hold for the whole page, and without white space."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{SVG}metadata", f"{SVG}style"):
                parent.remove(child)
            child.tail = None
        if parent.tag != f"{SVG}text":
            parent.text = None
        for name, value in parent.items():
            parent.set(name, LONG.sub(r"\1", " ".join(value.split())))


def _references(root: ET.Element) -> Iterator[str]:
    """The ids that anything refers to."""
    for element in root.iter():
        for name, value in element.items():
            yield from [value.removeprefix("#")] if name == LINK else REFERENCE.findall(value)


def _tell(element: ET.Element, text: str) -> None:
    if text:
        title = ET.Element(f"{SVG}title")
        title.text = text
        element.insert(0, title)


def _rename(element: ET.Element, prefix: str, known: AbstractSet[str]) -> None:
    """Put `prefix` before the ids that an element refers to, and before its own where another element refers to it."""
    if (name := element.attrib.pop("id", "")) in known:
        element.set("id", prefix + name)
    if link := element.attrib.pop(LINK, ""):
        element.set("href", f"#{prefix}{link.removeprefix('#')}")
    for name, value in element.items():
        if "url(#" in value:
            element.set(name, REFERENCE.sub(rf"url(#{prefix}\1)", value))


def _recolour(element: ET.Element) -> None:
    """Replace an element's colours, and the font of text, by those of the page."""
    for name in ("style", "fill", "stroke"):
        if value := element.get(name):
            for colour, other in OF_THE_PAGE.items():
                value = value.replace(colour.lower(), other)
            element.set(name, value)
    if element.tag == f"{SVG}text":
        element.set("style", "; ".join(_without_family(element.get("style", ""))))
        if re.match(r"rotate\(-?0 ", element.get("transform", "")):
            del element.attrib["transform"]


def _without_family(style: str) -> Iterator[str]:
    """Older releases of matplotlib write one rule (font: 700 8px 'DejaVu Sans'), newer ones one for each property."""
    for rule in (each.strip() for each in style.split(";")):
        name, _, value = rule.partition(":")
        if name == "font":
            words = value.partition("px")[0].split()
            yield from (f"font-weight: {word}" for word in words[:-1] if word in ("bold", "700"))
            yield f"font-size: {words[-1]}px"
        elif name and name != "font-family":
            yield rule


def _open(root: ET.Element, prefix: str, title: str, description: str) -> None:
    """The element itself: as wide as it may be, named and described."""
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("role", "img")
    root.set("stroke-linejoin", "round")
    names = [(name, text) for name, text in (("title", title), ("desc", description)) if text]
    for place, (name, text) in enumerate(names):
        element = ET.Element(f"{SVG}{name}", {"id": f"{prefix}{name}"})
        element.text = text
        root.insert(place, element)
    if names:
        root.set("aria-labelledby", " ".join(f"{prefix}{name}" for name, _ in names))
