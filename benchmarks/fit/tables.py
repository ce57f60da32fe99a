"""Where the measured kernels are: one frame a family, whatever the format it comes in.

Formats: the parquet tables inside the package aiconfigurator-core (the default: anyone can install it), a folder of the
CSV files named below, and this project's own records (JSON lines, perfmodel/evidence/steps/records.py). Times are in seconds.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

import pandas as pd

from perfmodel.errors import InputError, PerfmodelError
from perfmodel.evidence.steps.records import Record, record
from perfmodel.spec.precision import LOW_ATTENTION

AICONFIGURATOR: Final = "aiconfigurator-core"
LICENCES: Final = {
    AICONFIGURATOR: "Copyright (c) 2025-2026 NVIDIA CORPORATION & AFFILIATES, Apache-2.0",
    "cudnn-frontend": "Copyright (c) 2020 NVIDIA CORPORATION, MIT",
}
NAMES: Final = {  # preset of a GPU -> its name in the tables
    "h100-sxm-80gb": "h100_sxm",
    "h200-sxm-141gb": "h200_sxm",
    "a100-sxm-80gb": "a100_sxm",
    "b200": "b200_sxm",
    "gb200": "gb200",
    "b300": "b300_sxm",
    "gb300": "gb300",
    "l40s": "l40s",
    "rtx-pro-6000-server": "rtx_pro_6000_server",
}
CUDNN_NAMES: Final = {"h200-sxm-141gb": "NVIDIA H200", "gb200": "NVIDIA GB200", "gb300": "NVIDIA GB300"}
SHAPE: Final = ["m", "n", "k"]
LABELS: Final = {  # what a record must say of itself to be fitted
    "matmul": ("precision", "phase", "rows", "columns", "inner"),
    "collective": ("operator", "ranks", "payload_bytes"),
}
# by format: TensorRT-LLM's torch._scaled_mm and its FP4 product, that is cuBLASLt: what Transformer Engine calls
LOW_KERNELS: Final = {"fp8": "torch_flow", "nvfp4": "torch_flow"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where rows come from, as a profile states it."""

    table: str
    version: str
    licence: str
    rows: int = 0


AIC_SOURCE: Final = Source(table="NVIDIA AIConfigurator", version=f"{AICONFIGURATOR} 0.12.0", licence=LICENCES[AICONFIGURATOR])
RECORDS_SOURCE: Final = Source(table="this project's benchmarks", version="records", licence="Apache-2.0")
CUDNN_SOURCE: Final = Source(table="NVIDIA cudnn-frontend benchmarks", version="3929da2", licence=LICENCES["cudnn-frontend"])


STATES: Final = "linear_attention"  # family of tables of mixers that keep a state


def _joined(tables: list[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _space_channels(table: pd.DataFrame) -> pd.Series:
    return table.nheads * table.head_dim + 2 * table.n_groups * table.d_state


def _delta_channels(table: pd.DataFrame) -> pd.Series:
    return 2 * table.num_k_heads * table.head_k_dim + table.num_v_heads * table.head_v_dim


class Package:
    """The parquet tables of the installed package aiconfigurator-core."""

    def __init__(self) -> None:
        found = importlib.util.find_spec("aiconfigurator_core")
        if found is None or not found.submodule_search_locations:
            raise InputError(f"{AICONFIGURATOR} is not installed; pip install 'perfmodel[fit]'")
        if version(AICONFIGURATOR) not in AIC_SOURCE.version:
            raise InputError(f"{AICONFIGURATOR} is {version(AICONFIGURATOR)}; the fits name {AIC_SOURCE.version}")
        self.root = Path(found.submodule_search_locations[0]) / "systems" / "data"

    def _tables(self, gpu: str, family: str, file: str) -> Iterator[pd.DataFrame]:
        for path in sorted((self.root / NAMES[gpu] / family).glob(f"*/*/{file}_perf.parquet")):
            yield pd.read_parquet(path).assign(library=path.parts[-3], version=path.parts[-2])

    def products(self, gpu: str) -> pd.DataFrame:
        """m, n, k, library, kernel, precision (bf16, fp8, nvfp4), seconds of x @ W^T."""
        precisions = {"bfloat16": "bf16", "fp8": "fp8", "nvfp4": "nvfp4"}
        tables = pd.concat(self._tables(gpu, "gemm", "gemm"))
        tables = tables[tables.gemm_dtype.isin(list(precisions))]
        tables = tables.assign(precision=tables.gemm_dtype.map(precisions), seconds=tables.latency / 1e3)
        tables["library"] = tables.library + "-" + tables.version
        return tables.rename(columns={"kernel_source": "kernel"})[[*SHAPE, "library", "kernel", "precision", "seconds"]]

    def collectives(self, gpu: str) -> pd.DataFrame:
        """operator, ranks, payload_bytes, version, seconds; the library's message size counts elements of 2 bytes."""
        paths = sorted((self.root / NAMES[gpu] / "comm" / "nccl").glob("*/nccl_perf.parquet"))
        tables = pd.concat([pd.read_parquet(path).assign(version=path.parts[-2]) for path in paths])
        tables = tables[tables.nccl_dtype == "half"]
        return _collectives(tables.assign(payload_bytes=tables.message_size * 2, seconds=tables.latency / 1e3))

    def convolutions(self, gpu: str) -> pd.DataFrame:
        """tokens, channels, library, seconds of causal convolutions.

        TensorRT-LLM's of delta rules are left out: they are of some of the channels. Of each size the shortest time is taken.
        """
        mamba = [table.assign(channels=_space_channels(table)) for table in self._tables(gpu, STATES, "mamba2")]
        delta = [table.assign(channels=_delta_channels(table)) for table in self._tables(gpu, STATES, "gdn")]
        tables = _joined([*mamba, *(table for table in delta if "trtllm" not in set(table.library))])
        if tables.empty:
            return tables
        rows = tables[tables.kernel_source == "causal_conv1d_fn"]
        rows = rows.assign(tokens=rows.num_tokens, seconds=rows.latency / 1e3)
        return rows.groupby(["tokens", "channels", "library"]).seconds.min().reset_index()

    def delta_rules(self, gpu: str) -> pd.DataFrame:
        """key_heads, value_heads, sequences, sequence_length, tokens, seconds of the gated delta rule in Triton, forward.

        Several models share a shape, whose shortest time is taken: some of those on GB200 were five times as long.
        """
        tables = _joined([table for table in self._tables(gpu, STATES, "gdn") if "trtllm" in set(table.library)])
        if tables.empty:
            return tables
        rows = tables[tables.kernel_source == "chunk_gated_delta_rule"]
        found = pd.DataFrame(
            {
                "key_heads": rows.num_k_heads,
                "value_heads": rows.num_v_heads,
                "sequences": rows.batch_size,
                "sequence_length": rows.seq_len,
                "tokens": rows.num_tokens,
                "seconds": rows.latency / 1e3,
            }
        )
        return found.groupby([name for name in found if name != "seconds"]).seconds.min().reset_index()

    def attention(self, gpu: str) -> pd.DataFrame:
        """Forward attention of serving libraries: causal prefill, and encoders without a mask."""
        causal = [self._attention(table, "causal") for table in self._tables(gpu, "attention", "context_attention")]
        full = [self._attention(table, "none") for table in self._tables(gpu, "encoder_attention", "encoder_attention")]
        return pd.concat([*causal, *full])

    @staticmethod
    def _attention(table: pd.DataFrame, mask: str) -> pd.DataFrame:
        keep = table.attn_dtype == "bfloat16"
        for column, plain in (("kv_cache_dtype", "bfloat16"), ("window_size", 0), ("step", 0)):
            if column in table:
                keep &= table[column] == plain
        chosen = table[keep]
        kv_heads = chosen.num_key_value_heads if "num_key_value_heads" in chosen else chosen.num_heads
        return pd.DataFrame(
            {
                "library": chosen.library + "-" + chosen.version,
                "direction": "forward",
                "mask": mask,
                "sequences": chosen.batch_size,
                "heads": chosen.num_heads,
                "kv_heads": kv_heads,
                "head_size": chosen.head_dim,
                "sequence_length": chosen.isl,
                "seconds": chosen.latency / 1e3,
            }
        )


class Folder:
    """A folder of the CSV files: gemm_bf16_<gpu>, gemm_fp8_fp4_*, nccl_single_node, cudnn_sdpa_fwd_bwd, cudnn_norms_fwd_bwd."""

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise InputError(f"{root} is not a folder of tables")
        self.root = root

    def _read(self, name: str) -> pd.DataFrame:
        paths = sorted(self.root.glob(f"{name}.csv*"))
        if not paths:
            raise InputError(f"{self.root} has no {name}.csv.gz")
        return pd.concat([pd.read_csv(path) for path in paths])

    def products(self, gpu: str) -> pd.DataFrame:
        """As Package.products."""
        wide = self._read(f"gemm_bf16_{NAMES[gpu]}").melt(id_vars=SHAPE, var_name="library", value_name="us").dropna()
        sixteen = wide.assign(precision="bf16", kernel="", seconds=wide.us / 1e6)
        low = self._read("gemm_fp8_fp4_*")
        low = low[(low.gpu == NAMES[gpu]) & low.gemm_dtype.isin(list(LOW_KERNELS))]
        low = low.assign(precision=low.gemm_dtype, seconds=low.us / 1e6, library=low.src_backend + "-" + low.src_version)
        low = low.rename(columns={"kernel_source": "kernel"})
        return pd.concat([sixteen, low])[[*SHAPE, "library", "kernel", "precision", "seconds"]]

    def collectives(self, gpu: str) -> pd.DataFrame:
        """As Package.collectives."""
        table = self._read("nccl_single_node")
        table = table[(table.gpu == NAMES[gpu]) & (table.nccl_dtype == "half")]
        return _collectives(
            table.assign(payload_bytes=table.bytes, seconds=table.us / 1e6, version=table.src_version.astype(str))
        )

    def training_attention(self, gpu: str) -> pd.DataFrame:
        """cuDNN's forward and backward attention in bf16 without a window."""
        table = self._read("cudnn_sdpa_fwd_bwd")
        table = table[(table.gpu_name == CUDNN_NAMES.get(gpu, "")) & (table.data_type == "bfloat16")]
        table = table[table.sliding_window_size.isna() & ~table.deterministic_bwd & (table.q_seqlen == table.kv_seqlen)]
        table = table[table.head_dim_qk == table.head_dim_vo]
        return pd.DataFrame(
            {
                "library": "cudnn-" + table.cudnn_version.astype(str),
                "direction": table.profile_pass.map({"fwd": "forward", "bwd": "backward"}),
                "mask": table.attn_mask.map({"top_left": "causal", "no_mask": "none"}),
                "sequences": table.batch_size,
                "heads": table.num_q_heads,
                "kv_heads": table.num_kv_heads,
                "head_size": table.head_dim_qk,
                "sequence_length": table.q_seqlen,
                "seconds": table.time_ms / 1e3,
            }
        )

    def low_attention(self, gpu: str) -> pd.DataFrame:
        """cuDNN's attention in fewer than 16 bits, each kernel beside that of the same shape in bf16 (`wide_seconds`).

        `head_size` is the mean of a key and a value, whose own sizes are `key_size` and `value_size`.
        """
        table = self._read("cudnn_sdpa_fwd_bwd")
        table = table[(table.gpu_name == CUDNN_NAMES.get(gpu, "")) & (table.q_seqlen == table.kv_seqlen)]
        table = table[table.sliding_window_size.isna() & ~table.deterministic_bwd]
        rows = pd.DataFrame(
            {
                "precision": table.data_type,
                "direction": table.profile_pass.map({"fwd": "forward", "bwd": "backward"}),
                "mask": table.attn_mask.map({"top_left": "causal", "no_mask": "none"}),
                "sequences": table.batch_size,
                "heads": table.num_q_heads,
                "kv_heads": table.num_kv_heads,
                "key_size": table.head_dim_qk,
                "value_size": table.head_dim_vo,
                "head_size": (table.head_dim_qk + table.head_dim_vo) / 2,
                "sequence_length": table.q_seqlen,
                "seconds": table.time_ms / 1e3,
            }
        )
        wide = rows[rows.precision == "bfloat16"].drop(columns="precision").rename(columns={"seconds": "wide_seconds"})
        shape = [column for column in wide.columns if column != "wide_seconds"]
        wide = wide.groupby(shape).wide_seconds.median().reset_index()
        return rows[rows.precision.isin(LOW_ATTENTION)].merge(wide, on=shape)

    def norms(self, gpu: str) -> pd.DataFrame:
        """rows, columns, kernel_class (fused, compiled, eager), direction, seconds of a norm of 2-byte numbers."""
        classes = {"cudnn": "fused", "torch_compile": "compiled", "pytorch": "eager"}
        table = self._read("cudnn_norms_fwd_bwd")
        table = table[(table.gpu_name == CUDNN_NAMES.get(gpu, "")) & (table.success.astype(str) == "True")]
        both = [
            pd.DataFrame(
                {
                    "rows": table.N,
                    "columns": table.C,
                    "kernel_class": table.backend.map(classes),
                    "direction": direction,
                    "seconds": table[column] / 1e3,
                }
            )
            for direction, column in (("forward", "fwd_time_ms"), ("backward", "bwd_time_ms"))
        ]
        joined = pd.concat(both)
        return joined[(joined.seconds > 0) & joined.seconds.lt(float("inf"))]


def _collectives(table: pd.DataFrame) -> pd.DataFrame:
    named = table.assign(operator=table.op_name.replace("alltoall", "all_to_all"))
    return named.rename(columns={"num_gpus": "ranks"})[["operator", "ranks", "payload_bytes", "version", "seconds"]]


class FolderFirst(Package):
    """The package, but for products and collectives the CSV files of a folder."""

    def __init__(self, folder: Folder) -> None:
        super().__init__()
        self.folder = folder

    def products(self, gpu: str) -> pd.DataFrame:
        """As Package.products."""
        return self.folder.products(gpu)

    def collectives(self, gpu: str) -> pd.DataFrame:
        """As Package.collectives."""
        return self.folder.collectives(gpu)


class Records:
    """This project's own records: those kinds that a file of them holds, in the columns of the other two."""

    def __init__(self, path: Path) -> None:
        self.records = read_records(path)
        devices = sorted({each.provenance["gpu"] for each in self.records})
        if len(devices) != 1:
            raise InputError(f"{path} holds records of {len(devices)} devices ({', '.join(devices)}); a profile is of one")

    def products(self) -> pd.DataFrame:
        """As Package.products, forward products alone."""
        return pd.DataFrame(
            {
                "m": each.sizes["rows"],
                "n": each.sizes["columns"],
                "k": each.sizes["inner"],
                "library": "records",
                "kernel": LOW_KERNELS["fp8"],
                "precision": each.labels["precision"],
                "seconds": each.seconds,
            }
            for each in self._of("matmul")
            if each.labels["phase"] == "forward"
        )

    def collectives(self) -> pd.DataFrame:
        """As Package.collectives, inside a node."""
        return pd.DataFrame(
            {
                "operator": each.labels["operator"],
                "ranks": each.sizes["ranks"],
                "payload_bytes": each.sizes["payload_bytes"],
                "version": "records",
                "seconds": each.seconds,
            }
            for each in self._of("collective")
            if each.sizes.get("nodes", 1) == 1
        )

    def weight_gradient_factor(self) -> float | None:
        """Median time of a weight gradient over that of the forward product of the same shape, or None without both."""
        times: dict[tuple[object, ...], dict[str, float]] = {}
        for each in self._of("matmul"):
            shape = (each.labels["precision"], each.sizes["rows"], each.sizes["columns"], each.sizes["inner"])
            times.setdefault(shape, {})[each.labels["phase"]] = each.seconds
        ratios = [
            pair["weight_gradient"] / pair["forward"] for pair in times.values() if {"weight_gradient", "forward"} <= set(pair)
        ]
        return float(pd.Series(ratios).median()) if ratios else None

    def _of(self, kind: str) -> list[Record]:
        found = [each for each in self.records if each.kind == kind]
        for each in found:
            missing = [name for name in LABELS[kind] if name not in (*each.labels, *each.sizes)]
            if missing:
                raise InputError(f"a {kind} record has no {missing[0]}; it needs {', '.join(LABELS[kind])}")
        return found


def read_records(path: Path) -> list[Record]:
    """This project's own records of the file at `path`. Errors: InputError with the number of the line."""
    if not path.is_file():
        raise InputError(f"{path} is not a file of records")
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            found.append(record(json.loads(line)))
        except (PerfmodelError, json.JSONDecodeError) as error:
            raise InputError(f"{path}, line {number}: {error}") from None
    return found
