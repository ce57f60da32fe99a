"""Do the readers of measured tables give the same rows from every format, and name what is missing?"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from perfmodel.benchmarks.fit import __main__ as command
from perfmodel.benchmarks.fit.tables import NAMES, Folder, Package, Records
from perfmodel.errors import InputError
from perfmodel.evidence.steps.records import Record

H100, H200 = "h100-sxm-80gb", "h200-sxm-141gb"
ATTENTION = ["library", "direction", "mask", "sequences", "heads", "kv_heads", "head_size", "sequence_length", "seconds"]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """An empty folder of CSV files."""
    return Folder(tmp_path)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    """A package whose parquet tables are in a folder of the test, installed or not."""
    pytest.importorskip("pyarrow")
    monkeypatch.setattr(Package, "__init__", lambda self: setattr(self, "root", tmp_path))
    return Package()


def in_package(package: Package, place: str, rows: list[dict[str, Any]], gpu: str = H100) -> None:
    """Write rows at FAMILY/LIBRARY/VERSION/FILE of one GPU."""
    path = package.root / NAMES[gpu] / f"{place}_perf.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_parquet(path)


def in_folder(folder: Folder, name: str, rows: list[dict[str, Any]]) -> None:
    """Write rows as a compressed CSV file."""
    pd.DataFrame(rows).to_csv(folder.root / f"{name}.csv.gz", index=False)


def same(one: pd.DataFrame, other: pd.DataFrame) -> None:
    """Two frames hold the same rows in the same columns, in whatever order."""
    columns = list(one.columns)
    assert list(other.columns) == columns
    first, second = (frame.sort_values(columns).reset_index(drop=True) for frame in (one, other))
    pd.testing.assert_frame_equal(first, second, check_dtype=False)


def test_products_are_the_same_from_both_formats(package: Package, folder: Folder) -> None:
    """bf16 stands in columns by library, in microseconds, in one; in rows, in milliseconds, in the other."""
    shapes = [(512, 1024, 256, 10.0), (1024, 1024, 512, 20.0)]
    bf16 = [
        {"gemm_dtype": "bfloat16", "kernel_source": "", "m": m, "n": n, "k": k, "latency": us / 1e3} for m, n, k, us in shapes
    ]
    fp8 = [{"gemm_dtype": "fp8", "kernel_source": "torch_flow", "m": 512, "n": 1024, "k": 256, "latency": 0.006}]
    four = [{"gemm_dtype": "nvfp4", "kernel_source": "torch_flow", "m": 512, "n": 1024, "k": 256, "latency": 0.003}]
    other = [{"gemm_dtype": "fp8_block", "kernel_source": "deepgemm", "m": 512, "n": 1024, "k": 256, "latency": 0.005}]
    in_package(package, "gemm/trtllm/1.3.0rc20/gemm", bf16 + fp8 + four + other)
    in_folder(folder, "gemm_bf16_h100_sxm", [{"m": m, "n": n, "k": k, "trtllm-1.3.0rc20": us} for m, n, k, us in shapes])
    eight = {"src_backend": "trtllm", "src_version": "1.3.0rc20", "kernel_source": "torch_flow", "m": 512, "n": 1024, "k": 256}
    rows = [("h100_sxm", "fp8", 6.0), ("h100_sxm", "nvfp4", 3.0), ("h100_sxm", "fp8_block", 5.0), ("b200_sxm", "fp8", 2.0)]
    in_folder(folder, "gemm_fp8_fp4_h100_b200", [eight | {"gpu": g, "gemm_dtype": d, "us": us} for g, d, us in rows])
    same(package.products(H100), folder.products(H100))
    assert sorted(package.products(H100).seconds) == pytest.approx([3e-6, 6e-6, 1e-5, 2e-5])


def test_a_library_that_did_not_time_a_shape_has_no_row(folder: Folder) -> None:
    """A blank cell of the wide table is no time of nothing."""
    shape = {"m": 512, "n": 1024, "k": 256}
    in_folder(folder, "gemm_bf16_h100_sxm", [shape | {"one-1": 10.0, "two-1": None}])
    fields = {"gpu": "b200_sxm", "gemm_dtype": "fp8", "src_backend": "one", "src_version": "1.a", "kernel_source": ""}
    in_folder(folder, "gemm_fp8_fp4_b200", [shape | fields | {"us": 1.0}])
    assert list(folder.products(H100).library) == ["one-1"]


def test_collectives_are_the_same_from_both_formats(package: Package, folder: Folder) -> None:
    """One counts elements of two bytes and milliseconds, the other bytes and microseconds; both say alltoall."""
    rows = [("all_gather", 2, 2048, 5.98), ("alltoall", 8, 2**20, 31.0)]
    for kind, dtype in (("half", "half"), ("int8", "int8")):
        in_package(
            package,
            f"comm/nccl/2.27.3-{kind}/nccl",
            [
                {"nccl_dtype": dtype, "num_gpus": n, "message_size": b // 2, "op_name": o, "latency": us / 1e3}
                for o, n, b, us in rows
            ],
        )
    in_folder(
        folder,
        "nccl_single_node",
        [
            {"gpu": gpu, "src_version": "2.27.3-half", "op_name": o, "nccl_dtype": dtype, "num_gpus": n, "bytes": b, "us": us}
            for o, n, b, us in rows
            for gpu, dtype in (("h100_sxm", "half"), ("h100_sxm", "int8"), ("b200_sxm", "half"))
        ],
    )
    same(package.collectives(H100), folder.collectives(H100))
    assert set(package.collectives(H100).operator) == {"all_gather", "all_to_all"}


def test_serving_attention_leaves_out_windows_and_caches(package: Package) -> None:
    """Only 16-bit kernels over whole sequences speak of training; encoders have no mask and no fewer KV heads."""
    shape = {"batch_size": 2, "isl": 4096, "num_heads": 32, "head_dim": 128, "attn_dtype": "bfloat16", "latency": 1.5}
    plain = shape | {"num_key_value_heads": 8, "kv_cache_dtype": "bfloat16", "step": 0, "window_size": 0}
    others: list[dict[str, Any]] = [{"kv_cache_dtype": "fp8"}, {"step": 128}, {"window_size": 1024}, {"attn_dtype": "fp8"}]
    in_package(package, "attention/sglang/0.5.14/context_attention", [plain, *(plain | other for other in others)])
    in_package(package, "encoder_attention/sglang/0.5.14/encoder_attention", [shape])
    found = package.attention(H100)
    assert list(found.columns) == ATTENTION
    assert found.to_numpy().tolist() == [
        ["sglang-0.5.14", "forward", "causal", 2, 32, 8, 128, 4096, pytest.approx(1.5e-3)],
        ["sglang-0.5.14", "forward", "none", 2, 32, 32, 128, 4096, pytest.approx(1.5e-3)],
    ]


def test_training_attention_is_of_one_gpu_without_windows(folder: Folder) -> None:
    """The columns of serving attention, forward and backward."""
    plain: dict[str, Any] = {
        "gpu_name": "NVIDIA H200", "data_type": "bfloat16", "attn_mask": "top_left", "batch_size": 2, "q_seqlen": 4096,
        "kv_seqlen": 4096, "num_q_heads": 32, "num_kv_heads": 8, "head_dim_qk": 128, "head_dim_vo": 128,
        "sliding_window_size": None, "profile_pass": "fwd", "deterministic_bwd": False, "time_ms": 1.5,
        "cudnn_version": "1.21.1",
    }  # fmt: skip
    others: list[dict[str, Any]] = [
        {"gpu_name": "NVIDIA GB200"}, {"data_type": "fp8"}, {"sliding_window_size": 128}, {"deterministic_bwd": True},
        {"kv_seqlen": 8192}, {"head_dim_vo": 64},
    ]  # fmt: skip
    backward = plain | {"profile_pass": "bwd", "attn_mask": "no_mask", "time_ms": 4.0}
    in_folder(folder, "cudnn_sdpa_fwd_bwd", [plain, backward, *(plain | other for other in others)])
    found = folder.training_attention(H200)
    assert list(found.columns) == ATTENTION
    assert found.to_numpy().tolist() == [
        ["cudnn-1.21.1", "forward", "causal", 2, 32, 8, 128, 4096, pytest.approx(1.5e-3)],
        ["cudnn-1.21.1", "backward", "none", 2, 32, 8, 128, 4096, pytest.approx(4e-3)],
    ]
    assert folder.training_attention(H100).empty


def test_norms_have_a_row_a_direction(folder: Folder) -> None:
    """Those that failed, and times that are no times, are left out."""
    norm: dict[str, Any] = {
        "gpu_name": "NVIDIA H200",
        "backend": "cudnn",
        "N": 16384,
        "C": 4096,
        "fwd_time_ms": 0.1,
        "bwd_time_ms": 0.2,
    }
    rows = [
        norm | {"success": True},
        norm | {"success": False},
        norm | {"success": True, "backend": "pytorch", "bwd_time_ms": 0.0},
    ]
    in_folder(folder, "cudnn_norms_fwd_bwd", rows)
    found = folder.norms(H200)
    assert sorted(found[["kernel_class", "direction", "seconds"]].itertuples(index=False, name=None)) == [
        ("eager", "forward", pytest.approx(1e-4)),
        ("fused", "backward", pytest.approx(2e-4)),
        ("fused", "forward", pytest.approx(1e-4)),
    ]


def recorded(path: Path, kind: str, sizes: dict[str, float], seconds: float, **labels: str) -> None:
    """Add one record to a file."""
    provenance = dict.fromkeys(("gpu", "software", "date", "command"), "x")
    made = Record(kind=kind, sizes=sizes, labels=labels, seconds=seconds, spread=0.0, repeats=9, provenance=provenance)
    with path.open("a") as file:
        file.write(json.dumps(made.document()) + "\n")


def test_own_records_give_the_frames_of_the_tables(tmp_path: Path, package: Package) -> None:
    """Forward products, and collectives that stay in a node."""
    path = tmp_path / "records.jsonl"
    product = {"rows": 4096.0, "columns": 1024.0, "inner": 512.0}
    recorded(path, "matmul", product, 1e-5, precision="bf16", phase="forward")
    recorded(path, "matmul", product, 2e-5, precision="bf16", phase="data_gradient")
    for nodes in (1.0, 2.0):
        recorded(path, "collective", {"ranks": 8.0, "payload_bytes": 2048.0, "nodes": nodes}, 5e-6, operator="all_gather")
    records = Records(path)
    row = {"gemm_dtype": "bfloat16", "kernel_source": "x", "m": 1, "n": 1, "k": 1, "latency": 1.0}
    in_package(package, "gemm/a/1/gemm", [row])
    message = {"nccl_dtype": "half", "num_gpus": 2, "message_size": 1, "op_name": "all_gather", "latency": 1.0}
    in_package(package, "comm/nccl/1/nccl", [message])
    assert list(records.products().columns) == list(package.products(H100).columns)
    assert list(records.collectives().columns) == list(package.collectives(H100).columns)
    assert records.products()[["m", "n", "k", "precision", "seconds"]].to_numpy().tolist() == [[4096, 1024, 512, "bf16", 1e-5]]
    assert records.collectives()[["operator", "ranks", "payload_bytes", "seconds"]].to_numpy().tolist() == [
        ["all_gather", 8, 2048, 5e-6]
    ]


def test_the_weight_gradient_factor_is_the_median_over_shapes_measured_both_ways(tmp_path: Path) -> None:
    """A shape without its other half says nothing; without any there is no factor."""
    path = tmp_path / "records.jsonl"
    for rows, factor in ((1024.0, 1.0), (2048.0, 1.1), (4096.0, 2.0)):
        forward = {"rows": rows, "columns": 512.0, "inner": 256.0}
        recorded(path, "matmul", forward, 1e-5, precision="bf16", phase="forward")
        recorded(path, "matmul", forward, factor * 1e-5, precision="bf16", phase="weight_gradient")
    recorded(path, "matmul", {"rows": 8192.0, "columns": 512.0, "inner": 256.0}, 1.0, precision="bf16", phase="forward")
    assert Records(path).weight_gradient_factor() == pytest.approx(1.1)
    alone = tmp_path / "alone.jsonl"
    recorded(alone, "matmul", {"rows": 8192.0, "columns": 512.0, "inner": 256.0}, 1.0, precision="bf16", phase="forward")
    assert Records(alone).weight_gradient_factor() is None


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    """One sentence that names it."""
    with pytest.raises(InputError, match=r"none is not a folder of tables$"):
        Folder(tmp_path / "none")


@pytest.mark.parametrize("read", ["products", "collectives", "training_attention", "norms"])
def test_a_missing_file_is_named(folder: Folder, read: str) -> None:
    """With the folder that lacks it."""
    with pytest.raises(InputError, match=r" has no \w+\.csv\.gz$") as caught:
        getattr(folder, read)(H100)
    assert str(folder.root) in str(caught.value)


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what would install it."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"aiconfigurator-core is not installed; pip install"):
        Package()


def test_another_version_of_the_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The profiles name the version that they were fitted on."""
    pytest.importorskip("aiconfigurator_core")
    monkeypatch.setattr("perfmodel.benchmarks.fit.tables.version", lambda _: "99.1")
    with pytest.raises(InputError, match=r"aiconfigurator-core is 99.1; the fits name aiconfigurator-core 0\."):
        Package()


def test_the_command_says_in_one_sentence_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: Package
) -> None:
    """And writes nothing."""
    monkeypatch.setattr(sys, "argv", ["fit", H100, "--tables", str(tmp_path / "none"), "--output", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as stop:
        command.main()
    assert stop.value.code == f"fit: {tmp_path / 'none'} is not a folder of tables"
    assert not list(tmp_path.iterdir())


def test_the_command_writes_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: Package) -> None:
    """In the folders of perfmodel/data, under --output."""
    monkeypatch.setattr(sys, "argv", ["fit", "infiniband", "--tables", str(tmp_path), "--output", str(tmp_path / "out")])
    command.main()
    assert [path.name for path in (tmp_path / "out").rglob("*.yaml")] == ["infiniband.yaml"]
