"""What a serving engine does: how it takes memory, schedules requests, launches and sends.

An engine is a preset in perfmodel/data/engines, with the source of each number beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from perfmodel.light_dataclass import dataclass, replace
from perfmodel.spec.fields import Numeric, Spec, choice, count, flag, number, part, spreads, text
from perfmodel.spec.machines.hardware import Gpu
from perfmodel.spec.serving.profile import OWN_KERNELS

OF_TOTAL: Final = "total"
OF_FREE: Final = "free"
MOST_PASSES: Final = 10_000  # that an engine holds prompts back: minutes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class EngineMemory(Spec):
    """What of a GPU's memory becomes KV cache (equation: count/serving/memory.py).

    `fraction` is of the memory in total, weights and all else inside it, or of what weights and buffers leave free.
    """

    fraction: Numeric = number("ratio", above=0, maximum=1)
    fraction_of: str = choice(OF_TOTAL, OF_FREE)
    block_tokens: Numeric = count()  # tokens of a block of the cache
    fixed_bytes: Numeric = number("bytes")  # of context, libraries and engine, outside of the tensors of the model
    group_bytes: Numeric = number("bytes")  # the same, more where GPUs send to each other: NCCL and buffers of all-reduces
    graph_bytes: Numeric = number("bytes")  # of CUDA graphs
    graphs_inside: bool = flag(default=False)  # whether those are within the fraction
    profiled_tokens: Numeric = count()  # of the forward pass whose activations are held free
    logit_bytes: Numeric = number("bytes", minimum=0, default=4.0)  # of each sampled logit where sampling holds most of it
    state_number_bytes: Numeric = number("bytes", above=0, default=4.0)  # of one number of the state of a mixer
    spread: Mapping[str, Numeric] = spreads()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class EngineSchedule(Spec):
    """Which tokens share a forward pass.

    `mixes` says that tokens of prompts ride in the passes of sequences that decode; otherwise they have passes of their own.
    `reserves_output` says that a request starts only when the cache has room for all that may come back of it.
    `balances` says that replicas of attention hold prompts back until each of them has one, and for `gather_passes` more; every
    `balance_passes` they read what there is all the same. With `wait_passes` prompts wait so long at most, until they are
    `wait_share` of the tokens of a pass, where attention is not replicated. Both only where an engine mixes.
    `overlaps` says that the next pass is put together while one runs, so that a request that comes meanwhile waits for both.
    """

    max_sequences: Numeric = count()
    chunk_tokens: Numeric = count()  # tokens of prompts in one pass
    mixes: bool = flag()
    receive_passes: Numeric = count(default=1)  # while sequences decode, new requests are looked for behind so many passes
    reserves_output: bool = flag(default=False)
    balances: bool = flag(default=False)
    balance_passes: Numeric = count(minimum=0, maximum=MOST_PASSES, default=0)
    gather_passes: Numeric = count(minimum=0, maximum=MOST_PASSES, default=0)
    wait_passes: Numeric = count(minimum=0, maximum=MOST_PASSES, default=0)
    wait_share: Numeric = number("ratio", above=0, maximum=1, default=1.0)
    overlaps: bool = flag(default=False)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class EngineHost(Spec):
    """What the CPU adds.

    step_s      between two forward passes: scheduling, sampling, detokenising that no GPU work hides
    sequence_s  the same for each sequence of the pass
    hidden_s    for each sequence of the pass, while the GPU runs: what is longer than the GPU's work is waited for
    group_s     as step_s, where a step is handed to the processes of several GPUs
    stream_s    the same where answers are streamed over HTTP, of one process that works beside the GPU: no pass follows another
                faster than this times its sequences
    answer_s    between two passes for each sequence, where a server writes answers in the process that launches
    admission_s once a request within the engine: queues between its processes, the first pass of a sequence
    request_s   the same through a server: HTTP, the way of the first token back
    token_s     the same for each token of the prompt: its text is parsed and cut into tokens
    launch_s    a kernel, where no CUDA graph has it: with more tokens of prompts, and always without `graphs`
    operator_s  the same for each operator: the module around it, its views and checks
    triton_s    in its place for each operator of routed experts or of a scan that Python launches, kernels of Triton as a rule

    All are those of a DGX H100's CPU, as a stack's are. On others (a cluster's host_scale) they differ, but for those of a
    step, which took no longer on the hosts of A100 and GH200 (Argonne's batches of 2024). With `graphs` passes that decode are
    replayed from CUDA graphs, and those with prompts, piece by piece, up to `graph_tokens`. `compiled` says that torch.compile
    generates the code around operators, but for custom ones; `fused_experts` that one custom operator is all that routed
    experts of a layer need; `tunes` that kernels of products in blocks of few bits are looked up in Python on every call;
    `late` that tokens leave when the pass after theirs has run; `one_door` that one process of Python works all of request_s
    and token_s on a request before it takes the next one: which counts where all clients start at once, but later not, as
    servers measured since let in more requests a second than such a process would.
    """

    step_s: Numeric = number("s")
    sequence_s: Numeric = number("s", default=0.0)
    hidden_s: Numeric = number("s", default=0.0)
    group_s: Numeric = number("s", default=0.0)
    stream_s: Numeric = number("s", default=0.0)
    answer_s: Numeric = number("s", default=0.0)
    admission_s: Numeric = number("s", default=0.0)
    request_s: Numeric = number("s")
    token_s: Numeric = number("s", default=0.0)
    launch_s: Numeric = number("s", default=0.0)
    operator_s: Numeric = number("s", default=0.0)
    triton_s: Numeric = number("s", default=0.0)
    graphs: bool = flag(default=True)
    graph_tokens: Numeric = count(minimum=0, default=0)
    compiled: bool = flag(default=False)
    fused_experts: bool = flag(default=False)
    tunes: bool = flag(default=False)
    late: bool = flag(default=False)
    one_door: bool = flag(default=False)
    spread: Mapping[str, Numeric] = spreads()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class SmallGpus(Spec):
    """What an engine takes by default on GPUs with less memory than `below_bytes`, and on all with `named` in their name."""

    below_bytes: Numeric = number("bytes", above=0)
    named: str = text(default="")
    chunk_tokens: Numeric = count()  # of the profiled pass too
    max_sequences: Numeric = count()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Engine(Spec):
    """A serving engine: memory, schedule, host, messages.

    `family` names the software whose measured runs tell how wrong predictions of it are. `expert_kernels` names the library
    that experts are asked of in place of the engine's own choice (triton, marlin), whose laws stand under it.
    """

    name: str = text()
    family: str = text()
    memory: EngineMemory = part(EngineMemory)
    schedule: EngineSchedule = part(EngineSchedule)
    host: EngineHost = part(EngineHost)
    custom_all_reduce: bool = flag()
    expert_kernels: str = text(default=OWN_KERNELS)
    early_launches: bool = flag(default=False)  # whether CUDA graphs start a kernel while the one before it ends
    shared_beside: bool = flag(
        default=False
    )  # whether CUDA graphs run shared experts beside the routed ones, on another stream
    scan_work: Numeric = number("ratio", above=0, maximum=10, default=1.0)  # time of scans of states over that of such products
    scan_step_s: Numeric = number("s", default=0.0)  # of one chunk of a scan whose next chunk waits for it, beside that
    expert_scatter: Numeric | None = number(
        "ratio", optional=True, default=None
    )  # standard deviation of experts' loads over their mean; without one tokens fall evenly on the ranks of experts
    cast_s: Numeric = number(
        "s", default=0.0
    )  # of a kernel of its own that brings rows into fewer than 16 bits, before each product
    small_gpus: SmallGpus | None = part(SmallGpus, optional=True, default=None)

    def on(self, gpu: Gpu) -> Engine:
        """The engine with its defaults for a GPU."""
        small = self.small_gpus
        if small is None:
            return self
        if gpu.memory_bytes >= small.below_bytes and not (small.named and small.named in gpu.name):
            return self
        schedule = replace(self.schedule, chunk_tokens=small.chunk_tokens, max_sequences=small.max_sequences)
        return replace(self, schedule=schedule, memory=replace(self.memory, profiled_tokens=small.chunk_tokens))
