"""Are collectives measured in groups of every size, on processes that torchrun started?"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from perfmodel.benchmarks.measure.kernels import collectives, kernels
from perfmodel.benchmarks.measure.kernels.collectives import LedRanks, groups_of, repeats_for
from perfmodel.benchmarks.measure.kernels.plan import COLLECTIVES, SMALLEST, collective_points
from perfmodel.benchmarks.measure.kernels.record_file import read_records
from perfmodel.benchmarks.measure.kernels.tensors import SMALLEST_CACHE, cache_bytes
from perfmodel.benchmarks.measure.kernels.timing import Timing
from perfmodel.model.groups import Group


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
    assert all(1.0 < float(each.provenance["cores_apart_us"]) < 1e5 for each in records)


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


def led_ranks(monkeypatch: pytest.MonkeyPatch, looks_s: Sequence[float] = ()) -> LedRanks:
    """Rank 0 of two that are not there; what they find when they look how far apart their cores are."""
    monkeypatch.setattr("torch.distributed.broadcast_object_list", lambda _: None)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    monkeypatch.setattr(collectives, "core_exchange", lambda _: Looks(iter(looks_s)) if looks_s else None)
    monkeypatch.setattr(collectives, "_of_all_ranks", lambda own: [own])
    monkeypatch.setattr(collectives, "EVERY_S", 0.0)
    return LedRanks({(2, 1): Group(2, 0)}, "cpu", smallest=False)


class Looks:
    """In the place of an exchange between ranks."""

    def __init__(self, looks_s: Iterator[float]) -> None:
        self.distance_s = looks_s.__next__


@pytest.mark.parametrize(
    ("others", "kept", "taken"),
    [(["0.50", "0.20", "0.90", ""], "0.20", 3), (["0.50", "", "0.20"], "", 2), (["", "0.20"], "", 1)],
)
def test_a_point_that_was_not_measured_alone_is_measured_again(
    others: list[str], kept: str, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it was, or some times; the time with the fewest neighbours and its own marks are kept."""
    ranks = led_ranks(monkeypatch)
    found: list[Timing] = []

    def take(_: object) -> Timing:
        ranks.marks = {"others_cores": others[len(found)]} if others[len(found)] else {}
        found.append(Timing(seconds=1.0 + len(found), spread=0.1, repeats=9))
        return found[-1]

    monkeypatch.setattr(ranks, "_take", take)
    point = collective_points(SMALLEST, [(2, 1)], backend="gloo", precision="fp32")[0]
    assert ranks._surest(point).seconds == 1.0 + others.index(kept)
    assert ranks.marks.get("others_cores", "") == kept
    assert len(found) == taken


@pytest.mark.parametrize(
    ("looks_us", "kept"),
    [
        ((25, 26), 0),  # of the first point and the second
        ((25, 33, 33, 32, 26, 27), 1),  # apart at the second point, and then twice; near, so that it is measured again
        ((33, 25), 0),
    ],
)
def test_a_point_whose_cores_were_apart_is_measured_again_when_they_are_near(
    looks_us: Sequence[float], kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The marks of what is kept say how near they were; every look was needed."""
    looks = [each / 1e6 for each in looks_us]
    ranks = led_ranks(monkeypatch, looks)
    ranks.patience_s, found = 1.0, list[Timing]()

    def timed(_: object) -> Timing:
        found.append(Timing(seconds=float(len(found)), spread=0.1, repeats=9))
        return found[-1]

    monkeypatch.setattr(ranks, "_timed", timed)
    first, second = collective_points(SMALLEST, [(2, 1)], backend="gloo", precision="fp32")[:2]
    ranks._surest(first)
    assert ranks._surest(second).seconds == 1.0 + kept
    assert ranks.marks["cores_apart_us"] == f"{looks_us[-1]:.1f}"
    with pytest.raises(StopIteration):
        ranks._look()


def test_patience_with_cores_that_are_apart_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """They may stay so; each point is tried no more often than beside neighbours."""
    ranks = led_ranks(monkeypatch, [*[25e-6] * 3, *[33e-6] * 100])
    monkeypatch.setattr(collectives, "EVERY_S", 1e-3)
    monkeypatch.setattr(ranks, "_timed", lambda _: Timing(seconds=1.0, spread=0.1, repeats=9))
    ranks.patience_s = 5e-3
    for point in collective_points(SMALLEST, [(2, 1)], backend="gloo", precision="fp32")[:4]:
        ranks._surest(point)
    assert ranks.patience_s == pytest.approx(0.0, abs=1e-9)


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
