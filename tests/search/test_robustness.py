"""Is the share of the draws that a layout wins what normal distributions say, and does what is common to all cancel?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import erf, exp, log, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.exchange.presets import cluster_preset, model_preset, stack_preset
from perfmodel.prediction import predict_stage
from perfmodel.search.robustness import robustness
from perfmodel.spec.evidence.error_law import ErrorLaw
from perfmodel.spec.evidence.run_evidence import Discrepancy
from perfmodel.spec.evidence.spread import DEVIATIONS
from perfmodel.timing.uncertainty import Uncertainty
from tests.layouts import RAMP_STAGE
from tests.setups import setup_of

SAMPLING = 0.04  # three standard deviations of a share of 2,000 draws, at most


def uncertain(ends_s: Mapping[str, tuple[float, float]]) -> Uncertainty:
    """A time with the ends that some numbers move it to; nothing else of it is asked for."""
    return Uncertainty(low_s=0.0, high_s=0.0, half_widths_s={}, ends_s=ends_s, discrepancy_s=0.0)


def factors(time_s: float, **by: float) -> Uncertainty:
    """A time that each number moves by a factor, up or down."""
    return uncertain({path: (time_s / factor, time_s * factor) for path, factor in by.items()})


def below(deviations: float) -> float:
    """The share of a normal distribution below so many standard deviations."""
    return (1.0 + erf(deviations / sqrt(2.0))) / 2.0


def test_one_layout_always_wins() -> None:
    """And is never behind."""
    alone = robustness([2.0], [factors(2.0, clocks=1.3)])
    assert (alone.first_share, alone.mean_regret, alone.regret_p95) == ((1.0,), 0.0, 0.0)


def test_without_uncertainty_the_fastest_wins() -> None:
    """By whatever little it is faster."""
    found = robustness([1.0, 1.0 + 1e-9, 3.0], [uncertain({})] * 3)
    assert found.first_share == (1.0, 0.0, 0.0)
    assert found.mean_regret == found.regret_p95 == 0.0


@pytest.mark.parametrize("factor", [1.01, 1.5, 3.0])
def test_what_is_off_for_all_alike_changes_no_order(factor: float) -> None:
    """Clocks that turn out lower slow all layouts by as much: the interval is wide, the choice is sure."""
    times = [1.0, 1.001, 1.02]
    found = robustness(times, [factors(each, clocks=factor) for each in times])
    assert found.first_share == (1.0, 0.0, 0.0)
    assert found.mean_regret == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("slower", [0.0, 0.01, 0.02, 0.05])
def test_a_number_that_only_one_layout_depends_on(slower: float) -> None:
    """P(first) = Phi(g / s): g by how much it leads in the logarithm, s the standard deviation of that number."""
    factor = 1.04
    found = robustness([1.0, 1.0 + slower], [uncertain({}), factors(1.0 + slower, network=factor)])
    lead = log(1.0 + slower) / (log(factor) / DEVIATIONS)
    assert found.first_share[0] == pytest.approx(below(lead), abs=SAMPLING)


def test_two_layouts_that_depend_on_different_numbers() -> None:
    """The variances of independent numbers add up."""
    times, factor = (1.0, 1.02), 1.05
    found = robustness(times, [factors(times[0], nvlink=factor), factors(times[1], network=factor)])
    deviation = sqrt(2.0) * log(factor) / DEVIATIONS
    assert found.first_share[0] == pytest.approx(below(log(times[1]) / deviation), abs=SAMPLING)


def test_what_the_first_loses_where_it_is_not_first() -> None:
    """The mean of exp(max(d, 0)) - 1 over d normal, and what a twentieth of the draws exceeds: exp(1.645*s) - 1."""
    factor = 1.1
    found = robustness([1.0, 1.0], [factors(1.0, network=factor), uncertain({})])
    deviation = log(factor) / DEVIATIONS
    mean = exp(deviation**2 / 2.0) * below(deviation) + 0.5 - 1.0
    assert found.mean_regret == pytest.approx(mean, rel=0.1)
    assert found.regret_p95 == pytest.approx(factor - 1.0, rel=0.1)


def test_ends_need_not_be_alike() -> None:
    """Faster by nothing, slower by much: half of the draws leave it level, half behind."""
    found = robustness([1.0, 1.000001], [uncertain({"network": (1.0, 1.5)}), uncertain({})])
    assert found.first_share[0] == pytest.approx(0.5, abs=SAMPLING)


@given(
    times=st.lists(st.floats(0.5, 2.0), min_size=1, max_size=6),
    spreads=st.lists(st.floats(1.0, 1.5), min_size=6, max_size=6),
)
def test_shares_sum_to_one(times: list[float], spreads: list[float]) -> None:
    """Some layout wins every draw; the first is behind where it does not."""
    intervals = [factors(each, **{f"number{place}": spreads[place], "clocks": 1.2}) for place, each in enumerate(times)]
    found = robustness(times, intervals)
    assert sum(found.first_share) == pytest.approx(1.0)
    assert found.mean_regret >= 0.0
    assert found.regret_p95 >= 0.0
    assert (found.mean_regret > 0.0) == (found.first_share[0] < 1.0)


def test_the_same_question_has_the_same_answer() -> None:
    """Draws are those of a fixed seed."""
    asked = [1.0, 1.01], [factors(1.0, network=1.1), factors(1.01, nvlink=1.1)]
    assert robustness(*asked) == robustness(*asked)


def test_real_layouts_are_surer_than_their_intervals() -> None:
    """Eight and four tensor-parallel ranks: their intervals overlap, yet most of what is uncertain is common to both."""
    model, cluster, stack = model_preset("nemotron-4-15b"), cluster_preset("dgx-h100"), stack_preset("megatron-core")
    layouts = [RAMP_STAGE, replace(RAMP_STAGE, tensor_parallel=4, data_parallel=192)]
    predicted = sorted(
        (predict_stage(setup_of(model, layout, stack, cluster=cluster)) for layout in layouts),
        key=lambda each: float(each.iteration_time_s),
    )
    times = [float(each.iteration_time_s) for each in predicted]
    found = robustness(times, [each.uncertainty for each in predicted])
    widths = [np.log(float(each.uncertainty.high_s) / float(each.iteration_time_s)) / DEVIATIONS for each in predicted]
    independent = below(float(np.log(times[1] / times[0]) / np.hypot(*widths)))
    assert found.first_share[0] > independent


def test_what_the_equations_lack_of_each_layout_may_change_the_order() -> None:
    """Each layout has an error of its own; the rest of the discrepancy, however wide, is the same for all."""
    times, own = [1.0, 1.02], 0.03
    unsure = [replace(uncertain({}), discrepancy=Discrepancy(half_width=0.5, layout_deviation=own))] * 2
    found = robustness(times, unsure)
    assert found.first_share[0] == pytest.approx(below(log(1.02) / (sqrt(2.0) * own)), abs=SAMPLING)
    alike = [replace(uncertain({}), discrepancy=Discrepancy(half_width=0.5, configuration_deviation=0.2))] * 2
    assert robustness(times, alike).first_share == (1.0, 0.0)


def test_errors_that_are_wide_together_have_the_tails_of_their_law() -> None:
    """The difference of two layouts' own errors is Student's t as each of them is: more draws near nothing, some far away."""
    law, times, own = ErrorLaw(degrees=2.0), [1.0, 1.02], 0.03
    unsure = [replace(uncertain({}), discrepancy=Discrepancy(half_width=0.5, layout_deviation=own), law=law)] * 2
    lead = log(1.02) / (sqrt(2.0) * own)
    found = robustness(times, unsure).first_share[0]
    assert found == pytest.approx(float(law.share_below(lead)), abs=SAMPLING)
    assert found > below(lead) + SAMPLING
