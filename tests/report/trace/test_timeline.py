"""Does a timeline become a trace that viewers draw as it is, with every number at its place?"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from perfmodel.events.timeline import Timeline, timeline
from perfmodel.exchange.output import as_bytes
from perfmodel.exchange.run_files import read_candidates
from perfmodel.prediction import predict
from perfmodel.report.trace.facts import notes, timeline_document, timeline_facts
from perfmodel.report.trace.format import trace_text
from perfmodel.report.trace.timeline import layers_text, timeline_events
from perfmodel.timing.breakdown import PARTS
from tests.report.trace.trace_reading import Trace, read

STAGE = "stages=[{data_parallel: 8, global_batch_size: 64}]"
SCHEDULES = {
    "one stage": (),
    "1f1b": ("pipeline_parallel=4",),
    "interleaved": ("pipeline_parallel=4", "virtual_pipeline=2"),
    "interleaved, waiting": ("pipeline_parallel=4", "virtual_pipeline=2", "stack=megatron-lm"),
    "zb-h1": ("pipeline_parallel=4", "pipeline_schedule=zb-h1"),
    "zb-2p": ("pipeline_parallel=4", "pipeline_schedule=zb-2p"),
    "everything": ("pipeline_parallel=2", "context_parallel=2", "sharding=zero3", "recompute=full", "precision=fp8"),
}
STREAMS = {"passes", "compute", "tensor parallel", "data parallel", "waiting"}


@cache
def drawn(*changes: str | tuple[str, str], **options: Any) -> Timeline:
    """The timeline of one stage of the Nemotron-4 15B run, changed."""
    run = read_candidates("nemotron-4-15b", [STAGE, *changes])[0].run
    return timeline(run, predict(run).stages[0][1], **options)


def text_of(found: Timeline) -> str:
    """The file."""
    return trace_text(timeline_events(found), timeline_facts(found))


@cache
def trace_of(*changes: str) -> Trace:
    """The file, read; what is cached is never changed."""
    return read(text_of(drawn(*changes)))


def predicted_s(found: Timeline) -> float:
    """The iteration time."""
    return float(found.predicted.iteration_time_s)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_span_of_the_file_is_the_predicted_iteration(name: str) -> None:
    """Read as a viewer reads it, to far less than 0.1 %; every event where it belongs."""
    found, trace = drawn(*SCHEDULES[name]), trace_of(*SCHEDULES[name])
    assert trace.span_ns / 1e9 == pytest.approx(predicted_s(found), rel=1e-6)
    assert min(each.start_ns for each in trace.slices) == 0
    assert len(trace.slices) == len(found.spans)
    assert len(trace.arrows) == len(found.arrows)


@pytest.mark.parametrize("name", SCHEDULES)
def test_there_is_a_process_a_pipeline_stage_and_a_thread_a_stream(name: str) -> None:
    """Told by their names, which say the layers too."""
    found, trace = drawn(*SCHEDULES[name]), trace_of(*SCHEDULES[name])
    stages = len(found.layers)
    assert list(trace.processes) == list(range(1, stages + 1))
    assert trace.processes[1].startswith(f"pipeline stage 1 of {stages} (layers 1-")
    for pid in trace.processes:
        threads = {trace.threads[each.tid] for each in trace.slices if each.pid == pid}
        assert threads >= STREAMS
        beside = {"pipeline parallel: activations", "pipeline parallel: gradients"}
        if stages == 1:
            assert not threads & beside
        elif 1 < pid < stages or "interleaved" in name:  # the ends of a plain pipeline send in one direction
            assert threads >= beside


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_parts_in_the_file_are_those_of_the_breakdown(name: str) -> None:
    """Added up over the arguments of passes, waits and the optimizer step of the slowest stage."""
    found, trace = drawn(*SCHEDULES[name]), trace_of(*SCHEDULES[name])
    slowest = max(range(len(found.layers)), key=lambda stage: found.passes_s[stage])
    sums: Counter[str] = Counter()
    outer = {"pipeline_bubble_s", "pipeline_parallel_exposed_s", "data_parallel_exposed_s"}
    for each in trace.slices:
        thread = trace.threads[each.tid]
        if each.pid == slowest + 1 and (thread == "passes" or (thread == "waiting" and outer & set(each.args))):
            sums.update({part: each.args[part] for part in PARTS if part in each.args})
    assert sum(sums.values()) == pytest.approx(predicted_s(found), rel=1e-6)
    alike = ("matmul_s", "attention_s", "memory_bound_s", "tensor_parallel_exposed_s", "data_parallel_exposed_s", "optimizer_s")
    for part in alike:
        assert sums[part] == pytest.approx(float(getattr(found.predicted.breakdown, part)), rel=1e-6)


def test_kernels_and_what_they_wait_for_fill_a_stage() -> None:
    """In nanoseconds of the file: a nanosecond an event at most is lost to rounding."""
    trace = trace_of()
    kernels = sum(each.duration_ns for each in trace.of_thread(1, "compute") if each.kind != "layer")
    waits = sum(each.duration_ns for each in trace.of_thread(1, "waiting"))
    others = [each for each in trace.slices if each.args.get("exposed_s") and each.name.startswith("optimizer.")]
    exposed = sum(each.duration_ns for each in others)
    assert kernels + waits + exposed == pytest.approx(trace.span_ns, abs=len(trace.slices))


def test_operators_lie_in_their_layer() -> None:
    """One thread: layers hold them, the embedding and the head too; the optimizer step has no layer."""
    trace = trace_of()
    spans = trace.of_thread(1, "compute")
    assert {each.depth for each in spans if each.kind == "layer"} == {0}
    assert {each.depth for each in spans if each.args.get("layer") and each.kind != "layer"} == {1}
    names = {each.name for each in spans if each.kind == "layer"}
    assert names == {"embedding", "head", *(f"layer {number}" for number in range(1, 33))}


def first(trace: Trace, name: str, phase: str) -> dict[str, Any]:
    """The arguments of the first execution of an operator."""
    return dict(next(each.args for each in trace.slices if each.name == name and each.args.get("phase") == phase))


def test_every_kind_of_operator_says_its_shape_flop_bytes_and_confidence() -> None:
    """A product, attention, a memory-bound operator, a collective."""
    trace = trace_of()
    product = first(trace, "layer.mlp.fc1", "forward")
    assert product["shape"] == "4096 x 3072 x 6144 (rows x columns x inner), bf16"
    assert product["flop"] == 2 * 4096 * 3072 * 6144
    assert product["bytes"] == 2 * (4096 * 6144 + 6144 * 3072 + 4096 * 3072)
    attention = first(trace, "layer.attention.core", "forward")
    assert attention["shape"] == "1 sequences x 6 heads (1 of keys) x 128, 4096 queries, 4096 keys, causal, bf16"
    norm = first(trace, "layer.mlp.norm", "forward")
    assert (norm["flop"], norm["bytes"]) == (0, 2 * 2 * 4096 * 6144 / 8)
    gather = first(trace, "layer.mlp.fc1.gather", "forward")
    assert gather["shape"] == "all_gather of 50331648 bytes over 8 ranks (tensor_parallel)"
    for args in (product, attention, norm, gather):
        assert args["confidence"] in {"measured", "interpolated", "extrapolated", "datasheet"}
        assert (args["micro_batch"], args["layer"], args["repeats"]) == (1, 1, 1)
        assert args["alone_s"] > 0
    assert 0 < gather["exposed_s"] < gather["alone_s"]


def test_every_operator_in_the_file_has_them() -> None:
    """Whatever the layout."""
    for changes in SCHEDULES.values():
        trace = trace_of(*changes)
        operators = [each for each in trace.slices if each.kind in {"matmul", "attention", "memory_bound", "collective"}]
        assert len(operators) > 1000
        for each in operators:
            if "cut" not in each.args:
                assert set(each.args) >= {"shape", "flop", "bytes", "confidence", "alone_s", "repeats"}


def test_arrows_go_from_pass_to_pass_by_way_of_the_message() -> None:
    """From the stage that makes an output to the one that needs it, never back in time."""
    trace = trace_of("pipeline_parallel=4")
    for source, *message, target in trace.arrows:
        assert trace.threads[source.tid] == trace.threads[target.tid] == "passes"
        assert source.name == target.name
        assert abs(source.pid - target.pid) == 1
        sent = "activations" if source.kind == "forward" else "gradients"
        assert [each.name for each in message] == [f"pipeline.send_{sent}"]
        assert source.end_ns <= message[0].start_ns <= message[0].end_ns <= target.start_ns + 1


WEIRD = ("<b>&\"'</script>", "x" * 200, "Modell \u00e4\u00f6 \u6a21\u578b \U0001f680", 'back\\slash "quoted" {"a": [1]}')


@pytest.mark.parametrize("name", WEIRD)
def test_weird_names_survive(name: str) -> None:
    """Markup, length, letters of all kinds, what means something in JSON; what is no line of text is refused."""
    found = drawn(("name", name))
    text = as_bytes(text_of(found)).decode()
    assert read(text).facts["name"] == found.run.name
    labels = [event["args"]["labels"] for event in json.loads(text)["traceEvents"] if event["name"] == "process_labels"]
    assert labels == [found.run.name]


def test_facts_and_summary_say_what_was_drawn() -> None:
    """The same numbers as the prediction, how busy stages are, and what was left out."""
    found = drawn("pipeline_parallel=4", micro_batches=1)
    document = timeline_document(found)
    json.dumps(document, allow_nan=False)
    assert document["iteration_time_s"] == predicted_s(found) == pytest.approx(document["span_s"], rel=1e-9)
    assert sum(document["breakdown_s"].values()) == pytest.approx(predicted_s(found), rel=1e-12)
    assert [stage["layers"] for stage in document["pipeline_stages"]] == [[[1, 8]], [[9, 16]], [[17, 24]], [[25, 32]]]
    for stage in document["pipeline_stages"]:
        assert sum(stage[name] for name in ("passes_s", "optimizer_s", "waiting_s")) == pytest.approx(predicted_s(found))
    assert "the passes of 2 of 8 micro-batches are drawn one by one, the others folded" in document["notes"]


def test_a_stack_that_hides_all_draws_no_collectives() -> None:
    """And says so."""
    found = drawn("stack=ideal", "pipeline_parallel=4")
    trace = read(text_of(found))
    assert not [each for each in trace.slices if each.kind in {"collective", "message"}]
    assert trace.span_ns / 1e9 == pytest.approx(predicted_s(found), rel=1e-6)
    assert any("its collectives are not drawn" in note for note in notes(found))


def test_layers_of_interleaved_stages_are_several_ranges() -> None:
    """As a process is called; a stage may have none."""
    assert [layers_text(pieces) for pieces in ([(0, 8)], [(0, 2), (8, 2)], [(4, 1)], [(0, 0)])] == [
        *("layers 1-8", "layers 1-2, 9-10", "layers 5", "no layers")
    ]


def trace_processor() -> str | None:
    """Perfetto's own, from the PATH or as its Python package keeps it once it was downloaded."""
    kept = sorted((Path.home() / ".local" / "share" / "perfetto" / "prebuilts").glob("trace_processor_shell*"))
    return shutil.which("trace_processor_shell") or (str(kept[-1]) if kept else None)


@pytest.mark.skipif(trace_processor() is None, reason="no trace_processor_shell here: the package index has none")
@pytest.mark.parametrize("name", SCHEDULES)
def test_perfettos_trace_processor_reads_the_same(name: str, tmp_path: Path) -> None:
    """The span, the number of slices, the time of kernels, no import error."""
    package = pytest.importorskip("perfetto.trace_processor", reason="the package perfetto is not installed")
    found = drawn(*SCHEDULES[name])
    path = tmp_path / "trace.json"
    path.write_text(text_of(found), encoding="utf-8")
    ours = read(path.read_text(encoding="utf-8"))
    config = package.TraceProcessorConfig(bin_path=trace_processor())
    with package.TraceProcessor(trace=str(path), config=config) as processor:
        (whole,) = processor.query("select min(ts) as first, max(ts + dur) as last, count(*) as number from slice")
        assert (whole.last - whole.first, whole.number) == (ours.span_ns, len(ours.slices))
        (kernels,) = processor.query("select sum(dur) as total from slice where category = 'matmul'")
        assert kernels.total == sum(each.duration_ns for each in ours.slices if each.kind == "matmul")
        (processes,) = processor.query("select count(*) as number from process where name like 'pipeline stage%'")
        assert processes.number == len(found.layers)
        (errors,) = processor.query("select coalesce(sum(value), 0) as number from stats where severity = 'error'")
        assert errors.number == 0
