"""Which ranks work together: a mesh of data-parallel replicas of tensor-parallel groups, one of experts, and their collectives.

Ranks of a tensor-parallel group are neighbours, and so are those of an expert-parallel group, whichever replicas they belong
to, as the forecast has it. Every call runs under the name of its operator; a group of one calls nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from perfmodel.errors import InputError
from perfmodel.model.cores import on_all_cores
from perfmodel.model.operators import communication
from perfmodel.spec.layout import Layout
from perfmodel.spec.model import TransformerModel

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

    def all_to_all(
        self, rows: torch.Tensor, send: Sequence[int], receive: Sequence[int], name: str, phase: str
    ) -> torch.Tensor:
        """Rows for each rank, `send` of them, changed for those that each has for this one, `receive` of them."""
        if self.ranks == 1:
            return rows
        with communication(name, phase):
            received = rows.new_empty(sum(receive), *rows.shape[1:])
            dist.all_to_all_single(received, rows.contiguous(), list(receive), list(send), group=self.process_group)
            return received

    def share(self, full: torch.Tensor) -> torch.Tensor:
        """This rank's part of a tensor that is cut along its first axis."""
        length = full.shape[0] // self.ranks
        return full[self.rank * length : (self.rank + 1) * length]


@dataclass(frozen=True, slots=True)
class Groups:
    """The groups of this rank, and where its tensors lie: those that share tokens, and those that share experts."""

    device: torch.device
    tensor_parallel: Group
    data_parallel: Group
    expert_parallel: Group
    expert_data_parallel: Group
    world: Group
    mesh: DeviceMesh | None = None
    expert_mesh: DeviceMesh | None = None


def one_rank(device: str = "cpu") -> Groups:
    """A single process, which communicates with nobody."""
    alone = Group(1, 0)
    return Groups(torch.device(device), alone, alone, alone, alone, alone)


def make_groups(device: torch.device, model: TransformerModel, layout: Layout) -> Groups:
    """The groups of a process that torch.distributed has started.

    Errors: InputError when the number of processes is not that of the layout.
    """
    tensor, data = int(layout.tensor_parallel), int(layout.data_parallel)
    _check_number(layout)
    mesh = _mesh(device, data_parallel=data, tensor_parallel=tensor)
    experts = None
    if model.mixture is not None:
        sharing = int(layout.expert_parallel)
        experts = _mesh(device, expert_data_parallel=tensor * data // sharing, expert_parallel=sharing)
    alone = Group(1, 0)
    return Groups(
        device=device,
        tensor_parallel=_group(mesh, "tensor_parallel"),
        data_parallel=_group(mesh, "data_parallel"),
        expert_parallel=_group(experts, "expert_parallel") if experts else alone,
        expert_data_parallel=_group(experts, "expert_data_parallel") if experts else alone,
        world=Group(dist.get_world_size(), dist.get_rank()),
        mesh=mesh,
        expert_mesh=experts,
    )


def _check_number(layout: Layout) -> None:
    if dist.get_world_size() != layout.gpus:
        raise InputError(
            f"the layout has {layout.gpus:g} ranks (tensor_parallel {layout.tensor_parallel:g} x data_parallel "
            f"{layout.data_parallel:g}), not the {dist.get_world_size()} that were started; torchrun --nproc-per-node starts "
            "as many"
        )


def _mesh(device: torch.device, **degrees: int) -> DeviceMesh:
    """From the outermost axis to the innermost."""
    kind = device.type if device.type != "meta" else "cpu"
    with on_all_cores():
        return init_device_mesh(kind, tuple(degrees.values()), mesh_dim_names=tuple(degrees))


def _group(mesh: DeviceMesh, name: str) -> Group:
    axis = mesh[name]
    return Group(ranks=axis.size(), rank=axis.get_local_rank(), process_group=axis.get_group())
