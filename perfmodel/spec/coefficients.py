"""What was measured of a GPU: the coefficients of the kernel-time equations, with the meaning of each.

The equations that use them are in perfmodel/timing; the numbers, with their sources, in perfmodel/data/gpus.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from perfmodel.spec.fields import Numeric, Spec, count, number, part


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class MatmulCoefficients(Spec):
    """How near a matrix multiplication comes to the peak rate (equation: timing/kernels.py, matmul_time_s)."""

    efficiency: Numeric = number("ratio", above=0, maximum=1.2)  # e: of the peak rate, for a large product with full waves
    fixed_s: Numeric = number("s")  # t0: start and drain of one kernel
    k_half: Numeric = number("count")  # k0: the inner size at which the prologue costs as much as the products
    wave_weight: Numeric = number("ratio", maximum=1)  # w: share of the idle SMs of the last wave that is really lost
    fill_weight: Numeric = number("ratio", maximum=1)  # v: the same where not even the first wave is full
    padding_weight: Numeric = number("ratio", maximum=1)  # z: share of the outer tiles' work beyond the matrix that is done
    size_exponent: Numeric = number("ratio", maximum=1)  # g: how the rate falls as a long kernel draws more power
    size_reference_flop: Numeric = number("flop", above=0)
    tile_rows: int = count()
    tile_columns: int = count()
    memory_efficiency: Numeric = number("ratio", above=0, maximum=1)  # of the memory rate, for a product bound by its operands
    overlap_power: Numeric = number("ratio", minimum=1, maximum=50)  # p: 1 adds up computing and loading, infinity hides one
    weight_gradient_factor: Numeric = number("ratio", minimum=1)  # time factor of accumulating into fp32


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class AttentionCoefficients(Spec):
    """One direction of fused attention (equation: timing/kernels.py, fused_attention_time_s)."""

    efficiency: Numeric = number("ratio", above=0, maximum=1)  # of the peak rate, for long sequences
    fixed_s: Numeric = number("s")
    sequence_half: Numeric = number("count")  # keys per query at which the rate is half of its limit
    products: Numeric = number("count", above=0)  # matrix products done in this direction


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class KernelProfile(Spec):
    """All that is known of a GPU's kernels; `matmul` maps a precision to its coefficients."""

    matmul: Mapping[str, MatmulCoefficients] = part(MatmulCoefficients, shape="table")
    attention_forward: AttentionCoefficients = part(AttentionCoefficients)
    attention_backward: AttentionCoefficients = part(AttentionCoefficients)
    memory_bound_fixed_s: Numeric = number("s")  # start and drain of one memory-bound kernel
    quantise_fixed_s: Numeric | None = number("s", optional=True, default=None)  # start and drain of a cast to 8 bits
    quantise_efficiency: Numeric | None = number("ratio", above=0, maximum=1, optional=True, default=None)  # of the memory rate


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class CollectiveCoefficients(Spec):
    """One collective inside a node: latency + wire bytes / bandwidth + s_per_root_byte * sqrt(wire bytes)."""

    latency_s: Numeric = number("s")
    bandwidth_bytes_per_s: Numeric = number("bytes_per_s", above=0)
    s_per_root_byte: Numeric = number("ratio")  # how the transfer fills its pipeline: seconds for the square root of a byte


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class GroupCoefficients(Spec):
    """The collectives of a group of `ranks` GPUs inside a node."""

    ranks: int = count(minimum=2)
    all_reduce: CollectiveCoefficients = part(CollectiveCoefficients)
    all_gather: CollectiveCoefficients = part(CollectiveCoefficients)
    reduce_scatter: CollectiveCoefficients = part(CollectiveCoefficients)
