"""Is a timeline the predicted iteration: all of it, in parts that sum, with nothing on top of anything else?"""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel import api
from perfmodel.errors import InputError
from perfmodel.events.spans import COMPUTE, PASSES, WAITING, Span
from perfmodel.events.timeline import Timeline, timeline
from perfmodel.exchange.run_files import read_candidates
from perfmodel.prediction import predict
from perfmodel.timing.breakdown import PARTS
from perfmodel.timing.ledger import ledger

STAGE = "stages=[{data_parallel: 8, global_batch_size: %d}]"
PIPELINES = (
    (),
    ("pipeline_parallel=2",),
    ("pipeline_parallel=3",),
    ("pipeline_parallel=4", "virtual_pipeline=2"),
    ("pipeline_parallel=4", "pipeline_schedule=zb-h1"),
    ("pipeline_parallel=4", "pipeline_schedule=zb-2p"),
)
BETWEEN_PASSES = {"pipeline_bubble_s", "pipeline_parallel_exposed_s", "data_parallel_exposed_s"}


def drawn(*changes: str, sequences: int = 64, **options: Any) -> Timeline:
    """The timeline of one stage of the Nemotron-4 15B run, changed."""
    run = read_candidates("nemotron-4-15b", [STAGE % sequences, *changes])[0].run
    return timeline(run, predict(run).stages[0][1], **options)


def predicted_s(found: Timeline) -> float:
    """The iteration time."""
    return float(found.predicted.iteration_time_s)


def of_stage(found: Timeline, stage: int) -> list[Span]:
    """Its spans by their start."""
    return sorted((span for span in found.spans if span.place.stage == stage), key=lambda span: span.start_s)


def outermost(spans: list[Span]) -> list[Span]:
    """Passes, the optimizer step, and what a stage waits for between them."""
    return [span for span in spans if span.track == PASSES or (span.kind == "wait" and BETWEEN_PASSES & set(span.parts))]


def summed(spans: list[Span]) -> dict[str, float]:
    """Their parts; what folded passes wait between them is that of bubbles and messages."""
    sums: dict[str, float] = defaultdict(float)
    for span in spans:
        for part, seconds in span.parts.items():
            sums[part] += seconds
        sums["pipeline_bubble_s"] += span.details.get("waiting_s", 0.0)
    return sums


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(["megatron-core", "megatron-lm", "ideal", "torchtitan", "generic"]),
    st.sampled_from(PIPELINES),
    st.sampled_from(["sharding=none", "sharding=zero1", "sharding=zero2", "sharding=zero3"]),
    st.sampled_from(["recompute=none", "recompute=selective", "recompute=full"]),
    st.sampled_from([32, 96, 192]),
    st.sampled_from([{}, {"micro_batches": 1}, {"micro_batches": 2}]),
)
def test_a_timeline_is_the_predicted_iteration(
    stack: str, pipeline: tuple[str, ...], sharding: str, recompute: str, sequences: int, options: dict[str, Any]
) -> None:
    """Whatever the layout: the span, each stage's passes and waits without a gap, and the parts of the slowest stage."""
    found = drawn(f"stack={stack}", *pipeline, sharding, recompute, sequences=sequences, **options)
    total_s = predicted_s(found)
    assert found.span_s == pytest.approx(total_s, rel=1e-8)
    assert min(span.start_s for span in found.spans) >= 0.0
    for stage in range(len(found.layers)):
        outer = outermost(of_stage(found, stage))
        assert sum(span.duration_s for span in outer) == pytest.approx(total_s, rel=1e-8)
        assert sum(summed(outer).values()) == pytest.approx(total_s, rel=1e-8)
        assert all(one.end_s <= other.start_s + 1e-10 for one, other in pairwise(outer))


@pytest.mark.parametrize("sharding", ["none", "zero1", "zero2", "zero3"])
@pytest.mark.parametrize("stack", ["megatron-core", "generic"])
def test_the_parts_of_one_stage_are_those_of_the_breakdown(stack: str, sharding: str) -> None:
    """Each of them, to rounding."""
    found = drawn(f"stack={stack}", f"sharding={sharding}")
    sums = summed(outermost(of_stage(found, 0)))
    for part in PARTS:
        assert sums[part] == pytest.approx(float(getattr(found.predicted.breakdown, part)), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("pipeline", PIPELINES[1:])
def test_the_slowest_stage_has_the_kernels_of_the_breakdown(pipeline: tuple[str, ...]) -> None:
    """And waits as long as it says; data parallelism slows the first stage down, for which the others wait."""
    found = drawn(*pipeline, sequences=96)
    slowest = max(range(len(found.layers)), key=lambda stage: found.passes_s[stage])
    sums, parts = summed(outermost(of_stage(found, slowest))), found.predicted.breakdown
    for part in ("matmul_s", "attention_s", "memory_bound_s", "tensor_parallel_exposed_s", "optimizer_s"):
        assert sums[part] == pytest.approx(float(getattr(parts, part)), rel=1e-8)
    assert sums["data_parallel_exposed_s"] == pytest.approx(float(parts.data_parallel_exposed_s), rel=1e-8)
    waits = ("pipeline_bubble_s", "pipeline_parallel_exposed_s", "communication_slowdown_s")
    assert sum(sums[part] for part in waits) == pytest.approx(sum(float(getattr(parts, part)) for part in waits), rel=1e-6)


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_what_runs_in_passes_adds_up_to_them(pipeline: tuple[str, ...]) -> None:
    """Kernels and what they wait for fill every pass; layers hold what runs in them."""
    found = drawn(*pipeline)
    for stage in range(len(found.layers)):
        spans = of_stage(found, stage)
        kernels = [span for span in spans if span.track == COMPUTE and span.kind != "layer"]
        waits = [span for span in spans if span.track == WAITING]
        busy = sorted([*kernels, *waits], key=lambda span: (span.start_s, span.end_s))
        assert all(one.end_s <= other.start_s + 1e-10 for one, other in pairwise(busy))
        collectives_s = sum(
            span.duration_s
            for span in spans
            if span.kind == "collective" and span.name.startswith("optimizer.") and span.ran and span.ran.exposed_s
        )
        assert sum(span.duration_s for span in busy) + collectives_s == pytest.approx(predicted_s(found), rel=1e-7)
        layers = [span for span in spans if span.kind == "layer"]
        assert all(one.end_s <= other.start_s + 1e-10 for one, other in pairwise(layers))


def test_every_operator_of_the_list_is_drawn_as_often_as_it_runs() -> None:
    """With the seconds, FLOPs and confidence that the list gives it."""
    found = drawn("tensor_parallel=4", "recompute=selective", sequences=32)
    run, predicted = found.run, found.predicted
    seconds: dict[tuple[str, str], float] = defaultdict(float)
    sure = {}
    for entry in ledger(predicted.work, gpus=predicted.layout.gpus, cluster=run.cluster, stack=run.stack):
        key = (entry.operator.name, entry.operator.phase)
        seconds[key] += float(entry.repeats * entry.seconds)
        sure[key] = entry.confidence
    shown: dict[tuple[str, str], float] = defaultdict(float)
    for span in found.spans:
        if span.ran is not None:
            shown[span.ran.operator.name, span.ran.operator.phase] += span.ran.alone_s
            assert span.ran.confidence == sure[span.ran.operator.name, span.ran.operator.phase]
    assert dict(shown) == pytest.approx(dict(seconds), rel=1e-9)


def test_kernels_last_as_long_as_alone_and_as_what_slows_them_down() -> None:
    """Of every operator."""
    for span in drawn("pipeline_parallel=4").spans:
        if span.ran is not None and span.ran.slowdown_s is not None:
            assert span.duration_s == pytest.approx(span.ran.alone_s + span.ran.slowdown_s, rel=1e-6, abs=1e-12)


def names(found: Timeline, stage: int) -> str:
    """The passes of a stage in their order."""
    return " ".join(span.name for span in of_stage(found, stage) if span.track == PASSES)


def test_schedules_look_as_in_their_papers() -> None:
    """Four stages and eight micro-batches: arXiv:2104.04473, figure 4, and arXiv:2401.10241, figures 2 and 3."""
    plain = drawn("pipeline_parallel=4")
    assert names(plain, 0) == "F 1 F 2 F 3 F 4 B 1 F 5 B 2 F 6 B 3 F 7 B 4 F 8 B 5 B 6 B 7 B 8 optimizer"
    assert names(plain, 3).startswith("F 1 B 1 F 2 B 2 F 3 B 3")
    chunks = drawn("pipeline_parallel=4", "virtual_pipeline=2")
    assert names(chunks, 0).startswith("F 1.1 F 2.1 F 3.1 F 4.1 F 1.2 F 2.2 F 3.2 F 4.2 F 5.1 F 6.1 F 7.1 B 1.2 F 8.1 B 2.2")
    first = drawn("pipeline_parallel=4", "pipeline_schedule=zb-h1")
    assert names(first, 3).startswith("F 1 B 1 F 2 B 2 F 3 B 3 F 4 B 4 W 1 F 5 B 5 W 2")
    second = drawn("pipeline_parallel=4", "pipeline_schedule=zb-2p")
    assert names(second, 0).startswith("F 1 F 2 F 3 F 4 F 5 F 6 F 7 B 1 W 1 F 8 B 2 W 2")
    assert second.is_staggered


def test_many_micro_batches_are_folded() -> None:
    """The first and the last are drawn; what stands for the others has their sums, and the iteration is as long."""
    found = drawn("pipeline_parallel=4", sequences=8 * 400, micro_batches=3)
    folded = [span for span in found.spans if span.kind == "folded"]
    assert len(folded) >= 4
    assert len(found.spans) < 12_000
    assert {span.place.micro_batch for span in found.spans if span.track == COMPUTE and span.kind == "layer"} == {
        *range(3),
        *range(397, 400),
    }
    counted = sum(span.details.get("forward_passes", 0) for span in folded)
    alone = sum(span.kind == "forward" for span in found.spans)
    assert counted + alone == 4 * 400
    assert found.span_s == pytest.approx(predicted_s(found), rel=1e-9)


@pytest.mark.parametrize(("detail", "kinds"), [("passes", set()), ("layers", {"layer"}), ("operators", {"layer", "matmul"})])
def test_less_detail_draws_less(detail: str, kinds: set[str]) -> None:
    """Passes, then layers, then operators; as long every time."""
    found = drawn(detail=detail)
    assert {span.kind for span in found.spans} & {"layer", "matmul"} == kinds
    assert found.span_s == pytest.approx(predicted_s(found), rel=1e-9)


@pytest.mark.slow
def test_as_much_is_drawn_as_a_viewer_opens_quickly() -> None:
    """Of any number of micro-batches."""
    for changes in ((), ("pipeline_parallel=8",)):
        found = drawn(*changes, sequences=8 * 1000)
        assert 10_000 < len(found.spans) < 70_000
        assert found.drawn.detail == "operators"


def test_arrows_lead_from_a_pass_to_the_one_that_needs_it() -> None:
    """Forwards in time, between neighbours; one for each message."""
    found = drawn("pipeline_parallel=4")
    assert len(found.arrows) == 2 * 3 * 8
    for arrow in found.arrows:
        assert list(arrow.points) == sorted(arrow.points, key=lambda point: point.at_s)
        assert abs(arrow.points[0].stage - arrow.points[-1].stage) == 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"detail": "layer"}, "detail: 'layer' is not one of them; did you mean layers?"),
        ({"micro_batches": 0}, "micro_batches: 0 micro-batches cannot be drawn; 1 or more can"),
        ({"micro_batches": 500}, "that would be some"),
    ],
)
def test_what_cannot_be_drawn_is_one_sentence(options: dict[str, Any], sentence: str) -> None:
    """An InputError that says what would work."""
    with pytest.raises(InputError) as raised:
        drawn(sequences=8 * 1000, **options)
    assert sentence in str(raised.value)


@pytest.mark.parametrize(
    ("key", "value", "word"), [("stages[-1].global_batch_size", 288 * 2**20, "passes"), ("model.layers", 20_000, "layers")]
)
def test_an_iteration_that_would_take_minutes_is_refused(key: str, value: int, word: str) -> None:
    """With what could be drawn."""
    run = read_candidates("nemotron-4-15b", [(key, value)])[0].run
    with pytest.raises(InputError, match=rf"an iteration of [\d,]+ {word} cannot be drawn; one of [\d,]+ or fewer can"):
        timeline(run, predict(run).stages[-1][1])


SLOW_LINKS = {
    "model": {
        "name": "narrow",
        "layers": 6,
        "hidden_size": 256,
        "attention_heads": 4,
        "kv_heads": 1,
        "head_size": 64,
        "ffn_hidden_size": 128,
        "activation": "gelu",
        "norm": "rmsnorm",
        "vocab_size": 500,
    },
    "cluster": "rtx-3090",
    "stack": "accelerate-fsdp",
    "precision": "bf16",
    "pipeline_parallel": 8,
    "sharding": "none",
    "recompute": "none",
    "micro_batch_size": 2,
    "sequence_length": 4096,
    "stages": [{"data_parallel": 2, "global_batch_size": 32}],
}
NOTHING_TO_SPARE = {
    "model": "gpt-3-175b",
    "cluster": "gb300-nvl72",
    "stack": "aleph-alpha-scaling",
    "precision": "nvfp4",
    "tensor_parallel": 1,
    "pipeline_parallel": 8,
    "sequence_parallel": False,
    "sharding": "none",
    "recompute": "none",
    "micro_batch_size": 1,
    "sequence_length": 512,
    "stages": [{"data_parallel": 27, "global_batch_size": 864}],
}


@pytest.mark.parametrize("schedule", ["zb-h1", "zb-1p", "zb-2p"])
@pytest.mark.parametrize("run", [SLOW_LINKS, NOTHING_TO_SPARE])
def test_zero_bubble_schedules_last_as_long_as_their_iteration(run: dict[str, Any], schedule: str) -> None:
    """Where messages outlast passes, and where the slowest stage computes from the first start to the last end."""
    found = api.timeline(run | {"pipeline_schedule": schedule}, detail="passes", micro_batches=1)
    assert found.span_s == pytest.approx(predicted_s(found), rel=1e-8)


def test_passes_that_take_longer_than_the_iteration_are_not_drawn_for_ever() -> None:
    """61 layers on 32 pieces: one by one they take longer than the closed form says, whatever their messages do."""
    run = {
        "model": "deepseek-v3",
        "cluster": "gb200-nvl72",
        "stack": "megatron-bridge",
        "precision": "fp8",
        "pipeline_parallel": 4,
        "virtual_pipeline": 8,
        "expert_parallel": 64,
        "sequence_length": 2048,
        "recompute": "selective",
        "recompute_modules": "mla_up_proj",
        "stages": [{"data_parallel": 128, "global_batch_size": 2560}],
    }
    with pytest.raises(InputError, match=r"virtual_pipeline: passes that take \d\.\d % longer one by one"):
        api.timeline(run, detail="passes")
