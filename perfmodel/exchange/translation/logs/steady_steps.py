"""Which steps of a log are steady, and what they say together: the median, and between which times nine of ten lie.

Left out and counted are the first steps of every start, the step that follows an evaluation or a checkpoint, steps of batches
before the last one, and what other ranks print of a step. However long a log is, a bounded number of its steps is kept.
"""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import field
from typing import Final

from perfmodel.exchange.translation.logs.log_records import LogRecord
from perfmodel.light_dataclass import dataclass

WARM_UP: Final = 10  # iterations of a start, of which at most a third of the lines
MOST_WARM_UP_LINES: Final = 10
KEPT: Final = 1 << 16  # numbers of each kind; of more, every second, fourth and so on is kept
LONGEST_S: Final = 1e6  # of an iteration: eleven days
MOST_A_SECOND: Final = 1e12  # tokens, sequences, TFLOP
MOST_BYTES: Final = 1e14  # of a GPU
MOST_COUNTED: Final = 1e15  # iterations, and sequences of a batch
INTERVAL: Final = (0.05, 0.95)
WARMING, EVALUATED, SAVED = "warm_up", "evaluations", "checkpoints"  # why a step is left out
RANKS, BATCHES, BROKEN = "other_ranks", "other_batches", "broken_lines"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one line of a log says of the steps since the last one; None for what it does not."""

    iteration: int | None = None
    time_s: float | None = None
    tokens_per_s_per_gpu: float | None = None
    samples_per_s: float | None = None
    tflop_per_s_per_gpu: float | None = None
    batch: int | None = None
    rank: str = ""


class Numbers:
    """Numbers of which at most KEPT are kept, evenly over all of them."""

    def __init__(self) -> None:
        self.kept, self.stride, self.seen = array("d"), 1, 0

    def add(self, value: float) -> None:
        """Take one more number."""
        if self.seen % self.stride == 0:
            self.kept.append(value)
            if len(self.kept) > KEPT:
                self.kept, self.stride = self.kept[::2], 2 * self.stride
        self.seen += 1

    def at(self, share: float) -> float | None:
        """The number that this share of all lies below, between two neighbours in proportion; None where there is none."""
        ordered = sorted(self.kept)
        if not ordered:
            return None
        place = share * (len(ordered) - 1)
        low = int(place)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


@dataclass(slots=True)
class _Kept:
    """The numbers of the steady steps of one batch size."""

    times: Numbers = field(default_factory=Numbers)
    tokens: Numbers = field(default_factory=Numbers)
    samples: Numbers = field(default_factory=Numbers)
    flops: Numbers = field(default_factory=Numbers)
    steps: int = 0

    def add(self, step: Step) -> None:
        self.steps += 1
        for numbers, value in (
            (self.times, step.time_s),
            (self.tokens, step.tokens_per_s_per_gpu),
            (self.samples, step.samples_per_s),
            (self.flops, step.tflop_per_s_per_gpu),
        ):
            if value is not None:
                numbers.add(value)


class SteadySteps:
    """Takes the steps of a log in their order, and keeps what is steady."""

    def __init__(self) -> None:
        self.left_out: Counter[str] = Counter()
        self.restarts = 0
        self.memory_bytes: dict[str, float] = {}  # the most of each kind
        self._kept = _Kept()
        self._start: list[tuple[Step, str]] = []  # the first lines of a start, and why one is left out
        self._is_warm = False
        self._last: Step | None = None
        self._interruption = ""
        self._stated_batch: int | None = None
        self._iterations, self._times = Numbers(), Numbers()  # of all lines, steady or not

    @property
    def is_empty(self) -> bool:
        """Whether there was no step yet."""
        return self._last is None

    @property
    def memory_kind(self) -> str:
        """Whether the most memory is what tensors took, or what the allocator reserved; empty where none is printed."""
        return next((each for each in ("allocated", "reserved") if each in self.memory_bytes), "")

    @property
    def most_memory(self) -> float | None:
        """The most memory [bytes] that a GPU held."""
        return self.memory_bytes.get(self.memory_kind)

    def interrupted(self, reason: str) -> None:
        """The next step waited for an evaluation or a checkpoint."""
        if self._last is not None and not self._interruption:
            self._interruption = reason

    def broken(self) -> None:
        """A line of a step could not be read."""
        self.left_out[BROKEN] += 1

    def holds(self, kind: str, size_bytes: float) -> None:
        """Memory of one kind was held; a number that no GPU has says nothing."""
        if 0.0 < size_bytes < MOST_BYTES:
            self.memory_bytes[kind] = max(size_bytes, self.memory_bytes.get(kind, 0.0))

    def state_batch(self, batch: int) -> None:
        """The batch of all steps, where the head of a log states it and no line does."""
        self._stated_batch = batch

    def is_anothers(self, rank: str, iteration: int) -> bool:
        """Whether a line is what another rank prints of a step that is known."""
        last = self._last
        return last is not None and last.iteration is not None and iteration <= last.iteration and rank != last.rank

    def of_another_rank(self) -> None:
        """A line of a step that is known was left out."""
        self.left_out[RANKS] += 1

    def add(self, step: Step) -> None:
        """Take the next step; one with a number that no step has is a broken line."""
        rates = (step.tokens_per_s_per_gpu, step.samples_per_s, step.tflop_per_s_per_gpu)
        is_sound = 0.0 <= (step.time_s or 0.0) < LONGEST_S and all(0.0 <= (rate or 0.0) < MOST_A_SECOND for rate in rates)
        if not is_sound or max(step.iteration or 0, step.batch or 0) > MOST_COUNTED:
            self.broken()
            return
        last = self._last
        if last is not None and step.iteration is not None and last.iteration is not None and step.iteration <= last.iteration:
            if step.rank != last.rank or step.iteration == last.iteration:
                self.left_out[RANKS] += 1
                return
            self._end_start()
            self.restarts += 1
            self._is_warm = False
        if last is not None and step.batch is not None and last.batch is not None and step.batch != last.batch:
            self._end_start()
            self.left_out[BATCHES] += self._kept.steps
            self._kept, self._is_warm = _Kept(), True
        self._last = step
        if step.iteration is not None and step.time_s is not None:
            self._iterations.add(step.iteration)
            self._times.add(step.time_s)
        reason, self._interruption = self._interruption, ""
        if self._is_warm:
            self._take(step, reason)
            return
        self._start.append((step, reason))
        if len(self._start) >= 3 * MOST_WARM_UP_LINES:
            self._end_start()

    def _end_start(self) -> None:
        """Decide which lines of a start are its warm-up: those of its first iterations, at most a third of all."""
        most = max(len(self._start) // 3, min(len(self._start) - 1, 1))
        first = self._start[0][0].iteration if self._start else None
        for place, (step, reason) in enumerate(self._start):
            is_early = place == 0 or first is None or (step.iteration or 0) <= first + WARM_UP
            self._take(step, WARMING if place < min(most, MOST_WARM_UP_LINES) and is_early else reason)
        self._start, self._is_warm = [], True

    def _take(self, step: Step, reason: str) -> None:
        if reason:
            self.left_out[reason] += 1
        else:
            self._kept.add(step)

    def record(
        self,
        *,
        convention: str = "unknown",
        sequence_length: int | None = None,
        gpus: int | None = None,
        notes: tuple[str, ...] = (),
    ) -> LogRecord | None:
        """What the steps say together; None where there was none."""
        self._end_start()
        if self._last is None:
            return None
        kept, batch = self._kept, self._last.batch or self._stated_batch
        time_s, tokens = kept.times.at(0.5), kept.tokens.at(0.5)
        ends = tuple(kept.times.at(share) for share in INTERVAL)
        work = float(batch) * float(sequence_length) / float(gpus) if batch and sequence_length and gpus else None
        if time_s is None and tokens and work:
            time_s, ends = work / tokens, tuple(_over(work, kept.tokens.at(1.0 - share)) for share in INTERVAL)
        if tokens is None and time_s and work:
            tokens = work / time_s
        return LogRecord(
            iteration_time_s=time_s,
            interval_s=None if time_s is None or None in ends else (float(ends[0] or 0), float(ends[1] or 0)),
            steps=kept.steps,
            tokens_per_s_per_gpu=tokens,
            samples_per_s=kept.samples.at(0.5),
            memory_bytes=self.most_memory,
            memory_kind=self.memory_kind,
            printed_tflop_per_s_per_gpu=kept.flops.at(0.5),
            tflop_convention=convention,
            global_batch_size=batch,
            gpus=gpus,
            left_out=dict(self.left_out),
            restarts=self.restarts,
            series=tuple(zip(self._iterations.kept, self._times.kept, strict=True)),
            notes=notes,
        )


def _over(work: float, rate: float | None) -> float | None:
    return work / rate if rate else None
