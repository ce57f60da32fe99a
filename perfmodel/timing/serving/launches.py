"""How often the CPU runs code of Python around an operator of a served model, where no CUDA graph has it."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from perfmodel.count.operators import Collective, FusedAttention, MemoryBound
from perfmodel.count.roles import EXPERT_PRODUCTS, Role
from perfmodel.count.serving.forward_pass import ForwardPass, ServedOperator, ServedProduct
from perfmodel.spec.serving.engine import EngineHost

GENERATED: Final = frozenset({Role.NORM, Role.ELEMENTWISE, Role.SHARED_EXPERT, Role.LOOKUP, Role.LOSS})
OF_LATENT_PROMPTS: Final = 3  # keys and values out of their narrow vector, the joining of keys, attention


def is_eager(host: EngineHost, tokens: ForwardPass) -> NDArray[np.bool_]:
    """Whether the CPU launches the kernels of a pass one by one: with prompts beyond the tokens that graphs are captured for.

    Attention, which piecewise graphs leave to it, it launches while their pieces run.
    """
    captured = np.asarray(tokens.rows) <= host.graph_tokens
    return ((np.asarray(tokens.prompts) > 0) & ~captured) | (not host.graphs)


def python_calls(operator: ServedOperator, host: EngineHost) -> int:
    """Modules and custom operators of Python: one for every operator but messages, which are launched from C++.

    torch.compile leaves attention, mixers and experts, each a chain of kernels that Python chooses and launches; other products
    and elementwise kernels it calls from code that it generates. Latent attention of prompts forms its keys and values there.
    """
    if isinstance(operator, Collective):
        return 0
    if not host.compiled:
        return 1
    if isinstance(operator, FusedAttention):
        return OF_LATENT_PROMPTS if operator.value_size is not None else 1
    product = isinstance(operator, ServedProduct) and operator.role not in EXPERT_PRODUCTS
    return 0 if product or (isinstance(operator, MemoryBound) and operator.role in GENERATED) else 1
