"""What was measured of the kernels of serving on one GPU: products with few rows, attention over a cache, small messages.

The equations that use them are in timing/forward_pass.py; the numbers, with their sources, in perfmodel/data/serving, a file a
GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from perfmodel.errors import InputError, NotSupportedError, did_you_mean
from perfmodel.spec.fields import Numeric, Spec, flag, number, part, spreads, text
from perfmodel.spec.machines.coefficients import Evidence
from perfmodel.spec.serving_formats import CACHE_LAWS, SMALL_PRODUCT_LAWS


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class StreamedKernel(Spec):
    """A kernel whose time is what it reads: fixed_s + bytes / (efficiency * memory rate)."""

    fixed_s: Numeric = number("s")
    efficiency: Numeric = number("ratio", above=0, maximum=1)
    evidence: Evidence = part(Evidence, default=Evidence())
    spread: Mapping[str, Numeric] = spreads()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class ServedKernel(StreamedKernel):
    """Products of weights in one format: with few rows as above, with many at `computing` times the efficiency of their law.

    The law is that of products alone (perfmodel/data/kernels); engines cast the rows beside them, or widen the weights.
    """

    computing: Numeric = number("ratio", above=0, maximum=1.2, default=1.0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class SmallAllReduce(Spec):
    """An engine's own all-reduce inside a node, in a CUDA graph: latency_s + payload / bandwidth; for one number of ranks."""

    latency_s: Numeric = number("s")
    bandwidth_bytes_per_s: Numeric = number("bytes_per_s", above=0)
    evidence: Evidence = part(Evidence, default=Evidence())
    spread: Mapping[str, Numeric] = spreads()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class ServingProfile(Spec):
    """Kernels of one GPU as serving engines have them.

    `cluster` is the preset of the machine that the GPU usually stands in, whose links its messages travel over.
    `small_products`, and `expert_products` where experts differ, are by law of the weights (spec/serving_formats.py),
    `cached_attention` by that of the cache, `all_reduce` by the number of ranks.
    """

    name: str = text()
    cluster: str = text()
    small_products: Mapping[str, ServedKernel] = part(ServedKernel, shape="table")
    cached_attention: Mapping[str, StreamedKernel] = part(StreamedKernel, shape="table")
    expert_products: Mapping[str, ServedKernel] = part(ServedKernel, shape="table", optional=True)
    all_reduce: Mapping[str, SmallAllReduce] = part(SmallAllReduce, shape="table", optional=True)
    carried_over: bool = flag(default=False)  # whether laws are those of another chip, however they were measured there
    small_kernel_s: Numeric = number("s")  # of one kernel between products, in a CUDA graph, beside the bytes it moves
    spread: Mapping[str, Numeric] = spreads()

    def __post_init__(self) -> None:
        Spec.__post_init__(self)
        for key, table, known in (
            ("small_products", self.small_products, SMALL_PRODUCT_LAWS),
            ("expert_products", self.expert_products, SMALL_PRODUCT_LAWS),
            ("cached_attention", self.cached_attention, CACHE_LAWS),
        ):
            for name in table:
                if name not in known:
                    raise InputError(f"no law that is known here; {did_you_mean(name, known)}", key=f"{key}.{name}")
        for ranks in self.all_reduce:
            if not ranks.isdigit():
                raise InputError("numbers of ranks are whole numbers", key=f"all_reduce.{ranks}")

    def small_product(self, law: str) -> ServedKernel:
        """Products with few rows of weights in one format. Errors: NotSupportedError where none were measured."""
        if law not in self.small_products:
            have = ", ".join(self.small_products)
            raise NotSupportedError(f"{self.name} have no products of {law} weights; they have {have}", key="precision")
        return self.small_products[law]

    def expert_product(self, law: str) -> ServedKernel:
        """Products of all experts of a layer in one kernel: their own law, or that of other products."""
        return self.expert_products.get(law) or self.small_product(law)

    def attention_over(self, law: str) -> StreamedKernel:
        """Decode attention over a cache in one format. Errors: NotSupportedError where none was measured."""
        if law not in self.cached_attention:
            have = ", ".join(self.cached_attention)
            raise NotSupportedError(f"{self.name} have no attention over a {law} cache; they have {have}", key="kv_precision")
        return self.cached_attention[law]
