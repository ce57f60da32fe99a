"""How much own runs help, on the shipped table: median errors, coverage and Winkler scores without and with them.

python -m perfmodel.benchmarks.project.own_runs [--as-shipped]

Every source is somebody's own runs. What was fitted on runs, and how far predictions of a cell are off, is estimated without
that source; --as-shipped leaves both as they are.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from perfmodel.evidence.discrepancy import estimated_discrepancies
from perfmodel.evidence.groups import publication
from perfmodel.evidence.leave_out import left_out
from perfmodel.evidence.measured_rows import with_evidence as of_measured
from perfmodel.evidence.own_run_scores import (
    OwnRunScores,
    scores_from_one_run,
    scores_from_other_models,
    scores_from_other_software,
)
from perfmodel.evidence.sharing import sharing_without_each
from perfmodel.evidence.tails import ALL, laws_without_each
from perfmodel.evidence.time_scores import ErrorSummary, TimeComparison, compare_time
from perfmodel.exchange.presets import DATA
from perfmodel.exchange.tables.fitted_priors import fitted_priors
from perfmodel.exchange.tables.published_runs import read_measured_runs
from perfmodel.spec.evidence.run_evidence import FIGURES, POOLED, Discrepancy, RunEvidence, Sharing

GROUPS: Final = {  # starts of cells
    "all": "",
    "Megatron-Core on Hopper": "megatron-core/hopper",
    "Megatron-Core on Blackwell": "megatron-core/blackwell",
    "Megatron-LM on A100": "megatron-lm/ampere",
    "FSDP": "fsdp/",
}
QUESTIONS: Final = {
    "one run of the configuration": scores_from_one_run,
    "runs of other models": scores_from_other_models,
    "runs of other software or GPUs": scores_from_other_software,
}


def main() -> None:
    """Print a row for each question and group, without and with own runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--as-shipped", action="store_true", help="Score each source with what was learned from it.")
    comparisons = [compare_time(each) for each in read_measured_runs(DATA / "published_runs.csv").rows]
    if not parser.parse_args().as_shipped:
        comparisons = without_own_source(left_out(comparisons, fitted_priors()))
    print(
        f"{'':64}{'rows':>6}{'median':>9}{'p90':>9}{'inside':>9}{'Winkler':>9}{'+-':>9}   (sources weigh one: inside, Winkler)"
    )
    for question, scores_of in QUESTIONS.items():
        for group, start in GROUPS.items():
            _print(f"{question}: {group}", scores_of([each for each in comparisons if _cell(each).startswith(start)]))


def without_own_source(comparisons: Sequence[TimeComparison]) -> list[TimeComparison]:
    """Each with evidence of all sources but its own."""
    laws, sharing = laws_without_each(comparisons), sharing_without_each(comparisons)
    sources = {publication(each.measured.source) for each in comparisons}
    evidence = {
        name: evidence_of(
            estimated_discrepancies(comparisons, without=name, law=laws.get(name, laws[ALL])), sharing.get(name, sharing[ALL])
        )
        for name in sources
    }
    return [with_evidence(each, evidence[publication(each.measured.source)]) for each in comparisons]


def evidence_of(estimated: Mapping[str, Discrepancy], sharing: Sharing) -> RunEvidence:
    """What was estimated, as predictions take it."""
    cells = {cell: tuple(float(getattr(each, figure)) for figure in FIGURES) for cell, each in estimated.items()}
    return RunEvidence(
        name="measured runs",
        cells=cells,
        degrees=estimated[POOLED].law.degrees,
        file_share=sharing.file,
        models_share=sharing.models,
    )


def with_evidence(comparison: TimeComparison, evidence: RunEvidence) -> TimeComparison:
    """The same comparison of a run whose cluster has other evidence."""
    return replace(comparison, measured=of_measured(comparison.measured, evidence))


def _cell(comparison: TimeComparison) -> str:
    run = comparison.measured.run
    return "" if run is None else run.setup(run.stages[0]).discrepancy.cell


def _print(name: str, scores: OwnRunScores) -> None:
    for when, each in (("without", scores.before), ("with", scores.after)):
        if each is not None:
            print(f"{name if when == 'without' else '':56}{when:8}{_figures(each)}")


def _figures(summary: ErrorSummary) -> str:
    shares = (summary.median_abs_error, summary.p90_abs_error, summary.interval_coverage)
    words = "".join(f"{100 * share:7.1f} %" for share in shares)
    weighed = f"{100 * summary.by_source.interval_coverage:.0f} %, {summary.by_source.winkler_score:.3f}"
    return f"{summary.rows:6}{words}{summary.winkler_score:9.3f}{100 * summary.half_width:7.1f} %   ({weighed})"


if __name__ == "__main__":
    main()
