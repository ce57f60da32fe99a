"""Real training steps of one layout: micro-batches forward and backward, then the optimizer."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import torch
import torch.distributed as dist

from perfmodel.model.groups import Groups
from perfmodel.model.parts.router import Routing
from perfmodel.model.pipelines.pipeline import MicroBatch, Pipeline
from perfmodel.model.training.data import batch
from perfmodel.model.training.optimizer import DistributedAdamW, Recipe
from perfmodel.model.transformer import Transformer, initialise
from perfmodel.spec.layout import Layout
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.tuning.fine_tuning import FineTuning

SEED: Final = 1


class Trainer:
    """A model, its optimizer and its data on one rank."""

    def __init__(
        self,
        model: TransformerModel,
        layout: Layout,
        groups: Groups,
        *,
        seed: int = SEED,
        recipe: Recipe | None = None,
        routing: Routing | None = None,
        tuning: FineTuning | None = None,
    ) -> None:
        """All of a model is trained, or what a fine-tuning says."""
        self.layout, self.groups, self.seed = layout, groups, seed
        routing = routing or Routing()
        if groups.device.type == "meta":  # where tokens have no numbers to choose by
            routing = replace(routing, balanced=True)
        self.routing = routing
        self.model = Transformer(model, layout, groups, routing, tuning=tuning)
        self.optimizer = DistributedAdamW(self.model, recipe or Recipe())
        if groups.device.type != "meta":
            initialise(self.model, seed)
            self.optimizer.take_over()
        self.pipeline = Pipeline(self.model)
        self.iteration = 0
        self.gradient_norm: torch.Tensor | None = None  # of the last step, before it was clipped

    def micro_batches(self) -> list[MicroBatch]:
        """Tokens and targets of this rank's replica in the iteration that comes next."""
        layout, replica = self.layout, self.groups.data_parallel
        tokens, targets = batch(
            seed=self.seed,
            iteration=self.iteration,
            sequences=int(layout.global_batch_size),
            length=int(layout.sequence_length),
            vocabulary=int(self.model.spec.vocab_size),
        )
        own, size = [each.tensor_split(replica.ranks)[replica.rank] for each in (tokens, targets)], int(layout.micro_batch_size)
        parts = [each.to(self.groups.device).split(size) for each in own]
        return list(zip(*parts, strict=True))

    def step(self, micro_batches: list[MicroBatch]) -> torch.Tensor:
        """One iteration on data that is there; the mean loss of this rank's replica, 0 on stages that do not hold the head."""
        losses = self.pipeline.run(micro_batches)
        self.gradient_norm = self.optimizer.step()
        self.iteration += 1
        return torch.stack(losses).mean() if losses else torch.zeros((), device=self.groups.device)

    def mean_loss(self, loss: torch.Tensor) -> float:
        """The loss over all replicas."""
        if self.groups.world.ranks > 1:
            loss = loss.clone()
            dist.all_reduce(loss)
            loss = loss * (self.groups.pipeline_parallel.ranks / self.groups.world.ranks)
        return float(loss)
