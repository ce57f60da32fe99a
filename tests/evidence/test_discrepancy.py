"""Is the discrepancy of a cell what its sources ask for, and does it stay near that of all cells where few were scored?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from perfmodel.evidence.discrepancy import estimated_discrepancies
from perfmodel.evidence.interval_scores import winkler_scores
from perfmodel.evidence.time_scores import TimeComparison
from perfmodel.exchange.presets import cluster_preset, gpu_preset, preset_names, stack_preset
from perfmodel.spec.evidence.run_evidence import POOLED
from perfmodel.spec.run import Run
from tests.comparisons import compared as published
from tests.comparisons import compared_mixtures
from tests.evidence.test_groups import RAMP, row

CELL = "megatron-core/hopper"


def compared(source: str, residual: float, run: Run = RAMP, *, known: float = 0.05, scored: bool = True) -> TimeComparison:
    """A run of one second whose logarithm is `residual` above the prediction, and `known` of it to either side is."""
    plain = row(run)
    predicted_s = float(np.exp(-residual))
    measured = replace(plain.measured, source=source, iteration_time_s=1.0, scored=scored)
    interval = (predicted_s * float(np.exp(-known)), predicted_s * float(np.exp(known)))
    return replace(plain, measured=measured, predicted_s=predicted_s, interval_s=interval)


def half_width(comparisons: Sequence[TimeComparison], cell: str = CELL) -> float:
    """Of the cell, as estimated."""
    return float(estimated_discrepancies(comparisons)[cell].half_width)


def with_batch_of(sequences: int) -> Run:
    """The ramp's first stage in another configuration."""
    return replace(RAMP, micro_batch_size=sequences)


def test_it_makes_the_winkler_score_least() -> None:
    """Brute force over half widths, each source weighing one however many rows it has."""
    draws = np.random.default_rng(7).normal(scale=0.2, size=12)
    rows = [compared(f"s{place}", float(draw)) for place, draw in enumerate(draws)] + [compared("s0", float(draws[0]))] * 9
    candidates = np.linspace(0.02, 0.6, 117)
    costs = []
    for width in candidates:
        side = np.hypot(width, 0.05)
        scores = winkler_scores(low_s=np.exp(-side - draws), high_s=np.exp(side - draws), measured_s=np.ones(12))
        costs.append(scores.mean())
    assert half_width(rows) == pytest.approx(candidates[int(np.argmin(costs))])


def test_what_coefficients_explain_is_no_discrepancy() -> None:
    """Errors that lie well inside the interval that is known add as little as can be."""
    assert half_width([compared(name, 0.04, known=0.2) for name in "abcdef"]) == pytest.approx(0.02)


def test_a_cell_of_few_sources_stays_near_all_others() -> None:
    """One odd source of its own moves it less than twenty would."""
    other = replace(RAMP, stack=replace(RAMP.stack, family="else"))
    draws = np.random.default_rng(3).normal(scale=0.05, size=24)
    quiet = [compared(f"q{place}", float(draw)) for place, draw in enumerate(draws)]
    odd = [compared(f"o{place}", 0.5, other) for place in range(20)]
    few, many = (half_width([*quiet, *odd[:number]], "else/hopper") for number in (1, 20))
    assert few < 0.2
    assert many > 0.4


def test_a_source_that_is_left_out_says_nothing() -> None:
    """Nor do rows of context."""
    others = [compared(name, 0.1) for name in "bcd"]
    odd, context = compared("a", 0.5), compared("e", 0.5, scored=False)
    alone = estimated_discrepancies(others)
    assert estimated_discrepancies([odd, *others], without="a") == alone
    assert estimated_discrepancies([context, *others]) == alone
    assert estimated_discrepancies([odd, *others]) != alone


def test_one_source_says_nothing_of_others() -> None:
    """No estimate at all, rather than a bold one."""
    assert estimated_discrepancies([compared("a", 0.1), compared("a", 0.3)]) == {}


def test_rows_in_other_number_formats_are_no_runs_of_one_configuration() -> None:
    """However they are priced: 20 % between two formats is no noise of rows, 20 % within one is."""
    first, second = compared("a", 0.0), compared("a", 0.2)
    alike = [first, second, compared("b", 0.1)]
    labels = {**second.measured.labels, "precision": "another"}
    apart = [first, replace(second, measured=replace(second.measured, labels=labels)), compared("b", 0.1)]
    noise = [float(estimated_discrepancies(rows)[POOLED].row_deviation) for rows in (apart, alike)]
    assert noise[0] < 0.07 < noise[1]


def test_runs_that_grow_are_one_configuration() -> None:
    """The stages of a ramp differ in replicas and batch; another micro-batch is another configuration."""
    first, second = (RAMP.setup(stage).configuration for stage in (RAMP.stages[0], replace(RAMP.stages[0], data_parallel=8)))
    assert first == second
    assert with_batch_of(2).setup(RAMP.stages[0]).configuration != first
    assert with_batch_of(2).setup(RAMP.stages[0]).subject == RAMP.setup(RAMP.stages[0]).subject


def test_the_shipped_discrepancies_are_of_the_shipped_table() -> None:
    """Their cells with their rows and sources: after a change of a table the scores have to be written anew."""
    cells = cluster_preset("dgx-h100").evidence.cells
    estimated = estimated_discrepancies([*published(), *compared_mixtures()])
    counted = {cell: (each.rows, each.sources) for cell, each in estimated.items()}
    assert {cell: tuple(map(int, figures[-2:])) for cell, figures in cells.items()} == counted


def test_every_shipped_gpu_and_stack_names_its_cell() -> None:
    """One that names none would get the discrepancy of all others without a word."""
    unnamed = [name for name in preset_names("gpus") if gpu_preset(name).generation == "unknown"]
    unnamed += [name for name in preset_names("stacks") if stack_preset(name).family == "unknown"]
    assert unnamed == []
