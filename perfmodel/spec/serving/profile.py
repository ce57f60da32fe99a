"""What was measured of the kernels of serving on one GPU: products with few rows, attention over a cache, small messages.

The equations that use them are in timing/serving/forward_pass.py; the numbers, with their sources, in perfmodel/data/serving,
a file a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from perfmodel.errors import InputError, NotSupportedError, did_you_mean
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.fields import Numeric, Spec, flag, number, part, spreads, text
from perfmodel.spec.machines.coefficients import Evidence, is_size
from perfmodel.spec.serving.formats import CACHE_LAWS, SMALL_PRODUCT_LAWS

MOST_CACHED: Final = 10.0  # times the memory rate: what a cache gives at most
OWN_MACHINE: Final = "its own"
OWN_KERNELS: Final = "own"  # of an engine that chooses the kernels of experts itself
OF_FAMILY: Final = "-"  # between the family of an engine and a law
ALIKE: Final[Mapping[str, str]] = {
    "mxfp4": "nvfp4"
}  # laws of formats whose weights are read alike, where only one was measured
SERVED_KERNELS: Final = (  # what runs between the products of a pass: norms take the residual connection before them along
    *("lookup", "layernorm", "rmsnorm", "qk_norm", "rotary", "latent_rotary"),
    *("gelu", "relu", "squared_relu", "swiglu", "geglu", "route", "permute", "sample"),
)
INDEX_KERNELS: Final = ("index",)  # between products of an indexer and its scores
INDEX_LAW: Final = "8bit"  # the format of an indexer's keys, whatever the cache is in
STATE_KERNELS: Final = ("convolution_step", "delta_step")  # of one token of each sequence, in layers that keep a state


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class StreamedKernel(Spec):
    """A kernel whose time is what it reads: fixed_s + bytes / (efficiency * memory rate); beyond 1 a cache has its bytes."""

    fixed_s: Numeric = number("s")
    efficiency: Numeric = number("ratio", above=0, maximum=MOST_CACHED)
    evidence: Evidence = part(Evidence, default=Evidence())
    spread: Mapping[str, Numeric] = spreads()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class ServedKernel(StreamedKernel):
    """Products of weights in one format: with few rows as above, with many at `computing` times the efficiency of their law.

    The law is that of products alone (perfmodel/data/kernels); engines cast the rows beside them, or widen the weights. How far
    reading and computing hide each other is that law's, unless `overlap_power` was measured of few rows. Weights of a column
    that are few are read less well: `inner_half` is how many cost as much to begin as to read. However few columns
    there are, one of them takes `inner_s` for each of its weights, one after the other; `inner_power` says how far that and
    reading hide each other. A library without kernels for several matrices at once takes `each_s` for each of them. Kernels of
    experts go through every choice of every token, on whatever GPU its expert lies, at `choice_s` a choice.
    """

    computing: Numeric = number("ratio", above=0, maximum=1.2, default=1.0)
    overlap_power: Numeric | None = number("ratio", minimum=1, maximum=50, optional=True, default=None)
    inner_half: Numeric = number("count", default=0.0)
    inner_s: Numeric = number("s", default=0.0)
    inner_power: Numeric = number("ratio", minimum=1, maximum=50, default=2.0)
    each_s: Numeric = number("s", default=0.0)
    choice_s: Numeric = number("s", default=0.0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class CachedKernel(StreamedKernel):
    """Attention of single queries over a cache: reading hides arithmetic, or arithmetic reading, but on a core not the softmax.

    Arithmetic runs at `computing` times the rate of attention of prompts; a score of a query with a key takes `score_s` more.
    """

    computing: Numeric = number("ratio", above=0, maximum=50, default=1.0)
    score_s: Numeric = number("s", default=0.0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class KeyChoiceKernel(Spec):
    """Scores of an indexer at `computing` times the dense fp8 peak, `score_s` to write and search one, `choose_s` a choice."""

    computing: Numeric = number("ratio", above=0, maximum=1.0)
    score_s: Numeric = number("s")
    choose_s: Numeric = number("s")
    evidence: Evidence = part(Evidence, default=Evidence())
    spread: Mapping[str, Numeric] = spreads()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class SparseKernel(Spec):
    """Attention of prompts over chosen keys: `key_s` for each that a query reads, for up to `block_heads` heads at once."""

    block_heads: Numeric = number("count", above=0)
    key_s: Numeric = number("s", above=0)
    evidence: Evidence = part(Evidence, default=Evidence())
    spread: Mapping[str, Numeric] = spreads()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class SmallAllReduce(Spec):
    """An engine's own all-reduce inside a node, in a CUDA graph: latency_s + payload / bandwidth; for one number of ranks."""

    latency_s: Numeric = number("s")
    bandwidth_bytes_per_s: Numeric = number("bytes_per_s", above=0)
    evidence: Evidence = part(Evidence, default=Evidence())
    spread: Mapping[str, Numeric] = spreads()


def _without_family(table: Mapping[str, ServedKernel]) -> dict[str, str]:
    """The names of a table by what is left of them behind the family of an engine."""
    return {name.rpartition(OF_FAMILY)[2]: name for name in table}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class ServingProfile(Spec):
    """Kernels of one GPU as serving engines have them.

    `cluster` is the preset of the machine that the GPU usually stands in, whose links its messages travel over; of a machine
    that was calibrated it is its own. `small_products`, and `expert_products` where experts differ, are by law of the weights
    (spec/serving/formats.py), `cached_attention` by that of the cache, `all_reduce` by the number of ranks. An engine's own
    kernels have its family before the law (`sglang-fp8_block`), experts' of a library that it may be asked to take instead that
    between both (`vllm-marlin-mxfp4`). `small_kernels` are those between products that were measured one by one, each with the
    whole chain of what it runs. `key_choice`, by that of an indexer's keys, and `sparse_attention`, by that of the cache, are
    of models with an indexer.
    """

    name: str = text()
    cluster: str = text(default=OWN_MACHINE)
    small_products: Mapping[str, ServedKernel] = part(ServedKernel, shape="table")
    cached_attention: Mapping[str, CachedKernel] = part(CachedKernel, shape="table")
    expert_products: Mapping[str, ServedKernel] = part(ServedKernel, shape="table", optional=True)
    all_reduce: Mapping[str, SmallAllReduce] = part(SmallAllReduce, shape="table", optional=True)
    carried_over: bool = flag(default=False)  # whether laws are those of another chip, however they were measured there
    small_kernels: Mapping[str, StreamedKernel] = part(StreamedKernel, shape="table", optional=True)
    key_choice: Mapping[str, KeyChoiceKernel] = part(KeyChoiceKernel, shape="table", optional=True)
    sparse_attention: Mapping[str, SparseKernel] = part(SparseKernel, shape="table", optional=True)
    small_kernel_s: Numeric = number("s")  # of one kernel between products, in a CUDA graph, beside the bytes it moves
    between_s: Numeric = number("s", default=0.0)  # of the interpreter from one operator to the next, where nothing hides it
    spread: Mapping[str, Numeric] = spreads()

    def __post_init__(self) -> None:
        Spec.__post_init__(self)
        for key, table, known in (
            ("small_products", _without_family(self.small_products), SMALL_PRODUCT_LAWS),
            ("expert_products", _without_family(self.expert_products), SMALL_PRODUCT_LAWS),
            ("cached_attention", self.cached_attention, CACHE_LAWS),
            ("sparse_attention", self.sparse_attention, CACHE_LAWS),
            ("key_choice", self.key_choice, CACHE_LAWS),
            ("small_kernels", self.small_kernels, (*SERVED_KERNELS, *STATE_KERNELS, *INDEX_KERNELS)),
        ):
            for name in table:
                if name not in known:
                    raise InputError(f"no law that is known here; {did_you_mean(name, known)}", key=f"{key}.{name}")
        for ranks in self.all_reduce:
            if not is_size(ranks):
                raise InputError("numbers of ranks are whole numbers above 0", key=f"all_reduce.{ranks}")

    def product_law(self, law: str, family: str) -> str:
        """The name of the numbers of products: those of the engine's own kernels, or of any engine.

        Errors: NotSupportedError where none were measured.
        """
        alike = ALIKE.get(law, law)
        names = (f"{family}{OF_FAMILY}{law}", law, f"{family}{OF_FAMILY}{alike}", alike)
        found = next((name for name in names if name in self.small_products), "")
        if not found:
            have = ", ".join(dict.fromkeys(_without_family(self.small_products)))
            raise NotSupportedError(f"{self.name} have no products of {law} weights; they have {have}", key="precision")
        return found

    def small_product(self, law: str, family: str) -> ServedKernel:
        """Products with few rows of weights in one format. Errors: NotSupportedError where none were measured."""
        return self.small_products[self.product_law(law, family)]

    def expert_law(self, law: str, family: str, kernels: str = OWN_KERNELS) -> str:
        """The name of the numbers of experts in one kernel: of the engine or a newer one, of any engine, else "".

        Those of the library that was asked for, where there are some, come first.
        """
        laws = (law, ALIKE.get(law, law))
        families = dict.fromkeys((family, family.partition(OF_FAMILY)[0]))  # trtllm-2024 has those of trtllm
        own = [f"{each}{OF_FAMILY}{law}" for each in families for law in laws]
        asked = [f"{each}{OF_FAMILY}{kernels}{OF_FAMILY}{law}" for each in families for law in laws]
        return next((name for name in (*asked, *own, *laws) if name in self.expert_products), "")

    def expert_product(self, law: str, family: str, kernels: str = OWN_KERNELS) -> ServedKernel:
        """Products of all experts of a layer in one kernel: their own numbers, or those of other products."""
        name = self.expert_law(law, family, kernels)
        return self.expert_products[name] if name else self.small_product(law, family)

    def attention_over(self, law: str) -> CachedKernel:
        """Decode attention over a cache in one format. Errors: NotSupportedError where none was measured."""
        if law not in self.cached_attention:
            have = ", ".join(self.cached_attention)
            raise NotSupportedError(f"{self.name} have no attention over a {law} cache; they have {have}", key="kv_precision")
        return self.cached_attention[law]

    def choice_of_keys(self) -> KeyChoiceKernel:
        """What an indexer takes. Errors: NotSupportedError where it was not measured."""
        if INDEX_LAW not in self.key_choice:
            raise NotSupportedError(f"{self.name} have no scores of an indexer; Hopper and Blackwell have", key="gpu")
        return self.key_choice[INDEX_LAW]

    def sparse_attention_over(self, law: str) -> SparseKernel:
        """Attention of prompts over chosen keys in one format. Errors: NotSupportedError where none was measured."""
        if law not in self.sparse_attention:
            have = ", ".join(self.sparse_attention) or "none"
            raise NotSupportedError(
                f"{self.name} have no sparse attention over a {law} cache; they have {have}", key="kv_precision"
            )
        return self.sparse_attention[law]
