"""Does `perfmodel explain` answer, refuse and exit as the other commands do?"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

RUN = ["explain", "nemotron-4-15b"]


def test_json_has_the_waterfall_the_levers_and_the_moves(run: Any) -> None:
    """The steps sum to the prediction of `predict`; nothing is left out."""
    done = run(*RUN, "--json")
    assert (done.code, done.err) == (0, "")
    document = json.loads(done.out)
    last = json.loads(run("predict", "nemotron-4-15b", "--json").out)["stages"][-1]
    assert document["schema_version"] == 1
    assert (document["stage"], document["stages"], document["gpus"]) == (3, 3, last["gpus"])
    assert document["iteration_time_s"] == last["iteration_time_s"]
    steps = document["waterfall"]["steps"]
    assert document["waterfall"]["ideal_s"] + sum(step["seconds"] for step in steps) == pytest.approx(last["iteration_time_s"])
    assert 1 + sum(step["mfu_change"] for step in steps) == pytest.approx(last["mfu"])
    lever = next(each for each in document["levers"] if each["name"] == "NVLink 4 (H100) bandwidth")
    assert lever["numbers"] == {"cluster.links.node.bandwidth_bytes_per_s": 450e9}
    assert lever["time_change"] < 0 < lever["step"]
    move = next(each for each in document["moves"] if each["key"] == "tensor_parallel" and each["after"] == 4)
    assert (move["data_parallel"], move["fits"], move["refusal"]) == (576, True, "")


def test_a_move_is_what_predict_says_of_it(run: Any) -> None:
    """Half the tensor parallelism, twice the data parallelism."""
    moves = json.loads(run(*RUN, "--json").out)["moves"]
    move = next(each for each in moves if each["key"] == "tensor_parallel" and each["after"] == 4)
    settings = ["--set", "tensor_parallel=4", "--set", "stages[-1].data_parallel=576"]
    last = json.loads(run("predict", "nemotron-4-15b", *settings, "--json").out)["stages"][-1]
    assert move["iteration_time_s"] == last["iteration_time_s"]
    assert move["memory_bytes"] == last["memory"]["total_bytes"]


def test_a_term_has_equations_operators_and_numbers_with_sources(run: Any) -> None:
    """Of every number where it comes from."""
    document = json.loads(run(*RUN, "--term", "tensor_parallel", "--json").out)
    term = document["term"]
    assert term["name"] == "tensor_parallel"
    assert term["settings"]["stack.overlap.tensor_parallel"] == "pipelined"
    assert any("hidden = min(c" in each["text"] for each in term["equations"])
    assert {each["shape"]["kind"] for each in term["operators"]} == {"all_gather", "reduce_scatter", "all_reduce"}
    assert {each["confidence"] for each in term["operators"]} <= {"measured", "interpolated", "extrapolated", "datasheet"}
    assert all(set(each) == {"path", "value", "step", "term_change", "iteration_change", "source"} for each in term["numbers"])
    assert all(each["source"] for each in term["numbers"])


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("options", [[], ["--all"], ["--term", "matmul"], ["--stage", "1"]])
def test_tables_fit_the_width(run: Any, columns: int, options: list[str]) -> None:
    """Plain ASCII in a pipe."""
    done = run(*RUN, *options, columns=columns)
    assert (done.code, done.err) == (0, "")
    assert done.out.isascii()
    assert max(map(len, done.out.splitlines())) <= columns


def test_another_stage_is_said(run: Any) -> None:
    """Counted from 1."""
    assert run(*RUN).out.startswith("Nemotron-4 15B, stage 3 of 3: ")
    assert run(*RUN, "--stage", "1").out.startswith("Nemotron-4 15B, stage 1 of 3: ")
    assert json.loads(run(*RUN, "--stage", "1", "--json").out)["data_parallel"] == 96


def test_a_run_that_does_not_fit_exits_with_1(run: Any) -> None:
    """It is said first, and explained all the same."""
    done = run(*RUN, "--set", "tensor_parallel=1")
    assert done.code == 1
    assert done.out.startswith("Does not fit in memory: needs")
    assert "Where the peak goes" in done.out
    assert json.loads(run(*RUN, "--set", "tensor_parallel=1", "--json").out)["fits"] is False


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (
            [*RUN, "--term", "tensor_paralel"],
            2,
            "perfmodel: term: 'tensor_paralel' is not a term of the iteration; did you mean",
        ),
        ([*RUN, "--stage", "4"], 2, "perfmodel: stage: Nemotron-4 15B has no stage 4: its stages are 1 to 3"),
        ([*RUN, "--stage", "0"], 2, "perfmodel: stage: Nemotron-4 15B has no stage 0: its stages are 1 to 3"),
        ([*RUN, "--set", "tensor_paralel=4"], 2, "perfmodel: tensor_paralel: unknown key; did you mean tensor_parallel?"),
        ([*RUN, "--set", "tensor_parallel"], 2, "perfmodel: 'tensor_parallel' is not a setting"),
        ([*RUN, "--set", "cluster=dgx-a100", "--set", "precision=fp8"], 3, "perfmodel: precision: A100 SXM 80GB has no fp8"),
        (["explain", "nemotron-4-15x"], 2, "perfmodel: 'nemotron-4-15x' is neither a run file nor a preset run; did you mean"),
        ([*RUN, "-o", "no/such/place.json"], 2, "perfmodel: no/such/place.json cannot be written"),
    ],
)
def test_wrong_input_gets_one_sentence_and_its_code(
    run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str], code: int, sentence: str
) -> None:
    """On stderr, with nothing on stdout and nothing written."""
    monkeypatch.chdir(tmp_path)
    done = run(*arguments)
    assert done.is_refused(code, sentence), done
    assert not list(tmp_path.iterdir())


def test_output_goes_to_a_file(run: Any, tmp_path: Path) -> None:
    """JSON by its extension, text otherwise."""
    for name in ("out.json", "out.txt"):
        assert run(*RUN, "-o", tmp_path / name).err.endswith(f"{name}\n")
    assert json.loads((tmp_path / "out.json").read_text())["name"] == "Nemotron-4 15B"
    assert "Where the peak goes" in (tmp_path / "out.txt").read_text()


def test_help_names_every_term(run: Any) -> None:
    """So that nobody has to guess."""
    from perfmodel.explanation.terms import TERMS

    text = " ".join(run("explain", "--help", columns=120).out.replace("│", " ").split())
    assert all(name in text for name in TERMS)


@pytest.mark.processes
def test_json_loads_nothing_heavy() -> None:
    """Neither torch, pandas nor matplotlib, and not even rich."""
    script = "import sys; from perfmodel.commands import app; sys.argv[1:] = ['explain', 'nemotron-4-15b', '--json']\n"
    script += "try: app.main()\nexcept SystemExit: pass\n"
    script += "print([name for name in ('torch', 'pandas', 'matplotlib', 'rich') if name in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
