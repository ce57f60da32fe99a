"""Do specs refuse what cannot be, whoever makes them?"""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from typing import Any

import numpy as np
import pytest

from perfmodel.errors import InputError, did_you_mean, shown
from perfmodel.exchange.building import build
from perfmodel.exchange.presets import cluster_preset, model_preset, read_preset, stack_preset
from perfmodel.spec.machines.coefficients import Evidence, MemoryBoundCoefficients
from perfmodel.spec.stack import SoftwareStack
from tests.stacks import stack_with

MODEL = model_preset("nemotron-4-15b")
CLUSTER = cluster_preset("dgx-h100")


def test_specs_are_frozen() -> None:
    """A spec that is passed around cannot change under anyone's feet."""
    with pytest.raises(FrozenInstanceError):
        MODEL.layers = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"layers": 0}, "layers"),
        ({"layers": np.array([1, 0])}, "layers"),
        ({"layers": "32"}, "layers"),
        ({"layers": True}, "layers"),
        ({"layers": np.nan}, "layers"),
        ({"layers": np.array([])}, "layers"),
        ({"hidden_size": 6144.5}, "hidden_size"),
        ({"kv_heads": 5}, "kv_heads"),
        ({"kv_heads": np.array([8, 5])}, "kv_heads"),
        ({"rotary_fraction": 0.0}, "rotary_fraction"),
        ({"rotary_fraction": 1.5}, "rotary_fraction"),
        ({"activation": "tanh"}, "activation"),
        ({"biases": 1}, "biases"),
        ({"name": "two\nlines"}, "name"),
    ],
)
def test_a_model_that_cannot_be_is_refused(changes: dict[str, Any], key: str) -> None:
    """With the key of the wrong field."""
    with pytest.raises(InputError) as caught:
        replace(MODEL, **changes)
    assert caught.value.key == key


def test_fields_may_hold_arrays() -> None:
    """Numbers broadcast, categories do not."""
    assert np.shape(replace(MODEL, layers=np.arange(1, 5)).layers) == (4,)
    with pytest.raises(InputError):
        replace(MODEL, norm=np.array(["layernorm"]))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spread", "key", "sentence"),
    [
        ({"compute_scal": 0.1}, "spread.compute_scal", "did you mean compute_scale?"),
        ({"spread": 0.1}, "spread.spread", "known: "),  # no number
        ({"name": 0.1}, "spread.name", "known: "),
        ({"network_scale": -0.1}, "spread", "must be at least 0"),
        ({"network_scale": 4.0}, "spread", "must be at most 3"),
        ({"network_scale": "wide"}, "spread", "is not a number"),
        ({"network_scale": np.nan}, "spread", "is not finite"),
    ],
)
def test_a_spread_is_of_a_number_beside_it(spread: dict[str, Any], key: str, sentence: str) -> None:
    """A slip of the pen is not left unsaid: the number would be taken as certain."""
    with pytest.raises(InputError) as caught:
        replace(CLUSTER, spread=spread)
    assert caught.value.key == key
    assert sentence in str(caught.value)


def test_a_spread_may_be_an_array_and_is_nothing_unless_stated() -> None:
    """Numbers are certain by default."""
    tile = CLUSTER.gpu.kernels.matmul["bf16"].tiles[0]
    assert not hasattr(tile, "spread")
    assert replace(CLUSTER, spread={"network_scale": np.array([0.0, 3.0])}).spread["network_scale"][1] == 3.0  # type: ignore[index]
    known = CLUSTER.gpu.kernels.memory_bound["fused"]
    bare = MemoryBoundCoefficients(fixed_s=0.0, efficiency=0.5, backward_fixed_s=0.0, backward_efficiency=0.5)
    assert dict(known.spread) != dict(bare.spread) == {}


@pytest.mark.parametrize("values", [(), (2.0, 1.0), (1.0, 1.0)])
def test_measured_sizes_rise(values: tuple[float, ...]) -> None:
    """The first and the last of them bound what was measured."""
    with pytest.raises(InputError, match="are not numbers in rising order") as caught:
        Evidence(basis="measured", sizes={"rows": values})
    assert caught.value.key == "sizes"
    assert Evidence(basis="measured", sizes={"rows": (1.0, 2.0)}).sizes["rows"] == (1.0, 2.0)


def test_only_optional_parts_may_be_absent() -> None:
    """A switch that adds up is; an all-gather is not."""
    known = CLUSTER.links.node.collectives
    assert replace(known, switch_reduce=None).switch_reduce is None
    with pytest.raises(InputError) as caught:
        replace(known, all_gather=None)  # type: ignore[arg-type]
    assert caught.value.key == "all_gather"
    with pytest.raises(InputError) as caught:
        replace(known, switch_reduce=known.all_gather)  # type: ignore[arg-type]
    assert caught.value.key == "switch_reduce"


@pytest.mark.parametrize("missing", ["eager", "optimizer", "cast"])
def test_a_gpu_knows_every_class_of_memory_bound_kernels(missing: str) -> None:
    """Casts only where it has 8-bit products."""
    kernels = CLUSTER.gpu.kernels
    left = {name: known for name, known in kernels.memory_bound.items() if name != missing}
    with pytest.raises(InputError) as caught:
        replace(kernels, memory_bound=left)
    assert caught.value.key == f"memory_bound.{missing}"
    if missing == "cast":
        replace(kernels, memory_bound=left, matmul={"bf16": kernels.matmul["bf16"]})


@pytest.mark.parametrize(
    ("name", "key", "sentence"),
    [
        ("gelluu", "memory_bound.gelluu", r"no class of kernels; did you mean gelu\?"),
        ("gelu.fp32", "memory_bound.gelu.fp32", r"no class of kernels; did you mean gelu\?"),
        ("gelu-fp23", "kernels.memory_bound.gelu-fp23", r"unknown number format; did you mean fp32\?"),
    ],
)
def test_a_kernel_that_no_operator_runs_is_refused(name: str, key: str, sentence: str) -> None:
    """Its coefficients would time nothing; those of a kernel, or of one precision of it, are welcome."""
    gpu = CLUSTER.gpu
    known = gpu.kernels.memory_bound["elementwise"]
    with pytest.raises(InputError, match=sentence) as caught:
        replace(gpu, kernels=replace(gpu.kernels, memory_bound={**gpu.kernels.memory_bound, name: known}))
    assert caught.value.key == key
    for right in ("gelu", "gelu-fp32", "elementwise-bf16"):
        replace(gpu, kernels=replace(gpu.kernels, memory_bound={**gpu.kernels.memory_bound, right: known}))


def test_head_sizes_are_whole_numbers() -> None:
    """Of the table by which attention knows them."""
    known = CLUSTER.gpu.kernels.attention_forward
    with pytest.raises(InputError) as caught:
        replace(known, by_head_size={"128": 1.0, "large": 1.1})
    assert caught.value.key == "by_head_size.large"


def test_errors_show_values_safely() -> None:
    """Whatever was typed fits in one short line."""
    endless: list[Any] = []
    endless.append(endless)
    for value in ("x" * 10**6, list(range(10**5)), {"a": "b" * 1000}, endless, "line\nbreak", 10**300):
        text = shown(value)
        assert len(text) <= 60
        assert "\n" not in text


def test_a_guess_is_offered_only_when_it_is_near() -> None:
    """Else all known words are."""
    assert did_you_mean("tensor_paralell", ["tensor_parallel", "name"]) == "did you mean tensor_parallel?"
    assert did_you_mean("zzz", ["b", "a"]) == "known: a, b"


def test_specs_are_equal_by_value_arrays_too() -> None:
    """And unequal to anything else."""
    arrays = replace(MODEL, layers=np.arange(1, 5))
    assert arrays == replace(MODEL, layers=np.arange(1, 5))
    assert arrays != replace(MODEL, layers=np.arange(2, 6))
    assert arrays != MODEL != "Nemotron-4 15B"
    assert replace(CLUSTER, name=CLUSTER.name) == CLUSTER
    assert replace(CLUSTER, spread={"network_scale": 0.1}) != CLUSTER
    assert "layers=32" in repr(MODEL)


def test_specs_with_arrays_in_their_tables_are_equal_by_value() -> None:
    """Spreads and peak rates are numbers too."""
    one, same, other = (replace(CLUSTER, spread={"network_scale": np.array([0.1, each])}) for each in (0.2, 0.2, 0.3))
    assert one == same
    assert one != other


@pytest.mark.parametrize(
    ("offered", "sentence"),
    [
        (("zero1", "zero_3"), "shardings: 'zero_3' is not one of them; did you mean zero3?"),
        (("zero1", "zero1"), "shardings: ('zero1', 'zero1') is not a list of different words, as in none zero1"),
        ((), "shardings: () is not a list of different words, as in none zero1"),
        ("zero1", "shardings: 'zero1' is not a list of different words, as in none zero1"),
        (["zero1"], "shardings: ['zero1'] is not a list of different words, as in none zero1"),
        ((3,), "shardings: 3 is not one of them; known: hsdp, none, zero1, zero2, zero3"),
    ],
)
def test_a_stack_offers_different_words_that_are_known(offered: Any, sentence: str) -> None:
    """A tuple of them; what is no tuple, empty, said twice or unknown gets one sentence."""
    with pytest.raises(InputError) as caught:
        stack_with(stack_preset("megatron-core"), {"offers.shardings": offered})
    assert str(caught.value) == sentence


@pytest.mark.parametrize("words", ["zero3 none", ["zero3", "none"]])
def test_a_file_gives_words_as_one_text_or_as_a_list(words: Any) -> None:
    """In the order in which it names them."""
    mapping, _ = read_preset("stacks", "megatron-core")
    assert build(SoftwareStack, mapping | {"offers": {**mapping["offers"], "shardings": words}}).offers.shardings == (
        "zero3",
        "none",
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("zero3 zeroo1", "offers.shardings: 'zeroo1' is not one of them; did you mean zero1?"),
        ([["zero3"]], "offers.shardings: ['zero3'] is not one of them; did you mean zero3?"),
        (7, "offers.shardings: 7 is not a list of different words, as in none zero1"),
    ],
)
def test_words_of_a_file_that_are_none_get_one_sentence(words: Any, sentence: str) -> None:
    """With the key."""
    mapping, _ = read_preset("stacks", "megatron-core")
    with pytest.raises(InputError) as caught:
        build(SoftwareStack, mapping | {"offers": {**mapping["offers"], "shardings": words}})
    assert str(caught.value) == sentence


def test_every_key_of_a_flat_stack_has_a_place_in_a_section() -> None:
    """What files of earlier versions said; nothing is called as it was on the top level."""
    core = stack_preset("megatron-core")
    for old, path in SoftwareStack.moved_keys.items():
        section, name = path.split(",", maxsplit=1)[0].split(".")
        assert hasattr(getattr(core, section), name), old
        assert old not in SoftwareStack.__dataclass_fields__


def test_a_flat_key_is_answered_with_its_path() -> None:
    """One sentence."""
    mapping, _ = read_preset("stacks", "megatron-core")
    with pytest.raises(InputError, match=r"^host_s: unknown key; it is called host.launch_s now$"):
        build(SoftwareStack, mapping | {"host_s": "6us"})
