"""Hardware that also runs in fp32, for tests: an H100 whose fp32 kernels have the laws of its 16-bit ones at a lower peak."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from perfmodel.exchange.presets import cluster_preset
from perfmodel.spec.coefficients import MemoryBoundCoefficients

_PLAIN = cluster_preset("dgx-h100")
_KERNELS = _PLAIN.gpu.kernels
FP32_GPU = replace(
    _PLAIN.gpu,
    peak_flop_per_s=MappingProxyType({**_PLAIN.gpu.peak_flop_per_s, "fp32": 67e12}),
    kernels=replace(
        _KERNELS,
        matmul=MappingProxyType({**_KERNELS.matmul, "fp32": _KERNELS.matmul["bf16"]}),
        attention_forward_fp32=replace(_KERNELS.attention_forward, efficiency=0.5),
        attention_backward_fp32=replace(_KERNELS.attention_backward, efficiency=0.4),
    ),
)
FP32_CLUSTER = replace(_PLAIN, gpu=FP32_GPU)
SLOW = MemoryBoundCoefficients(
    fixed_s=1e-3, efficiency=0.1, backward_fixed_s=2e-3, backward_efficiency=0.05, spread=MappingProxyType({"efficiency": 0.3})
)
