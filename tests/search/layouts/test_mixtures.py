"""Searches of mixtures of experts: the mesh of experts beside that of tokens, and modules that run again."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest

from perfmodel.errors import NotSupportedError
from perfmodel.exchange.presets import cluster_preset, model_preset, stack_preset
from perfmodel.prediction import stage_breakdown
from perfmodel.search.layouts.grids import layout_grids
from perfmodel.search.layouts.recompute_choices import module_choices, rerun_choices
from perfmodel.search.layouts.search import LayoutCandidate, SearchResult, evaluated_grid, search
from perfmodel.search.layouts.space import Workload, offered_space
from perfmodel.spec.layout import Layout
from perfmodel.spec.models.layer_parts import LatentAttention, Mixture
from perfmodel.spec.models.model import TransformerModel, divisors
from perfmodel.spec.refusals import may_exist
from perfmodel.spec.stack import SoftwareStack
from tests.layouts import RAMP_STAGE
from tests.search.layouts.single_layouts import alone
from tests.search.layouts.spaces import TOY, identity, layouts, space_of, workload

ROUTED = replace(TOY, mixture=Mixture(experts=8, experts_per_token=2, ffn_hidden_size=1536))
LATENT = LatentAttention(query_rank=384, kv_rank=128, nope_head_size=32, rotary_head_size=32, value_head_size=32)
WORK = replace(workload(gpus=16, batch=8), model=ROUTED)
SOME = space_of(sharding=("none", "zero1"), fixed={"micro_batch_size": (1, 2), "virtual_pipeline": (1, 2)})


def every_layout(work: Workload) -> Counter[tuple[Any, ...]]:
    """Each layout of SOME that breaks no rule, by loops over all degrees; no more ranks share an expert than share a head."""
    found = []
    degrees = ("tensor_parallel", "context_parallel", "pipeline_parallel", "expert_parallel", "expert_tensor_parallel")
    for ranks in product(*[divisors(work.gpus)] * 4, divisors(work.gpus)):
        chosen: dict[str, Any] = dict(zip(degrees, ranks, strict=True))
        tensor, context, pipeline, _, shared = ranks
        if work.gpus % (tensor * context * pipeline) or tensor % shared:
            continue
        for micro, pieces, sharding in product((1, 2), (1, 2), ("none", "zero1")):
            layout = Layout(
                precision="bf16",
                **chosen,
                virtual_pipeline=pieces,
                data_parallel=work.gpus // (tensor * context * pipeline),
                sequence_parallel=True,
                sharding=sharding,
                recompute="none",
                micro_batch_size=micro,
                global_batch_size=work.global_batch_size,
                sequence_length=work.sequence_length,
            )
            if bool(may_exist(work.setup(layout))):
                found.append(identity(layout))
    return Counter(found)


def seen(work: Workload) -> list[Layout]:
    """Every layout that a search of SOME looks at."""
    return [layout for grid in layout_grids(work, SOME) for layout in layouts(grid)]


def test_every_layout_of_both_meshes_is_seen_once() -> None:
    """Against loops over all degrees."""
    assert Counter(map(identity, seen(WORK))) == every_layout(WORK)


def test_experts_may_be_spread_over_more_ranks_than_there_are_replicas() -> None:
    """They take the GPUs of a pipeline stage, which share tokens otherwise."""
    assert any(layout.expert_parallel > layout.data_parallel for layout in seen(WORK))
    assert {float(layout.gpus) for layout in seen(WORK)} == {16.0}


def test_a_person_may_have_more_ranks_share_an_expert() -> None:
    """By name; otherwise no more of them do than share a head."""
    asked = replace(SOME, fixed={**SOME.fixed, "expert_tensor_parallel": (4,), "tensor_parallel": (1,)})
    assert [*layout_grids(WORK, asked)]
    assert all(layout.expert_tensor_parallel <= layout.tensor_parallel for layout in seen(WORK))


def test_a_dense_model_has_no_experts_to_spread() -> None:
    """The mesh of experts takes no room in its search."""
    for grid in layout_grids(replace(WORK, model=TOY), SOME):
        rows = grid.axes[0]
        assert set(rows["expert_parallel"]) == set(rows["expert_tensor_parallel"]) == {1}


def test_a_stack_without_expert_parallelism_holds_all_experts() -> None:
    """torchtitan's description offers none."""
    some = replace(WORK, stack=stack_preset("torchtitan"))
    rows = [grid.axes[0] for grid in layout_grids(some, replace(SOME, sharding=("zero3",)))]
    assert rows
    assert {int(ranks) for row in rows for ranks in row["expert_parallel"]} == {1}


@pytest.fixture(scope="module", name="searched")
def _searched() -> SearchResult:
    return search(layout_grids(replace(WORK, stack=stack_preset("megatron-bridge")), replace(SOME, recompute=("selective",))))


def test_searched_times_and_bytes_are_those_of_a_prediction(searched: SearchResult) -> None:
    """To the bit, of the fastest layouts of a mixture, whatever runs again."""
    work = replace(WORK, stack=stack_preset("megatron-bridge"))
    for each in searched.fastest[::9]:
        single = alone(work.setup(each.layout))
        assert each.figures == (single.iteration_time_s, float(single.memory.total_bytes))


def test_modules_are_among_the_ways_to_run_again(searched: SearchResult) -> None:
    """Lists of modules are tried where the software has them, beside its own selection."""
    tried = {value for name, value in searched.by_setting if name == "recompute_modules"}
    assert tried == {("layernorm", "moe_act")}
    assert any("recompute_modules" not in each.settings for each in searched.fastest)


def test_modules_are_those_that_the_model_and_the_software_have() -> None:
    """Up-projections of latent attention only where there is some; nothing for dense models, or where no software has any."""
    bridge, core = stack_preset("megatron-bridge"), stack_preset("megatron-core")
    latent = replace(ROUTED, latent=LATENT, kv_heads=12)

    def chosen(model: TransformerModel, stack: SoftwareStack) -> list[tuple[str, ...]]:
        return module_choices(replace(WORK, model=model, stack=stack).setup(RAMP_STAGE))

    assert chosen(latent, bridge) == [("mla_up_proj",), ("layernorm", "mla_up_proj", "moe_act")]
    assert chosen(ROUTED, bridge) == [("layernorm", "moe_act")]
    assert chosen(TOY, bridge) == chosen(ROUTED, core) == []


def test_no_way_to_run_again_is_tried_that_a_prediction_refuses() -> None:
    """What torchtitan selects, product by product, is not covered for mixers that keep a state."""
    hybrid = Workload(
        model=model_preset("nemotron-3-nano"),
        cluster=WORK.cluster,
        stack=stack_preset("torchtitan"),
        gpus=16,
        global_batch_size=16,
        sequence_length=4096,
    ).setup(RAMP_STAGE)
    assert rerun_choices(hybrid, ("none", "selective", "full")) == [{"recompute": "none"}, {"recompute": "full"}]
    with pytest.raises(NotSupportedError, match="is not covered for mamba2"):
        rerun_choices(hybrid, ("selective",))


PUBLISHED: tuple[
    dict[str, Any], ...
] = (  # NVIDIA-NeMo/Megatron-Bridge, performance summary: DeepSeek-V3 on 256 GPUs of GB200 NVL72
    {"pipeline_parallel": 4, "virtual_pipeline": 4, "expert_parallel": 64},
    {"pipeline_parallel": 8, "virtual_pipeline": 4, "expert_parallel": 32},
)


@pytest.mark.slow
def test_deepseek_v3_is_planned_at_least_as_fast_as_its_published_layouts() -> None:
    """Within 10 % of what NVIDIA published, in time as predicted: PP 4, VP 4, EP 64 and PP 8, VP 4, EP 32."""
    work = Workload(
        model=model_preset("deepseek-v3"),
        cluster=cluster_preset("gb200-nvl72"),
        stack=stack_preset("megatron-bridge"),
        gpus=256,
        global_batch_size=2048,
        sequence_length=4096,
    )
    space = replace(
        offered_space(work.stack, precision=("fp8",)),
        sharding=("zero1",),
        fixed={"micro_batch_size": (1, 2), "context_parallel": (1,), "tensor_parallel": (1, 2)},
        recompute=("none", "selective"),
    )
    best: LayoutCandidate = search(layout_grids(work, space), workers=2).fastest[0]
    for degrees in PUBLISHED:
        layout = Layout(
            precision="fp8",
            tensor_parallel=1,
            data_parallel=256 // degrees["pipeline_parallel"],
            sequence_parallel=True,
            sharding="zero1",
            recompute="selective",
            recompute_modules=("mla_up_proj",),
            micro_batch_size=1,
            global_batch_size=work.global_batch_size,
            sequence_length=work.sequence_length,
            **degrees,
        )
        assert best.iteration_time_s <= 1.1 * float(stage_breakdown(work.setup(layout)).total_s)


KINDS_OF_MIXTURES = (  # experts behind dense layers and latent attention; one expert a rank in 8 bits; mixers beside them
    ("deepseek-v3", "gb200-nvl72", "megatron-bridge", "fp8"),
    ("mixtral-8x7b", "dgx-h100", "megatron-core", "fp8"),
    ("nemotron-3-nano", "dgx-h100", "megatron-core-2025", "bf16"),
)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "cluster", "stack", "precision"), KINDS_OF_MIXTURES)
def test_layouts_of_a_grid_are_as_alone(model: str, cluster: str, stack: str, precision: str) -> None:
    """A grid has layouts with one expert a rank and with several, with experts in all stages or some: to the bit as alone."""
    room = cluster_preset(cluster)
    work = Workload(
        model=model_preset(model),
        cluster=replace(room, gpu=replace(room.gpu, memory_bytes=1e15)),
        stack=stack_preset(stack),
        gpus=64,
        global_batch_size=128,
        sequence_length=4096,
    )
    fixed = {"micro_batch_size": (1,), "context_parallel": (1, 2), "recompute_layers": (2,), "virtual_pipeline": (1,)}
    space = replace(offered_space(work.stack, precision=(precision,)), fixed=fixed)
    chosen = random.Random(7)  # noqa: S311 - a sample, no secret
    for grid in layout_grids(work, space):
        found = evaluated_grid(grid)
        for place in chosen.sample(np.flatnonzero(grid.allowed).tolist(), 3):
            candidate = found.candidate(place)
            single = alone(work.setup(candidate.layout))
            assert candidate.figures == (single.iteration_time_s, float(single.memory.total_bytes)), candidate.settings
