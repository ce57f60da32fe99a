"""Is every JSON document declared, closed and described? (tests/conftest.py holds what commands print against the schemas.)"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from perfmodel.commands.app import COMMANDS
from perfmodel.report.json.schemas import document, document_names, json_schema
from tests.json_documents import check_json, documents_of

FREE = {"list", "sweep"}  # with keys of kinds of presets, and of swept axes
NO_JSON = {"report", "launch", "schema"}  # a page, a launch file, and JSON Schema itself


def objects(schema: Any) -> Iterator[Any]:
    """Every schema of an object, at any depth."""
    if isinstance(schema, dict):
        if "properties" in schema and schema.get("type") == "object":
            yield schema
        for each in schema.values():
            yield from objects(each)


@pytest.mark.parametrize("name", document_names())
def test_every_object_is_closed_and_every_key_described(name: str) -> None:
    """A key that is renamed is one too few and one too many; keys that only the question knows are beside required ones."""
    for each in objects(json_schema(name)):
        assert each["additionalProperties"] is False or (name in FREE and each["required"])
        assert all(len(key["description"]) > len("x.") for key in each["properties"].values())


def test_every_command_that_prints_json_has_a_document() -> None:
    """But for those that write something else."""
    assert {name for name in COMMANDS if not documents_of(name)} == NO_JSON
    assert sorted(each for name in COMMANDS for each in documents_of(name)) == sorted(document_names())


def test_a_renamed_key_fails(run: Any) -> None:
    """At the top, in a part, and in a table that the code writes."""
    text = run("predict", "nemotron-4-15b", "--json").out
    check_json("predict", text)
    for before, after in (('"fits"', '"fitting"'), ('"mfu_peak_flop_per_s"', '"peak"'), ('"matmul"', '"products"')):
        with pytest.raises(AssertionError, match=r"predict.yaml does not say"):
            check_json("predict", text.replace(before, after))


def test_a_value_of_another_type_fails(run: Any) -> None:
    """A number is no text."""
    found = json.loads(run("list", "--json").out)
    with pytest.raises(AssertionError, match=r"list.yaml does not say .* integer"):
        check_json("list", json.dumps(found | {"schema_version": "1"}))


def test_parts_of_an_iteration_come_from_the_code() -> None:
    """As many as a breakdown has, under its names."""
    from perfmodel.timing.breakdown import PARTS

    assert [f"{key.name}_s" for key in document("predict").definitions["breakdown"]] == list(PARTS)


def test_the_command_prints_them_and_names_them(run: Any) -> None:
    """The list says which there are; an unknown one is refused with the nearest."""
    listed = run("schema").out
    assert all(name in listed for name in document_names())
    assert json.loads(run("schema", "infer").out) == json_schema("infer")
    assert run("schema", "predct").is_refused(2, "'predct' is not a JSON document; did you mean predict?")
    assert run("schema", "predict", "-o", "keys.csv").is_refused(
        2, "ends in .csv, which is no format here; .json or .json.gz would do"
    )


def test_records_of_measured_steps_are_what_their_schema_says() -> None:
    """Those that lie beside the pages of measured steps, which `perfmodel measure` wrote."""
    records = list((Path(__file__).parents[2] / "docs").glob("measured*/records/*.json"))
    assert len(records) > 20
    for record in records:
        check_json("measure", record.read_text(encoding="utf-8"))
