"""How predictions fare on measured runs, on a terminal: the scoreboard of `perfmodel validate`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.text import Text

from perfmodel.count.memory.needed import MemoryBytes
from perfmodel.evidence.groups import Scoreboard
from perfmodel.evidence.time_scores import ErrorSummary, TimeComparison, worst_times
from perfmodel.report.text.prediction import layout_words
from perfmodel.report.text.terminal import Name, percent_text, plain_table, section, titled
from perfmodel.report.words import LABELS, SHORT_DEGREES
from perfmodel.spec.run import Run
from perfmodel.timing.breakdown import Breakdown
from perfmodel.units import seconds_text

WORST_ROWS: Final = 5
HOW_TO_LEAVE_OUT: Final = "What was fitted on runs has seen them; --leave-source-out estimates it anew for each source."
MOST_UNREAD: Final = 20
MOST_LOGS: Final = 40
SHORT_GROUPS: Final = ("gpu", "precision", "layout")
MOST_MEMBERS, MOST_REASONS = 6, 4
LEAST_SHARE: Final = 0.005  # of a part that is shown


def validation_report(
    scoreboard: Scoreboard[TimeComparison, ErrorSummary], *, leave_source_out: bool = False, full: bool = True
) -> Group:
    """The errors of all rows and of groups, the worst rows with their parts, and what is not predicted.

    Where it is not `full`: the errors of all, of each stack, and which row is worst.
    """
    overall, comparisons = scoreboard.overall, scoreboard.comparisons
    if overall is None:
        return Group(nothing_covered(comparisons), *left_out_sections(scoreboard))
    words = "Every source is scored without what was fitted on it." if leave_source_out else HOW_TO_LEAVE_OUT
    head = [_verdict(overall, comparisons), Text(words), *_memory_sentence(overall), *_runs_section(comparisons)]
    if not full:
        return Group(*head, *_shortly(scoreboard))
    tables = [_group_table(group, members) for group, members in scoreboard.groups.items()]
    return Group(*head, *tables, _worst_section(comparisons), *_context_section(comparisons), *left_out_sections(scoreboard))


def _shortly(scoreboard: Scoreboard[TimeComparison, ErrorSummary]) -> Iterator[RenderableType]:
    """The group with the fewest members as a table, the worst row, and how many are not predicted."""
    known = [group for group in SHORT_GROUPS if group in scoreboard.groups]
    few = min(known, key=lambda group: len(scoreboard.groups[group]), default="")
    if few:
        ranked = sorted(scoreboard.groups[few].items(), key=lambda entry: -entry[1].rows)
        yield _group_table(few, dict(ranked[:MOST_MEMBERS]))
    for worst in worst_times(scoreboard.comparisons, 1):
        yield Text(f"Worst row: {worst.measured.run_id}, {worst.measured.source}: {percent_text(worst.relative_error or 0.0)}.")
    reasons = [(f"{rows:4d}", reason) for reason, rows in scoreboard.unsupported.items()]
    if reasons:
        yield section("Not predicted, and why", reasons[:MOST_REASONS])
    unread = f"{len(scoreboard.unread):,} rows cannot be read; " if scoreboard.unread else ""
    yield Text(f"{unread}--full shows every source and group, the worst rows, and what is left out.")


def _verdict(overall: ErrorSummary, comparisons: Sequence[TimeComparison]) -> Text:
    weighed, context = overall.by_source, sum(not each.measured.scored for each in comparisons)
    scored = f"{overall.rows} of {len(comparisons)} rows predicted and scored" + (
        f" ({context} are context)" if context else ""
    )
    return Text(
        f"{scored}: median error {100 * overall.median_abs_error:.1f} %, "
        f"90th percentile {100 * overall.p90_abs_error:.1f} %.\n"
        f"Each source weighing one: {100 * weighed.median_abs_error:.1f} % and {100 * weighed.p90_abs_error:.1f} %. "
        f"Bias {percent_text(overall.bias)}; {100 * overall.interval_coverage:.0f} % lie in their 90 % interval (inside), "
        f"{100 * weighed.interval_coverage:.0f} % with each source weighing one; half of the intervals are narrower than "
        f"+-{100 * overall.half_width:.0f} %. Winkler score (width and misses; small is good) {overall.winkler_score:.2f}, "
        f"by source {weighed.winkler_score:.2f}."
    )


def _memory_sentence(overall: ErrorSummary) -> list[RenderableType]:
    """How far predicted memory is from what rows state."""
    memory = overall.memory
    if memory is None:
        return []
    return [
        Text(
            f"Memory of {memory.rows} rows that state it: median error {100 * memory.median_abs_error:.1f} %, "
            f"90th percentile {100 * memory.p90_abs_error:.1f} %, bias {percent_text(memory.bias)}."
        )
    ]


def _runs_section(comparisons: Sequence[TimeComparison]) -> list[RenderableType]:
    """Every run that was read from a log, beside its prediction."""
    logged = [each for each in comparisons if not each.measured.line and each.predicted_s is not None]
    if not logged:
        return []
    table = plain_table()
    table.add_column("log", overflow="fold")
    for heading in ("measured", "predicted", "error", "90 % interval", ""):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in logged[:MOST_LOGS]:
        low, high = each.interval_s or (0.0, 0.0)
        is_inside = low <= each.measured.iteration_time_s <= high
        times = (seconds_text(each.measured.iteration_time_s), seconds_text(each.predicted_s or 0.0))
        ends = f"{seconds_text(low)} to {seconds_text(high)}"
        table.add_row(
            Name(each.measured.run_id), *times, percent_text(each.relative_error or 0.0), ends, "" if is_inside else "outside"
        )
    if len(logged) > MOST_LOGS:
        table.add_section()
        table.add_row(f"{len(logged) - MOST_LOGS} others", "", "", "", "", "")
    return [titled("Logs", table)]


def _context_section(comparisons: Sequence[TimeComparison]) -> list[RenderableType]:
    """Rows that are predicted but not scored, because something decisive is not stated."""
    context = [each for each in comparisons if not each.measured.scored and each.predicted_s is not None]
    if not context:
        return []
    table = plain_table()
    table.add_column("source", overflow="fold")
    for heading in ("measured", "predicted", "difference"):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in context:
        times = (seconds_text(each.measured.iteration_time_s), seconds_text(each.predicted_s or 0.0))
        table.add_row(Name(each.measured.source), *times, percent_text(each.relative_error or 0.0))
    return [titled("Context, predicted but not scored: something decisive is not stated", table)]


def _group_table(group: str, members: Mapping[str, ErrorSummary]) -> RenderableType:
    rows = {
        name: (
            f"{summary.rows}",
            f"{100 * summary.median_abs_error:.1f} %",
            f"{100 * summary.p90_abs_error:.1f} %",
            percent_text(summary.bias),
            f"{100 * summary.interval_coverage:.0f} %",
            f"{summary.winkler_score:.2f}",
        )
        for name, summary in members.items()
    }
    return group_table(group, ("rows", "median", "p90", "bias", "inside", "Winkler"), rows)


def _worst_section(comparisons: Sequence[TimeComparison]) -> RenderableType:
    entries = []
    for comparison in worst_times(comparisons, WORST_ROWS):
        measured, predicted_s = comparison.measured, comparison.predicted_s or 0.0
        times = f"{seconds_text(measured.iteration_time_s)} measured, {seconds_text(predicted_s)} predicted"
        entries.append(
            worst_entry(
                f"{measured.run_id}, {measured.source}",
                f"{times} ({percent_text(comparison.relative_error or 0.0)})",
                measured.model.name,
                measured.run,
                parts_words(comparison.breakdown, predicted_s),
            )
        )
    return titled("Worst rows, and where their predicted time goes", Group(*entries))


def nothing_covered(comparisons: Sequence[Any]) -> Text:
    """What is said instead of scores."""
    return Text(f"None of {len(comparisons)} rows is covered yet." if comparisons else "The table has no rows.")


def group_table(group: str, headings: Sequence[str], rows: Mapping[str, Sequence[str]]) -> RenderableType:
    """A row of scores for each member of a group."""
    table = plain_table()
    table.add_column(f"by {group}", overflow="fold")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for name, cells in rows.items():
        table.add_row(Name(name or "(not stated)"), *cells)
    return Padding(table, (1, 0, 0, 0))


def worst_entry(row: str, verdict: str, model: str, run: Run | None, parts: Sequence[str]) -> RenderableType:
    """What is shown of one row that is far off: which, how far, its layout, and the parts of its prediction."""
    lines = [[verdict], [model, *([] if run is None else run_words(run))], parts]
    return Group(Text(row), *(Padding(_Listing(line), (0, 0, 0, 2)) for line in lines))


class _Listing:
    """Words with commas between them, which are broken into lines at commas where those are near enough."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = words

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = [""]
        for index, word in enumerate(self.words):
            item = word + ("," if index < len(self.words) - 1 else "")
            if lines[-1] and len(lines[-1]) + 1 + len(item) > options.max_width:
                lines.append(item)
            else:
                lines[-1] = f"{lines[-1]} {item}".lstrip()
        yield Text("\n".join(lines))


def run_words(run: Run) -> list[str]:
    """A run in short, beside its model: what is 1 or off is left out."""
    layout = run.layout(run.stages[0])
    words = layout_words(layout, SHORT_DEGREES)
    return [f"{int(layout.gpus)} x {run.cluster.gpu.name}", run.stack.name, *words, f"batch {int(layout.global_batch_size)}"]


def parts_words(parts: Breakdown | MemoryBytes | None, total: float) -> list[str]:
    """The shares of the parts of `total`, largest first; none where nothing was predicted."""
    shares = {LABELS[part]: float(number) / total for part, number in (parts.items() if parts is not None else ())}
    ranked = sorted(shares.items(), key=lambda entry: -entry[1])
    return [f"{label} {100 * share:.0f} %" for label, share in ranked if share >= LEAST_SHARE]


def left_out_sections(scoreboard: Scoreboard[Any, Any]) -> list[RenderableType]:
    """How many rows are not covered and why, and which cannot be read; nothing when all are predicted."""
    reasons, unread = scoreboard.unsupported, scoreboard.unread
    parts: list[RenderableType] = []
    if reasons:
        parts.append(section("Not predicted, and why", [(f"{rows:4d}", reason) for reason, rows in reasons.items()]))
    if unread:
        title = "Rows that cannot be read" if all(each.line for each in unread) else "Left out"
        parts.append(section(f"{title}: {len(unread)}", [("-", each.reason) for each in unread[:MOST_UNREAD]]))
    return parts
