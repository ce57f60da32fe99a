"""How much memory a step needs at its peak, as torch's own allocator sees it: on GPUs its statistics, on CPUs its profiler."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from perfmodel.model.training.trainer import Trainer

LOGITS: Final = "perfmodel.logits_begin"


def step_memory_bytes(trainer: Trainer, step: Callable[[], object]) -> tuple[int, int]:
    """Bytes beyond those held between steps: when the logits begin, and at the peak of `step`.

    Of a pipeline stage that forms no logits both are the peak.
    """
    if trainer.groups.device.type == "cuda":
        return _on_gpu(trainer, step)
    return _on_cpu(trainer, step)


def allocated_bytes(work: Callable[[], object], device: str) -> int:
    """What `work` takes of the allocator at its peak, its result among it."""
    if device == "cuda":
        torch.cuda.synchronize()
        held = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        return int(torch.cuda.max_memory_allocated() - held)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        work()
    return _highest(_changes(profiled), [])[1]


def _on_gpu(trainer: Trainer, step: Callable[[], object]) -> tuple[int, int]:
    held = torch.cuda.memory_allocated()
    begun: list[int] = []
    torch.cuda.reset_peak_memory_stats()
    with _before_logits(trainer, lambda: begun.append(torch.cuda.memory_allocated())):
        step()
    peak = torch.cuda.max_memory_allocated()
    return max(begun, default=peak) - held, peak - held


@contextmanager
def _before_logits(trainer: Trainer, action: Callable[[], object]) -> Iterator[None]:
    """Inside, `action` runs before each logits; a pipeline stage without the head has none."""
    head = trainer.model.head
    handle = None if head is None else head.register_forward_pre_hook(lambda *_: action() and None)
    try:
        yield
    finally:
        if handle is not None:
            handle.remove()


def _on_cpu(trainer: Trainer, step: Callable[[], object]) -> tuple[int, int]:
    """The profiler reports every block that is taken or given back, with its size and its time."""

    def mark() -> None:
        with record_function(LOGITS):
            pass

    with _before_logits(trainer, mark), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        step()
    events = profiled.profiler.kineto_results.events()
    marks = sorted(event.start_ns() for event in events if event.name() == LOGITS)
    at_mark, peak = _highest(_changes(profiled), marks)
    return at_mark if marks else peak, peak


def _changes(profiled: profile) -> list[tuple[int, int]]:
    """When [ns] how many bytes were taken, or given back (negative)."""
    events = profiled.profiler.kineto_results.events()
    return sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")


def _highest(changes: list[tuple[int, int]], marks: list[int]) -> tuple[int, int]:
    """What was taken at the marks, the most of them, and the most at any time."""
    held = peak = at_mark = 0
    waiting = list(marks)
    for when, size in changes:
        while waiting and waiting[0] <= when:
            at_mark, _ = max(at_mark, held), waiting.pop(0)
        held += size
        peak = max(peak, held)
    return at_mark, peak
