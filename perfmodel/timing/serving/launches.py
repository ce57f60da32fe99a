"""How long the CPU runs code of Python around an operator of a served model, where no CUDA graph has it."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from perfmodel.count.operators import CachedAttention, Collective, FusedAttention, Matmul, MemoryBound
from perfmodel.count.roles import TOKEN_EXCHANGE, TOKEN_MOVEMENT, Role
from perfmodel.count.serving.forward_pass import ForwardPass, ServedOperator, ServedProduct
from perfmodel.spec.fields import Numeric
from perfmodel.spec.precision import number_format
from perfmodel.spec.serving.engine import EngineHost
from perfmodel.spec.serving.formats import ROW_BLOCK_LAWS

GENERATED: Final = frozenset({Role.NORM, Role.ELEMENTWISE, Role.SHARED_EXPERT, Role.LOOKUP, Role.LOSS})
OF_LATENT_PROMPTS: Final = 2  # keys are joined of their two parts, then attention
OF_LATENT_SEQUENCES: Final = 4  # queries into the narrow space, rotation, attention, values out of it


def is_eager(host: EngineHost, tokens: ForwardPass) -> NDArray[np.bool_]:
    """Whether the CPU launches the kernels of a pass one by one: with prompts beyond the tokens that graphs are captured for.

    Attention, which piecewise graphs leave to it, it launches while their pieces run.
    """
    captured = np.asarray(tokens.rows) <= host.graph_tokens
    return ((np.asarray(tokens.prompts) > 0) & ~captured) | (not host.graphs)


def python_s(operator: ServedOperator, host: EngineHost) -> Numeric:
    """Seconds of the CPU around one operator: operator_s for each module or custom operator that Python calls for it.

    A scan of a state takes triton_s, as kernels of linear attention are Triton's, and so does an operator of routed experts,
    unless one custom operator is all of them, with the way of tokens between replicas. Any other message is called from Python:
    vLLM's custom operator, which torch.compile leaves, SGLang's group of ranks, TensorRT-LLM's module.
    """
    if isinstance(operator, Collective):
        return 0.0 if host.fused_experts and operator.role in TOKEN_EXCHANGE else host.operator_s
    is_scan = isinstance(operator, Matmul) and not isinstance(operator, ServedProduct)
    if is_scan or (_is_of_experts(operator) and not host.fused_experts):
        return host.triton_s
    return host.operator_s * _calls(operator, host)


def _calls(operator: ServedOperator, host: EngineHost) -> int:
    """Modules and custom operators of one operator: one, and another where the kernel of a product in few bits is looked up.

    torch.compile leaves attention, mixers and experts; other products and elementwise kernels it calls from code that it
    generates. Latent attention is put together of several, which torch.compile joins to two.
    """
    chosen = (
        host.tunes
        and isinstance(operator, ServedProduct)
        and number_format(operator.precision).low
        and operator.law in ROW_BLOCK_LAWS
    )
    if _is_of_experts(operator):
        return 1 + chosen if operator.role is Role.EXPERT else 0
    if isinstance(operator, FusedAttention | CachedAttention):
        if not operator.latent:
            return 1
        return OF_LATENT_SEQUENCES if isinstance(operator, CachedAttention) and not host.compiled else OF_LATENT_PROMPTS
    generated = isinstance(operator, ServedProduct) or (isinstance(operator, MemoryBound) and operator.role in GENERATED)
    return 0 if host.compiled and generated else 1 + chosen


def _is_of_experts(operator: ServedOperator) -> bool:
    """Whether it is a product of routed experts, what lies around it, or the choice of them, which is not their router."""
    choice = operator.role is Role.ROUTER and not isinstance(operator, ServedProduct)
    return choice or operator.role is Role.EXPERT or operator.role in TOKEN_MOVEMENT
