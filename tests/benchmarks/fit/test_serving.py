"""Do the fits of older libraries and of a serving engine's kernels find the numbers that made the times?"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from perfmodel.benchmarks.fit.attention.flash import fit_flash, read_points
from perfmodel.benchmarks.fit.checks import kernels as check_kernels
from perfmodel.benchmarks.fit.checks.serving import is_serving_table, kernel_errors, product_errors
from perfmodel.benchmarks.fit.matmul.libraries import add_libraries, libraries
from perfmodel.benchmarks.fit.matmul.older_products import fit_older, kept_numbers
from perfmodel.benchmarks.fit.serving_ops import fit_kernel, read_serving_ops, serving_kernels, serving_products
from perfmodel.count.operators import Matmul, MemoryBound
from perfmodel.errors import InputError
from perfmodel.exchange.presets import gpu_preset
from perfmodel.timing.kernels import matmul_time_s, plain_memory_bound_time_s

H100 = gpu_preset("h100-sxm-80gb")
TOKENS = tuple(float(tokens) for tokens in np.geomspace(64, 4096, 13).round())


def products() -> pd.DataFrame:
    """Times of the shipped older library, as a table of products."""
    shapes = [(m, n, k) for m, (n, k) in product(TOKENS, product((1536.0, 4096.0, 12288.0), (1376.0, 4096.0, 11008.0)))]
    m, n, k = (np.array(column) for column in zip(*shapes, strict=True))
    call = Matmul(name="gemm", rows=m, columns=n, inner=k, precision="bf16")
    seconds = matmul_time_s(call, gpu=H100, compute_scale=1.0, library="cublas_2023")
    return pd.DataFrame({"m": m, "n": n, "k": k, "seconds": seconds})


def table(**changes: Any) -> pd.DataFrame:
    """A serving engine's table of one GPU: additions and activations of two models, and the products."""
    rows = []
    for model, op, tokens in product(("meta-llama/Llama-2-7b-hf", "microsoft/phi-2"), ("add", "mlp_act"), TOKENS):
        gated = model.startswith("meta")
        moved = tokens * (24576.0 if op == "add" else 66048.0 if gated else 40960.0)
        kernel = "residual" if op == "add" else "fused_swiglu" if gated else "gelu"
        known = H100.kernels.memory_bound[kernel]
        launches = 1 if gated or op == "mlp_act" else 2
        call = MemoryBound(name=kernel, moved_bytes=launches * moved, kernels=launches)
        seconds = float(plain_memory_bound_time_s(call, known, gpu=H100))
        rows.append({"gpu": "h100", "model": model, "op": op, "tokens": tokens, "tp": 1, "bytes": moved, "us": 1e6 * seconds})
    gemm = products().assign(gpu="h100", model="meta-llama/Llama-2-7b-hf", op="gemm:mlp_down_proj", tp=1, bytes=0.0)
    gemm = gemm.assign(tokens=gemm.m, us=1e6 * gemm.seconds).drop(columns="seconds")
    return pd.concat([pd.DataFrame(rows), gemm]).assign(**changes)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """That table as a file."""
    written = tmp_path / "serving_ops_h100_a100.csv"
    table().to_csv(written, index=False)
    return written


def test_the_fit_of_an_older_library_comes_near_the_times_that_it_made() -> None:
    """On both halves of its shapes, of which each was predicted by the other."""
    mapping, found = fit_older(products(), H100)
    assert found.held_out_error()["median"] < 0.02
    assert found.out.all()
    assert mapping["most_splits"] == 1
    assert "slowdown" in kept_numbers(mapping, found)


@pytest.mark.parametrize(("kernel", "efficiency"), [("residual", 0.886), ("fused_swiglu", 0.564), ("gelu", 0.730)])
def test_the_fit_of_a_kernel_finds_its_efficiency(path: Path, kernel: str, efficiency: float) -> None:
    """Both ways alike; additions of two branches at once count as two kernels, and are left out."""
    mapping, _ = fit_kernel(serving_kernels(read_serving_ops(path), "h100"), H100, kernel)
    assert mapping["efficiency"] == pytest.approx(efficiency, rel=0.02)
    assert mapping["backward_efficiency"] == mapping["efficiency"]


def test_the_shipped_law_of_flash_attention_2_is_that_of_its_points() -> None:
    """Fitted again, it is the same."""
    rows, _ = read_points()
    for direction in ("forward", "backward"):
        mapping, found = fit_flash(rows, H100, direction)
        shipped = H100.attention("bf16", backward=direction == "backward", library="flash2")
        assert mapping["efficiency"] == pytest.approx(shipped.efficiency, rel=1e-3)
        assert found.held_out_error()["median"] < 0.02


def test_a_profile_gains_its_libraries_and_keeps_the_rest(path: Path) -> None:
    """With a source for each."""
    before = {"name": "x", "matmul": {"bf16": {"spread": {}}}, "memory_bound": {"fused": {}}, "sources": {"matmul": "kept"}}
    known = libraries("h100-sxm-80gb", path.parent)
    after = add_libraries("h100-sxm-80gb", before, known)
    assert after["memory_bound"].keys() == {"fused", *known["memory_bound"]}
    assert after["sources"]["matmul"] == "kept"
    assert after["sources"].keys() >= {"attention_laws.flash2.forward", "matmul_libraries.cublas_2023.matmul.bf16"}


def test_gpus_without_a_table_have_no_libraries(path: Path) -> None:
    """Nothing is carried over to another chip."""
    assert libraries("b200", path.parent) == {}
    assert libraries("h100-sxm-80gb", path.parent / "none") == {}


def test_a_table_of_times_that_a_profile_made_has_no_error(path: Path) -> None:
    """Class by class, at a scale of 1."""
    read = read_serving_ops(path)
    errors = [product_errors(serving_products(read, "h100"), H100, "cublas_2023")]
    errors += [kernel_errors(serving_kernels(read, "h100"), H100, kernel) for kernel in ("residual", "fused_swiglu", "gelu")]
    for each in errors:
        assert each.scale == pytest.approx(1.0)
        assert np.abs(each.plain).max() < 1e-9


def test_the_check_of_a_table_prints_a_line_a_class(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It knows a serving engine's table by its columns."""
    assert is_serving_table(path)
    monkeypatch.setattr("sys.argv", ["check_kernels", str(path), "--gpu", "h100-sxm-80gb"])
    check_kernels.main()
    printed = capsys.readouterr().out
    assert [line.split("  ")[1].strip() for line in printed.splitlines()[1:]] == [
        "products, newest",
        "products, cublas_2023",
        "fused_swiglu",
        "gelu",
        "residual",
    ]


def test_a_table_without_a_column_is_refused(tmp_path: Path) -> None:
    """By the name of the first one that is missing."""
    path = tmp_path / "short.csv"
    table().drop(columns="bytes").to_csv(path, index=False)
    with pytest.raises(InputError, match="has no column bytes"):
        read_serving_ops(path)
