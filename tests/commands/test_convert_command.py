"""Does `perfmodel convert` write run files that the other commands take, and say what it left out?"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from perfmodel import api
from tests.exchange.importers.scripts import LLAMA

SCRIPT = LLAMA.replace("EXTRA", "--frobnicate 3")


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A launch script."""
    path = tmp_path / "train.sh"
    path.write_text(SCRIPT)
    return path


def test_json_has_the_keys_that_are_promised(run: Any, script: Path) -> None:
    """A run with the keys of a run file, and what was assumed, ignored and refused."""
    done = run("convert", script, "--json")
    document = json.loads(done.out)
    assert (done.code, list(document)) == (0, ["format", "run", "record", "assumed", "ignored", "refused"])
    assert document["run"]["model"]["hidden_size"] == 4096
    assert document["run"]["stages"] == [{"data_parallel": 16, "global_batch_size": 128, "tokens": 8192e6}]
    assert document["record"] is None
    assert any("--frobnicate" in each for each in document["ignored"])


def test_the_file_is_the_run_of_the_script(run: Any, script: Path, tmp_path: Path) -> None:
    """Predictions of both are the same, and comments say what was left out."""
    target = tmp_path / "run.yaml"
    assert run("convert", script, "--cluster", "dgx-h100", "-o", target).code == 0
    assert "# - --frobnicate: nobody here knows it" in target.read_text()
    one, other = api.predict(str(target)), api.predict(str(script), ["cluster=dgx-h100"])
    assert float(one.stages[0][1].iteration_time_s) == float(other.stages[0][1].iteration_time_s)


def test_what_is_missing_is_said(run: Any, script: Path, tmp_path: Path) -> None:
    """On standard error where a file is written, in the file otherwise."""
    assert "cluster is missing" in run("convert", script, "-o", tmp_path / "run.yaml").err
    assert "# cluster is missing" in run("convert", script).out


def test_what_is_refused_stands_in_the_file_and_exits_with_3(run: Any, script: Path) -> None:
    """The rest is still written."""
    script.write_text(SCRIPT.replace("--frobnicate 3", "--optimizer-cpu-offload"))
    done = run("convert", script)
    assert done.code == 3
    assert "# - --optimizer-cpu-offload: offload to the CPU" in done.out
    assert run("predict", script, "--cluster", "dgx-h100").is_refused(3, "--optimizer-cpu-offload: offload to the CPU")


def test_a_file_in_no_format_is_refused(run: Any, tmp_path: Path) -> None:
    """With the formats that there are."""
    path = tmp_path / "notes.txt"
    path.write_text("nothing of interest")
    assert run("convert", path).is_refused(2, "in none of the formats that are recognised by their content: ")


@pytest.mark.parametrize("seed", range(15))
def test_broken_bytes_give_one_sentence(run: Any, script: Path, seed: int) -> None:
    """Never a traceback."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    broken = bytearray(SCRIPT.encode())
    for _ in range(25):
        broken[chance.randrange(len(broken))] = chance.randrange(256)
    script.write_bytes(bytes(broken))
    done = run("convert", script, "--json")
    assert done.code in (0, 2, 3)
    assert done.code != 2 or (done.err.startswith("perfmodel: ") and done.err.count("\n") == 1)


@pytest.mark.parametrize(
    "command",
    [
        ["predict"], ["explain"], ["timeline"], ["sweep", "--vary", "tensor_parallel=1,2"], ["diagnose", "--measured", "4s"],
        ["whatif", "--set", "precision=fp8"], ["measure", "--dry-run"],
    ],
    ids=lambda words: words[0],
)  # fmt: skip
def test_commands_take_a_script(run: Any, script: Path, tmp_path: Path, command: list[str]) -> None:
    """With its cluster beside it."""
    target = ["-o", tmp_path / "trace.json"] if command[0] == "timeline" else []
    small = script.read_text().replace("--num-layers 32", "--num-layers 2")
    script.write_text(small)
    done = run(command[0], script, *command[1:], "--cluster", "dgx-h100", "--gpus", "16", *target)
    assert done.code in (0, 1), done
    assert done.out


def test_a_quick_question_needs_no_file(run: Any) -> None:
    """A model, and where it runs."""
    done = run("predict", "--model", "llama-3.1-8b", "--cluster", "dgx-h100", "--gpus", 16, "--tokens", "1T", "--json")
    document = json.loads(done.out)
    assert (done.code, document["stages"][0]["gpus"], document["total_tokens"]) == (0, 16, 1e12)


def test_names_that_nothing_has_are_refused(run: Any, script: Path, tmp_path: Path) -> None:
    """Before a file is written that no command takes."""
    assert run("convert", script, "--cluster", "dgx-h10").is_refused(2, "cluster: 'dgx-h10' is not a preset of clusters")
    assert run("convert", script, "--model", "llama-3.1-8bb").is_refused(2, "did you mean llama-3.1-8b?")
    assert run("convert", script, "-o", tmp_path / "run.csv").is_refused(2, "is not the name of a run file; .yaml, .yml, .json")
