"""Does a search look at every layout that can exist, at each once, and at no other?"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from perfmodel.exchange.presets import stack_preset
from perfmodel.search.layouts import grids
from perfmodel.search.layouts.grids import layout_grids
from perfmodel.search.layouts.space import SearchSpace, Workload, offered_space
from perfmodel.spec.layout import Layout
from tests.search.layouts.spaces import every_layout, identity, layouts, places, space_of, workload
from tests.stacks import stack_with

TOY_16 = workload(gpus=16, batch=8)
ZERO_BUBBLE = ("zb-h1", "zb-1p", "zb-2p")


def seen(work: Workload, some: SearchSpace, **options: Any) -> Counter[tuple[Any, ...]]:
    """How often a search sees each layout."""
    return Counter(identity(layout) for grid in layout_grids(work, some, **options) for layout in layouts(grid))


def expected(work: Workload, some: SearchSpace) -> Counter[tuple[Any, ...]]:
    """Each layout of the brute force once."""
    return Counter({identity(layout): 1 for layout in every_layout(work, some)})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("work", "some"),
    [
        pytest.param(TOY_16, space_of(), id="toy on 16"),
        pytest.param(workload(gpus=24, batch=12), space_of(fixed={"micro_batch_size": (1, 2, 3)}), id="toy on 24"),
        pytest.param(
            workload(gpus=24, batch=12),
            space_of(sharding=("none", "zero1", "zero2", "zero3"), fixed={"virtual_pipeline": (1, 2)}),
            id="shardings",
        ),
        pytest.param(
            TOY_16,
            space_of(sharding=("zero3", "hsdp"), fixed={"virtual_pipeline": (1, 4), "micro_batch_size": (1, 2)}),
            id="copies of shards",
        ),
        pytest.param(
            TOY_16, space_of(pipeline_schedule=("1f1b", *ZERO_BUBBLE), fixed={"micro_batch_size": (1,)}), id="zero bubble"
        ),
        pytest.param(
            TOY_16,
            space_of(recompute=("none", "selective", "full"), fixed={"micro_batch_size": (1,), "context_parallel": (1, 2)}),
            id="layers again",
        ),
        pytest.param(
            TOY_16,
            space_of(
                sharding=("hsdp",),
                recompute=("full",),
                fixed={"recompute_layers": (0, 3, 8), "micro_batch_size": (1,), "context_parallel": (1,)},
            ),
            id="some layers again",
        ),
        pytest.param(
            workload("llama-3.1-8b", gpus=16, batch=16), space_of(fixed={"micro_batch_size": (1, 2)}), id="llama on 16"
        ),
        pytest.param(
            workload("llama-3.1-8b", gpus=16, batch=16),
            space_of(
                recompute=("full",), fixed={"micro_batch_size": (1,), "tensor_parallel": (2, 3), "context_parallel": (1,)}
            ),
            id="llama, layers again",
        ),
        pytest.param(
            workload("llama-3.1-8b", gpus=16, batch=16, stack="torchtitan"),
            space_of(precision=("bf16", "fp8"), fixed={"virtual_pipeline": (1,)}, sharding=("zero3",)),
            id="llama in two precisions",
        ),
        pytest.param(
            workload("gpt-3-175b", gpus=12, batch=6, stack="megatron-lm"), space_of(sequence_parallel=(False,)), id="unfused"
        ),
    ],
)
def test_every_layout_that_can_exist_is_seen_once(work: Workload, some: SearchSpace) -> None:
    """And nothing else: against loops over all degrees and sizes, of which each is checked alone."""
    assert seen(work, some) == expected(work, some)


@pytest.mark.parametrize("cells", [1, 50, 1 << 20])
@pytest.mark.parametrize(("long", "small"), [(1, 0), (200, 1 << 40), (1 << 40, 0)])
def test_how_grids_are_cut_changes_no_layout(cells: int, long: int, small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Grids of one row, or whole ones; layers that run again on an axis, as columns, or some of them so and some so.

    Layouts with interleaving and without in one grid, or apart.
    """
    some = space_of(sharding=("none", "zero1", "hsdp"), recompute=("selective", "full"), fixed={"micro_batch_size": (1, 2)})
    whole = seen(TOY_16, some)
    monkeypatch.setattr(grids, "LONG_AXIS", long)
    monkeypatch.setattr(grids, "SMALL_GRID", small)
    assert seen(TOY_16, some, cells=cells) == whole
    assert set(whole.values()) == {1}


def test_the_layout_of_a_place_is_that_of_the_arrays() -> None:
    """Every setting; of as many layers again as a stage has no number is said."""
    some = space_of(sharding=("zero1", "hsdp"), recompute=("none", "full"), fixed={"micro_batch_size": (1, 2)})
    for grid in layout_grids(TOY_16, some):
        rows, _, columns, layers = grid.allowed.shape
        arrays = grid.layouts
        for row, kind, column, again in places(grid):
            settings = grid.values(row, kind, column, again)
            for name, value in settings.items():
                whole = np.broadcast_to(getattr(arrays[kind], name), (rows, columns, layers))
                assert whole[row, column, again] == value, name
            if settings["recompute"] == "full" and "recompute_layers" not in settings:
                number = np.broadcast_to(np.asarray(arrays[kind].recompute_layers), (rows, columns, layers))[row, column, again]
                assert number == np.ceil(8 / settings["pipeline_parallel"])
            assert Layout(**settings).gpus == 16


def test_from_one_to_all_layers_of_a_stage_run_again() -> None:
    """8 layers over 2 stages: 1, 2 and 3 of 4, or all."""
    some = space_of(recompute=("full",), fixed={"pipeline_parallel": (2,), "micro_batch_size": (1,)})
    again = {layout.recompute_layers for grid in layout_grids(TOY_16, some) for layout in layouts(grid)}
    assert again == {1, 2, 3, None}


def test_copies_of_shards_are_of_hsdp_alone() -> None:
    """More than one, fewer than there are ranks, and all of as many ranks."""
    some = space_of(
        sharding=("zero3", "hsdp"), fixed={"tensor_parallel": (1,), "pipeline_parallel": (1,), "context_parallel": (1,)}
    )
    found = {
        (one.sharding, one.data_parallel_replicas)
        for grid in layout_grids(workload(gpus=16, batch=16), some)
        for one in layouts(grid)
    }
    assert found == {("zero3", 1), ("hsdp", 2), ("hsdp", 4), ("hsdp", 8)}


def test_sequence_parallelism_of_one_rank_is_counted_once() -> None:
    """Without it, unless there is nothing but it to choose from."""
    one = {"tensor_parallel": (1,), "micro_batch_size": (1,)}
    for offered, kept in (((True, False), False), ((False, True), False), ((True,), True), ((False,), False)):
        found = [one for grid in layout_grids(TOY_16, space_of(sequence_parallel=offered, fixed=one)) for one in layouts(grid)]
        assert {layout.sequence_parallel for layout in found} == {kept}


def test_every_place_along_an_axis_of_a_grid_has_a_layout() -> None:
    """Nothing is worked out for rows, shardings or columns that nothing can have."""
    some = space_of(sharding=("none", "zero1", "hsdp"), recompute=("none", "full"))
    for grid in layout_grids(workload(gpus=24, batch=12), some, cells=300):
        for axis in range(4):
            others = tuple(each for each in range(4) if each != axis)
            assert grid.allowed.any(axis=others).all()


def test_settings_that_do_not_change_take_no_room() -> None:
    """So that what depends on nothing else is worked out once."""
    fixed = {"tensor_parallel": (2,), "context_parallel": (1,), "pipeline_parallel": (2,), "virtual_pipeline": (1,)}
    some = space_of(recompute=("full",), fixed=fixed)
    (grid, *_) = layout_grids(TOY_16, some)
    (layout,) = grid.layouts
    for name in ("tensor_parallel", "context_parallel", "pipeline_parallel", "virtual_pipeline", "data_parallel"):
        assert np.size(getattr(layout, name)) == 1, name


@pytest.mark.parametrize(
    ("work", "some"),
    [
        (TOY_16, space_of(fixed={"tensor_parallel": (5,)})),
        (TOY_16, space_of(fixed={"pipeline_parallel": (11,)})),
        (TOY_16, space_of(pipeline_schedule=("zb-h1",), fixed={"virtual_pipeline": (2,)})),
        (TOY_16, space_of(sharding=("hsdp",), fixed={"data_parallel_replicas": (1,)})),
        (workload("gpt-3-175b", gpus=16, batch=16, length=4096), space_of()),  # beyond its learned positions
        (workload(gpus=11, batch=6), space_of()),  # more GPUs than layers, none of which divides the batch
    ],
)
def test_where_nothing_can_exist_there_is_no_grid(work: Workload, some: SearchSpace) -> None:
    """Values that no layout has, and batches that nothing divides."""
    assert list(layout_grids(work, some)) == []


@pytest.mark.parametrize("stack", ["megatron-core", "torchtitan", "generic"])
def test_what_a_stack_offers_may_be_chosen(stack: str) -> None:
    """Its shardings and schedules, all kinds of recompute, with and without sequence parallelism."""
    software = stack_preset(stack)
    offered = offered_space(software, precision=("fp8",))
    assert (offered.sharding, offered.pipeline_schedule) == (software.offers.shardings, software.offers.schedules)
    assert (offered.precision, set(offered.recompute), set(offered.sequence_parallel)) == (
        ("fp8",),
        {"none", "selective", "full"},
        {True, False},
    )
    assert not offered.fixed


@pytest.mark.parametrize(
    ("stack", "spread"), [("pytorch-fsdp", set()), ("reference", {"tensor_parallel", "pipeline_parallel"})]
)
def test_a_search_takes_no_degrees_that_the_stack_does_not_offer(stack: str, spread: set[str]) -> None:
    """FSDP alone has neither tensor nor pipeline nor context parallelism; whoever fixes a degree gets it all the same."""
    work = workload(gpus=16, batch=16, stack=stack)
    degrees = ("tensor_parallel", "pipeline_parallel", "context_parallel")
    found = [layout for block in layout_grids(work, space_of()) for layout in layouts(block)]
    assert {name for name in degrees for layout in found if getattr(layout, name) > 1} == spread
    assert list(layout_grids(work, space_of(fixed={"pipeline_parallel": (2,)})))


def test_software_without_data_parallelism_is_filled_by_its_other_degrees() -> None:
    """Every layout is one replica."""
    work = workload(gpus=8, batch=16)
    alone = replace(work, stack=stack_with(work.stack, {"offers.degrees": ("tensor_parallel", "pipeline_parallel")}))
    found = [layout for block in layout_grids(alone, space_of()) for layout in layouts(block)]
    assert found
    assert {int(layout.data_parallel) for layout in found} == {1}


def test_precisions_have_rules_of_their_own() -> None:
    """Megatron-Core shares sequences between ranks in 16 bits, and not where its attention forms scores; all else is alike."""
    some = space_of(precision=("bf16", "tf32", "fp32"), fixed={"micro_batch_size": (1,), "pipeline_parallel": (1,)})
    found = seen(TOY_16, some)
    assert found == expected(TOY_16, some)
    layouts_seen = [layout for grid in layout_grids(TOY_16, some) for layout in layouts(grid)]
    ranks = {each: {layout.context_parallel for layout in layouts_seen if layout.precision == each} for each in some.precision}
    assert ranks["tf32"] == ranks["fp32"] == {1}
    assert ranks["bf16"] > {1}
