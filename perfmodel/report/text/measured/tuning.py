"""How errors of fine-tuning forecasts look on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from rich.console import Group, RenderableType

from perfmodel.evidence.tuning.rows import FITS, MEMORY, SPEED
from perfmodel.evidence.tuning.scores import TuningErrors, TuningScoreboard
from perfmodel.report.text.terminal import plain_table, section, titled

NAMES: Final = {MEMORY: "peak memory", SPEED: "tokens/s", FITS: "wrong verdicts"}
MOST_REASONS: Final = 8


def tuning_validation_report(scores: TuningScoreboard, *, leave_source_out: bool) -> RenderableType:
    """The errors of each metric over all rows, then by stack; and what was left out."""
    how = ", each source without what was learned from it" if leave_source_out else ""
    parts: list[RenderableType] = [titled(f"Errors of fine-tuning{how}", _table([("", scores.overall)], first="metric"))]
    parts.append(titled("By stack", _table(list(scores.groups["stack"].items()), first="stack")))
    lines = [("-", f"{number:,} numbers: {reason}") for reason, number in list(scores.unsupported.items())[:MOST_REASONS]]
    return Group(*parts, *([section("Not covered, or not scored", lines)] if lines else []))


def _table(groups: Sequence[tuple[str, Mapping[str, TuningErrors]]], *, first: str) -> RenderableType:
    table = plain_table(first)
    if first != "metric":
        table.add_column("metric", no_wrap=True)
    whole = first == "metric"
    for heading in ("rows", "median", "p90", "bias", "in 90 %", *(("by source", "Winkler") if whole else ())):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, metrics in groups:
        for metric, errors in metrics.items():
            table.add_row(*([name] if name else []), NAMES[metric], *_figures(metric, errors, whole=whole))
    return table


def _figures(metric: str, errors: TuningErrors, *, whole: bool) -> Iterator[str]:
    yield f"{errors.rows:,}"
    yield f"{100 * errors.median_abs_error:.1f} %"
    if metric == FITS:
        return
    yield f"{100 * errors.p90_abs_error:.1f} %"
    yield f"{100 * errors.bias:+.1f} %"
    yield "" if errors.interval_coverage is None else f"{100 * errors.interval_coverage:.0f} %"
    if not whole:
        return
    yield "" if errors.interval_coverage_by_source is None else f"{100 * errors.interval_coverage_by_source:.0f} %"
    yield "" if errors.winkler_score is None else f"{errors.winkler_score:.2f}"
