"""How a training iteration is laid out over GPUs: degrees, batch sizes, and the categories that change the operators.

Every numeric field may be an array; they broadcast. Layouts that cannot exist are refused by spec/refusals.py, which knows the
model and the cluster too.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import numpy as np

from perfmodel.light_dataclass import dataclass, replace
from perfmodel.spec.arithmetic import single
from perfmodel.spec.axes import AXES, CONTEXT, DATA, EXPERT, EXPERT_TENSOR, MESH, OF_EXPERTS, PIPELINE, TENSOR, Axis
from perfmodel.spec.fields import Numeric, Spec, choice, choices, count, flag, number, text
from perfmodel.spec.precision import PRECISIONS, RECIPES, PrecisionRecipe

SHARDINGS = ("none", "zero1", "zero2", "zero3", "hsdp")
SHARDING_NAMES = {"fsdp": "zero3", "fsdp2": "zero3", "full_shard": "zero3", "hybrid_shard": "hsdp", "ddp": "none"} | {
    name.format(stage): f"zero{stage}" for stage in (1, 2, 3) for name in ("{}", "zero-{}", "zero_{}", "stage{}")
}
RECOMPUTES = ("none", "selective", "full")
RECOMPUTE_MODULES = ("core_attn", "layernorm", "mla_up_proj", "mlp", "moe", "moe_act", "shared_experts")
PIPELINE_SCHEDULES = ("1f1b", "zb-h1", "zb-1p", "zb-2p")  # 1f1b is interleaved where virtual_pipeline is more than 1
EVEN = "even"
GATHERED = ("zero3", "hsdp")  # shardings that hold only a shard of the parameters, and gather them when they are needed


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Layout(Spec):
    """One layout, or many of them broadcast.

    `data_parallel_replicas` is how many copies of the shards hsdp keeps: each is spread over data_parallel / replicas ranks.
    `recompute_modules` are those that a selective recompute runs again, where not what the software selects by itself;
    `recompute_layers` is how many layers of each pipeline stage are run again, where not all of them are. `expert_load` is how
    many tokens the busiest expert-parallel rank has, over their mean: 1 where routing is balanced. `pipeline_layout` places
    every layer on a piece of the pipeline, as Megatron-Core writes it: `Et*4|(tttt|)*14tmL`; `even` deals them out.
    """

    precision: str = choice(*PRECISIONS)
    tensor_parallel: Numeric = count()
    pipeline_parallel: Numeric = count(default=1)
    virtual_pipeline: Numeric = count(default=1)
    context_parallel: Numeric = count(default=1)
    data_parallel: Numeric = count()
    data_parallel_replicas: Numeric = count(default=1)
    expert_parallel: Numeric = count(default=1)
    expert_tensor_parallel: Numeric = count(default=1)
    expert_load: Numeric = number("ratio", minimum=1, maximum=100, default=1.0)
    pipeline_layout: str = text(default=EVEN)
    pipeline_schedule: str = choice(*PIPELINE_SCHEDULES, default="1f1b")
    sequence_parallel: bool = flag()
    sharding: str = choice(*SHARDINGS)
    recompute: str = choice(*RECOMPUTES)
    recompute_modules: tuple[str, ...] = choices(*RECOMPUTE_MODULES, default=())
    recompute_layers: Numeric | None = number("count", integer=True, optional=True, default=None)
    micro_batch_size: Numeric = count()
    global_batch_size: Numeric = count()
    sequence_length: Numeric = count()

    @property
    def busiest_load(self) -> Numeric:
        """Tokens of the busiest expert-parallel rank over their mean: no more than all ranks have together."""
        return np.minimum(self.expert_load, self.expert_parallel)

    @property
    def recipe(self) -> PrecisionRecipe:
        """What each part of a step is held and computed in."""
        return RECIPES[self.precision]

    @property
    def gpus(self) -> Numeric:
        """All GPUs of the run: the product of the degrees of one mesh."""
        return self.ranks_of(MESH)

    @property
    def expert_data_parallel(self) -> Numeric:
        """GPUs that hold the same experts: those of a pipeline stage over expert_parallel * expert_tensor_parallel."""
        return self.gpus / (self.pipeline_parallel * self.ranks_of(OF_EXPERTS))

    def degree(self, axis: Axis) -> Numeric:
        """How many ranks it has along `axis`."""
        degree: Numeric = getattr(self, axis.name)
        return degree

    def ranks_of(self, axes: Iterable[Axis]) -> Numeric:
        """The product of the degrees of some axes; 1 for none."""
        ranks: Numeric = 1
        for axis in axes:
            ranks = ranks * self.degree(axis)
        return ranks

    @cached_property
    def micro_batches(self) -> Numeric:
        """Micro-batches that each data-parallel replica runs in one iteration."""
        return self.global_batch_size / (self.micro_batch_size * self.data_parallel)

    @property
    def tokens_per_micro_batch(self) -> Numeric:
        """Tokens of one micro-batch on one GPU: its context-parallel share, before tensor parallelism divides them."""
        return self.micro_batch_size * self.sequence_length / self.context_parallel

    @property
    def tokens_per_iteration(self) -> Numeric:
        """Tokens of one optimizer step over all replicas."""
        return self.global_batch_size * self.sequence_length

    @property
    def weights_apart(self) -> bool:
        """Whether its schedule runs weight gradients apart from the rest of a backward pass, as zero-bubble ones do."""
        return self.pipeline_schedule != "1f1b"

    @property
    def sequence_shards(self) -> Numeric:
        """How many GPUs of a tensor-parallel group share the tokens between its two halves of a layer."""
        return self.tensor_parallel if self.sequence_parallel else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessGroup:
    """Ranks that communicate, `stride` GPUs apart: the geometry that decides which links they cross.

    `axis` is the one that its messages count to; None for a group of all GPUs.
    """

    name: str
    ranks: Numeric
    stride: Numeric
    axis: Axis | None = None


def axis_group(layout: Layout, axis: Axis) -> ProcessGroup:
    """The ranks of one axis and of those that it joins; the degrees of the axes inside these lie between two of them."""
    mesh = [each for each in AXES if each.mesh == axis.mesh]
    joined = [each for each in mesh if each is axis or each.name in axis.joins]
    inside = mesh[: mesh.index(joined[0])]
    return ProcessGroup(name=axis.name, ranks=layout.ranks_of(joined), stride=layout.ranks_of(inside), axis=axis)


def tensor_parallel_group(layout: Layout) -> ProcessGroup:
    """The group of tensor-parallel ranks: neighbouring GPUs."""
    return axis_group(layout, TENSOR)


def context_parallel_group(layout: Layout) -> ProcessGroup:
    """The GPUs that share the tokens of a sequence, one tensor-parallel group apart."""
    return axis_group(layout, CONTEXT)


def data_parallel_group(layout: Layout) -> ProcessGroup:
    """The GPUs that hold the same parameters: all replicas, and the context-parallel ranks of each."""
    return axis_group(layout, DATA)


def expert_parallel_group(layout: Layout) -> ProcessGroup:
    """The GPUs that share the experts of a layer, whichever replicas they belong to."""
    return axis_group(layout, EXPERT)


def expert_tensor_parallel_group(layout: Layout) -> ProcessGroup:
    """The GPUs that share each expert."""
    return axis_group(layout, EXPERT_TENSOR)


def expert_data_parallel_group(layout: Layout) -> ProcessGroup:
    """The GPUs that hold the same experts; their messages count to data parallelism."""
    return ProcessGroup(
        name="expert_data_parallel", ranks=layout.expert_data_parallel, stride=layout.ranks_of(OF_EXPERTS), axis=DATA
    )


def pipeline_parallel_group(layout: Layout) -> ProcessGroup:
    """The pipeline stages of one replica: the outermost axis."""
    return axis_group(layout, PIPELINE)


def shard_group(layout: Layout) -> ProcessGroup:
    """The part of the data-parallel group over which what is sharded is spread: all of it but for hsdp."""
    every = data_parallel_group(layout)
    return replace(every, name="data_parallel_shards", ranks=every.ranks / layout.data_parallel_replicas)


def replica_group(layout: Layout) -> ProcessGroup:
    """The GPUs that hold the same shard under hsdp."""
    shards = shard_group(layout)
    return ProcessGroup(
        name="data_parallel_replicas", ranks=layout.data_parallel_replicas, stride=shards.stride * shards.ranks, axis=DATA
    )


def vocabulary_group(layout: Layout, *, tied: bool) -> ProcessGroup:
    """The first and the last pipeline stage, where both hold a copy of tied embeddings; one rank where there is one copy."""
    ends = pipeline_parallel_group(layout)
    copies = np.where(np.asarray(layout.pipeline_parallel) > 1, 2, 1) if tied else 1
    stride = ends.stride * np.maximum(layout.pipeline_parallel - 1, 1)
    return ProcessGroup(name="vocabulary", ranks=copies, stride=stride, axis=PIPELINE)


def world_group(layout: Layout) -> ProcessGroup:
    """The group of all GPUs of a run."""
    return ProcessGroup(name="world", ranks=single(layout.gpus), stride=1)
