"""Is the environment that this project is developed in one, and does it say under which licences?"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from perfmodel.benchmarks.project.dependencies import lines

ROOT = Path(__file__).parents[3]
PIN = re.compile(r"([a-z0-9-]+)==([\w.]+)\s+# (\S.*)")


def test_all_that_is_developed_with_is_pinned_with_its_licence() -> None:
    """Each requirement of pyproject.toml is in constraints.txt, once, at one version."""
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    matches = [PIN.fullmatch(pin) for pin in pins]
    assert all(matches), pins
    names = [match[1] for match in matches if match]
    assert names == sorted(set(names))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"], *extras["dev"], *extras["fit"], *extras["report"]]
    needed = {re.split(r"[<>=\[;]", line)[0].lower() for line in asked} - {"perfmodel"}
    assert needed <= set(names)


def test_what_is_installed_here_is_listed_with_a_licence() -> None:
    """In the form of the file; nothing that is installed here has none."""
    found = list(lines())
    assert all(PIN.fullmatch(line) for line in found)
    assert not [line for line in found if line.endswith("# unknown")]
