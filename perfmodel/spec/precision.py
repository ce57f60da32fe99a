"""What numbers are held and computed in: formats of one number, and recipes that say which part of a step takes which.

A recipe is a row of RECIPES. Rooms ask it for what they need (the format of a product, the bytes of a cast); none of them
compares names. A format that a GPU has no peak rate or no measured kernels for is refused there (hardware.py), so a
recipe can never be priced as another.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from perfmodel.errors import InputError, did_you_mean
from perfmodel.light_dataclass import dataclass

FP32_BYTES: Final = 4  # of one number


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberFormat:
    """One number: its bytes, the scales that it shares with others among them.

    `circuits` is the format on whose arithmetic it runs: where kernels of its own were not measured, those of that format are
    the same. `attention` names the law of fused attention in a kernel profile, "" where none is known: no kernel of flash
    attention or cuDNN takes numbers of 4 bytes, which other kernels serve ("fp32"). Formats of fewer than 16 bits have none:
    what attention gains from them stands in the profile under their own names (low_attention).
    """

    name: str
    bytes: float
    circuits: str
    attention: str = ""
    block: int = 0  # how many numbers share a scale that lies beside them; 0 where a tensor has one
    low: bool = False  # fewer than 16 bits: operands are cast to it, and the clocks of its products have a scale of their own


FORMATS: Final[Mapping[str, NumberFormat]] = MappingProxyType(
    {
        each.name: each
        for each in (
            NumberFormat(name="bf16", bytes=2, circuits="bf16", attention="16bit"),
            NumberFormat(name="fp16", bytes=2, circuits="bf16", attention="16bit"),
            NumberFormat(name="fp8", bytes=1, circuits="fp8", low=True),
            NumberFormat(name="mxfp8", bytes=1 + 1 / 32, circuits="mxfp8", low=True, block=32),  # E4M3, an E8M0 scale for 32
            NumberFormat(
                name="nvfp4", bytes=1 / 2 + 1 / 16, circuits="nvfp4", low=True, block=16
            ),  # E2M1, an E4M3 scale for 16
            NumberFormat(name="tf32", bytes=4, circuits="tf32", attention="fp32"),  # fp32 in memory, 19 bits in tensor cores
            NumberFormat(name="fp32", bytes=4, circuits="fp32", attention="fp32"),
        )
    }
)

LOW_ATTENTION: Final = ("fp8", "mxfp8")  # those that kernels of attention take beside numbers of 16 bits: cuDNN's


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionRecipe:
    """Which format each part of a training step takes, by name.

    products      operands of the linears that the stack runs in low precision (low_precision.products); of all linears where
                  this is no low format. MFU is counted against its peak rate
    attention     queries, keys and values of the attention kernels, unless a stack casts them (low_precision.attention)
    rest          everything else: activations between operators, linears beside low-precision ones, norms, the loss
    has_master    whether the optimizer keeps fp32 master copies, so that the stack says what parameters, gradients, states and
                  messages are held in; otherwise all of them are held in `rest`, and parameters are their own master copies
    scales_loss   whether the loss is multiplied so that gradients keep to the range of 16 bits, which they are then held in
    cast_reads    how often the cast of an activation or a gradient reads it, each time in a kernel of its own, and how often
                  the cast of a weight does, where blocks of numbers share a scale; where a tensor has one, a stack says so
    transforms    whether columns of activations and gradients are cast behind a Hadamard transform, in one more kernel that
                  reads them, unless software leaves it out (low_precision.hadamard of the stack)
    spares_layers whether some layers keep 16-bit products (low_precision.spared_layers of the stack)
    holds_wide    whether parameters are held in 16 bits whatever else a stack holds of them
    """

    name: str
    products: str
    attention: str
    rest: str
    has_master: bool = True
    scales_loss: bool = False
    cast_reads: tuple[int, int] = (1, 1)
    transforms: bool = False
    spares_layers: bool = False
    holds_wide: bool = False

    @property
    def casts(self) -> bool:
        """Whether operands are cast to a narrower format before their products."""
        return FORMATS[self.products].low

    @property
    def activation_bytes(self) -> float:
        """Bytes of one number that an operator hands to the next."""
        return FORMATS[self.rest].bytes

    @property
    def operand_bytes(self) -> float:
        """Bytes of one operand of a low-precision product."""
        return FORMATS[self.products].bytes

    @property
    def has_blocks(self) -> bool:
        """Whether scales belong to blocks of numbers along a row or a column, not to tensors.

        A product along the other side then wants a copy with scales of its own: a cast writes both, no copy is a transpose of
        another, and what travels as copies travels twice.
        """
        return FORMATS[self.products].block > 0

    def weight_copies(self, *, transposed: bool) -> int:
        """Low-precision copies of a weight: for the forward pass and for its gradient, two of them where products want them.

        >>> RECIPES["fp8"].weight_copies(transposed=False), RECIPES["mxfp8"].weight_copies(transposed=False)
        (1, 2)
        """
        return 2 if transposed or self.has_blocks else 1

    @property
    def linear_formats(self) -> tuple[str, ...]:
        """The formats of the operands of its linears: of those in low precision and of the others, or of all.

        >>> RECIPES["fp8"].linear_formats, RECIPES["tf32"].linear_formats
        (('fp8', 'bf16'), ('tf32',))
        """
        return (self.products, self.rest) if self.casts else (self.products,)

    @property
    def has_wide_attention(self) -> bool:
        """Whether queries, keys and values have 4 bytes a number, which kernels of flash attention do not take."""
        return FORMATS[self.attention].attention == "fp32"

    @property
    def formats(self) -> tuple[str, ...]:
        """Every format that some kernel of it takes, each once, and those whose kernels stand for them.

        >>> RECIPES["fp8"].formats, RECIPES["fp16"].formats
        (('fp8', 'bf16'), ('fp16', 'bf16'))
        """
        used = (self.products, self.attention, self.rest)
        return tuple(dict.fromkeys((*used, *(FORMATS[each].circuits for each in used))))


RECIPES: Final[Mapping[str, PrecisionRecipe]] = MappingProxyType(
    {
        each.name: each
        for each in (
            PrecisionRecipe(name="bf16", products="bf16", attention="bf16", rest="bf16"),
            PrecisionRecipe(name="fp16", products="fp16", attention="fp16", rest="fp16", scales_loss=True),
            PrecisionRecipe(name="fp8", products="fp8", attention="bf16", rest="bf16"),
            # a cast in blocks of 32 is one pass that writes both copies (Transformer Engine, MXFP8BlockScaling)
            PrecisionRecipe(name="mxfp8", products="mxfp8", attention="bf16", rest="bf16"),
            # the largest number of the tensor, and the copies along rows and columns; behind a Hadamard transform of 16 numbers
            # those along columns take a kernel of their own. Weights need none (arXiv:2509.25149; Transformer Engine,
            # NVFP4BlockScaling)
            PrecisionRecipe(
                name="nvfp4",
                products="nvfp4",
                attention="bf16",
                rest="bf16",
                cast_reads=(2, 2),
                transforms=True,
                spares_layers=True,
                holds_wide=True,
            ),
            PrecisionRecipe(name="tf32", products="tf32", attention="tf32", rest="fp32", has_master=False),
            PrecisionRecipe(name="fp32", products="fp32", attention="fp32", rest="fp32", has_master=False),
        )
    }
)
PRECISIONS: Final = tuple(RECIPES)


def number_format(name: str) -> NumberFormat:
    """The format called so. Errors: InputError with a did-you-mean.

    >>> number_format("fp8").bytes
    1
    """
    if name not in FORMATS:
        raise InputError(f"{name} is no known number format; {did_you_mean(name, FORMATS)}", key="precision")
    return FORMATS[name]


def operand_bytes(name: str) -> float:
    """Bytes of one number in the format called so."""
    return number_format(name).bytes


def has_libraries(name: str) -> bool:
    """Whether several libraries of fused attention take numbers of the format called so: those of 16 bits.

    >>> has_libraries("bf16"), has_libraries("tf32")
    (True, False)
    """
    return number_format(name).attention == "16bit"


def result_format(name: str) -> str:
    """What a product with operands of the format called so gives, and other kernels work on: 16 bits where those have fewer.

    >>> result_format("fp8"), result_format("tf32")
    ('bf16', 'tf32')
    """
    return "bf16" if number_format(name).low else name
