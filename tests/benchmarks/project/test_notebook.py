"""Do the notebooks of the documentation run, and do their outputs stand in them?"""

from __future__ import annotations

import json
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest

from perfmodel.benchmarks.project.notebook import code_cells, executed
from tests.test_api import assert_alike

NOTEBOOKS = sorted((Path(__file__).parents[3] / "docs").glob("*.ipynb"))


def texts(output: dict[str, Any]) -> str:
    """What an output says, without its markup."""
    return "".join(output.get("text") or output["data"].get("text/plain", ""))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_gives_what_it_shows(path: Path) -> None:
    """The same outputs of every cell: the words, numbers that are close, pictures that are pictures."""
    notebook = json.loads(path.read_text())
    for cell, found in zip(code_cells(notebook), executed(notebook), strict=True):
        shown = cell["outputs"]
        assert [each["output_type"] for each in found] == [each["output_type"] for each in shown]
        for one, other in zip(found, shown, strict=True):
            assert one.get("data", {}).keys() == other.get("data", {}).keys()
            assert_alike(texts(one), texts(other))
            if "image/png" in other.get("data", {}):
                assert b64decode(other["data"]["image/png"]).startswith(b"\x89PNG")


def test_the_value_of_a_last_line_is_shown() -> None:
    """As text, and as HTML where it has some; not with a semicolon behind it, nor that of an assignment."""
    cells = [{"cell_type": "code", "source": [text]} for text in ("x = 2", "print('a')\nx + 1", "x;")]
    nothing, shown, hushed = executed({"cells": [*cells, {"cell_type": "markdown", "source": ["x"]}]})
    assert (nothing, hushed) == ([], [])
    assert [each["output_type"] for each in shown] == ["stream", "execute_result"]
    assert shown[1]["data"] == {"text/plain": ["3"]}
