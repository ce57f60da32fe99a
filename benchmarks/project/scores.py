"""Keeps the scores over the shipped runs from getting worse, and learns from them how wrong predictions are.

python -m perfmodel.benchmarks.project.scores

writes tests/scores.yaml anew, and prints every group that changed, whether it got better or worse: a test fails when one got
worse. It also writes perfmodel/data/evidence/published.yaml: the discrepancy of intervals, estimated with every fitted prior
left out of the source that it is scored on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeAlias

from perfmodel.evidence.discrepancy import estimated_discrepancies
from perfmodel.evidence.leave_out import left_out
from perfmodel.evidence.time_scores import TimeComparison, compare_time, summarise_times
from perfmodel.exchange.documents import read_mapping
from perfmodel.exchange.output import write_text
from perfmodel.exchange.presets import DATA
from perfmodel.exchange.tables.published_runs import fitted_priors, read_measured_runs
from perfmodel.spec.run_evidence import FIGURES, Discrepancy

Scores: TypeAlias = Mapping[str, Mapping[str, float]]

FILE: Final = Path(__file__).resolve().parents[2] / "tests" / "scores.yaml"
HEADER: Final = (
    "# By stack, GPU and precision of perfmodel/data/published_runs.csv: how many rows are predicted, the median and the 90th\n"
    "# percentile of their relative errors. Written by python -m perfmodel.benchmarks.project.scores; a test\n"
    "# fails when one of them gets worse.\n"
)
EVIDENCE: Final = DATA / "evidence" / "published.yaml"
EVIDENCE_HEADER: Final = (
    "# What predictions lack beyond uncertain coefficients and machines, by family of software and generation of GPUs\n"
    "# (perfmodel/evidence/discrepancy.py): of ln(T_measured / T_predicted) the half width of a 90 % interval, the standard\n"
    "# deviations of configurations, of layouts of one model and of rows; then the rows and sources behind them. Written by\n"
    "# python -m perfmodel.benchmarks.project.scores\n"
)
TOLERANCES: Final = {"median": 0.003, "p90": 0.01}  # how much worse is still the same


def scores(comparisons: Sequence[TimeComparison]) -> Scores:
    """Rows, median and p90 of each stack, GPU and precision with a predicted row."""
    members: dict[str, list[TimeComparison]] = {}
    for comparison in comparisons:
        labels = comparison.measured.labels
        members.setdefault(f"{labels['stack']}/{labels['gpu']}/{labels['precision']}", []).append(comparison)
    summaries = {name: summarise_times(rows) for name, rows in sorted(members.items())}
    return {
        name: {"rows": each.rows, "median": round(each.median_abs_error, 4), "p90": round(each.p90_abs_error, 4)}
        for name, each in summaries.items()
        if each is not None
    }


def worse(before: Scores, now: Scores) -> list[str]:
    """A sentence for each group that lost rows, or whose errors grew by more than is tolerated."""
    sentences = []
    for name, old in before.items():
        new = now.get(name, {"rows": 0})
        if new["rows"] < old["rows"]:
            sentences.append(f"{name}: {new['rows']} rows are predicted; {old['rows']} were")
        sentences += [
            f"{name}: {score} is {100 * new[score]:.2f} %; it was {100 * old[score]:.2f} %"
            for score, tolerated in TOLERANCES.items()
            if score in new and new[score] > old[score] + tolerated
        ]
    return sentences


def changes(before: Scores, now: Scores) -> list[str]:
    """A line for each group that is new, gone or different."""
    lines = []
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if old == new:
            continue
        sides = ["none" if side is None else _text(side) for side in (old, new)]
        lines.append(f"{name}: {sides[0]} -> {sides[1]}")
    return lines


def _text(group: Mapping[str, float]) -> str:
    return f"median {100 * group['median']:.2f} % and p90 {100 * group['p90']:.2f} % of {group['rows']}"


def evidence_text(estimated: Mapping[str, Discrepancy], *, day: str) -> str:
    """The estimates as a file of perfmodel/data/evidence."""
    cells = (
        f"  {cell}: {' '.join(f'{round(float(getattr(each, figure)), 4):g}' for figure in FIGURES)}\n"
        for cell, each in estimated.items()
    )
    source = f"estimated on {day} on the scored rows of published_runs.csv, each without what was fitted on its own source"
    return f"{EVIDENCE_HEADER}name: Published runs\nsource: {source}\ncells:\n{''.join(cells)}"


def main() -> None:
    """Predict all shipped runs, say what changed, and write the scores and the discrepancies."""
    comparisons = [compare_time(each) for each in read_measured_runs(DATA / "published_runs.csv").rows]
    now = scores(comparisons)
    before: Scores = read_mapping(FILE) if FILE.exists() else {}
    lost = worse(before, now)
    print("\n".join(changes(before, now)) or "nothing changed")
    print("\n".join(f"WORSE {sentence}" for sentence in lost), end="\n" if lost else "")
    rows = (
        f"{name}: {{rows: {each['rows']}, median: {each['median']:.4f}, p90: {each['p90']:.4f}}}\n"
        for name, each in now.items()
    )
    write_text(FILE, HEADER + "".join(rows))
    estimated = estimated_discrepancies(left_out(comparisons, fitted_priors()))
    write_text(EVIDENCE, evidence_text(estimated, day=datetime.now(UTC).date().isoformat()))
    print(f"wrote {FILE} and {EVIDENCE}")


if __name__ == "__main__":
    main()
