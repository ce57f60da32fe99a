"""Does `perfmodel calibrate --from-nccl-tests` say what is wrong with links, and write a cluster that other commands take?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from perfmodel.spec.evidence.spread import moved
from tests.exchange.nccl_outputs import DGX_H100, as_text


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """An all-gather over 16 nodes with one rail down."""
    path = tmp_path / "all_gather.txt"
    path.write_text(as_text("all_gather", 16, moved(DGX_H100, {"network_scale": 0.86})))
    return path


def test_a_verdict_is_printed_and_a_cluster_written(run: Any, output: Path, tmp_path: Path) -> None:
    """Size by size, in 80 columns; a prediction takes the cluster."""
    ours = tmp_path / "ours.yaml"
    done = run("calibrate", "--from-nccl-tests", output, "--cluster", "dgx-h100", "-o", ours)
    assert done.code == 0
    words = " ".join(done.out.split())
    assert words.startswith(
        "all-gather over 16 nodes (128 GPUs): 275 GB/s at 8 GiB, expected 290 to 340: looks like one rail down."
    )
    assert "- network_scale: x 0.86, +-4 %" in done.out
    assert max(map(len, done.out.splitlines())) <= 80
    before, after = (
        json.loads(run("predict", "nemotron-4-15b", "--cluster", each, "--json").out)["stages"][0]["iteration_time_s"]
        for each in ("dgx-h100", ours)
    )
    assert after > before


def test_json_has_every_size(run: Any, output: Path, tmp_path: Path) -> None:
    """With the ends of what is expected, and the causes with what tells them."""
    done = run("calibrate", "--from-nccl-tests", output, "--cluster", "dgx-h100", "-o", tmp_path / "ours.yaml", "--json")
    (test,) = json.loads(done.out)["tests"]
    assert (test["verdict"], test["causes"][0]["name"], len(test["sizes"])) == ("slower", "one rail down", 8)
    low, high = test["sizes"][0]["expected_bus_bytes_per_s"]
    assert low < test["sizes"][0]["bus_bytes_per_s"] < high


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--from-nccl-tests", "OUTPUT"), "--from-nccl-tests needs the cluster that they ran on, as in --cluster dgx-h100"),
        (("--from-nccl-tests", "OUTPUT", "--cluster", "dgx-h10"), "--cluster: 'dgx-h10' is not a preset of clusters"),
        (("--from-nccl-tests", "OUTPUT", "--from-runs", "x", "--cluster", "p5"), "it cannot be combined with --from-runs"),
        (("--from-nccl-tests", "OUTPUT", "--cluster", "p5", "-o", "x.json"), "--output x.json must be a .yaml file"),
        (("--nodes", 4), "--nodes goes with --from-nccl-tests"),
    ],
)
def test_what_is_missing_is_said(run: Any, output: Path, arguments: Any, sentence: str) -> None:
    """In one sentence."""
    assert run("calibrate", *(output if each == "OUTPUT" else each for each in arguments)).is_refused(2, sentence)


def test_convert_says_what_reads_it(run: Any, output: Path) -> None:
    """It is no run."""
    assert run("convert", output).is_refused(
        2, "is the output of nccl-tests, which is no run; perfmodel calibrate --from-nccl-tests"
    )


def test_the_output_is_no_run(run: Any, output: Path) -> None:
    """Each command that takes a run names the one that reads it."""
    for words in (["predict", output], ["convert", output], ["compare", "nemotron-4-15b", output]):
        assert run(*words).is_refused(2, "is the output of nccl-tests, which is no run; perfmodel calibrate --from-nccl-tests")
