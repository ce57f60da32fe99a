"""The package's tables of serving engines' kernels: fused experts, and one step of the gated delta rule.

Which kernel of an engine runs is its choice by GPU and format; EXPERTS names the one that the law of each stands for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pandas as pd

from perfmodel.benchmarks.fit.tables import STATES, Package
from perfmodel.errors import InputError
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.serving.profile import OF_FAMILY

ENGINES: Final = {"sglang": "SGLang", "vllm": "vLLM", "trtllm": "TensorRT-LLM"}
BALANCED: Final = "balanced"
SPARSE: Final = "sparse_attention"  # family of tables of models with an indexer
SPARSE_VERSION: Final = "0.5.14"
SIXTEEN_BITS: Final = "16bit"
SKIPS: Final = "skip_indexer"  # in the name of a module that takes over the choice of another layer
QUERIES: Final = ["isl", "step"]
SHAPE: Final = ["tokens", "hidden", "inner", "chosen", "experts", "tensor", "spread"]
STEPS: Final = {  # kernels of SGLang, of one token of each sequence
    "delta_step": "fused_recurrent_gated_delta_rule_packed_decode",
    "convolution_step": "causal_conv1d_update",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertTable:
    """One kernel of fused experts: the engine whose table has it, and by what words.

    `precision` is the format of weights that it stands for (spec/serving/formats.py), `number` what the table calls it. Where
    nobody timed a table with balanced routing, `routing` is what it has. `also` says whose kernels these are as well. Where
    rows of experts that are dealt out to several GPUs do not fall with their number, they hold more than the tokens of one
    GPU's experts, and `dealt_out` is off.
    """

    family: str
    version: str
    kernel: str
    precision: str
    number: str
    routing: str = BALANCED
    of: str = ""
    also: str = ""
    library: str = ""
    dealt_out: bool = True

    @property
    def engine(self) -> str:
        """The engine whose table has the kernel."""
        return self.of or self.family

    def law(self, law: str) -> str:
        """The name that its numbers have in a profile: FAMILY-LAW, or FAMILY-LIBRARY-LAW."""
        return OF_FAMILY.join(part for part in (self.family, self.library, law) if part)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductTable:
    """Products of weights in one format by the kernels of one engine; `number` is what the table calls the format.

    Matrices of fewer than `least_bytes` stay in a large cache between the runs of a benchmark, as those of a model never do.
    """

    family: str
    version: str
    precision: str
    number: str
    least_bytes: float = 0.0


_TRITON, _CUTLASS, _BACKEND = "sglang_fused_moe_triton", "moe_torch_flow_cutlass", "sglang_flashinfer_trtllm_moe"
_MARLIN = "vllm_compressedtensorswna16marlinmoe_marlin_marlinexperts"
_OPENAI = "vllm_gptossmxfp4moe_triton_oaitritonmxfp4expertsmonolithic"


def _vllm(version: str, kernel: str, precision: str, number: str, *, routing: str = BALANCED, library: str = "") -> ExpertTable:
    return ExpertTable(
        family="vllm", version=version, kernel=kernel, precision=precision, number=number, routing=routing, library=library
    )


def _sglang(version: str, kernel: str, precision: str, number: str) -> ExpertTable:
    dealt_out = version != "0.5.10"  # 16,384 tokens take as long on one of 8 GPUs as on one alone, 128 a sixth
    return ExpertTable(family="sglang", version=version, kernel=kernel, precision=precision, number=number, dealt_out=dealt_out)


def _trtllm(kernel: str, precision: str, number: str, *, library: str = "") -> ExpertTable:
    return ExpertTable(family="trtllm", version="1.3.0rc20", kernel=kernel, precision=precision, number=number, library=library)


_HOPPER = (
    _sglang("0.5.10", _TRITON, "fp8_block", "fp8_block"),
    _sglang("0.5.10", _TRITON, "bf16", "bfloat16"),
    _sglang("0.5.10", "sglang_marlin_moe", "int4", "int4_wo"),
    _vllm("0.24.0", _MARLIN, "int4", "int4_wo"),
    _vllm("0.24.0", _OPENAI, "mxfp4", "w4a16_mxfp4"),
    _vllm(
        "0.24.0", _MARLIN, "mxfp4", "int4_wo", library="marlin"
    ),  # of mxfp4 only 896 experts were timed, which take long to sort
    _trtllm(_CUTLASS, "fp8_block", "fp8_block"),
    _trtllm(_CUTLASS, "bf16", "bfloat16"),
    _trtllm(_CUTLASS, "fp8", "fp8"),
    _trtllm("moe_torch_flow", "mxfp4", "w4a16_mxfp4"),
)
EXPERTS: Final = {
    "a100-sxm-80gb": (
        _sglang("0.5.10", _TRITON, "bf16", "bfloat16"),
        _vllm("0.14.0", "vllm_fused_moe", "bf16", "bfloat16", routing="power_law_1.01"),
    ),
    "h100-sxm-80gb": (
        *_HOPPER,
        _vllm("0.24.0", "vllm_fp8moe_triton_tritonexperts", "fp8_block", "fp8_block"),
        _vllm("0.24.0", "vllm_unquantizedfusedmoe_triton_tritonexperts", "bf16", "bfloat16"),
    ),
    "h200-sxm-141gb": (
        *_HOPPER,
        _vllm("0.19.0", "vllm_fused_moe", "fp8_block", "fp8_block"),
        _vllm("0.19.0", "vllm_fused_moe", "fp8", "fp8"),
        _vllm("0.19.0", "vllm_fused_moe", "bf16", "bfloat16"),
    ),
    "b200": (
        _sglang("0.5.14", _BACKEND, "fp8_block", "fp8_block"),
        _sglang("0.5.14", _BACKEND, "nvfp4", "nvfp4"),
        _sglang("0.5.14", _BACKEND, "bf16", "bfloat16"),
        _vllm("0.24.0", "vllm_fp8moe_flashinfer_trtllm_trtllmfp8expertsmonolithic", "fp8_block", "fp8_block"),
        _vllm("0.19.0", "vllm_fused_moe", "fp8_block", "fp8_block", library="triton"),
        _vllm("0.19.0", "vllm_fused_moe", "fp8", "fp8"),
        _vllm("0.19.0", "vllm_fused_moe", "bf16", "bfloat16"),
        _vllm("0.19.0", "vllm_flashinfer_trtllm_moe_fp4", "nvfp4", "nvfp4"),
        _vllm("0.24.0", _MARLIN, "int4", "int4_wo"),
        _vllm("0.24.0", "vllm_mxfp4moe_flashinfer_trtllm_mxfp4_mxfp8_trtllmmxfp4expertsmodular", "mxfp4", "w4a8_mxfp4_mxfp8"),
        ExpertTable(
            family="trtllm",
            of="sglang",
            version="0.5.14",
            kernel=_BACKEND,
            precision="fp8_block",
            number="fp8_block",
            also="TensorRT-LLM, moe_config.backend TRTLLM, has these very kernels",
        ),
        ExpertTable(
            family="trtllm",
            of="vllm",
            version="0.19.0",
            kernel="vllm_flashinfer_trtllm_moe_fp4",
            precision="nvfp4",
            number="nvfp4",
            also="TensorRT-LLM, moe_config.backend TRTLLM, has these kernels; in its own table tokens meet half of the experts",
        ),
        _trtllm(_CUTLASS, "nvfp4", "nvfp4", library="cutlass"),
        _trtllm(_CUTLASS, "bf16", "bfloat16"),
        _trtllm(_CUTLASS, "fp8", "fp8"),
        _trtllm("moe_torch_flow", "mxfp4", "w4a8_mxfp4_mxfp8"),
    ),
}


LINEARS: Final = {"sglang": "0.5.14", "vllm": "0.24.0", "trtllm": "1.3.0rc20"}  # versions of tables, by engine
ON_A100: Final = {"sglang": "0.5.10", "vllm": "0.14.0", "trtllm": "1.0.0"}
ON_CARDS: Final = {family: LINEARS[family] for family in ("sglang", "vllm")}  # TensorRT-LLM's beat the memory at any size
BEYOND_CACHES: Final = 32e6  # bytes: caches of 96 MB and more hand smaller matrices out at 1.0 to 1.5 times the memory's rate


def _products(*formats: str, versions: Mapping[str, str] = LINEARS, least_bytes: float = 0.0) -> tuple[ProductTable, ...]:
    """By format, of each engine whose own table stands for it (NOT_ITS_OWN)."""
    every = [(family, version, each) for family, version in versions.items() for each in formats]
    return tuple(
        ProductTable(family=family, version=version, precision=each, number=NUMBERS.get(each, each), least_bytes=least_bytes)
        for family, version, each in every
        if each not in NOT_ITS_OWN.get(family, ())
    )


NUMBERS: Final = {"bf16": "bfloat16", "int8": "int8_wo", "int4": "int4_wo"}
NOT_ITS_OWN: Final = {  # tables that do not stand for what an engine runs in a pass
    "vllm": ("fp8_block",),  # timed with the interpreter between kernels: 60 to 280 us whatever the size
    "trtllm": (
        "fp8",
        "nvfp4",
    ),  # timed with a cast of the rows, which the engine joins to the norm before: with it runs are slower
}
PRODUCTS: Final = {
    "a100-sxm-80gb": (
        *_products("bf16", versions=ON_A100),
        *_products("int8", "int4", versions={"trtllm": ON_A100["trtllm"]}),  # weights alone, which kernels widen
    ),
    "h100-sxm-80gb": _products("bf16", "fp8", "fp8_block"),
    "h200-sxm-141gb": _products("bf16", "fp8", "fp8_block"),
    "b200": _products("bf16", "fp8", "fp8_block", "nvfp4"),
    "l40s": _products("bf16", "fp8", versions=ON_CARDS, least_bytes=BEYOND_CACHES),
    "rtx-pro-6000-server": _products("bf16", "fp8", "nvfp4", versions=ON_CARDS, least_bytes=BEYOND_CACHES),
}


def _seconds(times: pd.Series, names: dict[str, str]) -> pd.DataFrame:
    """A table of milliseconds by some of the package's columns, in seconds by our names."""
    return (times / 1e3).rename("seconds").reset_index().rename(columns=names)


class ServedTables(Package):
    """The same package: what its tables have of serving engines."""

    def experts(self, gpu: str, table: ExpertTable) -> pd.DataFrame:
        """SHAPE and seconds of one kernel of fused experts, the median of a shape that was timed more than once.

        `tensor` and `spread` are GPUs that an expert is split over, and that experts are dealt out to; `tokens` those of all.
        Errors: InputError where the package has no such rows.
        """
        rows = self._rows(gpu, "moe", "moe", table.engine, table.version)
        rows = rows[(rows.kernel_source == table.kernel) & (rows.moe_dtype == table.number)]
        rows = rows[rows.distribution == table.routing]
        if rows.empty:
            raise InputError(f"{gpu} has no {table.routing} rows of {table.kernel}, {table.number}, in {table.version}")
        theirs = ["num_tokens", "hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size", "moe_ep_size"]
        rows = rows.rename(columns=dict(zip(theirs, SHAPE, strict=True))).assign(seconds=rows.latency / 1e3)
        rows = rows if table.dealt_out else rows[rows.spread == 1]
        return rows.groupby(SHAPE).seconds.median().reset_index()

    def state_steps(self, gpu: str, step: str) -> pd.DataFrame:
        """sequences, key_heads, value_heads, width (of the stream) and seconds of a kernel of SGLang (STEPS)."""
        rows = self._rows(gpu, STATES, "gdn", "sglang", "0.5.14")
        rows = rows[(rows.phase == "generation") & (rows.kernel_source == STEPS[step])]
        names = {"batch_size": "sequences", "num_k_heads": "key_heads", "num_v_heads": "value_heads", "d_model": "width"}
        rows = rows.rename(columns=names).assign(seconds=rows.latency / 1e3)
        return rows.groupby(list(names.values())).seconds.median().reset_index()

    def linears(self, gpu: str, table: ProductTable) -> pd.DataFrame:
        """m, n, k and seconds of x @ W^T, with the cast of x where it has one; the median of what was timed twice."""
        rows = self._rows(gpu, "gemm", "gemm", table.family, table.version)
        rows = rows[rows.gemm_dtype == table.number].assign(seconds=rows.latency / 1e3)
        return rows.groupby(["m", "n", "k"]).seconds.median().reset_index()

    def choices(self, gpu: str) -> pd.DataFrame:
        """queries of one sequence, keys `before` them, scored_s of scoring keys, seconds of choosing the best.

        Scores of the table's choices are all alike, or grow: a model's lie between, as the mean of both times.
        """
        scored = self._sparse(gpu, "glm5_mqa_logits_module").groupby(QUERIES).latency.median() / 1e3
        chosen = self._sparse(gpu, "glm5_topk_module").groupby(QUERIES).latency.mean()
        return _seconds(chosen, {"isl": "queries", "step": "before"}).assign(scored_s=scored.reindex(chosen.index).to_numpy())

    def sparse_prompts(self, gpu: str, law: str) -> pd.DataFrame:
        """rows, heads and seconds of attention of prompts over chosen keys of a 16-bit cache, timed alone.

        Of one in 8 bits it is that, and by how much more or less a whole module takes.
        """
        rows = self._sparse(gpu, "glm5_dsa_attn_module")
        alone = rows[rows.step == 0].groupby(["isl", "num_heads"]).latency.median()
        if law == SIXTEEN_BITS:
            return _seconds(alone, {"isl": "rows", "num_heads": "heads"})
        modules = self._rows(gpu, SPARSE, "dsa_context_module", "sglang", SPARSE_VERSION)
        modules = modules[(modules.gemm_type == "fp8_block") & (modules.batch_size == 1) & (modules.step == 0)]
        modules = modules[modules.kernel_source.str.contains(SKIPS)]
        times = modules.pivot_table(index=["isl", "num_heads"], columns="kv_cache_dtype", values="latency").dropna()
        narrow = alone.groupby("isl").median().reindex(times.index.get_level_values("isl")).to_numpy()
        more = pd.Series(narrow + (times["fp8"] - times["bfloat16"]).to_numpy(), index=times.index)
        return _seconds(more, {"isl": "rows", "num_heads": "heads"})

    def indexers(self, gpu: str) -> pd.DataFrame:
        """sequences, keys `before` their tokens and seconds of all that an indexer runs of single queries on one of 8 GPUs."""
        rows = self._rows(gpu, SPARSE, "dsa_generation_module", "sglang", SPARSE_VERSION)
        rows = rows[(rows.gemm_type == "fp8_block") & (rows.tp_size == 8) & rows.model.str.contains("GLM")]
        key = ["batch_size", "step", "kv_cache_dtype"]
        skips = rows.kernel_source.str.contains(SKIPS)
        own, others = (rows[chosen].groupby(key).latency.median() for chosen in (~skips, skips))
        return _seconds((own - others).dropna().groupby(key[:2]).mean(), {"batch_size": "sequences", "step": "before"})

    def _sparse(self, gpu: str, file: str) -> pd.DataFrame:
        rows = self._rows(gpu, SPARSE, file, "sglang", SPARSE_VERSION)
        return rows[rows.batch_size == 1]

    def _rows(self, gpu: str, family: str, file: str, library: str, version: str) -> pd.DataFrame:
        for table in self._tables(gpu, family, file):
            if (table.library.iloc[0], table.version.iloc[0]) == (library, version):
                return table
        raise InputError(f"{gpu} has no {file} table of {library} {version}")
