"""Questions whose whole space can be gone through one by one, for tests of plans."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from itertools import product
from typing import Any

from perfmodel import api
from perfmodel.errors import InputError
from perfmodel.exchange.questions.plan_arguments import PlanRequest, read_plan_request
from perfmodel.search.plan import Plan
from perfmodel.search.question import PlanQuestion
from perfmodel.spec.layout import Layout
from perfmodel.spec.refusals import check_setup
from tests.search.layouts.single_layouts import Alone, alone
from tests.searches import searched_once
from tests.setups import setup_of

SMALL: dict[str, Any] = {
    "extends": "llama-3.1-8b",
    "name": "small",
    "layers": 4,
    "hidden_size": 2048,
    "attention_heads": 16,
    "kv_heads": 8,
    "ffn_hidden_size": 8192,
}
WORK: dict[str, Any] = {"cluster": "dgx-h100", "stack": "megatron-core", "global_batch_size": 8, "sequence_length": 2048}


def small_question(**wanted: Any) -> PlanRequest:
    """A question of the small model on four GPUs, where nothing else is said."""
    return read_plan_request(SMALL, **(WORK | {"gpus": 4} | wanted))


def small_plan(**wanted: Any) -> Plan:
    """Its plan; the same question is planned once, unless somebody looks on."""
    how = {name: wanted.pop(name) for name in ("most_gpus", "on_progress") if name in wanted}
    return api.plan(SMALL, **(WORK | {"gpus": 4} | wanted), **how) if how else _planned(json.dumps(wanted, sort_keys=True))


@cache
def _planned(wanted: str) -> Plan:
    with searched_once():
        return api.plan(SMALL, **(WORK | {"gpus": 4} | json.loads(wanted)))


@cache
def plain_plan() -> Plan:
    """The plan where nothing else is said."""
    return small_plan()


def every_layout(question: PlanQuestion, gpus: int) -> Iterator[tuple[Layout, Alone]]:
    """Every combination of settings that no rule refuses, one by one, each with its own time and memory."""
    (work,) = question.workloads(gpus)
    degrees = [size for size in range(1, gpus + 1) if gpus % size == 0]
    layers = [None, *range(1, int(work.model.layers))]
    axes = {
        "tensor_parallel": degrees,
        "pipeline_parallel": degrees,
        "context_parallel": degrees,
        "virtual_pipeline": range(1, int(work.model.layers) + 1),
        "micro_batch_size": range(1, work.global_batch_size + 1),
        "sequence_parallel": (True, False),
        "sharding": question.space.sharding,
        "recompute": question.space.recompute,
        "recompute_layers": layers,
    }
    for values in product(*axes.values()):
        settings: dict[str, Any] = dict(zip(axes, values, strict=True))
        ranks = settings["tensor_parallel"] * settings["pipeline_parallel"] * settings["context_parallel"]
        again = settings["recompute_layers"]
        if gpus % ranks or work.global_batch_size % (gpus // ranks * settings["micro_batch_size"]):
            continue
        if again is not None and (
            settings["recompute"] != "full" or again * settings["pipeline_parallel"] >= work.model.layers
        ):
            continue
        settings |= {"global_batch_size": work.global_batch_size, "sequence_length": work.sequence_length}
        layout = Layout(precision="bf16", data_parallel=gpus // ranks, **settings)
        try:
            check_setup(setup_of(work.model, layout, work.stack, cluster=work.cluster))
        except InputError:
            continue
        yield layout, alone(work.setup(layout))
