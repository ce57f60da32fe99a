"""Does a calibration find the law that its records obey, and is what it writes a cluster that predicts?"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perfmodel.benchmarks.fit.machine.calibrated import Machine, datasheet, gpu_like, machine_profile
from perfmodel.benchmarks.fit.machine.kernels import memory_bound_of
from perfmodel.benchmarks.fit.machine.links import node_link
from perfmodel.benchmarks.fit.profile import write_profile
from perfmodel.benchmarks.fit.regression import MOST_SPREAD
from perfmodel.benchmarks.measure.calibrate import neighbours_of, pooled
from perfmodel.benchmarks.measure.kernels.plan import CPU, THROUGH_PARAMETERS, busy_points, collective_points, kernel_points
from perfmodel.benchmarks.measure.kernels.points import Point
from perfmodel.benchmarks.measure.kernels.timing import Timing
from perfmodel.benchmarks.measure.kernels.traffic import operator_of
from perfmodel.count.operators import Collective, FusedAttention, Matmul, gradients
from perfmodel.errors import InputError
from perfmodel.evidence.steps.records import Record
from perfmodel.exchange.building import build
from perfmodel.exchange.presets import expand_part, gpu_preset, stack_preset
from perfmodel.exchange.run_files import read_candidates
from perfmodel.prediction import predict
from perfmodel.spec.layout import ProcessGroup
from perfmodel.spec.machines.hardware import Cluster, Gpu
from perfmodel.spec.phases import DATA_GRADIENT, FORWARD
from perfmodel.timing.collectives import collective_time_s
from perfmodel.timing.kernels import at_cluster_load, kernel_time_s

MACHINE = Machine(name="a CPU", device="cpu", devices=2, memory_bytes=8e9, cache_bytes=32e6, multiprocessors=1)
PROVENANCE = {"gpu": "cpu: a CPU", "software": "torch", "date": "2026-01-01", "command": "a test"}
RATE = {"bf16": 4e11, "fp32": 1e11}  # of a core that obeys simple laws
MEMORY = 2e10
BUSY = 1.6  # what memory-bound kernels take where the other core runs them too
FEW = ("copy", "adam")  # memory-bound operators that are enough where it is not about them: they take the longest to fit
BLOCKS = {128: 1.0, 256: 1.1, 512: 1.0, 768: 1.6, 1024: 1.5, 1536: 1.7}  # how much faster attention is at some lengths


def obeyed_s(point: Point) -> float:
    """The time of a point on that core."""
    sizes, labels = point.sizes, point.labels
    if point.kind == "matmul":
        bytes_each = 4 if labels["precision"] == "fp32" else 2
        sides = [sizes[name] for name in ("rows", "columns", "inner")]
        moved = bytes_each * (sides[0] * sides[1] + sides[1] * sides[2] + sides[0] * sides[2])
        slower = {FORWARD: 1.0, DATA_GRADIENT: 1.05}.get(labels["phase"], 1.1)
        return float(slower * (5e-6 + 2 * np.prod(sides) / RATE[labels["precision"]] + moved / MEMORY))
    if point.kind == "attention":
        backward = labels["phase"] == DATA_GRADIENT
        length = sizes["sequence_length"]
        pairs = sizes["sequences"] * sizes["heads"] * length * (length / 2 + 20)
        return 2e-5 + pairs * sizes["head_size"] * (10 if backward else 4) / (5e10 * BLOCKS[int(length)])
    if point.kind == "memory_bound":
        found = operator_of(
            labels["operator"],
            labels["phase"],
            precision=labels["precision"],
            rows=int(sizes["rows"]),
            columns=int(sizes["columns"]),
            table_rows=int(sizes.get("table_rows", 1)),
            rotary_fraction=sizes.get("rotary_fraction", 1.0),
        )
        warm = 1.0 / (1.0 + (sizes["moved_bytes"] / found.kernels / MACHINE.cache_bytes) ** 2)
        rate = MEMORY * (1.0 + warm * (0.0 if labels["operator"] in THROUGH_PARAMETERS else 2.0))
        return float(found.kernels * 3e-6 + sizes["moved_bytes"] / rate)
    return 1e-4 + sizes["payload_bytes"] / 2e9


@cache
def obeyed_records() -> tuple[Record, ...]:
    """A whole calibration of it."""
    points = [*kernel_points(CPU), *busy_points(CPU), *collective_points(CPU, [(2, 1)], backend="gloo", precision="fp32")]
    return tuple(map(obeyed_record, points))


def few_records() -> list[Record]:
    """Without most of the memory-bound operators."""
    return [each for each in obeyed_records() if each.kind != "memory_bound" or each.labels["operator"] in FEW]


def obeyed_record(point: Point) -> Record:
    """What measuring one point there would give."""
    busy = BUSY if "busy" in point.labels else 1.0
    return point.record(Timing(seconds=busy * obeyed_s(point), spread=0.01, repeats=9), PROVENANCE)


@pytest.fixture(scope="module")
def profile() -> dict[str, Any]:
    """Fitted on all of them."""
    return machine_profile(obeyed_records(), MACHINE)


def cluster(profile: dict[str, Any]) -> Cluster:
    """As a run file would have it."""
    return build(Cluster, expand_part(Cluster, "clusters", profile))


@pytest.mark.slow
def test_the_profile_predicts_steps(profile: dict[str, Any], tmp_path: Path) -> None:
    """In both precisions, from its file."""
    path = tmp_path / "here.yaml"
    write_profile(path, profile)
    settings = (f"cluster={path}", "stack=reference", "tensor_parallel=2", "model.layers=2", "model.hidden_size=1024")
    small = (*settings, "model.vocab_size=8192", "sequence_length=512", "stages=[{data_parallel: 1, global_batch_size: 1}]")
    times = {}
    for precision, rate in RATE.items():
        run = read_candidates("nemotron-4-15b", (*small, "micro_batch_size=1", f"precision={precision}"))[0].run
        stage = predict(run).stages[0][1]
        times[precision] = float(stage.iteration_time_s)
        flop = float(stage.model_flop_per_token) * 512
        assert flop / 2 / rate < times[precision] < 4 * flop / 2 / rate
    assert times["bf16"] < times["fp32"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["matmul", "attention", "memory_bound", "collective"])
def test_the_law_of_the_records_is_found(profile: dict[str, Any], kind: str) -> None:
    """The equations with the fitted coefficients give every record's time to within some percent, half of them within one."""
    whole, stack = cluster(profile), stack_preset("reference")
    errors = []
    for each in obeyed_records():
        labels = each.labels
        name = labels.get("operator", "")
        if each.kind != kind or name in ("copy", "point_to_point"):
            continue
        known = at_cluster_load(whole, 2 if "busy" in labels else 1)
        operator = operator_of_record(each)
        if isinstance(operator, Collective):
            seconds = collective_time_s(operator, cluster=known)
        else:
            seconds = kernel_time_s(operator, cluster=known, stack=stack)
        errors.append(abs(float(seconds) / each.seconds - 1))
    assert np.median(errors) < 0.01
    assert max(errors) < 0.06


def operator_of_record(each: Record) -> Any:
    """What the forecast would time."""
    sizes, labels = each.sizes, each.labels
    if each.kind == "matmul":
        rows, columns, inner = (sizes[name] for name in ("rows", "columns", "inner"))
        forward = Matmul(name="p", rows=rows, columns=columns, inner=inner, precision=labels["precision"], accumulates=False)
        phases = {FORWARD: forward} | {product.phase: product for product in gradients(forward)}
        return phases[labels["phase"]]
    if each.kind == "attention":
        names = ("sequences", "heads", "kv_heads", "head_size")
        length = sizes["sequence_length"]
        sides: dict[str, Any] = {name: sizes[name] for name in names} | {"query_length": length, "key_length": length}
        return FusedAttention(name="core", phase=labels["phase"], precision=labels["precision"], **sides)
    if each.kind == "collective":
        group = ProcessGroup(name="all", ranks=sizes["ranks"], stride=1)
        return Collective(name="c", kind=labels["operator"], payload_bytes=sizes["payload_bytes"], group=group)
    return memory_bound_of(each)


@pytest.mark.slow
def test_every_fitted_number_has_a_source(profile: dict[str, Any]) -> None:
    """With the error on sizes that the fit did not see."""
    for family in ("matmul.bf16", "attention_forward_fp32", "memory_bound.gelu-bf16"):
        assert "held out" in profile["sources"][f"gpu.kernels.{family}"]
    assert "held out" in profile["sources"]["links.node.collectives.all_reduce"]


@pytest.mark.parametrize("backend", ["gloo", "nccl"])
def test_what_the_buffers_of_sockets_hold_is_found(backend: str) -> None:
    """Half a megabyte in each direction; links of GPUs have no such buffers."""
    points = collective_points(CPU, [(2, 1)], backend=backend, precision="fp32")
    chosen = [each for each in points if each.labels["operator"] == "all_gather"]

    def obeyed(payload_bytes: float) -> float:
        wire = payload_bytes / 2
        return 4e-4 + (wire + 4.0 * max(wire - 5e5, 0.0)) / 5e9

    records = [
        each.record(Timing(seconds=obeyed(each.sizes["payload_bytes"]), spread=0.1, repeats=9), PROVENANCE) for each in chosen
    ]
    sources: dict[str, Any] = {}
    link = node_link(records, sources)
    assert isinstance(link, dict)
    entry = link["collectives"]["all_gather"]
    assert ("buffered_bytes" in entry) == (backend == "gloo")
    if backend == "gloo":
        assert entry["buffered_bytes"] == pytest.approx(5e5, rel=0.05)
        assert entry["latency_s"] == pytest.approx(4e-4, rel=0.03)


def test_of_several_calibrations_the_median_counts() -> None:
    """One that was disturbed moves nothing."""
    first = obeyed_records()[0]
    times = (first.seconds, first.seconds * 1.1, first.seconds * 9)
    several = [replace(first, seconds=seconds) for seconds in times]
    assert [each.seconds for each in pooled(several)] == [first.seconds * 1.1]


def test_the_memory_is_as_fast_as_what_is_scaled_in_place() -> None:
    """A core moves a third more for a copy than its source and its target: at the copy's rate no kernel could be faster."""
    kept = [each for each in few_records() if each.labels.get("operator") not in FEW]
    (copy,) = [each for each in few_records() if each.labels.get("operator") == "copy"][-1:]
    scaled = replace(copy, seconds=copy.seconds / 1.7, labels={**copy.labels, "operator": "scale"})
    by_kind = {kind: [each for each in kept if each.kind == kind] for kind in ("matmul", "attention")}
    for records, rate in (([copy], 1.0), ([copy, scaled], 1.7)):
        found = datasheet({**by_kind, "memory_bound": records}, MACHINE)["memory_bandwidth_bytes_per_s"]
        assert found == pytest.approx(rate * copy.sizes["moved_bytes"] / copy.seconds)


def test_of_several_calibrations_those_taken_alone_count() -> None:
    """Where all had neighbours, all of them do."""
    first = obeyed_records()[0]
    beside = replace(first, seconds=first.seconds * 0.5, provenance={**first.provenance, "others_cores": "0.50"})
    assert pooled([beside, first]) == [first]
    assert pooled([beside, beside]) == [beside]


def test_of_several_calibrations_those_count_whose_cores_were_near_each_other() -> None:
    """As near as any record says; where none was of a point, all of them do."""
    first, second = obeyed_records()[:2]
    near, apart, farther = (
        replace(first, seconds=first.seconds * factor, provenance={**first.provenance, "cores_apart_us": distance})
        for factor, distance in ((1.3, "25.2"), (0.9, "33.0"), (0.8, "33.9"))
    )
    other = replace(second, provenance={**second.provenance, "cores_apart_us": "24.8"})
    assert pooled([apart, near, farther]) == [near]
    assert pooled([apart, farther, other]) == [farther, other]


def test_records_that_were_not_taken_alone_are_said() -> None:
    """How many, and how many cores others used at most; of a machine that was quiet, or of words, nothing."""
    alone, *others = obeyed_records()[:4]
    beside = [
        replace(each, provenance={**each.provenance, "others_cores": cores})
        for each, cores in zip(others, ("0.31", "1.04", "many"), strict=True)
    ]
    assert neighbours_of([alone, beside[2]]) == []
    (sentence,) = neighbours_of([alone, *beside])
    assert sentence.startswith("others used up to 1.0 cores while 2 of 4 records were taken")


def test_too_few_records_are_refused() -> None:
    """With what is missing."""
    every = obeyed_records()
    with pytest.raises(InputError, match="there are no attention records to fit"):
        machine_profile([each for each in every if each.kind != "attention"], MACHINE)
    products = [each for each in every if each.kind == "matmul"][:6]
    with pytest.raises(InputError, match="pairs of columns and inner size"):
        machine_profile([*products, *(each for each in every if each.kind != "matmul")], MACHINE)


@pytest.mark.slow
def test_a_machine_with_one_device_needs_no_collectives() -> None:
    """Its links are never used."""
    alone = [each for each in few_records() if each.kind != "collective"]
    profile = machine_profile(alone, replace(MACHINE, devices=1))
    assert cluster(profile).links.node.name


def test_what_ranks_wait_is_found_from_what_they_waited() -> None:
    """The law of timing/waiting.py, forwards and back; nothing is said where nobody measured it."""
    dispersion_s = 2e-4
    waits = [
        Record(
            kind="rank_times",
            sizes={"rounds": rounds, "ranks": 2, "period_s": period_s},
            labels={"precision": "fp32"},
            seconds=math.sqrt(dispersion_s * period_s / math.pi),
            spread=1.0,
            repeats=30,
            provenance=PROVENANCE,
        )
        for rounds, period_s in ((1, 0.01), (4, 0.04), (16, 0.16))
    ]
    found = machine_profile([*few_records(), *waits], MACHINE)
    assert found["rank_dispersion_s"] == pytest.approx(dispersion_s, rel=1e-3)
    assert found["spread"]["rank_dispersion_s"] > 0
    assert "rank_dispersion_s" in found["sources"]
    cluster = build(Cluster, expand_part(Cluster, "clusters", found))
    assert cluster.rank_dispersion_s == pytest.approx(dispersion_s, rel=1e-3)
    assert "rank_dispersion_s" not in machine_profile(few_records(), MACHINE)


def test_a_profile_of_a_machine_that_is_very_busy_can_still_be_read() -> None:
    """Times that scatter hundredfold leave spreads as wide as a coefficient may have, and no wider."""
    chance = np.random.default_rng(0)
    noisy = [replace(each, seconds=each.seconds * 100.0 ** chance.uniform(0.0, 1.0)) for each in few_records()]
    kernels = cluster(machine_profile(noisy, MACHINE)).gpu.kernels
    assert max(spread for each in kernels.memory_bound.values() for spread in each.spread.values()) == MOST_SPREAD


@pytest.mark.parametrize(
    ("device", "preset"),
    [
        *(
            ("NVIDIA H100 80GB HBM3", "h100-sxm-80gb"),
            ("NVIDIA H100 PCIe", "h100-pcie-80gb"),
            ("NVIDIA H100 NVL", "h100-nvl-94gb"),
        ),
        *(
            ("NVIDIA A100-SXM4-80GB", "a100-sxm-80gb"),
            ("NVIDIA A100-SXM4-40GB", "a100-sxm-40gb"),
            ("NVIDIA H200", "h200-sxm-141gb"),
        ),
        *(("NVIDIA GH200 480GB", "gh200-96gb"), ("NVIDIA GB200", "gb200"), ("NVIDIA B200", "b200"), ("NVIDIA H20", "h20")),
        *(("NVIDIA L40S", "l40s"), ("NVIDIA GeForce RTX 4090", "rtx-4090"), ("NVIDIA GB300", "gb300")),
        *(("Tesla V100-SXM2-16GB", "v100-sxm2-16gb"), ("Tesla V100-SXM2-32GB", "v100-sxm2-32gb"), ("NVIDIA L4", "l4")),
        *(("Tesla T4", "t4"), ("NVIDIA A10G", "a10g"), ("NVIDIA A40", "a40"), ("NVIDIA RTX A6000", "rtx-a6000")),
        ("NVIDIA RTX 6000 Ada Generation", "rtx-6000-ada"),
    ],
)
def test_a_machine_has_the_datasheet_of_its_own_chip(device: str, preset: str) -> None:
    """As drivers name it: GH200 is not H200, GB200 not B200."""
    assert gpu_like(device) == preset


@pytest.mark.parametrize("device", ["Tesla P100-PCIE-16GB", "NVIDIA A10", "NVIDIA GeForce RTX 3060", "a GPU"])
def test_a_gpu_without_a_datasheet_is_refused(device: str) -> None:
    """Its rates are not guessed."""
    with pytest.raises(InputError, match="has no datasheet here; known: "):
        gpu_like(device)


@pytest.mark.parametrize(("device", "preset"), [("cpu", ""), ("cuda", "h100-sxm-80gb"), ("cuda", "a100-sxm-80gb")])
def test_a_gpu_keeps_the_power_limit_of_its_kind(device: str, preset: str) -> None:
    """Single kernels do not meet it: they end before the limiter acts. A CPU has none."""
    every = obeyed_records()
    by_kind = {kind: [each for each in every if each.kind == kind] for kind in ("matmul", "memory_bound")}
    found = datasheet(by_kind, replace(MACHINE, device=device, name=preset or "a CPU"))
    known = gpu_preset(preset).full_load_slowdown if preset else 0.0
    assert found.get("full_load_slowdown", 0.0) == known
    assert build(Gpu, expand_part(Gpu, "gpus", found)).spread.keys() == (gpu_preset(preset).spread.keys() if preset else set())
