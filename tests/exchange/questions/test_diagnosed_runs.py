"""Are nccl-tests and profiles read into what the equations give, and do they count in a diagnosis?"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from perfmodel.errors import InputError
from perfmodel.exchange.building import build
from perfmodel.exchange.presets import DATA, cluster_preset
from perfmodel.exchange.questions.diagnosed_runs import (
    diagnosis_priors,
    nccl_readings,
    profile_readings,
    run_diagnosis,
)
from perfmodel.exchange.run_files import read_candidates
from perfmodel.exchange.syntax.documents import read_mapping
from perfmodel.explanation.measured.readings import kernel_seconds
from perfmodel.spec.evidence.causes import DiagnosisPriors

PRIORS = diagnosis_priors()
CLUSTER = cluster_preset("dgx-h100")
ALONE = """#       size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong
  1048576        262144     float     sum      -1     60.0   17.48   30.58      0     60.0   17.48   30.58      0
  1073741824     268435456     float     sum      -1   4203.2  255.46  447.05      0   4199.0  255.71  447.50      0
# Avg bus bandwidth    : 447.3
"""
RANKS = "".join(
    f"#  Rank {rank:2} Group  0 Pid 1 on  node-{rank // 2} device  {rank % 2} [0x1b] NVIDIA H100\n" for rank in range(4)
)


def written(folder: Path, text: str, name: str) -> Path:
    """A file with that text."""
    path = folder / name
    path.write_text(text)
    return path


def test_a_text_without_ranks_is_one_of_as_many_as_its_bandwidths_say(tmp_path: Path) -> None:
    """bus / algorithm bandwidth is 1.75 of an all-reduce of eight; the largest size counts."""
    (reading,) = nccl_readings(written(tmp_path, ALONE, "log.txt"), CLUSTER, PRIORS)
    assert reading.name == "all_reduce of 8"
    assert reading.measured == 447.05e9
    setup = read_candidates("nemotron-4-15b")[0].run
    assert float(reading.predicted(setup.setup(setup.stages[0]))) == pytest.approx(447e9, rel=0.1)


def test_ranks_on_several_nodes_are_timed_over_the_network(tmp_path: Path) -> None:
    """Two of each of two nodes have the NICs of two GPUs."""
    text = RANKS + ALONE.replace("30.58", "26.22").replace("447.05", "383.19")
    (reading,) = nccl_readings(written(tmp_path, text, "all_reduce.txt"), CLUSTER, PRIORS)
    run = read_candidates("nemotron-4-15b")[0].run
    setup = run.setup(run.stages[0])
    slow = replace(setup, cluster=replace(setup.cluster, network_scale=0.1))
    assert reading.name == "all_reduce of 4"
    assert float(reading.predicted(slow)) == pytest.approx(0.1 * float(reading.predicted(setup)), rel=0.1)


@pytest.mark.parametrize(
    ("text", "name", "sentence"),
    [
        ("nothing", "log.txt", "log.txt: no row of nccl-tests is in it"),
        (ALONE.replace("447.05", "223.53").replace("255.46", "255.46"), "log.txt", "nothing says which test it was"),
        (ALONE, "sendrecv.txt", "no '# Rank' line says how many ranks there were"),
    ],
)
def test_a_text_that_does_not_say_enough_is_refused(tmp_path: Path, text: str, name: str, sentence: str) -> None:
    """With what is missing."""
    with pytest.raises(InputError, match=sentence):
        nccl_readings(written(tmp_path, text, name), CLUSTER, PRIORS)


def trace(seconds: dict[str, float]) -> dict[str, Any]:
    """A profile with one kernel of each name."""
    spans, at = [], 0.0
    for name, each in seconds.items():
        spans.append({"ph": "X", "cat": "kernel", "name": name, "pid": 0, "tid": 7, "ts": at, "dur": 1e6 * each})
        at += 1e6 * each
    return {
        "traceEvents": [*spans, {"ph": "X", "cat": "cpu_op", "name": "aten::mm", "pid": 1, "tid": 1, "ts": 0.0, "dur": 5.0}]
    }


NAMES = {
    "matmul": "nvjet_hsh_256x128_64x4_1x2_h_bz_coopA_NNT",
    "attention": "void cutlass::device_kernel<flash::enable_sm90<flash::FlashAttnFwdSm90<flash::CollectiveMainloop> > >",
    "collective": "ncclDevKernel_ReduceScatter_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)",
    "": "void at::native::vectorized_elementwise_kernel<4, at::native::FillFunctor<float> >",
}


def test_kernels_of_a_profile_are_told_apart_by_their_names(tmp_path: Path) -> None:
    """Products, attention and messages; what the CPU does counts for nothing."""
    path = written(tmp_path, json.dumps(trace({name: 0.1 * (1 + at) for at, name in enumerate(NAMES.values())})), "trace.json")
    found = {each.name: each.measured for each in profile_readings(path, PRIORS)}
    assert found == pytest.approx({"matmul kernels": 0.1, "attention kernels": 0.2, "collective kernels": 0.3})


@pytest.mark.parametrize("content", [{"traceEvents": []}, trace({}), 3])
def test_a_profile_without_kernels_is_refused(tmp_path: Path, content: Any) -> None:
    """In one sentence with the name of the file."""
    path = written(tmp_path, json.dumps(content), "trace.json")
    with pytest.raises(InputError, match=r"trace\.json: (no kernel of a GPU|this)"):
        profile_readings(path, PRIORS)


def test_a_profile_counts_for_the_cause_whose_kernels_it_shows(tmp_path: Path) -> None:
    """A slow step whose products are as predicted is not one of slow clocks; one with slow products is."""
    run = read_candidates("nemotron-4-15b")[0].run
    slow = {"cluster.compute_scale": 0.5}
    slow_run = read_candidates("nemotron-4-15b", list(slow.items()))[0].run
    shares = []
    for shown in (run, slow_run):
        seconds = kernel_seconds(shown.setup(shown.stages[-1]))
        kernels = {NAMES[kind]: float(seconds[kind]) for kind in ("matmul", "attention")}
        path = written(tmp_path, json.dumps(trace(kernels)), "trace.json")
        found = run_diagnosis("nemotron-4-15b", 0.85, profile=path)
        shares.append(sum(cause.plausibility for cause in found.causes if cause.name == "clocks"))
    assert shares[0] < 0.01
    assert shares[1] > 0.9


def test_nccl_tests_at_their_published_rate_clear_the_links(tmp_path: Path) -> None:
    """447 GB/s inside a node: those links are not a tenth of themselves."""
    path = written(tmp_path, ALONE, "log.txt")
    shares = []
    for texts in ((), [path]):
        found = run_diagnosis("nemotron-4-15b", 2.0, nccl_tests=texts)
        shares.append(next(cause.plausibility for cause in found.causes if cause.name == "links inside the node"))
    assert shares[1] < shares[0] / 100


def between_nodes(size: int, bandwidth: float, microseconds: float) -> str:
    """An all-gather of 32 ranks, one on each node."""
    ranks = "".join(f"#  Rank {rank:2} Group  0 Pid 1 on  node-{rank} device  0 [0x1b] NVIDIA H100\n" for rank in range(32))
    way = f"{microseconds} {bandwidth * 32 / 31} {bandwidth} 0"
    return f"{ranks}  {size}  {size // 2}  bfloat16  none  -1  {way}  {way}\n"


def test_a_link_that_nccl_tests_show_slow_leads(tmp_path: Path) -> None:
    """4.84 GB/s where 38 are predicted, though the iteration would take a network at half of its rate."""
    path = written(tmp_path, between_nodes(536870912, 4.84, 107374.0), "all_gather.txt")
    found = run_diagnosis("nemotron-4-15b", 0.9, nccl_tests=[path])
    assert found.causes[0].name == "network"
    assert found.is_explained


def test_a_row_of_a_tiny_size_hardly_counts(tmp_path: Path) -> None:
    """1 KiB takes its latency; it says nothing about bandwidths."""
    path = written(tmp_path, between_nodes(1024, 0.0004, 2500.0), "all_gather.txt")
    plain, tiny = (run_diagnosis("nemotron-4-15b", 0.9, nccl_tests=each) for each in ((), [path]))
    shares = {cause.name: cause.plausibility for cause in plain.causes}
    for cause in tiny.causes:
        assert cause.plausibility == pytest.approx(shares[cause.name], abs=0.03)


def test_a_bandwidth_that_no_link_has_is_refused(tmp_path: Path) -> None:
    """With the rate of the link; twice that rate is still read."""
    path = written(tmp_path, between_nodes(536870912, 10000.0, 52.0), "all_gather.txt")
    with pytest.raises(InputError, match=r"all_gather.txt: a bus bandwidth of .* GB/s cannot be: .* a rate of 50 GB/s$"):
        nccl_readings(path, CLUSTER, PRIORS)
    assert nccl_readings(written(tmp_path, between_nodes(536870912, 100.0, 5200.0), "all_gather.txt"), CLUSTER, PRIORS)


def test_a_run_says_what_it_leaves_to_defaults() -> None:
    """A setting in the file, or on the command line, is stated."""
    stages = [{"data_parallel": 8, "global_batch_size": 8}]
    run = {"model": "llama-3.1-8b", "cluster": "dgx-h100", "stack": "megatron-core", "sequence_length": 4096, "stages": stages}
    assert read_candidates(run | {"recompute": "full"}, ["micro_batch_size=1"])[0].unstated == (
        "precision",
        "sequence_parallel",
        "sharding",
    )


def test_every_prior_has_a_source() -> None:
    """A sentence that stands alone, at each number and each setting."""
    mapping = read_mapping(DATA / "diagnosis.yaml")
    entries = [each for value in mapping.values() for each in (value if isinstance(value, list) else [value])]
    entries = [inner for each in entries for inner in ([each] if "source" in each else each.values())]
    assert all(len(entry["source"]) > 30 for entry in entries)


@pytest.mark.parametrize("typical", [1.0, 0.001, 2.0])
def test_a_number_that_is_off_is_so_by_some_factor_between_its_bounds(typical: float) -> None:
    """Or it is no prior."""
    mapping = read_mapping(DATA / "diagnosis.yaml")
    mapping["numbers"][0]["typical"] = typical
    with pytest.raises(InputError, match=r"^numbers\[0\].typical: .* must be another factor than 1, from least to most"):
        build(DiagnosisPriors, mapping)


def test_a_stage_of_a_ramp_can_be_chosen() -> None:
    """The last by default."""
    assert run_diagnosis("nemotron-4-15b", 0.9).place == 2
    first = run_diagnosis("nemotron-4-15b", 0.9, stage=1)
    assert (first.place, int(first.predicted.layout.gpus)) == (0, 768)
