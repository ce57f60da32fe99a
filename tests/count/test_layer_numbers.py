"""How many layers of each kind a stage holds and runs again, against a walk through the model layer by layer."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest

from perfmodel.count.pipeline import every_stage, pipeline_split
from perfmodel.exchange.presets import model_preset, stack_preset
from perfmodel.spec.models.layer_kinds import LayerKind
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.pipeline_layout import piece_layers, stage_layers
from tests.layouts import RAMP_STAGE
from tests.setups import setup_of
from tests.stacks import stack_with

STACK = stack_preset("megatron-core")
KINDS = MappingProxyType({"local": LayerKind(attention="sliding", window=4096), "global": LayerKind()})
PIPELINES = [(1, 1), (2, 1), (4, 1), (4, 2), (8, 4), (3, 1), (6, 2)]


def mixed(layers: int) -> TransformerModel:
    """A model that begins with three layers of one kind, of which every third one is behind them."""
    llama = model_preset("llama-3.1-8b")
    pattern, first = ("local", "local", "global"), ("global",) * 3
    return replace(llama, layers=layers, layer_kinds=KINDS, layer_pattern=pattern, first_layers=first)


def met(model: TransformerModel, layers: list[int], virtual: int, again: int) -> dict[str, list[tuple[int, int]]]:
    """For each kind: layers of every stage, and those of them that do not run again."""
    stages, begin = len(layers), 0
    found = {kind: [(0, 0)] * stages for kind in model.kinds}
    passed = [0] * stages
    for place, number in enumerate(piece_layers(layers, virtual)):
        stage = place % stages
        for layer in range(begin, begin + number):
            every, plain = found[model.kind_at(layer)][stage]
            found[model.kind_at(layer)][stage] = (every + 1, plain + (passed[stage] >= again))
            passed[stage] += 1
        begin += number
    return found


@pytest.mark.parametrize(("stages", "virtual"), PIPELINES)
@pytest.mark.parametrize("again", [1, 2, 5, 100])
def test_ends_and_middle_hold_the_layers_that_a_walk_meets(stages: int, virtual: int, again: int) -> None:
    """Of every kind, with those that do not run again; stages between the ends together."""
    model = mixed(24 if 24 % (stages * virtual) == 0 else 32)
    layout = replace(RAMP_STAGE, pipeline_parallel=stages, virtual_pipeline=virtual)
    layout = replace(layout, recompute="full", recompute_layers=again)
    split = pipeline_split(setup_of(model, layout, STACK))
    first, _, last = (stage.held for stage in split.stages)
    alone = stages == 1
    ends = [int(np.asarray(split.stages.first.layers)), int(np.asarray(split.stages.last.layers))]
    layers = stage_layers(ends[0], 0 if alone else int(model.layers) - sum(ends), ends[1], stages)
    for kind, walked in met(model, layers, virtual, again).items():
        assert (first.every[kind], first.plain[kind]) == walked[0]
        assert (last.every[kind], last.plain[kind]) == walked[-1]
        between = [sum(column) for column in zip(*walked[1:-1], strict=True)] or [0, 0]
        assert [split.between.every[kind], split.between.plain[kind]] == between


def test_many_layouts_at_once_hold_what_each_of_them_does() -> None:
    """Arrays of stages and of layers that run again; how many layers there are has no axis for the latter."""
    layout = replace(RAMP_STAGE, recompute="full")
    stages, again = np.array([[1], [2], [4]]), np.arange(1, 9)
    model = mixed(24)
    many = pipeline_split(setup_of(model, replace(layout, pipeline_parallel=stages, recompute_layers=again), STACK))
    assert many.stages.first.held.every["local"].shape == (3, 1)  # type: ignore[union-attr]
    for row, column in np.ndindex(3, 8):
        one = replace(layout, pipeline_parallel=int(stages[row, 0]), recompute_layers=int(again[column]))
        alone = pipeline_split(setup_of(model, one, STACK))
        for kind in model.kinds:
            plain = np.broadcast_to(many.stages.last.held.plain[kind], (3, 8))
            assert plain[row, column] == alone.stages.last.held.plain[kind]


@pytest.mark.parametrize("backwards", [False, True])
def test_the_fullest_stage_between_the_ends_is_none_of_the_ends(backwards: bool) -> None:
    """Of four stages of two layers an end has both costly ones, and the one beside it one: that is the middle."""
    costly, cheap = LayerKind(), LayerKind(feed_forward="none")
    kinds = MappingProxyType({"costly": costly, "cheap": cheap})
    order = ("cheap", "cheap", "cheap", "cheap", "cheap", "costly", "costly", "costly")
    order = order[::-1] if backwards else order
    model = replace(model_preset("llama-3.1-8b"), layers=8, layer_kinds=kinds, layer_pattern=order)
    stack = stack_with(STACK, {"states.pipeline_split": "layers"})
    split = pipeline_split(setup_of(model, replace(RAMP_STAGE, pipeline_parallel=4), stack))
    held = [(int(stage.held.every["costly"]), int(stage.held.every["cheap"])) for stage in split.stages]
    assert held == [(2, 0), (1, 1), (0, 2)] if backwards else [(0, 2), (1, 1), (2, 0)]
    assert (int(split.between.every["costly"]), int(split.between.every["cheap"])) == (1, 3)


def test_every_stage_of_a_layout_that_is_written_down_has_its_place() -> None:
    """Three layers with the embedding, four and four, two with the head: of 13, and of one stage all of them."""
    model = replace(model_preset("llama-3.1-8b"), layers=13)
    written = replace(RAMP_STAGE, pipeline_parallel=4, pipeline_layout="Ettt|tttt|tttt|ttL")
    setup = setup_of(model, written, STACK)
    first, middle, last = pipeline_split(setup).stages
    found = [(int(s.layers), int(s.embedding), int(s.head), int(s.position), int(s.number)) for s in (first, middle, last)]
    assert found == [(3, 1, 0, 0, 1), (4, 0, 0, 1, 2), (2, 0, 1, 3, 1)]
    every = [(int(s.layers), s.embedding, s.head, s.position) for s in every_stage(setup)]
    assert every == [(3, 1, 0, 0), (4, 0, 0, 1), (4, 0, 0, 2), (2, 0, 1, 3)]
    two = replace(written, pipeline_parallel=2, pipeline_layout="Ettttttt|ttttttL")
    first, middle, last = pipeline_split(setup_of(model, two, STACK)).stages
    assert [(int(s.layers), int(s.position), int(s.number)) for s in (first, middle, last)] == [(7, 0, 1), (7, 1, 0), (6, 1, 1)]


def test_one_stage_that_is_written_down_holds_both_ends() -> None:
    """Of one piece: the first stage is the last."""
    alone = replace(RAMP_STAGE, pipeline_parallel=1, pipeline_layout="EttttL")
    first, middle, last = pipeline_split(setup_of(replace(model_preset("llama-3.1-8b"), layers=4), alone, STACK)).stages
    for stage in (first, last):
        assert (int(stage.layers), int(stage.embedding), int(stage.head), int(stage.position)) == (4, 1, 1, 0)
    assert int(middle.number) == 0


@pytest.mark.parametrize(
    ("split", "layers", "vocab_size", "stages_number", "expected"),
    [
        ("products", 2, 10**8, 4, [2, 0, 0]),
        ("modules", 2, 128256, 4, [1, 1, 0]),
        ("modules", 2, 128256, 3, [1, 1, 0]),
        ("modules", 1, 128256, 4, [0, 1, 0]),
    ],
)
def test_no_stage_holds_more_layers_than_are_left(
    split: str, layers: int, vocab_size: int, stages_number: int, expected: list[int]
) -> None:
    """A head that outweighs all layers leaves them to the first stage; an embedding is a module, and so are norm and head."""
    model = replace(model_preset("llama-3.1-8b"), layers=layers, vocab_size=vocab_size)
    stack = stack_with(STACK, {"states.pipeline_split": split})
    stages = pipeline_split(setup_of(model, replace(RAMP_STAGE, pipeline_parallel=stages_number), stack)).stages
    assert [int(stage.layers) for stage in stages] == expected
