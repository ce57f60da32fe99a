"""What a plan is asked: a model, a cluster to rent, a ramp of batch sizes, what may be chosen, and what it may take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any, Final

from perfmodel.light_dataclass import dataclass
from perfmodel.search.layouts.space import SearchSpace, Workload
from perfmodel.spec.economics import Economics
from perfmodel.spec.machines.hardware import Cluster
from perfmodel.spec.models.model import TransformerModel, divisors
from perfmodel.spec.stack import SoftwareStack

USUAL_CONFIDENCE: Final = 0.9  # with which a deadline and a budget are met where nobody says
ROUNDED_BY: Final = 0.15  # the largest relative change of a batch that is rounded
GROUP: Final = 8  # GPUs: a node, or as many of a larger one as tensor parallelism often takes
USUAL_TOKENS: Final = 4 * 2**20  # of an iteration where nobody says: Llama 2 (arXiv:2307.09288) and Llama 3 began with 4M


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRequest:
    """A ramp stage to be planned: its batch, its tokens (None: not known), and its GPUs where it has a number of its own.

    `rounded` says that nobody asked for this very batch: one near it that divides evenly over the GPUs serves as well.
    """

    global_batch_size: int
    tokens: float | None
    gpus: int | None = None
    rounded: bool = False

    def batch(self, groups: int) -> int:
        """The global batch on this many groups of GPUs: where it may be rounded, a multiple of 8, 4, 2 or 1 times the groups.

        >>> [StageRequest(global_batch_size=1024, tokens=None, rounded=True).batch(groups) for groups in (21, 384, 4096)]
        [1008, 1152, 1024]
        """
        size = self.global_batch_size
        if not self.rounded:
            return size
        units = [8 * groups, 4 * groups, 2 * groups, *(groups // share for share in divisors(groups))]
        near = (max(round(size / unit), 1) * unit for unit in units)
        return next(batch for batch in near if abs(batch / size - 1) <= ROUNDED_BY or batch == size)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanQuestion:
    """What a plan is asked; `deadline_s` and `budget_dollars` are None where there is no such limit.

    `confidence` is the probability with which a plan has to meet each of them.
    """

    model: TransformerModel
    cluster: Cluster
    stack: SoftwareStack
    sequence_length: int
    stages: tuple[StageRequest, ...]
    space: SearchSpace
    terms: Economics
    deadline_s: float | None = None
    budget_dollars: float | None = None
    confidence: float = USUAL_CONFIDENCE
    expert_load: float = 1.0  # tokens of the busiest rank over their mean
    leave_free: float = 0.0  # share of each GPU's memory that no layout may use; the cluster is without it
    assumptions: tuple[str, ...] = ()
    names: Mapping[str, Any] = field(default_factory=dict)  # model, cluster and stack as a run file has them

    def workloads(self, gpus: int) -> tuple[Workload, ...]:
        """The workload of each ramp stage, on `gpus` where the stage has no number of its own."""
        return tuple(self._workload(stage, stage.gpus or gpus) for stage in self.stages)

    def iterations(self, workloads: tuple[Workload, ...]) -> tuple[float, ...]:
        """How many iterations each ramp stage takes; 0 where its tokens are not known."""
        return tuple(
            (stage.tokens or 0.0) / (work.global_batch_size * work.sequence_length)
            for stage, work in zip(self.stages, workloads, strict=True)
        )

    @property
    def has_tokens(self) -> bool:
        """Whether the tokens of every ramp stage are known."""
        return all(stage.tokens is not None for stage in self.stages)

    def _workload(self, stage: StageRequest, gpus: int) -> Workload:
        return Workload(
            model=self.model,
            cluster=self.cluster,
            stack=self.stack,
            gpus=gpus,
            global_batch_size=stage.batch(max(gpus // min(int(self.cluster.gpus_per_node), GROUP), 1)),
            sequence_length=self.sequence_length,
            expert_load=self.expert_load,
        )


def usual_batch_size(sequence_length: int) -> int:
    """The number of sequences of this length that have about 4M tokens together.

    >>> usual_batch_size(4096)
    1024
    """
    return max(round(USUAL_TOKENS / sequence_length), 1)
