"""Are collectives measured in groups of every size, on processes that torchrun started?"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from perfmodel.benchmarks.measure.kernels import collectives, kernels
from perfmodel.benchmarks.measure.kernels.collectives import groups_of, repeats_for
from perfmodel.benchmarks.measure.kernels.plan import COLLECTIVES, SMALLEST
from perfmodel.benchmarks.measure.kernels.record_file import read_records
from perfmodel.benchmarks.measure.kernels.tensors import SMALLEST_CACHE, cache_bytes


@pytest.mark.slow
@pytest.mark.ranks
def test_two_processes_measure_every_collective(collective_records: str, tmp_path: Path) -> None:
    """Each at every size, with its backend. How they go on is in tests/commands/measured/test_measure_command.py."""
    path = tmp_path / "records.jsonl"
    path.write_text(collective_records)
    every = read_records(path)
    records = [each for each in every if each.kind == "collective"]
    assert {each.labels["busy"] for each in every if each.kind == "memory_bound"} == {"all"}
    found = {(each.labels["operator"], each.sizes["payload_bytes"]) for each in records}
    assert found == {(operator, size) for operator in COLLECTIVES for size in SMALLEST.payload_bytes}
    assert {(each.labels["backend"], each.sizes["ranks"], each.sizes["nodes"]) for each in records} == {("gloo", 2, 1)}
    assert all(each.repeats >= 15 for each in records)


def test_groups_double_and_cross_nodes() -> None:
    """Two nodes of four: 2 and 4 inside, 8 over both, and one rank of each."""
    assert [group.size for group in groups_of(8, 4)] == [(2, 1), (4, 1), (8, 2), (2, 2)]
    assert groups_of(8, 4)[-1].members == (0, 4)
    assert [group.size for group in groups_of(6, 6)] == [(2, 1), (4, 1), (6, 1)]
    assert groups_of(1, 1) == []


def test_short_messages_between_cpus_are_sent_more_often() -> None:
    """Their times spread."""
    assert repeats_for(1024, "cpu") >= 31 > repeats_for(2**26, "cpu") >= 15
    assert repeats_for(1024, "cpu", smallest=True) >= 15


def test_as_much_is_worked_on_between_two_calls_as_the_cache_holds() -> None:
    """To see that it works, as much as a small one would hold."""
    assert [collectives._work(smallest=smallest).nbytes for smallest in (True, False)] == [SMALLEST_CACHE, cache_bytes("cpu")]


@pytest.mark.parametrize("module", [kernels, collectives])
def test_without_a_gpu_it_says_so(
    module: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence, exit code 2, nothing written."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(kernels, "restarted_to_measure", lambda _: None)
    monkeypatch.setattr(sys, "argv", ["it", "--device", "cuda", "--output", str(tmp_path / "records.jsonl")])
    with pytest.raises(SystemExit) as stopped:
        module.main()  # type: ignore[attr-defined]
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "perfmodel: no CUDA device is there; --device cpu measures this machine\n"
    assert not list(tmp_path.iterdir())
