"""What was measured of a GPU: the coefficients of the kernel-time equations, with the meaning of each.

The equations that use them are in perfmodel/timing; the numbers, with their sources, in perfmodel/data/kernels and
perfmodel/data/collectives.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from perfmodel.errors import InputError, did_you_mean
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.evidence.spread import with_numbers
from perfmodel.spec.fields import Numeric, Spec, anywhere, choice, count, grid, number, numbers, part, spreads, text
from perfmodel.spec.precision import FORMATS, LOW_ATTENTION

NORM_CLASSES = ("fused", "compiled", "eager")
NORM_KERNELS = (*NORM_CLASSES, "eager_fp32")  # the last: a chain of elementwise kernels on a copy in fp32
FASTEST = "fastest"
ATTENTION_LIBRARIES = (FASTEST, "flash2", "flash1", "triton")  # the profile's, FlashAttention-2, v1.0, Triton's of 2023
NEWEST = "newest"
MATMUL_LIBRARIES = (NEWEST, "cublas_2023")  # the one of the kernel profile, and cuBLAS 11 and 12 as of 2023 and early 2024
MEMORY_BOUND_CLASSES = (*NORM_CLASSES, "elementwise", "optimizer")
MEMORY_BOUND_KERNELS = (  # what a memory-bound operator computes, where a profile knows it more closely than by its class
    *("gelu", "squared_relu", "swiglu", "geglu", "layernorm", "rmsnorm", "rotary", "residual", "lookup", "loss"),
    *("accumulate", "overwrite", "scale", "square_sum", "adam", "zero"),
    "convolution",
)
LONGEST_SIZE = 9  # digits of a head size, a sequence length or a number of ranks
STATE_KERNELS = ("convolution",)  # those of mixers that keep a state, which the reference model does not run
FUSED_KERNELS = (
    MappingProxyType(  # one kernel -> the eager chain that it stands for, whose rate serves where only that is known
        {"fused_swiglu": "swiglu", "fused_geglu": "geglu", "fused_rotary": "rotary"}
    )
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Evidence(Spec):
    """What coefficients rest on.

    measured     fitted on kernels of this very part, at the listed sizes
    transferred  those of another part of the same kind
    datasheet    printed rates or assumptions
    """

    basis: str = choice("measured", "transferred", "datasheet", default="datasheet")
    sizes: Mapping[str, tuple[float, ...]] = grid()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Tile(Spec):
    """The part of a result that one multiprocessor computes at a time, and how fast against the best tile."""

    rows: int = count()
    columns: int = count()
    rate: float = number("ratio", above=0, maximum=1.2)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class MatmulCoefficients(Spec):
    """How near a matrix multiplication comes to the peak rate (equation: timing/kernels.py, matmul_time_s)."""

    efficiency: Numeric = number("ratio", above=0, maximum=1.2)  # e: of the peak rate, for a short product with full waves
    fixed_s: Numeric = number("s")  # t0: start and drain of one kernel
    k_half: Numeric = number("count")  # k0: the inner size at which the prologue costs as much as the products
    wave_weight: Numeric = number("ratio", maximum=1)  # w: share of the idle SMs of the last wave that is really lost
    fill_weight: Numeric = number("ratio", maximum=1)  # v: the same where not even the first wave is full
    padding_weight: Numeric = number("ratio", maximum=1)  # z: share of the outer tiles' work beyond the matrix that is done
    split_traffic: Numeric = number("ratio")  # x: bytes of partial sums that cost time, 1 where all pass through the memory
    most_splits: int = count()  # into how many partial sums the inner size may be cut
    tiles: tuple[Tile, ...] = part(Tile, shape="sequence")  # that the library can choose from
    slowdown: Numeric = number("ratio", maximum=2)  # g: how much slower a long kernel is, once the power limit takes hold
    slowdown_s: Numeric = number("s", above=0)  # t_g: how long a kernel must be for half of that
    burst_clocks: Numeric = number("ratio", above=0, maximum=2, default=1.0)  # b: of the fitted products, over those of its kin
    memory_efficiency: Numeric = number("ratio", above=0, maximum=1)  # e_m: of the memory rate, for a product bound by it
    cached_share: Numeric = number("ratio", maximum=1)  # h: of the left operand, that is found in the cache where it fits
    overlap_power: Numeric = number("ratio", minimum=1, maximum=50)  # p: 1 adds up computing and loading, infinity hides one
    weight_gradient_factor: Numeric = number("ratio", minimum=1)  # time factor of accumulating into fp32
    data_gradient_factor: Numeric = number("ratio", above=0, default=1.0)  # of dX = dY W, against the forward X W^T
    transposed_factor: Numeric = number("ratio", above=0, default=1.0)  # of dW = X^T dY, whatever it is added to
    split_accumulator_factor: Numeric = number("ratio", minimum=1, default=1.0)  # of gradients summed up off the tensor cores
    unaligned_flop_per_s: Numeric | None = number("flop_per_s", above=0, optional=True, default=None)  # off the tensor cores
    evidence: Evidence = part(Evidence, default=Evidence())
    spread: Mapping[str, Numeric] = spreads()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class AttentionCoefficients(Spec):
    """One direction of fused attention (equation: timing/attention.py, fused_attention_time_s)."""

    efficiency: Numeric = number("ratio", above=0, maximum=1)  # e: of the peak rate, at head size 128, for long sequences
    by_head_size: Mapping[str, Numeric] = numbers("ratio")  # the efficiency at other head sizes against that
    by_sequence_length: Mapping[str, Numeric] = numbers(
        "ratio", optional=True
    )  # the same, of a library whose blocks depend on it
    fixed_s: Numeric = number("s")  # t0
    sequence_half: Numeric = number("count")  # h: what each query costs beyond its keys, as a number of keys; causal
    sequence_half_full: Numeric = number("count")  # the same without a mask
    longest_rows: Numeric = number("count")  # rows of queries of the longest tile, which bounds a small causal kernel
    fill_power: Numeric = number("ratio", minimum=1, maximum=50)  # p: how that bound and the SMs' common work add up
    wave_weight: Numeric = number("ratio", maximum=1)  # w: share of the idle SMs of the last wave that is lost; no mask
    tile_rows: int = count()  # rows of queries of a tile
    memory_efficiency: Numeric = number("ratio", above=0, maximum=1)  # of the memory rate, for queries, keys, values and output
    exposed_load: Numeric = number("ratio", maximum=1, default=1.0)  # share of moving those that hides behind no product
    growth: Numeric = number("ratio", maximum=1)  # g: how the rate falls as a long kernel meets the power limit
    growth_s: Numeric = number("s", above=0)  # how long a kernel must be for that
    evidence: Evidence = part(Evidence, default=Evidence())
    spread: Mapping[str, Numeric] = spreads()

    def __post_init__(self) -> None:
        Spec.__post_init__(self)
        _check_sizes("by_head_size", self.by_head_size)
        _check_sizes("by_sequence_length", self.by_sequence_length, least=0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class LowAttentionCoefficients(Spec):
    """One direction of fused attention on numbers of fewer than 16 bits, against that on 16 bits (timing/attention.py)."""

    speedup: Numeric = number("ratio", above=0, maximum=4)  # r: of the rate of the 16-bit kernel, at head size 128
    by_head_size: Mapping[str, Numeric] = numbers("ratio")  # the same at other head sizes against that; mean of key and value
    sequence_half: Mapping[str, Numeric] = numbers("count")  # keys that each query costs beyond those in 16 bits, by head size
    evidence: Evidence = part(Evidence, default=Evidence())
    spread: Mapping[str, Numeric] = spreads()

    def __post_init__(self) -> None:
        Spec.__post_init__(self)
        _check_sizes("by_head_size", self.by_head_size)
        if set(self.sequence_half) != set(self.by_head_size):
            raise InputError("has the head sizes of by_head_size", key="sequence_half")

    def law(self, measured: AttentionCoefficients, *, peaks: Numeric) -> AttentionCoefficients:
        """The law of long sequences at head size 128, from that of 16 bits, with `peaks` times the peak rate of the format."""
        return with_numbers(measured, {"efficiency": measured.efficiency * self.speedup * peaks, "evidence": self.evidence})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class LowAttention(Spec):
    """Both directions of fused attention on numbers of one format of fewer than 16 bits, for the head sizes worth it.

    Where forward and backward together take longer than in 16 bits, software leaves it off: a profile lists no such head size.
    """

    forward: LowAttentionCoefficients = part(LowAttentionCoefficients)
    backward: LowAttentionCoefficients = part(LowAttentionCoefficients)

    def __post_init__(self) -> None:
        Spec.__post_init__(self)
        if set(self.forward.by_head_size) != set(self.backward.by_head_size) or not self.forward.by_head_size:
            raise InputError("both directions have the same head sizes, one at least", key="backward.by_head_size")

    def takes(self, head_size: Numeric) -> bool:
        """Whether heads, of so many numbers in the mean of a key and a value, lie between the sizes that it is worth for."""
        sizes = [int(size) for size in self.forward.by_head_size]
        return not anywhere((head_size < min(sizes)) | (head_size > max(sizes)))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class MatmulLibrary(Spec):
    """The products of another generation of the library than the profile's: a law for each number format that was measured."""

    matmul: Mapping[str, MatmulCoefficients] = part(MatmulCoefficients, shape="table")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class AttentionLaws(Spec):
    """The kernels of another library of fused attention than the profile's, measured on their own; 16-bit numbers."""

    forward: AttentionCoefficients = part(AttentionCoefficients)
    backward: AttentionCoefficients = part(AttentionCoefficients)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class AttentionLibrary(Spec):
    """How fast the kernels of another library of fused attention are, by head size.

    Against those of the profile, or against the library's own laws where the profile has them (KernelProfile.attention_laws).
    """

    by_head_size: Mapping[str, Numeric] = numbers("ratio")

    def __post_init__(self) -> None:
        Spec.__post_init__(self)
        _check_sizes("by_head_size", self.by_head_size)


def _check_names(key: str, table: Mapping[str, Spec], known: tuple[str, ...]) -> None:
    for name in table:
        if name not in known:
            raise InputError(f"no library that is known here; {did_you_mean(name, known)}", key=f"{key}.{name}")


def is_size(word: str) -> bool:
    """Whether the key of a table is a whole number above zero, of a length that numbers have."""
    return word.isdecimal() and len(word) <= LONGEST_SIZE and int(word) > 0


def _check_sizes(key: str, table: Mapping[str, Numeric], *, least: int = 1) -> None:
    """Refuse a table of fewer sizes than `least`, and a size that is no whole number above zero. Errors: InputError."""
    word = key.removeprefix("by_").replace("_", " ")
    if len(table) < least:
        raise InputError(f"at least one {word} is needed", key=key)
    for size in table:
        if not is_size(size):
            raise InputError(f"{word}s are whole numbers above 0", key=f"{key}.{size}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class MemoryBoundCoefficients(Spec):
    """A class of memory-bound kernels: t0 + bytes / (memory rate * e), forward and backward.

    `cached_speedup` is how much of its own rate a kernel gains whose bytes all fit the cache (timing/kernels.py).
    """

    fixed_s: Numeric = number("s")
    efficiency: Numeric = number("ratio", above=0, maximum=1.2)
    backward_fixed_s: Numeric = number("s")
    backward_efficiency: Numeric = number("ratio", above=0, maximum=1.2)
    cached_speedup: Numeric = number("ratio", default=0.0)
    backward_cached_speedup: Numeric = number("ratio", default=0.0)
    busy_factor: Numeric = number("ratio", above=0, default=1.0)  # of its time, where all devices of a node share its memory
    backward_busy_factor: Numeric = number("ratio", above=0, default=1.0)
    evidence: Evidence = part(Evidence, default=Evidence())
    spread: Mapping[str, Numeric] = spreads()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class ScanCoefficients(Spec):
    """How long kernels of chunked scans take, against the products of the library and the traffic that are counted of them.

    They are Triton's, whose products run on instructions older than the newest tensor cores, in tiles of a chunk and a head.
    """

    work: Numeric = number("ratio", above=0, maximum=20)
    evidence: Evidence = part(Evidence, default=Evidence())
    spread: Mapping[str, Numeric] = spreads()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class KernelProfile(Spec):
    """All that is known of a GPU's kernels; `matmul` maps a precision, `memory_bound` a class, to its coefficients.

    Classes: fused, compiled and eager norms; elementwise chains; the optimizer; casts to 8 bits, where the GPU has them. Beside
    them a profile may know single kernels (MEMORY_BOUND_KERNELS, FUSED_KERNELS), or those of one precision alone: gelu,
    gelu-fp32.

    `matmul` and the attention are those of the newest, fastest library; `matmul_libraries` and `attention_laws` are of others.
    `low_attention` maps formats of fewer than 16 bits to what its attention gains from them. Without `scan`, scans of states
    take what their products and their traffic do.
    """

    name: str = text()
    matmul: Mapping[str, MatmulCoefficients] = part(MatmulCoefficients, shape="table")
    attention_forward: AttentionCoefficients = part(AttentionCoefficients)
    attention_backward: AttentionCoefficients = part(AttentionCoefficients)
    attention_forward_fp32: AttentionCoefficients | None = part(AttentionCoefficients, optional=True, default=None)
    attention_backward_fp32: AttentionCoefficients | None = part(AttentionCoefficients, optional=True, default=None)
    memory_bound: Mapping[str, MemoryBoundCoefficients] = part(MemoryBoundCoefficients, shape="table")
    matmul_libraries: Mapping[str, MatmulLibrary] = part(MatmulLibrary, shape="table", optional=True)
    attention_laws: Mapping[str, AttentionLaws] = part(AttentionLaws, shape="table", optional=True)
    low_attention: Mapping[str, LowAttention] = part(LowAttention, shape="table", optional=True)
    scan: ScanCoefficients | None = part(ScanCoefficients, optional=True, default=None)

    @property
    def scan_work(self) -> Numeric:
        """Time of a scan of states over that of its products and traffic at the rates of the library."""
        return 1.0 if self.scan is None else self.scan.work

    def __post_init__(self) -> None:
        Spec.__post_init__(self)
        casts = any(FORMATS[each].low for each in self.matmul if each in FORMATS)
        for name in (*MEMORY_BOUND_CLASSES, *(("cast",) if casts else ())):
            if name not in self.memory_bound:
                raise InputError("missing; every class of memory-bound kernels is needed", key=f"memory_bound.{name}")
        known = (*MEMORY_BOUND_CLASSES, "cast", *MEMORY_BOUND_KERNELS, *FUSED_KERNELS)
        _check_names("matmul_libraries", self.matmul_libraries, MATMUL_LIBRARIES)
        _check_names("attention_laws", self.attention_laws, ATTENTION_LIBRARIES)
        for name in self.low_attention:
            if name not in LOW_ATTENTION:
                wrong = f"no format of fewer than 16 bits that attention takes; {did_you_mean(name, LOW_ATTENTION)}"
                raise InputError(wrong, key=f"low_attention.{name}")
        for name in self.memory_bound:
            if name.partition("-")[0] not in known:
                raise InputError(f"no class of kernels; {did_you_mean(name, known)}", key=f"memory_bound.{name}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class CollectiveCoefficients(Spec):
    """One collective inside a node, for groups of any size (equation: timing/collectives.py, node_collective_time_s)."""

    latency_s: Numeric = number("s")
    rank_latency_s: Numeric = number("s")  # added by each rank after the first
    own_shard: Numeric = number("ratio")  # how much of a rank's own share is copied as if it were sent
    bandwidth_bytes_per_s: Numeric = number("bytes_per_s", above=0)
    s_per_root_byte: Numeric = number("ratio")  # how the transfer fills its pipeline: seconds for the square root of a byte
    buffered_bytes: Numeric = number("bytes", default=0.0)  # that buffers between two ranks hold: sent before anybody receives
    beyond_buffers: Numeric = number("ratio", default=0.0)  # how much longer each byte beyond them takes
    scratch: Numeric = number("ratio", default=0.0)  # bytes that the library allocates during a call, for each of the payload
    spread: Mapping[str, Numeric] = spreads()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class SwitchCoefficients(Spec):
    """An all-reduce that the switch adds up (NVLS): each link carries the tensor once, and one rank's share of it."""

    ranks: int = count(minimum=2)  # the smallest group that uses it
    latency_s: Numeric = number("s")
    bandwidth_bytes_per_s: Numeric = number("bytes_per_s", above=0)
    s_per_root_byte: Numeric = number("ratio")
    spread: Mapping[str, Numeric] = spreads()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class PointCoefficients(Spec):
    """One message from GPU to GPU inside a node: a start, then a share of the link's rate."""

    latency_s: Numeric = number("s")
    efficiency: Numeric = number("ratio", above=0, maximum=1)  # of the bandwidth of the link, for one message
    spread: Mapping[str, Numeric] = spreads()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class NodeCollectives(Spec):
    """The collectives of groups inside one node, or inside one domain of switched links."""

    name: str = text()
    all_reduce: CollectiveCoefficients = part(CollectiveCoefficients)
    all_gather: CollectiveCoefficients = part(CollectiveCoefficients)
    reduce_scatter: CollectiveCoefficients = part(CollectiveCoefficients)
    all_to_all: CollectiveCoefficients = part(CollectiveCoefficients)
    switch_reduce: SwitchCoefficients | None = part(SwitchCoefficients, optional=True, default=None)
    point_to_point: PointCoefficients | None = part(PointCoefficients, optional=True, default=None)  # else half an all_to_all
    call_s: Numeric = number("s", default=0.0)  # how much later a lone call begins, whose launch no other call hides
    evidence: Evidence = part(Evidence, default=Evidence())

    @property
    def scratch(self) -> dict[str, Numeric]:
        """What each kind allocates during a call, for each byte of its payload; kinds that allocate nothing are left out."""
        kinds = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")
        return {kind: share for kind in kinds if anywhere(share := getattr(self, kind).scratch)}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class NetworkCollectives(Spec):
    """The collectives of groups over several nodes (equations: timing/collectives.py)."""

    name: str = text()
    latency_s: Numeric = number("s")  # of a ring, whatever its size
    rank_latency_s: Numeric = number("s")  # added by each step of a ring that stays in a node
    node_latency_s: Numeric = number("s")  # added by each step of a ring from one node to the next
    tree_start_s: Numeric = number("s")  # of a tree, whatever its size, inside the nodes too
    tree_latency_s: Numeric = number("s")  # added by each doubling of the nodes of a tree
    peer_latency_s: Numeric = number("s")  # added by each rank of another node that an all-to-all sends to
    point_latency_s: Numeric = number("s")  # of one message from GPU to GPU
    point_efficiency: Numeric = number("ratio", above=0, maximum=1)  # of the bandwidth of the NIC, for one message
    efficiency: Numeric = number("ratio", above=0, maximum=1)  # of the bandwidth, over reference_nodes and fewer
    reference_nodes: Numeric = number("count", above=0)
    scale_exponent: Numeric = number("ratio")  # the efficiency falls as (nodes / reference_nodes) ** -exponent
    fill_s: Numeric = number("s", default=0.0)  # of the first chunk of full size past each node, each time it passes them
    fill_bytes: Numeric = number("bytes", above=0, default=16777216.0)  # payload from which chunks have their full size
    evidence: Evidence = part(Evidence, default=Evidence())
    spread: Mapping[str, Numeric] = spreads()
