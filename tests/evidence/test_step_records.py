"""Do records of training steps say what they are, and are others refused?"""

from __future__ import annotations

import json
from typing import Any

import pytest

from perfmodel.errors import InputError
from perfmodel.evidence.steps.step_records import StepRecord, step_record
from tests.evidence.step_examples import as_predicted, small_prediction


@pytest.fixture(scope="module")
def example() -> StepRecord:
    """A right record."""
    return as_predicted(small_prediction())


def test_a_record_survives_json(example: StepRecord) -> None:
    """Written and read again it says the same."""
    document = json.loads(json.dumps(example.document()))
    assert json.loads(json.dumps(step_record(document).document())) == document


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"kind": "matmul"}, "this is not the record of a training_step"),
        ({"schema_version": 9}, "schema_version: 9 is not a known version; 1 is"),
        ({"gpu": 4}, "gpu: unknown key; did you mean gpus?"),
        ({"gpus": "four"}, "gpus: 'four' where a whole number is needed"),
        ({"iteration_time_s": -1.0}, "iteration_time_s: -1.0 is not a number from 0 to 1e.20"),
        ({"losses": 3.0}, "losses: 3.0 where a list is needed"),
        ({"losses": [True]}, r"losses\[0\]: true where a number is needed"),
        ({"settings": []}, "settings: \\[\\] where an object is needed"),
        ({"memory": {"peak_bytes": 1}}, "memory.*: missing"),
        ({"operators": [{"name": "x", "phase": "forward", "seconds": "1"}]}, r"operators\[0\]"),
        ({"provenance": {"gpu": "x"}}, "provenance.software: missing"),
    ],
)
def test_what_is_wrong_is_said_with_its_key(example: StepRecord, change: dict[str, Any], sentence: str) -> None:
    """One sentence, whatever is wrong."""
    with pytest.raises(InputError, match=sentence):
        step_record(json.loads(json.dumps(example.document() | change)))


def test_a_missing_key_is_named(example: StepRecord) -> None:
    """Nothing has a default."""
    document = example.document()
    del document["mfu"]
    with pytest.raises(InputError, match="mfu: missing"):
        step_record(document)
