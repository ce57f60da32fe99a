"""What the training software does with a layout: what it fuses, overlaps, shards and allocates, as data.

One section for each question that somebody asks of software; a section's `spread` says how uncertain its numbers are.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Final

from perfmodel.errors import InputError, shown
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.axes import AXES
from perfmodel.spec.fields import (
    Numeric,
    Spec,
    anywhere,
    check_fields,
    choice,
    choices,
    count,
    flag,
    number,
    part,
    spreads,
    text,
    words,
)
from perfmodel.spec.layout import PIPELINE_SCHEDULES, RECOMPUTE_MODULES, SHARDINGS
from perfmodel.spec.machines.coefficients import ATTENTION_LIBRARIES, FASTEST, MATMUL_LIBRARIES, NORM_KERNELS
from perfmodel.spec.precision import LOW_ATTENTION, RECIPES, PrecisionRecipe
from perfmodel.spec.tuning.fine_tuning import TuningWork

DISPATCHERS: Final = ("alltoall", "deepep", "hybridep", "allgather")
OVERLAPS_OF_EXPERTS: Final = ("none", "passes")
GRAPHED: Final = (  # parts of a layer that CUDA graphs may replay
    "attention",
    "mixer",
    "dense",
    "router",  # this and those that follow are of a mixture
    "preprocess",  # what tokens pass before they travel
    "shared_experts",
    "experts",
)
NO_LOW_ATTENTION: Final = "none"
LOW_RECIPES: Final = tuple(name for name, recipe in RECIPES.items() if recipe.casts)
PIPELINE_SPLITS: Final = ("layers", "modules", "products")
WIDE_ATTENTION: Final = ("fused", "fused_softmax", "unfused", "none")
MOVED_KEYS: Final = MappingProxyType(  # before there were sections -> the key path of today
    {
        "sequence_parallel": "defaults.sequence_parallel",
        "sharding": "defaults.sharding",
        "offered_shardings": "offers.shardings",
        "offered_schedules": "offers.schedules",
        "fused_attention": "fusion.attention",
        "attention_library": "fusion.attention_library",
        "fused_softmax": "fusion.softmax",
        "norm_kernels": "fusion.norms",
        "separate_projections": "fusion.separate_projections",
        "fused_rotary": "fusion.rotary",
        "fused_activation": "fusion.activation",
        "fused_squared_relu": "fusion.squared_relu",
        "fused_gradient_accumulation": "fusion.gradient_accumulation",
        "gathered_logits": "fusion.gathered_logits",
        "loss_forward_bytes": "fusion.loss_forward_bytes",
        "loss_backward_bytes": "fusion.loss_backward_bytes",
        "loss_peak_bytes": "fusion.loss_peak_bytes",
        "selective_recompute": "fusion.selective_recompute",
        "tensor_parallel_overlap": "overlap.tensor_parallel",
        "context_parallel_exchange": "overlap.context_parallel_exchange",
        "balanced_context_parallel": "overlap.balanced_context_parallel",
        "pipeline_overlap": "overlap.pipeline",
        "scatter_gather_pipeline": "overlap.scatter_gather_pipeline",
        "data_parallel_overlap": "overlap.data_parallel",
        "hide_all": "overlap.hide_all",
        "bucket_rule": "overlap.bucket_rule",
        "bucket_parameters": "overlap.bucket_parameters",
        "bucket_parameters_per_rank": "overlap.bucket_parameters_per_rank",
        "node_link_sm_fraction": "overlap.node_link_sm_fraction",
        "network_sm_fraction": "overlap.network_sm_fraction",
        "fp8_products": "low_precision.products",
        "fp8_scaling": "low_precision.scaling",
        "fp8_parameter_gather": "low_precision.parameter_gather",
        "fp8_clock_scale": "low_precision.clock_scale",
        "gradient_bytes": "states.gradient_bytes",
        "reduced_gradient_bytes": "states.reduced_gradient_bytes",
        "scatters_gradients": "states.scatters_gradients",
        "parameter_bytes": "states.parameter_bytes",
        "optimizer_bytes": "states.optimizer_bytes",
        "overwrites_gradients": "states.overwrites_gradients",
        "pipeline_split": "states.pipeline_split",
        "framework_bytes": "states.framework_bytes",
        "communication_buffer_bytes": "states.communication_buffer_bytes",
        "fragmentation": "states.fragmentation",
        "host_s": "host.launch_s",
        "iteration_host_s": "host.iteration_s",
        "unlisted_work": "host.unlisted_work",
        "clock_scale": "host.clock_scale",
        "spread": "host.spread, overlap.spread and so on",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class StackDefaults(Spec):
    """What the software does unless the run says otherwise."""

    sequence_parallel: bool = flag()
    sharding: str = choice(*SHARDINGS)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class StackOffers(Spec):
    """What the software has: a search chooses from it, and a run that asks for more is predicted with a warning."""

    shardings: tuple[str, ...] = choices(*SHARDINGS)
    schedules: tuple[str, ...] = choices(*PIPELINE_SCHEDULES)
    degrees: tuple[str, ...] = choices(*(axis.name for axis in AXES))  # axes of parallelism
    recompute_modules: tuple[str, ...] = choices(*RECOMPUTE_MODULES, default=())  # that it can run again for themselves


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class HostWork(Spec):
    """What the CPU takes, what runs beside the operators, and what the settings of the software do to the GPU's clocks.

    Times are those of a DGX H100's CPU (Xeon Platinum 8480C); cluster.host_scale is that of another.
    """

    unlisted_work: Numeric = number("ratio", above=0)  # time of a pass over that of its operators: 1 where they are all it runs
    operator_s: Numeric = number("s")  # CPU time of one operator: its modules, autograd nodes, views, casts and small kernels
    launch_s: Numeric = number("s")  # CPU time to launch one of its kernels
    pass_s: Numeric = number("s")  # of each pass over a pipeline chunk: the GPU is idle while the CPU calls the schedule again
    cuda_graphs: bool = flag(default=False)  # all is captured and replayed: the CPU runs no operator of a pass
    graphed: tuple[str, ...] = choices(*GRAPHED, default=())  # parts of layers that are, where not all is
    iteration_s: Numeric = number("s")  # data loading, logging, timers and synchronisation of an iteration
    clock_scale: Numeric = number("ratio", above=0, maximum=2)  # times cluster.compute_scale, for 16-bit kernels
    spread: Mapping[str, Numeric] = spreads()

    def __post_init__(self) -> None:
        check_fields(self)
        if anywhere(self.unlisted_work < 1.0):  # the low end of its interval may be lower (spread.moved)
            least = "must be at least 1: a pass takes as long as its operators, or longer"
            raise InputError(f"{shown(self.unlisted_work)} {least}", key="unlisted_work")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Fusion(Spec):
    """Which kernels run: what is one kernel, whose it is, and what it moves and keeps.

    Flash attention and cuDNN take numbers of 2 bytes. `wide_attention` is what runs on those of 4 (fp32, TF32): "fused" another
    kernel (PyTorch's memory-efficient one; on a CPU its own), "fused_softmax" and "unfused" products whose scores go through
    memory, "none" nothing at all: such a run is refused. Without `attention` scores go through memory in any format.
    """

    attention: bool = flag()
    attention_library: str = choice(*ATTENTION_LIBRARIES)  # whose fused kernels
    fastest_attention_on: tuple[str, ...] = words(default=())  # generations of GPUs on which it takes the fastest instead
    matmul_library: str = choice(*MATMUL_LIBRARIES, default="newest")  # which generation of the library of products
    softmax: bool = flag()  # scale, mask and softmax of unfused attention in one kernel
    fp32_scores: bool = flag(default=False)  # an eager chain casts scores to fp32 before it masks them, not in its softmax
    wide_attention: str = choice(*WIDE_ATTENTION, default="fused")  # what runs on numbers of 4 bytes
    norms: str = choice(*NORM_KERNELS)  # one kernel written for norms, what a compiler makes of them, or PyTorch's own
    recomputed_inputs: bool = flag()  # a compiler forms what norms and activations hand to products again, and keeps none of it
    batch_first: bool = flag(default=False)  # sequences lie before their tokens: what these ranks gather or scatter is copied
    gathered_inputs: bool = flag()  # what sequence parallelism gathers for a product is kept, not gathered again backwards
    fp32_stream: bool = flag()  # autocast with fp32 parameters: products in 16 bits, the residual stream and norms in fp32
    separate_projections: bool = flag()  # queries, keys and values, gate and input of the MLP: a product each, reduced each
    joined_heads: bool = flag(default=False)  # queries, keys and values are one product even so, where keys have as many heads
    rotary: bool = flag()  # one kernel for queries and keys each, against the chain of eager operators
    activation: bool = flag()  # GELU and the gated ones
    squared_relu: bool = flag()
    gradient_accumulation: bool = flag()  # the product adds to the gradient, or a kernel of its own does
    gathered_logits: bool = flag()  # every tensor-parallel rank takes the loss over the whole vocabulary
    loss_forward_bytes: Numeric = number("bytes")  # memory traffic per logit of the cross-entropy
    loss_backward_bytes: Numeric = number("bytes")  # memory traffic per logit of its backward pass
    loss_peak_bytes: Numeric = number("bytes")  # held per logit at the peak
    parallel_loss_bytes: Numeric = number("bytes")  # held per logit beside, where tensor-parallel ranks share the vocabulary
    loss_chunks: Numeric = number("count", minimum=1)  # pieces of a micro-batch whose logits and loss are taken one by one
    selective_recompute: str = choice("attention", "every_second_product")  # what its selective mode runs again
    recompute_stops_early: bool = flag(default=False)  # full recompute ends once all that was kept is there again
    recomputes_ends: bool = flag(default=False)  # full recompute runs the embedding and the head again too, but not the loss
    scan_work: Numeric = number("ratio", above=0, maximum=10)  # time of scans of Mamba-2 over that of such scans on the GPU
    delta_rule_work: Numeric = number("ratio", above=0, maximum=10)  # the same of the gated delta rule
    scan_step_s: Numeric = number("s")  # of one chunk of a scan whose next chunk waits for it, beside that
    spread: Mapping[str, Numeric] = spreads()

    def attention_on(self, generation: str) -> str:
        """The library of fused attention on GPUs of a generation."""
        return FASTEST if generation in self.fastest_attention_on else self.attention_library

    def fuses_attention(self, recipe: PrecisionRecipe) -> bool:
        """Whether scores stay inside one kernel: of fused attention, on numbers as wide as a recipe's."""
        return self.attention and (self.wide_attention == "fused" or not recipe.has_wide_attention)

    def fuses_softmax(self, recipe: PrecisionRecipe) -> bool:
        """Whether scale, mask and softmax of scores in memory are one kernel: Megatron-LM's takes 16-bit numbers alone."""
        return self.wide_attention == "fused_softmax" if recipe.has_wide_attention else self.softmax

    def has_attention(self, recipe: PrecisionRecipe) -> bool:
        """Whether anything that the software runs takes queries and keys as wide as a recipe's."""
        return self.wide_attention != "none" or not recipe.has_wide_attention


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Overlap(Spec):
    """Which messages hide behind which computation, how they are cut, and what they take from it.

    `tensor_parallel`: "none" leaves every tensor-parallel collective exposed; "backward" hides those of a column-parallel
    linear behind its own two backward products (Megatron's async communication); "pipelined" splits each product and its
    collective into one chunk a rank and runs them against each other (Transformer Engine userbuffers).
    `data_parallel`: whether gradient reduction hides behind the backward pass and parameter gathering behind the forward
    pass, bucket by bucket. `hide_all` makes every collective free, as a bound.
    """

    tensor_parallel: str = choice("none", "backward", "pipelined")
    independent: bool = flag(default=True)  # a collective hides behind a product that neither takes nor makes what it moves
    engines_copy: bool = flag(default=False)  # gathers beside the pieces of a product are made by copy engines: they take no SM
    sums_pieces: bool = flag(default=False)  # a kernel of its own adds the pieces that a cut product scattered
    scattered_pieces: int = count(minimum=0, default=0)  # that a product is cut into whose result is scattered; 0: one a rank
    context_parallel_exchange: str = choice("ring", "all_gather")  # keys and values pass from rank to rank, or are gathered
    balanced_context_parallel: bool = flag()  # each rank takes a piece from either end of the sequence, or one from its place
    pipeline: bool = flag()  # messages between interleaved stages run beside the passes
    pipeline_in_turn: bool = flag(default=False)  # a stage that waits for messages receives and sends them one after the other
    scatter_gather_pipeline: bool = flag()  # tensor-parallel ranks send a slice each, where all hold the same
    data_parallel: bool = flag()
    blocking_zero1: bool = flag(default=False)  # zero1 adds up gradients and gathers parameters in one call each; none hides
    hide_all: bool = flag(default=False)
    bucket_rule: str = choice("size", "layer")  # a layer's parameters are one bucket (FSDP), or the size below
    shared_root: bool = flag(
        default=False
    )  # embedding and head are moved as one, with what lies in no layer (the root of FSDP)
    bucket_parameters: Numeric = number("count", minimum=1)  # a bucket holds max(bucket_parameters,
    bucket_parameters_per_rank: Numeric = number("count")  #   bucket_parameters_per_rank * data_parallel)
    overfills_buckets: bool = flag()  # or more: a bucket holds all of the tensor that fills it, or ends before that
    joined_reduction_bytes: Numeric = number("bytes")  # all-reduces over the copies of shards are joined up to
    joined_reduction_bytes_per_copy: Numeric = number("bytes")  #   the lesser of both; 0: none are
    node_link_sm_fraction: Numeric = number("ratio", maximum=0.9)  # of the SMs, while a collective runs inside the node
    network_sm_fraction: Numeric = number("ratio", maximum=0.9)  # of the SMs, while a collective runs between nodes
    spread: Mapping[str, Numeric] = spreads()

    def blocks(self, sharding: str) -> bool:
        """Whether gradients are all-reduced as one after the last pass, and parameters gathered as one before the first."""
        return self.blocking_zero1 and sharding == "zero1"

    def hides_data_parallel(self, sharding: str) -> bool:
        """Whether passes hide what data parallelism moves."""
        return self.data_parallel and not self.blocks(sharding)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class ExpertWork(Spec):
    """How tokens travel to their experts and back, and what runs around the products of experts.

    dispatcher      alltoall: a copy of a token for each of its experts; deepep, hybridep: one for each rank of its own links'
                    domain, and one for each node beyond, where links pass it on; allgather: all tokens to all ranks
    overlap         passes: dispatch and combine run beside the passes of another micro-batch (1F1B); none
    products        streams: a kernel for each expert, on several streams; grouped: one for all; fused: one for all, which takes
                    the activation function and the casts between both products into itself
    """

    dispatcher: str = choice(*DISPATCHERS)
    dispatch_s: Numeric = number("s")  # of a dispatch or a combine, beside what links take
    dispatch_sm_fraction: Numeric = number("ratio", maximum=0.9)  # of the SMs, while tokens travel
    link_share: Numeric = number("ratio", above=0, maximum=2)  # rate of a dispatch over that of an all-to-all on the same links
    overlap: str = choice(*OVERLAPS_OF_EXPERTS)
    hidden_share: Numeric = number("ratio", maximum=1)  # of messages that another micro-batch has computation for
    products: str = choice("streams", "grouped", "fused")
    product_work: Numeric = number(
        "ratio", above=0, maximum=5
    )  # time of products of experts over that of the same tiles at once
    movement_work: Numeric = number(
        "ratio", above=0, maximum=10
    )  # time of kernels that order, weigh and activate copies of tokens over that of as many bytes in elementwise ones
    router_kernels: Numeric = count()  # of the router's scores, choice, losses and bookkeeping, forwards
    router_backward_kernels: Numeric = count()
    expert_wait_s: Numeric = number("s")  # that the GPU waits for the CPU, which waits for the numbers of tokens of each expert
    fused_biases: bool = flag()  # biases of experts, and functions with clamps, are part of kernels, not a chain of eager ones
    keeps_outputs: bool = flag()  # what experts give is kept until the backward pass, for the gradient of the router
    padded_rows: Numeric = count()  # rows of an expert are padded to a multiple of so many, where products have few bits
    spread: Mapping[str, Numeric] = spreads()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class LowPrecision(Spec):
    """What runs and travels in 4 or 8 bits where the layout's precision has any.

    `clock_scale` is what the settings of the software do to the clocks of tensor cores in these products.

    In `attention_recipes` queries, keys and values are cast to the format `attention`, where the GPU's kernels gain from it and
    layers have neither a window nor sinks; none keeps them in 16 bits in every recipe.
    """

    products: str = choice("mlp", "layer", "all")  # linears that take such operands: of the MLP, of the layer, the head too
    spared_layers: Numeric = number("ratio", maximum=1)  # share of the layers that keep 16 bits, in recipes that spare any
    scaling: str = choice("delayed", "current")  # by the largest number of earlier iterations, or of the tensor itself
    hadamard: bool = flag(default=True)  # columns are cast behind a Hadamard transform, in recipes that have one
    parameter_gather: bool = flag()  # parameters are held (and travel, by scales of tensors) as low-precision copies alone
    attention: str = choice(NO_LOW_ATTENTION, *LOW_ATTENTION)  # what queries, keys and values are cast to
    attention_recipes: tuple[str, ...] = choices(*LOW_RECIPES, default=())  # in which
    clock_scale: Numeric = number("ratio", above=0, maximum=2)  # times cluster.compute_scale, for these products
    spread: Mapping[str, Numeric] = spreads()

    @property
    def reads_of_a_cast(self) -> int:
        """How often a cast with one scale for the tensor reads it: a scale of the moment wants its largest number first."""
        return 2 if self.scaling == "current" else 1

    def reads_of_blocks(self, recipe: PrecisionRecipe) -> int:
        """How often the cast of an activation or a gradient reads it where blocks of numbers share a scale."""
        return recipe.cast_reads[0] + (recipe.transforms and self.hadamard)

    def narrow_layers(self, recipe: PrecisionRecipe) -> Numeric:
        """Share of the layers whose linears a recipe runs in low precision, where it casts any."""
        return 1.0 - self.spared_layers if recipe.spares_layers else 1.0

    def attention_format(self, recipe: PrecisionRecipe) -> str:
        """The format that queries, keys and values are cast to in the layers of a recipe; "" where they are not."""
        casts = self.attention != NO_LOW_ATTENTION and recipe.name in self.attention_recipes
        return self.attention if casts else ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class TrainingStates(Spec):
    """What a GPU holds of each parameter, where layers are dealt to stages, and what the software allocates beside it.

    `pipeline_split`: "layers" are dealt out, or "modules", embedding, last norm and head among them, or stages have even shares
    of the weights of "products" in layers and head.
    """

    gradient_bytes: Numeric = number("bytes", above=0)  # of one gradient, as it is held
    reduced_gradient_bytes: Numeric = number("bytes", above=0)  # of one gradient, as it travels
    scaled_gradient_bytes: Numeric = number("bytes", above=0)  # of one gradient, held and on the wire, where the loss is scaled
    accumulated_gradient_bytes: Numeric = number("bytes")  # of a copy beside it that micro-batches are added to; 0: none
    step_gradient_bytes: Numeric = number("bytes")  # of the copy that the optimizer's step makes of a gradient in 16 bits
    unfused_step_bytes: Numeric = number("bytes")  # of one parameter, that a step in several kernels moves beside one's
    bucket_copy_bytes: Numeric = number("bytes")  # of one parameter, moved to fill and empty buckets of what ranks exchange
    scatters_gradients: bool = flag()  # sharded optimizers get their share of the gradients, not all of them
    parameter_bytes: Numeric = number("bytes", above=0)
    casts_shards: bool = flag()  # a sharded parameter is its fp32 master; copies in 16 bits live only while they are gathered
    regathers_parameters: bool = flag()  # what a forward pass gathered is given up, and gathered again for the backward pass
    copies_gathered: bool = flag(
        default=False
    )  # out of the buffer that a gather for a pass fills, parameter by parameter (FSDP2)
    optimizer_bytes: Numeric = number("bytes", above=0)  # master weight and moments of one parameter
    overwrites_gradients: bool = flag(default=False)  # the first micro-batch writes where others add; nothing is set to zero
    pipeline_split: str = choice(*PIPELINE_SPLITS)
    bucket_buffers: Numeric = number("ratio")  # buckets of gradients, as they travel, that are allocated beside all of them
    keeps_stage_outputs: bool = flag()  # what a stage sends on stays until its backward pass, as what it received does
    workspace_bytes: Numeric = number("bytes")  # of libraries that take theirs from PyTorch's allocator
    framework_bytes: Numeric = number("bytes")  # CUDA context, kernels and what libraries allocate by themselves
    communication_buffer_bytes: Numeric = number("bytes")  # of each process group with more than one rank
    fragmentation: Numeric = number("ratio", maximum=1)  # allocator loss, as a share of the activations and the loss peak
    memory_error: Numeric = number("ratio", maximum=1)  # half width of the 90 % interval of all these bytes together
    spread: Mapping[str, Numeric] = spreads()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class SoftwareStack(Spec):
    """One software family in one version range, in sections; what is uncertain is drawn in their order."""

    moved_keys: ClassVar[Mapping[str, str]] = MOVED_KEYS

    name: str = text()
    family: str = text(default="unknown")  # of software whose runs tell how wrong predictions of it are
    defaults: StackDefaults = part(StackDefaults)
    offers: StackOffers = part(StackOffers)
    host: HostWork = part(HostWork)
    fusion: Fusion = part(Fusion)
    overlap: Overlap = part(Overlap)
    low_precision: LowPrecision = part(LowPrecision)
    experts: ExpertWork = part(ExpertWork)
    states: TrainingStates = part(TrainingStates)
    tuning: TuningWork | None = part(TuningWork, optional=True, default=None)  # of software that fine-tunes
