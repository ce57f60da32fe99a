"""Do the options that are offered where a run does not fit make it fit?"""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest

SMALL = ["--cluster", "dgx-h100", "--gpus", "8"]


@pytest.mark.parametrize(
    ("asked", "kinds"),
    [
        (["llama-3.1-70b", *SMALL], ["--gpus"]),
        (["nemotron-4-15b", "--set", "sequence_length=131072"], ["--set"]),
        (["qwen3-8b", "--gpu", "rtx-4090", "--training", "full"], ["--training", "--gpus", "--gpu"]),
        (["llama-3.1-70b", "--gpu", "rtx-4090", "--training", "qlora"], ["--gpus", "--gpu"]),
    ],
)
def test_with_each_option_it_fits(run: Any, asked: list[str], kinds: list[str]) -> None:
    """The same command with the option behind it, or in the place of its own."""
    refused = run("predict", *asked, "--json")
    remedies = json.loads(refused.out)["remedies"]
    assert refused.code == 1
    assert {remedy.split()[0] for remedy in remedies} <= {*kinds}
    assert remedies
    for remedy in remedies:
        option, *values = shlex.split(remedy)
        before = [*asked]
        if option in before and option != "--set":
            del before[before.index(option) : before.index(option) + 2]
        assert run("predict", *before, option, *values).code == 0


def test_a_run_that_fits_needs_none(run: Any) -> None:
    """And says nothing of it."""
    done = run("predict", "nemotron-4-15b", "--json")
    assert json.loads(done.out)["remedies"] == []
    assert "It fits with" not in run("predict", "nemotron-4-15b").out


def test_where_nothing_helps_that_is_said(run: Any) -> None:
    """Where two things are in the way: nothing is shared, of what is more than twice too large."""
    done = run("predict", "nemotron-4-15b", "--set", "tensor_parallel=1", "--set", "sharding=none")
    assert done.code == 1
    assert "No single change that was tried makes it fit" in " ".join(done.out.split())
