"""How predictions look on a terminal: the verdict first, then tables that fit 80 columns; plain text when piped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.text import Text

from perfmodel.predict import Prediction, StagePrediction
from perfmodel.report.documents import envelope
from perfmodel.report.terminal import percent_text, plain_table, section, titled
from perfmodel.spec.run import Run, Stage
from perfmodel.units import gibibytes_text, seconds_text

MOST_COLUMNS: Final = 6  # stages side by side in 80 columns
GIBIBYTE: Final = 2.0**30
LABELS: Final = {
    "matmul_s": "matrix products",
    "attention_s": "attention",
    "memory_bound_s": "memory-bound operators",
    "tensor_parallel_exposed_s": "exposed tensor parallel",
    "data_parallel_exposed_s": "exposed data parallel",
    "communication_slowdown_s": "SMs lost to communication",
    "launch_s": "waiting for launches",
    "optimizer_s": "optimizer step",
    "parameters_bytes": "parameters",
    "gradients_bytes": "gradients",
    "optimizer_bytes": "optimizer states",
    "activations_bytes": "activations",
    "loss_bytes": "logits and loss",
    "communication_bytes": "communication buffers",
    "framework_bytes": "framework",
    "fragmentation_bytes": "allocator margin",
}


def prediction_report(
    prediction: Prediction,
    *,
    assumptions: Sequence[str],
    candidates: Sequence[tuple[Mapping[str, Any], Prediction]] = (),
) -> Group:
    """Verdict, stages, candidates where there are some, breakdown, memory and assumptions of one run."""
    parts: list[RenderableType] = [_verdict(prediction), _description(prediction.run), _stage_table(prediction)]
    if len(candidates) > 1:
        parts.append(_candidate_table(candidates))
    parts += [_breakdown_table(prediction), _memory_table(prediction)]
    if assumptions:
        parts.append(section("Assumptions", [("-", sentence) for sentence in assumptions]))
    return Group(*parts)


def _verdict(prediction: Prediction) -> Text:
    run, days = prediction.run, prediction.total_days
    published = [stage.published["days"] for stage, _ in prediction.stages if "days" in stage.published]
    sentence = f"{run.name}: "
    if days is None:
        times = ", ".join(seconds_text(float(predicted.iteration_time_s)) for _, predicted in prediction.stages)
        sentence += f"{times} an iteration"
    else:
        sentence += f"{float(days):.1f} days predicted"
    if days is not None and len(published) == len(prediction.stages):
        total = float(sum(published))
        sentence += f", {total:.1f} published ({percent_text(float(days) / total - 1)})"
    used = max(float(predicted.memory.total_bytes) for _, predicted in prediction.stages)
    need = f"{gibibytes_text(used)} of the GPU's {gibibytes_text(float(run.cluster.gpu.memory_bytes))}"
    fit = (f"Fits in memory: {need}.", "green") if prediction.fits else (f"Does not fit in memory: needs {need}.", "bold red")
    return Text.assemble(f"{sentence}.\n", fit)


def _description(run: Run) -> Text:
    layout = f"{run.precision}, tensor parallel {run.tensor_parallel}, micro-batch {run.micro_batch_size}, {run.sharding}"
    sequence = ", sequence parallel" if run.sequence_parallel else ""
    recompute = "" if run.recompute == "none" else f", {run.recompute} recompute"
    return Text(f"{run.cluster.name}, {run.stack.name}, {layout}{sequence}{recompute}", style="dim")


def _stage_table(prediction: Prediction) -> RenderableType:
    table = plain_table()
    has_published = any(stage.published for stage, _ in prediction.stages)
    has_tokens = any(stage.tokens is not None for stage, _ in prediction.stages)
    headings = ["DP", "GPUs", "batch", "iter. s", "90 %", *(["publ.", "diff. %"] if has_published else []), "MFU %"]
    headings += [*(["publ."] if has_published else []), *(["days"] if has_tokens else [])]
    for heading in [*headings, *(["publ."] if has_published and has_tokens else [])]:
        table.add_column(heading, justify="right", no_wrap=True)
    for stage, predicted in prediction.stages:
        table.add_row(*_stage_cells(stage, predicted, has_published=has_published, has_tokens=has_tokens))
    return titled("Stages", table)


def _stage_cells(stage: Stage, predicted: StagePrediction, *, has_published: bool, has_tokens: bool) -> Iterable[str]:
    layout, seconds = predicted.layout, float(predicted.iteration_time_s)
    low, high = (float(end) for end in predicted.iteration_time_interval_s)
    published = {name: float(value) for name, value in stage.published.items()}
    yield from (f"{layout.data_parallel}", f"{layout.gpus}", f"{layout.global_batch_size}")
    yield from (f"{seconds:.3f}", f"{low:.2f}-{high:.2f}")
    if has_published:
        measured = published.get("iteration_time_s")
        yield "" if measured is None else f"{measured:.3g}"
        yield "" if measured is None else f"{100 * (seconds / measured - 1):+.1f}"
    yield f"{100 * float(predicted.mfu):.1f}"
    if has_published:
        yield f"{100 * published['mfu']:.1f}" if "mfu" in published else ""
    if has_tokens:
        yield "" if stage.tokens is None else f"{float(predicted.days(stage.tokens)):.2f}"
    if has_published and has_tokens:
        yield f"{published['days']:.1f}" if "days" in published else ""


def _candidate_table(candidates: Sequence[tuple[Mapping[str, Any], Prediction]]) -> RenderableType:
    """Iteration times of each combination of values, and their envelope."""
    table = plain_table("candidate")
    _, first = candidates[0]
    for stage, _ in first.stages[-MOST_COLUMNS:]:
        table.add_column(f"DP {stage.data_parallel}", justify="right")
    table.add_column("memory", justify="right")
    for values, prediction in candidates:
        label = ", ".join(f"{key} {str(value).lower()}" for key, value in values.items())
        table.add_row(label, *_seconds(prediction), gibibytes_text(_most_memory(prediction)))
    ends = envelope([prediction for _, prediction in candidates])[-MOST_COLUMNS:]
    table.add_section()
    table.add_row("envelope", *("{:.3f}-{:.3f}".format(*end["iteration_time_s"]) for end in ends), "")
    return titled("Candidates, s an iteration (the first is shown in full)", table)


def _seconds(prediction: Prediction) -> Iterable[str]:
    return (f"{float(predicted.iteration_time_s):.3f}" for _, predicted in prediction.stages[-MOST_COLUMNS:])


def _most_memory(prediction: Prediction) -> float:
    return max(float(predicted.memory.total_bytes) for _, predicted in prediction.stages)


def _breakdown_table(prediction: Prediction) -> RenderableType:
    rows = _part_rows(prediction, "breakdown", scale=1e3, shape="{:.1f}")
    return _part_table("Where an iteration goes, ms", prediction, rows, share=True)


def _memory_table(prediction: Prediction) -> RenderableType:
    rows = _part_rows(prediction, "memory", scale=1 / GIBIBYTE, shape="{:.2f}")
    return _part_table("Memory of one GPU, GiB", prediction, rows, share=False)


def _part_rows(prediction: Prediction, name: str, *, scale: float, shape: str) -> list[tuple[str, list[str], float]]:
    """Label, a cell a stage, and the share of the last stage's total, for each part that is not zero everywhere."""
    shown = [getattr(predicted, name) for _, predicted in prediction.stages[-MOST_COLUMNS:]]
    total = sum(float(getattr(shown[-1], part.name)) for part in fields(shown[-1]))
    rows = []
    for part in fields(shown[0]):
        values = [float(getattr(parts, part.name)) for parts in shown]
        if any(values):
            rows.append((LABELS[part.name], [shape.format(value * scale) for value in values], values[-1] / total))
    totals = [sum(float(getattr(parts, part.name)) for part in fields(parts)) for parts in shown]
    rows.append(("total", [shape.format(value * scale) for value in totals], 1.0))
    return rows


def _part_table(title: str, prediction: Prediction, rows: list[tuple[str, list[str], float]], *, share: bool) -> RenderableType:
    table = plain_table("part")
    for stage, _ in prediction.stages[-MOST_COLUMNS:]:
        table.add_column(f"DP {stage.data_parallel}", justify="right")
    if share:
        table.add_column("share", justify="right")
    for label, cells, part in rows:
        if label == "total":
            table.add_section()
        table.add_row(label, *cells, *([f"{100 * part:.0f} %"] if share else []))
    return titled(title, table)
