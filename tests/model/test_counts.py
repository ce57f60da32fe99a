"""What torch sees of a real step is what the forecast counts: calls, their bytes, parameters, states, products."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils.flop_counter import FlopCounterMode

from perfmodel.count.declarations import expert_shards
from perfmodel.count.iteration import Iteration, iteration
from perfmodel.count.memory.needed import stage_memory_bytes
from perfmodel.count.operators import Collective, FusedAttention, hardware_flop
from perfmodel.count.parameters import shard_parameter_count
from perfmodel.exchange.presets import stack_preset
from perfmodel.model.counting import CollectiveCounter
from perfmodel.model.groups import make_groups, one_rank
from perfmodel.model.training.trainer import Trainer
from perfmodel.spec.layout import Layout
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.stack import SoftwareStack
from tests.model.cases import BY_RANKS, Case
from tests.model.conftest import Outcomes
from tests.model.small_mixtures import DEEPSEEK, MIXTRAL, MIXTURES, QWEN3_MOE
from tests.model.small_models import FAMILIES, GPT, NEMOTRON, ONE_RANK, QWEN
from tests.model.test_parallel import EVERY_CASE
from tests.setups import setup_of

EVEN_CASES = [
    pytest.param(ranks, case, id=f"{ranks} ranks: {case.name}")
    for ranks, cases in BY_RANKS.items()
    for case in cases
    if case.is_even
]
WAYS = [("none", None), ("selective", None), ("full", None), ("full", 1)]


def software() -> SoftwareStack:
    """The stack that stands for model/."""
    return stack_preset("reference")


def work_of(model: TransformerModel, layout: Layout) -> Iteration:
    """The forecast's operators."""
    return iteration(setup_of(model, layout, software()))


def messages(model: TransformerModel, layout: Layout, stage: int = 0) -> dict[tuple[str, int], tuple[float, float]]:
    """Calls and payload bytes of an iteration of a pipeline stage, by kind and ranks; groups of one call nothing."""
    found: dict[tuple[str, int], tuple[float, float]] = {}
    work = work_of(model, layout)
    for operator, repeats in work.stage_executions(work.every_stage[stage]):
        if isinstance(operator, Collective) and operator.group.ranks > 1 and repeats:
            key = (operator.kind, int(operator.group.ranks))
            calls, payload = found.get(key, (0.0, 0.0))
            found[key] = (calls + float(repeats), payload + float(repeats * operator.payload_bytes))
    return found


@pytest.mark.slow
@pytest.mark.ranks
@pytest.mark.parametrize(("ranks", "case"), EVEN_CASES)
def test_messages_are_those_that_torch_sees(outcomes: Outcomes, ranks: int, case: Case) -> None:
    """On every rank, of every kind: as many calls, as many bytes."""
    for rank, found in enumerate(outcomes.of(ranks)):
        seen = {(kind, size): (calls, payload) for kind, size, calls, payload in found[case.name]["collectives"]}
        assert seen == messages(case.model, case.layout, case.stage_of(rank))


@pytest.mark.slow
@pytest.mark.ranks
@pytest.mark.parametrize(("ranks", "case"), EVERY_CASE)
def test_parameters_and_states_take_what_the_forecast_says(outcomes: Outcomes, ranks: int, case: Case) -> None:
    """Byte for byte: these sizes are shared evenly, so that no buffer is padded."""
    model, layout = case.model, case.layout
    work = work_of(model, layout)
    if layout.pipeline_parallel == 1:
        every = shard_parameter_count(model, tensor_parallel=layout.tensor_parallel, experts=expert_shards(layout))
        assert work.stages.first.parameters.total == every.total
    for rank, of_rank in enumerate(outcomes.of(ranks)):
        found, stage = of_rank[case.name], work.every_stage[case.stage_of(rank)]
        memory = stage_memory_bytes(work, stage)
        assert found["parameters"] == stage.parameters.total
        assert found["parameter_bytes"] == memory.parameters_bytes
        assert found["gradient_bytes"] == memory.gradients_bytes
        assert found["state_bytes"] == memory.optimizer_bytes


def counted_flop(trainer: Trainer) -> int:
    """The FLOPs of one step by torch's count."""
    batches = trainer.micro_batches()
    with FlopCounterMode(display=False) as counter:
        trainer.step(batches)
    return int(counter.get_total_flops())


@pytest.mark.parametrize(("recompute", "layers"), WAYS)
@pytest.mark.parametrize("model", [*FAMILIES, QWEN, *MIXTURES], ids=lambda model: model.name)
def test_products_of_a_real_step_are_those_that_torch_counts(
    model: TransformerModel, recompute: str, layers: int | None
) -> None:
    """All but attention: the fused kernel of a CPU is not in torch's table, and counts nothing there."""
    layout = replace(ONE_RANK, recompute=recompute, recompute_layers=layers)
    products = [op for op in work_of(model, layout).operators if not isinstance(op, FusedAttention)]
    assert counted_flop(Trainer(model, layout, one_rank())) == hardware_flop(products)


@pytest.mark.parametrize(("recompute", "layers"), WAYS)
@pytest.mark.parametrize("model", [*FAMILIES, QWEN, MIXTRAL, QWEN3_MOE, DEEPSEEK], ids=lambda model: model.name)
def test_all_flop_are_those_that_torch_counts_without_numbers(
    model: TransformerModel, recompute: str, layers: int | None
) -> None:
    """On the meta device attention is formed from products, which torch does count."""
    layout = replace(ONE_RANK, recompute=recompute, recompute_layers=layers)
    assert counted_flop(Trainer(model, layout, one_rank("meta"))) == hardware_flop(work_of(model, layout).operators)


@pytest.fixture
def fake_ranks() -> Any:
    """The first of 16 ranks that do not exist."""
    dist.init_process_group("fake", rank=0, world_size=16, store=FakeStore())
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("model", "sequence_parallel", "expert_parallel"),
    [
        (NEMOTRON, False, 1),
        (NEMOTRON, True, 1),
        (GPT, False, 1),
        (GPT, True, 1),
        (DEEPSEEK, True, 8),  # more than there are tensor-parallel ranks, fewer than there are of both kinds
        (QWEN3_MOE, True, 4),
    ],
    ids=str,
)
def test_messages_are_seen_where_nobody_is_to_receive_them(
    fake_ranks: Any, model: TransformerModel, *, sequence_parallel: bool, expert_parallel: int
) -> None:
    """PyTorch's process group that sends nothing, and tensors without numbers: the counts of a cluster, on no cluster."""
    layout = replace(
        ONE_RANK,
        tensor_parallel=2,
        data_parallel=8,
        expert_parallel=expert_parallel,
        sequence_parallel=sequence_parallel,
        sharding="zero1",
        global_batch_size=32,
        precision="bf16",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a mesh whose device is none of this machine's
        trainer = Trainer(model, layout, make_groups(torch.device("meta"), model, layout))
    batches = trainer.micro_batches()
    with CollectiveCounter() as counter:
        trainer.step(batches)
    seen = {key: (calls, counter.payload_bytes[key]) for key, calls in counter.calls.items()}
    assert seen == messages(model, layout)
