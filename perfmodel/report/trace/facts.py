"""What stands beside the events of a timeline: which iteration it is, how it was drawn, how busy its pipeline stages are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from perfmodel.events.timeline import Timeline
from perfmodel.report.json.prediction import SCHEMA_VERSION
from perfmodel.report.trace.timeline import number
from perfmodel.spec.axes import REPORTED

SIZES: Final = (
    *(axis.name for axis in REPORTED),
    *("virtual_pipeline", "micro_batch_size", "global_batch_size", "sequence_length"),
)
WORTH_SAYING: Final = 1e-4  # of the iteration


def timeline_facts(timeline: Timeline) -> dict[str, Any]:
    """What stands beside the events: which iteration it is, its parts, and how it was drawn."""
    predicted, layout, run = timeline.predicted, timeline.predicted.layout, timeline.run
    low_s, high_s = predicted.iteration_time_interval_s
    return {
        "schema_version": SCHEMA_VERSION,
        "name": run.name,
        "stage": timeline.stage + 1,
        "iteration_time_s": float(predicted.iteration_time_s),
        "iteration_time_interval_s": [float(low_s), float(high_s)],
        "mfu": float(predicted.mfu),
        "breakdown_s": {part: float(seconds) for part, seconds in predicted.breakdown.items()},
        "layout": {name: number(getattr(layout, name)) for name in SIZES} | {"pipeline_schedule": layout.pipeline_schedule},
        "counted": "stages, layers, micro-batches and chunks from 1",
        "notes": list(notes(timeline)),
    }


def notes(timeline: Timeline) -> Iterator[str]:
    """What a reader should know of how it was drawn."""
    drawn, total_s = timeline.drawn, float(timeline.predicted.iteration_time_s)
    shown, full = min(2 * drawn.alone, drawn.micro_batches), min(2 * drawn.full, drawn.micro_batches)
    if shown < drawn.micro_batches:
        yield f"the passes of {shown} of {drawn.micro_batches} micro-batches are drawn one by one, the others folded"
    if drawn.detail == "passes":
        yield "of what runs in the passes nothing is drawn"
    elif full < drawn.micro_batches:
        yield f"the {drawn.detail} of {full} of {drawn.micro_batches} micro-batches are drawn"
    if timeline.longer_s > WORTH_SAYING * total_s and not timeline.early_s:
        yield (
            f"the closed form of the pipeline takes {100 * timeline.longer_s / total_s:.2g} % longer than the order of its "
            "passes: all stages wait for that before they go on"
        )
    if timeline.early_s:
        less = f"{100 * timeline.shorter_s / total_s:.2g} %"
        yield (
            f"the closed form of the pipeline, whose pieces are as even as its stages, takes {less} less than the order of its "
            f"passes: every input is there {1e3 * timeline.early_s:.3g} ms before its message is over"
        )
    if timeline.is_staggered:
        yield (
            "stages begin one after the other, each as soon as it is done: what one still does after the end lies at the "
            "beginning, as part of the iteration before"
        )
    if timeline.predicted.layout.pipeline_schedule != "1f1b" and timeline.predicted.layout.tensor_parallel > 1:
        yield (
            "collectives that the forecast hides behind weight gradients lie beside what follows them, on a second track where "
            "that has collectives of its own: this schedule forms weight gradients later"
        )
    if timeline.run.stack.experts.overlap == "passes" and timeline.predicted.layout.expert_parallel > 1:
        yield (
            "what hides of dispatch and combine behind another micro-batch lies beside the kernels that follow in its own "
            "pass, which stand for those of the other"
        )
    if timeline.run.stack.overlap.hide_all:
        yield f"{timeline.run.stack.name} hides all communication: its collectives are not drawn"


def timeline_document(timeline: Timeline) -> dict[str, Any]:
    """What was drawn, as JSON."""
    facts = timeline_facts(timeline)
    optimizer_s = float(timeline.predicted.breakdown.optimizer_s)
    stages = [
        {"layers": [[first + 1, first + number] for first, number in pieces if number], "passes_s": passes_s}
        | {"optimizer_s": optimizer_s, "waiting_s": facts["iteration_time_s"] - passes_s - optimizer_s}
        for pieces, passes_s in zip(timeline.layers, timeline.passes_s, strict=True)
    ]
    drawn = {"detail": timeline.drawn.detail, "micro_batches": timeline.drawn.micro_batches}
    drawn |= {"in_full": timeline.drawn.full, "one_by_one": timeline.drawn.alone, "spans": len(timeline.spans)}
    counted = {name: value for name, value in facts.items() if name != "counted"}
    differences = {"closed_form_longer_s": timeline.longer_s, "closed_form_shorter_s": timeline.shorter_s}
    differences |= {"input_early_s": timeline.early_s}
    return counted | {"span_s": timeline.span_s, "drawn": drawn, "pipeline_stages": stages} | differences
