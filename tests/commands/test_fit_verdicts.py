"""Fits, tight or does not fit: the same words and the same odds wherever a run is predicted."""

from __future__ import annotations

import json
from typing import Any

import pytest

RUN = "nemotron-4-15b"  # needs 14.4 GiB
CAPACITIES = ("18GiB", "14.9GiB", "14GiB", "13GiB")
VERDICTS = ("fits", "tight", "tight", "does not fit")


def on(capacity: str) -> tuple[str, str]:
    """A GPU with another memory."""
    return "--set", f"cluster.gpu.memory_bytes={capacity}"


@pytest.mark.parametrize(("capacity", "verdict"), list(zip(CAPACITIES, VERDICTS, strict=True)))
def test_predict_says_how_sure_it_is(run: Any, capacity: str, verdict: str) -> None:
    """A layout whose interval reaches the capacity is tight with its odds; exit code 1 is left to what does not fit."""
    done = run("predict", RUN, *on(capacity))
    said = {"fits": "fits in memory, ", "tight": "tight in memory, ", "does not fit": "does not fit in memory, needs "}
    first = " ".join(done.out.splitlines()[:2])
    assert first.startswith(f"Nemotron-4 15B: {said[verdict]}")
    assert ("odds of" in first) == (verdict == "tight")
    assert done.code == (1 if verdict == "does not fit" else 0)
    document = json.loads(run("predict", RUN, *on(capacity), "--json").out)
    assert {document["verdict"], document["stages"][0]["verdict"]} == {verdict}
    assert document["fits"] == (document["fit_probability"] >= 0.5)


def test_a_sweep_says_which_points_are_tight(run: Any) -> None:
    """In a column, point by point, as predict does."""
    sweep = ("sweep", RUN, "--vary", f"cluster.gpu.memory_bytes={','.join(CAPACITIES)}")
    lines = [line.split() for line in run(*sweep).out.splitlines()]
    assert [line[-1] for line in lines if line and line[0] in CAPACITIES] == ["yes", "tight", "tight", "no"]
    assert [point["verdict"] for point in json.loads(run(*sweep, "--json").out)["points"]] == list(VERDICTS)


def test_a_what_if_says_that_it_gets_tight(run: Any) -> None:
    """With the odds, and exit code 0."""
    done = run("whatif", RUN, *on("14.9GiB"))
    assert done.code == 0
    assert "is tight in memory: " in done.out
    assert json.loads(run("whatif", RUN, *on("14.9GiB"), "--json").out)["scenarios"][0]["verdict"] == "tight"


@pytest.mark.parametrize(("virtual_pipeline", "verdict"), [(5, "tight"), (10, "fits")])
def test_a_borderline_run_is_tight(run: Any, tmp_path: Any, virtual_pipeline: int, verdict: str) -> None:
    """A user's 70B in FP8 on 32 H100: ran out of memory in a third of its runs with 5 pieces a stage, never with 10."""
    file = tmp_path / "run.yaml"
    file.write_text(
        "{name: 70B, model: llama-3.1-70b, cluster: dgx-h100, stack: megatron-bridge, precision: fp8, tensor_parallel: 4, "
        f"pipeline_parallel: 4, virtual_pipeline: {virtual_pipeline}, sequence_parallel: true, sharding: zero1, "
        "recompute: none, micro_batch_size: 1, sequence_length: 4096, stages: [{data_parallel: 2, global_batch_size: 32}]}"
    )
    assert json.loads(run("predict", str(file), "--json").out)["verdict"] == verdict


def test_a_plan_says_that_its_best_layout_is_tight(run: Any) -> None:
    """It takes the fastest layout that fits, and says so with the odds where room is short."""
    few = ("--choose", "context_parallel=1", "--choose", "tensor_parallel=2", "--choose", "micro_batch_size=2")
    plan = ("plan", "llama-3.1-8b", "--cluster", "dgx-h100", "--gpus", "8", *few, "--global-batch-size", "64")
    stage = json.loads(run(*plan, "--json").out)["stages"][-1]
    assert ("That is tight, with odds of " in run(*plan).out) == (stage["verdict"] == "tight")
    assert (stage["fit_probability"] >= 0.95) == (stage["verdict"] == "fits")
