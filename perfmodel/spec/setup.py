"""What one iteration is counted and timed for: a model on a cluster under a stack, in one layout."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import fields
from typing import Any, Final

import numpy as np

from perfmodel.light_dataclass import dataclass
from perfmodel.spec.evidence.error_law import ErrorLaw
from perfmodel.spec.evidence.own_runs import NOTHING, AppliedShift, applied_shift
from perfmodel.spec.evidence.run_evidence import MIXTURES, Discrepancy
from perfmodel.spec.fields import Numeric
from perfmodel.spec.layout import Layout
from perfmodel.spec.machines.hardware import Cluster
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.stack import SoftwareStack
from perfmodel.spec.tuning.fine_tuning import FineTuning

WIDTHS: Final = ("hidden_size", "attention_heads", "kv_heads", "ffn_hidden_size", "vocab_size")
SUBJECT: Final = (*WIDTHS, "precision")  # of the settings of a configuration, those that its layouts share
NOT_OF_A_CONFIGURATION: Final = ("data_parallel", "data_parallel_replicas", "global_batch_size")  # its runs differ in these


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Setup:
    """The four specs that every count and every time depends on; numbers of each may be arrays that broadcast.

    `tuning` says what is trained, and how, where that is not all of the model as the stack trains it.
    """

    model: TransformerModel
    cluster: Cluster
    stack: SoftwareStack
    layout: Layout
    tuning: FineTuning | None = None

    @property
    def discrepancy(self) -> Discrepancy:
        """What predictions of such software on such GPUs lack, as measured runs tell."""
        family = self.stack.family if self.model.mixture is None else MIXTURES
        return self.cluster.evidence.discrepancy(family=family, generation=self.cluster.gpu.generation)

    @property
    def subject(self) -> Hashable:
        """What runs of one model share, in one precision, on one kind of GPU, in one software, however they are laid out."""
        widths = tuple(str(getattr(self.model, name)) for name in WIDTHS)
        return (*widths, self.layout.precision, self.cluster.gpu.name, self.stack.name)

    @property
    def configuration(self) -> Hashable:
        """What runs of one subject share that differ in replicas and batch alone, or in numbers of the cluster or the stack."""
        settings = (entry.name for entry in fields(Layout) if entry.name not in NOT_OF_A_CONFIGURATION)
        return (self.subject, str(self.model.layers), *(str(getattr(self.layout, name)) for name in settings))

    @property
    def settings(self) -> Mapping[str, Any]:
        """What tells configurations of one software on one kind of GPU apart: SUBJECT first, then the rest of the layout.

        What is the same layout has the same settings: `recompute_layers` counts those of a stage however they are given, and
        sequence parallelism of one rank is none.
        """
        model, layout = self.model, self.layout
        held = np.ceil(model.layers / layout.pipeline_parallel)
        again = held if layout.recompute_layers is None else np.minimum(layout.recompute_layers, held)
        of_subject = {name: getattr(model, name) for name in WIDTHS} | {"precision": layout.precision, "layers": model.layers}
        kept = (entry.name for entry in fields(Layout) if entry.name not in NOT_OF_A_CONFIGURATION)
        return {
            **of_subject,
            **{name: getattr(layout, name) for name in kept},
            "recompute_modules": " ".join(layout.recompute_modules) or "none",
            "recompute_layers": again if layout.recompute == "full" else 0,
            "sequence_parallel": layout.sequence_parallel * (np.asarray(layout.tensor_parallel) > 1),
        }

    @property
    def own_shift(self) -> AppliedShift:
        """What somebody's own runs say of predictions of this, where the cluster's evidence holds some."""
        shifts = self.cluster.evidence.own_shifts
        if not shifts:
            return NOTHING
        return applied_shift(shifts, software=self.stack.name, gpu=self.cluster.gpu.name, settings=self.settings)

    @property
    def error_law(self) -> ErrorLaw:
        """How errors of this are distributed in their intervals; those of arrays of layouts as if no own runs were known."""
        group = self.own_shift.group
        return self.discrepancy.law if group is None or group.degrees is None else ErrorLaw(degrees=group.degrees)

    def discrepancy_against(self, other: Setup) -> Numeric:
        """The half width that discrepancies leave to the logarithm of the ratio of two times; what both share cancels."""
        mine, theirs = self.discrepancy, other.discrepancy
        if mine.cell != theirs.cell:
            return np.hypot(mine.half_width, theirs.half_width)
        if self.configuration == other.configuration:
            return 0.0
        deviation = mine.layout_deviation if self.subject == other.subject else mine.configuration_deviation
        both: Numeric = mine.apart(deviation) * 2.0**0.5
        return both
