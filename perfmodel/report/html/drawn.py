"""Figures as parts of a page: each drawn once, its title and its note written by the page around it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TypeAlias

from perfmodel.errors import InputError
from perfmodel.report.figures.drawing.style import Drawing, svg_text
from perfmodel.report.html.blocks import as_html, figure_html

Progress: TypeAlias = Callable[[int, int], None]  # how many of how many figures are drawn
Draw: TypeAlias = Callable[[], Drawing]


def quiet(_done: int, _of: int) -> None:
    """Report no progress."""


def drawn(
    wanted: Mapping[str, Draw], titles: Collection[str] = (), on_progress: Progress = quiet
) -> tuple[dict[str, Drawing], dict[str, str]]:
    """Each figure, and its HTML; where there is nothing to draw, a sentence.

    A figure has its title above it unless it is among `titles`: those of the sections that it stands in.
    """
    figures, shown = {}, {}
    for done, (name, draw) in enumerate(wanted.items()):
        on_progress(done, len(wanted))
        try:
            figures[name] = draw()
        except InputError as error:
            shown[name] = as_html(f"No figure: {error}.")
        else:
            shown[name] = in_a_page(name, figures[name], titles)
    return figures, shown


def in_a_page(name: str, figure: Drawing, titles: Collection[str] = ()) -> str:
    """One figure as HTML."""
    title = "" if figure.heading.partition(":")[0] in titles else figure.heading
    return figure_html(name, svg_text(figure, name, bare=True), caption=title, note=figure.note)
