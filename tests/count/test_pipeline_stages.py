"""Which layers and matrices each pipeline stage holds, and how many micro-batches it has in flight.

Symbols: L layers, p pipeline_parallel, v virtual_pipeline, m micro-batches, i = 0 .. p - 1 a stage.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.count.iteration import iteration
from perfmodel.count.operators import Operator
from perfmodel.count.parameters import parameter_count, shard_parameter_count
from perfmodel.count.pipeline import PipelineStages, in_flight, pipeline_split
from perfmodel.exchange.presets import model_preset, stack_preset
from perfmodel.spec.fields import Numeric
from perfmodel.spec.layout import PIPELINE_SCHEDULES, Layout
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.phases import OPTIMIZER
from perfmodel.spec.stack import SoftwareStack
from tests.layouts import RAMP_STAGE
from tests.setups import setup_of
from tests.stacks import stack_with

LLAMA = model_preset("llama-3.1-8b")
BY_LAYERS = stack_with(stack_preset("megatron-core"), {"states.pipeline_split": "layers"})
BY_PRODUCTS = stack_with(BY_LAYERS, {"states.pipeline_split": "products"})
BY_MODULES = stack_with(BY_LAYERS, {"states.pipeline_split": "modules"})
TIED = model_preset("gpt-3-175b")
UNTIED = replace(TIED, name="untied", tied_embeddings=False)


def pipeline(stages: int, virtual: int = 1, *, micro_batches: int = 64, schedule: str = "1f1b") -> Layout:
    """The ramp's layout as a pipeline."""
    return replace(
        RAMP_STAGE,
        pipeline_parallel=stages,
        virtual_pipeline=virtual,
        pipeline_schedule=schedule,
        global_batch_size=96 * micro_batches,
    )


def stages_of(layers: int, stages: int, virtual: int = 1, stack: SoftwareStack = BY_LAYERS) -> PipelineStages:
    """The distinct stages of so many layers."""
    return pipeline_split(setup_of(replace(LLAMA, layers=layers), pipeline(stages, virtual), stack)).stages


def layers_of(layers: int, stages: int, virtual: int = 1, stack: SoftwareStack = BY_LAYERS) -> list[float]:
    """Layers of the first stage, of the fullest in between, and of the last."""
    return [float(stage.layers) for stage in stages_of(layers, stages, virtual, stack)]


def held(stages: int, micro_batches: int, schedule: str = "1f1b", virtual: int = 1) -> list[float]:
    """Micro-batches in flight on the first, the second and the last stage, of those that there are."""
    layout = pipeline(stages, virtual, micro_batches=micro_batches, schedule=schedule)
    return [
        float(in_flight(layout, stage))
        for stage in pipeline_split(setup_of(LLAMA, layout, BY_LAYERS)).stages
        if stage.number > 0
    ]


def test_one_stage_holds_everything() -> None:
    """All layers, the embedding and the head; the first stage is the last, and none is between."""
    first, middle, last = stages_of(32, 1)
    for stage in (first, last):
        assert (stage.layers, stage.embedding, stage.head, stage.position) == (32, 1, 1, 0)
    assert middle.number == 0


def test_several_stages_have_the_embedding_first_and_the_head_last() -> None:
    """Those between have neither; their place is counted from 0."""
    first, middle, last = stages_of(32, 8)
    assert [(stage.embedding, stage.head) for stage in (first, middle, last)] == [(1, 0), (0, 0), (0, 1)]
    assert [float(stage.position) for stage in (first, middle, last)] == [0, 1, 7]
    assert [float(stage.number) for stage in (first, middle, last)] == [1, 6, 1]


@pytest.mark.parametrize(
    ("layers", "stages", "virtual", "expected"),
    [
        (32, 8, 1, [4, 4, 4]),
        (32, 8, 4, [4, 4, 4]),
        (96, 8, 12, [12, 12, 12]),
        (105, 35, 3, [3, 3, 3]),  # arXiv:2205.05198: the 530 billion model
        (126, 16, 1, [7, 8, 7]),  # Llama 3.1 405B, arXiv:2407.21783, section 3.3.2: one layer fewer on each end
        (126, 8, 8, [15, 16, 15]),
        (62, 8, 4, [7, 8, 7]),
        (62, 8, 1, [7, 8, 7]),
        (31, 8, 1, [4, 4, 3]),  # the head alone counts as a layer
        (31, 4, 8, [8, 8, 7]),
        (33, 2, 1, [17, 17, 16]),  # nothing fits: the longer ones come first
        (35, 3, 1, [12, 12, 11]),  # 35 + 1 is 3 * 12
        (34, 3, 1, [11, 12, 11]),  # and so is 34 + 2
        (10, 4, 1, [2, 3, 2]),  # 2 + 3 + 3 + 2
        (13, 5, 1, [2, 3, 2]),  # 13 + 2 is 5 * 3
        (12, 5, 1, [3, 3, 0]),  # three are missing: the last stage is left to the head
        (61, 16, 1, [4, 4, 1]),  # DeepSeek-V3 as NVIDIA writes it down, Et*4|(tttt|)*14tmL
        (61, 4, 4, [16, 16, 13]),  # the same pieces, of which every stage has four
        (61, 8, 4, [7, 8, 6]),  # Et|(tt|)*30mL
        (61, 4, 1, [16, 16, 13]),  # Megatron-Bridge's layout of four stages
        (44, 4, 3, [11, 11, 11]),  # stages are even, though their pieces are not
        (28, 16, 1, [1, 2, 1]),  # more are missing than two pieces have
        (2, 4, 1, [0, 1, 0]),  # a stage of an embedding alone, and one of a head
        (3, 4, 1, [1, 1, 0]),
    ],
)
def test_layers_are_even_or_the_ends_count_as_one(layers: int, stages: int, virtual: int, expected: list[float]) -> None:
    """Even over all pieces; else with embedding and head counted as layers, the head alone, or some a layer longer."""
    assert layers_of(layers, stages, virtual) == expected


def greedy_layers(layers: int, head: float, stages: int) -> list[int]:
    """Layers of each stage as huggingface/nanotron's loop deals them out, the head weighing so many layers."""
    total, held, stage = layers + head, [0] * stages, 0
    for done in range(1, layers + 1):
        held[stage] += 1
        if done > total * (stage + 1) / stages:
            stage += 1
    return held


@pytest.mark.parametrize("layers", [16, 28, 32, 80])
@pytest.mark.parametrize("stages", [2, 3, 4, 8])
@pytest.mark.parametrize("vocabulary", [32000, 128256, 262144])
def test_stages_end_with_what_takes_them_past_their_share(layers: int, stages: int, vocabulary: int) -> None:
    """The closed form is the loop: first and last stage, the fullest in between, and all of them together."""
    model = replace(LLAMA, layers=layers, vocab_size=vocabulary)
    split = pipeline_split(setup_of(model, pipeline(stages), BY_PRODUCTS))
    dealt = greedy_layers(layers, vocabulary / (4 * 4096 + 3 * 14336), stages)
    first, middle, last = (float(stage.layers) for stage in split.stages)
    assert (first, last) == (dealt[0], dealt[-1])
    assert float(sum(split.between.every.values())) == sum(dealt[1:-1])
    if stages > 2:
        assert middle == max(dealt[1:-1])


@pytest.mark.parametrize(
    ("layers", "stages", "expected"),
    [
        (40, 1, [40]),
        (40, 2, [21, 19]),  # 22 and 21 modules: an embedding among the first, a norm and a head among the last
        (41, 2, [21, 20]),
        (40, 4, [10, 11, 8]),  # 43 modules: 11, 11, 11, 10
        (41, 4, [10, 11, 9]),
        (80, 8, [10, 11, 8]),  # 83 modules: three stages of 11 and five of 10
        (78, 8, [10, 10, 8]),  # 81: one of 11
    ],
)
def test_other_software_deals_out_modules(layers: int, stages: int, expected: list[float]) -> None:
    """Embedding, last norm and head count as a layer each, and the first stages take what is left over."""
    found = [float(stage.layers) for stage in stages_of(layers, stages, stack=BY_MODULES) if stage.number > 0]
    assert found == (expected if stages > 1 else expected * 2)


def summed(layers: int, stages: int, virtual: int, stack: SoftwareStack) -> float:
    """Layers of all stages, those between one by one: the fullest, and as many one shorter as the sum leaves."""
    first, middle, last = layers_of(layers, stages, virtual, stack)
    if stages <= 2:
        return first + last if stages == 2 else first
    between = layers - first - last
    number = stages - 2
    full = between - number * (middle - 1)
    assert 1 <= full <= number
    return first + full * middle + (number - full) * (middle - 1) + last


@given(st.integers(1, 130), st.integers(1, 40), st.integers(1, 12))
def test_the_stages_share_all_layers_out(layers: int, stages: int, virtual: int) -> None:
    """None is lost or held twice, and no stage holds fewer than none; those between differ by at most one."""
    if stages * virtual <= layers + (2 if stages * virtual > 2 else 0) and (virtual == 1 or stages > 1):
        assert summed(layers, stages, virtual, BY_LAYERS) == layers
        assert min(layers_of(layers, stages, virtual)) >= 0


@given(st.integers(1, 130), st.integers(1, 40))
def test_stages_of_modules_share_all_layers_out_too(layers: int, stages: int) -> None:
    """Up to one a stage; norm and head may fill two stages, and leave none with fewer layers than none."""
    if stages <= layers:
        assert summed(layers, stages, 1, BY_MODULES) == layers
        assert min(layers_of(layers, stages, stack=BY_MODULES)) >= 0


@given(st.integers(1, 130), st.integers(2, 40))
def test_no_stage_is_fuller_than_it_must_be(layers: int, stages: int) -> None:
    """However many there are; only the ends hold more than one layer less."""
    if stages <= layers + (2 if stages > 2 else 0):
        first, middle, last = stages_of(layers, stages)
        fullest = max(float(stage.layers) for stage in (first, last, *([middle] if middle.number else [])))
        assert fullest == math.ceil(layers / stages)
        assert float(last.layers) <= float(first.layers)


@pytest.mark.parametrize("tensor_parallel", [1, 8])
@pytest.mark.parametrize("model", [LLAMA, model_preset("nemotron-4-15b"), UNTIED], ids=lambda m: m.name)
def test_stages_together_hold_the_parameters_of_one_shard(model: TransformerModel, tensor_parallel: int) -> None:
    """Layers by their share, each matrix of the vocabulary and the last norm once."""
    layout = replace(pipeline(8), tensor_parallel=tensor_parallel)
    stages = pipeline_split(setup_of(model, layout, BY_LAYERS)).stages
    total: Numeric = 0.0
    for stage in stages:
        total = total + stage.number * stage.parameters.total
    assert total == pytest.approx(shard_parameter_count(model, tensor_parallel=tensor_parallel).total, rel=1e-15)


@pytest.mark.parametrize(
    "recompute", [{"recompute": "none"}, {"recompute": "full"}, {"recompute": "full", "recompute_layers": 5}]
)
@pytest.mark.parametrize(("stages", "virtual"), [(1, 1), (4, 1), (4, 2)])
def test_the_stages_together_run_the_passes_of_the_whole_model(recompute: dict[str, Any], stages: int, virtual: int) -> None:
    """As often as `executions` says of all of them, what runs again too: some layers of each stage, or all, or none."""
    layout = replace(pipeline(stages, virtual), sequence_parallel=False, sharding="none", **recompute)
    work = iteration(setup_of(replace(LLAMA, layers=32), layout, BY_LAYERS))
    together: Counter[tuple[str, str]] = Counter()
    for stage in work.every_stage:
        together += passes(work.stage_executions(stage))
    assert together == passes(work.executions())


def passes(executions: Iterable[tuple[Operator, Numeric]]) -> Counter[tuple[str, str]]:
    """How often each operator runs, those of the optimizer step apart."""
    found: Counter[tuple[str, str]] = Counter()
    for operator, times in executions:
        if operator.phase != OPTIMIZER and times:
            found[operator.name, operator.phase] += int(times)
    return found


def test_tied_embeddings_lie_on_both_ends_of_a_pipeline() -> None:
    """A copy of V*h parameters more than the model has; none more on one stage."""
    counts = [
        sum(
            float(stage.number * stage.parameters.total)
            for stage in pipeline_split(setup_of(TIED, replace(pipeline(stages), tensor_parallel=1), BY_LAYERS)).stages
        )
        for stages in (8, 2)
    ]
    padding = (TIED.padded_vocab_size(1) - TIED.vocab_size) * TIED.hidden_size
    vocabulary = TIED.padded_vocab_size(1) * TIED.hidden_size
    assert counts == pytest.approx([float(parameter_count(TIED).total + padding + vocabulary)] * 2, rel=1e-15)
    alone = pipeline_split(setup_of(TIED, replace(pipeline(1), tensor_parallel=1), BY_LAYERS)).stages.first.parameters
    assert alone.total == parameter_count(TIED).total + padding


@given(st.sampled_from([1, 2, 4, 8]), st.integers(1, 4), st.integers(1, 100), st.sampled_from(PIPELINE_SCHEDULES))
def test_no_stage_holds_more_micro_batches_than_there_are(stages: int, virtual: int, groups: int, schedule: str) -> None:
    """Nor less than one."""
    interleaved = schedule == "1f1b" and stages > 1
    found = held(stages, groups * stages, schedule, virtual if interleaved else 1)
    assert all(1 <= each <= groups * stages for each in found)


@pytest.mark.parametrize("micro_batches", [1, 2, 64])
def test_one_stage_has_one_micro_batch_in_flight(micro_batches: int) -> None:
    """Each goes back before the next comes."""
    assert held(1, micro_batches)[0] == 1


@pytest.mark.parametrize(
    ("schedule", "stages", "micro_batches", "virtual", "expected"),
    [
        ("1f1b", 8, 64, 1, [8, 7, 1]),  # p - i
        ("1f1b", 8, 4, 1, [4, 4, 1]),  # no more than there are
        ("1f1b", 2, 8, 2, [2.5, 1.5]),  # 5 pieces of half a micro-batch: 1*2 + 2*1 + 1 of warm-up, then 1*2 + 1
        ("1f1b", 4, 8, 2, [5.5, 4.5, 2.5]),  # 4 + 2*3 + 1, 4 + 2*2 + 1, 4 + 1 pieces of a half
        ("1f1b", 4, 4, 2, [4, 4, 2.5]),
        ("1f1b", 4, 64, 4, [4.75, 4.25, 3.25]),  # 12 + 6 + 1, 12 + 4 + 1, 12 + 1 of a quarter
        ("zb-h1", 8, 64, 1, [8, 8, 8]),
        ("zb-1p", 8, 64, 1, [8, 8, 8]),
        ("zb-1p", 8, 3, 1, [3, 3, 3]),
        ("zb-2p", 8, 64, 1, [16, 16, 16]),
        ("zb-2p", 8, 12, 1, [12, 12, 12]),
    ],
)
def test_micro_batches_in_flight(schedule: str, stages: int, micro_batches: int, virtual: int, expected: list[float]) -> None:
    """Counted by hand from the order of each schedule."""
    assert held(stages, micro_batches, schedule, virtual) == expected


@given(st.sampled_from([2, 4, 8, 16]), st.integers(2, 8), st.integers(4, 10))
def test_interleaving_holds_more_but_less_than_twice_as_much(stages: int, virtual: int, groups: int) -> None:
    """The first stage of 1F1B holds p micro-batches, p + (p - 1)/v when it is interleaved (arXiv:2104.04473, section 2.2)."""
    plain, woven = (held(stages, groups * stages, virtual=v)[0] for v in (1, virtual))
    assert woven == pytest.approx(stages + (stages - 1) / virtual)
    assert plain < woven < 2 * plain


@pytest.mark.parametrize("stack", [BY_LAYERS, BY_MODULES], ids=["layers", "modules"])
def test_an_array_of_pipelines_has_the_stages_of_each(stack: SoftwareStack) -> None:
    """Stages down, pieces across."""
    model = replace(LLAMA, layers=62)
    stages, virtual = np.array([[1], [2], [8], [31]]), np.array([1, 2, 4])
    layout = replace(pipeline(1), pipeline_parallel=stages, virtual_pipeline=virtual)
    together = pipeline_split(setup_of(model, layout, stack)).stages
    for index in np.ndindex(4, 3):
        one = replace(layout, pipeline_parallel=int(stages[index[0], 0]), virtual_pipeline=int(virtual[index[1]]))
        for many, alone in zip(together, pipeline_split(setup_of(model, one, stack)).stages, strict=True):
            for name in ("layers", "embedding", "head", "position", "number"):
                assert np.broadcast_to(getattr(many, name), (4, 3))[index] == getattr(alone, name)
            assert np.broadcast_to(in_flight(layout, many), (4, 3))[index] == in_flight(one, alone)
