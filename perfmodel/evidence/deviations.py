"""How far configurations of one source lie apart, layouts of one model in it, and rows of one configuration.

Each is the deviation s (run_evidence.py) that makes what the publications show of a cell likeliest, when the errors of one
publication are wide or narrow together (spec/evidence/error_law.py), with u and nu of the law of errors:

    sum over publications of L(s)  +  w * the mean of L(s) over all publications and cells
    L(s) = -n * ln s - (nu + n) / 2 * ln(1 + S / (nu * (u * s)^2))

For rows, S sums (r - mean of its configuration)^2 with r = ln(T_measured / T_predicted), and n is the rows less the
configurations; for configurations they are those of their means within the publication, for layouts those of the same means
within one model in one precision. An odd publication moves a deviation only so far, where it would lead a mean of squares.
START is the likeliest of one publication more, of one row; w is one of POOLED_WEIGHTS.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from perfmodel.light_dataclass import dataclass
from perfmodel.spec.evidence.error_law import ErrorLaw
from perfmodel.spec.evidence.run_evidence import Discrepancy

# Sources of all cells that weigh on each cell: of 1, 2, 4, 12 and 40 those whose intervals of differences have the best Winkler
# score, with the source left out
POOLED_WEIGHTS: Final = {"configuration_deviation": 2.0, "layout_deviation": 2.0, "row_deviation": 12.0}
STEPS: Final = np.exp(np.linspace(np.log(0.004), np.log(0.4), 161))
START: Final = Discrepancy(configuration_deviation=0.028, layout_deviation=0.028, row_deviation=0.059)
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Residual:
    """A scored row: where it belongs, r, and its interval without any discrepancy, all in logarithms."""

    source: str  # its publication
    cell: str
    pool: str  # the cell that stands for all of its kind
    subject: Hashable
    configuration: Hashable
    residual: float
    below: float
    above: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scatter:
    """What one publication shows of one cell: S and n."""

    square: float = 0.0
    freedom: int = 0

    def with_group(self, values: Sequence[float]) -> _Scatter:
        """With the values of one more group about their mean."""
        square = float(np.sum((np.asarray(values) - np.mean(values)) ** 2))
        return _Scatter(square=self.square + square, freedom=self.freedom + len(values) - 1)

    def log_likelihood(self, law: ErrorLaw) -> Floats:
        """L at each of STEPS; of infinitely many degrees that of a normal distribution."""
        relative = self.square / (law.unit * STEPS) ** 2
        if law.is_normal:
            return np.asarray(-self.freedom * np.log(STEPS) - relative / 2.0)
        shape = (law.degrees + self.freedom) / 2.0
        return np.asarray(-self.freedom * np.log(STEPS) - shape * np.log1p(relative / law.degrees))


def deviations(residuals: Sequence[Residual], law: ErrorLaw) -> dict[str, Discrepancy]:
    """The three deviations of each cell, and the pooled ones."""
    means = list(_means(residuals))
    groups = {
        "configuration_deviation": _grouped(means, "source"),
        "layout_deviation": _grouped(means, "subject"),
        "row_deviation": _grouped(residuals, "configuration"),
    }
    cells = (residuals[0].pool, *dict.fromkeys(each.cell for each in residuals))
    configurations, layouts, rows = (_likeliest(name, _scatters(found), cells, law) for name, found in groups.items())
    return {
        cell: Discrepancy(
            configuration_deviation=configurations[cell], layout_deviation=layouts[cell], row_deviation=rows[cell]
        )
        for cell in cells
    }


def _likeliest(
    name: str, scatters: Mapping[tuple[str, str], _Scatter], cells: Iterable[str], law: ErrorLaw
) -> dict[str, float]:
    """The likeliest deviation of each cell, from what each publication (first in a key) shows of each cell (second)."""
    likelihoods = {key: scatter.log_likelihood(law) for key, scatter in scatters.items() if scatter.freedom}
    start = _Scatter(square=float(law.unit * getattr(START, name)) ** 2, freedom=1)
    pooled = np.mean([*likelihoods.values(), start.log_likelihood(law)], axis=0)
    own = {cell: [each for (_, of), each in likelihoods.items() if of == cell] for cell in cells}
    return {cell: float(STEPS[np.argmax(sum(each) + POOLED_WEIGHTS[name] * pooled)]) for cell, each in own.items()}


def _means(residuals: Sequence[Residual]) -> Iterable[Residual]:
    """One for each configuration of a cell: the mean of its rows."""
    for members in _grouped(residuals, "configuration"):
        first = members[0]
        yield Residual(
            source=first.source,
            cell=first.cell,
            pool=first.pool,
            subject=first.subject,
            configuration=first.configuration,
            residual=float(np.mean([each.residual for each in members])),
            below=first.below,
            above=first.above,
        )


def _grouped(residuals: Iterable[Residual], kind: str) -> list[list[Residual]]:
    """Those of one cell that share their source, subject or configuration."""
    groups: dict[Hashable, list[Residual]] = {}
    for each in residuals:
        groups.setdefault((each.cell, getattr(each, kind)), []).append(each)
    return list(groups.values())


def _scatters(groups: Iterable[Sequence[Residual]]) -> dict[tuple[str, str], _Scatter]:
    """By publication and cell, from groups that lie within both."""
    found: dict[tuple[str, str], _Scatter] = {}
    for members in groups:
        key = (members[0].source, members[0].cell)
        found[key] = found.get(key, _Scatter()).with_group([each.residual for each in members])
    return found
