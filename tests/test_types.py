"""Does a type checker see what `import perfmodel as pm` offers, in a file that its user writes?"""

from __future__ import annotations

from pathlib import Path

import pytest
from mypy import api as mypy

from tests.test_api import PAGE, blocks

ROOT = PAGE.parents[1]
CACHE = ROOT / ".mypy_cache" / "of-a-user"
SETTINGS = """
[mypy]
strict = True

[mypy-perfmodel.*]
ignore_errors = True
"""  # `make lint` checks perfmodel itself; the bodies of its functions tell a user nothing, and would take most of the time
RESULTS = """
from typing import assert_type

assert_type(pm.load("laptop"), pm.Run)
assert_type(pm.predict("laptop"), pm.Prediction)
assert_type(pm.whatif("laptop", {"FP8": {"precision": "fp8"}}), pm.WhatIf)
assert_type(pm.sweep("laptop", {"precision": "bf16,fp8"}), pm.Sweep)
assert_type(pm.explain("laptop"), pm.Explanation)
assert_type(pm.diagnose("laptop", "2s", profile="trace.json"), pm.Diagnosis)
assert_type(pm.timeline("laptop"), pm.Timeline)
assert_type(pm.plan("llama-3.1-8b", gpus=8), pm.Plan)
assert_type(pm.validate(), pm.TimeScores)
assert_type(pm.report("laptop"), pm.Page)
assert_type(pm.compare("laptop", "record.json"), pm.StepComparison | pm.LogComparison | pm.ProfileComparison)
"""
MISTAKES = """
pm.predikt("laptop")  # type: ignore[attr-defined]
pm.predict(15)  # type: ignore[arg-type]
pm.plan("llama-3.1-8b", gpu=8)  # type: ignore[call-arg]
"""


@pytest.mark.slow
def test_the_page_of_the_api_passes_strict_mypy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its blocks as one file: results have types, and a misspelt name, a wrong argument or an unknown keyword is an error."""
    monkeypatch.chdir(ROOT)  # where mypy finds perfmodel
    file, settings = tmp_path / "notebook.py", tmp_path / "mypy.ini"
    settings.write_text(SETTINGS)
    file.write_text("\n".join(code for code, _ in blocks(PAGE.read_text())) + RESULTS + MISTAKES)
    found, problems, code = mypy.run(["--config-file", str(settings), "--cache-dir", str(CACHE), str(file)])
    assert (code, problems) == (0, ""), found
