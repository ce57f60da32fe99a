"""Does `perfmodel launch` write files that the other commands take?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from perfmodel import api

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
