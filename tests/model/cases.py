"""What several ranks run in one start: a model under a layout, for some steps."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from perfmodel.model.counting import CollectiveCounter
from perfmodel.model.groups import Groups
from perfmodel.model.parts.router import Routing
from perfmodel.model.training.checkpoint import latest, load, save
from perfmodel.model.training.optimizer import LARGEST_NORM
from perfmodel.model.training.trainer import Trainer
from perfmodel.spec.layout import EVEN, Layout
from perfmodel.spec.models.model import TransformerModel
from tests.model.small_mixtures import DEEPSEEK, MIXTRAL, MIXTURES, QWEN3_MOE, SLIDING_MIXTRAL, routing_of
from tests.model.small_models import DEEP_LLAMA, FAMILIES, GPT, LLAMA, NEMOTRON, ONE_RANK

STEPS, STOPPED_AFTER = 4, 2


@dataclass(frozen=True, slots=True)
class Case:
    """A model, a layout, and the name that both are found by."""

    model: TransformerModel
    layout: Layout
    balanced: bool = False  # whether tokens are dealt out to experts evenly

    @property
    def routing(self) -> Routing:
        """How its router weighs experts."""
        return replace(routing_of(self.model), balanced=self.balanced)

    @property
    def is_even(self) -> bool:
        """Whether all that ranks send each other is known beforehand."""
        return self.balanced or self.layout.expert_parallel == 1

    @property
    def name(self) -> str:
        """Everything in which cases differ."""
        layout = self.layout
        experts = f", ep{layout.expert_parallel}{' balanced' if self.balanced else ''}" if self.model.mixture else ""
        tensor = f"tp{layout.tensor_parallel}{' sp' if layout.sequence_parallel else ''}"
        again = layout.recompute if layout.recompute_layers is None else f"{layout.recompute} {layout.recompute_layers}"
        data = f"{self._pipeline}dp{layout.data_parallel} {layout.sharding}"
        start = f"{self.model.name}, {layout.precision}, {tensor}, {data}{experts}"
        return f"{start}, recompute {again}, micro {layout.micro_batch_size}"

    @property
    def _pipeline(self) -> str:
        """Its stages, in words of a name."""
        layout = self.layout
        pieces = f"v{layout.virtual_pipeline} " if layout.virtual_pipeline > 1 else ""
        written = "" if layout.pipeline_layout == EVEN else f"{layout.pipeline_layout} "
        return f"pp{layout.pipeline_parallel} {pieces}{written}" if layout.pipeline_parallel > 1 else ""

    def stage_of(self, rank: int) -> int:
        """The pipeline stage of a rank: stages are the outermost."""
        return int(rank * self.layout.pipeline_parallel // self.layout.gpus)


def _cases(model: TransformerModel, *changes: dict[str, Any], balanced: bool = False) -> list[Case]:
    return [Case(model, replace(ONE_RANK, **change), balanced) for change in changes]


TENSOR = {"tensor_parallel": 2}
SHARED = {"tensor_parallel": 2, "sequence_parallel": True}
REPLICAS = {"data_parallel": 2}
SHARDED = {"data_parallel": 2, "sharding": "zero1"}
BF16 = {"precision": "bf16"}
FULL = {"recompute": "full"}
SOME = {"recompute": "full", "recompute_layers": 1}
SELECTIVE = {"recompute": "selective"}

SPREAD = {"data_parallel": 2, "expert_parallel": 2}
PIPELINE = {"pipeline_parallel": 2, "micro_batch_size": 1}
FOUR_STAGES = {"pipeline_parallel": 4, "micro_batch_size": 1}
INTERLEAVED = {"virtual_pipeline": 2}

ON_ONE_RANK = [
    *(case for model in FAMILIES for case in _cases(model, {}, BF16)),
    *(case for model in MIXTURES for case in _cases(model, {})),
    *(case for model in (MIXTRAL, DEEPSEEK) for case in _cases(model, {}, BF16, balanced=True)),
    *_cases(DEEP_LLAMA, {"micro_batch_size": 1}),
]
OTHER_WAYS_ON_ONE_RANK = _cases(NEMOTRON, {"micro_batch_size": 1}, {"micro_batch_size": 4}, FULL, SOME, SELECTIVE)
ON_TWO_RANKS = [
    *(case for model in FAMILIES for case in _cases(model, TENSOR, SHARED, REPLICAS, SHARDED)),
    *(case for model in FAMILIES for case in _cases(model, SHARED | BF16, SHARDED | BF16)),
    *_cases(NEMOTRON, SHARED | FULL, TENSOR | FULL, SHARED | SOME, SHARED | SELECTIVE),
    *_cases(GPT, SHARED | FULL, SHARDED | SELECTIVE),
    *(case for model in (QWEN3_MOE, SLIDING_MIXTRAL) for case in _cases(model, SPREAD)),
    *_cases(MIXTRAL, SHARED, SHARDED, SPREAD | SHARDED),
    *_cases(MIXTRAL, SHARED, SPREAD | SHARDED | BF16, balanced=True),
    *_cases(DEEPSEEK, SPREAD | FULL, SPREAD | SHARDED, SHARED | {"expert_parallel": 2}, SPREAD | BF16, balanced=True),
]
ON_TWO_STAGES = [
    *_cases(NEMOTRON, PIPELINE | SOME, PIPELINE | INTERLEAVED, PIPELINE | {"pipeline_layout": "Et|ttL"}),
    *_cases(GPT, PIPELINE),
    *_cases(MIXTRAL, PIPELINE | INTERLEAVED),
]
ON_FOUR_STAGES = [
    *_cases(NEMOTRON, FOUR_STAGES),
    *_cases(DEEP_LLAMA, FOUR_STAGES | INTERLEAVED),
    *_cases(GPT, PIPELINE | SHARED | BF16),
    *_cases(MIXTRAL, PIPELINE | SHARED | {"expert_parallel": 2, "micro_batch_size": 2}, balanced=True),
    *_cases(GPT, PIPELINE | SHARDED),
    *_cases(DEEPSEEK, PIPELINE | SPREAD | SHARDED),
]
ON_FOUR_RANKS = [
    *(case for model in (NEMOTRON, GPT) for case in _cases(model, SHARED | SHARDED, TENSOR | REPLICAS)),
    *_cases(LLAMA, SHARED | SHARDED | BF16 | FULL),
    *(case for model in (QWEN3_MOE, DEEPSEEK) for case in _cases(model, SHARED | SHARDED | {"expert_parallel": 4})),
    *_cases(DEEPSEEK, {"data_parallel": 4, "expert_parallel": 4, "micro_batch_size": 1}),
    *_cases(MIXTRAL, SHARED | SPREAD | SHARDED, SHARED | SHARDED | {"expert_parallel": 4}, balanced=True),
    *_cases(DEEPSEEK, SHARED | SPREAD | SHARDED, SHARED | SPREAD, balanced=True),
]
STOPPED = {
    1: [case for model in (NEMOTRON, GPT) for case in _cases(model, {}, BF16)],
    2: [
        *_cases(LLAMA, SHARDED | BF16, SHARDED, REPLICAS | BF16),
        *_cases(GPT, SHARED | BF16),
        *_cases(MIXTRAL, SPREAD | SHARDED | BF16, balanced=True),
    ],
    4: [
        *_cases(NEMOTRON, SHARED | SHARDED | BF16, PIPELINE | INTERLEAVED | SHARDED | BF16),
        *_cases(DEEPSEEK, SHARED | SPREAD | SHARDED, balanced=True),
    ],
}
BY_RANKS = {1: ON_ONE_RANK + OTHER_WAYS_ON_ONE_RANK, 2: ON_TWO_RANKS + ON_TWO_STAGES, 4: ON_FOUR_RANKS + ON_FOUR_STAGES}


def losses(trainer: Trainer, steps: int) -> list[float]:
    """The mean losses of the steps that come next."""
    return [trainer.mean_loss(trainer.step(trainer.micro_batches())) for _ in range(steps)]


def every_outcome(groups_of: Callable[[Case], Groups], ranks: int, folder: Path) -> dict[str, dict[str, Any]]:
    """Of all cases of as many ranks, by name; checkpoints lie below `folder`."""
    cases = {case.name: case for case in (*BY_RANKS[ranks], *STOPPED[ranks])}
    stopped = {case.name for case in STOPPED[ranks]}
    return {
        name: outcome(case, groups_of(case), folder / f"checkpoints-{number}" if name in stopped else None)
        for number, (name, case) in enumerate(cases.items())
    }


def outcome(case: Case, groups: Groups, stopped_in: Path | None) -> dict[str, Any]:
    """Losses and norms of all steps, what torch saw of the communication of one, and what this rank holds.

    With a folder the second step leaves a checkpoint there, and there are the losses of another trainer that began with it.
    """
    trainer = Trainer(case.model, case.layout, groups, routing=case.routing)
    counter = CollectiveCounter()
    found: list[float] = []
    norms: list[float] = []
    for step in range(STEPS):
        if step == STOPPED_AFTER and stopped_in is not None:
            save(trainer, stopped_in)
        batches = trainer.micro_batches()
        with counter if step == STEPS - 1 else nullcontext():
            loss = trainer.step(batches)
        found.append(trainer.mean_loss(loss))
        assert trainer.gradient_norm is not None
        norms.append(float(trainer.gradient_norm))
        if step == 0:
            gradients = _gradients(trainer)
    optimizer = trainer.optimizer
    return {
        "losses": found,
        "norms": norms,
        "gradients": gradients,
        "collectives": [[*key, calls, counter.payload_bytes[key]] for key, calls in sorted(counter.calls.items())],
        "held_whole": float(optimizer.dense.parameters[optimizer.dense.whole_from :].double().abs().sum()),
        "parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
        "parameter_bytes": optimizer.parameter_bytes,
        "gradient_bytes": optimizer.gradient_bytes,
        "state_bytes": optimizer.state_bytes,
        "went_on": found[STOPPED_AFTER:],
        "began_with_it": [] if stopped_in is None else _resumed(case, groups, trainer.seed, stopped_in),
    }


def _gradients(trainer: Trainer) -> dict[str, tuple[float, float]]:
    """Of each parameter of this rank, two numbers that tell its gradient from others: the norm, and a weighed sum.

    They are those before clipping: the norm of all gradients, which is summed up in fp32, differs by 1e-5 with the stages.
    """
    assert trainer.gradient_norm is not None
    found, clipped_by = {}, max(float(trainer.gradient_norm) / LARGEST_NORM, 1.0)
    for name, parameter, _ in trainer.model.cuts():
        gradient: torch.Tensor = clipped_by * parameter.main_grad.double().flatten()
        weights = torch.linspace(-1.0, 1.0, len(gradient), dtype=torch.float64)
        found[name] = (float(gradient.norm()), float(gradient @ weights))
    return found


def _resumed(case: Case, groups: Groups, seed: int, folder: Path) -> list[float]:
    """The losses that follow a checkpoint."""
    trainer = Trainer(case.model, case.layout, groups, seed=seed, routing=case.routing)
    last = latest(folder)
    assert last is not None
    load(trainer, last)
    return losses(trainer, STEPS - STOPPED_AFTER)
