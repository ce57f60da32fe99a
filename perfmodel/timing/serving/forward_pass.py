"""How long one forward pass of a served model takes on its GPUs.

Symbols: a = fixed_s and e = efficiency of the GPU's serving profile, M memory rate.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from perfmodel.count.operators import CachedAttention, Collective, FusedAttention, Matmul, MemoryBound
from perfmodel.count.roles import EXPERT_PRODUCTS
from perfmodel.count.serving.forward_pass import ForwardPass, ServedOperator, ServedProduct, forward_operators
from perfmodel.count.serving.sparse import KeyChoice, SparseAttention
from perfmodel.light_dataclass import dataclass, replace
from perfmodel.spec.fields import Numeric, anywhere
from perfmodel.spec.serving.profile import SmallAllReduce
from perfmodel.spec.serving.setup import ServingSetup
from perfmodel.timing.attention import fused_attention_time_s
from perfmodel.timing.collectives import collective_time_s
from perfmodel.timing.kernels import matmul_time_s
from perfmodel.timing.serving.launches import is_eager, python_s
from perfmodel.timing.serving.products import product_time_s, product_times_s

PARTS: Final = ("weights_s", "compute_s", "cache_s", "kernels_s", "messages_s", "host_s")
PART_OF: Final[Mapping[type, str]] = {  # what the time of operators other than products of weights and messages is spent on
    Matmul: "compute_s",
    CachedAttention: "cache_s",
    FusedAttention: "compute_s",
    KeyChoice: "cache_s",
    SparseAttention: "compute_s",
    MemoryBound: "kernels_s",
}
NUMBERS: Final = ("sequences", "context", "prompts", "prompt_tokens")  # of a pass
OF_EXPERTS: Final = {"weights_s": "expert_weights_s", "compute_s": "expert_compute_s"}  # what of a part is theirs


@dataclass(frozen=True, slots=True, kw_only=True)
class PassTime:
    """Seconds of one pass by what they are spent on; the parts add up to `total_s`.

    weights_s    products that reading weights bounds
    compute_s    products and attention of prompts that arithmetic bounds
    cache_s      attention over the KV cache
    kernels_s    norms, activations, moving tokens, sampling
    messages_s   all-reduces and gathers
    host_s       between passes, and launches that no graph has

    `expert_weights_s` and `expert_compute_s` are what of the first two is products of experts, whose numbers are others.
    """

    weights_s: Numeric = 0.0
    compute_s: Numeric = 0.0
    cache_s: Numeric = 0.0
    kernels_s: Numeric = 0.0
    messages_s: Numeric = 0.0
    host_s: Numeric = 0.0
    expert_weights_s: Numeric = 0.0
    expert_compute_s: Numeric = 0.0

    @property
    def total_s(self) -> Numeric:
        """The sum of all parts."""
        return self.weights_s + self.compute_s + self.cache_s + self.kernels_s + self.messages_s + self.host_s

    def parts(self) -> Mapping[str, Numeric]:
        """The parts by name."""
        return {name: getattr(self, name) for name in PARTS}


def mixed(terms: Iterable[tuple[Numeric, PassTime]]) -> PassTime:
    """The sum of passes, each as often as its number says."""
    listed = list(terms)

    def part_of(name: str) -> Numeric:
        total: Numeric = 0.0
        for number, each in listed:
            total = total + number * getattr(each, name)
        return total

    return PassTime(**{name: part_of(name) for name in (*PARTS, *OF_EXPERTS.values())})


def streamed(cycle: PassTime, floor_s: Numeric, *, added_s: Numeric = 0.0) -> PassTime:
    """The time of many passes and of `added_s` between them, of no fewer seconds than a process beside them takes.

    Both are the host's.
    """
    waited_s = np.maximum(floor_s - cycle.total_s - added_s, 0.0)
    return replace(cycle, host_s=cycle.host_s + added_s + waited_s)


def pass_time(setup: ServingSetup, tokens: ForwardPass, *, host: bool = True) -> PassTime:
    """The pass in its parts; without the host where it rides in another one."""
    (found,) = pass_times(setup, [tokens], host=host)
    return found


def pass_times(setup: ServingSetup, passes: Sequence[ForwardPass], *, host: bool = True) -> list[PassTime]:
    """What pass_time gives each, whose products are timed together; passes of one kind are counted as one, on a first axis."""
    kinds: dict[Hashable, list[int]] = {}
    for place, tokens in enumerate(passes):
        kinds.setdefault(_kind(tokens), []).append(place)
    alike = [[passes[place] for place in places] for places in kinds.values()]
    together = [_as_one(each) for each in alike]
    operators = [forward_operators(setup, tokens) for tokens in together]
    products = [each for every in operators for each in every if isinstance(each, ServedProduct)]
    times = iter(product_times_s(products, setup))
    found: dict[int, PassTime] = {}
    for each, tokens, every, places in zip(alike, together, operators, kinds.values(), strict=True):
        whole = _pass_time(setup, tokens, every, times, host=host)
        found.update(zip(places, _one_by_one(whole, each), strict=True))
    return [found[place] for place in range(len(passes))]


def _kind(tokens: ForwardPass) -> Hashable:
    """What passes have in common that run the same operators: prompts of so many tokens or none, and sequences or none."""
    has = (anywhere(np.asarray(each) > 0) for each in (tokens.prompts, tokens.sequences))
    return *has, np.asarray(tokens.prompt_tokens, dtype=float).tobytes()


def _numbers(tokens: ForwardPass) -> list[NDArray[np.float64]]:
    return [np.asarray(getattr(tokens, name), dtype=float) for name in NUMBERS]


def _as_one(passes: Sequence[ForwardPass]) -> ForwardPass:
    """Several passes on a first axis; one as it is."""
    if len(passes) == 1:
        return passes[0]
    every = np.broadcast_arrays(*(number for each in passes for number in _numbers(each)))
    return ForwardPass(**{name: np.stack(every[place :: len(NUMBERS)]) for place, name in enumerate(NUMBERS)})


def _one_by_one(whole: PassTime, passes: Sequence[ForwardPass]) -> list[PassTime]:
    """The times of passes of a first axis, each without the axes that its own numbers do not have."""
    if len(passes) == 1:
        return [whole]
    parts = {name: np.asarray(getattr(whole, name)) for name in (*PARTS, *OF_EXPERTS.values())}
    found = []
    for place, each in enumerate(passes):
        axes = max(number.ndim for number in _numbers(each))
        own = {name: part[(place, *[0] * (part.ndim - 1 - axes))] if part.ndim else part for name, part in parts.items()}
        found.append(PassTime(**own))
    return found


def _pass_time(
    setup: ServingSetup,
    tokens: ForwardPass,
    every: Iterable[ServedOperator],
    times: Iterator[tuple[Numeric, Numeric]],
    *,
    host: bool,
) -> PassTime:
    """The parts of a pass from the times of its products."""
    sums: dict[str, Numeric] = dict.fromkeys((*PARTS, *OF_EXPERTS.values()), 0.0)
    kernels: Numeric = 0.0
    operators: Numeric = 0.0
    called_s: Numeric = 0.0
    sent_s: dict[Hashable, Numeric] = {}  # layers of all kinds send the same
    start_s = early_start_s(setup, tokens)
    for operator in every:
        if isinstance(operator, ServedProduct):
            taken_s = next(times)
            _add_product(sums, operator, taken_s if operator.beside else _without_start(taken_s, start_s))
        elif isinstance(operator, Collective):
            sent = operator.kind, operator.group.ranks, np.asarray(operator.payload_bytes, dtype=float).tobytes()
            if sent not in sent_s:
                sent_s[sent] = message_time_s(operator, setup)
            sums["messages_s"] = sums["messages_s"] + operator.repeats * sent_s[sent]
        else:
            part = PART_OF[type(operator)]
            starts_s = start_s * getattr(operator, "kernels", 1)
            sums[part] = sums[part] + operator.repeats * np.maximum(operator_time_s(operator, setup) - starts_s, 0.0)
        kernels = kernels + operator.repeats * getattr(operator, "kernels", 1)
        operators = operators + operator.repeats
        called_s = called_s + operator.repeats * python_s(operator, setup.engine.host)
    engine, own = setup.engine.host, tokens.shared_by(setup.attention_replicas)  # a replica has a process of its own
    launches = kernels * engine.launch_s + called_s
    launches = setup.cluster.host_scale * (np.where(is_eager(engine, own), launches, 0.0) + engine.hidden_s * own.sequences)
    if host:
        sums["host_s"] = engine.step_s + engine.sequence_s * own.sequences + engine.group_s * (setup.tensor_parallel > 1)
    device = sum(sums[name] for name in PARTS if name != "host_s")
    sums["host_s"] = sums["host_s"] + np.maximum(launches - device, 0.0)  # the CPU launches while the GPU runs what it has
    sums["host_s"] = sums["host_s"] + setup.profile.between_s * operators
    return PassTime(**sums)


def early_start_s(setup: ServingSetup, tokens: ForwardPass) -> Numeric:
    """What of the start of each kernel the one before it hides: in CUDA graphs of passes that decode alone."""
    if not setup.engine.early_launches:
        return 0.0
    return np.where(np.asarray(tokens.prompts) > 0, 0.0, setup.profile.small_kernel_s)


def _without_start(taken_s: tuple[Numeric, Numeric], start_s: Numeric) -> tuple[Numeric, Numeric]:
    reading_s, computing_s = (np.maximum(each - start_s, 0.0) for each in taken_s)
    return reading_s, computing_s


def operator_time_s(operator: ServedOperator, setup: ServingSetup) -> Numeric:
    """How long one run of an operator takes alone."""
    match operator:
        case ServedProduct():
            return product_time_s(operator, setup)[0]
        case Matmul():
            return scan_time_s(operator, setup)
        case CachedAttention() | FusedAttention():
            return attention_time_s(operator, setup)
        case KeyChoice() | SparseAttention():
            return chosen_keys_time_s(operator, setup)
        case MemoryBound():
            return small_kernel_time_s(operator, setup)
        case Collective():
            return message_time_s(operator, setup)


def _add_product(sums: dict[str, Numeric], product: ServedProduct, taken_s: tuple[Numeric, Numeric]) -> None:
    """Add what a product takes where reading and where computing bounds it, and what of that is of experts."""
    for part, seconds in zip(OF_EXPERTS, taken_s, strict=True):
        taken = product.repeats * seconds
        sums[part] = sums[part] + taken
        if product.role in EXPERT_PRODUCTS:
            sums[OF_EXPERTS[part]] = sums[OF_EXPERTS[part]] + taken


def attention_time_s(operator: CachedAttention | FusedAttention, setup: ServingSetup) -> Numeric:
    """Attention of single queries over a cache, or of prompts."""
    if isinstance(operator, CachedAttention):
        return cached_attention_time_s(operator, setup)
    return prompt_attention_time_s(operator, setup)


def chosen_keys_time_s(operator: KeyChoice | SparseAttention, setup: ServingSetup) -> Numeric:
    """The choice of keys, or attention of prompts over them."""
    if isinstance(operator, KeyChoice):
        return key_choice_time_s(operator, setup)
    return sparse_attention_time_s(operator, setup)


def cached_attention_time_s(attention: CachedAttention, setup: ServingSetup) -> Numeric:
    """a + max(bytes / (e*M), flop / (g*e_f*P)) + s * B*a*k, of B*a*k scores of queries with keys.

    Keys and values are read, or for latent attention's many heads arithmetic takes longer, g times as fast as that of prompts;
    s is what a score takes where nothing hides the softmax.
    """
    gpu, known = setup.cluster.gpu, setup.profile.attention_over(attention.law)
    read_s = attention.read_bytes / (known.efficiency * gpu.memory_bandwidth_bytes_per_s)
    rate = gpu.peak(setup.wide) * gpu.attention(setup.wide, backward=False).efficiency * known.computing
    seconds = known.fixed_s + np.maximum(read_s, attention.flop / rate) + known.score_s * attention.scores
    return np.where(np.asarray(attention.sequences) > 0, seconds, 0.0)


def prompt_attention_time_s(attention: FusedAttention, setup: ServingSetup) -> Numeric:
    """Fused attention of whole prompts, as in training's forward pass."""
    seconds = fused_attention_time_s(attention, gpu=setup.cluster.gpu, compute_scale=setup.cluster.compute_scale)
    return np.where(np.asarray(attention.sequences) > 0, seconds, 0.0)


def key_choice_time_s(choice: KeyChoice, setup: ServingSetup) -> Numeric:
    """bytes / M + flop / (g*P) + s * R*k, and c where there are more keys than are chosen; P the dense peak of 8 bits."""
    gpu, known = setup.cluster.gpu, setup.profile.choice_of_keys()
    read_s = choice.read_bytes / gpu.memory_bandwidth_bytes_per_s
    scored_s = choice.flop / (known.computing * gpu.peak("fp8")) + known.score_s * choice.scores
    chosen_s = np.where(np.asarray(choice.few), 0.0, known.choose_s)
    return np.where(np.asarray(choice.queries) > 0, read_s + scored_s + chosen_s, 0.0)


def sparse_attention_time_s(attention: SparseAttention, setup: ServingSetup) -> Numeric:
    """s * R*k * ceil(a/b): a block of b heads reads the keys that were chosen for a query once, however few heads it has."""
    known = setup.profile.sparse_attention_over(attention.law)
    return known.key_s * attention.rows * attention.keys * np.ceil(np.asarray(attention.heads) / known.block_heads)


def scan_time_s(product: Matmul, setup: ServingSetup) -> Numeric:
    """u*v*t, t of such a product anywhere else: u is scan_work of the engine, v that of the GPU (KernelProfile.scan)."""
    gpu = setup.cluster.gpu
    seconds = matmul_time_s(product, gpu=gpu, compute_scale=setup.cluster.compute_scale)
    return seconds * (setup.engine.scan_work * gpu.kernels.scan_work)


def small_kernel_time_s(operator: MemoryBound, setup: ServingSetup) -> Numeric:
    """kernels * a + bytes / (e*M) + m*w, with the rate of elementwise kernels of the GPU; or the law of this very chain.

    m chunks of a scan wait for each other, w of the engine each.
    """
    gpu = setup.cluster.gpu
    if own := setup.profile.small_kernels.get(operator.kernel):
        return own.fixed_s + operator.moved_bytes / (own.efficiency * gpu.memory_bandwidth_bytes_per_s)
    rate = gpu.kernels.memory_bound["elementwise"].efficiency * gpu.memory_bandwidth_bytes_per_s
    waited_s = operator.chained * setup.engine.scan_step_s
    return operator.kernels * setup.profile.small_kernel_s + operator.moved_bytes / rate + waited_s


def message_time_s(call: Collective, setup: ServingSetup) -> Numeric:
    """NCCL's time, or of an all-reduce the engine's own where that is faster: latency + payload / bandwidth.

    NCCL's numbers are those of calls that are enqueued back to back (timing/collectives.py).
    """
    nccl = collective_time_s(call, cluster=setup.cluster)
    own = small_all_reduce(setup, call)
    if own is None:
        return nccl
    return np.minimum(nccl, own.latency_s + call.payload_bytes / own.bandwidth_bytes_per_s)


def small_all_reduce(setup: ServingSetup, call: Collective) -> SmallAllReduce | None:
    """The engine's own all-reduce for the ranks of a call; None where it has none."""
    if call.kind != "all_reduce" or not setup.engine.custom_all_reduce:
        return None
    return setup.profile.all_reduce.get(str(int(np.max(call.group.ranks))))
