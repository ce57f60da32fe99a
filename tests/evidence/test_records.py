"""Do measured records say what they are and where they come from, and are others refused?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from perfmodel.benchmarks.fit.tables import read_records
from perfmodel.errors import InputError
from perfmodel.evidence.steps.records import KINDS, LABELS, PROVENANCE, SCHEMA_VERSION, SIZES, Record, record

PRODUCT = Record(
    kind="matmul",
    sizes={"rows": 4096, "columns": 6144, "inner": 6144},
    labels={"precision": "bf16", "phase": "forward"},
    seconds=4.3e-4,
    spread=0.01,
    repeats=50,
    provenance={"gpu": "NVIDIA H100 80GB HBM3", "software": "torch 2.13", "date": "2026-01-01", "command": "python -m it"},
)


def changed(**values: object) -> dict[str, Any]:
    """The document of a right record with other values; ... takes a key away."""
    document = PRODUCT.document() | values
    return {key: value for key, value in document.items() if value is not ...}


def of_kind(kind: str) -> dict[str, Any]:
    """The document of a record of one kind, with what it must have and no more."""
    words = {"precision": "bf16", "phase": "forward", "mask": "causal", "operator": "x", "class": "eager"}
    return changed(kind=kind, sizes=dict.fromkeys(SIZES[kind], 8), labels={name: words[name] for name in LABELS[kind]})


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_survives_json(kind: str) -> None:
    """Written and read again it is the same, with the version of its schema."""
    document = of_kind(kind)
    assert document["schema_version"] == SCHEMA_VERSION
    assert record(json.loads(json.dumps(document))).document() == document


def test_records_stand_one_a_line(tmp_path: Path) -> None:
    """Blank lines between them mean nothing."""
    path = tmp_path / "records.jsonl"
    line = json.dumps(PRODUCT.document())
    path.write_text(f"{line}\n\n{line}\n")
    assert read_records(path) == [PRODUCT, PRODUCT]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"kind": "matmull"}, "^kind: 'matmull' is not a kind of record; did you mean matmul"),
        ({"kind": ...}, "^kind: missing"),
        ({"seconds": 0.0}, "^seconds: 0.0 is not a time"),
        ({"seconds": -1.0}, "^seconds: -1.0 is not a time"),
        ({"seconds": float("nan")}, "^seconds: nan is not a time"),
        ({"schema_version": 2}, "^schema_version: 2 is not a known version; 1 is"),
        ({"schema_version": ...}, "^schema_version: nothing is not a known version; 1 is"),
        ({"second": 1.0}, "^second: unknown key; did you mean seconds"),
        ({"provenance": {}}, "^provenance.gpu: missing"),
    ],
)
def test_a_wrong_record_is_refused_with_its_key(values: dict[str, object], sentence: str) -> None:
    """Unknown, missing, or impossible."""
    with pytest.raises(InputError, match=sentence):
        record(changed(**values))


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_has_the_sizes_and_labels_of_its_kind(kind: str) -> None:
    """Without one of them nobody could tell what was measured."""
    for part, names in (("sizes", SIZES[kind]), ("labels", LABELS[kind])):
        for name in names:
            document = of_kind(kind)
            del document[part][name]
            with pytest.raises(InputError, match=f"^{part}.{name}: missing; a {kind} record has "):
                record(document)


@pytest.mark.parametrize(
    ("part", "name", "value", "sentence"),
    [
        ("labels", "phase", "forwards", "^labels.phase: 'forwards' is not known; did you mean forward"),
        ("labels", "class", "fusd", "^labels.class: 'fusd' is not known; did you mean fused"),
        ("labels", "cache", "hot", "^labels.cache: 'hot' is not known; known: cold, warm"),
        ("sizes", "moved_bytes", 0, "^sizes.moved_bytes: 0 is not a size"),
        ("sizes", "moved_bytes", float("inf"), "^sizes.moved_bytes: inf is not a size"),
    ],
)
def test_a_value_that_cannot_be_is_refused(part: str, name: str, value: object, sentence: str) -> None:
    """A phase that does not exist, no bytes at all."""
    document = of_kind("memory_bound")
    document[part][name] = value
    with pytest.raises(InputError, match=sentence):
        record(document)


@pytest.mark.parametrize("name", PROVENANCE)
def test_a_record_says_where_it_comes_from(name: str) -> None:
    """GPU, software, date and command: without one of them a number is worth nothing."""
    provenance = {key: value for key, value in PRODUCT.provenance.items() if key != name}
    with pytest.raises(InputError, match=f"^provenance.{name}: missing"):
        record(changed(provenance=provenance))


@pytest.mark.parametrize("document", [None, 3, "matmul", [1]])
def test_what_is_no_object_is_no_record(document: object) -> None:
    """A line of JSON may be anything."""
    with pytest.raises(InputError, match="is not a record"):
        record(document)


@pytest.mark.parametrize("line", ["{", json.dumps(changed(kind="x")), "3"])
def test_a_wrong_line_is_named_by_its_number(tmp_path: Path, line: str) -> None:
    """As an editor counts them."""
    path = tmp_path / "records.jsonl"
    path.write_text(f"{json.dumps(PRODUCT.document())}\n\n{line}\n")
    with pytest.raises(InputError, match=r"records.jsonl, line 3: ") as caught:
        read_records(path)
    assert "\n" not in str(caught.value)
