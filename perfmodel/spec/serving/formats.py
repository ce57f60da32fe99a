"""How weights and the KV cache of a served model are held: one row of a table for each format.

A checkpoint in few bits keeps embeddings, head, router and norms in 16 bits, and of some models more (`wide_in_mixtures`).
Sources: the scales of blocks are those of the formats (OCP MX, NVFP4: a scale for 32 and for 16 numbers; GPTQ and AWQ: a 16-bit
scale and a zero for 128; bitsandbytes nf4: an fp32 scale for 64, double quantisation an 8-bit one).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from perfmodel.errors import InputError, did_you_mean
from perfmodel.light_dataclass import dataclass

WIDE: Final = "bf16"  # the format of what is not quantised, and of activations
WIDE_BYTES: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightFormat:
    """How the matrices of layers are held, and what multiplies them.

    bytes             of one number, with its share of the scales
    law               whose numbers time products with few rows (spec/serving/profile.py, small_products)
    circuits          the number format whose products have many rows; a GPU without them computes in 16 bits
    narrow_attention  of a mixture of experts, whether the matrices of attention are in few bits too
    narrow_mlp        of a mixture of experts, whether what all tokens pass is
    row_blocks        whether rows get scales of blocks as well, by a kernel before the product
    everywhere        whether every engine reads it, on every GPU
    """

    name: str
    bytes: float
    law: str
    circuits: str = WIDE
    narrow_attention: bool = True
    narrow_mlp: bool = True
    row_blocks: bool = False
    everywhere: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheFormat:
    """How keys and values are held: bytes of a number, and whether kernels must widen it (law of its decode attention)."""

    name: str
    bytes: float
    law: str


WEIGHT_FORMATS: Final[Mapping[str, WeightFormat]] = MappingProxyType(
    {
        each.name: each
        for each in (
            WeightFormat(name="bf16", bytes=2.0, law="bf16", everywhere=True),
            WeightFormat(name="fp16", bytes=2.0, law="bf16"),
            WeightFormat(name="fp8", bytes=1.0, law="fp8", circuits="fp8", everywhere=True),
            WeightFormat(name="fp8_block", bytes=1.0 + 4.0 / (128 * 128), law="fp8_block", circuits="fp8", row_blocks=True),
            WeightFormat(name="int8", bytes=1.0, law="fp8", circuits="fp8"),
            WeightFormat(name="int8_wo", bytes=1.0, law="int8_wo"),
            WeightFormat(name="int4", bytes=0.5 + 2.5 / 128, law="int4", everywhere=True),
            WeightFormat(
                name="int4_experts", bytes=0.5 + 2.0 / 32, law="int4", narrow_attention=False, narrow_mlp=False
            ),  # a 16-bit scale for 32, of Kimi K2 Thinking and K2.5
            WeightFormat(
                name="nvfp4", bytes=0.5 + 1.0 / 16, law="nvfp4", circuits="nvfp4", narrow_attention=False, row_blocks=True
            ),
            WeightFormat(
                name="mxfp4",
                bytes=0.5 + 1.0 / 32,
                law="mxfp4",
                circuits="mxfp8",
                narrow_attention=False,
                narrow_mlp=False,
                row_blocks=True,
            ),
            WeightFormat(name="nf4", bytes=0.5 + 4.0 / 64, law="nf4"),
            WeightFormat(name="nf4-dq", bytes=0.5 + 1.0 / 64 + 4.0 / (64 * 256), law="nf4"),
        )
    }
)
CACHE_FORMATS: Final[Mapping[str, CacheFormat]] = MappingProxyType(
    {
        each.name: each
        for each in (
            CacheFormat(name="bf16", bytes=2.0, law="16bit"),
            CacheFormat(name="fp16", bytes=2.0, law="16bit"),
            CacheFormat(name="fp8", bytes=1.0, law="8bit"),
            CacheFormat(name="int8", bytes=1.0, law="8bit"),
        )
    }
)
METHODS: Final = {  # how weights are made so, by which people call the format
    **dict.fromkeys(("awq", "gptq", "w4a16", "q4", "4bit"), "int4"),
    **dict.fromkeys(("w8a8", "smoothquant"), "int8"),
    **dict.fromkeys(("w8a16", "8bit"), "int8_wo"),
    **dict.fromkeys(("bnb", "bitsandbytes"), "nf4"),
}
SMALL_PRODUCT_LAWS: Final = tuple(dict.fromkeys(each.law for each in WEIGHT_FORMATS.values()))
ROW_BLOCK_LAWS: Final = frozenset(each.law for each in WEIGHT_FORMATS.values() if each.row_blocks)
CACHE_LAWS: Final = tuple(dict.fromkeys(each.law for each in CACHE_FORMATS.values()))


def weight_format(name: str) -> WeightFormat:
    """The format of weights called so. Errors: InputError with a did-you-mean.

    >>> weight_format("nvfp4").bytes
    0.5625
    """
    if name not in WEIGHT_FORMATS:
        hint = f"it is {METHODS[name]}" if name in METHODS else did_you_mean(name, WEIGHT_FORMATS)
        raise InputError(f"{name} is no format of weights; {hint}", key="precision")
    return WEIGHT_FORMATS[name]


def cache_format(name: str) -> CacheFormat:
    """The format of a KV cache called so. Errors: InputError with a did-you-mean.

    >>> cache_format("fp8").bytes
    1.0
    """
    if name not in CACHE_FORMATS:
        raise InputError(f"{name} is no format of a KV cache; {did_you_mean(name, CACHE_FORMATS)}", key="kv_precision")
    return CACHE_FORMATS[name]
