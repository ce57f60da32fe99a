"""How measured steps look on a terminal: alone, and beside their prediction operator by operator."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from perfmodel.evidence.steps.compared import ComparedOperator, ComparedValue
from perfmodel.evidence.steps.step_comparison import MEMORY_PARTS, StepComparison
from perfmodel.evidence.steps.step_records import StepRecord
from perfmodel.report.text.operators import phase_text
from perfmodel.report.text.terminal import Name, percent_text, plain_table, section, titled
from perfmodel.report.words import LABELS
from perfmodel.spec.axes import DATA
from perfmodel.spec.run import RampStage
from perfmodel.units import seconds_text

MOST: Final = 0.9  # of the step: the operators that are shown one by one
MEGABYTE: Final = 1e6
WITHIN: Final = {True: "yes", False: "no", None: ""}
MEMORY_LABELS: Final = LABELS | {"loss_bytes": "loss and scratch", "peak_bytes": "peak"}


def measurement_report(record: StepRecord) -> Group:
    """What was measured: the step, where its time went, its memory, and what to doubt."""
    devices = f"{record.gpus} rank{'s' if record.gpus > 1 else ''} on {record.provenance.get('gpu', 'this machine')}"
    verdict = Text(
        f"{record.name}: {seconds_text(record.iteration_time_s)} an iteration (median of {record.repeats}, "
        f"spread {100 * record.spread:.1f} %), {record.tokens_per_s:,.0f} tokens/s, MFU {100 * record.mfu:.1f} %"
        f"{_communication_words(record)}.\n{devices}."
    )
    top = sorted(record.operators, key=lambda each: -each.seconds)[:12]
    table = operator_table()
    says = any(each.interval_s for each in top)
    for heading in ("ms", *(["90 %"] if says else []), "share"):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in top:
        share = each.seconds / record.profiled_iteration_time_s
        interval = [" to ".join(f"{1e3 * end:.2f}" for end in each.interval_s)] if says else []
        table.add_row(Name(each.name), phase_text(each.phase), f"{1e3 * each.seconds:.2f}", *interval, f"{100 * share:.0f} %")
    sizes = [(name, value) for name, value in asdict(record.memory).items() if name in MEMORY_PARTS]
    parts = [(MEMORY_LABELS[name], f"{value / MEGABYTE:.1f}") for name, value in sizes]
    return Group(
        verdict,
        titled("Longest operators of an iteration", table),
        *_pipeline_stages(record),
        section(f"Memory of one rank{_stage_words(record)}, MB", parts),
        *_doubts(record),
    )


def _stage_words(record: StepRecord) -> str:
    """Of which stage of a pipeline the rank is that needs most memory."""
    return f" of pipeline stage {record.memory.pipeline_stage}" if record.pipeline_stages else ""


def _pipeline_stages(record: StepRecord) -> list[RenderableType]:
    """Where the step of each stage of a pipeline went; nothing of a single stage."""
    if not record.pipeline_stages:
        return []
    table = plain_table("pipeline stage")
    for heading in ("operators ms", "messages ms", "waiting ms", "between ms", "waiting"):
        table.add_column(heading, justify="right", no_wrap=True)
    for place, stage in enumerate(record.pipeline_stages, start=1):
        parts = (stage.operators_s, stage.messages_s, stage.waiting_s, stage.between_s)
        share = f"{100 * stage.waiting_s / sum(parts):.0f} %"
        table.add_row(f"{place}", *(f"{1e3 * seconds:.2f}" for seconds in parts), share)
    return [titled("Pipeline stages in the profiled steps", table)]


def _communication_words(record: StepRecord) -> str:
    if record.gpus == 1:
        return ""
    share = record.exposed_communication_s / record.profiled_iteration_time_s
    waiting = record.rank_waiting_s
    part = "" if waiting is None else f" ({100 * waiting / record.profiled_iteration_time_s:.0f} % waiting for the last rank)"
    return f", {100 * share:.0f} % of the step exposed communication{part}"


def operator_table(*, phases: bool = True) -> Table:
    """Names fold when the columns that follow leave them too little room."""
    table = plain_table()
    table.add_column("operator", overflow="fold", ratio=1)
    if phases:
        table.add_column("phase", no_wrap=True)
    return table


def _doubts(record: StepRecord) -> list[RenderableType]:
    return [section("Warnings", [("-", warning) for warning in record.warnings])] if record.warnings else []


def comparison_report(comparison: StepComparison, *, every: bool = False) -> Group:
    """Prediction beside measurement: the step, its operators (those of 90 % of it, or all), memory and communication."""
    return Group(step_verdict(comparison), comparison_tables(comparison, every=every))


def comparison_tables(comparison: StepComparison, *, every: bool) -> Group:
    """Tables of a comparison: operators, memory, communication."""
    parts = [operators_table(comparison, every=every), *_pipeline_stages(comparison.record), _memory(comparison)]
    if comparison.calls:
        parts.append(_communication(comparison))
    return Group(*parts, *_doubts(comparison.record))


def step_verdict(comparison: StepComparison) -> Text:
    """Predicted and measured time, whether the one's interval holds the other, and where it was measured."""
    step = comparison.step
    low, high = (float(end) for end in comparison.predicted.iteration_time_interval_s)
    inside = "inside" if low <= step.measured <= high else "outside"
    where = f"{inside} the predicted {seconds_text(low)} to {seconds_text(high)} (90 %)"
    return Text(
        f"{comparison.record.name}: {seconds_text(step.predicted)} predicted, {seconds_text(step.measured)} measured "
        f"({percent_of(step)}); {where}.\nMeasured on {comparison.record.provenance.get('gpu', 'an unnamed device')}, "
        f"{comparison.record.provenance.get('date', '')}, median of {comparison.record.repeats} steps, spread "
        f"{100 * comparison.record.spread:.1f} %."
    )


def operators_table(comparison: StepComparison, *, every: bool) -> RenderableType:
    """Operators of both sides, what lies between them, and the step; of all, or of most of the step."""
    shown = [pair for pair in comparison.operators if pair.kind] if every else list(comparison.largest(MOST))
    others = [pair for pair in comparison.operators if pair.kind and pair not in shown]
    table = operator_table()
    says = any(pair.measured_interval_s for pair in shown)
    for heading in ("predicted ms", "measured ms", "error", "share", *(["within"] if says else [])):
        table.add_column(heading, justify="right", no_wrap=True)
    whole = comparison.record.iteration_time_s
    for pair in shown:
        table.add_row(
            Name(pair.name), phase_text(pair.phase), *compared_cells(pair, whole), *([WITHIN[pair.is_within]] if says else [])
        )
    table.add_section()
    if others:
        table.add_row(f"{len(others)} other operators", "", *compared_cells(sum_of(others), whole))
    for pair in comparison.operators:
        if not pair.kind and (abs(pair.predicted) + abs(pair.measured)) > 0:
            table.add_row(pair.name, "", *compared_cells(pair, whole))
    table.add_section()
    table.add_row("step", "", *compared_cells(comparison.step, whole))
    return Group(titled("Operators of an iteration, predicted and measured", table), *map(Text, _below(comparison, says=says)))


def _below(comparison: StepComparison, *, says: bool) -> Iterator[str]:
    """What the table does not say by itself."""
    if says:
        yield "\nwithin: whether the predicted time lies in the 90 % interval of the measured one."
    if comparison.waiting_s:
        known = comparison.predicted_waiting_s
        predicted = f" ({1e3 * known:.2f} predicted)" if known else ""
        yield f"\nIn collectives, {1e3 * comparison.waiting_s:.2f} ms{predicted} are waiting for the last rank."


def sum_of(pairs: Iterable[ComparedOperator]) -> ComparedValue:
    """What several operators take together."""
    every = list(pairs)
    return ComparedValue(predicted=sum(pair.predicted for pair in every), measured=sum(pair.measured for pair in every))


def compared_cells(pair: ComparedValue, whole_s: float, *, digits: int = 2) -> tuple[str, str, str, str]:
    """Milliseconds on both sides, how far they are apart, and the share of the measured whole."""
    share = f"{100 * pair.measured / whole_s:.0f} %"
    return f"{1e3 * pair.predicted:.{digits}f}", f"{1e3 * pair.measured:.{digits}f}", percent_of(pair), share


def percent_of(pair: ComparedValue) -> str:
    """How far the prediction is from the measurement; nothing where there is one side alone."""
    return "" if pair.error is None or pair.predicted == 0 else percent_text(pair.error)


def _memory(comparison: StepComparison) -> RenderableType:
    table = plain_table("part")
    for heading in ("predicted MB", "measured MB", "error"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, pair in comparison.memory.items():
        if name == "peak_bytes":
            table.add_section()
        cells = (f"{pair.predicted / MEGABYTE:.1f}", f"{pair.measured / MEGABYTE:.1f}", percent_of(pair))
        table.add_row(MEMORY_LABELS[name], *cells)
    return titled(f"Memory of one rank{_stage_words(comparison.record)} that torch's allocator sees", table)


def _communication(comparison: StepComparison) -> RenderableType:
    several = len({group.pipeline_stage for group in comparison.calls}) > 1
    table = plain_table("collective")
    for heading in (*(("pipeline stage",) if several else ()), "ranks", "predicted calls", "seen", "predicted MB", "seen"):
        table.add_column(heading, justify="right", no_wrap=True)
    for group, calls in comparison.calls.items():
        payload = comparison.payload_bytes[group]
        megabytes = (f"{each / MEGABYTE:.3f}" for each in (payload.predicted, payload.measured))
        place = (f"{group.pipeline_stage}",) if several else ()
        cells = (*place, f"{group.ranks}", f"{calls.predicted:.0f}", f"{calls.measured:.0f}", *megabytes)
        table.add_row(group.kind, *cells)
    return titled("Collectives of an iteration, predicted and seen by torch", table)


def calibration_report(profile: Mapping[str, Any]) -> Group:
    """What was fitted, and how far each family of kernels is from what was measured."""
    peaks = ", ".join(f"{rate / 1e9:.0f} GFLOP/s in {name}" for name, rate in profile["gpu"]["peak_flop_per_s"].items())
    words = Text(
        f"{profile['name']}: {profile['gpus_per_node']} devices of {peaks}, "
        f"{profile['gpu']['memory_bandwidth_bytes_per_s'] / 1e9:.0f} GB/s of memory each."
    )
    lines = [
        (key.removeprefix("gpu.").removeprefix("kernels.").removeprefix("links.node."), source)
        for key, source in profile["sources"].items()
        if key.startswith(("gpu.kernels.", "gpu.serving.", "links.node."))
    ]
    return Group(words, section("Fitted on this machine's own kernels", lines))


def counts_report(name: str, counted: Sequence[tuple[RampStage, Sequence[Any]]]) -> Group:
    """What torch counted on one rank of each pipeline stage of each ramp stage, beside the forecast."""
    equal = all(each.equal for _, counts in counted for each in counts)
    verdict = "every count of one rank equals the forecast's" if equal else "some counts of one rank differ from the forecast's"
    return Group(Text(f"{name}: {verdict}."), *(_counts(stage, counts) for stage, counts in counted))


def _counts(stage: RampStage, counts: Sequence[Any]) -> RenderableType:
    several = len({each.pipeline_stage for each in counts}) > 1
    table = plain_table("pipeline stage" if several else "")
    table.add_column("in one iteration", no_wrap=True)
    for heading in ("torch", "forecast", "padding"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for each in counts:
        padding = f"{each.padding:.0f}" if each.padding else ""
        place = (f"{each.pipeline_stage}",) if several else ()
        table.add_row(*place, each.what, f"{each.seen:.0f}", f"{each.predicted:.0f}", padding, "" if each.equal else "differs")
    return titled(f"One rank, {DATA.label} {stage.data_parallel}, batch {stage.global_batch_size}", table)
