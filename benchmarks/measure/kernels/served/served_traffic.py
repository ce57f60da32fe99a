"""How many bytes does the forecast count for one operator between the products of a served model's pass?

No second formula: the operators are those of perfmodel/count, of a model that is made around one tensor of `rows` x `columns`.

kernel                                         rows, columns
lookup, layernorm, rmsnorm, permute            tokens, width of the stream
qk_norm, rotary, latent_rotary                 tokens, width of queries and of no more than half as many keys
gelu, relu, squared_relu, swiglu, geglu        tokens, width of the MLP
route                                          tokens, experts
sample                                         sequences, vocabulary
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from perfmodel.count.operators import MemoryBound
from perfmodel.count.serving.forward_pass import ForwardPass, forward_operators
from perfmodel.exchange.questions.serving.served_models import serving_setup
from perfmodel.spec.models.layer_kinds import LayerKind
from perfmodel.spec.models.layer_parts import LatentAttention, Mixture
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.serving.profile import SERVED_KERNELS
from perfmodel.spec.serving.setup import ServingSetup

HEAD_SIZE: Final = 64
CHOSEN: Final = 2  # experts of a token
LATENT: Final = LatentAttention(query_rank=192, kv_rank=128, nope_head_size=48, rotary_head_size=16, value_head_size=48)
ACTIVATIONS: Final = ("gelu", "relu", "squared_relu", "swiglu", "geglu")
OF_EXPERTS: Final = ("route", "permute")
LARGEST_DECODE: Final = 64  # rows: each is a token of a sequence of its own; of more, all are tokens of one prompt
GPU: Final = "h100-sxm-80gb"  # any: counts do not depend on it


def served_bytes(kernel: str, *, rows: int, columns: int) -> float:
    """What `kernel` moves in one execution.

    >>> served_bytes("rmsnorm", rows=2, columns=8)  # the stream and what is added to it are read, the sum and its norm written
    128.0
    """
    return float(served_operator(kernel, rows=rows, columns=columns).moved_bytes)


def served_operator(kernel: str, *, rows: int, columns: int) -> MemoryBound:
    """The forecast's operator of that tensor."""
    tokens = ForwardPass(prompts=1, prompt_tokens=rows)
    if kernel == "sample":
        tokens = ForwardPass(sequences=rows, context=1)
    operators = forward_operators(_setup(kernel, columns), tokens)
    return next(each for each in operators if isinstance(each, MemoryBound) and each.kernel == kernel)


@cache
def _setup(kernel: str, columns: int) -> ServingSetup:
    return serving_setup(served_model(kernel, columns), gpu=GPU, engine="reference")


def served_model(kernel: str, columns: int) -> TransformerModel:
    """One layer whose tensor that `kernel` works on has `columns`."""
    if kernel not in SERVED_KERNELS:
        raise ValueError(kernel)
    heads = max(columns // HEAD_SIZE, 1) if kernel in {"qk_norm", "rotary", "latent_rotary"} else 1
    latent = kernel == "latent_rotary"
    kind = LayerKind(attention="latent" if latent else "full", feed_forward="experts" if kernel in OF_EXPERTS else "dense")
    sizes: dict[str, Any] = {
        "attention_heads": heads,
        "kv_heads": heads if latent else max(heads // 2, 1),
        "head_size": HEAD_SIZE,
        "ffn_hidden_size": columns,
        "hidden_size": columns if kernel != "route" else HEAD_SIZE,
        "vocab_size": columns if kernel == "sample" else HEAD_SIZE,
        "activation": kernel if kernel in ACTIVATIONS else "gelu",
        "norm": "layernorm" if kernel == "layernorm" else "rmsnorm",
        "qk_norm": "head" if kernel == "qk_norm" else "none",
        "latent": LATENT if latent else None,
        "mixture": None,
    }
    if kernel in OF_EXPERTS:
        experts = columns if kernel == "route" else 8
        sizes["mixture"] = Mixture(experts=experts, experts_per_token=CHOSEN, ffn_hidden_size=HEAD_SIZE)
    return TransformerModel(name=f"one layer around {kernel}", layers=1, layer_kinds={"only": kind}, **sizes)
