"""Optimizers as rows of one table: what they keep of a parameter that is trained, what a step allocates, and what it moves.

Sources: torch.optim (foreach and fused implementations), bitsandbytes.optim (blocks of 256 numbers, tensors below 4,096
numbers in fp32, paged states), transformers Adafactor (arXiv:1804.04235), Muon (KellerJordan/Muon; torch.optim.Muon).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from perfmodel.errors import InputError, did_you_mean
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.fields import Numeric
from perfmodel.spec.precision import FP32_BYTES

BLOCK: Final = 256  # numbers that share an fp32 scale in states of 8 bits
SMALL_TENSOR: Final = 4096  # numbers below which a tensor's states stay in fp32


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimizer:
    """What one optimizer keeps and moves.

    algorithm    what a step computes: the same from states of other widths
    moments      tensors of its state, each as large as the parameter
    state_bytes  of a number of one of them; 0: as wide as the parameter
    blocks       whether states are in blocks that share a scale, and those of small tensors in fp32
    factored     whether a second moment is held as a row and a column of a matrix
    temporary    copies of the parameters that a step allocates at once, each as wide as they are
    largest      copies of the largest matrix, in fp32, that it allocates instead
    paged        whether states may leave the GPU when memory is short
    iterations   products of Newton and Schulz of each matrix, three to an iteration
    """

    name: str
    algorithm: str
    moments: int
    state_bytes: float = 0.0
    blocks: bool = False
    factored: bool = False
    temporary: float = 0.0
    largest: float = 0.0
    paged: bool = False
    iterations: int = 0

    def bytes_of_state(self, parameter_bytes: Numeric) -> Numeric:
        """Bytes of the states of one parameter of a large tensor: moments * (width + scales).

        >>> [ROWS[name].bytes_of_state(4.0) for name in ("adamw", "sgd")]
        [8.0, 0.0]
        >>> ROWS["adamw_8bit"].bytes_of_state(4.0)
        2.03125
        """
        width: Numeric = self.state_bytes or parameter_bytes
        return self.moments * (width + (FP32_BYTES / BLOCK if self.blocks else 0.0))


ROWS: Final[Mapping[str, Optimizer]] = MappingProxyType(
    {
        each.name: each
        for each in (
            # temporary: foreach takes the root of the second moment of all at once
            Optimizer(name="adamw", algorithm="adam", moments=2, temporary=1.0),
            Optimizer(name="adamw_fused", algorithm="adam", moments=2),
            Optimizer(name="adamw_8bit", algorithm="adam", moments=2, state_bytes=1.0, blocks=True),
            Optimizer(name="paged_adamw", algorithm="adam", moments=2, state_bytes=FP32_BYTES, paged=True),
            Optimizer(name="paged_adamw_8bit", algorithm="adam", moments=2, state_bytes=1.0, blocks=True, paged=True),
            # largest: fp32 gradient, its square, the update
            Optimizer(name="adafactor", algorithm="adafactor", moments=0, factored=True, largest=3.0),
            # largest: three 16-bit matrices of an iteration
            Optimizer(name="muon", algorithm="muon", moments=1, largest=1.5, iterations=5),
            Optimizer(name="lion", algorithm="lion", moments=1, temporary=1.0),
            Optimizer(name="lion_8bit", algorithm="lion", moments=1, state_bytes=1.0, blocks=True),
            Optimizer(name="sgd", algorithm="sgd", moments=0),
            Optimizer(name="sgd_momentum", algorithm="sgd", moments=1),
        )
    }
)
OPTIMIZERS: Final = tuple(ROWS)


def in_blocks(name: str) -> tuple[str, ...]:
    """The other optimizers that take the same steps with states in blocks of 8 bits.

    >>> in_blocks("adamw"), in_blocks("lion_8bit")
    (('adamw_8bit', 'paged_adamw_8bit'), ())
    """
    algorithm = optimizer(name).algorithm
    return tuple(each.name for each in ROWS.values() if each.blocks and each.algorithm == algorithm and each.name != name)


def optimizer(name: str) -> Optimizer:
    """The optimizer called so. Errors: InputError with a did-you-mean."""
    if name not in ROWS:
        raise InputError(f"{name} is no optimizer; {did_you_mean(name, ROWS)}", key="optimizer")
    return ROWS[name]
