"""Is a file of records gone on with where it was left, and is half a line dropped?"""

from __future__ import annotations

from pathlib import Path

import pytest

from perfmodel.benchmarks.measure.kernels.plan import kernel_points, plan_of
from perfmodel.benchmarks.measure.kernels.points import Point
from perfmodel.benchmarks.measure.kernels.record_file import RecordFile, measure, read_lines, read_records
from perfmodel.benchmarks.measure.kernels.timing import Timing
from perfmodel.errors import InputError

POINTS = kernel_points(plan_of("cpu", smallest=True))[:4]
PROVENANCE = {"gpu": "one core", "software": "torch", "date": "2026-01-01", "command": "it"}


class Clock:
    """Takes every point for a second, and stops at one of them."""

    def __init__(self, stops_at: int = -1) -> None:
        self.taken: list[Point] = []
        self.stops_at = stops_at

    def __call__(self, point: Point) -> Timing:
        """The time of one point."""
        if len(self.taken) == self.stops_at:
            raise KeyboardInterrupt
        self.taken.append(point)
        return Timing(seconds=1.0, spread=0.0, repeats=5)


def test_what_was_measured_before_an_interrupt_is_there_and_not_measured_again(tmp_path: Path) -> None:
    """Ctrl-C loses the point that it falls into, no other."""
    path = tmp_path / "records.jsonl"
    with pytest.raises(KeyboardInterrupt):
        measure(POINTS, path, Clock(stops_at=3), provenance=PROVENANCE)
    assert len(read_records(path)) == 3
    rest = Clock()
    assert measure(POINTS, path, rest, provenance=PROVENANCE) == 1
    assert rest.taken == POINTS[3:]
    assert measure(POINTS, path, Clock(stops_at=0), provenance=PROVENANCE) == 0


def test_half_a_last_line_is_dropped(tmp_path: Path) -> None:
    """And its point measured again."""
    path = tmp_path / "records.jsonl"
    measure(POINTS, path, Clock(), provenance=PROVENANCE)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert len(read_records(path)) == 3
    again = Clock()
    measure(POINTS, path, again, provenance=PROVENANCE)
    assert again.taken == POINTS[3:]
    assert path.read_bytes() == whole


def test_progress_counts_what_was_there(tmp_path: Path) -> None:
    """Two of four, then three of four."""
    path = tmp_path / "records.jsonl"
    measure(POINTS[:2], path, Clock(), provenance=PROVENANCE)
    seen: list[tuple[int, int]] = []
    measure(POINTS, path, Clock(), provenance=PROVENANCE, on_progress=lambda done, total, _: seen.append((done, total)))
    assert seen == [(2, 4), (3, 4)]


def test_records_of_another_device_are_not_added_to(tmp_path: Path) -> None:
    """A profile is of one."""
    path = tmp_path / "records.jsonl"
    measure(POINTS, path, Clock(), provenance=PROVENANCE)
    with pytest.raises(InputError, match="holds records of one core; this is another: name another file"):
        RecordFile(path, "another")


@pytest.mark.parametrize("text", ["{}\n", "nonsense\n", "3\n"])
def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path: Path, text: str) -> None:
    """With the line that is no record."""
    path = tmp_path / "notes.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=r"notes.txt, line 1: "):
        measure(POINTS, path, Clock(), provenance=PROVENANCE)
    assert path.read_text() == text


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    """A folder that is not there."""
    with pytest.raises(InputError, match="cannot be written: no such file"):
        measure(POINTS, tmp_path / "none" / "records.jsonl", Clock(), provenance=PROVENANCE)


def test_a_broken_line_is_named_and_the_others_are_kept(tmp_path: Path) -> None:
    """A cut one, one of too many digits, one of too many brackets, and a last line without an end."""
    path = tmp_path / "records.jsonl"
    measure(POINTS, path, Clock(), provenance=PROVENANCE)
    whole = path.read_text()
    broken = [
        whole.splitlines()[0][:40],
        whole.splitlines()[0].replace('"repeats": 5', f'"repeats": {"9" * 5000}'),
        "[" * 100_000,
    ]
    path.write_text(whole + "\n".join(broken) + "\n" + whole[:30])
    found = read_lines(path)
    assert len(found.records) == 4
    assert [each.partition(": ")[0] for each in found.problems[:3]] == [f"{path}, line {number}" for number in (5, 6, 7)]
    assert found.problems[3] == f"{path}: its last line has no end, as when a disk is full; it is left out"
    path.write_text("[" * 100_000 + "\n")
    with pytest.raises(InputError, match="line 1: not valid JSON"):
        read_lines(path)


def test_no_more_than_some_broken_lines_are_named(tmp_path: Path) -> None:
    """The others are counted."""
    path = tmp_path / "records.jsonl"
    measure(POINTS, path, Clock(), provenance=PROVENANCE)
    path.write_text(path.read_text() + "{}\n" * 2000)
    found = read_lines(path)
    assert (len(found.records), len(found.problems)) == (4, 6)
    assert "1,995 more lines are no records" in found.problems[-1]
