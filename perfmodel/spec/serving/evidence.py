"""How far measured servers were off beyond what uncertain numbers explain: the third part of an interval of serving."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from perfmodel.light_dataclass import dataclass
from perfmodel.spec.evidence.run_evidence import MIXTURES, Discrepancy, pooled_cell
from perfmodel.spec.fields import Spec, grid, text
from perfmodel.spec.serving.loads import MEMORY, OFFLINE, POISSON, SINGLE, STATIC, TTFT

DENSE: Final = "dense"
PASSES: Final = "passes"
SERVER: Final = "server"
FULL: Final = "full"
FEW: Final = "few"
FEW_CLIENTS: Final = 4.0  # at most: TTFT is then hardly a matter of queues
BATCH: Final = "batch"
WAYS: Final = {STATIC: BATCH, SINGLE: BATCH, OFFLINE: FULL, POISSON: FULL}  # of running together, by load
FIGURES: Final = ("half_width", "rows", "sources")


def model_class(*, has_experts: bool) -> str:
    """Whose errors are alike: dense models and mixtures of experts."""
    return MIXTURES if has_experts else DENSE


def cell_name(metric: str, models: str, load: str, clients: float | None = None) -> str:
    """The cell of a metric of such models under a load: its kind, the models, and how requests come to run together.

    All times of passes are of one kind, and rates are their inverse; first tokens wait in queues, but hardly those of a few
    clients, and memory is no time. Requests are batched as they come and go in a server, and all at once in a batch that starts
    and ends together. How many run in a full one, whose requests wait, is a matter of its memory.

    >>> [cell_name("tpot_s", "dense", load) for load in ("closed", "single", "offline")]
    ['passes/dense/server', 'passes/dense/batch', 'passes/dense/full']
    >>> cell_name("ttft_s", "dense", "closed", 4), cell_name("ttft_s", "dense", "closed", 5)
    ('ttft_s/dense/few', 'ttft_s/dense/server')
    """
    kind, way = metric if metric in (TTFT, MEMORY) else PASSES, WAYS.get(load, SERVER)
    is_few = load == SINGLE or (clients is not None and clients <= FEW_CLIENTS)
    return f"{kind}/{models}/{FEW if kind == TTFT and is_few else way}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class ServingEvidence(Spec):
    """Half widths of 90 % intervals of ln(measured / predicted) by cell, with the rows and sources behind them."""

    name: str = text()
    cells: Mapping[str, tuple[float, ...]] = grid(*FIGURES)

    def discrepancy(self, metric: str, models: str, load: str, clients: float | None = None) -> Discrepancy:
        """That of a cell; where it is not known, of its kind, then of times of passes; else none."""
        cell = cell_name(metric, models, load, clients)
        wider = (cell, pooled_cell(cell), pooled_cell(PASSES))
        found = next((name for name in wider if name in self.cells), wider[1])
        half_width, rows, sources = self.cells.get(found, (0.0, 0.0, 0.0))
        return Discrepancy(
            cell=cell, pool=found, pooled=cell not in self.cells, half_width=half_width, rows=rows, sources=sources
        )
