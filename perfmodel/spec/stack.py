"""What the training software does with a layout: what it fuses, overlaps, shards and allocates, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from perfmodel.spec.coefficients import ATTENTION_LIBRARIES, NORM_KERNELS
from perfmodel.spec.fields import Numeric, Spec, choice, choices, flag, number, spreads, text
from perfmodel.spec.layout import PIPELINE_SCHEDULES, SHARDINGS


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class SoftwareStack(Spec):
    """One software family in one version range.

    `tensor_parallel_overlap`: "none" leaves every tensor-parallel collective exposed; "backward" hides those of a column-
    parallel linear behind its own two backward products (Megatron's async communication); "pipelined" splits each
    product and its collective into one chunk a rank and runs them against each other (Transformer Engine userbuffers).
    `data_parallel_overlap`: whether gradient reduction hides behind the backward pass and parameter gathering behind
    the forward pass, bucket by bucket. `clock_scale` is what its settings do to the clocks of tensor cores. `hide_all`
    makes every collective free, as a bound.
    """

    name: str = text()
    sequence_parallel: bool = flag()  # what it does unless the run says otherwise
    sharding: str = choice(*SHARDINGS)  # the same
    offered_shardings: tuple[str, ...] = choices(*SHARDINGS)  # that a plan may choose from
    offered_schedules: tuple[str, ...] = choices(*PIPELINE_SCHEDULES)  # the same
    clock_scale: Numeric = number("ratio", above=0, maximum=2)  # times cluster.compute_scale, for 16-bit kernels
    fp8_clock_scale: Numeric = number("ratio", above=0, maximum=2)  # the same for 8-bit products
    unlisted_work: Numeric = number("ratio", above=0)  # time of a pass over that of its operators: 1 where they are all it runs
    selective_recompute: str = choice("attention", "every_second_product")  # what its selective mode runs again
    fused_attention: bool = flag()
    attention_library: str = choice(*ATTENTION_LIBRARIES)  # whose fused kernels
    fused_softmax: bool = flag()  # scale, mask and softmax of unfused attention in one kernel
    norm_kernels: str = choice(*NORM_KERNELS)  # one kernel written for norms, what a compiler makes of them, or PyTorch's own
    separate_projections: bool = flag()  # queries, keys and values, gate and input of the MLP: a product each, reduced each
    fused_rotary: bool = flag()  # one kernel for queries and keys each, against the chain of eager operators
    fused_activation: bool = flag()  # GELU and the gated ones
    fused_squared_relu: bool = flag()
    fused_gradient_accumulation: bool = flag()  # the product adds to the gradient, or a kernel of its own does
    overwrites_gradients: bool = flag(default=False)  # the first micro-batch writes where others add; nothing is set to zero
    gathered_logits: bool = flag()  # every tensor-parallel rank takes the loss over the whole vocabulary
    loss_forward_bytes: Numeric = number("bytes")  # memory traffic per logit of the cross-entropy
    loss_backward_bytes: Numeric = number("bytes")
    loss_peak_bytes: Numeric = number("bytes")  # held per logit at the peak
    host_s: Numeric = number("s")  # what the CPU needs to launch one kernel
    iteration_host_s: Numeric = number("s")  # data loading, logging, timers and synchronisation of an iteration
    tensor_parallel_overlap: str = choice("none", "backward", "pipelined")
    context_parallel_exchange: str = choice("ring", "all_gather")  # keys and values pass from rank to rank, or are gathered
    balanced_context_parallel: bool = flag()  # each rank takes a piece from either end of the sequence, or one from its place
    pipeline_split: str = choice("layers", "modules")  # layers are dealt out, or embedding, last norm and head among them
    pipeline_overlap: bool = flag()  # messages between interleaved stages run beside the passes
    scatter_gather_pipeline: bool = flag()  # tensor-parallel ranks send a slice each, where all hold the same
    data_parallel_overlap: bool = flag()
    hide_all: bool = flag(default=False)
    fp8_products: str = choice(
        "mlp", "layer", "all"
    )  # which linears take 8-bit operands: of the MLP, of the layer, the head too
    fp8_scaling: str = choice("delayed", "current")  # by the largest number of earlier iterations, or of the tensor itself
    fp8_parameter_gather: bool = flag()  # parameters travel as 8-bit copies where products take them
    bucket_rule: str = choice("size", "layer")  # a layer's parameters are one bucket (FSDP), or the size below
    bucket_parameters: Numeric = number("count", minimum=1)  # a bucket holds max(bucket_parameters,
    bucket_parameters_per_rank: Numeric = number("count")  #   bucket_parameters_per_rank * data_parallel)
    gradient_bytes: Numeric = number("bytes", above=0)  # of one gradient, as it is held
    reduced_gradient_bytes: Numeric = number("bytes", above=0)  # the same on the wire
    scatters_gradients: bool = flag()  # sharded optimizers get their share of the gradients, not all of them
    parameter_bytes: Numeric = number("bytes", above=0)
    optimizer_bytes: Numeric = number("bytes", above=0)  # master weight and moments of one parameter
    node_link_sm_fraction: Numeric = number("ratio", maximum=0.9)  # of the SMs, while a collective runs inside the node
    network_sm_fraction: Numeric = number("ratio", maximum=0.9)  # the same between nodes
    framework_bytes: Numeric = number("bytes")  # CUDA context and library workspaces
    communication_buffer_bytes: Numeric = number("bytes")  # of each process group with more than one rank
    fragmentation: Numeric = number("ratio", maximum=1)  # allocator loss, as a share of the activations and the loss peak
    spread: Mapping[str, Numeric] = spreads()
