"""Does `perfmodel launch` write files that the other commands take?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perfmodel import api
from perfmodel.exchange.launchers.registry import known_launchers

PRESET = "nemotron-4-15b"


def test_the_file_is_the_run(run: Any, tmp_path: Path) -> None:
    """The last stage of a ramp over growing numbers of GPUs, which is said."""
    target = tmp_path / "train.sh"
    done = run("launch", PRESET, "-o", target)
    assert done.code == 0
    assert "this is stage 3 of 3" in done.err
    one, other = api.predict(PRESET), api.predict(str(target), ["cluster=dgx-h100"])
    assert float(other.stages[0][1].iteration_time_s) == float(one.stages[-1][1].iteration_time_s)


def test_a_stage_and_settings_are_those_that_are_asked_for(run: Any) -> None:
    """On standard output."""
    done = run("launch", PRESET, "--stage", "1", "--set", "recompute=full", "--for", "slurm")
    assert (done.code, done.err) == (0, "")
    assert "#SBATCH --nodes=96\n" in done.out
    assert "--recompute-granularity full --recompute-method uniform" in done.out
    assert "--global-batch-size 384" in done.out


def test_what_cannot_be_written_is_refused(run: Any, tmp_path: Path) -> None:
    """With its exit code, and no file."""
    target = tmp_path / "train.sh"
    assert run("launch", PRESET, "--set", "stack=torchtitan", "-o", target).code == 3
    assert run("launch", PRESET, "--for", "megatron", "-o", target).code == 2
    assert not target.exists()


@pytest.mark.parametrize("command", ["launch", "plan"])
def test_the_help_names_every_format(run: Any, command: str) -> None:
    """And an example with --for or --launch."""
    text = " ".join(run(command, "--help").out.replace("│", " ").split())
    assert not [name for name in known_launchers() if name not in text]


def test_a_typo_gets_the_nearest_format(run: Any, tmp_path: Path) -> None:
    """Before anything is searched or written."""
    target = tmp_path / "train.py"
    done = run("launch", PRESET, "--for", "torchtitian", "-o", target)
    assert (done.code, done.err) == (
        2,
        "perfmodel: --for: 'torchtitian' is no format of launch files; did you mean torchtitan?\n",
    )
    done = run("plan", "llama-3.1-8b", "--cluster", "dgx-h100", "--gpus", 8, "--launch", "deepsped", "-o", target)
    assert (done.code, done.err) == (
        2,
        "perfmodel: --launch: 'deepsped' is no format of launch files; did you mean deepspeed?\n",
    )
    assert not target.exists()


def test_a_model_alone_gets_a_layout_of_the_software(run: Any, tmp_path: Path) -> None:
    """As plan --launch finds it; the stack of a run is never changed."""
    target = tmp_path / "train.yaml"
    assert run("launch", "llama-3.1-8b", "--gpus", 8, "--for", "maxtext", "-o", target).code == 0
    assert api.load(str(target), {"cluster": "dgx-h100"}).stack.family == "maxtext"
    done = run("launch", PRESET, "--for", "maxtext")
    assert (done.code, done.out) == (3, "")
    assert "stack: Megatron-Core (2024) is not the software that maxtext files are for; --set stack=maxtext is" in done.err
