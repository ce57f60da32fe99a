"""How the kernels of a profile beside a prediction look on a terminal."""

from __future__ import annotations

from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from perfmodel.evidence.steps.kernel_comparison import KernelComparison
from perfmodel.exchange.questions.profiled_runs import ProfileComparison
from perfmodel.report.text.terminal import Name, percent_text, plain_table, titled
from perfmodel.units import seconds_text

MOST_UNMATCHED: Final = 10
UNMARKED: Final = "The profiler marked no steps in it: all of the trace is taken for one. profiler.step() marks them."
NO_KERNELS: Final = "No kernel of a GPU is in it: profile with ProfilerActivity.CUDA to have operators matched."
WHAT: Final = (
    "Kernels are matched to operators by their names, and each is counted for as long as it runs, hidden or not. What no name "
    "tells is listed below; what a prediction has of a kind whose kernels are missing is fused into others, or did not run."
)


def profile_report(found: ProfileComparison) -> Group:
    """Both steps, the kinds of kernels and the time that belongs to none."""
    low_s, high_s = (float(end) for end in found.predicted.iteration_time_interval_s)
    predicted_s, profiled_s = float(found.predicted.iteration_time_s), found.step.duration_s
    verdict = (
        f"{found.name}, stage {found.stage}: predicted {seconds_text(predicted_s)} an iteration "
        f"({seconds_text(low_s)} to {seconds_text(high_s)}), profiled {seconds_text(profiled_s)}: "
        f"{100.0 * (predicted_s / profiled_s - 1.0):+.1f} %."
    )
    parts: list[RenderableType] = [Text(verdict), *(Text(f"Careful: {each}.", style="yellow") for each in found.doubts)]
    if not found.step.is_marked:
        parts.append(Text(UNMARKED, style="yellow"))
    if found.kernels is None:
        return Group(*parts, Text(NO_KERNELS))
    parts += [titled(_title(found.kernels), _kinds_table(found.kernels)), Text(WHAT)]
    if found.kernels.unmatched:
        parts.append(titled("Kernels that no name tells", _unmatched_table(found.kernels)))
    return Group(*parts)


def _title(found: KernelComparison) -> str:
    return "Kernels of the step by kind" + (f", mean of {found.gpus} GPUs" if found.gpus > 1 else "")


def _kinds_table(found: KernelComparison) -> RenderableType:
    table = plain_table("kind")
    for heading in ("launches", "profiled", "predicted", "error"):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in found.kinds:
        predicted = "-" if each.predicted_s is None else seconds_text(each.predicted_s)
        error = "" if each.error is None else percent_text(each.error)
        table.add_row(each.name, f"{each.launches:,.0f}", seconds_text(each.measured_s), predicted, error)
    table.add_section()
    launches = f"{sum(each.launches for each in found.unmatched):,.0f}"
    table.add_row("not matched", launches, seconds_text(found.unmatched_s), "", "")
    table.add_row("copies and fills", "", seconds_text(found.copies_s), "", "")
    table.add_row("beside others", "", f"-{seconds_text(found.overlapped_s)}" if found.overlapped_s else "0 s", "", "")
    table.add_row("nothing runs", "", seconds_text(found.idle_s), "", "")
    table.add_row("step", "", seconds_text(found.step_s), "", "")
    return table


def _unmatched_table(found: KernelComparison) -> RenderableType:
    table = plain_table()
    table.add_column("kernel", overflow="fold")
    for heading in ("launches", "profiled"):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in found.unmatched[:MOST_UNMATCHED]:
        table.add_row(Name(each.name), f"{each.launches:,.0f}", seconds_text(each.measured_s))
    if len(found.unmatched) > MOST_UNMATCHED:
        rest = found.unmatched[MOST_UNMATCHED:]
        table.add_section()
        launches, seconds = sum(each.launches for each in rest), sum(each.measured_s for each in rest)
        table.add_row(f"{len(rest)} others", f"{launches:,.0f}", seconds_text(seconds))
    return table
