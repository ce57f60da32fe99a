"""Can a shell read the scripts of the cluster?"""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[3] / "benchmarks" / "measure" / "slurm"
SCRIPTS = sorted(FOLDER.glob("*.sbatch"))
BASH = shutil.which("bash")


@pytest.mark.processes
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
@pytest.mark.skipif(BASH is None, reason="no bash")
def test_a_script_is_right_bash(script: Path) -> None:
    """Read, not run."""
    assert subprocess.run([str(BASH), "-n", script], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_starts_modules_that_are_there(script: Path) -> None:
    """And stops at the first error."""
    text = script.read_text()
    assert "set -euo pipefail" in text
    modules = re.findall(r"-m (perfmodel\.benchmarks\.[\w.]+)", text)
    assert modules
    assert all(find_spec(module) for module in modules)


def test_the_page_names_every_script() -> None:
    """In the order in which they are submitted."""
    page = (FOLDER / "README.md").read_text()
    assert len(SCRIPTS) == 4
    assert all(f"benchmarks/measure/slurm/{script.name}" in page for script in SCRIPTS)
