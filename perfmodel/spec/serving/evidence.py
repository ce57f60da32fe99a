"""How far measured servers were off beyond what uncertain numbers explain: the third part of an interval of serving."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from perfmodel.light_dataclass import dataclass
from perfmodel.spec.evidence.run_evidence import MIXTURES, POOLED, Discrepancy
from perfmodel.spec.fields import Spec, grid, text
from perfmodel.spec.serving.loads import TTFT

DENSE: Final = "dense"
FIGURES: Final = ("half_width", "rows", "sources")


def model_class(*, has_experts: bool) -> str:
    """Whose errors are alike: dense models and mixtures of experts."""
    return MIXTURES if has_experts else DENSE


def cell_name(metric: str, models: str, load: str = POOLED) -> str:
    """The cell of a metric of such models under one kind of load; `any` stands for all loads.

    >>> cell_name("tpot_s", "dense"), cell_name("e2e_s", "experts", "closed")
    ('tpot_s/dense/any', 'e2e_s/experts/closed')
    """
    return f"{metric}/{models}/{load}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class ServingEvidence(Spec):
    """Half widths of 90 % intervals of ln(measured / predicted) by cell, with the rows and sources behind them."""

    name: str = text()
    cells: Mapping[str, tuple[float, ...]] = grid(*FIGURES)

    def discrepancy(self, metric: str, models: str, load: str) -> Discrepancy:
        """That of a cell; where it is not known, of the nearest one that is; else none.

        First tokens wait in queues, which hang on the load: they are like those of all models under it, then like those of such
        models. All else is times of passes, which hang on the model: they are like those of such models under any load, then
        like all times of their passes.
        """
        cell, of_models = cell_name(metric, models, load), cell_name(metric, models)
        if metric == TTFT:
            wider = (cell, cell_name(metric, POOLED, load), of_models, cell_name(metric, POOLED))
        else:
            wider = (cell, of_models, cell_name(POOLED, models), cell_name(metric, POOLED))
        found = next((name for name in wider if name in self.cells), of_models)
        half_width, rows, sources = self.cells.get(found, (0.0, 0.0, 0.0))
        return Discrepancy(
            cell=cell, pool=found, pooled=cell not in self.cells, half_width=half_width, rows=rows, sources=sources
        )
