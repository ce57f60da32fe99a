"""Which ranks work together: a mesh of pipeline stages of data-parallel replicas of tensor-parallel groups, one of experts.

Ranks of a tensor-parallel group are neighbours, and so are those of an expert-parallel group, whichever replicas of a pipeline
stage they belong to; stages are the outermost, as the forecast has it. Every collective runs under the name of its operator; a
group of one calls nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from perfmodel.errors import InputError
from perfmodel.model.cores import on_all_cores
from perfmodel.model.operators import communication
from perfmodel.spec.axes import DATA, EXPERT, MESH, PIPELINE, TENSOR
from perfmodel.spec.layout import Layout
from perfmodel.spec.models.model import TransformerModel

# torch 2.13 renamed both and warns of the old names; the GPU machines' 2.11 has the old ones alone
_gather_into: Any = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_scatter_from: Any = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


@dataclass(frozen=True, slots=True)
class Group:
    """The ranks of one axis of the mesh, as one of them sees it; those of several pipeline stages are `across_stages`."""

    ranks: int
    rank: int
    process_group: Any = None
    across_stages: bool = False

    def all_reduce(self, tensor: torch.Tensor, name: str, phase: str, *, largest: bool = False) -> None:
        """Sum (or the largest) of `tensor` over the ranks, in place."""
        if self.ranks > 1:
            with communication(name, phase, across_stages=self.across_stages):
                dist.all_reduce(tensor, dist.ReduceOp.MAX if largest else dist.ReduceOp.SUM, group=self.process_group)

    def all_gather(self, shard: torch.Tensor, name: str, phase: str) -> torch.Tensor:
        """The shards of all ranks, one after the other along the first axis."""
        if self.ranks == 1:
            return shard
        with communication(name, phase, across_stages=self.across_stages):
            full = shard.new_empty(shard.shape[0] * self.ranks, *shard.shape[1:])
            _gather_into(full, shard.contiguous(), group=self.process_group)
            return full

    def reduce_scatter(self, full: torch.Tensor, name: str, phase: str) -> torch.Tensor:
        """This rank's share, along the first axis, of the sum over the ranks."""
        if self.ranks == 1:
            return full
        with communication(name, phase, across_stages=self.across_stages):
            shard = full.new_empty(full.shape[0] // self.ranks, *full.shape[1:])
            _scatter_from(shard, full.contiguous(), group=self.process_group)
            return shard

    def all_gather_in_place(self, full: torch.Tensor, name: str, phase: str) -> None:
        """Every rank's share of `full`, from the rank that has it."""
        if self.ranks > 1:
            with communication(name, phase, across_stages=self.across_stages):
                _gather_into(full, self.share(full), group=self.process_group)

    def reduce_scatter_in_place(self, full: torch.Tensor, name: str, phase: str) -> None:
        """This rank's share of `full` becomes the sum over the ranks; the rest of it is spent."""
        if self.ranks > 1:
            with communication(name, phase, across_stages=self.across_stages):
                _scatter_from(self.share(full), full, group=self.process_group)

    def all_to_all(
        self, rows: torch.Tensor, send: Sequence[int], receive: Sequence[int], name: str, phase: str
    ) -> torch.Tensor:
        """Exchange rows: send[i] of them go to rank i, and receive[i] come from it."""
        if self.ranks == 1:
            return rows
        with communication(name, phase, across_stages=self.across_stages):
            received = rows.new_empty(sum(receive), *rows.shape[1:])
            dist.all_to_all_single(received, rows.contiguous(), list(receive), list(send), group=self.process_group)
            return received

    def share(self, full: torch.Tensor) -> torch.Tensor:
        """This rank's part of a tensor that is cut along its first axis."""
        length = full.shape[0] // self.ranks
        return full[self.rank * length : (self.rank + 1) * length]


ALONE: Final = Group(1, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """The groups of this rank, and where its tensors lie: those that share tokens, and those that share experts.

    Activations and their gradients go through groups of their own, both of the stages of one pipeline. `vocabulary` are its
    ends, which hold copies of tied embeddings; one rank elsewhere.
    """

    device: torch.device
    tensor_parallel: Group = ALONE
    data_parallel: Group = ALONE
    expert_parallel: Group = ALONE
    expert_data_parallel: Group = ALONE
    pipeline_parallel: Group = ALONE
    pipeline_gradients: Group = ALONE
    vocabulary: Group = ALONE
    world: Group = ALONE
    mesh: DeviceMesh | None = None
    expert_mesh: DeviceMesh | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterSharing:
    """How ranks share some of the parameters of a pipeline stage: the axis that cuts them, and the one that holds them alike.

    `mark` ends the names of what the optimizer does with them.
    """

    cut_by: str
    held_alike_by: str
    of_experts: bool = False
    mark: str = ""

    def shards(self, groups: Groups) -> Group:
        """The ranks among which they are cut."""
        group: Group = getattr(groups, self.cut_by)
        return group

    def replicas(self, groups: Groups) -> Group:
        """The ranks that hold them alike."""
        group: Group = getattr(groups, self.held_alike_by)
        return group

    def owners(self, groups: Groups) -> DeviceMesh | None:
        """Those ranks as an axis of their mesh; None in a single process."""
        mesh = groups.expert_mesh if self.of_experts else groups.mesh
        return None if mesh is None else mesh[self.held_alike_by]


DENSE: Final = ParameterSharing(cut_by=TENSOR.name, held_alike_by=DATA.name)
OF_EXPERTS: Final = ParameterSharing(
    cut_by=EXPERT.name, held_alike_by=f"expert_{DATA.name}", of_experts=True, mark="_of_experts"
)


def one_rank(device: str = "cpu") -> Groups:
    """A single process, which communicates with nobody."""
    return Groups(device=torch.device(device))


def make_groups(device: torch.device, model: TransformerModel, layout: Layout) -> Groups:
    """The groups of a process that torch.distributed has started.

    Errors: InputError when the number of processes is not that of the layout.
    """
    tensor, data, stages = (int(each) for each in (layout.tensor_parallel, layout.data_parallel, layout.pipeline_parallel))
    _check_number(layout)
    outer = {PIPELINE.name: stages} if stages > 1 else {}
    mesh = _mesh(device, **outer, data_parallel=data, tensor_parallel=tensor)
    groups = Groups(
        device=device,
        tensor_parallel=_group(mesh, TENSOR.name),
        data_parallel=_group(mesh, DATA.name),
        world=Group(dist.get_world_size(), dist.get_rank(), across_stages=stages > 1),
        mesh=mesh,
    )
    if model.mixture is not None:
        sharing = int(layout.expert_parallel)
        experts = _mesh(device, **outer, expert_data_parallel=tensor * data // sharing, expert_parallel=sharing)
        of_experts = {name: _group(experts, name) for name in ("expert_parallel", "expert_data_parallel")}
        groups = replace(groups, **of_experts, expert_mesh=experts)
    return _in_pipelines(groups, model, stages) if stages > 1 else groups


def _in_pipelines(groups: Groups, model: TransformerModel, stages: int) -> Groups:
    """With the groups of pipelines: ranks of one are as many apart as a stage has."""
    stride = groups.world.ranks // stages
    pipelines = [list(range(first, groups.world.ranks, stride)) for first in range(stride)]
    activations, gradients = (_of_ranks(pipelines, groups) for _ in range(2))
    vocabulary = _of_ranks([[each[0], each[-1]] for each in pipelines], groups) if model.tied_embeddings else ALONE
    return replace(groups, pipeline_parallel=activations, pipeline_gradients=gradients, vocabulary=vocabulary)


def _of_ranks(every: list[list[int]], groups: Groups) -> Group:
    """The one among groups of ranks that this rank is in; it is made by all ranks, and all of its ranks join it here.

    NCCL wants that before two of them exchange messages, and gloo starts its threads then.
    """
    with on_all_cores():
        found, _ = dist.new_subgroups_by_enumeration(every)
        if found is None:
            return ALONE
        if groups.device.type != "meta":
            dist.all_reduce(torch.ones(1, device=groups.device), group=found)
    return Group(ranks=found.size(), rank=found.rank(), process_group=found, across_stages=True)


def _check_number(layout: Layout) -> None:
    if dist.get_world_size() != layout.gpus:
        degrees = [f"{axis.name} {layout.degree(axis):g}" for axis in MESH if axis in (TENSOR, DATA) or layout.degree(axis) > 1]
        raise InputError(
            f"the layout has {layout.gpus:g} ranks ({' x '.join(degrees)}), not the {dist.get_world_size()} that were started; "
            "torchrun --nproc-per-node starts as many"
        )


def _mesh(device: torch.device, **degrees: int) -> DeviceMesh:
    """From the outermost axis to the innermost."""
    kind = device.type if device.type != "meta" else "cpu"
    with on_all_cores():
        return init_device_mesh(kind, tuple(degrees.values()), mesh_dim_names=tuple(degrees))


def _group(mesh: DeviceMesh, name: str) -> Group:
    axis = mesh[name]
    return Group(ranks=axis.size(), rank=axis.get_local_rank(), process_group=axis.get_group())
