"""Where pages of HTML go: to a file, or with each of their figures as PNG and SVG to a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from perfmodel.commands.console import write_file
from perfmodel.errors import InputError, shown

if TYPE_CHECKING:
    from perfmodel.report.html.document import Page

PAGES = (".html", ".htm")
NO_MATPLOTLIB = "a report needs matplotlib; pip install 'perfmodel[report]' brings it"


def page_places(output: str, option: str, name: str) -> tuple[Path, Path | None]:
    """Path of the page, and the folder for its figures or None; `name` is that of a page in a folder.

    Errors: InputError for another file type.
    """
    from perfmodel.exchange.output import is_folder

    path = Path(output)
    if output.endswith("/") or (output and is_folder(path)):
        return path / name, path
    if path.suffix.lower() not in PAGES:
        raise InputError(f"{option} {shown(output)} is not an .html file; name one, or a folder ending in /")
    return path, None


def write_page(page: Page, path: Path, folder: Path | None) -> None:
    """Write the page; into a folder also each figure as PNG and SVG."""
    if folder is None:
        write_file(page.html, path)
        return
    from perfmodel.exchange.output import new_folder
    from perfmodel.report.figures.drawing.style import picture

    new_folder(folder)
    write_file(page.html, path)
    for name, figure in page.figures.items():
        for kind in ("png", "svg"):
            write_file(picture(figure, kind), folder / f"{name}.{kind}")
