"""Is the right step read from a trace of torch.profiler, and is what is none refused?"""

from __future__ import annotations

from typing import Any

import pytest

from perfmodel.errors import InputError
from perfmodel.evidence.steps.profiled_step import Thread, profiled_step

CPU = {"pid": 7, "tid": 7}
GPU = {"pid": 0, "tid": 20}


def span(name: str, start_us: float, long_us: float, **more: Any) -> dict[str, Any]:
    """A complete event, on the CPU unless `more` says another thread."""
    return {"ph": "X", "cat": "cpu_op", "name": name, "ts": start_us, "dur": long_us, **CPU, **more}


def kernel(name: str, start_us: float, long_us: float) -> dict[str, Any]:
    """One on a GPU."""
    return span(name, start_us, long_us, cat="kernel", **GPU)


def arrow(phase: str, number: int, at_us: float, **more: Any) -> dict[str, Any]:
    """One end of an arrow from a launch to its kernel."""
    return {"ph": phase, "cat": "ac2g", "name": "ac2g", "id": number, "ts": at_us, **CPU, **more}


def test_the_step_begins_at_zero() -> None:
    """Times of a trace are those of a machine that has been up for weeks; they become nanoseconds of the step."""
    found = profiled_step({"traceEvents": [span("aten::add", 4e12 + 5, 1.5), span("aten::mm", 4e12 + 2, 1.0)]})
    assert [(event.name, event.start_ns, event.end_ns) for event in found.events] == [
        *(("aten::add", 3000, 4500), ("aten::mm", 0, 1000))
    ]
    assert found.duration_s == 4.5e-6


def test_of_several_steps_the_last_is_taken() -> None:
    """From its mark to the end of it."""
    marks = [span(f"ProfilerStep#{step}", 100.0 * step, 100.0, cat="user_annotation") for step in (1, 2)]
    found = profiled_step([*marks, span("first", 110, 10), span("second", 210, 10), span("after", 310, 10)])
    assert [event.name for event in found.events] == ["ProfilerStep#2", "second"]
    assert found.duration_s == 100e-6


def test_what_a_gpu_still_does_of_a_step_counts_to_it() -> None:
    """It is marked on the GPU too, where it begins and ends later."""
    cpu = span("ProfilerStep#1", 100, 50, cat="user_annotation")
    marks = [cpu, span("ProfilerStep#1", 120, 90, cat="gpu_user_annotation", **GPU)]
    found = profiled_step([*marks, kernel("gemm", 190, 15), kernel("of the next", 230, 10), span("next", 160, 5)])
    assert {event.name for event in found.events} == {"ProfilerStep#1", "gemm"}
    assert found.duration_s == pytest.approx(110e-6)


def test_arrows_are_kept_whole_or_not_at_all() -> None:
    """Both ends of one, none of another whose end lies outside of the step."""
    mark = span("ProfilerStep#1", 100, 100, cat="user_annotation")
    gpu = span("ProfilerStep#1", 100, 100, cat="gpu_user_annotation", **GPU)
    ends = [arrow("s", 1, 110), arrow("f", 1, 150), arrow("s", 2, 120), arrow("f", 2, 500)]
    found = profiled_step([mark, gpu, kernel("gemm", 150, 5), *ends])
    assert [(event.phase, event.number) for event in found.events if event.phase != "X"] == [("s", 1), ("f", 1)]


def test_processes_and_threads_have_their_names() -> None:
    """With the labels of a process, and without what the profiler says of itself."""
    facts = [
        {"ph": "M", "name": "process_name", "pid": 7, "tid": 0, "args": {"name": "python"}},
        {"ph": "M", "name": "process_labels", "pid": 7, "tid": 0, "args": {"labels": "CPU"}},
        {"ph": "M", "name": "thread_name", **CPU, "args": {"name": "thread 7 (python)"}},
        {"ph": "i", "name": "Record Window End", "pid": "", "tid": "", "ts": 1e9, "s": "g"},
    ]
    own = span("PyTorch Profiler (0)", 0, 1e6, cat="Trace", pid="Spans", tid="PyTorch Profiler")
    found = profiled_step([*facts, own, span("aten::add", 5, 1), kernel("gemm", 6, 1)])
    assert dict(found.processes) == {"0": "0", "7": "python CPU"}
    assert found.threads == {Thread("0", "20"): "20", Thread("7", "7"): "thread 7 (python)"}


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ({}, "this is not a trace of torch.profiler"),
        ([1], "this is not a trace of torch.profiler"),
        ({"traceEvents": {}}, "this is not a trace of torch.profiler"),
        ({"traceEvents": []}, "this trace has no spans"),
        ([span("a", "soon", 1.0)], "ts: 'soon' where 'a' needs a time"),  # type: ignore[arg-type]
        ([span("a", float("nan"), 1.0)], "ts: nan where 'a' needs a time"),
        ([{"ph": "X", "name": "a", "ts": 1.0, **CPU}], "dur: nothing where 'a' needs a time"),
        ([span("a", 1.0, -1.0)], "dur: -1 us cannot be how long 'a' takes"),
        ([span("a", 1.0, 0.0)], "the last step of this trace takes no time"),
    ],
)
def test_what_is_no_trace_is_one_sentence(document: Any, sentence: str) -> None:
    """Which says what is needed."""
    with pytest.raises(InputError) as raised:
        profiled_step(document)
    assert sentence in str(raised.value)
