"""The package's tables of serving engines' kernels: fused experts, and one step of the gated delta rule.

Which kernel of an engine runs is its choice by GPU and format; EXPERTS names the one that the law of each stands for.
"""

from __future__ import annotations

from typing import Final

import pandas as pd

from perfmodel.benchmarks.fit.tables import STATES, Package
from perfmodel.errors import InputError
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.serving.profile import OF_FAMILY

ENGINES: Final = {"sglang": "SGLang", "vllm": "vLLM", "trtllm": "TensorRT-LLM"}
BALANCED: Final = "balanced"
SHAPE: Final = ["tokens", "hidden", "inner", "chosen", "experts", "tensor", "spread"]
STEPS: Final = {  # kernels of SGLang, of one token of each sequence
    "delta_step": "fused_recurrent_gated_delta_rule_packed_decode",
    "convolution_step": "causal_conv1d_update",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertTable:
    """One kernel of fused experts: the engine whose table has it, and by what words.

    `precision` is the format of weights that it stands for (spec/serving/formats.py), `number` what the table calls it. Where
    nobody timed a table with balanced routing, `routing` is what it has. `also` says whose kernels these are as well.
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

    @property
    def engine(self) -> str:
        """The engine whose table has the kernel."""
        return self.of or self.family

    def law(self, law: str) -> str:
        """The name that its numbers have in a profile: FAMILY-LAW, or FAMILY-LIBRARY-LAW."""
        return OF_FAMILY.join(part for part in (self.family, self.library, law) if part)


_TRITON, _CUTLASS, _BACKEND = "sglang_fused_moe_triton", "moe_torch_flow_cutlass", "sglang_flashinfer_trtllm_moe"
_MARLIN = "vllm_compressedtensorswna16marlinmoe_marlin_marlinexperts"
_OPENAI = "vllm_gptossmxfp4moe_triton_oaitritonmxfp4expertsmonolithic"


def _vllm(version: str, kernel: str, precision: str, number: str, *, routing: str = BALANCED, library: str = "") -> ExpertTable:
    return ExpertTable(
        family="vllm", version=version, kernel=kernel, precision=precision, number=number, routing=routing, library=library
    )


def _sglang(version: str, kernel: str, precision: str, number: str) -> ExpertTable:
    return ExpertTable(family="sglang", version=version, kernel=kernel, precision=precision, number=number)


def _trtllm(kernel: str, precision: str, number: str) -> ExpertTable:
    return ExpertTable(family="trtllm", version="1.3.0rc20", kernel=kernel, precision=precision, number=number)


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
        _trtllm("moe_torch_flow_min_latency", "nvfp4", "nvfp4"),
        _trtllm(_CUTLASS, "bf16", "bfloat16"),
        _trtllm(_CUTLASS, "fp8", "fp8"),
        _trtllm("moe_torch_flow", "mxfp4", "w4a8_mxfp4_mxfp8"),
    ),
}


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
        return rows.groupby(SHAPE).seconds.median().reset_index()

    def state_steps(self, gpu: str, step: str) -> pd.DataFrame:
        """sequences, key_heads, value_heads, width (of the stream) and seconds of a kernel of SGLang (STEPS)."""
        rows = self._rows(gpu, STATES, "gdn", "sglang", "0.5.14")
        rows = rows[(rows.phase == "generation") & (rows.kernel_source == STEPS[step])]
        names = {"batch_size": "sequences", "num_k_heads": "key_heads", "num_v_heads": "value_heads", "d_model": "width"}
        rows = rows.rename(columns=names).assign(seconds=rows.latency / 1e3)
        return rows.groupby(list(names.values())).seconds.median().reset_index()

    def _rows(self, gpu: str, family: str, file: str, library: str, version: str) -> pd.DataFrame:
        for table in self._tables(gpu, family, file):
            if (table.library.iloc[0], table.version.iloc[0]) == (library, version):
                return table
        raise InputError(f"{gpu} has no {file} table of {library} {version}")
