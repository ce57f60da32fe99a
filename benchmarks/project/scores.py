"""Keeps the scores over the shipped runs from getting worse, and learns from them how wrong predictions are.

python -m perfmodel.benchmarks.project.scores

writes tests/scores.yaml anew, and prints every group that changed, whether it got better or worse: a test fails when one got
worse. It also writes perfmodel/data/evidence/published.yaml: the discrepancy of intervals, how errors are distributed in them
and how widely own runs share them, estimated with every fitted prior left out of the source that it is scored on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeAlias

from perfmodel.benchmarks.project.own_runs import evidence_of, with_evidence
from perfmodel.evidence.discrepancy import estimated_discrepancies
from perfmodel.evidence.leave_out import left_out
from perfmodel.evidence.sharing import sharing_without_each
from perfmodel.evidence.tails import ALL, laws_without_each, likely_degrees
from perfmodel.evidence.time_scores import TimeComparison, compare_time, summarise_times
from perfmodel.exchange.output import write_text
from perfmodel.exchange.presets import DATA
from perfmodel.exchange.syntax.documents import read_mapping
from perfmodel.exchange.tables.fitted_priors import fitted_priors
from perfmodel.exchange.tables.published_runs import read_measured_runs
from perfmodel.spec.evidence.run_evidence import FIGURES, MIXTURES, POOLED, Discrepancy, RunEvidence, Sharing

Scores: TypeAlias = Mapping[str, Mapping[str, float]]

FILE: Final = Path(__file__).resolve().parents[2] / "tests" / "scores.yaml"
HEADER: Final = (
    "# By stack, GPU and precision of perfmodel/data/published_runs.csv, and of mixture_runs.csv: how many rows are\n"
    "# predicted, the median and the 90th percentile of their relative errors. Written by\n"
    "# python -m perfmodel.benchmarks.project.scores; a test fails when one of them gets worse.\n"
)
EVIDENCE: Final = DATA / "evidence" / "published.yaml"
EVIDENCE_HEADER: Final = (
    "# What predictions lack beyond uncertain coefficients and machines, by family of software and generation of GPUs\n"
    "# (perfmodel/evidence/discrepancy.py): of ln(T_measured / T_predicted) the half width of a 90 % interval, the deviations\n"
    "# of configurations, of layouts of one model and of rows; then the rows and sources behind them. Errors lie in intervals\n"
    "# by Student's t of so many degrees. Written by python -m perfmodel.benchmarks.project.scores\n"
)
TOLERANCES: Final = {"median": 0.003, "p90": 0.01}  # how much worse is still the same


def scores(comparisons: Sequence[TimeComparison]) -> Scores:
    """Rows, median and p90 of each stack, GPU and precision with a predicted row."""
    members: dict[str, list[TimeComparison]] = {}
    for comparison in comparisons:
        labels = comparison.measured.labels
        has_experts = comparison.measured.model.mixture is not None
        group = f"{labels['stack']}/{labels['gpu']}/{labels['precision']}"
        members.setdefault(f"{MIXTURES}/{group}" if has_experts else group, []).append(comparison)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimates:
    """What the scored rows say of intervals: discrepancies by cell, the likely range of the degrees of their law, sharing."""

    cells: Mapping[str, Discrepancy]
    likely_degrees: tuple[float, float]
    sharing: Sharing

    @property
    def evidence(self) -> RunEvidence:
        """The estimates in the form that predictions take."""
        return evidence_of(self.cells, self.sharing)


def estimates(comparisons: Sequence[TimeComparison], mixtures: Sequence[TimeComparison] = ()) -> Estimates:
    """What comparisons say in which nothing is fitted on the source of a row; of mixtures their discrepancies alone."""
    law = laws_without_each(comparisons)[ALL]
    cells = estimated_discrepancies([*comparisons, *mixtures], law=law)
    first = Estimates(cells=cells, likely_degrees=likely_degrees(comparisons), sharing=Sharing())
    shared = sharing_without_each([with_evidence(each, first.evidence) for each in comparisons])[ALL]
    return replace(first, sharing=shared)


def evidence_text(found: Estimates, *, day: str) -> str:
    """The estimates as a file of perfmodel/data/evidence."""
    cells = (
        f"  {cell}: {' '.join(f'{round(float(getattr(each, figure)), 4):g}' for figure in FIGURES)}\n"
        for cell, each in found.cells.items()
    )
    laws = "".join(f'{name}: {{value: {value:.4g}, source: "{why}"}}\n' for name, value, why in _laws(found, day))
    without = "each without what was fitted on its own source, and of mixture_runs.csv"
    source = f"estimated on {day} on the scored rows of published_runs.csv, {without}"
    return f"{EVIDENCE_HEADER}name: Published runs\nsource: {source}\n{laws}cells:\n{''.join(cells)}"


def _laws(found: Estimates, day: str) -> list[tuple[str, float, str]]:
    """The numbers that hold for all cells, each with its source."""
    pooled, (low, high) = found.cells[POOLED], found.likely_degrees
    of = f"{int(pooled.rows)} scored rows of {int(pooled.sources)} sources of published_runs.csv, {day}"
    likeliest = (
        f"greatest likelihood, each source weighing one, {low:.1f} to {high:.1f} with 95 % (perfmodel/evidence/tails.py)"
    )
    best = "least Winkler score where {} of a source are known (perfmodel/evidence/sharing.py)"
    return [
        ("degrees", pooled.law.degrees, f"{likeliest}, {of}"),
        ("file_share", found.sharing.file, f"{best.format('runs of other software')}, {of}"),
        ("models_share", found.sharing.models, f"{best.format('runs of other models')}, {of}"),
    ]


def main() -> None:
    """Predict all shipped runs, say what changed, and write the scores and the discrepancies."""
    comparisons, mixtures = (
        [compare_time(each) for each in read_measured_runs(DATA / name).rows]
        for name in ("published_runs.csv", "mixture_runs.csv")
    )
    now = scores([*comparisons, *mixtures])
    before: Scores = read_mapping(FILE) if FILE.exists() else {}
    lost = worse(before, now)
    print("\n".join(changes(before, now)) or "nothing changed")
    print("\n".join(f"WORSE {sentence}" for sentence in lost), end="\n" if lost else "")
    rows = (
        f"{name}: {{rows: {each['rows']}, median: {each['median']:.4f}, p90: {each['p90']:.4f}}}\n"
        for name, each in now.items()
    )
    write_text(FILE, HEADER + "".join(rows))
    found = estimates(left_out(comparisons, fitted_priors()), mixtures)
    write_text(EVIDENCE, evidence_text(found, day=datetime.now(UTC).date().isoformat()))
    print(f"wrote {FILE} and {EVIDENCE}")


if __name__ == "__main__":
    main()
