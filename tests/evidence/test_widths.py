"""How wide do intervals have to be, when rows of one series err alike and sources are few?"""

from __future__ import annotations

import numpy as np
import pytest

from perfmodel.evidence.widths import (
    POOLED_ROWS,
    Lack,
    estimated_widths,
    intraclass_correlation,
    row_weights,
    widths_without_each,
)
from perfmodel.spec.serving.evidence import ServingEvidence, cell_name
from perfmodel.spec.serving.loads import CLOSED, E2E, MEMORY, OFFLINE, POISSON, SATURATED, SINGLE, STATIC, TOKENS, TPOT, TTFT

DENSE, EXPERTS = "passes/dense/server", "passes/experts/server"


def series(values: list[float], *, name: str = "s", publication: str = "lab", cell: str = DENSE) -> list[Lack]:
    """Rows of one series."""
    return [Lack(value=each, cell=cell, publication=publication, series=(publication, name)) for each in values]


def test_values_of_one_group_are_alike_by_the_analysis_of_variance() -> None:
    """Groups of two with means 0 and 1, 0.2 apart inside: B = 2 * 0.5, W = 0.02, so (B - W) / (B + W)."""
    groups = [[-0.1, 0.1], [0.9, 1.1]]
    assert intraclass_correlation(groups) == pytest.approx((1.0 - 0.02) / (1.0 + 0.02))


def test_the_correlation_is_that_of_which_values_are_drawn() -> None:
    """A common part with a quarter of the variance: 0.25, whatever the sizes of groups."""
    generator = np.random.default_rng(7)
    groups = [0.5 * generator.normal() + np.sqrt(0.75) * generator.normal(size=2 + each % 7) for each in range(4000)]
    assert intraclass_correlation([list(each) for each in groups]) == pytest.approx(0.25, abs=0.02)


def test_groups_that_differ_by_chance_alone_are_not_alike() -> None:
    """No correlation is below nothing; one group, or groups of one, tell of none."""
    assert intraclass_correlation([[0.0, 1.0], [1.0, 0.0]]) == 0.0
    assert intraclass_correlation([[0.0, 1.0, 2.0]]) == 0.0
    assert intraclass_correlation([[0.0], [1.0]]) == 0.0


def test_rows_that_err_alike_count_as_one() -> None:
    """A series that lies beyond as a whole, among series that lie inside, weighs one in all, not one a row."""
    rows = [*series([0.9] * 4, name="odd"), *(each for number in range(20) for each in series([0.1] * 4, name=str(number)))]
    weights = row_weights(rows)
    assert weights[:4].sum() == pytest.approx(1.0)


def test_series_of_a_publication_that_err_alike_count_as_one() -> None:
    """Four series that lie beyond because their laboratory does weigh one in all."""
    odd = [each for number in range(4) for each in series([0.9] * 2, name=str(number), publication="odd")]
    fine = [series([0.1] * 2, name=str(each % 4), publication=f"p{each // 4}") for each in range(80)]
    assert row_weights([*odd, *(each for rows in fine for each in rows)])[: len(odd)].sum() == pytest.approx(1.0)


def test_publications_may_be_left_out_of_the_weights() -> None:
    """Then series that err alike weigh one each."""
    odd = [each for number in range(4) for each in series([0.9] * 2, name=str(number), publication="odd")]
    fine = [series([0.1] * 2, name=str(each % 4), publication=f"p{each // 4}") for each in range(80)]
    rows = [*odd, *(each for rows in fine for each in rows)]
    assert row_weights(rows, by_publication=False)[: len(odd)].sum() == pytest.approx(4.0)


def test_independent_rows_count_one_by_one() -> None:
    """Where what lies beyond is spread over all series alike, each row weighs one."""
    rows = [each for number in range(20) for each in series([0.9, *[0.1] * 9], name=str(number))]
    assert row_weights(rows) == pytest.approx(np.ones(200))


def test_the_rows_of_one_large_series_do_not_decide() -> None:
    """A thousand rows of one place do not narrow an interval that nineteen places ask for."""
    places = [each for number in range(19) for each in series([0.5, 0.5], name=str(number), publication=f"p{number}")]
    large = series([0.05] * 1000, publication="large")
    assert estimated_widths([*places, *large])[DENSE][0] == pytest.approx(0.5)


def test_a_cell_of_few_rows_stays_near_the_pooled_one() -> None:
    """One row says little beside POOLED_ROWS of all; many rows decide."""
    others = [series([0.1, 0.2, 0.3], name=str(number), cell=EXPERTS)[number % 3] for number in range(300)]
    one, many = ([series([0.02], name=f"d{number}")[0] for number in range(size)] for size in (1, 2000))
    pooled = estimated_widths([*others, *one])
    assert pooled[DENSE][0] == pooled["passes/any/any"][0] == 0.3
    assert estimated_widths([*others, *many])[DENSE][0] == 0.02
    assert POOLED_ROWS < 2000


def test_widths_of_others_hold_nothing_of_a_publication() -> None:
    """Each publication has the widths of all but its own; the only one has none."""
    rows = [*series([0.1] * 5, publication="one"), *series([0.4] * 5, publication="other")]
    found = widths_without_each(rows)
    assert (found["one"][DENSE], found["other"][DENSE]) == ((0.4, 5, 1), (0.1, 5, 1))
    assert widths_without_each(rows[:5]) == {"one": {}}


def test_times_of_passes_and_rates_share_a_cell() -> None:
    """First tokens wait in queues, memory is no time; servers batch otherwise than batches that end together."""
    passes = {cell_name(metric, "dense", load) for metric in (TPOT, E2E, TOKENS) for load in (CLOSED, SATURATED)}
    assert passes == {DENSE}
    assert {cell_name(TOKENS, "dense", load) for load in (OFFLINE, POISSON)} == {"passes/dense/full"}
    assert {cell_name(E2E, "dense", load) for load in (STATIC, SINGLE)} == {"passes/dense/batch"}
    assert cell_name(TTFT, "dense", CLOSED) == cell_name(TTFT, "dense", CLOSED, 5.0) == "ttft_s/dense/server"
    assert cell_name(TTFT, "dense", CLOSED, 4.0) == "ttft_s/dense/few"
    assert cell_name(TTFT, "dense", SINGLE) == cell_name(TTFT, "dense", STATIC, 1.0) == "ttft_s/dense/few"
    assert cell_name(TTFT, "dense", STATIC, 16.0) == "ttft_s/dense/batch"
    assert cell_name(TPOT, "dense", CLOSED, 1.0) == DENSE
    assert cell_name(MEMORY, "dense", SINGLE) == "peak_memory_gib/dense/batch"


def test_an_unknown_cell_takes_that_of_its_kind() -> None:
    """Then that of times of passes; without any, nothing."""
    cells = {DENSE: (0.1, 9, 2), "passes/any/any": (0.3, 20, 3), "ttft_s/any/any": (0.8, 20, 3)}
    known = ServingEvidence(name="known", cells=cells)
    asked = ((TPOT, "dense", CLOSED), (TPOT, "experts", CLOSED), (TTFT, "dense", CLOSED), (MEMORY, "dense", SINGLE))
    found = [known.discrepancy(*each) for each in asked]
    assert [each.half_width for each in found] == [0.1, 0.3, 0.8, 0.3]
    assert [each.pooled for each in found] == [False, True, True, True]
    assert not ServingEvidence(name="none", cells={}).discrepancy(*asked[0]).half_width
