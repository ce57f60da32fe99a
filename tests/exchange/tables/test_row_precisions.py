"""Which number formats, and whose peak rate, does a row of a table of measured runs get?"""

from __future__ import annotations

from typing import Any

import pytest

from perfmodel.spec.precision import RECIPES


@pytest.mark.parametrize(("precision", "peak"), [("tf32", 494.7e12), ("fp32", 67e12)])
def test_rows_of_4_bytes_are_read(read: Any, precision: str, peak: float) -> None:
    """Under their own recipe, against their own peak rate; nothing about them is assumed."""
    (row,) = read({"precision": precision})
    assert (row.run.precision, row.labels["precision"], row.peak_flop_per_s) == (precision, precision, peak)
    assert not any("precision" in sentence for sentence in row.assumptions)


def test_a_printed_mfu_of_another_peak_is_no_slip(read: Any) -> None:
    """Products in 8 bits are often counted against the peak rate of 16 bits; an MFU of neither is one."""
    fast = {"precision": "mxfp8", "gpu": "b200", "iteration_time_s": "10"}  # 16.9 % of the peak of its products
    own, other, neither = read(fast | {"mfu_pct": "17"}, fast | {"mfu_pct": "34"}, fast | {"mfu_pct": "3"})
    assert other.assumptions[-1] == "mfu_pct: 34 is of the dense bf16 peak, 2,250 TFLOP/s, not of that of its products"
    assert not any("mfu_pct" in each for each in (*own.assumptions, own.warning, other.warning))
    assert "mfu_pct: 3 stands beside a time of 10 s" in neither.warning


def test_software_that_runs_the_mlp_alone_in_4_bits_is_read_so(read: Any) -> None:
    """NVIDIA's recipe for MaxText; MLPerf's takes all layers, and others what their stack says."""
    of_maxtext, of_mlperf, plain = read(
        {"precision": "nvfp4", "gpu": "gb300", "stack": "maxtext"},
        {"precision": "nvfp4", "gpu": "gb300", "source": "mlcommons/training_results_v5.1 NVIDIA"},
        {"precision": "nvfp4", "gpu": "gb300"},
    )
    found = [row.run.stack.low_precision for row in (of_maxtext, of_mlperf, plain)]
    assert [each.products for each in found] == ["mlp", "layer", "layer"]
    assert [float(each.spared_layers) for each in found] == [0.0, 0.0, 0.15]


def test_mlperf_leaves_transforms_and_userbuffers_out_in_4_bits_alone(read: Any) -> None:
    """config_common_fp4.sh: NVTE_NVFP4_DISABLE_RHT=1, TP_COMM_OVERLAP=False, FP8_PARAM_GATHER=False."""
    cells = {"source": "mlcommons/training_results_v5.1 NVIDIA", "gpu": "gb200"}
    elsewhere = {"precision": "nvfp4", "gpu": "gb200"}
    four, eight, other = read(cells | {"precision": "nvfp4"}, cells | {"precision": "fp8"}, elsewhere)
    stacks = [row.run.stack for row in (four, eight, other)]
    assert [each.low_precision.hadamard for each in stacks] == [False, True, True]
    assert [each.overlap.tensor_parallel for each in stacks] == ["backward", "pipelined", "pipelined"]
    assert [each.low_precision.parameter_gather for each in stacks] == [False, True, False]


@pytest.mark.parametrize(
    "source", ["mlcommons/training_results_v5.1 NVIDIA", "mlcommons/training_results_v5.1 Nebius/nebius_b200_n1"]
)
def test_mlperf_casts_for_attention_beside_products_in_4_bits_unless_ranks_share_a_sequence(read: Any, source: str) -> None:
    """Its configurations with context parallelism set attention back to 16 bits; those of FP8 never cast for it."""
    cells = {"source": source, "gpu": "gb200", "precision": "nvfp4"}
    apart, shared, eight = read(cells, cells | {"context_parallel": "2", "data_parallel": "4"}, cells | {"precision": "fp8"})
    found = [row.run.stack.low_precision.attention_format(RECIPES[row.run.precision]) for row in (apart, shared, eight)]
    assert found == ["fp8", "", ""]
