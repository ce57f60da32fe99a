"""Kernels that were not measured on a GPU in some number format: the laws of another format of the GPU, carried over to it.

What is kept of the measured law are its terms of shape, length and traffic; what differs is its share of the peak rate. The
numbers, with their sources and with what carrying them over costs, stand with each GPU in perfmodel/data/gpus.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from perfmodel.light_dataclass import dataclass
from perfmodel.spec.evidence.spread import with_numbers
from perfmodel.spec.fields import Numeric, Spec, choice, flag, number, spreads
from perfmodel.spec.machines.coefficients import AttentionCoefficients, Evidence, MatmulCoefficients
from perfmodel.spec.precision import FORMATS

MOST_OF_A_PEAK: Final = 1.2  # what MatmulCoefficients.efficiency admits


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class CarriedProducts(Spec):
    """Products in one format, timed by the law of another (`like`) at their own peak rate.

    `efficiency` is the share of its peak that the format reaches over the share that `like` reaches of its own.
    """

    like: str = choice(*FORMATS)
    efficiency: Numeric = number("ratio", above=0, maximum=1.5)
    power_limited: bool = flag()  # the power limit holds their clocks down, as it does those of `like`
    spread: Mapping[str, Numeric] = spreads()

    def law(self, measured: MatmulCoefficients) -> MatmulCoefficients:
        """The law of the products, from that which was measured for the other format."""
        efficiency = np.minimum(measured.efficiency * self.efficiency, MOST_OF_A_PEAK)
        slowdown = measured.slowdown if self.power_limited else 0.0
        changes = {"efficiency": efficiency, "slowdown": slowdown, "evidence": _transferred(measured.evidence)}
        return with_numbers(measured, changes)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class CarriedAttention(Spec):
    """Fused attention on numbers of 4 bytes: of the shape of that on 2 bytes, with efficiencies of its own.

    They are shares of the peak rate of the arithmetic that the kernel computes in, which need not be that of its operands:
    PyTorch's memory-efficient kernel makes an fp32 product of three TF32 ones.
    """

    circuits: str = choice(*FORMATS)
    forward: Numeric = number("ratio", above=0, maximum=1)
    backward: Numeric = number("ratio", above=0, maximum=1)
    spread: Mapping[str, Numeric] = spreads()

    def law(self, measured: AttentionCoefficients, *, backward: bool) -> AttentionCoefficients:
        """The law of one direction, from that which was measured on 2 bytes."""
        efficiency = self.backward if backward else self.forward
        return with_numbers(measured, {"efficiency": efficiency, "evidence": _transferred(measured.evidence)})


def _transferred(evidence: Evidence) -> Evidence:
    return with_numbers(evidence, {"basis": "transferred"})
