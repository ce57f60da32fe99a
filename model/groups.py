"""Which ranks work together: a mesh of data-parallel replicas of tensor-parallel groups, and their collectives.

Ranks of a tensor-parallel group are neighbours, as the forecast has it. Every call runs under the name of its operator; a group
of one calls nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from perfmodel.errors import InputError
from perfmodel.model.cores import on_all_cores
from perfmodel.model.operators import communication

# torch 2.13 renamed both and warns of the old names; the GPU machines' 2.11 has the old ones alone
_gather_into: Any = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_scatter_from: Any = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


@dataclass(frozen=True, slots=True)
class Group:
    """The ranks of one axis of the mesh, as one of them sees it."""

    ranks: int
    rank: int
    process_group: Any = None

    def all_reduce(self, tensor: torch.Tensor, name: str, phase: str, *, largest: bool = False) -> None:
        """Sum (or the largest) of `tensor` over the ranks, in place."""
        if self.ranks > 1:
            with communication(name, phase):
                dist.all_reduce(tensor, dist.ReduceOp.MAX if largest else dist.ReduceOp.SUM, group=self.process_group)

    def all_gather(self, shard: torch.Tensor, name: str, phase: str) -> torch.Tensor:
        """The shards of all ranks, one after the other along the first axis."""
        if self.ranks == 1:
            return shard
        with communication(name, phase):
            full = shard.new_empty(shard.shape[0] * self.ranks, *shard.shape[1:])
            _gather_into(full, shard.contiguous(), group=self.process_group)
            return full

    def reduce_scatter(self, full: torch.Tensor, name: str, phase: str) -> torch.Tensor:
        """This rank's share, along the first axis, of the sum over the ranks."""
        if self.ranks == 1:
            return full
        with communication(name, phase):
            shard = full.new_empty(full.shape[0] // self.ranks, *full.shape[1:])
            _scatter_from(shard, full.contiguous(), group=self.process_group)
            return shard

    def all_gather_in_place(self, full: torch.Tensor, name: str, phase: str) -> None:
        """Every rank's share of `full`, from the rank that has it."""
        if self.ranks > 1:
            with communication(name, phase):
                _gather_into(full, self.share(full), group=self.process_group)

    def reduce_scatter_in_place(self, full: torch.Tensor, name: str, phase: str) -> None:
        """This rank's share of `full` becomes the sum over the ranks; the rest of it is spent."""
        if self.ranks > 1:
            with communication(name, phase):
                _scatter_from(self.share(full), full, group=self.process_group)

    def share(self, full: torch.Tensor) -> torch.Tensor:
        """This rank's part of a tensor that is cut along its first axis."""
        length = full.shape[0] // self.ranks
        return full[self.rank * length : (self.rank + 1) * length]


@dataclass(frozen=True, slots=True)
class Groups:
    """The groups of this rank, and where its tensors lie."""

    device: torch.device
    tensor_parallel: Group
    data_parallel: Group
    world: Group
    mesh: DeviceMesh | None = None


def one_rank(device: str = "cpu") -> Groups:
    """A single process, which communicates with nobody."""
    alone = Group(1, 0)
    return Groups(torch.device(device), alone, alone, alone)


def make_groups(device: torch.device, *, tensor_parallel: int, data_parallel: int) -> Groups:
    """The groups of a process that torch.distributed has started.

    Errors: InputError when the number of processes is not that of the layout.
    """
    if dist.get_world_size() != tensor_parallel * data_parallel:
        raise InputError(
            f"the layout has {tensor_parallel * data_parallel} ranks (tensor_parallel {tensor_parallel} x data_parallel "
            f"{data_parallel}), not the {dist.get_world_size()} that were started; torchrun --nproc-per-node starts as many"
        )
    kind = device.type if device.type != "meta" else "cpu"
    with on_all_cores():
        mesh = init_device_mesh(kind, (data_parallel, tensor_parallel), mesh_dim_names=("data_parallel", "tensor_parallel"))
    return Groups(
        device=device,
        tensor_parallel=_group(mesh, "tensor_parallel"),
        data_parallel=_group(mesh, "data_parallel"),
        world=Group(dist.get_world_size(), dist.get_rank()),
        mesh=mesh,
    )


def _group(mesh: DeviceMesh, name: str) -> Group:
    axis = mesh[name]
    return Group(ranks=axis.size(), rank=axis.get_local_rank(), process_group=axis.get_group())
