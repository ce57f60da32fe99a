"""Is the source of a number found wherever it stands: in a preset, in one that it names, in a file, on the command line?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perfmodel.exchange.presets import DATA, cluster_priors, read_preset, source_of
from perfmodel.exchange.run_files import read_candidates
from perfmodel.exchange.sources import run_sources
from perfmodel.explanation.levers import coefficients

RUN = "nemotron-4-15b"
SET = "given with --set, or as a setting"


def source(path: str, run: Any = RUN, overrides: Any = ()) -> str:
    """That of the number at a key path."""
    return source_of(path, run_sources(run, overrides))


@pytest.mark.parametrize("run", ["nemotron-4-15b", "laptop"])
def test_every_number_of_a_shipped_run_has_a_source(run: str) -> None:
    """Whatever `explain` may list, but what a spec itself takes where nobody says."""
    mapping, sources = read_candidates(run)[0].run, run_sources(run)
    known = coefficients(mapping.cluster, mapping.stack)
    defaults = ("_factor", "cached_speedup", "scratch")
    bare = [path for path in known if not source_of(path, sources) and not path.endswith(defaults)]
    assert not bare


@pytest.mark.parametrize(
    ("path", "kind", "name", "key"),
    [
        ("cluster.compute_scale", "clusters", "dgx-h100", "compute_scale"),
        ("cluster.gpu.cache_bytes", "gpus", "h100-sxm-80gb", "cache_bytes"),
        ("cluster.gpu.kernels.memory_bound.fused.fixed_s", "kernels", "h100-sxm-80gb", "memory_bound.fused.fixed_s"),
        ("cluster.links.network.collectives.efficiency", "collectives", "infiniband", "efficiency"),
        ("stack.host.launch_s", "stacks", "megatron-core", "host.launch_s"),
    ],
)
def test_the_source_is_that_of_the_preset_that_holds_the_number(path: str, kind: str, name: str, key: str) -> None:
    """At any depth."""
    assert source(path) == source_of(key, read_preset(kind, name)[1])


def test_a_prior_has_its_source() -> None:
    """What no cluster says of itself."""
    assert source("cluster.network_scale") == cluster_priors()[1]["network_scale"]


def test_what_is_set_says_so_and_another_preset_brings_its_own() -> None:
    """A number, a part inside a part, a whole part."""
    assert source("cluster.compute_scale", overrides=["cluster.compute_scale=0.8"]) == SET
    assert source("cluster.gpu.cache_bytes", overrides=["cluster.compute_scale=0.8"]) != SET
    h200 = source_of("cache_bytes", read_preset("gpus", "h200-sxm-141gb")[1])
    assert source("cluster.gpu.cache_bytes", overrides=["cluster.gpu=h200-sxm-141gb"]) == h200
    assert source("cluster.gpu.cache_bytes", overrides=["cluster=dgx-h200"]) == h200
    assert source("cluster.gpu.cache_bytes", overrides=["cluster=[dgx-h200,dgx-b200]"]) == h200
    assert source("cluster.gpu.cache_bytes", overrides=[("cluster.gpu.cache_bytes", 1e6)]) == SET


def test_a_file_in_the_place_of_a_preset_is_named_with_its_sources(tmp_path: Path) -> None:
    """Whatever it says of sources, and whatever it extends."""
    here = tmp_path / "here.yaml"
    here.write_text(
        "extends: dgx-h100\nname: here\ncompute_scale: 0.85\nnetwork_scale: 0.8\nsources: {compute_scale: our clocks}\n"
    )
    overrides = [f"cluster={here}"]
    assert source("cluster.compute_scale", overrides=overrides) == "our clocks"
    assert source("cluster.gpu.cache_bytes", overrides=overrides) == source("cluster.gpu.cache_bytes")


@pytest.mark.parametrize("text", ["sources: 3\n", "sources: {compute_scale: [1, 2], network_scale: {a: b}}\n", ""])
def test_strange_sources_are_no_error(text: str, tmp_path: Path) -> None:
    """They are for people."""
    here = tmp_path / "here.yaml"
    here.write_text(f"extends: dgx-h100\nname: here\n{text}")
    assert isinstance(source("cluster.compute_scale", overrides=[f"cluster={here}"]), str)


def test_a_mapping_and_a_spec_are_read_too() -> None:
    """A spec has no sources."""
    mapping, _ = read_preset("runs", RUN)
    assert source("stack.host.launch_s", mapping) == source("stack.host.launch_s")
    assert run_sources(read_candidates(RUN)[0].run) == {}


def test_a_run_file_is_read_from_its_path(tmp_path: Path) -> None:
    """As read_candidates does."""
    file = tmp_path / "run.yaml"
    file.write_text((DATA / "runs" / f"{RUN}.yaml").read_text())
    assert source("stack.host.launch_s", str(file)) == source("stack.host.launch_s")
