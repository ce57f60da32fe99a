"""Does `perfmodel plan --launch` write files from which the best plan is read again?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from perfmodel import api
from tests.commands.choices.test_plan_command import QUICK, said

pytestmark = pytest.mark.usefixtures("known_searches")

LAUNCHED = [*QUICK, "--gpus", 8, "--tokens", "1T", "--launch"]


def test_the_best_plan_is_written_as_a_launch_file(run: Any, tmp_path: Path) -> None:
    """The run that it describes is the best plan; standard output is that of the plan alone."""
    target = tmp_path / "best.sh"
    outcome = run(*LAUNCHED, "megatron-core", "-o", target, "--json")
    best = json.loads(outcome.out)["stages"][0]
    assert "the launch file of the best plan, for NVIDIA/Megatron-LM" in outcome.err
    found = api.predict(str(target), ["cluster=dgx-h100"]).stages[0][1]
    assert float(found.iteration_time_s) == pytest.approx(best["iteration_time_s"], rel=1e-9)


def test_the_search_is_for_the_software_of_the_launch_file(run: Any, tmp_path: Path) -> None:
    """Its stack, and what its words can say; another stack is refused before the search."""
    outcome = run(*LAUNCHED[:4], "--gpus", 8, "--launch", "deepspeed", "-o", tmp_path / "best.sh", "--json")
    assert (json.loads(outcome.out)["stack"], outcome.code) == ("DeepSpeed ZeRO", 0)
    assert '"stage": ' in (tmp_path / "best.sh").read_text()
    words = said(run, *LAUNCHED, "nanotron", "--stack", "megatron-core", code=3)
    assert "Megatron-Core (2024) is not the software that nanotron files are for; --stack nanotron is" in words


@pytest.mark.parametrize("software", ["torchtitan", "maxtext", "nanotron"])
def test_a_launch_file_can_say_the_best_plan(run: Any, tmp_path: Path, software: str) -> None:
    """Where memory is short too: full recompute is of all layers there."""
    short = ["--leave-free", "40%", "--choose", "pipeline_parallel=1,2", "--launch", software, "-o", tmp_path / "best"]
    outcome = run(*QUICK[:4], "--gpus", 8, *short, "--json")
    assert outcome.code == 0, outcome.err
    layout = json.loads(outcome.out)["stages"][0]["layout"]
    assert "recompute_layers" not in layout
    again = api.load(str(tmp_path / "best"), ["cluster=dgx-h100"])
    assert [getattr(again, key) for key in ("recompute", "sharding", "micro_batch_size")] == [
        layout[key] for key in ("recompute", "sharding", "micro_batch_size")
    ]


def test_a_report_and_a_launch_file_are_not_one_file(run: Any) -> None:
    """--output names the launch file."""
    assert "with --launch it names the launch file, as in launch.py" in said(run, *LAUNCHED, "torchtitan", "-o", "plan.json")


def test_stages_of_a_ramp_are_numbered_launch_files(run: Any, tmp_path: Path) -> None:
    """Where their layouts differ, or one file cannot hold several batches."""
    ramp = ["--ramp", "8:10B:8,16:10B:8", "--launch"]
    assert run(*QUICK, *ramp, "torchtitan", "-o", tmp_path / "best.py").code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best-1.py", "best-2.py"]
