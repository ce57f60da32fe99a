"""The distributed optimizer: buffers of parameters and gradients, and each rank steps its share of those that it holds.

Dense parameters are shared by the data-parallel ranks, experts by the ranks that hold the same ones. (ZeRO stage 1,
arXiv:1910.02054; as Megatron-Core does it.)

FSDP2 is not used here: it gathers fp32 shards layer by layer, which is another layout (zero3) with other counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch

from perfmodel.model.groups import ALONE, DENSE, OF_EXPERTS, ParameterSharing
from perfmodel.model.operators import operator
from perfmodel.model.supported import DTYPES
from perfmodel.model.training.buffers import SharedBuffer
from perfmodel.model.transformer import Transformer
from perfmodel.spec.phases import OPTIMIZER

LARGEST_NORM: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """AdamW's settings."""

    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1


class DistributedAdamW:
    """Steps the parameters of a model; lays its buffers under them first."""

    def __init__(self, model: Transformer, recipe: Recipe) -> None:
        layout, self.groups = model.layout, model.groups
        self.sums_norms = layout.sequence_parallel and self.groups.tensor_parallel.ranks > 1
        self.averaged_over = float(layout.micro_batches * self.groups.data_parallel.ranks)
        self.tunes = model.tuning is not None
        self.called = "adam" if model.tuning is None else model.tuning.optimizer
        self.buffers = _buffers(model)
        self.frozen = _frozen(model)
        self.of_model = _lay_under(model, list(self.buffers.values()), self.frozen)
        self.vocabulary_copy = model.vocabulary_copy
        self.adam = torch.optim.AdamW(
            [each.master for each in self.buffers.values()],
            lr=recipe.learning_rate,
            betas=recipe.betas,
            weight_decay=recipe.weight_decay,
            fused=self.groups.device.type != "meta",
        )
        for each in self.buffers.values():
            self.adam.state[each.master] = {"step": self._new_step(), "exp_avg": each.first, "exp_avg_sq": each.second}

    def _new_step(self) -> torch.Tensor:
        device = "cpu" if self.groups.device.type == "meta" else self.groups.device  # AdamW reads how many steps there were
        return torch.zeros((), dtype=torch.float32, device=device)

    @property
    def dense(self) -> SharedBuffer:
        """The parameters that are no experts."""
        return self.buffers[DENSE]

    @property
    def parameter_bytes(self) -> int:
        """Bytes of all parameters of this rank, the frozen ones among them."""
        trained: int = sum(each.parameters.nbytes for each in self.buffers.values())
        frozen: int = sum(each.nbytes for each in self.frozen.values())
        return trained + frozen

    @property
    def gradient_bytes(self) -> int:
        """Bytes of the gradients of this rank."""
        return sum(each.gradients.nbytes for each in self.buffers.values())

    @property
    def state_bytes(self) -> int:
        """Bytes of what the optimizer holds beside parameters and gradients: moments, and master weights if there are any."""
        return sum(each.state_bytes for each in self.buffers.values())

    @torch.no_grad()
    def take_over(self) -> None:
        """The parameters as they stand become the master weights."""
        for each in self.buffers.values():
            each.take_over()

    @torch.no_grad()
    def hand_out(self) -> None:
        """The master weights become the parameters, on every rank."""
        for each in self.buffers.values():
            each.copy_out()
        self._gather()

    def _gather(self) -> None:
        for sharing, each in self.buffers.items():
            each.gather(f"optimizer.gather_parameters{sharing.mark}")

    @torch.no_grad()
    def step(self) -> torch.Tensor:
        """One AdamW step on the sum of the gradients; the norm of the gradients, which is clipped at 1."""
        if self.vocabulary_copy is not None:
            copy: Any = self.vocabulary_copy
            self.groups.vocabulary.all_reduce(copy.main_grad, "optimizer.embedding_gradients.all_reduce", OPTIMIZER)
        if self.sums_norms:
            norms = self.dense.gradients[self.dense.norms_from : self.dense.norms_to]
            self.groups.tensor_parallel.all_reduce(norms, "optimizer.norm_gradients.all_reduce", OPTIMIZER)
        with operator(f"optimizer.{self.called if self.tunes else 'scale_gradients'}", OPTIMIZER):
            for each in self.buffers.values():
                each.gradients.mul_(1.0 / self.averaged_over)
        for sharing, each in self.buffers.items():
            each.reduce(f"optimizer.reduce_gradients{sharing.mark}")
        norm = self._norm()
        with operator(f"optimizer.{self.called}", OPTIMIZER):
            self._adam(norm)
        for parameter in self.of_model:
            parameter.main_grad_is_old = True  # the next iteration writes over it: nothing is set to zero
        self._gather()
        return norm

    def _adam(self, norm: torch.Tensor) -> None:
        for each in self.buffers.values():
            each.master.grad = each.owners.share(each.gradients)
        if self.groups.device.type != "meta":  # fused kernels divide the gradients; without numbers nothing is clipped
            self.adam.grad_scale = (norm / LARGEST_NORM).clamp(min=1.0)
            self.adam.found_inf = self._new_step()
        self.adam.step()
        for each in self.buffers.values():
            each.master.grad = None
            each.copy_out()

    def _norm(self) -> torch.Tensor:
        """The norm over all ranks; what several of them hold is counted once."""
        with operator("optimizer.gradient_norm", OPTIMIZER):
            squares = self.dense.square(self.groups.tensor_parallel.ranks)
            if OF_EXPERTS in self.buffers:
                squares = squares + self.buffers[OF_EXPERTS].square(1)
        squares = squares.reshape(1)
        self.groups.world.all_reduce(squares, "optimizer.gradient_norm.all_reduce", OPTIMIZER)
        return squares.sqrt().squeeze()

    def state(self, sharing: ParameterSharing) -> dict[str, torch.Tensor]:
        """What a checkpoint holds of this rank's share of the buffer of parameters that are shared so."""
        each = self.buffers[sharing]
        steps: torch.Tensor = self.adam.state[each.master]["step"]
        return {"master": each.master.detach(), "first": each.first, "second": each.second, "steps": steps}


def _buffers(model: Transformer) -> dict[ParameterSharing, SharedBuffer]:
    """One for the experts where there are some, and one for all else."""
    groups, layout = model.groups, model.layout
    entries = [entry for entry in model.cuts() if entry[1].requires_grad]
    copy = None if model.embedding is not None else model.vocabulary_copy  # the first stage's counts
    found = {}
    for sharing in (DENSE, OF_EXPERTS):
        own = [entry for entry in entries if entry[2].of_experts == sharing.of_experts]
        replicas = sharing.replicas(groups)
        owners = replicas if layout.sharding == "zero1" else ALONE
        if own:
            dtype = DTYPES[layout.precision] if model.tuning is None else torch.float32  # of adapters
            sizes = {"replicas": replicas, "owners": owners, "dtype": dtype, "device": groups.device}
            found[sharing] = SharedBuffer(own, **sizes, copy=copy if sharing is DENSE else None)
    return found


def _frozen(model: Transformer) -> dict[int, torch.nn.Parameter]:
    """Tensors of their own for parameters that are not trained, by the identity of the old ones."""
    dtype, device = DTYPES[model.layout.precision], model.groups.device
    frozen = [parameter for _, parameter, _ in model.cuts() if not parameter.requires_grad]
    made = ((id(old), torch.zeros(old.shape, dtype=dtype, device=device)) for old in frozen)
    return {name: torch.nn.Parameter(tensor, requires_grad=False) for name, tensor in made}


def _lay_under(
    model: Transformer, buffers: list[SharedBuffer], frozen: Mapping[int, torch.nn.Parameter]
) -> list[torch.nn.Parameter]:
    """Make every parameter of the model a view of its buffer; all that are trained, each once."""
    laid = {old: new for each in buffers for old, new in each.laid.items()} | dict(frozen)
    for module in model.modules():
        for name, old_parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, laid[id(old_parameter)])
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
