"""What measured runs say of the errors of predictions, beyond what uncertain coefficients and machines explain.

ln T_measured = ln T_predicted + a(source) + b(configuration) + e(row): what the equations lack is the same in all runs of one
source, or of one configuration in it, and the rest is noise of single rows. Layouts of one model in one precision differ less
than any two configurations do. Runs are alike by cells: a family of software on a generation of GPUs.

How errors are distributed in their intervals is one law for all cells (error_law.py). Deviations are half widths of 90 %
intervals over 1.645, as if the errors were normal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from perfmodel.light_dataclass import dataclass
from perfmodel.spec.evidence.error_law import NORMAL, ErrorLaw
from perfmodel.spec.evidence.own_runs import OwnRun, OwnShift
from perfmodel.spec.evidence.spread import DEVIATIONS
from perfmodel.spec.fields import Numeric, Spec, grid, number, part, text

NO_VERSION: Final = "none"  # of evidence without own runs
LEAST: Final = 1e-12  # of a deviation that something is divided by
POOLED: Final = "any"  # the cell of runs whose own cell no source is scored in
MIXTURES: Final = "experts"  # the family of runs of mixtures of experts, in any software


def pooled_cell(cell: str) -> str:
    """The cell of all that are of the kind that a name starts with.

    >>> pooled_cell("passes/dense/server")
    'passes/any/any'
    """
    return f"{cell.partition('/')[0]}/{POOLED}/{POOLED}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """How widely runs of one's own share their errors.

    Of what is neither b nor e, the share `file` is the same in all of them and the rest in those of one software; b is at most
    the share `models` of what is not e.
    """

    file: float = 0.0
    models: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Discrepancy:
    """The third part of an interval: what predictions of one cell lack, in logarithms of the iteration time."""

    cell: str = ""
    pool: str = POOLED  # the cell that stands for it where it is not known
    half_width: Numeric = 0.0  # of the 90 % interval of a + b + e together
    configuration_deviation: Numeric = 0.0  # deviation of b
    layout_deviation: Numeric = 0.0  # of b among the layouts of one model in one precision
    row_deviation: Numeric = 0.0  # deviation of e
    rows: Numeric = 0  # that it is estimated on
    sources: Numeric = 0  # of those rows
    pooled: bool = False  # over all cells, because no source is scored in this one
    law: ErrorLaw = NORMAL  # how errors are distributed in intervals
    sharing: Sharing = Sharing()

    def apart(self, deviation: Numeric) -> Numeric:
        """The half width that one of the deviations leaves to the logarithm of a time; at most all of it.

        Where b and e together are more than all of it, as the scatter of few sources may be, each has its share of it.
        """
        together = DEVIATIONS * np.hypot(self.configuration_deviation, self.row_deviation)
        share = np.minimum(self.half_width / np.maximum(together, LEAST), 1.0)
        return np.minimum(DEVIATIONS * deviation * share, self.half_width)


FIGURES: Final = (  # of a cell, in this order
    *("half_width", "configuration_deviation", "layout_deviation", "row_deviation"),
    *("rows", "sources"),
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class RunEvidence(Spec):
    """Discrepancies by cell, family/generation: FIGURES of each; `any` is that of every cell that is not listed.

    Mixtures of experts are a family of their own, whatever the software, with an `experts/any` of their own.

    `degrees` are those of Student's t in whose law errors lie; without them errors are normal. `file_share` and `models_share`
    say how widely errors are shared (Sharing).

    `own_shifts` are what somebody's own runs say beyond them, of wide groups before narrow ones, and `own_runs` those runs, as
    the predictions of perfmodel `version` had them.
    """

    name: str = text()
    cells: Mapping[str, tuple[float, ...]] = grid(*FIGURES)
    degrees: float | None = number("count", above=0.5, optional=True, default=None)
    file_share: float = number("ratio", maximum=1, default=0.0)
    models_share: float = number("ratio", maximum=1, default=1.0)
    version: str = text(default=NO_VERSION)
    own_shifts: tuple[OwnShift, ...] = part(OwnShift, shape="sequence", optional=True, default=())
    own_runs: tuple[OwnRun, ...] = part(OwnRun, shape="sequence", optional=True, default=())

    def discrepancy(self, *, family: str, generation: str) -> Discrepancy:
        """The discrepancy of a stack's family on a generation of GPUs; the pooled one where their cell is not known.

        >>> cells = {"any": (0.2, 0.1, 0.05, 0.1, 9, 3), "fsdp/hopper": (0.1, 0.05, 0.03, 0.05, 4, 1)}
        >>> runs = RunEvidence(name="runs", cells=cells)
        >>> [runs.discrepancy(family=each, generation="hopper").half_width for each in ("fsdp", "paxml")]
        [0.1, 0.2]
        """
        cell, pool = f"{family}/{generation}", f"{MIXTURES}/{POOLED}" if family == MIXTURES else POOLED
        known = cell in self.cells
        figures = self.cells.get(cell if known else pool, self.cells.get(POOLED, ()))
        return Discrepancy(
            cell=cell,
            pool=pool,
            pooled=not known,
            law=NORMAL if self.degrees is None else ErrorLaw(degrees=self.degrees),
            sharing=Sharing(file=self.file_share, models=self.models_share),
            **dict(zip(FIGURES, figures, strict=False)),
        )


NO_EVIDENCE: Final = RunEvidence(name="none")
