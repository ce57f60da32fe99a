"""Does `perfmodel diagnose` answer, refuse and exit as the other commands do?"""

from __future__ import annotations

import json
from typing import Any

import pytest

RUN = ["diagnose", "nemotron-4-15b"]


def test_json_has_causes_alternatives_and_measurements(run: Any) -> None:
    """With plausibilities that add up, and a value of each measurement for each contender."""
    done = run(*RUN, "--measured", "0.9s", "--json")
    assert (done.code, done.err) == (0, "")
    document = json.loads(done.out)
    assert document["schema_version"] == 1
    assert (document["stage"], document["stages"], document["gpus"]) == (3, 3, 2304)
    assert (document["measured"], document["measured_iteration_time_s"]) == ("0.9s", 0.9)
    assert document["is_explained"]
    assert not document["is_expected"]
    shares = [cause["plausibility"] for cause in document["causes"]]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) + document["nothing_plausibility"] + document["elsewhere_plausibility"] == pytest.approx(1.0)
    network = next(cause for cause in document["causes"] if cause["name"] == "network")
    (only,) = network["alternatives"]
    assert (only["key"], only["before"], only["explains"]) == ("cluster.network_scale", 1.0, True)
    assert only["after"] == pytest.approx(only["factor"])
    assert 0.005 < only["after"] < 1.0
    for each in document["measurements"]:
        assert all(len(values) == 1 + len(document["contenders"]) for values in each["values"].values())


def test_the_needed_value_gives_the_measured_time(run: Any) -> None:
    """As `predict` says it."""
    document = json.loads(run(*RUN, "--measured", "0.9s", "--json").out)
    network = next(cause for cause in document["causes"] if cause["name"] == "network")["alternatives"][0]
    settings = ["--set", f"cluster.network_scale={network['after']}"]
    last = json.loads(run("predict", "nemotron-4-15b", *settings, "--json").out)["stages"][-1]
    assert last["iteration_time_s"] == pytest.approx(0.9, rel=1e-4)


@pytest.mark.parametrize(
    ("measured", "code"),
    [("0.62s", 0), ("0.9s", 0), ("1000s", 1), ("900tokens/s/gpuu", 2), ("mfu=400%", 2)],
)
def test_the_exit_code_says_whether_it_is_explained(run: Any, measured: str, code: int) -> None:
    """0 where it is, or needs no explanation; 1 where nothing does; 2 for what is no speed."""
    done = run(*RUN, "--measured", measured)
    assert done.code == code
    assert done.err.count("\n") == (1 if code == 2 else 0)


def test_a_time_inside_the_interval_is_said_first(run: Any) -> None:
    """Before any cause."""
    head = " ".join(run(*RUN, "--measured", "0.62s").out.partition("What would explain")[0].split())
    assert head.endswith("Nothing needs explaining: the measured time lies within the 90 % interval of the prediction.")


def test_what_nothing_explains_says_how_far_the_closest_gets(run: Any) -> None:
    """And what it would take."""
    head = " ".join(run(*RUN, "--measured", "1000s").out.partition("What would explain")[0].split())
    assert "Nothing alone explains it plausibly. What comes closest: the network gives 0.005 of its published rate" in head
    assert "a factor of" in head


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("measured", ["0.9s", "1.9s"])
def test_tables_fit_the_width(run: Any, columns: int, measured: str) -> None:
    """No line is longer, and no head is cut."""
    out = run(*RUN, "--measured", measured, "--all", columns=columns).out
    assert max(map(len, out.splitlines())) <= columns
    assert "\u2026" not in out


def test_the_network_is_said_in_rates_of_a_gpu(run: Any) -> None:
    """And nccl-tests are given as a command that can be typed."""
    out = " ".join(run(*RUN, "--measured", "1.9s", columns=120).out.split())
    assert "of its published rate: " in out
    assert "GB/s instead of 50 GB/s a GPU" in out
    assert 'mpirun -np 2304 -N 8 -x NCCL_TESTS_SPLIT="MOD 8" reduce_scatter_perf -b ' in out
