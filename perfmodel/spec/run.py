"""A run: one model on one cluster under one stack, in the stages of its batch-size ramp; and which layouts can exist."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from perfmodel.errors import InputError, NotSupportedError, PerfmodelError
from perfmodel.spec.fields import Numeric, Spec, choice, count, flag, number, part, plain, text
from perfmodel.spec.hardware import PRECISIONS, Cluster
from perfmodel.spec.layout import RECOMPUTES, SHARDINGS, Layout
from perfmodel.spec.model import TransformerModel, divisors
from perfmodel.spec.stack import SoftwareStack


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class PublishedFigures(Spec):
    """What a source prints of one stage; None for what it does not."""

    iteration_time_s: float | None = number("s", above=0, optional=True, default=None)
    mfu: float | None = number("ratio", above=0, maximum=1, optional=True, default=None)
    days: float | None = number("count", above=0, optional=True, default=None)

    def __bool__(self) -> bool:
        return any(figure is not None for figure in (self.iteration_time_s, self.mfu, self.days))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Stage(Spec):
    """One stage of the ramp; `tokens` are those it trains on, `published` the figures its source prints."""

    data_parallel: Numeric = count()
    global_batch_size: Numeric = count()
    tokens: Numeric | None = number("count", above=0, optional=True, default=None)
    published: PublishedFigures = part(PublishedFigures, default=PublishedFigures())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Run(Spec):
    """What is trained, on what, how, and for how long. Errors: InputError or NotSupportedError for an impossible layout."""

    name: str = text()
    model: TransformerModel = part(TransformerModel, preset="models")
    cluster: Cluster = part(Cluster, preset="clusters")
    stack: SoftwareStack = part(SoftwareStack, preset="stacks")
    precision: str = choice(*PRECISIONS, default="bf16")
    tensor_parallel: Numeric = count(default=1)
    pipeline_parallel: Numeric = count(default=1)
    virtual_pipeline: Numeric = count(default=1)
    context_parallel: Numeric = count(default=1)
    sequence_parallel: bool = flag()
    sharding: str = choice(*SHARDINGS)
    recompute: str = choice(*RECOMPUTES, default="none")
    micro_batch_size: Numeric = count(default=1)
    sequence_length: Numeric = count()
    stages: tuple[Stage, ...] = part(Stage, shape="sequence")

    def __post_init__(self) -> None:
        Spec.__post_init__(self)
        for index, stage in enumerate(self.stages):
            try:
                check_layout(self.model, self.cluster, self.layout(stage))
            except PerfmodelError as error:
                in_stage = error.key in ("data_parallel", "global_batch_size")
                raise (error.under(f"stages[{index}]") if in_stage else error) from None

    def layout(self, stage: Stage) -> Layout:
        """The layout of one stage."""
        return Layout(
            precision=self.precision,
            tensor_parallel=self.tensor_parallel,
            pipeline_parallel=self.pipeline_parallel,
            virtual_pipeline=self.virtual_pipeline,
            context_parallel=self.context_parallel,
            data_parallel=stage.data_parallel,
            sequence_parallel=self.sequence_parallel,
            sharding=self.sharding,
            recompute=self.recompute,
            micro_batch_size=self.micro_batch_size,
            global_batch_size=stage.global_batch_size,
            sequence_length=self.sequence_length,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredRun:
    """An iteration that somebody measured and published; `run` is None when the equations do not cover it, for the `reason`.

    `labels` sort it into groups (gpu, stack, precision); `peak_flop_per_s` is None for a GPU or precision that is unknown.
    """

    run_id: str
    source: str
    labels: Mapping[str, str]
    model: TransformerModel
    sequence_length: int
    global_batch_size: int | None
    gpus: int
    peak_flop_per_s: float | None
    iteration_time_s: float
    printed_mfu: float | None
    mfu_convention: str  # products | parameters | multi_head (evidence/validate.py)
    run: Run | None
    reason: str
    assumptions: tuple[str, ...]
    warning: str = ""  # what a user should hear before trusting the prediction


def check_layout(model: TransformerModel, cluster: Cluster, layout: Layout) -> None:
    """Raise for a layout that cannot exist (InputError), or that the equations do not cover (NotSupportedError)."""
    _check_supported(layout)
    cluster.gpu.peak(layout.precision)
    cluster.gpu.matmul(layout.precision)
    tensor = layout.tensor_parallel
    for size, what in (
        (model.attention_heads, "attention heads"),
        (model.ffn_hidden_size, "columns of the MLP (ffn_hidden_size)"),
        (model.hidden_size, "columns (hidden_size)"),
    ):
        _check_divides(tensor, size, what, key="tensor_parallel")
    if not np.all((np.remainder(model.kv_heads, tensor) == 0) | (np.remainder(tensor, model.kv_heads) == 0)):
        raise InputError(
            f"{plain(tensor)} neither divides {plain(model.kv_heads)} KV heads nor is a multiple of them", key="tensor_parallel"
        )
    if layout.sequence_parallel:
        _check_divides(tensor, layout.sequence_length, "tokens of a sequence (sequence_length)", key="tensor_parallel")
    if model.position == "learned" and not np.all(layout.sequence_length <= (model.max_positions or 0)):
        raise InputError(
            f"{layout.sequence_length} exceeds the {model.max_positions} learned positions of {model.name}",
            key="sequence_length",
        )
    _check_batch(layout)
    _check_nodes(cluster, layout)


def _check_supported(layout: Layout) -> None:
    for key in ("pipeline_parallel", "virtual_pipeline", "context_parallel"):
        if not np.all(getattr(layout, key) == 1):
            raise NotSupportedError("more than 1 is not covered yet", key=key, value=getattr(layout, key))
    if layout.sharding not in ("none", "zero1"):
        raise NotSupportedError(f"{layout.sharding} is not covered yet; none and zero1 are", key="sharding")


def _check_divides(degree: Numeric, size: Numeric, what: str, *, key: str) -> None:
    if not np.all(np.remainder(size, degree) == 0):
        would = f"; {', '.join(map(str, divisors(float(size))[:24]))} would" if np.ndim(size) == 0 else ""
        raise InputError(f"{plain(degree)} does not divide {plain(size)} {what}{would}", key=key)


def _check_batch(layout: Layout) -> None:
    data = layout.data_parallel
    if not np.all(np.remainder(layout.global_batch_size, data) == 0):
        near = (
            f"; {_nearest_multiples(layout.global_batch_size, data)} would"
            if np.ndim(layout.global_batch_size + data) == 0
            else ""
        )
        raise InputError(
            f"{plain(layout.global_batch_size)} sequences do not divide over {plain(data)} data-parallel replicas{near}",
            key="global_batch_size",
        )
    per_replica = layout.global_batch_size / data
    if not np.all(np.remainder(per_replica, layout.micro_batch_size) == 0):
        would = f"; {', '.join(map(str, divisors(float(per_replica))))} would" if np.ndim(per_replica) == 0 else ""
        raise InputError(
            f"{plain(layout.micro_batch_size)} does not divide the {plain(per_replica)} sequences of a replica{would}",
            key="micro_batch_size",
        )


def _nearest_multiples(size: Numeric, divisor: Numeric) -> str:
    low = int(size // divisor) * int(divisor)
    return " or ".join(str(multiple) for multiple in (low, low + int(divisor)) if multiple > 0)


def _check_nodes(cluster: Cluster, layout: Layout) -> None:
    tensor, node = layout.tensor_parallel, cluster.gpus_per_node
    fits = (np.remainder(node, tensor) == 0) | (np.remainder(tensor, node) == 0)
    if not np.all(fits | (layout.gpus < node)):
        raise InputError(f"{plain(tensor)} neither divides a node of {node} GPUs nor fills whole nodes", key="tensor_parallel")
