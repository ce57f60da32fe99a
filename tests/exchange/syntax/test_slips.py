"""Is a number that is likely a slip told in a sentence, and are numbers that somebody may mean left alone?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from perfmodel.evidence.time_scores import recomputed_mfu
from perfmodel.exchange.presets import DATA, cluster_preset, expand, preset_names
from perfmodel.exchange.run_files import read_candidates
from perfmodel.exchange.syntax.slips import highest_mfu, likely_slips, slips_of_a_prediction
from perfmodel.exchange.tables.published_runs import read_measured_runs
from perfmodel.prediction import predict
from perfmodel.spec.precision import number_format
from perfmodel.spec.run import Run

RUN = "nemotron-4-15b"
NETWORK = "cluster.links.network.bandwidth_bytes_per_s"
PEAK = "cluster.gpu.peak_flop_per_s"
MEMORY = "cluster.gpu.memory_bytes"


def slips(*settings: Any, run: Any = RUN, of: str = "cluster.") -> list[str]:
    """Those that a run with these settings lists among its assumptions."""
    return [each for each in read_candidates(run, settings)[0].assumptions if each.startswith(of)]


@pytest.mark.parametrize("name", preset_names("clusters"))
def test_no_shipped_cluster_holds_a_slip(name: str) -> None:
    """Its numbers are those that others are held against."""
    assert likely_slips(cluster_preset(name)) == ()


@pytest.mark.parametrize(("cluster", "rate"), [("dgx-h100", "3200Gb/s"), ("dgx-a100", "1600Gb/s"), ("p4d", "400Gb/s")])
def test_the_rate_of_a_whole_node_is_told(cluster: str, rate: str) -> None:
    """Where it is that of one NIC times their number."""
    (sentence,) = slips(f"cluster={cluster}", f"{NETWORK}={rate}")
    assert sentence.startswith(f"{NETWORK}: ")
    assert "is likely the rate of a whole node" in sentence
    assert "of its 8 NICs each has" in sentence


def test_a_rate_beyond_any_nic_is_told_of_links_that_nobody_knows() -> None:
    """A link of one's own has no datasheet here."""
    own = [("cluster.links.network.name", "mine")]
    assert len(slips(*own, f"{NETWORK}=1600Gb/s")) == 1
    assert slips(*own, f"{NETWORK}=800Gb/s") == []


@pytest.mark.parametrize(
    ("cluster", "precision", "sparse", "dense"),
    [
        ("dgx-h100", "bf16", "1979TFLOP/s", "989.4"),
        ("dgx-h100", "fp8", "3958TFLOP/s", "1,978.9"),
        ("dgx-a100", "bf16", "624TFLOP/s", "312"),
    ],
)
def test_a_peak_with_sparsity_is_told(cluster: str, precision: str, sparse: str, dense: str) -> None:
    """With the dense rate that was meant."""
    (sentence,) = slips(f"cluster={cluster}", f"{PEAK}.{precision}={sparse}")
    assert sentence.startswith(f"{PEAK}.{precision}: ")
    assert f"{dense} TFLOP/s was likely meant" in sentence


@pytest.mark.parametrize(("size", "shown"), [("80GB", "80 GB"), ("80GiB", "80 GiB"), (80e9, "80 GB")])
def test_the_printed_size_of_a_memory_is_told(size: Any, shown: str) -> None:
    """A program finds less than that, or more: 80 GB are 74.5 GiB, PyTorch has 79.1 of them."""
    (sentence,) = slips((MEMORY, size))
    assert sentence.startswith(f"{MEMORY}: {shown} is likely the printed size of H100 SXM 80GB")
    assert "PyTorch finds 79.1 GiB there" in sentence


@pytest.mark.parametrize(
    "setting",
    [
        f"{NETWORK}=800Gb/s",
        f"{NETWORK}=100Gb/s",
        f"{PEAK}.bf16=900TFLOP/s",
        f"{PEAK}.bf16=1200TFLOP/s",
        f"{MEMORY}=78.2GiB",
        f"{MEMORY}=141GB",
        "cluster.compute_scale=0.8",
        "cluster=dgx-h200",
    ],
)
def test_numbers_that_somebody_may_mean_are_left_alone(setting: str) -> None:
    """Other networks, clocks, memories."""
    assert slips(setting) == []


def test_a_cluster_in_a_run_file_is_looked_at_too() -> None:
    """As one that is set."""
    cluster = {"extends": "dgx-h100", "gpu": {"extends": "h100-sxm-80gb", "memory_bytes": "80GB"}}
    run = {"model": RUN, "cluster": cluster, "stack": "megatron-core", "tensor_parallel": 8, "sequence_length": 4096}
    run |= {"stages": [{"data_parallel": 1, "global_batch_size": 8}]}
    assert len(slips(run=run)) == 1


def test_several_slips_are_each_told_and_arrays_are_left_alone() -> None:
    """A search moves numbers; people write them."""
    assert len(slips(f"{NETWORK}=3200Gb/s", f"{PEAK}.bf16=1979TFLOP/s", f"{MEMORY}=80GB")) == 3
    cluster = read_candidates(RUN, [f"{MEMORY}=80GB"])[0].run.cluster
    cluster = replace(cluster, gpu=replace(cluster.gpu, memory_bytes=np.array([8e10, 9e10])))
    assert likely_slips(cluster) == ()


def test_a_part_that_extends_another_preset_is_not_mixed_with_what_it_replaces() -> None:
    """The network of a cluster's own extension is the one it names, at its own rate."""
    links = {"network": {"extends": "roce-400", "bandwidth_bytes_per_s": "200Gb/s"}}
    mapping = expand(Run, {"cluster": {"extends": "dgx-h100", "links": links}})
    network = mapping["cluster"]["links"]["network"]
    assert network["collectives"]["name"] == "NCCL over RoCE"
    assert network["bandwidth_bytes_per_s"] == "200Gb/s"


def test_tensor_parallelism_that_leaves_its_node_is_told() -> None:
    """With how many ranks stay in it; a larger node has room for more."""
    (sentence,) = slips("tensor_parallel=16", of="tensor_parallel:")
    assert sentence.startswith("tensor_parallel: 16 ranks reach beyond a node of 8 GPUs")
    assert slips("tensor_parallel=8", of="tensor_parallel:") == []
    assert slips("cluster.gpus_per_node=16", "tensor_parallel=16", of="tensor_parallel:") == []


@pytest.mark.parametrize(("length", "meant"), [("4k", "4,096"), ("8000", "8,192"), ("128k", "131,072")])
def test_thousands_of_tokens_are_told(length: str, meant: str) -> None:
    """Where people mean a power of two."""
    (sentence,) = slips(f"sequence_length={length}", of="sequence_length:")
    assert sentence.endswith(f"; {meant} were likely meant")


@pytest.mark.parametrize("length", ["4096", "1000", "3000", "131072"])
def test_other_lengths_are_left_alone(length: str) -> None:
    """Powers of two, toys, and what is no power of two in thousands."""
    assert slips(f"sequence_length={length}", of="sequence_length:") == []


def test_the_highest_mfu_is_that_of_the_shipped_table() -> None:
    """Of the times of all rows, recomputed, by the arithmetic of their products; rounded up, so that none of them is above."""
    found: dict[str, float] = {}
    for row in read_measured_runs(DATA / "published_runs.csv").rows:
        mfu = recomputed_mfu(row)
        if mfu is not None and row.run is not None:
            circuits = number_format(row.run.precision).circuits
            found[circuits] = max(found.get(circuits, 0.0), mfu)
    for circuits, mfu in found.items():
        known = highest_mfu(circuits)
        assert known is not None
        assert mfu <= known < mfu + 0.001


@pytest.mark.parametrize(("stack", "said"), [("megatron-core", 1), ("ideal", 0)])
def test_more_of_the_peak_than_any_run_reached_is_said(stack: str, said: int) -> None:
    """131,072 tokens, whose attention counts in full and is computed by half; a bound is beyond all runs by intent."""
    settings = [f"stack={stack}", "sequence_length=131072", "stages=[{data_parallel: 1, global_batch_size: 16}]"]
    prediction = predict(read_candidates(RUN, settings)[0].run)
    assert float(prediction.stages[0][1].mfu) > 0.69
    sentences = slips_of_a_prediction(prediction)
    assert len(sentences) == said
    assert all("is above the 68.7 % of the fastest published run in its precision" in each for each in sentences)


@pytest.mark.parametrize("precision", ["bf16", "fp8", "fp32"])
def test_an_mfu_that_runs_reach_is_no_slip(precision: str) -> None:
    """Nor one in a precision of which no run is published."""
    prediction = predict(read_candidates(RUN, [f"precision={precision}"])[0].run)
    assert slips_of_a_prediction(prediction) == ()
