"""Are layouts of an array refused one by one, each as if it stood alone?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from perfmodel.errors import InputError
from perfmodel.exchange.presets import cluster_preset, model_preset, stack_preset
from perfmodel.spec.layout import Layout
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.refusals import check_setup, may_exist
from perfmodel.spec.stack import SoftwareStack
from tests.layouts import RAMP_STAGE
from tests.setups import setup_of

MODEL = model_preset("nemotron-4-15b")  # 48 heads, 8 KV heads, 32 layers
CLUSTER = cluster_preset("dgx-h100")
BATCHES = replace(RAMP_STAGE, global_batch_size=96 * 32)  # 32 micro-batches
DRAWN = 400


def random_degrees(sharding: str, recompute: str) -> dict[str, Any]:
    """Degrees and sizes of layouts of which some can exist: each breaks few rules, or none."""
    draw = np.random.default_rng(6)
    stages = draw.choice([1, 1, 2, 3, 4, 8, 33, 34], DRAWN)
    data, micro = draw.choice([1, 2, 4, 6, 16], DRAWN), draw.choice([1, 1, 2, 3], DRAWN)
    numbers: dict[str, Any] = {
        "tensor_parallel": draw.choice([1, 2, 4, 8, 8, 3, 12, 16], DRAWN),
        "pipeline_parallel": stages,
        "virtual_pipeline": np.where(stages > 1, draw.choice([1, 1, 2, 4, 5], DRAWN), draw.choice([1, 1, 1, 2], DRAWN)),
        "context_parallel": draw.choice([1, 1, 1, 2, 4, 6], DRAWN),
        "data_parallel": data,
        "micro_batch_size": micro,
        "global_batch_size": micro * data * draw.choice([1, 8, 24, 72], DRAWN) + draw.choice([0, 0, 0, 0, 1], DRAWN),
        "sequence_length": draw.choice([2048, 4096, 4096, 4104, 2047], DRAWN),
    }
    if sharding == "hsdp" or recompute == "none":
        numbers["data_parallel_replicas"] = draw.choice([2, 2, 4, 16, 3, 1] if sharding == "hsdp" else [1, 1, 1, 2], DRAWN)
    if recompute == "full":
        numbers["recompute_layers"] = draw.choice([0, 1, 4, 8, 32, 40], DRAWN)
    return numbers


def is_legal(model: TransformerModel, stack: SoftwareStack, layout: Layout) -> bool:
    """Whether nothing is raised for one layout."""
    try:
        check_setup(setup_of(model, layout, stack, cluster=CLUSTER))
    except InputError:
        return False
    return True


@pytest.mark.parametrize("recompute", ["none", "full"])
@pytest.mark.parametrize("sharding", ["none", "zero1", "zero3", "hsdp"])
@pytest.mark.parametrize(
    ("model", "stack", "schedule", "sequence_parallel"),
    [
        ("nemotron-4-15b", "megatron-core", "1f1b", True),
        ("llama-3.1-8b", "torchtitan", "zb-h1", False),
        ("gpt-3-175b", "megatron-lm", "1f1b", False),  # 2048 learned positions, no fused attention
        ("llama-3.1-70b", "generic", "zb-2p", True),
    ],
)
def test_of_many_layouts_those_may_exist_that_are_not_refused_alone(
    model: str, stack: str, schedule: str, sequence_parallel: bool, sharding: str, recompute: str
) -> None:
    """One answer for each of an array of layouts, whatever the others break."""
    spec, software = model_preset(model), stack_preset(stack)
    categories: dict[str, Any] = {"precision": "bf16", "pipeline_schedule": schedule, "sequence_parallel": sequence_parallel}
    categories |= {"sharding": sharding, "recompute": recompute}
    numbers = random_degrees(sharding, recompute)
    together = may_exist(setup_of(spec, Layout(**categories, **numbers), software, cluster=CLUSTER))
    singles = (categories | {name: int(each[index]) for name, each in numbers.items()} for index in range(DRAWN))
    expected = [is_legal(spec, software, Layout(**settings)) for settings in singles]
    assert np.broadcast_to(together, DRAWN).tolist() == expected
    assert {True, False} == set(expected)


def test_what_may_exist_has_the_shape_of_its_layouts() -> None:
    """Columns of stages against rows of pieces; a single layout has a single answer."""
    software = stack_preset("megatron-core")
    grid = replace(BATCHES, pipeline_parallel=np.array([[1], [2], [3]]), virtual_pipeline=np.array([1, 2]))
    assert np.array_equal(
        may_exist(setup_of(MODEL, grid, software, cluster=CLUSTER)), [[True, False], [True, True], [True, False]]
    )
    assert np.ndim(may_exist(setup_of(MODEL, BATCHES, software, cluster=CLUSTER))) == 0
