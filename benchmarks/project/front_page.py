"""Renews what README.md shows: the output behind each of its commands, and the table of scores.

    python -m perfmodel.benchmarks.project.front_page

A block of text behind a command is what the command prints, as many lines of it as there are. A test fails where it is not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from perfmodel.benchmarks.project.site.fences import table
from perfmodel.benchmarks.project.site.typed_commands import output, trimmed
from perfmodel.evidence.time_scores import TimeComparison, TimeErrors, compare_time, summarise_times
from perfmodel.exchange.output import write_text
from perfmodel.exchange.presets import DATA
from perfmodel.exchange.tables.published_runs import read_measured_runs

PAGE: Final = Path(__file__).resolve().parents[2] / "README.md"
ANSWER: Final = re.compile(
    r"(?P<before>```sh\n(?P<command>perfmodel [^\n]*)\n```\n```text\n)(?P<text>.*?)(?=\n```$)", re.MULTILINE | re.DOTALL
)
SCORES: Final = re.compile(r"(?<=<!-- scores -->\n).*?(?=<!-- end of scores -->)", re.DOTALL)
MARK: Final = "[..]"
LEAST_ROWS: Final = 10  # of a software that has a line of its own
HEAD: Final = ("measured runs", "rows", "median error", "90th percentile", "bias", "inside the 90 % interval")


def renewed(page: str, dense: Sequence[TimeComparison], mixtures: Sequence[TimeComparison]) -> str:
    """The page with what its commands print now, and the scores of the shipped runs."""
    with TemporaryDirectory() as folder:
        answered = ANSWER.sub(lambda found: found["before"] + _answer(found, Path(folder)), page)
    return SCORES.sub(lambda _: scores(dense, mixtures), answered)


def _answer(found: re.Match[str], folder: Path) -> str:
    lines = found["text"].splitlines()
    return trimmed(output(found["command"], folder), len(lines) - (MARK in lines))


def scores(dense: Sequence[TimeComparison], mixtures: Sequence[TimeComparison]) -> str:
    """A line for each software with enough rows, then all of them, and the mixtures of experts."""
    by_stack: dict[str, list[TimeComparison]] = {}
    for each in dense:
        by_stack.setdefault(each.measured.labels["stack"], []).append(each)
    found = [(name, summarise_times(rows)) for name, rows in sorted(by_stack.items())]
    lines = [
        _line(name, str(summary.rows), summary) for name, summary in found if summary is not None and summary.rows >= LEAST_ROWS
    ]
    return table(HEAD, [*lines, *_whole("all of dense models", dense), *_whole("all of mixtures of experts", mixtures)])


def _whole(name: str, rows: Sequence[TimeComparison]) -> list[tuple[str, ...]]:
    summary = summarise_times(rows)
    if summary is None:
        return []
    return [_line(name, str(summary.rows), summary), _line("each source weighing one", "", summary.by_source)]


def _line(name: str, rows: str, summary: TimeErrors) -> tuple[str, ...]:
    errors = (f"{100 * summary.median_abs_error:.1f} %", f"{100 * summary.p90_abs_error:.1f} %", f"{100 * summary.bias:+.1f} %")
    return (name, rows, *errors, f"{100 * summary.interval_coverage:.0f} %")


def main() -> None:
    """Run the commands, score the runs, and write the page."""
    dense, mixtures = (
        [compare_time(each) for each in read_measured_runs(DATA / f"{name}.csv").rows]
        for name in ("published_runs", "mixture_runs")
    )
    write_text(PAGE, renewed(PAGE.read_text(encoding="utf-8"), dense, mixtures))
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
