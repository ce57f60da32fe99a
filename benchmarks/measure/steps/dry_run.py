"""One iteration of the reference model with no device: shapes without numbers, a process group that sends nothing.

The first rank of each pipeline stage builds its model, runs its micro-batches forward and backward and steps its optimizer on
PyTorch's meta device. What torch counts on the way (FLOPs, collectives, bytes held) stands beside what the forecast counts.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
from torch.utils.flop_counter import FlopCounterMode

from perfmodel.count.iteration import Iteration, iteration
from perfmodel.count.memory.needed import stage_memory_bytes
from perfmodel.count.operators import Collective, Operator, hardware_flop
from perfmodel.count.pipeline import PipelineStage
from perfmodel.count.tuning.trained import adapter_parameters
from perfmodel.exchange.presets import stack_preset
from perfmodel.model.counting import CollectiveCounter
from perfmodel.model.groups import Groups, make_groups
from perfmodel.model.supported import check_supported
from perfmodel.model.training.optimizer import DistributedAdamW
from perfmodel.model.training.trainer import Trainer
from perfmodel.spec.fields import Numeric
from perfmodel.spec.layout import Layout
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.run import RampStage, Run

STACK = "reference"  # the counts of the model that is built are those of its own software


@dataclass(frozen=True, slots=True)
class CountCheck:
    """One count of one rank of a pipeline stage, counted from 1: what torch saw, and what the forecast has.

    `padding` is what torch saw beyond it because buffers are padded until data-parallel ranks share them evenly.
    """

    what: str
    seen: float
    predicted: float
    padding: float = 0.0
    pipeline_stage: int = 1

    @property
    def equal(self) -> bool:
        """Whether both are the same number, padding apart (a rank's share of which need not be whole)."""
        return abs(self.seen - self.padding - self.predicted) < 0.5


def dry_run(run: Run, stage: RampStage) -> list[CountCheck]:
    """The counts of one iteration of a stage of the ramp: of the first rank of every pipeline stage."""
    layout = run.layout(stage)
    check_supported(run.model, layout, run.fine_tuning)
    work = iteration(replace(run.setup(stage), stack=stack_preset(STACK)))
    return [check for place in range(int(layout.pipeline_parallel)) for check in _counts(run.model, work, place)]


def _counts(model: TransformerModel, work: Iteration, place: int) -> Iterator[CountCheck]:
    """Counts of the pipeline stage at `place`, by torch and by the forecast."""
    layout, stage = work.layout, work.every_stage[place]
    with _fake_ranks(model, layout, place) as groups:
        trainer = Trainer(model, layout, groups, tuning=work.setup.tuning)
        batches = trainer.micro_batches()
        with CollectiveCounter() as collectives, FlopCounterMode(display=False) as flop:
            trainer.step(batches)
        optimizer = trainer.optimizer
        numbers = sum(parameter.numel() for _, parameter, _ in trainer.model.cuts())
        padding = Padding(optimizer)
        held = (optimizer.parameter_bytes, optimizer.gradient_bytes, optimizer.state_bytes)
    memory = stage_memory_bytes(work, stage)
    parts = (memory.parameters_bytes, memory.gradients_bytes, memory.optimizer_bytes)
    executions = [(operator, times) for operator, times in work.stage_executions(stage) if times]
    predicted_flop = hardware_flop(replace(operator, repeats=times) for operator, times in executions)
    named = zip(("parameter bytes", "gradient bytes", "optimizer bytes"), held, parts, padding.held_bytes, strict=True)
    checks = [
        CountCheck("parameters", float(numbers), float(stage.parameters.total + _adapters(work, stage))),
        *(CountCheck(what, float(ours), float(part), more) for what, ours, part, more in named),
        CountCheck("hardware FLOPs", float(flop.get_total_flops()), float(predicted_flop)),
        *_communication(collectives, executions, padding),
    ]
    yield from (replace(check, pipeline_stage=place + 1) for check in checks)


def _adapters(work: Iteration, stage: PipelineStage) -> Numeric:
    """Parameters that are trained beside those of the model."""
    setup = work.setup
    return 0 if setup.tuning is None else adapter_parameters(setup.model, stage.held.every, setup.tuning)


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
            for kind, size in (("all_gather", parameters), ("reduce_scatter", gradients)):  # alone, none are padded
                self.moved_bytes[kind, buffer.replicas.ranks] += size


@contextmanager
def _fake_ranks(model: TransformerModel, layout: Layout, stage: int) -> Iterator[Groups]:
    """The groups of the first rank of a pipeline stage in a whole cluster that does not exist."""
    from torch.testing._internal.distributed.fake_pg import FakeStore  # PyTorch's own, with no public name

    ranks = int(layout.gpus)
    first = stage * ranks // int(layout.pipeline_parallel)
    dist.init_process_group("fake", rank=first, world_size=ranks, store=FakeStore())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a mesh whose device is none of this machine's
            yield make_groups(torch.device("meta"), model, layout)
    finally:
        dist.destroy_process_group()


def _communication(
    seen: CollectiveCounter, executions: Sequence[tuple[Operator, Numeric]], padding: Padding
) -> Iterator[CountCheck]:
    """Calls and payload of every kind of collective and size of group."""
    calls: dict[tuple[str, int], float] = {}
    payload: dict[tuple[str, int], float] = {}
    for operator, repeats in executions:
        if isinstance(operator, Collective) and operator.group.ranks > 1:
            key = (operator.kind, int(operator.group.ranks))
            calls[key] = calls.get(key, 0.0) + float(repeats)
            payload[key] = payload.get(key, 0.0) + float(repeats * operator.payload_bytes)
    for kind, ranks in sorted({*calls, *seen.calls}):
        what = f"{kind} of {ranks} ranks"
        yield CountCheck(f"{what}, calls", float(seen.calls[kind, ranks]), calls.get((kind, ranks), 0.0))
        more = float(padding.moved_bytes[kind, ranks])
        yield CountCheck(f"{what}, bytes", float(seen.payload_bytes[kind, ranks]), payload.get((kind, ranks), 0.0), more)
