"""Are deviations of rows, configurations and layouts those that make rows likeliest, and does no odd source lead them?"""

from __future__ import annotations

import numpy as np
import pytest

from perfmodel.evidence.deviations import POOLED_WEIGHTS, START, STEPS, Residual, deviations
from perfmodel.spec.evidence.error_law import NORMAL, ErrorLaw
from perfmodel.spec.evidence.run_evidence import POOLED

STEP = float(STEPS[1] / STEPS[0])  # of the grid that they lie on
T2 = ErrorLaw(degrees=2.0)


def row(source: str, residual: float, configuration: str = "c", *, subject: str = "m", cell: str = "x/y") -> Residual:
    """A row of a configuration of a model."""
    return Residual(
        source=source,
        cell=cell,
        pool="any",
        subject=(source, subject),
        configuration=(source, subject, configuration),
        residual=residual,
        below=0.1,
        above=0.1,
    )


def near(deviation: float) -> object:
    """Within half a step of the grid."""
    return pytest.approx(deviation, rel=0.51 * (STEP - 1.0))


def test_of_normal_errors_they_are_means_of_squares() -> None:
    """By hand, of one source with two configurations of two rows each; START is one more, of one square."""
    rows = [row("a", 0.00), row("a", 0.10), row("a", 0.30, "d"), row("a", 0.40, "d"), row("b", 0.3)]
    found = deviations(rows, NORMAL)[POOLED]
    assert found.row_deviation == near(np.sqrt((4 * 0.05**2 + float(START.row_deviation) ** 2) / 3))
    assert found.configuration_deviation == near(np.sqrt((2 * 0.15**2 + float(START.configuration_deviation) ** 2) / 2))
    assert found.layout_deviation == found.configuration_deviation


def test_a_cell_is_drawn_towards_all() -> None:
    """By hand: the squares of all weigh as much as so many of its sources."""
    rows = [row("a", 0.0), row("a", 0.02), row("b", 0.0, cell="q/y"), row("b", 0.40, cell="q/y")]
    weight = POOLED_WEIGHTS["row_deviation"]
    pooled = (0.0002 + 0.08 + float(START.row_deviation) ** 2) / 3
    found = deviations(rows, NORMAL)
    for cell, square in (("x/y", 0.0002), ("q/y", 0.08)):
        assert found[cell].row_deviation == near(np.sqrt((square + weight * pooled) / (1 + weight)))


def test_models_of_one_source_are_no_layouts_of_one_another() -> None:
    """Two models that are 20 % apart say nothing of two layouts of one."""
    found = deviations([row("a", 0.0), row("a", 0.2, subject="n"), row("b", 0.1)], T2)[POOLED]
    assert found.layout_deviation == near(float(START.layout_deviation))
    assert float(found.configuration_deviation) > 1.5 * float(START.configuration_deviation)


def test_cells_of_one_source_are_not_compared() -> None:
    """What it ran in other software is no configuration of the same."""
    found = deviations([row("a", 0.0), row("a", 0.3, "d", cell="q/y"), row("b", 0.1)], T2)[POOLED]
    assert found.configuration_deviation == near(float(START.configuration_deviation))


def test_one_odd_source_does_not_lead() -> None:
    """Of ten whose rows lie 2 % apart, one of 60 %: it leads a mean of squares, and hardly moves what t makes likeliest."""
    quiet = [row(f"s{place}", sign * 0.01) for place in range(10) for sign in (-1, 1)]
    odd = [row("odd", 0.3), row("odd", -0.3)]
    before, after = (float(deviations(rows, T2)[POOLED].row_deviation) for rows in (quiet, [*quiet, *odd]))
    assert after < 1.4 * before
    assert float(deviations([*quiet, *odd], NORMAL)[POOLED].row_deviation) > 3 * before
