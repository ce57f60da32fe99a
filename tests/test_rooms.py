"""What may a command load, and does every number have a source? (import-linter watches the rooms of the packages.)"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from perfmodel.exchange.presets import DATA, KINDS, preset_names, preset_settings

HEAVY = ("torch", "pandas", "matplotlib", "scipy", "transformers", "rich")


@pytest.mark.parametrize("arguments", [["predict", "nemotron-4-15b", "--json"], ["list", "--json"]])
def test_json_commands_load_nothing_heavy(arguments: list[str]) -> None:
    """Neither torch, pandas nor matplotlib, and not even rich."""
    script = f"import sys; from perfmodel.commands import app; sys.argv[1:] = {arguments!r}\n"
    script += "try: app.main()\nexcept SystemExit: pass\n"
    script += f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("kind", KINDS)
def test_every_number_of_every_preset_has_a_source(kind: str) -> None:
    """Numbers and quantities; names, categories and references to other presets need none."""
    for name in preset_names(kind):
        for title, settings in preset_settings(f"{kind}/{name}"):
            bare = [key for key, value, source in settings if _is_quantity(value) and not source and key != "name"]
            assert not bare, title


def _is_quantity(value: object) -> bool:
    return (isinstance(value, int | float) and not isinstance(value, bool)) or (isinstance(value, str) and value[:1].isdigit())


@pytest.mark.parametrize("path", sorted(DATA.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_source_points_at_a_key(path: Path) -> None:
    """No source of a number that is gone (those of a file that extends another may point into that one)."""
    mapping = yaml.safe_load(path.read_text())
    if "extends" in mapping:
        return
    for key in mapping.get("sources", {}):
        place = mapping
        for step in key.split(".") if key else []:
            assert step in place, f"{path.name}: {key}"
            place = place[step]
