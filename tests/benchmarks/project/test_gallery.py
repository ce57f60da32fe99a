"""Does the gallery show every picture under the command that makes it, and do the commands make them?"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from perfmodel.benchmarks.project.gallery import DOCS, PAGE, PICTURES, SHOTS, Shot, page, taken

README = DOCS.parent / "README.md"
PNG = b"\x89PNG\r\n\x1a\n"


def test_the_page_is_what_its_command_writes() -> None:
    """`make gallery` was run after the last change of its commands."""
    assert PAGE.read_text() == page()


def test_every_picture_is_there_and_in_the_page() -> None:
    """And none that is not."""
    named = [name for shot in SHOTS for name, _ in shot.pictures.values()]
    assert len(named) == len(set(named))
    assert sorted(named) == sorted(file.stem for file in PICTURES.iterdir())
    assert all((PICTURES / f"{name}.png").read_bytes().startswith(PNG) for name in named)


def test_pictures_of_the_readme_exist() -> None:
    """Each is one of the gallery."""
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README.read_text())
    assert pictures
    assert all((DOCS.parent / each).is_file() and each.startswith("docs/gallery/") for each in pictures)


@pytest.mark.processes
def test_a_command_makes_its_picture(tmp_path: Path) -> None:
    """As a person types it, in a folder of its own."""
    shot = Shot(
        title="One axis",
        words="",
        arguments=["sweep", "nemotron-4-15b", "--vary", "micro_batch_size=1,2", "--figure", "axis.png"],
        pictures={"axis.png": ("axis", "MFU")},
    )
    ((name, file),) = taken(shot, tmp_path)
    assert name == "axis"
    assert file.read_bytes().startswith(PNG)
    assert shot.command == "perfmodel sweep nemotron-4-15b --vary micro_batch_size=1,2 --figure axis.png"


def test_a_command_that_fails_is_told(tmp_path: Path) -> None:
    """With the sentence that it says; no picture is shown in place of the one that is missing."""
    shot = Shot(title="", words="", arguments=["predict", "nemotron-4-16b"], pictures={"x.png": ("x", "")})
    with pytest.raises(RuntimeError, match="nemotron-4-15b"):
        list(taken(shot, tmp_path))
