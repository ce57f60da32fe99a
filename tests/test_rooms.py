"""What may a command load, and does every number have a source? (import-linter watches the rooms of the packages.)"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from perfmodel.exchange.presets import DATA, KINDS, cluster_priors, preset_names, preset_settings, read_preset

HEAVY = ("torch", "pandas", "matplotlib", "scipy", "transformers", "rich")


@pytest.mark.processes
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


def _shipped_sources() -> list[tuple[str, str, str]]:
    """Preset, key path and source of everything that ships."""
    found = {f"{kind}/{name}": read_preset(kind, name)[1] for kind in KINDS for name in preset_names(kind)}
    found["cluster_priors"] = cluster_priors()[1]
    return [(title, key, source) for title, sources in found.items() for key, source in sources.items()]


NEIGHBOUR = re.compile(
    r"\b(the same|same as|as above|see above|above|see below|ditto|idem|likewise|as before|the former|the latter|the next|"
    r"the previous|this one|those (of|in)|those (points|tables|norms)|that range)\b",
    re.IGNORECASE,
)


def test_every_source_stands_alone() -> None:
    """It is printed without the sources that stand beside it in its file, so it may not speak of them."""
    leaning = [entry for entry in _shipped_sources() if NEIGHBOUR.search(entry[2])]
    assert not leaning


@pytest.mark.parametrize(
    "source",
    ["the same", "the same, a ring step over the network", "As above", "prior, see above", "those of layernorm-bf16", "ditto"],
)
def test_a_source_that_speaks_of_a_neighbour_is_noticed(source: str) -> None:
    """Wordings that files have had."""
    assert NEIGHBOUR.search(source)


WRITTEN_BY_HAND = ("gpus", "links", "clusters", "stacks", "models", "runs", "economics")
GENERATED = ("amd-epyc-2-cores",)  # by perfmodel calibrate
ONE_SOURCE = ("models", "runs")  # whose numbers come from one table or config.json: its source may stand for all


@pytest.mark.parametrize("kind", WRITTEN_BY_HAND)
def test_values_spreads_and_sources_stand_together(kind: str) -> None:
    """No tables of sources or spreads apart from the values; one source for a whole file in models and runs alone."""
    for path in sorted((DATA / kind).glob("*.yaml")):
        if path.stem not in GENERATED:
            mapping = yaml.safe_load(path.read_text())
            assert not _apart(mapping), path
            assert "source" not in mapping or kind in ONE_SOURCE, path


def _apart(mapping: object) -> bool:
    """Whether a mapping has tables of sources or of spreads."""
    if not isinstance(mapping, dict):
        return False
    return (
        "sources" in mapping
        or (isinstance(mapping.get("spread"), dict) and "value" not in mapping)
        or any(_apart(entry) for entry in mapping.values() if not (isinstance(entry, dict) and "value" in entry))
    )


@pytest.mark.parametrize("path", sorted(DATA.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_source_points_at_a_key(path: Path) -> None:
    """No source in a table of them is that of a number that is gone."""
    mapping = yaml.safe_load(path.read_text())
    for key in mapping.get("sources", {}):
        place = mapping
        for step in key.split(".") if key else []:
            assert step in place, f"{path.name}: {key}"
            place = place[step]
