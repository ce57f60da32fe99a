"""Does a calibration find the laws of serving that its records obey, and does a server on that machine follow them?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perfmodel.benchmarks.fit.machine.serving import serving_entries
from perfmodel.benchmarks.fit.profile import write_profile
from perfmodel.benchmarks.measure.kernels.points import Point
from perfmodel.benchmarks.measure.kernels.served.served_plan import served_points
from perfmodel.benchmarks.measure.kernels.timing import Timing
from perfmodel.errors import NotSupportedError
from perfmodel.exchange.building import build
from perfmodel.exchange.presets import cluster_preset, expand_part, read_preset
from perfmodel.exchange.questions.serving.asked_servers import asked_servers
from perfmodel.exchange.questions.serving.served_models import own_profile, serving_profile
from perfmodel.spec.evidence.spread import with_numbers
from perfmodel.spec.machines.hardware import Cluster
from perfmodel.spec.serving.profile import ServingProfile

PRESET = "amd-epyc-2-cores"
GPU = cluster_preset(PRESET).gpu
MEMORY, PEAK = GPU.memory_bandwidth_bytes_per_s, GPU.peak("bf16")
PROVENANCE = {"gpu": "cpu: a CPU", "software": "torch", "date": "2026-01-01", "command": "a test"}
INNER_HALF = 200.0
READING, KERNEL_READING, SOFTMAX_S, BETWEEN_S = 0.25, 0.1, 2e-9, 7e-6


def obeyed_s(point: Point) -> float:
    """The time of a point on a core that reads at a quarter of its memory rate, and computes at 0.8 of peak."""
    sizes = point.sizes
    if point.kind == "few_rows":
        rows, columns, inner, number = (sizes[name] for name in ("rows", "columns", "inner", "matrices"))
        moved = 2.0 * (columns * inner + rows * (columns + inner)) * (1.0 + INNER_HALF / inner)
        computed = 2.0 * rows * columns * inner / (PEAK * 0.8)
        each_s = 0.0 if number == 1 else 2e-5
        return float(1e-5 + number * (moved / (READING * MEMORY) + computed + each_s))
    if point.kind == "cached":
        latent = sizes["value_size"] < sizes["head_size"]
        width = sizes["head_size"] + (0.0 if latent else sizes["value_size"])
        moved = 2.0 * sizes["sequences"] * sizes["context"] * sizes["kv_heads"] * width
        scores = sizes["sequences"] * sizes["context"] * sizes["heads"]
        return float(5e-5 + moved / (READING * MEMORY) + SOFTMAX_S * scores)
    if point.kind == "host":
        return BETWEEN_S
    return float(2e-5 + sizes["moved_bytes"] / (KERNEL_READING * MEMORY))


@pytest.fixture(scope="module")
def entries() -> dict[str, Any]:
    """What is fitted on such a core."""
    found = [
        point.record(Timing(seconds=obeyed_s(point), spread=0.01, repeats=9), PROVENANCE) for point in served_points("cpu")
    ]
    return serving_entries(found, GPU, {})


def test_laws_are_found(entries: dict[str, Any]) -> None:
    """Rates of reading within 3 %, fixed times within a fifth, the softmax, what each matrix of experts takes, and the host."""
    profile = build(ServingProfile, entries)
    assert profile.between_s == BETWEEN_S
    cache, experts = profile.attention_over("16bit"), profile.expert_product("bf16", "reference")
    assert profile.small_product("bf16", "reference").efficiency == pytest.approx(READING, rel=0.03)
    assert profile.small_product("bf16", "reference").inner_half == pytest.approx(INNER_HALF, rel=0.1)
    assert cache.efficiency == pytest.approx(READING, rel=0.03)
    assert cache.score_s == pytest.approx(SOFTMAX_S, rel=0.1)
    assert cache.fixed_s == pytest.approx(5e-5, rel=0.2)
    assert experts.each_s == pytest.approx(2e-5, rel=0.2)
    for kernel in profile.small_kernels.values():
        assert kernel.efficiency == pytest.approx(KERNEL_READING, rel=0.03)
        assert kernel.fixed_s == pytest.approx(2e-5, rel=0.05)


def test_a_calibrated_machine_serves(entries: dict[str, Any], tmp_path: Path) -> None:
    """From its file: decoding one sequence of a model takes at least what reading its weights does; GPUs stay what they are."""
    mapping, _ = read_preset("clusters", PRESET)
    mapping = expand_part(Cluster, "clusters", mapping)
    mapping["gpu"] = {**mapping["gpu"], "serving": entries}
    path = tmp_path / "here.yaml"
    write_profile(path, mapping)
    model = {
        "name": "small",
        "layers": 4,
        "hidden_size": 512,
        "attention_heads": 8,
        "kv_heads": 8,
        "head_size": 64,
        "ffn_hidden_size": 2048,
        "activation": "swiglu",
        "norm": "rmsnorm",
        "vocab_size": 8192,
    }
    (found,) = asked_servers(model, gpu=str(path), engine="reference", input_tokens=256, output_tokens=32, concurrency=1)
    read_s = float(found.memory.weights_bytes) / (READING * MEMORY)
    decode = {name: float(np.ravel(seconds)[0]) for name, seconds in found.load.decode.parts().items()}
    assert read_s < sum(decode.values()) < 3 * read_s
    assert decode["kernels_s"] > 4 * 4 * 2e-5  # four kernels at least of each layer
    assert decode["host_s"] == pytest.approx(BETWEEN_S * (1 + 4 * 9 + 3))  # operators of layers, and both ends


def test_a_machine_without_kernels_of_serving_is_refused() -> None:
    """One that was calibrated before they were measured; a cluster of GPUs has those of its GPU."""
    with pytest.raises(NotSupportedError, match="perfmodel calibrate"):
        own_profile(cluster_preset(PRESET))
    cluster = cluster_preset("dgx-h100")
    assert own_profile(cluster) is serving_profile("h100-sxm-80gb")
    own = replace(serving_profile("a100-sxm-80gb"), name="measured here")
    assert own_profile(with_numbers(cluster, {"gpu": with_numbers(cluster.gpu, {"serving": own})})) is own
