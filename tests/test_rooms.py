"""What may a command load, and does every number have a source? (import-linter watches the rooms of the packages.)"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from perfmodel.exchange.presets import DATA, KINDS, preset_names, preset_settings
from perfmodel.exchange.syntax.annotations import source_sentence

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


DATA_FILES = sorted((*DATA.rglob("*.yaml"), *(DATA.parent.parent / "benchmarks").rglob("*.yaml")))


def _sources(entry: object, place: str) -> Iterator[tuple[str, str]]:
    """Where in a file each source stands, beside its value or in a table of them, and what it says."""
    if isinstance(entry, dict):
        for key, below in entry.items():
            here = f"{place}.{key}"
            if key == "sources" and isinstance(below, dict):
                yield from ((f"{here}.{name}", source_sentence(source)) for name, source in below.items())
            elif key == "source":
                yield here, source_sentence(below)
            else:
                yield from _sources(below, here)
    elif isinstance(entry, list):
        for index, below in enumerate(entry):
            yield from _sources(below, f"{place}[{index}]")


NEIGHBOUR = re.compile(
    r"\b(the same|same as|as above|see above|above|see below|ditto|idem|likewise|as before|the former|the latter|the next|"
    r"the previous|this one|as forward|as backward|those (of|in)|those (points|tables|norms)|that range)\b",
    re.IGNORECASE,
)


def test_every_source_stands_alone() -> None:
    """It is printed without the sources that stand beside it in its file, so it may not speak of them."""
    found = [each for path in DATA_FILES for each in _sources(yaml.safe_load(path.read_text()), path.stem)]
    assert len(found) > 1500
    assert [(place, source) for place, source in found if NEIGHBOUR.search(source)] == []


@pytest.mark.parametrize(
    "source",
    ["the same", "the same, a ring step over the network", "As above", "prior, see above", "those of layernorm-bf16", "ditto"],
)
def test_a_source_that_speaks_of_a_neighbour_is_noticed(source: str) -> None:
    """Wordings that files have had."""
    assert NEIGHBOUR.search(source)


GENERATED = "# Written by "  # a command, as the file begins
ONE_SOURCE = ("models", "runs", "flash_points", "model_families")  # from one table or config.json: its source may stand for all
BY_HAND = [
    (path, yaml.safe_load(path.read_text()))
    for path in DATA_FILES
    if not path.read_text().startswith(GENERATED) and path.parent.name not in ("formats", "evidence", "schemas")
]


@pytest.mark.parametrize(("path", "mapping"), BY_HAND, ids=[path.stem for path, _ in BY_HAND])
def test_values_spreads_and_sources_stand_together(path: Path, mapping: dict[str, object]) -> None:
    """No tables of sources, nor of spreads of values that stand in the file; one source for a file only where it has one."""
    assert not _apart(mapping)
    assert "source" not in mapping or {path.parent.name, path.stem} & set(ONE_SOURCE)


def _apart(mapping: object) -> bool:
    """Whether a mapping has a table of sources, or spreads apart from their values; some are of values that are extended."""
    if isinstance(mapping, list):
        return any(map(_apart, mapping))
    if not isinstance(mapping, dict) or "value" in mapping:
        return False
    spreads = mapping.get("spread")
    is_beside = isinstance(spreads, dict) and "value" not in spreads and bool(spreads.keys() & mapping.keys())
    return "sources" in mapping or is_beside or any(map(_apart, mapping.values()))


@pytest.mark.parametrize(
    "mapping",
    [
        {"launch_s": 6e-6, "sources": {"launch_s": "a guess"}},
        {"host": {"launch_s": {"value": 6e-6, "source": "a guess"}, "spread": {"launch_s": 0.5}}},
    ],
)
def test_a_table_apart_from_its_values_is_noticed(mapping: dict[str, object]) -> None:
    """Of sources, or of spreads."""
    assert _apart(mapping)


@pytest.mark.parametrize("path", sorted(DATA.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_source_points_at_a_key(path: Path) -> None:
    """No source in a table of them is that of a number that is gone."""
    mapping = yaml.safe_load(path.read_text())
    for key in mapping.get("sources", {}):
        place = mapping
        for step in key.split(".") if key else []:
            assert step in place, f"{path.name}: {key}"
            place = place[step]
