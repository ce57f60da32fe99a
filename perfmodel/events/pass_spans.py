"""Where the operators of one pass lie in time: kernels one after the other, collectives on streams of their own beside them.

It lays out what timing/timed_operators.py adds up. With c the time of a collective, e what of it is exposed, K its product,
which lasts longer by what the collective takes from it:

    in chunks, before K    c begins e before K
    in chunks, after K     c ends e after K
    not in chunks          c begins with K, and ends e after it where it is longer
    no K                   nothing runs beside c

Where K runs in another pass (weight gradients of zero-bubble schedules; another micro-batch beside dispatch and combine), the
kernels after the collective run beside it; the next of them lasts longer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from perfmodel.count.operators import Collective
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.phases import WEIGHT_GRADIENT
from perfmodel.timing.timed_operators import TimedOperator


class OperatorSpan(NamedTuple):
    """One operator, from and until when after the start of its pass; a kernel lasts longer by `slowdown_s` than alone."""

    timed: TimedOperator
    start_s: float
    end_s: float
    slowdown_s: float = 0.0


class ExposedInterval(NamedTuple):
    """From and until when all kernels wait for a collective."""

    call: Collective
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LaidOutPass:
    """The operators of a block in one pass; their sums are those of timing/timed_operators.py."""

    operators: tuple[OperatorSpan, ...]
    waits: tuple[ExposedInterval, ...]
    duration_s: float

    @property
    def kernel_s(self) -> float:
        """How long kernels run, each alone."""
        return sum(float(span.timed.alone_s) for span in self.operators if not isinstance(span.timed.operator, Collective))


def weight_gradients(timed: Iterable[TimedOperator], *, wanted: bool) -> list[TimedOperator]:
    """The kernels that form weight gradients, or all the rest."""
    return [
        each
        for each in timed
        if (each.operator.phase == WEIGHT_GRADIENT and not isinstance(each.operator, Collective)) == wanted
    ]


def laid(timed: Sequence[TimedOperator], stretch: float = 1.0) -> LaidOutPass:
    """`timed` in their order; kernels last `stretch` times as long as alone, and as collectives beside them make them.

    >>> from perfmodel.count.operators import Matmul
    >>> from perfmodel.spec.layout import ProcessGroup
    >>> group = ProcessGroup(name="tensor_parallel", ranks=2, stride=1)
    >>> scatter = Collective(
    ...     name="scatter", kind="reduce_scatter", payload_bytes=1e6, group=group, partner=("fc2", "forward"), pipelined=True
    ... )
    >>> fc2 = TimedOperator(operator=Matmul(name="fc2", rows=1, columns=1, inner=1, precision="bf16"), free_s=4.0)
    >>> found = laid([fc2, TimedOperator(operator=scatter, free_s=2.0, hidden_s=1.0, sm_fraction=0.5)])
    >>> [(span.start_s, span.end_s) for span in found.operators], found.duration_s
    ([(0.0, 4.5), (3.5, 5.5)], 5.5)
    """
    laying = _ComputeStream(timed)
    for place, each in enumerate(timed):
        if not isinstance(each.operator, Collective):
            laying.kernel(place, each, stretch)
        elif place not in laying.partner:
            laying.alone(each)
    return LaidOutPass(operators=tuple(laying.spans), waits=tuple(laying.waits), duration_s=laying.clock_s)


class _ComputeStream:
    """The clock of the compute stream, and what has been laid."""

    def __init__(self, timed: Sequence[TimedOperator]) -> None:
        self.clock_s, self.spans, self.waits = 0.0, list[OperatorSpan](), list[ExposedInterval]()
        self.partner = _partners(timed)
        self.calls = {kernel: [at for at, of in self.partner.items() if of == kernel] for kernel in self.partner.values()}
        self.timed, self.slowdown_s = timed, _slowdowns(timed, self.partner)

    def kernel(self, place: int, each: TimedOperator, stretch: float) -> None:
        """One kernel, and the collectives beside it."""
        calls = [(self.timed[at], at < place) for at in self.calls.get(place, ())]
        before = [(call, self.clock_s, self.wait(call)) for call, is_before in calls if is_before and _in_chunks(call)]
        alone_s, begin_s = float(each.alone_s), self.clock_s
        self.clock_s = begin_s + alone_s * stretch + self.slowdown_s.get(place, 0.0)
        self.spans.append(OperatorSpan(each, begin_s, self.clock_s, max(self.clock_s - begin_s - alone_s, 0.0)))
        for call, start_s, _ in before:
            self.spans.append(OperatorSpan(call, start_s, min(start_s + float(call.alone_s), self.clock_s)))
        for call, is_before in calls:
            if not (is_before and _in_chunks(call)):
                self.after(call, begin_s)

    def after(self, call: TimedOperator, begin_s: float) -> None:
        """A collective that ends after the kernel beside it, which began at `begin_s`, or with it."""
        kernel_end_s, alone_s = self.clock_s, float(call.alone_s)
        end_s = self.wait(call)
        if _in_chunks(call):
            self.spans.append(OperatorSpan(call, max(end_s - alone_s, begin_s), end_s))
        else:
            self.spans.append(OperatorSpan(call, begin_s, end_s if end_s > kernel_end_s else min(begin_s + alone_s, end_s)))

    def alone(self, call: TimedOperator) -> None:
        """A collective with no kernel of this pass beside it."""
        start_s, end_s = self.clock_s, self.wait(call)
        self.spans.append(OperatorSpan(call, start_s, max(start_s + float(call.alone_s), end_s)))

    def wait(self, call: TimedOperator) -> float:
        """All kernels wait for what is exposed of a collective, until the time that is returned."""
        start_s = self.clock_s
        self.clock_s = start_s + float(call.exposed_s)
        if self.clock_s > start_s and isinstance(call.operator, Collective):
            self.waits.append(ExposedInterval(call.operator, start_s, self.clock_s))
        return self.clock_s


def _in_chunks(call: TimedOperator) -> bool:
    return isinstance(call.operator, Collective) and call.operator.pipelined


def _partners(timed: Sequence[TimedOperator]) -> dict[int, int]:
    """The places of collectives that are at least partly hidden, and those of the kernels beside them."""
    kernels = {
        (each.operator.name, each.operator.phase): place
        for place, each in enumerate(timed)
        if not isinstance(each.operator, Collective)
    }
    return {
        place: kernels[each.operator.partner]
        for place, each in enumerate(timed)
        if isinstance(each.operator, Collective) and each.exposed_s < each.alone_s and each.operator.partner in kernels
    }


def _slowdowns(timed: Sequence[TimedOperator], partner: dict[int, int]) -> dict[int, float]:
    """By how much collectives make the kernel at each place last longer."""
    kernels = [place for place, each in enumerate(timed) if not isinstance(each.operator, Collective)]
    found: dict[int, float] = {}
    for place, each in enumerate(timed):
        slowdown_s = float(each.slowdown_s)
        if slowdown_s > 0 and kernels:
            at = partner.get(place, next((kernel for kernel in kernels if kernel > place), kernels[-1]))
            found[at] = found.get(at, 0.0) + slowdown_s
    return found
