"""What a cluster is made of: GPUs, the tiers of links between them, and how well its parts run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from perfmodel.errors import InputError, NotSupportedError, did_you_mean
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.evidence.run_evidence import NO_EVIDENCE, RunEvidence
from perfmodel.spec.fields import Numeric, Spec, count, flag, number, numbers, part, spreads, text
from perfmodel.spec.machines.carried_laws import CarriedAttention, CarriedProducts
from perfmodel.spec.machines.coefficients import (
    AttentionCoefficients,
    AttentionLibrary,
    KernelProfile,
    LowAttentionCoefficients,
    MatmulCoefficients,
    NetworkCollectives,
    NodeCollectives,
)
from perfmodel.spec.precision import FORMATS, PrecisionRecipe, has_libraries, number_format, result_format
from perfmodel.spec.serving.profile import ServingProfile


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Gpu(Spec):
    """One GPU: its datasheet (peak rates are dense) and what was measured of its kernels."""

    name: str = text()
    generation: str = text(default="unknown")  # ampere, hopper, blackwell ..: whose runs tell how wrong predictions on it are
    memory_bytes: Numeric = number("bytes", above=0)  # what an allocator can really have
    memory_bandwidth_bytes_per_s: Numeric = number("bytes_per_s", above=0)
    cache_bytes: Numeric = number("bytes", above=0)  # L2
    host_bytes_per_s: Numeric | None = number(
        "bytes_per_s", above=0, optional=True, default=None
    )  # pinned memory, one direction
    peak_flop_per_s: Mapping[str, Numeric] = numbers("flop_per_s")
    streaming_multiprocessors: int = count()
    full_load_slowdown: Numeric = number("ratio", maximum=2, default=0.0)  # where the power limit meets products alone
    transposed_weights: bool = flag(default=True)  # 8-bit products want a weight and its transpose, each in memory
    kernels: KernelProfile = part(KernelProfile, preset="kernels")
    attention_libraries: Mapping[str, AttentionLibrary] = part(AttentionLibrary, shape="table")
    carried_products: Mapping[str, CarriedProducts] = part(CarriedProducts, shape="table", optional=True)  # by number format
    carried_attention: CarriedAttention | None = part(CarriedAttention, optional=True, default=None)  # on numbers of 4 bytes
    serving: ServingProfile | None = part(ServingProfile, optional=True, default=None)  # of a machine that was calibrated
    spread: Mapping[str, Numeric] = spreads()

    def __post_init__(self) -> None:
        Spec.__post_init__(self)
        tables = {"peak_flop_per_s": self.peak_flop_per_s, "kernels.matmul": self.kernels.matmul}
        for key, table in {**tables, "carried_products": self.carried_products}.items():
            for precision in table:
                if precision not in FORMATS:
                    raise InputError(f"unknown number format; {did_you_mean(precision, FORMATS)}", key=f"{key}.{precision}")
        for name in self.kernels.memory_bound:
            _, dash, precision = name.partition("-")
            if dash and precision not in FORMATS:
                wrong = f"unknown number format; {did_you_mean(precision, FORMATS)}"
                raise InputError(wrong, key=f"kernels.memory_bound.{name}")

    def peak(self, precision: str) -> Numeric:
        """Dense peak rate [FLOP/s]. Errors: NotSupportedError when the GPU has no such arithmetic."""
        if precision not in self.peak_flop_per_s:
            have = ", ".join(self.peak_flop_per_s)
            raise NotSupportedError(f"{self.name} has no {precision} rate; it has {have}", key="precision")
        return self.peak_flop_per_s[precision]

    @property
    def wide_precision(self) -> str:
        """The 16-bit format that people train in: bf16 where the tensor cores have it, which they do from Ampere on."""
        return "bf16" if "bf16" in self.peak_flop_per_s else "fp16"

    def attention_library(self, name: str) -> AttentionLibrary:
        """How a library's attention kernels compare. Errors: NotSupportedError when nobody measured it on this GPU."""
        if name not in self.attention_libraries:
            have = ", ".join(self.attention_libraries)
            raise NotSupportedError(f"no {name} attention is known on {self.name}; {have} are", key="attention_library")
        return self.attention_libraries[name]

    def matmul(self, precision: str, library: str = "newest") -> MatmulCoefficients:
        """The coefficients of products of one number format, or of that on whose circuits it runs (fp16 on those of bf16).

        Those that were not measured are carried over from another format, where the GPU says so. A library that was not
        measured on this GPU, or not in this format, is taken for the newest: few are older than the GPU.
        Errors: NotSupportedError when no such products were measured.
        """
        if found := self._measured_matmul(precision, library):
            return found
        carried = self.carried_products.get(precision)
        if carried and (found := self._measured_matmul(carried.like, library)):
            return carried.law(found)
        raise NotSupportedError(f"no {precision} kernels were measured on {self.name}", key="precision")

    def _measured_matmul(self, precision: str, library: str) -> MatmulCoefficients | None:
        """The law of a library where it has one of this format, else that of the newest; None where none was measured."""
        formats = (precision, number_format(precision).circuits)
        older = self.kernels.matmul_libraries.get(library)
        tables = (older.matmul, self.kernels.matmul) if older else (self.kernels.matmul,)
        return next((table[known] for table in tables for known in formats if known in table), None)

    def product_formats(self, recipe: PrecisionRecipe) -> frozenset[str]:
        """The formats whose products decide how long those of a recipe take: its own, and what they are carried over from."""
        used = (*recipe.linear_formats, recipe.attention)
        own = {name for each in used for name in (each, number_format(each).circuits)}
        return frozenset(own | {carried.like for each in own if (carried := self._carried(each))})

    def power_limited(self, precision: str) -> bool:
        """Whether the power limit holds the clocks of products of one format down."""
        carried = self._carried(precision)
        return carried is None or carried.power_limited

    def _carried(self, precision: str) -> CarriedProducts | None:
        """What products of a format are carried over from; None where they were measured."""
        return None if self._measured_matmul(precision, "newest") else self.carried_products.get(precision)

    def attention(self, precision: str, *, backward: bool, library: str = "fastest") -> AttentionCoefficients:
        """The coefficients of fused attention on numbers of one format: 16 bits have one law, 4 bytes another.

        The law is the library's own where that was measured, else the profile's; or that of 2 bytes, carried over to 4, or to
        formats of fewer than 16 bits, which the profile's library alone takes.
        Errors: NotSupportedError when no attention of the format was measured.
        """
        profile = self.kernels
        if library in profile.attention_laws and has_libraries(precision):
            own = profile.attention_laws[library]
            return own.backward if backward else own.forward
        on_2_bytes = profile.attention_backward if backward else profile.attention_forward
        if has_libraries(precision):
            return on_2_bytes
        if low := self.low_attention(precision, backward=backward):
            return low.law(on_2_bytes, peaks=self.peak(result_format(precision)) / self.peak(precision))
        on_4_bytes = profile.attention_backward_fp32 if backward else profile.attention_forward_fp32
        if number_format(precision).attention and on_4_bytes:
            return on_4_bytes
        if number_format(precision).attention and self.carried_attention:
            return self.carried_attention.law(on_2_bytes, backward=backward)
        way = "backward" if backward else "forward"
        raise NotSupportedError(f"no {precision} attention ({way}) was measured on {self.name}", key="precision")

    def low_attention(self, precision: str, *, backward: bool) -> LowAttentionCoefficients | None:
        """What one direction of fused attention gains from a format of fewer than 16 bits; None where none was measured."""
        known = self.kernels.low_attention.get(precision)
        if known is None:
            return None
        return known.backward if backward else known.forward

    def takes_low_attention(self, precision: str, head_size: Numeric) -> bool:
        """Whether attention of heads, of so many numbers in the mean of a key and a value, gains from a format."""
        known = self.kernels.low_attention.get(precision)
        return known is not None and known.takes(head_size)

    def attention_circuits(self, precision: str) -> str:
        """In which format fused attention on numbers of one format computes: its own, unless the law is carried over."""
        is_own = has_libraries(precision) or number_format(precision).low or self.kernels.attention_forward_fp32 is not None
        return precision if is_own or self.carried_attention is None else self.carried_attention.circuits

    def check_recipe(self, recipe: PrecisionRecipe) -> None:
        """Raise NotSupportedError for a recipe of which some kernel has no peak rate, or was not measured, on this GPU."""
        for each in dict.fromkeys(recipe.linear_formats):
            self.peak(each)
            self.matmul(each)
        for backward in (False, True):
            self.attention(recipe.attention, backward=backward)
        if recipe.casts and "cast" not in self.kernels.memory_bound:
            raise NotSupportedError(f"no casts to {recipe.products} were measured on {self.name}", key="precision")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class NodeLink(Spec):
    """The switched links inside a node, and the collectives that were measured on them.

    A faster or slower link than the measured one scales their rates in proportion.
    """

    name: str = text()
    bandwidth_bytes_per_s: Numeric = number("bytes_per_s", minimum=1e6)  # datasheet, per GPU, one direction
    measured_bandwidth_bytes_per_s: Numeric = number(
        "bytes_per_s", above=0
    )  # of the link that the collectives were measured on
    collectives: NodeCollectives = part(NodeCollectives, preset="collectives")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class NetworkLink(Spec):
    """The network between nodes: one NIC, one direction, and how collectives fare on many of them."""

    name: str = text()
    bandwidth_bytes_per_s: Numeric = number("bytes_per_s", minimum=1e6)  # of one NIC, one direction
    collectives: NetworkCollectives = part(NetworkCollectives, preset="collectives")


Link: TypeAlias = NodeLink | NetworkLink


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Links(Spec):
    """The two tiers of a cluster."""

    node: NodeLink = part(NodeLink, preset="links")
    network: NetworkLink = part(NetworkLink, preset="links")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Cluster(Spec):
    """Nodes of GPUs, and four scalars that multiply every rate or time of their kind.

    A scalar is what differs between two clusters of the same parts (clocks, cooling, network health); one draw of it serves
    all operators of a run.
    """

    name: str = text()
    gpu: Gpu = part(Gpu, preset="gpus")
    gpus_per_node: int = count()
    nics_per_node: int = count()
    links: Links = part(Links)
    node_power_w: Numeric | None = number("W", above=0, optional=True, default=None)  # the most that a node draws, all of it
    compute_scale: Numeric = number("ratio", above=0, maximum=2)
    gpu_speed_deviation: Numeric = number("ratio", maximum=0.1)  # standard deviation between GPUs of one cluster
    busy_share: Numeric = number("ratio", maximum=1, derived=True, default=1.0)  # of a node's other devices, how many run too
    host_memory_bytes_per_s: Numeric | None = number("bytes_per_s", above=0, optional=True, default=None)  # of a node
    host_scale: Numeric = number("ratio", above=0, default=1.0)  # time of the CPU over that of a DGX H100's
    rank_dispersion_s: Numeric | None = number("s", maximum=10, optional=True, default=None)  # None: nobody measured it
    node_link_scale: Numeric = number("ratio", above=0, maximum=100)
    network_scale: Numeric = number("ratio", above=0, maximum=100)
    evidence: RunEvidence = part(RunEvidence, preset="evidence", default=NO_EVIDENCE)  # of measured runs
    spread: Mapping[str, Numeric] = spreads()

    @property
    def network_bytes_per_s_per_gpu(self) -> Numeric:
        """One direction of a node's NICs, shared by its GPUs."""
        return self.links.network.bandwidth_bytes_per_s * self.nics_per_node / self.gpus_per_node
