"""Hardware that also runs in fp32, for tests: an H100 whose fp32 kernels have the laws of its 16-bit ones at a lower peak.

None of them is carried over: that is what the shipped H100 does. NO_FP32_CLUSTER has neither.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from perfmodel.exchange.presets import cluster_preset
from perfmodel.spec.machines.coefficients import MemoryBoundCoefficients

_SHIPPED = cluster_preset("dgx-h100")
_16_BITS = MappingProxyType({name: rate for name, rate in _SHIPPED.gpu.peak_flop_per_s.items() if name not in ("tf32", "fp32")})
_GPU = replace(_SHIPPED.gpu, peak_flop_per_s=_16_BITS, carried_products=MappingProxyType({}), carried_attention=None)
NO_FP32_CLUSTER = replace(_SHIPPED, gpu=_GPU)
_KERNELS = _SHIPPED.gpu.kernels
FP32_GPU = replace(
    _GPU,
    peak_flop_per_s=MappingProxyType({**_16_BITS, "fp32": 67e12}),
    kernels=replace(
        _KERNELS,
        matmul=MappingProxyType({**_KERNELS.matmul, "fp32": _KERNELS.matmul["bf16"]}),
        attention_forward_fp32=replace(_KERNELS.attention_forward, efficiency=0.5),
        attention_backward_fp32=replace(_KERNELS.attention_backward, efficiency=0.4),
    ),
)
FP32_CLUSTER = replace(_SHIPPED, gpu=FP32_GPU)
SLOW = MemoryBoundCoefficients(
    fixed_s=1e-3, efficiency=0.1, backward_fixed_s=2e-3, backward_efficiency=0.05, spread=MappingProxyType({"efficiency": 0.3})
)
