"""Are axes read as they are typed, and refused with the key where they cannot be?"""

from __future__ import annotations

import contextlib
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel.errors import InputError
from perfmodel.exchange.questions.swept_axes import ParsedAxis, read_axis
from perfmodel.exchange.run_files import read_candidates
from perfmodel.spec.run import Run

NETWORK = "cluster.links.network.bandwidth_bytes_per_s"


@cache
def ramp() -> Run:
    """The central preset."""
    return read_candidates("nemotron-4-15b")[0].run


def read(key: str, values: str) -> ParsedAxis:
    """An axis for its last stage."""
    return read_axis(key, values, ramp(), 2)


@pytest.mark.parametrize(
    ("key", "values", "labels"),
    [
        ("tensor_parallel", "1,2,4", ["1", "2", "4"]),
        ("tensor_parallel", "1..8", ["1", "2", "4", "8"]),
        ("tensor_parallel", "1..6", ["1", "2", "4", "6"]),
        ("tensor_parallel", "4..4", ["4"]),
        ("data_parallel", "1..64x4", ["1", "4", "16", "64"]),
        ("data_parallel", "1..4x20", ["1", "2", "3", "4"]),
        ("gpus", "100..800x4", ["100", "200", "400", "800"]),
        ("gpus", "8..100x4", ["8", "16", "40", "100"]),
        (NETWORK, "100..800Gb/s", ["100Gb/s", "200Gb/s", "400Gb/s", "800Gb/s"]),
        (NETWORK, "100Gb/s..200Gb/sx3", ["100Gb/s", "141.4Gb/s", "200Gb/s"]),
        ("cluster.compute_scale", "0.5..1x3", ["0.5", "0.7071", "1"]),
        ("micro_batch_size", "x1..x4", ["x1", "x2", "x4"]),
        ("cluster", "dgx-h100, dgx-h200", ["dgx-h100", "dgx-h200"]),
        ("tokens", "1T..8T", ["1T", "2T", "4T", "8T"]),
    ],
)
def test_values_are_listed_doubled_or_spaced(key: str, values: str, labels: list[str]) -> None:
    """Both ends belong to a range; counts are whole, GPUs made of whole replicas."""
    assert list(read(key, values).labels) == labels


def test_a_number_is_what_its_label_says() -> None:
    """Whoever types the label into --set gets the same run."""
    axis = read(NETWORK, "100..900Gb/sx7")
    for label, value in zip(axis.labels, axis.values, strict=True):
        assert read_candidates(ramp(), [f"{NETWORK}={label}"])[0].run.cluster.links.network.bandwidth_bytes_per_s == value


@pytest.mark.parametrize("path", ["", "stages[-1].", "stages.2.", "stages[*]."])
def test_a_number_of_the_stage_has_its_own_name(path: str) -> None:
    """However its path is written."""
    axis = read(f"{path}data_parallel", "96,192")
    assert (axis.name, axis.key, axis.is_array) == ("data_parallel", "stages[2].data_parallel", True)


def test_only_absolute_numbers_are_arrays() -> None:
    """Factors, words, presets and what no equation broadcasts over need a run each."""
    assert read("model.layers", "8,16").is_array
    for key, values in (("micro_batch_size", "x1,x2"), ("cluster", "dgx-h100"), ("cluster.gpus_per_node", "4,8")):
        assert not read(key, values).is_array


@pytest.mark.parametrize(
    ("key", "values", "sentence"),
    [
        ("tensor_parallel", "", "tensor_parallel: no values to sweep"),
        ("tensor_parallel", "1,,2", "tensor_parallel: '1,,2' has no value between two commas"),
        ("tensor_parallel", "0,1", "tensor_parallel: 0 must be at least 1"),
        ("tensor_parallel", "2.5", "tensor_parallel: 2.5 is not a whole number"),
        ("tensor_parallel", "many", "tensor_parallel: 'many' is not a count"),
        ("tensor_parallel", "8..1", "8..1 is not a range of numbers above 0; write the smaller number first"),
        ("tensor_parallel", "0..8", "0..8 is not a range of numbers above 0"),
        ("tensor_parallel", "1..8x1", "1..8x1: a range has 2 to 1,000 values"),
        ("tensor_parallel", "a..b", "a..b is not a range; write two numbers and one unit"),
        ("tensor_parallel", "1..x4", "1..x4 is not a range"),
        ("tensor_parallel", ".1..1e308", "1,026 values; at most 1,000 can be swept"),
        ("tokens", "1..1e999", "1..1e999 is not a range"),
        (NETWORK, "400Gb/s..1TB/s", "is not a range; write two numbers and one unit"),
        (NETWORK, "400Gb", "'400Gb' is not a bandwidth"),
        ("precision", "bf16,fp9", "precision: 'fp9' is not one of them; did you mean fp8?"),
        ("cluster", "h200", "cluster: 'h200' is not a preset of clusters; did you mean dgx-h200?"),
        ("cluster", "a..b", "cluster: 'a..b' is not a preset"),
        ("sequence_parallel", "true,maybe", "sequence_parallel: 'maybe' is not true or false"),
        ("tp", "1,2", "tp: unknown key; did you mean tensor_parallel?"),
        ("cluster.nope", "1", "cluster.nope: unknown key"),
        ("stages", "1", "stages: this is a list; vary a key in it, as in stages"),
        ("stages[0].data_parallel", "1,2", r"stages\[0\].data_parallel: stage 3 is swept; choose another with --stage N"),
        ("stages[5].tokens", "1", "'5' is not a place in a list of 3"),
        ("precision.x", "1", "precision: 'bf16' has no keys below it"),
        ("gpus", "x2", "gpus: give numbers of GPUs; factors are for keys of the run"),
        ("tensor_parallel", ",".join(map(str, range(1, 1002))), "1,001 values; at most 1,000 can be swept"),
    ],
)
def test_an_axis_that_cannot_be_is_refused(key: str, values: str, sentence: str) -> None:
    """In one sentence with the key."""
    with pytest.raises(InputError, match=sentence):
        read(key, values)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["tensor_parallel", "gpus", "tokens", NETWORK, "cluster", "precision", "stages[*].tokens", "stages"]),
    st.text(alphabet="0123456789.x,-eTGb/s[]~", max_size=12)
    | st.text(max_size=8)
    | st.sampled_from(["1e-320..1", ".1..1e308"]),
)
def test_whatever_is_typed_is_an_axis_or_one_sentence(key: str, values: str) -> None:
    """No traceback."""
    with contextlib.suppress(InputError):
        axis = read(key, values)
        assert len(axis.labels) == len(axis.values) > 0
