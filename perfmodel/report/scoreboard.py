"""How predictions fare on measured runs, as tables and as JSON: the scoreboard of `perfmodel validate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from perfmodel.evidence.validate import Comparison, ErrorSummary, recomputed_mfu
from perfmodel.report.documents import SCHEMA_VERSION
from perfmodel.report.terminal import percent_text, plain_table, section, titled

WORST_ROWS: Final = 5


def validation_report(
    comparisons: Sequence[Comparison],
    *,
    overall: ErrorSummary | None,
    groups: Mapping[str, Mapping[str, ErrorSummary]],
    unsupported: Mapping[str, int],
) -> Group:
    """The errors of all rows and of groups, the worst rows, and what is not predicted."""
    if overall is None:
        return Group(Text(f"None of {len(comparisons)} rows is covered yet."), *_unsupported_section(unsupported))
    inside = f"{100 * overall.interval_coverage:.0f} % lie in their 90 % interval"
    verdict = Text(
        f"{overall.rows} of {len(comparisons)} rows predicted: median error {100 * overall.median_abs_error:.1f} %, "
        f"90th percentile {100 * overall.p90_abs_error:.1f} %; {inside}."
    )
    tables = [_group_table(key, members) for key, members in groups.items()]
    return Group(verdict, *tables, _worst_table(comparisons), *_unsupported_section(unsupported))


def _group_table(key: str, members: Mapping[str, ErrorSummary]) -> RenderableType:
    table = plain_table()
    table.add_column(f"by {key}", overflow="fold")
    for heading in ("rows", "median", "p90", "bias", "inside"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, summary in members.items():
        errors = (f"{100 * summary.median_abs_error:.1f} %", f"{100 * summary.p90_abs_error:.1f} %", percent_text(summary.bias))
        table.add_row(name or "(not stated)", f"{summary.rows}", *errors, f"{100 * summary.interval_coverage:.0f} %")
    return Padding(table, (1, 0, 0, 0))


def _worst_table(comparisons: Sequence[Comparison]) -> RenderableType:
    ranked = sorted(
        (c for c in comparisons if c.relative_error is not None), key=lambda c: abs(c.relative_error or 0.0), reverse=True
    )
    table = plain_table()
    for heading in ("run", "source"):
        table.add_column(heading, overflow="fold")
    for heading in ("measured s", "predicted s", "error"):
        table.add_column(heading, justify="right", no_wrap=True)
    for comparison in ranked[:WORST_ROWS]:
        measured, predicted = comparison.measured.iteration_time_s, comparison.predicted_s or 0.0
        cells = (f"{measured:.4g}", f"{predicted:.4g}", percent_text(comparison.relative_error or 0.0))
        table.add_row(comparison.measured.run_id, comparison.measured.source, *cells)
    return titled("Worst rows", table)


def _unsupported_section(unsupported: Mapping[str, int]) -> list[RenderableType]:
    if not unsupported:
        return []
    return [section("Not predicted, and why", [(f"{rows:4d}", reason) for reason, rows in unsupported.items()])]


def validation_document(
    comparisons: Sequence[Comparison],
    *,
    overall: ErrorSummary | None,
    groups: Mapping[str, Mapping[str, ErrorSummary]],
    unsupported: Mapping[str, int],
) -> dict[str, Any]:
    """Every row, the errors of groups of them and of all, and what is not predicted, counted by reason."""
    return {
        "schema_version": SCHEMA_VERSION,
        "overall": None if overall is None else asdict(overall),
        "groups": {key: {name: asdict(summary) for name, summary in members.items()} for key, members in groups.items()},
        "unsupported": dict(unsupported),
        "rows": [_comparison_document(comparison) for comparison in comparisons],
    }


def _comparison_document(comparison: Comparison) -> dict[str, Any]:
    measured = comparison.measured
    document: dict[str, Any] = {
        "run_id": measured.run_id,
        "source": measured.source,
        "measured_s": measured.iteration_time_s,
        "predicted_s": comparison.predicted_s,
        "relative_error": comparison.relative_error,
        "interval_s": None if comparison.interval_s is None else list(comparison.interval_s),
        "printed_mfu": measured.printed_mfu,
        "recomputed_mfu": recomputed_mfu(measured),
        "assumptions": list(measured.assumptions),
    }
    return document if comparison.predicted_s is not None else document | {"reason": measured.reason}
