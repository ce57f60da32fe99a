"""Do forecast, record and a real profile stand side by side in one trace, each as long as it is, all from the beginning?"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity, profile, record_function

from perfmodel.events.timeline import Timeline, timeline
from perfmodel.evidence.steps.profiled_step import ProfiledStep, profiled_step
from perfmodel.evidence.steps.step_comparison import compare_step
from perfmodel.exchange.measured.trace_files import read_trace
from perfmodel.report.trace.comparison import compared_trace, comparison_trace
from tests.evidence.step_examples import as_predicted, small_prediction
from tests.report.trace.trace_reading import read


@pytest.fixture(scope="module")
def kineto(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trace that torch.profiler wrote here."""
    path = tmp_path_factory.mktemp("kineto") / "profile.json"
    layer = torch.nn.Linear(8, 8)
    with profile(activities=[ProfilerActivity.CPU]) as found:
        for name in ("layer.mlp.fc1 (forward)", "layer.mlp.fc2 (forward)"):
            with record_function(name):
                layer(torch.ones(4, 8)).sum().backward()
    found.export_chrome_trace(str(path))
    return path


@pytest.fixture(scope="module")
def profiled(kineto: Path) -> ProfiledStep:
    """The step in it."""
    return profiled_step(read_trace(kineto))


def drawn() -> Timeline:
    """The forecast alone."""
    prediction = small_prediction()
    return timeline(prediction.run, prediction.stages[0][1])


def test_all_three_begin_together_and_last_as_long_as_they_do(profiled: ProfiledStep) -> None:
    """A record that took half again as long as predicted, and a profile of something else."""
    prediction = small_prediction()
    record = as_predicted(prediction, slower=1.5)
    trace = read(comparison_trace(prediction, compare_step(prediction, record), profiled))
    assert list(trace.processes.values()) == [
        "predicted: pipeline stage 1 of 1 (layers 1-32)",
        "measured: the average of all executions of each operator",
        "profiled: python CPU",
    ]
    ends = [max(each.end_ns for each in trace.slices if each.pid == pid) / 1e9 for pid in (1, 2, 3)]
    total_s = float(prediction.stages[0][1].iteration_time_s)
    assert ends == pytest.approx([total_s, 1.5 * total_s, profiled.duration_s], rel=1e-6)
    assert {min(each.start_ns for each in trace.slices if each.pid == pid) for pid in (1, 2, 3)} == {0}
    assert trace.facts["measured"]["iteration_time_s"] == record.iteration_time_s


def test_measured_operators_say_what_was_predicted_for_them(profiled: ProfiledStep) -> None:
    """On the same streams, with the error of all their executions."""
    prediction = small_prediction()
    trace = read(comparison_trace(prediction, compare_step(prediction, as_predicted(prediction, slower=2.0)), profiled))
    for name, stream in (("layer.mlp.fc1", "compute"), ("layer.mlp.fc2.scatter", "tensor parallel")):
        both = [next(each for each in trace.of_thread(pid, stream) if each.name.startswith(name)) for pid in (1, 2)]
        predicted, measured = both
        assert measured.args["shape"] == predicted.args["shape"]
        assert measured.args["predicted_alone_s"] == pytest.approx(predicted.args["alone_s"], abs=1e-12)
        assert measured.args["measured_s"] == pytest.approx(2.0 * predicted.args["alone_s"], rel=1e-6)
        assert measured.args["error"] == -0.5


def test_a_profile_keeps_its_names_threads_and_nesting(profiled: ProfiledStep) -> None:
    """What torch says of an operator stands in it, under the range around it."""
    trace = read(compared_trace(drawn(), profiled=profiled))
    spans = [each for each in trace.slices if each.pid == 2]
    outer = next(each for each in spans if each.name == "layer.mlp.fc1 (forward)")
    inner = next(each for each in spans if each.name == "aten::addmm")
    assert inner.depth > outer.depth
    assert outer.start_ns <= inner.start_ns <= inner.end_ns <= outer.end_ns
    assert all(trace.threads[each.tid].startswith("thread ") for each in spans)


def test_what_overlaps_lies_on_tracks_beside_each_other() -> None:
    """A range that begins in an operator and ends after it, and one of another thread's operators that outlasts the next."""
    common = {"ph": "X", "pid": 1, "tid": 1}
    spans = [("_Enter", "cpu_op", 0, 4), ("mark", "user_annotation", 2, 6), ("mm", "cpu_op", 4, 2), ("gloo", "cpu_op", 5, 9)]
    events = [{**common, "name": name, "cat": kind, "ts": ts, "dur": dur} for name, kind, ts, dur in spans]
    arrows = [
        {"ph": phase, "pid": 1, "tid": 1, "id": number, "cat": "fwdbwd", "name": "fwdbwd", "ts": ts}
        for phase, number, ts in (("s", 1, 0), ("f", 1, 5), ("s", 2, 1), ("f", 2, 4))
    ]
    trace = read(compared_trace(drawn(), profiled=profiled_step([*events, *arrows])))
    where = {each.name: trace.threads[each.tid] for each in trace.slices if each.pid == 2}
    assert where == {"_Enter": "1", "mm": "1", "gloo": "1 (2)", "mark": "1: annotations"}
    assert [[each.name for each in arrow] for arrow in trace.arrows] == [["_Enter", "gloo"]]  # the other begins at no span


def test_numbers_that_json_has_not_become_words(profiled: ProfiledStep, kineto: Path) -> None:
    """Arguments of a profile may hold anything."""
    document = json.loads(kineto.read_text())
    for event in document["traceEvents"]:
        if event["ph"] == "X":
            event["args"] = {"odd": math.inf, "shape": [[4, 8], [8, 8]], "none": None}
    trace = read(compared_trace(drawn(), profiled=profiled_step(document)))
    args = next(each.args for each in trace.slices if each.pid == 2)
    assert args == {"odd": "inf", "shape": "[[4, 8], [8, 8]]", "none": "None"}
