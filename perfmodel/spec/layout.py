"""How a training iteration is laid out over GPUs: degrees, batch sizes, and the categories that change the operators.

Every numeric field may be an array; they broadcast. Layouts that cannot exist are refused by spec/run.py, which knows the
model and the cluster too.
"""

from __future__ import annotations

from dataclasses import dataclass

from perfmodel.spec.fields import Numeric, Spec, choice, count, flag
from perfmodel.spec.hardware import PRECISIONS

SHARDINGS = ("none", "zero1", "zero2", "zero3", "hsdp")
RECOMPUTES = ("none", "selective", "full")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Layout(Spec):
    """One layout, or many of them broadcast."""

    precision: str = choice(*PRECISIONS)
    tensor_parallel: Numeric = count()
    pipeline_parallel: Numeric = count(default=1)
    virtual_pipeline: Numeric = count(default=1)
    context_parallel: Numeric = count(default=1)
    data_parallel: Numeric = count()
    sequence_parallel: bool = flag()
    sharding: str = choice(*SHARDINGS)
    recompute: str = choice(*RECOMPUTES)
    micro_batch_size: Numeric = count()
    global_batch_size: Numeric = count()
    sequence_length: Numeric = count()

    @property
    def gpus(self) -> Numeric:
        """All GPUs of the run: the product of the degrees."""
        return self.tensor_parallel * self.pipeline_parallel * self.context_parallel * self.data_parallel

    @property
    def micro_batches(self) -> Numeric:
        """Micro-batches that each data-parallel replica runs in one iteration."""
        return self.global_batch_size / (self.micro_batch_size * self.data_parallel)

    @property
    def tokens_per_micro_batch(self) -> Numeric:
        """Tokens of one micro-batch, before any parallelism divides them."""
        return self.micro_batch_size * self.sequence_length

    @property
    def tokens_per_iteration(self) -> Numeric:
        """Tokens of one optimizer step over all replicas."""
        return self.global_batch_size * self.sequence_length

    @property
    def sequence_shards(self) -> Numeric:
        """How many GPUs of a tensor-parallel group share the tokens between its two halves of a layer."""
        return self.tensor_parallel if self.sequence_parallel else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessGroup:
    """Ranks that communicate, `stride` GPUs apart: the geometry that decides which links they cross."""

    name: str
    ranks: Numeric
    stride: Numeric


def tensor_parallel_group(layout: Layout) -> ProcessGroup:
    """Neighbouring GPUs."""
    return ProcessGroup(name="tensor_parallel", ranks=layout.tensor_parallel, stride=1)


def data_parallel_group(layout: Layout) -> ProcessGroup:
    """The GPUs that hold the same shard, one tensor- x context-parallel group apart."""
    stride = layout.tensor_parallel * layout.context_parallel
    return ProcessGroup(name="data_parallel", ranks=layout.data_parallel, stride=stride)


def world_group(layout: Layout) -> ProcessGroup:
    """All GPUs."""
    return ProcessGroup(name="world", ranks=layout.gpus, stride=1)
