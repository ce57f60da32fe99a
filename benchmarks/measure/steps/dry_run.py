"""One iteration of the reference model with no device: shapes without numbers, a process group that sends nothing.

The first rank of the whole layout builds its model, runs its micro-batches forward and backward and steps its optimizer on
PyTorch's meta device. What torch counts on the way (FLOPs, collectives, bytes held) stands beside what the forecast counts.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
from torch.utils.flop_counter import FlopCounterMode

from perfmodel.count.declarations import expert_shards
from perfmodel.count.iteration import Iteration, iteration
from perfmodel.count.memory import stage_memory_bytes
from perfmodel.count.operators import Collective, hardware_flop
from perfmodel.count.parameters import shard_parameter_count
from perfmodel.exchange.presets import stack_preset
from perfmodel.model.counting import CollectiveCounter
from perfmodel.model.groups import Groups, make_groups
from perfmodel.model.optimizer import DistributedAdamW
from perfmodel.model.supported import check_supported
from perfmodel.model.trainer import Trainer
from perfmodel.spec.layout import Layout
from perfmodel.spec.model import TransformerModel
from perfmodel.spec.run import RampStage, Run

STACK = "reference"  # the counts of the model that is built are those of its own software


@dataclass(frozen=True, slots=True)
class CountCheck:
    """One count of one rank: what torch saw, and what the forecast has.

    `padding` is what torch saw beyond it because buffers are padded until data-parallel ranks share them evenly.
    """

    what: str
    seen: float
    predicted: float
    padding: float = 0.0

    @property
    def equal(self) -> bool:
        """Whether both are the same number, padding apart (a rank's share of which need not be whole)."""
        return abs(self.seen - self.padding - self.predicted) < 0.5


def dry_run(run: Run, stage: RampStage) -> list[CountCheck]:
    """The counts of the first rank in one iteration of a stage."""
    layout = run.layout(stage)
    check_supported(run.model, layout)
    with _fake_ranks(run.model, layout) as groups:
        trainer = Trainer(run.model, layout, groups)
        batches = trainer.micro_batches()
        with CollectiveCounter() as collectives, FlopCounterMode(display=False) as flop:
            trainer.step(batches)
        optimizer = trainer.optimizer
        numbers = sum(parameter.numel() for _, parameter, _ in trainer.model.cuts())
        padding = Padding(optimizer)
        held = (optimizer.parameter_bytes, optimizer.gradient_bytes, optimizer.state_bytes)
    work = iteration(replace(run.setup(stage), stack=stack_preset(STACK)))
    memory = stage_memory_bytes(work, work.stages.first)
    parts = (memory.parameters_bytes, memory.gradients_bytes, memory.optimizer_bytes)
    experts = expert_shards(layout)
    parameters = float(shard_parameter_count(run.model, tensor_parallel=layout.tensor_parallel, experts=experts).total)
    named = zip(("parameter bytes", "gradient bytes", "optimizer bytes"), held, parts, padding.held_bytes, strict=True)
    return [
        CountCheck("parameters", float(numbers), parameters),
        *(CountCheck(what, float(ours), float(part), more) for what, ours, part, more in named),
        CountCheck("hardware FLOPs", float(flop.get_total_flops()), float(hardware_flop(work.operators))),
        *_communication(collectives, work, padding),
    ]


class Padding:
    """The numbers at the end of the buffers that are no parameters, in bytes of each."""

    def __init__(self, optimizer: DistributedAdamW) -> None:
        self.held_bytes = [0.0, 0.0, 0.0]  # of parameters, gradients and states
        self.moved_bytes: Counter[tuple[str, int]] = Counter()  # by kind of collective and ranks
        for buffer in optimizer.buffers.values():
            padded = buffer.parameters.numel() - buffer.numbers
            parameters, gradients = (padded * each.itemsize for each in (buffer.parameters, buffer.gradients))
            states = buffer.state_bytes * padded / buffer.parameters.numel()
            more = (parameters, gradients, states)
            self.held_bytes = [held + each for held, each in zip(self.held_bytes, more, strict=True)]
            for kind, size in (("all_gather", parameters), ("reduce_scatter", gradients), ("all_reduce", gradients)):
                self.moved_bytes[kind, buffer.replicas.ranks] += size


@contextmanager
def _fake_ranks(model: TransformerModel, layout: Layout) -> Iterator[Groups]:
    """The groups of rank 0 of a whole cluster that does not exist."""
    from torch.testing._internal.distributed.fake_pg import FakeStore  # PyTorch's own, with no public name

    dist.init_process_group("fake", rank=0, world_size=int(layout.gpus), store=FakeStore())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a mesh whose device is none of this machine's
            yield make_groups(torch.device("meta"), model, layout)
    finally:
        dist.destroy_process_group()


def _communication(seen: CollectiveCounter, work: Iteration, padding: Padding) -> Iterator[CountCheck]:
    """Calls and payload of every kind of collective and size of group."""
    calls: dict[tuple[str, int], float] = {}
    payload: dict[tuple[str, int], float] = {}
    for operator, repeats in work.executions():
        if isinstance(operator, Collective) and operator.group.ranks > 1:
            key = (operator.kind, int(operator.group.ranks))
            calls[key] = calls.get(key, 0.0) + float(repeats)
            payload[key] = payload.get(key, 0.0) + float(repeats * operator.payload_bytes)
    for kind, ranks in sorted({*calls, *seen.calls}):
        what = f"{kind} of {ranks} ranks"
        yield CountCheck(f"{what}, calls", float(seen.calls[kind, ranks]), calls.get((kind, ranks), 0.0))
        more = float(padding.moved_bytes[kind, ranks])
        yield CountCheck(f"{what}, bytes", float(seen.payload_bytes[kind, ranks]), payload.get((kind, ranks), 0.0), more)
