"""Training from the command line: what a killed rank costs came after the last checkpoint, and a refusal is one sentence."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
import yaml

from perfmodel.benchmarks.measure.processes import MARK, end, marked, measuring_environment, start
from perfmodel.benchmarks.measure.steps import train
from tests.model.conftest import ROOT

MODEL = {
    "name": "small",
    "layers": 2,
    "hidden_size": 64,
    "attention_heads": 4,
    "kv_heads": 2,
    "head_size": 16,
    "ffn_hidden_size": 160,
    "activation": "squared_relu",
    "norm": "layernorm",
    "vocab_size": 90,
    "vocab_padding_multiple": 8,
}
RUN = {
    "name": "small",
    "model": MODEL,
    "cluster": "dgx-h100",
    "stack": "reference",
    "precision": "bf16",
    "tensor_parallel": 1,
    "sequence_parallel": False,
    "sharding": "zero1",
    "recompute": "none",
    "micro_batch_size": 1,
    "sequence_length": 32,
    "stages": [{"data_parallel": 2, "global_batch_size": 4, "tokens": 1e9}],
}
LINE = re.compile(r"iteration (?P<iteration>\d+)  loss (?P<loss>\S+)")
EVERY, KILLED_AFTER, LAST = 4, 11, 13


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """A run of two ranks and a folder for its checkpoints."""
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(RUN))
    return [str(tmp_path / "run.yaml"), "--device", "cpu", "--checkpoint", str(tmp_path / "checkpoints"), "--every", str(EVERY)]


def losses(lines: str) -> dict[int, str]:
    """As they were printed, by iteration."""
    return {int(found["iteration"]): found["loss"] for found in LINE.finditer(lines)}


def killed(command: list[str]) -> str:
    """What was printed by a run of two ranks, one of which is killed in its twelfth step."""
    mark = uuid.uuid4().hex
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "-m",
        "perfmodel.benchmarks.measure.steps.train",
    ]
    process = subprocess.Popen(
        [*launcher, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=measuring_environment() | {MARK: mark},
        text=True,
        cwd=ROOT,
    )
    try:
        assert process.stdout is not None
        printed = ""
        for line in process.stdout:
            printed += line
            if KILLED_AFTER in losses(printed):
                break
        os.kill(max(pid for pid in marked(mark) if pid != process.pid), signal.SIGKILL)
        printed += process.stdout.read()
        assert process.wait(timeout=60) != 0
        return printed
    finally:
        end(process, mark)
        if process.stdout:
            process.stdout.close()


@pytest.mark.slow
@pytest.mark.ranks
def test_a_run_that_was_killed_repeats_its_losses(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank is killed in mid-step; started again, the run goes on from the last checkpoint and loses nothing before it."""
    monkeypatch.chdir(ROOT)
    before = losses(killed([*arguments, "--iterations", "100000"]))
    again = start(["perfmodel.benchmarks.measure.steps.train", *arguments, "--iterations", str(LAST)], 2, timeout_s=120)
    after = losses(again)
    assert "goes on from" in again
    first = min(after)
    assert first % EVERY == 1
    assert first > EVERY
    repeated = before.keys() & after.keys()
    assert repeated >= set(range(first, KILLED_AFTER + 1))
    assert {number: before[number] for number in repeated} == {number: after[number] for number in repeated}
    assert max(after) == LAST


@pytest.mark.parametrize(
    ("more", "code", "sentence"),
    [
        ([], 2, "perfmodel: the layout has 2 ranks (tensor_parallel 1 x data_parallel 2), not the 1 that were started"),
        (["--set", "stages[0].data_parallel=1", "--set", "sharding=zero3"], 3, "perfmodel: sharding: the reference model runs"),
        (["--set", "tensor_parallel=8"], 2, "perfmodel: tensor_parallel: 8 does not divide 4 attention heads"),
        (["--stage", "2"], 2, "perfmodel: --stage: 2 is not one of the 1 stages of small"),
        (["--every", "0"], 2, "perfmodel: --every: 0 must be at least 1"),
    ],
)
def test_what_cannot_be_trained_is_one_sentence(
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    code: int,
    sentence: str,
) -> None:
    """And its exit code."""
    monkeypatch.setattr(sys, "argv", ["train", *arguments, "--iterations", "1", *more])
    cores = os.sched_getaffinity(0)
    with pytest.raises(SystemExit) as stop:
        train.main()
    said = capsys.readouterr().err
    assert stop.value.code == code
    assert said.startswith(sentence)
    assert said.count("\n") == 1
    assert os.sched_getaffinity(0) == cores


def test_a_port_in_use_is_one_sentence(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ranks that something other than torchrun --standalone starts meet at a port that somebody chose."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        place = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        for name, value in place.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["train", *arguments, "--iterations", "1"])
        with pytest.raises(SystemExit) as stop:
            train.main()
    assert stop.value.code == 4
    assert capsys.readouterr().err.startswith(f"perfmodel: the ranks cannot meet at 127.0.0.1:{port}: the port is in use")
