"""All micro-batches of an iteration through the pieces of one pipeline stage, forward and backward, with their messages.

PyTorch's own schedules (torch.distributed.pipelining) are not used here: their messages carry no names, they scale and keep
gradients in places of their own, and keep what a stage has sent on until its backward pass.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.autograd.graph import GradientEdge, get_gradient_edge

from perfmodel.model.pipelines.messages import ACTIVATIONS, GRADIENTS, Message, MessageChannel
from perfmodel.model.pipelines.schedule import Step, Task, schedule_of_stage
from perfmodel.model.supported import DTYPES
from perfmodel.model.transformer import Transformer

MicroBatch = tuple[torch.Tensor, torch.Tensor]  # tokens and targets, (sequences, length) each


class _ForwardPass(NamedTuple):
    """What stays of a forward pass until its backward pass: what came in, and where gradients of what went out begin."""

    received: torch.Tensor
    handed_on: GradientEdge


class Pipeline:
    """One stage of a pipeline; a single stage sends nothing, and runs each micro-batch forward and backward."""

    def __init__(self, model: Transformer) -> None:
        self.model, layout, groups = model, model.layout, model.groups
        self.stage, self.stages = groups.pipeline_parallel.rank, groups.pipeline_parallel.ranks
        self.steps = schedule_of_stage(layout, self.stage)
        tokens = int(layout.micro_batch_size * layout.sequence_length)
        self.shape = (tokens // int(layout.sequence_shards), int(model.spec.hidden_size))
        self.dtype = DTYPES[layout.precision]
        self.channels = {
            False: MessageChannel(groups.pipeline_parallel, ACTIVATIONS),
            True: MessageChannel(groups.pipeline_gradients, GRADIENTS),
        }

    def run(self, micro_batches: list[MicroBatch]) -> list[torch.Tensor]:
        """Gradients of all micro-batches; the loss of each, of the stage that holds the head."""
        losses: list[torch.Tensor] = []
        passed: dict[tuple[int, int], _ForwardPass] = {}
        made: dict[Task, torch.Tensor] = {}
        for step in self.steps:
            arrived = self._exchange(made, step)
            made = {}
            for task in step:
                place, came = (task.chunk, task.micro_batch), arrived.get(task)
                if task.backward:
                    gradient = _backward(passed.pop(place), came)
                    made |= {} if gradient is None else {task: gradient}
                    continue
                result, passed[place] = self._forward(task.chunk, micro_batches[task.micro_batch], came)
                if self.model.pieces[task.chunk].head:
                    losses.append(result)
                else:
                    made[task] = result
        self._exchange(made, ())
        for channel in self.channels.values():
            channel.finish()
        return losses

    def _forward(self, chunk: int, batch: MicroBatch, arrived: torch.Tensor | None) -> tuple[torch.Tensor, _ForwardPass]:
        """What a piece hands on, or the loss; and apart from it, what its backward pass needs."""
        tokens, targets = batch
        received = tokens if arrived is None else arrived.requires_grad_()
        result = self.model.through(self.model.pieces[chunk], received, targets)
        return result.detach(), _ForwardPass(received, get_gradient_edge(result))

    def _next(self, task: Task) -> int | None:
        """The stage that needs what a task makes; None after the last piece, and for gradients of the first."""
        piece = self.model.pieces[task.chunk]
        if piece.embedding if task.backward else piece.head:
            return None
        return (piece.place + (-1 if task.backward else 1)) % self.stages

    def _previous(self, task: Task) -> int | None:
        """The stage that makes what a task needs; None for tokens and for the gradient of a loss."""
        piece = self.model.pieces[task.chunk]
        if piece.head if task.backward else piece.embedding:
            return None
        return (piece.place + (1 if task.backward else -1)) % self.stages

    def _exchange(self, made: dict[Task, torch.Tensor], step: Step) -> dict[Task, torch.Tensor]:
        """Send what the tasks of a step have made, and receive what those of the next one need."""
        sent: dict[bool, list[Message]] = {False: [], True: []}
        expected: dict[bool, list[Message]] = {False: [], True: []}
        arrived = {}
        for task, tensor in made.items():
            if (stage := self._next(task)) is not None:
                sent[task.backward].append((tensor, stage))
        for task in step:
            if (stage := self._previous(task)) is not None:
                arrived[task] = torch.empty(self.shape, dtype=self.dtype, device=self.model.groups.device)
                expected[task.backward].append((arrived[task], stage))
        for backward, channel in self.channels.items():
            channel.post(sent[backward], expected[backward])
        for channel in self.channels.values():
            channel.arrive()
        return arrived


def _backward(passed: _ForwardPass, arrived: torch.Tensor | None) -> torch.Tensor | None:
    """The gradient of what came in, from that of what went out, or from a loss; of tokens there is none."""
    torch.autograd.backward((passed.handed_on,), None if arrived is None else (arrived,))
    return passed.received.grad
