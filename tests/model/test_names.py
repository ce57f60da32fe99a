"""What a real step runs has the names of the forecast: a comparison finds every operator of the one in the other."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from perfmodel.count.iteration import iteration
from perfmodel.count.operators import Collective, MemoryBound, Operator
from perfmodel.exchange.presets import stack_preset
from perfmodel.model.groups import make_groups, one_rank
from perfmodel.model.operators import BETWEEN, Recorder, recording
from perfmodel.model.parts.router import Routing
from perfmodel.model.pipelines.messages import WAITS
from perfmodel.model.training.trainer import Trainer
from perfmodel.spec.layout import Layout
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.tuning.fine_tuning import FineTuning
from tests.model.small_mixtures import DEEPSEEK, MIXTURES
from tests.model.small_models import FAMILIES, GPT, ONE_RANK
from tests.setups import setup_of


def _takes_time(operator: Operator) -> bool:
    """Whether anything runs: no call among one rank, no kernel that moves nothing."""
    if isinstance(operator, Collective):
        return bool(operator.group.ranks > 1)
    return not (isinstance(operator, MemoryBound) and operator.moved_bytes == 0)


def forecast_labels(
    model: TransformerModel, layout: Layout, stage: int = 0, *, tuning: FineTuning | None = None
) -> set[tuple[str, str]]:
    """Name and phase of every operator that the forecast has for a pipeline stage."""
    work = iteration(replace(setup_of(model, layout, stack_preset("reference")), tuning=tuning))
    executions = work.stage_executions(work.every_stage[stage])
    return {(each.name, each.phase) for each, times in executions if times and _takes_time(each)}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("model", [*FAMILIES, *MIXTURES], ids=lambda model: model.name)
def test_operators_of_a_real_step_are_those_of_the_forecast(model: TransformerModel, precision: str) -> None:
    """All of them, and no others."""
    layout = replace(ONE_RANK, precision=precision)
    trainer = Trainer(model, layout, one_rank(), routing=Routing(balanced=True))
    with recording(Recorder(torch.device("cpu"))) as recorder:
        trainer.step(trainer.micro_batches())
    assert set(recorder.labels) - {BETWEEN} == forecast_labels(model, layout)


@pytest.mark.parametrize("stage", range(4))
@pytest.mark.parametrize("model", [GPT, DEEPSEEK], ids=lambda model: model.name)
def test_operators_of_each_stage_are_those_of_the_forecast(model: TransformerModel, stage: int) -> None:
    """Of a pipeline that nobody else runs; what a stage waits for messages has names of its own."""
    layout = replace(ONE_RANK, pipeline_parallel=4, micro_batch_size=1)
    dist.init_process_group("fake", rank=stage, world_size=4, store=FakeStore())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a mesh whose device is none of this machine's
            trainer = Trainer(model, layout, make_groups(torch.device("meta"), model, layout))
        with recording(Recorder(torch.device("cpu"))) as recorder:
            trainer.step(trainer.micro_batches())
    finally:
        dist.destroy_process_group()
    waits = {label for of_message in WAITS.values() for label in of_message}
    assert set(recorder.labels) - {BETWEEN} - waits == forecast_labels(model, layout, stage)
