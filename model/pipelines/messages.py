"""What neighbouring pipeline stages send each other: activations one way, their gradients the other.

Each way has a process group of its own, in which the messages between two stages keep their order. What a step of the schedule
has made is posted together with what the next one needs; a stage waits for what it needs, and for its own messages to be gone
before it posts the next. (Megatron-Core does the same without overlap: pipeline_parallel/p2p_communication.py.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import torch
import torch.distributed as dist

from perfmodel.model.groups import Group
from perfmodel.model.operators import Label, communication
from perfmodel.spec.phases import DATA_GRADIENT, FORWARD

ACTIVATIONS: Final[Label] = ("pipeline.send_activations", FORWARD)
GRADIENTS: Final[Label] = ("pipeline.send_gradients", DATA_GRADIENT)


class WaitLabels(NamedTuple):
    """Labels of what stages wait in the messages of one kind: for each that comes, and for those sent before to be taken."""

    arrival: Label
    departure: Label


WAITS: Final[Mapping[Label, WaitLabels]] = {
    ACTIVATIONS: WaitLabels(("pipeline.receive_activations", FORWARD), ("pipeline.activations_taken", FORWARD)),
    GRADIENTS: WaitLabels(("pipeline.receive_gradients", DATA_GRADIENT), ("pipeline.gradients_taken", DATA_GRADIENT)),
}

Message = tuple[torch.Tensor, int]  # what is sent or filled, and the stage at the other end


class MessageChannel:
    """The messages of one kind that a stage sends and receives."""

    def __init__(self, group: Group, label: Label) -> None:
        self.group, self.label = group, label
        self.leaving: list[Any] = []  # handles of what was sent
        self.arriving: list[Any] = []
        self.kept: list[torch.Tensor] = []  # what leaves, until it is gone

    def post(self, sent: Sequence[Message], expected: Sequence[Message]) -> None:
        """Begin to send, and to receive into tensors that are there."""
        if sent:
            self.finish()
            with communication(*self.label, across_stages=True):
                self._post(sent, expected)
        elif expected:
            self._post(sent, expected)

    def _post(self, sent: Sequence[Message], expected: Sequence[Message]) -> None:
        group, own = self.group.process_group, [(tensor.contiguous(), stage) for tensor, stage in sent]
        self.kept += [tensor for tensor, _ in own]
        if any(tensor.device.type == "cuda" for tensor, _ in (*own, *expected)):  # NCCL needs both at once, and has one handle
            calls = [dist.P2POp(dist.irecv, tensor, group=group, group_peer=stage) for tensor, stage in expected]
            calls += [dist.P2POp(dist.isend, tensor, group=group, group_peer=stage) for tensor, stage in own]
            handles = dist.batch_isend_irecv(calls)
            self.arriving, self.leaving = handles if expected else [], handles if own else self.leaving
            return
        self.arriving = [dist.irecv(tensor, group=group, group_src=stage) for tensor, stage in expected]
        self.leaving += [dist.isend(tensor, group=group, group_dst=stage) for tensor, stage in own]

    def arrive(self) -> None:
        """Wait for what was expected."""
        if self.arriving:
            with communication(*WAITS[self.label].arrival, across_stages=True):
                for handle in self.arriving:
                    handle.wait()
            self.arriving = []

    def finish(self) -> None:
        """Wait until all that was sent is gone."""
        if self.leaving:
            with communication(*WAITS[self.label].departure, across_stages=True):
                for handle in self.leaving:
                    handle.wait()
        self.leaving, self.kept = [], []
