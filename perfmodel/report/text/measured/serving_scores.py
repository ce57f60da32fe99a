"""How scores of servers look on a terminal: the errors of each question, its intervals, then groups, and what was left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType

from perfmodel.evidence.serving.scores import ServingErrors, ServingScoreboard
from perfmodel.report.text.terminal import plain_table, section, titled


def serving_validation_report(scores: ServingScoreboard, *, leave_source_out: bool) -> RenderableType:
    """The errors of each question over all rows, then by engine and GPU; and what was left out."""
    how = ", each source without what was learned from it" if leave_source_out else ""
    parts: list[RenderableType] = [
        titled(
            f"Errors of servers{how} [%], and how many lie in 90 % intervals", _table([("", scores.questions)], first="metric")
        ),
        titled(
            "90 % intervals: rows inside [%], Winkler score (width and misses; small is good)", _intervals(scores.questions)
        ),
    ]
    for group, names in scores.groups.items():
        parts.append(titled(f"By {group} [%]", _table(list(names.items()), first=group)))
    lines = [("-", f"{number:,} rows: {reason}") for reason, number in list(scores.unsupported.items())[:8]]
    if lines:
        parts.append(section("Not covered", lines))
    lines = [("-", f"{number:,} rows: {reason}") for reason, number in scores.context.items()]
    if lines:
        parts.append(section("Predicted, not scored", lines))
    return Group(*parts)


def _table(groups: Sequence[tuple[str, Any]], *, first: str) -> RenderableType:
    table, whole = plain_table(first), first == "metric"
    if not whole:
        table.add_column("metric", no_wrap=True)
    for heading in ("rows", "median", "p90", *(("bias",) if whole else ()), "in 90"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, questions in groups:
        for question, errors in questions.items():
            table.add_row(*([name] if name else []), question, *_figures(errors, whole=whole))
    return table


def _figures(errors: ServingErrors, *, whole: bool) -> Iterator[str]:
    yield f"{errors.rows:,}"
    yield f"{100 * errors.median_abs_error:.1f}"
    yield f"{100 * errors.p90_abs_error:.1f}"
    if whole:
        yield f"{100 * errors.bias:+.1f}"
    yield f"{100 * errors.interval_coverage:.0f}"


def _intervals(questions: Mapping[str, ServingErrors]) -> RenderableType:
    """How honest the intervals of each question are: of rows, and with each source weighing one."""
    table = plain_table("metric")
    for heading in ("in 90", "by source", "Winkler", "by source"):
        table.add_column(heading, justify="right", no_wrap=True)
    for question, errors in questions.items():
        shares = (errors.interval_coverage, errors.interval_coverage_by_source)
        scores = (errors.winkler_score, errors.winkler_score_by_source)
        table.add_row(question, *(f"{100 * each:.0f}" for each in shares), *(f"{each:.2f}" for each in scores))
    return table
