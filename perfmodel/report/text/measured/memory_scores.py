"""How often the predictions are right about what fits, on a terminal: the scoreboard of `perfmodel validate --memory`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from perfmodel.evidence.groups import Scoreboard
from perfmodel.evidence.memory_scores import FitComparison, FitSummary, worst_fits
from perfmodel.report.text.measured.scores import (
    WORST_ROWS,
    group_table,
    left_out_sections,
    nothing_covered,
    parts_words,
    worst_entry,
)
from perfmodel.report.text.terminal import titled
from perfmodel.units import gibibytes_text


def memory_report(scoreboard: Scoreboard[FitComparison, FitSummary]) -> Group:
    """The shares of all rows and of groups, the wrong predictions that were surest, and what is not predicted."""
    overall, comparisons = scoreboard.overall, scoreboard.comparisons
    if overall is None:
        return Group(nothing_covered(comparisons), *left_out_sections(scoreboard))
    verdict = Text(
        f"{overall.rows} of {len(comparisons)} rows predicted, {100 * overall.agreement:.1f} % of them right.\n"
        f"Of {overall.fitted} that fitted, {overall.fits_refused} called impossible"
        f"{_share(overall.fits_called_impossible)} (fits refused);\nof {overall.did_not_fit} that did not, "
        f"{overall.misfits_passed} said to fit{_share(overall.impossible_called_fits)} (misfits passed)."
    )
    tables = [_group_table(group, members) for group, members in scoreboard.groups.items()]
    wrong = _worst_section(comparisons)
    return Group(verdict, *tables, *wrong, *left_out_sections(scoreboard))


def _share(share: float | None) -> str:
    return "" if share is None else f", {100 * share:.1f} %"


def _group_table(group: str, members: Mapping[str, FitSummary]) -> RenderableType:
    rows = {
        name: (
            f"{summary.rows}",
            f"{100 * summary.agreement:.1f} %",
            f"{summary.fits_refused} of {summary.fitted}",
            f"{summary.misfits_passed} of {summary.did_not_fit}",
        )
        for name, summary in members.items()
    }
    return group_table(group, ("rows", "right", "fits refused", "misfits passed"), rows)


def _worst_section(comparisons: Sequence[FitComparison]) -> list[RenderableType]:
    entries = [_worst_entry(comparison) for comparison in worst_fits(comparisons, WORST_ROWS)]
    return [titled("Worst rows, and what is predicted to fill their memory", Group(*entries))] if entries else []


def _worst_entry(comparison: FitComparison) -> RenderableType:
    measured, memory, headroom = comparison.measured, comparison.memory, comparison.headroom_bytes or 0.0
    total = 0.0 if memory is None else float(memory.total_bytes)
    said = f"{gibibytes_text(abs(headroom))} {'left' if headroom >= 0 else 'missing'}"
    return worst_entry(
        f"{measured.run_id}, {measured.source}",
        f"{'fitted' if measured.fits else 'ran out of memory'}, {gibibytes_text(total)} predicted ({said})",
        f"{measured.model_name}, {measured.labels['attention_kernel_detail'] or 'kernels not stated'}",
        measured.run,
        parts_words(memory, total),
    )
