"""Are the shipped numbers shown with sources that a person can read, and do presets fit into each other?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from perfmodel.errors import InputError, NotSupportedError
from perfmodel.exchange import presets
from perfmodel.exchange.building import build
from perfmodel.exchange.presets import (
    DATA,
    KINDS,
    cluster_preset,
    cluster_priors,
    expand_part,
    gpu_preset,
    merged,
    preset_names,
    preset_settings,
    preset_titles,
    read_preset,
    source_of,
    stack_preset,
)
from perfmodel.exchange.syntax.annotations import separated
from perfmodel.exchange.syntax.documents import read_mapping
from perfmodel.spec.machines.hardware import NetworkLink
from perfmodel.spec.precision import RECIPES, number_format
from perfmodel.spec.stack import SoftwareStack
from perfmodel.units import parse_quantity

BEFORE_AMPERE = ("volta", "turing")

FITTED = {
    "what": "products",
    "table": "a table",
    "version": "1.2",
    "licence": "MIT",
    "rows": 420,
    "fitted": "2026-01-01",
    "held_out": {"all": {"rows": 84, "median": 0.021, "p90": 0.0644}, "large": {"rows": 20, "median": 0.01, "p90": 0.02}},
}


@pytest.fixture
def shipped(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The mapping that stands in every file of a preset."""
    mapping: dict[str, Any] = {}
    monkeypatch.setattr(presets, "_shipped", lambda _: separated(mapping))
    return mapping


def test_a_structured_source_becomes_a_sentence(shipped: dict[str, Any]) -> None:
    """What was fitted, on which table, how many rows, when, and how wrong it is on rows that were not fitted."""
    shipped |= {"name": "x", "matmul": {"k": 1.0, "c": 2.0}, "sources": {"matmul": FITTED, "matmul.c": "kept"}}
    _, sources = read_preset("kernels", "h100-sxm-80gb")
    assert sources == {
        "matmul": "fitted on products (a table, 1.2, MIT), 420 rows, 2026-01-01; "
        "error on rows not fitted (median / p90) 2.1 % / 6.4 % of 84, large 1.0 % / 2.0 % of 20",
        "matmul.c": "kept",
    }


@pytest.mark.parametrize("kind", KINDS)
def test_every_source_that_ships_is_one_line_of_words(kind: str) -> None:
    """Whether its file has a sentence or a mapping; kernels and collectives are presets like all others."""
    for name in preset_names(kind):
        for _, settings in preset_settings(f"{kind}/{name}"):
            for key, _, source in settings:
                assert isinstance(source, str)
                assert source.isprintable(), (kind, name, key)
                assert not source.startswith("{")


@pytest.mark.parametrize("kind", ["kernels", "collectives"])
def test_fitted_numbers_carry_their_provenance(kind: str) -> None:
    """Table, version, licence, rows, date and held-out error of each family that was fitted."""
    for name in preset_names(kind):
        entries = read_mapping(DATA / kind / f"{name}.yaml").get("sources", {}).values()
        for entry in (each for each in entries if isinstance(each, Mapping)):
            assert set(entry) - {"at_bounds"} == set(FITTED)
            assert entry["rows"] > 0
            assert all(0 <= error["median"] <= error["p90"] for error in entry["held_out"].values())


def test_kernels_and_collectives_are_listed_by_title() -> None:
    """One profile a GPU that was fitted, or carried over to others; every link names its collectives."""
    carried = {name for name in preset_names("kernels") if name.endswith("carried-over")}
    assert set(preset_titles("kernels")["kernels"]) - carried <= set(preset_names("gpus"))
    assert carried <= {read_preset("gpus", gpu)[0]["kernels"] for gpu in preset_names("gpus")}
    named = {read_preset("links", link)[0]["collectives"] for link in preset_names("links")}
    assert named == set(preset_titles("collectives")["collectives"])


def test_a_spread_has_its_own_source_or_that_of_its_number() -> None:
    """A fit gives both; a prior is told apart."""
    sources = {"matmul.bf16": "a fit", "host_s": "a guess", "spread.host_s": "a range"}
    assert source_of("matmul.bf16.spread.k_half", sources) == "a fit"
    assert source_of("spread.host_s", sources) == "a range"
    assert source_of("spread.compute_scale", sources) == ""
    assert source_of("spread.compute_scale", {"compute_scale": "a prior"}) == "a prior"


def test_a_preset_that_extends_another_keeps_what_it_does_not_change() -> None:
    """Also inside its spread, and its sources."""
    core, later = stack_preset("megatron-core"), stack_preset("megatron-core-2025")
    assert later.host.clock_scale > core.host.clock_scale
    assert later.host.launch_s == core.host.launch_s
    assert {**core.host.spread, "clock_scale": later.host.spread["clock_scale"]} == later.host.spread
    _, sources = read_preset("stacks", "megatron-core-2025")
    assert sources["host.launch_s"] == read_preset("stacks", "megatron-core")[1]["host.launch_s"]


def test_every_cluster_doubts_its_clocks_links_and_network() -> None:
    """Those of the priors, unless it has its own."""
    priors = cluster_priors()[0]["spread"]
    for name in preset_names("clusters"):
        own, _ = read_preset("clusters", name)
        spread = cluster_preset(name).spread
        assert set(spread) >= {"compute_scale", "node_link_scale", "network_scale"}
        assert set(own.get("spread", {})) | set(priors) == set(spread)


def test_merging_replaces_values_and_keeps_the_rest() -> None:
    """Mapping by mapping; a list is replaced as a whole."""
    base = {"a": {"b": 1, "c": [1, 2]}, "d": 4}
    assert merged(base, {"a": {"c": [3]}, "e": 5}) == {"a": {"b": 1, "c": [3]}, "d": 4, "e": 5}
    assert base == {"a": {"b": 1, "c": [1, 2]}, "d": 4}


@pytest.mark.parametrize(("generation", "names"), {"volta": {"v100-sxm2-16gb", "v100-sxm2-32gb"}, "turing": {"t4"}}.items())
def test_tensor_cores_before_ampere_have_fp16_alone(generation: str, names: set[str]) -> None:
    """Volta's and Turing's; whoever asks for no format trains in it there, and is told what else there is."""
    assert {name for name in preset_names("gpus") if gpu_preset(name).generation == generation} == names
    for name in names:
        assert gpu_preset(name).wide_precision == "fp16"
        with pytest.raises(NotSupportedError, match="has no bf16 rate; it has fp16, fp32"):
            gpu_preset(name).check_recipe(RECIPES["bf16"])
    assert gpu_preset("rtx-3090").wide_precision == "bf16"


@pytest.mark.parametrize("name", preset_names("gpus"))
def test_a_gpu_times_products_in_every_precision_that_its_profile_has(name: str) -> None:
    """Its kernels are a preset of their own."""
    gpu = gpu_preset(name)
    assert number_format(gpu.wide_precision).circuits in gpu.kernels.matmul
    assert set(gpu.kernels.matmul) <= {number_format(each).circuits for each in gpu.peak_flop_per_s}


@pytest.mark.parametrize("name", [name for name in preset_names("kernels") if name.endswith("carried-over")])
def test_kernels_that_are_carried_over_say_so_and_are_less_sure(name: str) -> None:
    """No law of theirs counts as measured, and none is surer than on the chip that it was measured on."""
    of_gpu = {read_preset("gpus", gpu)[0]["kernels"]: gpu for gpu in preset_names("gpus")}
    extended = read_mapping(DATA / "kernels" / f"{name}.yaml")["extends"]
    own, origin = (gpu_preset(of_gpu.get(each, each)).kernels for each in (name, extended))
    for table in ("matmul", "memory_bound"):
        assert {each.evidence.basis for each in getattr(own, table).values()} == {"transferred"}
    laws = [(own.matmul[each], origin.matmul[each]) for each in own.matmul]
    laws += [(getattr(own, way), getattr(origin, way)) for way in ("attention_forward", "attention_backward")]
    for law, measured in laws:
        assert law.evidence.basis == "transferred"
        assert law.spread["efficiency"] >= measured.spread["efficiency"]


@pytest.mark.parametrize("name", preset_names("gpus"))
def test_peak_rates_are_dense_and_in_the_ratios_of_their_formats(name: str) -> None:
    """Half the bits, twice the rate; a sparse rate beside a dense one would be four times."""
    peaks = gpu_preset(name).peak_flop_per_s
    if gpu_preset(name).generation in BEFORE_AMPERE:
        assert float(peaks["fp16"] / peaks["fp32"]) == pytest.approx(8.0, rel=0.015)
        assert peaks.keys() == {"fp16", "fp32"}
        return
    assert peaks["fp16"] == peaks["bf16"]
    assert float(peaks["bf16"] / peaks["tf32"]) == pytest.approx(2.0, rel=0.015)
    assert peaks["fp32"] <= peaks["tf32"]
    if "fp8" in peaks:
        assert float(peaks["fp8"] / peaks["bf16"]) == pytest.approx(2.0, rel=0.03)


@pytest.mark.parametrize(
    ("gpu", "like", "share"),
    [("h800-sxm-80gb", "h100-sxm-80gb", 1.0), ("a800-sxm-80gb", "a100-sxm-80gb", 1.0), ("gh200-96gb", "h100-sxm-80gb", 1.0)],
)
def test_the_same_chip_has_the_same_peak(gpu: str, like: str, share: float) -> None:
    """What differs is the NVLink, or the memory."""
    assert gpu_preset(gpu).peak("bf16") == share * gpu_preset(like).peak("bf16")
    assert gpu_preset(gpu).streaming_multiprocessors == gpu_preset(like).streaming_multiprocessors


@pytest.mark.parametrize(
    ("cluster", "node_gbit", "link_gbyte"),
    [
        *(("hgx-a800", 1600, 200), ("hgx-h800", 3200, 200), ("hgx-h20", 3200, 450), ("dgx-b300", 6400, 900)),
        *(("p4d", 400, 300), ("p5", 3200, 450), ("p5en", 3200, 450), ("a3-mega", 1600, 450), ("a100-omni-path", 400, 300)),
        *(("gh200", 800, 450), ("gh200-slingshot", 800, 450), ("a100-slingshot", 800, 300)),
    ],
)
def test_a_cluster_has_the_rates_of_its_datasheet(cluster: str, node_gbit: float, link_gbyte: float) -> None:
    """Of a node's network in Gb/s, and of a GPU's NVLink in GB/s, one direction."""
    found = cluster_preset(cluster)
    assert float(found.network_bytes_per_s_per_gpu * found.gpus_per_node) == pytest.approx(node_gbit * 1e9 / 8)
    assert float(found.links.node.bandwidth_bytes_per_s) == pytest.approx(link_gbyte * 1e9)


@pytest.mark.parametrize("kind", [name for name in preset_names("collectives") if "nvlink" not in name and "pcie" not in name])
def test_networks_other_than_infiniband_are_doubted_more(kind: str) -> None:
    """None has its efficiency, or its certainty, by default."""
    link = next(name for name in preset_names("links") if read_preset("links", name)[0]["collectives"] == kind)
    known = expand_part(NetworkLink, "links", link)["collectives"]
    base = read_preset("collectives", "infiniband")[0]
    if kind != "infiniband":
        assert "efficiency" in read_mapping(DATA / "collectives" / f"{kind}.yaml")
        assert parse_quantity(known["spread"]["efficiency"], "ratio") > base["spread"]["efficiency"]
        assert known["evidence"]["basis"] == "transferred"


def test_a_mapping_that_extends_a_preset_replaces_what_stood_there() -> None:
    """Nothing of the other one is left in it."""
    assert merged({"a": {"b": 1, "c": 2}}, {"a": {"extends": "x", "b": 3}}) == {"a": {"extends": "x", "b": 3}}


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("kernels/h100", "'kernels/h100' is not a preset"),
        ("collective/infiniband", "is not a preset"),
        ("", "'' is not a preset"),
    ],
)
def test_a_preset_that_is_none_is_refused(name: str, sentence: str) -> None:
    """With what is near, or what there is."""
    with pytest.raises(InputError, match=sentence):
        preset_settings(name)


def test_a_kind_that_is_none_is_refused() -> None:
    """With the one that was meant."""
    with pytest.raises(InputError, match=r"'kernel' is not a kind of preset; did you mean kernels\?"):
        preset_titles("kernel")


def test_a_stack_of_an_earlier_version_is_read() -> None:
    """Its flat keys, and their spreads, mean what the sections mean now."""
    flat = {"extends": "torchtitan", "gradient_bytes": 2, "host_s": "9us", "spread": {"host_s": "40%"}}
    now = {
        "extends": "torchtitan",
        "states": {"gradient_bytes": 2},
        "host": {"launch_s": "9us", "spread": {"launch_s": "40%"}},
    }
    old, new = (build(SoftwareStack, expand_part(SoftwareStack, "stacks", each)) for each in (flat, now))
    assert old == new
    assert old.states.gradient_bytes == 2


def test_an_unknown_key_of_a_stack_is_still_refused() -> None:
    """Beside keys of an earlier version, too."""
    with pytest.raises(InputError, match=r"^gradient_byte: unknown key"):
        build(
            SoftwareStack, expand_part(SoftwareStack, "stacks", {"extends": "torchtitan", "gradient_byte": 2, "host_s": "9us"})
        )


@pytest.mark.parametrize("name", preset_names("gpus"))
def test_every_gpu_runs_every_recipe_but_those_of_4_and_8_bits(name: str) -> None:
    """Products on 4 bytes, and MXFP8 where a GPU has a rate for it, are carried over with a doubt of their own."""
    gpu = gpu_preset(name)
    known = ("fp16", "fp32") if gpu.generation in BEFORE_AMPERE else ("bf16", "fp16", "tf32", "fp32")
    for each in known:
        gpu.check_recipe(RECIPES[each])
    assert gpu.carried_products.keys() == {"tf32", "fp32", "mxfp8"} & gpu.peak_flop_per_s.keys()
    assert gpu.carried_attention is not None
    spreads = [law.spread for law in gpu.carried_products.values()]
    for spread in (*spreads, gpu.carried_attention.spread):
        assert spread
        assert all(0.05 <= float(each) <= 0.5 for each in spread.values())


def test_the_rates_on_4_bytes_are_those_of_the_datasheets() -> None:
    """TF32 dense, then fp32 outside of the tensor cores [TFLOP/s]."""
    printed = {"a100-sxm-80gb": (156, 19.5), "a800-sxm-80gb": (156, 19.5), "h100-sxm-80gb": (494.7, 67), "h20": (74, 44)}
    printed |= {"h200-sxm-141gb": (494.7, 67), "gh200-96gb": (494.7, 67), "h100-pcie-80gb": (378, 51), "l40s": (183, 91.6)}
    printed |= {"rtx-4090": (82.6, 82.6), "b200": (1125, 75), "gb200": (1250, 80)}
    for name, rates in printed.items():
        found = [float(gpu_preset(name).peak(each)) / 1e12 for each in ("tf32", "fp32")]
        assert found == pytest.approx(rates, rel=1e-6)


@pytest.mark.parametrize("name", preset_names("gpus"))
def test_a_gpu_is_in_a_cluster_that_tables_of_runs_can_name(name: str) -> None:
    """A chip without one could neither be rented nor scored."""
    clusters = read_mapping(DATA / "csv_columns.yaml")["clusters"].values()
    assert name in {read_preset("clusters", cluster)[0]["gpu"] for cluster in clusters}
