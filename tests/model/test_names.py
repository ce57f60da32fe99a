"""What a real step runs has the names of the forecast: a comparison finds every operator of the one in the other."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from perfmodel.count.iteration import iteration
from perfmodel.count.operators import Collective, MemoryBound, Operator
from perfmodel.exchange.presets import stack_preset
from perfmodel.model.groups import one_rank
from perfmodel.model.operators import BETWEEN, Recorder, recording
from perfmodel.model.router import Routing
from perfmodel.model.trainer import Trainer
from perfmodel.spec.layout import Layout
from perfmodel.spec.model import TransformerModel
from tests.model.small_mixtures import MIXTURES
from tests.model.small_models import FAMILIES, ONE_RANK
from tests.setups import setup_of


def _takes_time(operator: Operator) -> bool:
    """Whether anything runs: no call among one rank, no kernel that moves nothing."""
    if isinstance(operator, Collective):
        return bool(operator.group.ranks > 1)
    return not (isinstance(operator, MemoryBound) and operator.moved_bytes == 0)


def forecast_labels(model: TransformerModel, layout: Layout) -> set[tuple[str, str]]:
    """Name and phase of every operator that the forecast has."""
    work = iteration(setup_of(model, layout, stack_preset("reference")))
    return {(each.name, each.phase) for each, times in work.executions() if times and _takes_time(each)}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("model", [*FAMILIES, *MIXTURES], ids=lambda model: model.name)
def test_operators_of_a_real_step_are_those_of_the_forecast(model: TransformerModel, precision: str) -> None:
    """All of them, and no others."""
    layout = replace(ONE_RANK, precision=precision)
    trainer = Trainer(model, layout, one_rank(), routing=Routing(balanced=True))
    with recording(Recorder(torch.device("cpu"))) as recorder:
        trainer.step(trainer.micro_batches())
    assert set(recorder.labels) - {BETWEEN} == forecast_labels(model, layout)
