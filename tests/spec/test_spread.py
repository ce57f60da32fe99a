"""Which numbers are uncertain, and does moving one of them move nothing else?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.errors import InputError
from perfmodel.exchange.presets import cluster_preset, gpu_preset, preset_names, stack_preset
from perfmodel.spec.evidence.spread import both_ends, moved, uncertain_numbers
from perfmodel.spec.fields import Spec
from perfmodel.spec.machines.hardware import Cluster

CLUSTER = cluster_preset("dgx-h100")
STACK = stack_preset("megatron-core")
PATHS = [path for path, _ in uncertain_numbers(CLUSTER)]


def numbers(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a spec by key path, by another road than the one under test: whatever is nested, as it is nested."""
    if isinstance(value, Spec):
        for entry in fields(value):  # type: ignore[arg-type]
            yield from numbers(getattr(value, entry.name), f"{path}.{entry.name}")
    elif isinstance(value, Mapping):
        for key, member in value.items():
            yield from numbers(member, f"{path}.{key}")
    elif isinstance(value, tuple):
        for index, member in enumerate(value):
            yield from numbers(member, f"{path}[{index}]")
    else:
        yield path.removeprefix("."), value


def changed(before: Spec, after: Spec) -> dict[str, float]:
    """The values that differ, each as a multiple of what it was."""
    old, new = dict(numbers(before)), dict(numbers(after))
    assert list(old) == list(new)
    return {path: new[path] / old[path] for path in old if not np.array_equal(old[path], new[path])}


def test_uncertain_numbers_are_those_of_the_spreads() -> None:
    """Of the cluster itself and of all that it is made of, by the key path of the number."""
    found = dict(uncertain_numbers(CLUSTER, "cluster."))
    assert found["cluster.network_scale"] == CLUSTER.spread["network_scale"]
    products = CLUSTER.gpu.kernels.matmul["fp8"].spread
    assert found["cluster.gpu.kernels.matmul.fp8.efficiency"] == products["efficiency"]
    stated = [path for path, spread in numbers(CLUSTER) if ".spread." in f".{path}" and spread]
    assert sorted(f"cluster.{path}".replace(".spread.", ".") for path in stated) == sorted(found)


def test_a_number_without_spread_is_certain() -> None:
    """Absent or 0 are the same; an array is uncertain where any of it is."""
    none = replace(STACK.host, spread={})
    assert list(uncertain_numbers(none)) == []
    assert list(uncertain_numbers(replace(none, spread={"launch_s": 0.0}))) == []
    assert [path for path, _ in uncertain_numbers(replace(none, spread={"launch_s": np.array([0.0, 0.1])}))] == ["launch_s"]


@pytest.mark.parametrize("path", PATHS)
def test_moving_one_number_moves_nothing_else(path: str) -> None:
    """However deep it lies."""
    assert changed(CLUSTER, moved(CLUSTER, {path: 0.99})) == {path: pytest.approx(0.99)}


def test_members_of_lists_move_by_their_place() -> None:
    """The second tile of 16-bit products, under the name that a cluster gives them."""
    path = "gpu.kernels.matmul.bf16.tiles[1].rate"
    after = moved(CLUSTER, {f"cluster.{path}": 0.5, "stack.host.launch_s": 3.0}, "cluster.")
    assert changed(CLUSTER, after) == {path: pytest.approx(0.5)}


def test_a_kernel_and_its_precisions_move_apart() -> None:
    """The dash in the key of one is part of its name: gelu is not the start of gelu-fp32."""
    kernels = CLUSTER.gpu.kernels
    known = replace(kernels.memory_bound["elementwise"], spread={"efficiency": 0.1})
    classes = {**kernels.memory_bound, "gelu": known, "gelu-fp32": known, "gelu-bf16": known}
    finer = replace(kernels, memory_bound=classes)
    paths = {path for path, _ in uncertain_numbers(finer) if "gelu" in path}
    assert paths == {f"memory_bound.{name}.efficiency" for name in ("gelu", "gelu-fp32", "gelu-bf16")}
    for path in paths:
        after = moved(finer, {path: 0.5})
        assert changed(finer, after) == pytest.approx({path: 0.5})


def test_numbers_move_together() -> None:
    """All at once, each by its own factor."""
    factors = {path: 1.0 - index / 10_000 for index, path in enumerate(PATHS, start=1)}
    assert changed(CLUSTER, moved(CLUSTER, factors)) == pytest.approx(factors)


def test_moving_nothing_gives_an_equal_spec() -> None:
    """Of the same kind."""
    assert moved(CLUSTER, {}) == CLUSTER
    assert isinstance(moved(CLUSTER, {}), Cluster)


def test_an_optional_part_that_is_not_there_has_no_numbers() -> None:
    """A100 nodes have no switch that adds up."""
    a100 = cluster_preset("dgx-a100")
    assert not [path for path, _ in uncertain_numbers(a100) if "switch_reduce" in path]
    after = moved(a100, {"links.node.collectives.all_reduce.latency_s": 2.0})
    assert after.links.node.collectives.switch_reduce is None


def test_the_end_of_an_interval_lies_no_further_than_a_file_may_say() -> None:
    """No network is more than wholly used."""
    after = moved(CLUSTER, {"links.network.collectives.efficiency": 2.0})
    assert after.links.network.collectives.efficiency == 1


@given(st.lists(st.floats(0, 3), min_size=1, max_size=6), st.integers(0, 3))
def test_each_number_has_its_two_ends_at_places_of_its_own(spreads: list[float], dimensions: int) -> None:
    """1 + s and its inverse; 1 at the first place and where another number moves, on a first axis before the others."""
    factors = both_ends({str(index): spread for index, spread in enumerate(spreads)}, dimensions)
    for index, spread in enumerate(spreads):
        factor = np.asarray(factors[str(index)])
        assert factor.shape == (1 + 2 * len(spreads), *(1,) * dimensions)
        flat = factor.ravel()
        expected = np.ones(1 + 2 * len(spreads))
        expected[1 + 2 * index : 3 + 2 * index] = 1 + spread, 1 / (1 + spread)
        assert flat == pytest.approx(expected)


def test_a_spread_may_be_an_array() -> None:
    """One interval for each of three clusters."""
    factor = np.asarray(both_ends({"a": np.array([0.1, 0.2, 0.3])}, 1)["a"])
    assert factor == pytest.approx(np.array([[1.0, 1.0, 1.0], [1.1, 1.2, 1.3], [1 / 1.1, 1 / 1.2, 1 / 1.3]]))


@pytest.mark.parametrize("gpu", preset_names("gpus"))
def test_the_rate_of_every_product_and_memory_bound_kernel_is_uncertain(gpu: str) -> None:
    """No fit is exact."""
    kernels = gpu_preset(gpu).kernels
    assert all(known.spread.get("efficiency", 0) > 0 for known in kernels.matmul.values())
    assert all(known.spread.get("efficiency", 0) > 0 for known in kernels.memory_bound.values())


def test_a_whole_number_cannot_be_uncertain() -> None:
    """A node of 7.6 GPUs is none: the name is refused, and those that would do are given."""
    with pytest.raises(InputError, match="no number beside it that can be uncertain"):
        replace(cluster_preset("dgx-h100"), spread={"gpus_per_node": 0.05})
