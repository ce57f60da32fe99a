"""Do other libraries of products and attention, and sides off the tensor cores, take the time that was measured or printed?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from perfmodel.benchmarks.fit.attention.flash import read_points
from perfmodel.count.operators import FusedAttention, Matmul
from perfmodel.errors import InputError
from perfmodel.exchange.presets import cluster_preset, gpu_preset, stack_preset
from perfmodel.spec.machines.hardware import Gpu
from perfmodel.spec.phases import DATA_GRADIENT, FORWARD
from perfmodel.spec.precision import RECIPES
from perfmodel.timing.attention import fused_attention_time_s
from perfmodel.timing.kernels import kernel_time_s, matmul_time_s
from perfmodel.timing.uncertainty import with_ends
from tests.stacks import stack_with

H100 = gpu_preset("h100-sxm-80gb")
A100 = gpu_preset("a100-sxm-80gb")
CLUSTER = cluster_preset("dgx-h100")
NEWEST = stack_with(stack_preset("megatron-core"), {"fusion.matmul_library": "newest", "fusion.attention_library": "fastest"})
OLDER = stack_with(NEWEST, {"fusion.matmul_library": "cublas_2023"})
SQUARE = Matmul(name="square", rows=8192, columns=8192, inner=8192, precision="bf16")
SCORES = Matmul(name="scores", rows=2048, columns=2048, inner=112, batch=64, has_weight=False, precision="bf16")


def older_s(gpu: Gpu = H100, **changes: Any) -> float:
    """The time of a product in the older library."""
    product = replace(SQUARE, **changes)
    return float(matmul_time_s(product, gpu=gpu, compute_scale=1.0, library="cublas_2023"))


def attention_s(library: str, length: float, size: int = 128, *, gpu: Gpu = H100, phase: str = FORWARD) -> float:
    """The time of causal attention on 16,384 tokens of hidden size 2048."""
    heads = 2048 / size
    call = FusedAttention(
        name="core",
        phase=phase,
        sequences=16384 / length,
        heads=heads,
        kv_heads=heads,
        head_size=float(size),
        query_length=length,
        key_length=length,
        precision="bf16",
    )
    return float(fused_attention_time_s(call, gpu=gpu, compute_scale=1.0, library=library))


def scores_s(*, gpu: Gpu = A100, **changes: Any) -> float:
    """The time of the products of unfused attention."""
    return float(matmul_time_s(replace(SCORES, **changes), gpu=gpu, compute_scale=1.0))


def test_an_older_library_computes_its_outer_tiles_in_full() -> None:
    """A row beyond a tile costs most of another row of tiles; the newest library hardly notices."""
    beyond = older_s(rows=4097, columns=8192) / older_s(rows=4096, columns=8192)
    newest = [float(matmul_time_s(replace(SQUARE, rows=rows), gpu=H100, compute_scale=1.0)) for rows in (4096, 4097)]
    assert beyond > 1.01 > newest[1] / newest[0]


@pytest.mark.parametrize(
    ("rows", "columns", "inner", "microseconds"),
    [(2048, 2560, 10240, 158.0), (2560, 1536, 4096, 47.0), (1016, 1536, 4096, 27.0), (512, 2560, 10240, 56.0)],
)
def test_an_older_library_takes_what_a_serving_engine_of_2024_took(
    rows: int, columns: int, inner: int, microseconds: float
) -> None:
    """Products of microsoft/vidur's table of H100, to its 90th percentile of error."""
    assert older_s(rows=rows, columns=columns, inner=inner) == pytest.approx(microseconds * 1e-6, rel=0.16)


@pytest.mark.parametrize(("gpu", "precision"), [("b200", "bf16"), ("h100-sxm-80gb", "fp8")])
def test_a_library_that_was_not_measured_is_the_newest(gpu: str, precision: str) -> None:
    """Of a GPU that is newer than it, and in a format that its table lacks."""
    known = gpu_preset(gpu)
    assert known.matmul(precision, "cublas_2023") is known.matmul(precision)


def test_fp16_runs_on_the_circuits_of_bf16_in_every_library() -> None:
    """One law serves both."""
    assert older_s(precision="fp16") == older_s(precision="bf16")


def test_the_stack_says_which_library_it_calls() -> None:
    """A product with few waves takes longer in an older one."""
    few = replace(SQUARE, rows=1024, columns=1536, inner=4096)
    older, newest = (float(kernel_time_s(few, cluster=CLUSTER, stack=stack)) for stack in (OLDER, NEWEST))
    assert older > 1.1 * newest


def test_a_stack_cannot_name_a_library_that_nobody_knows() -> None:
    """With a did-you-mean."""
    with pytest.raises(InputError, match="newest"):
        stack_with(NEWEST, {"fusion.matmul_library": "newset"})


def test_a_profile_cannot_hold_a_library_that_nobody_knows() -> None:
    """The key is named."""
    kernels = H100.kernels
    with pytest.raises(InputError) as caught:
        replace(kernels, matmul_libraries={"cublas": kernels.matmul_libraries["cublas_2023"]})
    assert caught.value.key == "matmul_libraries.cublas"


@pytest.mark.parametrize("stack", [OLDER, NEWEST])
def test_only_the_library_in_use_moves_the_interval(stack: Any) -> None:
    """The numbers of the other ones are no part of the uncertainty."""
    paths, *_ = with_ends(CLUSTER, stack, RECIPES["bf16"], 0, messages=True)
    older = [path for path in paths if ".matmul_libraries." in path]
    newest = [path for path in paths if ".kernels.matmul." in path]
    assert bool(older) == (stack is OLDER)
    assert bool(newest) == (stack is NEWEST)
    assert not [path for path in paths if ".attention_laws." in path]


def test_the_interval_of_flash_attention_2_is_that_of_its_own_law() -> None:
    """Where the profile has one."""
    paths, *_ = with_ends(
        CLUSTER, stack_with(NEWEST, {"fusion.attention_library": "flash2"}), RECIPES["bf16"], 0, messages=True
    )
    assert [path for path in paths if ".attention_laws.flash2." in path]
    assert not [path for path in paths if ".kernels.attention_forward." in path]


@pytest.mark.parametrize("gpu", ["h100-sxm-80gb", "h200-sxm-141gb"])
def test_flash_attention_2_falls_behind_on_hopper_as_sequences_grow(gpu: str) -> None:
    """As measured, near the kernels of the profile at 512 tokens (on H100, where it was measured), half as fast at 16,384."""
    points, _ = read_points()
    chosen = points[(points.direction == "forward") & (points["mask"] == "causal") & (points.head_size == 128)]
    measured_s = dict(zip(chosen.sequence_length, chosen.seconds, strict=True))
    known, lengths = gpu_preset(gpu), (512, 2048, 16384)
    against = [attention_s("fastest", length, gpu=known) / attention_s("flash2", length, gpu=known) for length in lengths]
    as_measured = [attention_s("fastest", length) / measured_s[length] for length in lengths]
    assert as_measured[0] == pytest.approx(1.0, abs=0.1)
    assert against[2] == pytest.approx(0.5, abs=0.05)
    assert as_measured[2] == pytest.approx(0.5, abs=0.05)
    assert against[0] > against[1] > against[2]


def test_flash_attention_2_takes_what_its_paper_prints() -> None:
    """Figures 5 and 6 of arXiv:2407.08608, to 9 % at most."""
    rows, _ = read_points()
    for row in rows.to_dict("records"):
        call = FusedAttention(
            name="core",
            phase=DATA_GRADIENT if row["direction"] == "backward" else FORWARD,
            sequences=row["sequences"],
            heads=row["heads"],
            kv_heads=row["heads"],
            head_size=float(row["head_size"]),
            query_length=row["sequence_length"],
            key_length=row["sequence_length"],
            causal=row["mask"] == "causal",
            precision="bf16",
        )
        seconds = fused_attention_time_s(call, gpu=H100, compute_scale=1.0, library="flash2")
        assert float(seconds) == pytest.approx(row["seconds"], rel=0.09), row


@pytest.mark.parametrize(
    ("size", "heads", "sequences", "length", "backward", "tflops"),
    [
        (64, 32, 8, 2048, False, 381),  # Dao-AILab/flash-attention#1589, no mask
        (64, 32, 2, 8192, False, 343),
        (64, 32, 8, 2048, True, 302),
        (64, 32, 2, 8192, True, 329),
        (128, 16, 8, 2048, False, 352),  # meta-pytorch/tritonbench#171
        (128, 16, 8, 8192, False, 362),
    ],
)
def test_flash_attention_2_runs_on_blackwell_as_it_was_measured(
    size: int, heads: int, sequences: int, length: int, backward: bool, tflops: float
) -> None:
    """Within 13 %: no faster than on Hopper, whose instructions it has not got either."""
    call = FusedAttention(
        name="core",
        phase=DATA_GRADIENT if backward else FORWARD,
        sequences=sequences,
        heads=heads,
        kv_heads=heads,
        head_size=float(size),
        query_length=length,
        key_length=length,
        causal=False,
        precision="bf16",
    )
    seconds = float(fused_attention_time_s(call, gpu=gpu_preset("b200"), compute_scale=1.0, library="flash2"))
    flop = (2.5 if backward else 1.0) * 4.0 * sequences * heads * length**2 * size
    assert flop / seconds == pytest.approx(tflops * 1e12, rel=0.13)


def test_software_takes_another_library_on_some_generations() -> None:
    """torchtitan of 2025 puts cuDNN first on Blackwell alone."""
    stack = stack_with(NEWEST, {"fusion.attention_library": "flash2", "fusion.fastest_attention_on": ("blackwell",)})
    core = FusedAttention(
        name="core", sequences=2, heads=16, kv_heads=16, head_size=128, query_length=4096, key_length=4096, precision="bf16"
    )
    for name, library in (("dgx-h100", "flash2"), ("dgx-b200", "fastest")):
        cluster = cluster_preset(name)
        of_library = stack_with(NEWEST, {"fusion.attention_library": library})
        assert kernel_time_s(core, cluster=cluster, stack=stack) == kernel_time_s(core, cluster=cluster, stack=of_library)


def test_flash_attention_2_is_the_best_on_ampere_and_its_forerunner_half_as_fast() -> None:
    """The profile of A100 is that of FlashAttention-2 (arXiv:2307.08691: twice FlashAttention)."""
    times = [attention_s(library, 4096, gpu=A100) for library in ("fastest", "flash2", "flash1")]
    assert times[0] == times[1]
    assert times[2] > 1.6 * times[1]


@pytest.mark.parametrize("size", [108, 150, 450])
@pytest.mark.parametrize("sides", [{"inner": "size"}, {"inner": 2048, "columns": "size"}, {"inner": 2048, "rows": "size"}])
def test_sides_that_are_no_multiple_of_16_bytes_leave_the_tensor_cores(size: int, sides: dict[str, Any]) -> None:
    """Whichever side it is, several times slower than the next head size that is one."""
    unaligned: dict[str, Any] = {name: size if value == "size" else value for name, value in sides.items()}
    aligned: dict[str, Any] = {name: 8 * (size // 8 + 1) if value == "size" else value for name, value in sides.items()}
    assert scores_s(**unaligned) > 3 * scores_s(**aligned)


def test_off_the_tensor_cores_a_product_takes_its_flop_at_their_rate() -> None:
    """F / rate, exactly."""
    rate = A100.kernels.matmul["bf16"].unaligned_flop_per_s
    assert rate is not None
    product = replace(SCORES, inner=108)
    assert scores_s(inner=108) == pytest.approx(product.flop / rate)


def test_sizes_on_and_off_the_tensor_cores_can_stand_in_one_array() -> None:
    """Element by element."""
    both = matmul_time_s(replace(SCORES, inner=np.array([108.0, 112.0])), gpu=A100, compute_scale=1.0)
    assert np.asarray(both).tolist() == pytest.approx([scores_s(inner=108), scores_s(inner=112)])


def test_products_with_weights_and_gpus_without_the_rate_stay_as_they_were() -> None:
    """Nobody measured them there."""
    for gpu, has_weight in ((A100, True), (H100, False)):
        near = [scores_s(gpu=gpu, inner=inner, has_weight=has_weight) for inner in (108, 112)]
        assert near[0] == pytest.approx(near[1], rel=0.05)
