"""Which layout for which stage of a ramp: the fastest chain of them, with what it takes to change from one to the next.

Layouts that differ need another start of the job: a checkpoint is written, the job starts anew, the checkpoint is read under
the new layout. Where only the batch grows, nothing stops. The chain of least time is found stage by stage (dynamic programming
over the fastest layouts of each).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from perfmodel.light_dataclass import dataclass
from perfmodel.search.layouts.search import LayoutCandidate


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutChain:
    """A layout for each ramp stage, the seconds they train, and how often the job starts anew between stages."""

    layouts: tuple[LayoutCandidate, ...]
    training_s: float
    switches: int

    def total_s(self, switch_s: float) -> float:
        """Seconds of training and of all changes of layout, each of which takes `switch_s`."""
        return self.training_s + self.switches * switch_s


def fastest_chain(stages: Sequence[Sequence[LayoutCandidate]], iterations: Sequence[float], *, switch_s: float) -> LayoutChain:
    """The chain of one candidate a ramp stage with the least training_s + switches * switch_s.

    >>> one, other = (LayoutCandidate(settings={"tensor_parallel": t}, iteration_time_s=t, memory_bytes=1.0) for t in (1, 2))
    >>> fastest_chain([[one], [other, one]], [10, 10], switch_s=5.0).switches
    0
    """
    chains = {
        _key(each): LayoutChain(layouts=(each,), training_s=each.iteration_time_s * iterations[0], switches=0)
        for each in stages[0]
    }
    for candidates, number in zip(stages[1:], iterations[1:], strict=True):
        before, longer = chains, {}
        best = min(before.values(), key=lambda chain: chain.total_s(switch_s))
        for each in candidates:
            same = before.get(_key(each))
            changes = same is None or same.total_s(switch_s) > best.total_s(switch_s) + switch_s
            chain = best if changes or same is None else same
            longer[_key(each)] = LayoutChain(
                layouts=(*chain.layouts, each),
                training_s=chain.training_s + each.iteration_time_s * number,
                switches=chain.switches + changes,
            )
        chains = longer
    return min(chains.values(), key=lambda chain: (chain.total_s(switch_s), chain.layouts[-1].iteration_time_s))


def _key(candidate: LayoutCandidate) -> tuple[tuple[str, Any], ...]:
    """The settings that make two layouts differ; the global batch is not among them."""
    return tuple(sorted((name, value) for name, value in candidate.settings.items() if name != "global_batch_size"))
