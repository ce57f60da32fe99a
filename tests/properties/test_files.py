"""Does a run, and a result, come back from a file as it went in?"""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.exchange.run_files import read_candidates
from perfmodel.exchange.spec_mappings import mapping_of
from perfmodel.prediction import Prediction, predict
from perfmodel.report.json.prediction import prediction_document
from perfmodel.report.text.rows import csv_text
from perfmodel.units import parse_quantity
from tests.properties.depth import examples
from tests.properties.runs import DrawnRun, runs


@examples(8)
@given(drawn=runs(), form=st.sampled_from([".yaml", ".json"]))
def test_a_run_file_gives_the_run_that_was_written(drawn: DrawnRun, form: str) -> None:
    """Every number of model, cluster, stack and layout, as YAML and as JSON; and so the same prediction."""
    mapping = mapping_of(drawn.run)
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"run{form}"
        path.write_text(json.dumps(mapping) if form == ".json" else yaml.safe_dump(mapping, sort_keys=False))
        (candidate,) = read_candidates(str(path))
    assert candidate.run == drawn.run
    assert numbers(predict(candidate.run)) == numbers(predict(drawn.run))


def numbers(prediction: Prediction) -> list[dict[str, Any]]:
    """Every number of a prediction."""
    return prediction.rows()


@examples(15)
@given(drawn=runs())
def test_results_are_valid_json_and_csv_with_every_digit(drawn: DrawnRun) -> None:
    """No NaN, no infinity; cells read back as the numbers they were."""
    prediction = predict(drawn.run)
    document = prediction_document(prediction, assumptions=(), verbose=True)
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    (row,) = prediction.rows()
    (read,) = csv.DictReader(io.StringIO(csv_text([row])))
    assert {name: same(cell, row[name]) for name, cell in read.items()} == row


def same(cell: str, value: Any) -> Any:
    """A cell as the type of the value that it was."""
    if value is None:
        return None if cell == "" else cell
    if isinstance(value, bool):
        return cell.lower() == "true"
    return type(value)(cell)


@examples(100)
@given(
    number=st.floats(1e-3, 1e6),
    prefix=st.sampled_from(["", "k", "M", "G", "T", "P", "Ki", "Mi", "Gi", "Ti"]),
    blank=st.sampled_from(["", " "]),
)
def test_eight_bits_are_a_byte(number: float, prefix: str, blank: str) -> None:
    """8 Xb/s = 1 XB/s, and a bandwidth of bytes is that size a second."""
    bits, octets = (
        parse_quantity(f"{value!r}{blank}{prefix}{unit}", "bytes_per_s")
        for value, unit in ((8 * number, "b/s"), (number, "B/s"))
    )
    assert bits == pytest.approx(octets, rel=1e-12)
    assert octets == parse_quantity(f"{number!r}{prefix}B", "bytes")
    assert math.isclose(parse_quantity(f"{number!r}{prefix}bit/s", "bytes_per_s") * 8, octets, rel_tol=1e-12)
