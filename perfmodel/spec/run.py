"""A run: one model on one cluster under one stack, in the stages of its batch-size ramp."""

from __future__ import annotations

from dataclasses import fields
from typing import Final

from perfmodel.errors import InputError, PerfmodelError
from perfmodel.light_dataclass import dataclass, replace
from perfmodel.spec.economics import Economics
from perfmodel.spec.fields import Numeric, Spec, choice, choices, count, flag, number, part, text
from perfmodel.spec.layout import EVEN, PIPELINE_SCHEDULES, RECOMPUTE_MODULES, RECOMPUTES, SHARDING_NAMES, SHARDINGS, Layout
from perfmodel.spec.machines.hardware import Cluster
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.precision import PRECISIONS
from perfmodel.spec.refusals import check_setup
from perfmodel.spec.setup import Setup
from perfmodel.spec.stack import SoftwareStack
from perfmodel.spec.tuning.fine_tuning import (
    AS_THE_STACK,
    OFFLOADS,
    PARTS,
    PRETRAINING,
    TARGET_NAMES,
    TARGETS,
    TRAININGS,
    USUAL,
    USUAL_OPTIMIZER,
    USUAL_RANK,
    USUAL_WEIGHTS,
    WEIGHTS,
    FineTuning,
)
from perfmodel.spec.tuning.optimizers import OPTIMIZERS


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class PublishedFigures(Spec):
    """What a source prints of one ramp stage; None for what it does not print."""

    iteration_time_s: float | None = number("s", above=0, optional=True, default=None)
    mfu: float | None = number("ratio", above=0, maximum=1, optional=True, default=None)
    days: float | None = number("count", above=0, optional=True, default=None)

    def __bool__(self) -> bool:
        return any(figure is not None for figure in (self.iteration_time_s, self.mfu, self.days))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class RampStage(Spec):
    """One stage of the batch-size ramp; `tokens` are those it trains on, `published` the figures its source prints."""

    data_parallel: Numeric = count()
    global_batch_size: Numeric = count()
    tokens: Numeric | None = number("count", above=0, optional=True, default=None)
    published: PublishedFigures = part(PublishedFigures, default=PublishedFigures())


SETTINGS: Final = tuple(entry.name for entry in fields(Layout))
TUNING: Final = tuple(entry.name for entry in fields(FineTuning))  # keys of a run that is fine-tuning
OF_A_STAGE: Final = tuple(entry.name for entry in fields(RampStage) if entry.name in SETTINGS)  # what ramp stages may differ in


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
    expert_parallel: Numeric = count(default=1)
    expert_tensor_parallel: Numeric = count(default=1)
    expert_load: Numeric = number("ratio", minimum=1, maximum=100, default=1.0)
    pipeline_layout: str = text(default=EVEN)
    sequence_parallel: bool = flag()
    sharding: str = choice(*SHARDINGS, other_names=SHARDING_NAMES)
    recompute: str = choice(*RECOMPUTES, default="none")
    recompute_modules: tuple[str, ...] = choices(*RECOMPUTE_MODULES, default=())
    recompute_layers: Numeric | None = number("count", integer=True, optional=True, default=None)
    micro_batch_size: Numeric = count(default=1)
    sequence_length: Numeric = count()
    training: str = choice(PRETRAINING, *TRAININGS, default=PRETRAINING)
    weights: str = choice(USUAL, AS_THE_STACK, *WEIGHTS, default=USUAL)
    adapter_rank: Numeric = count(default=USUAL_RANK)
    adapter_targets: tuple[str, ...] = choices(*TARGETS, default=(), other_names=TARGET_NAMES)
    trained_parts: tuple[str, ...] = choices(*PARTS, default=())
    frozen_parts: tuple[str, ...] = choices(*PARTS, default=())
    optimizer: str = choice(*OPTIMIZERS, default=USUAL_OPTIMIZER)
    offload: tuple[str, ...] = choices(*OFFLOADS, default=())
    stages: tuple[RampStage, ...] = part(RampStage, shape="sequence")
    economics: Economics | None = part(Economics, preset="economics", optional=True, default=None)

    def __post_init__(self) -> None:
        Spec.__post_init__(self)
        for index, stage in enumerate(self.stages):
            try:
                check_setup(self.setup(stage))
            except PerfmodelError as error:
                in_stage = error.key in OF_A_STAGE
                raise (error.under(f"stages[{index}]") if in_stage else error) from None

    def __repr__(self) -> str:
        stages = f"{len(self.stages)} stage{'' if len(self.stages) == 1 else 's'}"
        return f"<{type(self).__name__}: {self.name}; {self.model.name} on {self.cluster.name}, {self.stack.name}, {stages}>"

    @property
    def without_own_runs(self) -> Run:
        """The same run where nobody's own runs say more than the equations and published runs do."""
        evidence = replace(self.cluster.evidence, own_shifts=(), own_runs=())
        return replace(self, cluster=replace(self.cluster, evidence=evidence))

    def setup(self, stage: RampStage) -> Setup:
        """What one ramp stage is counted and timed for."""
        return Setup(
            model=self.model, cluster=self.cluster, stack=self.stack, layout=self.layout(stage), tuning=self.fine_tuning
        )

    def _held_weights(self) -> str:
        """What weights are held in: as the run says, as usual for the training, or what the stack names first."""
        if self.weights != USUAL:
            return self.weights
        usual, work = USUAL_WEIGHTS[self.training], self.stack.tuning
        return work.weights[0] if usual == AS_THE_STACK and work and usual not in work.weights else usual

    @property
    def fine_tuning(self) -> FineTuning | None:
        """What is trained, and how; None where all of the model is, as the stack trains it.

        Errors: InputError for a key of fine-tuning in a run that is none.
        """
        if self.training != PRETRAINING:
            return FineTuning(**{name: getattr(self, name) for name in TUNING} | {"weights": self._held_weights()})
        for name in TUNING:
            if getattr(self, name) != Run.__dataclass_fields__[name].default:
                raise InputError(f"it goes with training {', '.join(TRAININGS)}; this run has {PRETRAINING}", key=name)
        return None

    def layout(self, stage: RampStage) -> Layout:
        """The layout of one stage."""
        return Layout(**{name: getattr(stage if name in OF_A_STAGE else self, name) for name in SETTINGS})
