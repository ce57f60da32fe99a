"""The flags with which Megatron-LM runs a layout: degrees, batch, precision, and what overlaps, is sharded and run again."""

from __future__ import annotations

from math import ceil
from typing import Any, Final

from perfmodel.exchange.translation.megatron.graph_scopes import SHARED, graph_scope
from perfmodel.exchange.translation.megatron.model_flags import Flags
from perfmodel.exchange.translation.megatron.pipeline_layouts import layout_text, usual_pieces
from perfmodel.exchange.translation.megatron.software import ATTENTION, FUSED_LOSS, SCALINGS
from perfmodel.spec.axes import CONTEXT, PIPELINE, TENSOR
from perfmodel.spec.fields import whole
from perfmodel.spec.layout import EVEN, Layout
from perfmodel.spec.models.layer_parts import Mixture
from perfmodel.spec.run import RampStage, Run
from perfmodel.spec.stack import SoftwareStack

DEGREES: Final = {
    TENSOR.name: "--tensor-model-parallel-size",
    PIPELINE.name: "--pipeline-model-parallel-size",
    CONTEXT.name: "--context-parallel-size",
}
FSDP: Final = {"zero2": "optim_grads", "zero3": "optim_grads_params", "hsdp": "optim_grads_params"}
LOW_PRECISION: Final[dict[str, tuple[tuple[str, Any], ...]]] = {
    "mxfp8": (("--fp8-format", "e4m3"), ("--fp8-recipe", "mxfp8")),
    "nvfp4": (("--fp4-format", "e2m1"), ("--fp4-recipe", "nvfp4")),
}
SCALING_WORDS: Final = {scaling: word for word, scaling in SCALINGS.items()}
EXCHANGES: Final = {"ring": "p2p", "all_gather": "all_gather"}
MOMENTS: Final = {
    10: ("bf16", "fp32"),
    8: ("bf16", "bf16"),
    6: ("fp8", "fp8"),
}  # bytes of the optimizer -> first, second moment
ITERATIONS: Final = 50  # of a run that does not say for how many tokens it trains


def degree_flags(run: Run, layout: Layout) -> Flags:
    """How GPUs share the model."""
    for name, flag in DEGREES.items():
        yield flag, whole(getattr(layout, name))
    if layout.sequence_parallel and whole(layout.tensor_parallel) > 1:
        yield "--sequence-parallel", True
    if run.model.mixture is not None:
        yield "--expert-model-parallel-size", whole(layout.expert_parallel)
        yield "--expert-tensor-parallel-size", whole(layout.expert_tensor_parallel)
    if whole(layout.context_parallel) > 1:
        yield "--cp-comm-type", EXCHANGES[run.stack.overlap.context_parallel_exchange]
    yield from _pieces(run, layout)


def _pieces(run: Run, layout: Layout) -> Flags:
    """Which layers lie on which stage of a pipeline."""
    stages, chunks, layers = (whole(number) for number in (layout.pipeline_parallel, layout.virtual_pipeline, run.model.layers))
    pieces = usual_pieces(layers, stages, chunks)
    if layout.pipeline_layout != EVEN:
        yield "--pipeline-model-parallel-layout", layout.pipeline_layout
    elif pieces and len(set(pieces)) > 1:
        yield "--pipeline-model-parallel-layout", layout_text(pieces, further=whole(run.model.multi_token_layers))
    elif chunks > 1 and pieces:
        yield "--num-layers-per-virtual-pipeline-stage", pieces[0]
    if chunks > 1 and not run.stack.overlap.pipeline:
        yield "--no-overlap-p2p-communication", True


def batch_flags(run: Run, stages: tuple[RampStage, ...]) -> Flags:
    """The batch, or the batches of a ramp, and for how long."""
    length, last = whole(run.sequence_length), stages[-1]
    yield "--seq-length", length
    if run.model.position == "learned":
        yield "--max-position-embeddings", whole(run.model.max_positions or length)
    else:
        yield "--max-position-embeddings", length
    yield "--micro-batch-size", whole(run.micro_batch_size)
    yield "--global-batch-size", whole(last.global_batch_size)
    samples, schedule = 0, []
    for stage in stages:
        schedule.append(f"{samples}:{whole(stage.global_batch_size)}")
        samples += ceil(round(float(stage.tokens or 0) / length, 6))
    if len(stages) > 1:
        yield "--step-batch-size-schedule", " ".join(schedule)
    yield ("--train-samples", samples) if last.tokens is not None else ("--train-iters", ITERATIONS)


def precision_flags(run: Run, layout: Layout) -> Flags:
    """The flags that say in which number formats a run trains."""
    low = run.stack.low_precision
    if layout.precision == "fp8":
        yield from (("--bf16", True), ("--fp8-format", "hybrid"), ("--fp8-recipe", SCALING_WORDS[low.scaling]))
    elif layout.precision in LOW_PRECISION:
        yield from (("--bf16", True), *LOW_PRECISION[layout.precision])
    elif layout.precision in ("bf16", "fp16"):
        yield f"--{layout.precision}", True
    if layout.recipe.casts and low.parameter_gather:
        yield "--fp8-param-gather", True


def state_flags(run: Run, layout: Layout) -> Flags:
    """What ranks share of states, how wide these are, and what hides behind passes."""
    stack = run.stack
    if layout.sharding in FSDP:
        yield from (("--use-megatron-fsdp", True), ("--data-parallel-sharding-strategy", FSDP[layout.sharding]))
    if layout.sharding != "none":
        yield "--use-distributed-optimizer", True
    if layout.sharding == "hsdp":
        yield "--num-distributed-optimizer-instances", whole(layout.data_parallel_replicas)
    if stack.overlap.data_parallel:
        yield "--overlap-grad-reduce", True
    if stack.overlap.data_parallel and layout.sharding != "none":
        yield "--overlap-param-gather", True
    if float(stack.overlap.bucket_parameters_per_rank) == 0 and layout.sharding not in FSDP:
        yield "--ddp-bucket-size", whole(stack.overlap.bucket_parameters)
    if layout.precision not in ("fp16", "fp32") and float(stack.states.gradient_bytes) == 2:
        yield "--grad-reduce-in-bf16", True
    if (moments := MOMENTS.get(int(float(stack.states.optimizer_bytes)))) is not None:
        yield from (
            ("--use-precision-aware-optimizer", True),
            ("--exp-avg-dtype", moments[0]),
            ("--exp-avg-sq-dtype", moments[1]),
        )


def recompute_flags(layout: Layout) -> Flags:
    """What runs again in the backward pass."""
    if layout.recompute == "none":
        return
    yield "--recompute-granularity", layout.recompute
    if layout.recompute == "selective" and layout.recompute_modules:
        yield "--recompute-modules", " ".join(layout.recompute_modules)
    elif layout.recompute == "full" and layout.recompute_layers is None:
        yield from (("--recompute-method", "uniform"), ("--recompute-num-layers", 1))
    elif layout.recompute == "full":
        each = whole(layout.recompute_layers or 0) // whole(layout.virtual_pipeline)
        yield from (("--recompute-method", "block"), ("--recompute-num-layers", each))


def kernel_flags(run: Run, layout: Layout) -> Flags:
    """What is fused, captured and overlapped."""
    stack, fusion, activation = run.stack, run.stack.fusion, run.model.activation
    if stack.overlap.tensor_parallel == "pipelined" and whole(layout.tensor_parallel) > 1:
        yield "--tp-comm-overlap", True
    if not fusion.attention:
        yield "--attention-backend", "unfused"
    elif fusion.attention_library == ATTENTION["flash"]["stack.fusion.attention_library"]:
        yield "--attention-backend", "flash"
    if float(fusion.loss_peak_bytes) == FUSED_LOSS["stack.fusion.loss_peak_bytes"]:
        yield "--cross-entropy-loss-fusion", True
    if not fusion.activation and activation in ("swiglu", "gelu"):
        yield f"--no-bias-{activation}-fusion", True
    for is_on, flag in (
        (fusion.softmax, "--no-masked-softmax-fusion"),
        (fusion.rotary, "--no-rope-fusion"),
        (fusion.gradient_accumulation, "--no-gradient-accumulation-fusion"),
        (not fusion.fp32_stream, "--fp32-residual-connection"),
    ):
        if not is_on:
            yield flag, True
    yield from _graphs(stack)
    if run.model.mixture is not None:
        yield from _dispatch(stack)
        yield from _shared_experts(run.model.mixture, stack)


def _graphs(stack: SoftwareStack) -> Flags:
    if stack.host.cuda_graphs:
        yield "--cuda-graph-impl", "full_iteration"
    elif scope := graph_scope(stack.host.graphed):
        yield from (("--cuda-graph-impl", "transformer_engine"), ("--cuda-graph-scope", " ".join(scope)))


def _dispatch(stack: SoftwareStack) -> Flags:
    name = stack.experts.dispatcher
    if name in ("deepep", "hybridep"):
        yield from (("--moe-token-dispatcher-type", "flex"), ("--moe-flex-dispatcher-backend", name))
    else:
        yield "--moe-token-dispatcher-type", name
    if stack.experts.overlap == "passes":
        yield "--overlap-moe-expert-parallel-comm", True


def _shared_experts(mixture: Mixture, stack: SoftwareStack) -> Flags:
    """Graphs of a router hold them unless they run beside the dispatch, an all-to-all that has nothing else beside it."""
    graphed, experts = stack.host.graphed, stack.experts
    apart = whole(mixture.shared_ffn_hidden_size) > 0 and "router" in graphed and SHARED not in graphed
    if apart and experts.dispatcher == "alltoall" and experts.overlap == "none":
        yield "--moe-shared-expert-overlap", True
