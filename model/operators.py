"""Which operator of the iteration runs now: names around the parts of a step, for whoever records them.

Every part of the model runs inside the name that the forecast gives it (`layer.mlp.fc1`). Without a recorder a name costs
nothing. With one, each change of operator leaves a mark: a time on a CPU, an event on the stream of a GPU. What lies between
two marks belongs to the operator that the first of them opened, or to none: the parts of a step and what lies between them add
up to the step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeAlias

import torch

from perfmodel.spec.phases import DATA_GRADIENT, FORWARD, RECOMPUTE

Label: TypeAlias = tuple[str, str]  # name, phase
BETWEEN: Final[Label] = ("", "")  # of what no operator stands for


class Recorder:
    """The marks of one step on one device."""

    def __init__(self, device: torch.device) -> None:
        self.on_gpu = device.type == "cuda"
        self.labels: list[Label] = [BETWEEN]  # of every execution of an operator, in the order in which they began
        self.marks: list[tuple[Any, int]] = []  # a time, and which execution goes on from there
        self.opened = [0]
        self.messages: dict[Label, bool] = {}  # labels of communication, and whether it is between pipeline stages
        self.recomputing = False

    def open(self, label: Label) -> None:
        """From here on the time is that of a new execution of `label`."""
        self.opened.append(len(self.labels))
        self.labels.append(label)
        self.mark()

    def close(self) -> None:
        """The execution that was opened last is over: the time is again that of the one around it."""
        self.opened.pop()
        self.mark()

    def mark(self) -> None:
        """The time from here on is that of the execution that was opened last."""
        if self.on_gpu:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.marks.append((event, self.opened[-1]))
        else:
            self.marks.append((time.perf_counter(), self.opened[-1]))

    def executions_s(self) -> dict[Label, list[float]]:
        """Times [s] of every execution of every label: all together they add up to the step. Reading waits for a GPU."""
        if self.on_gpu:
            torch.cuda.synchronize()
        seconds = [0.0] * len(self.labels)
        for (start, number), (end, _) in zip(self.marks[:-1], self.marks[1:], strict=True):
            seconds[number] += start.elapsed_time(end) / 1e3 if self.on_gpu else end - start
        found: dict[Label, list[float]] = {}
        for label, each in zip(self.labels, seconds, strict=True):
            found.setdefault(label, []).append(each)
        return found


_recorder: Recorder | None = None


@contextmanager
def recording(recorder: Recorder) -> Iterator[Recorder]:
    """The operators of what runs inside leave their marks in `recorder`."""
    global _recorder  # noqa: PLW0603 - autograd calls back from its own threads with no place for a context of ours
    _recorder = recorder
    recorder.mark()
    try:
        yield recorder
    finally:
        recorder.mark()
        _recorder = None


@contextmanager
def operator(name: str, phase: str = FORWARD) -> Iterator[None]:
    """What runs inside is the operator `name` in `phase`; a forward pass that is run again is recompute."""
    if _recorder is None:
        yield
        return
    _recorder.open((name, _phase(phase)))
    try:
        yield
    finally:
        _recorder.close()


@contextmanager
def communication(name: str, phase: str, *, across_stages: bool = False) -> Iterator[None]:
    """The same of what the ranks of a group tell each other, of one pipeline stage or across several."""
    with operator(name, phase):
        if _recorder:
            _recorder.messages[name, _phase(phase)] = across_stages
        yield


@contextmanager
def recomputing() -> Iterator[None]:
    """Forward operators inside run a second time."""
    before = _recorder.recomputing if _recorder else False
    if _recorder:
        _recorder.recomputing = True
    try:
        yield
    finally:
        if _recorder:
            _recorder.recomputing = before


def _phase(phase: str) -> str:
    return RECOMPUTE if phase == FORWARD and _recorder and _recorder.recomputing else phase


def named(name: str, function: Callable[..., Any], *tensors: torch.Tensor) -> Any:
    """function(*tensors) as the operator `name`, and what autograd makes of it as its data gradient."""
    if _recorder is None:
        return function(*tensors)
    entered = _Enter.apply(name, *tensors)
    outputs = function(*entered)
    several = isinstance(outputs, tuple)
    left = _Leave.apply(name, *(outputs if several else (outputs,)))
    return left if several else left[0]


class _Enter(torch.autograd.Function):
    """Opens the operator forwards, closes it backwards."""

    @staticmethod
    def forward(_: Any, name: str, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if _recorder:
            _recorder.open((name, _phase(FORWARD)))
        return tuple(tensor.view_as(tensor) for tensor in tensors)

    @staticmethod
    def backward(_: Any, *gradients: torch.Tensor) -> Any:
        if _recorder:
            _recorder.close()
        return None, *gradients


class _Leave(torch.autograd.Function):
    """Closes the operator forwards, opens it backwards."""

    @staticmethod
    def forward(context: Any, name: str, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        context.name = name
        if _recorder:
            _recorder.close()
        return tuple(tensor.view_as(tensor) for tensor in tensors)

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> Any:
        if _recorder:
            _recorder.open((context.name, DATA_GRADIENT))
        return None, *gradients
