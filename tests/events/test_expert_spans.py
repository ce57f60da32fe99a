"""Dispatch and combine on a timeline: on a stream of their own, with what hides of them beside kernels."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import pytest

from perfmodel.count.operators import Collective, moves_data_parallel
from perfmodel.events.spans import COMPUTE, DATA_STREAM, PASSES, Span
from perfmodel.events.timeline import Timeline, timeline
from perfmodel.prediction import predict
from perfmodel.report.trace.facts import notes
from perfmodel.spec.axes import EXPERT
from perfmodel.timing.collectives import collective_time_s
from perfmodel.timing.kernels import at_cluster_load
from tests.mixtures import candidate, predicted

(TOKENS,) = EXPERT.streams
SMALL = ("model.layers=8", "virtual_pipeline=1", "expert_parallel=8", "stages=[{data_parallel: 8, global_batch_size: 128}]")
BESIDE = "stack.experts.overlap=passes"


@cache
def drawn(*settings: str) -> Timeline:
    """The timeline of eight layers on 32 GPUs, changed."""
    return timeline(candidate(*SMALL, *settings).run, predicted(*SMALL, *settings))


def of_track(found: Timeline, track: str, stage: int = 1) -> list[Span]:
    """What lies on one track of a pipeline stage, by its start."""
    return sorted((each for each in found.spans if (each.track, each.place.stage) == (track, stage)), key=lambda e: e.start_s)


def kernels_of(found: Timeline) -> list[Span]:
    """Kernels of a pipeline stage, without the layers that they lie in."""
    return [span for span in of_track(found, COMPUTE) if span.ran is not None]


@pytest.mark.parametrize("overlap", [(), (BESIDE,)])
def test_tokens_travel_on_a_stream_of_their_own(overlap: tuple[str, ...]) -> None:
    """Both ways in both passes of every layer with experts, none on top of another."""
    spans = of_track(drawn(*overlap), TOKENS)
    assert {str(span.ran.operator.role) for span in spans if span.ran} == {"dispatch", "combine"}
    assert {span.ran.operator.phase for span in spans if span.ran} == {"forward", "data_gradient"}
    assert all(one.end_s <= other.start_s + 1e-9 for one, other in pairwise(spans))


def test_with_nothing_beside_them_kernels_wait() -> None:
    """No kernel runs while tokens travel."""
    found = drawn()
    kernels = kernels_of(found)
    for span in of_track(found, TOKENS)[:20]:
        assert not any(each.start_s < span.end_s - 1e-9 and each.end_s > span.start_s + 1e-9 for each in kernels)


def test_what_hides_lies_beside_kernels() -> None:
    """As long as the forecast hides it: a message lasts longer than kernels wait for it."""
    found = drawn(BESIDE)
    kernels, span = kernels_of(found), of_track(found, TOKENS)[0]
    beside_s = sum(max(min(each.end_s, span.end_s) - max(each.start_s, span.start_s), 0.0) for each in kernels)
    assert span.ran is not None
    assert span.ran.exposed_s is not None
    assert span.ran.exposed_s < span.ran.alone_s
    assert beside_s == pytest.approx(span.ran.alone_s - span.ran.exposed_s, rel=1e-6)


@pytest.mark.parametrize("overlap", [(), (BESIDE,)])
def test_what_passes_wait_for_tokens_is_that_of_the_breakdown(overlap: tuple[str, ...]) -> None:
    """Of the slowest pipeline stage."""
    found = drawn(*overlap)
    sums = [sum(span.parts.get(EXPERT.exposed_part, 0.0) for span in of_track(found, PASSES, stage)) for stage in range(4)]
    assert max(sums) == pytest.approx(float(found.predicted.breakdown.expert_parallel_exposed_s), rel=1e-6)


def test_a_reader_is_told_what_stands_for_another_micro_batch() -> None:
    """Where anything hides behind one."""
    assert any("another micro-batch" in note for note in notes(drawn(BESIDE)))
    assert not any("another micro-batch" in note for note in notes(drawn()))


@pytest.mark.parametrize("stack", ["megatron-lm", "megatron-core"])
@pytest.mark.parametrize("detail", ["operators", "passes"])
def test_gradients_of_experts_and_of_the_rest_have_buckets_of_their_own(stack: str, detail: str) -> None:
    """Each call as often as it repeats, none on top of another, and all of them within the iteration."""
    settings = ("model=deepseek-v2-lite", "cluster=a100-pcie", f"stack={stack}", "sharding=zero3", "precision=bf16")
    layout = ("pipeline_parallel=1", "virtual_pipeline=1", "expert_parallel=1", "recompute_modules=core_attn")
    run = candidate(*settings, *layout, "stages=[{data_parallel: 7, global_batch_size: 7}]").run
    predicted_stage = predict(run).stages[0][1]
    found = timeline(run, predicted_stage, detail=detail, micro_batches=1)
    assert found.span_s == pytest.approx(float(predicted_stage.iteration_time_s), rel=1e-8)
    spans = [
        span for span in of_track(found, DATA_STREAM, stage=0) if span.ran is None or moves_data_parallel(span.ran.operator)
    ]
    drawn_s = sum(span.details.get("alone_s", span.end_s - span.start_s) for span in spans)
    cluster = at_cluster_load(run.cluster, 7)
    calls = [op for op in predicted_stage.work.synchronisation if isinstance(op, Collective) and moves_data_parallel(op)]
    assert drawn_s == pytest.approx(sum(float(op.repeats * collective_time_s(op, cluster=cluster)) for op in calls))
    if detail == "operators":
        assert all(one.end_s <= other.start_s + 1e-9 for one, other in pairwise(spans))
