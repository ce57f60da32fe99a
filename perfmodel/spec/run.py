"""A run: one model on one cluster under one stack, in the stages of its batch-size ramp."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from perfmodel.errors import PerfmodelError
from perfmodel.spec.economics import Economics
from perfmodel.spec.fields import Numeric, Spec, choice, count, flag, number, part, text
from perfmodel.spec.hardware import PRECISIONS, Cluster
from perfmodel.spec.layout import PIPELINE_SCHEDULES, RECOMPUTES, SHARDING_NAMES, SHARDINGS, Layout
from perfmodel.spec.model import TransformerModel
from perfmodel.spec.refusals import check_layout, check_stack
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
    pipeline_schedule: str = choice(*PIPELINE_SCHEDULES, default="1f1b")
    context_parallel: Numeric = count(default=1)
    data_parallel_replicas: Numeric = count(default=1)
    sequence_parallel: bool = flag()
    sharding: str = choice(*SHARDINGS, other_names=SHARDING_NAMES)
    recompute: str = choice(*RECOMPUTES, default="none")
    recompute_layers: Numeric | None = number("count", integer=True, optional=True, default=None)
    micro_batch_size: Numeric = count(default=1)
    sequence_length: Numeric = count()
    stages: tuple[Stage, ...] = part(Stage, shape="sequence")
    economics: Economics | None = part(Economics, preset="economics", optional=True, default=None)

    def __post_init__(self) -> None:
        Spec.__post_init__(self)
        for index, stage in enumerate(self.stages):
            try:
                check_layout(self.model, self.cluster, self.layout(stage))
                check_stack(self.stack, self.layout(stage))
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
            pipeline_schedule=self.pipeline_schedule,
            context_parallel=self.context_parallel,
            data_parallel=stage.data_parallel,
            data_parallel_replicas=self.data_parallel_replicas,
            sequence_parallel=self.sequence_parallel,
            sharding=self.sharding,
            recompute=self.recompute,
            recompute_layers=self.recompute_layers,
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
