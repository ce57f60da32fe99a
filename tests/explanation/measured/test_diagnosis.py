"""Does a diagnosis find the number or the setting that made a run slow or fast, and say how plausible each is?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from perfmodel.count.operators import Collective
from perfmodel.exchange.questions.diagnosed_runs import diagnosis_priors
from perfmodel.exchange.run_files import read_candidates
from perfmodel.explanation.measured.diagnosis import Cause, Diagnosis, diagnosis
from perfmodel.explanation.measured.hypotheses import OffNumber, off_numbers, other_settings
from perfmodel.explanation.measured.readings import Spread, collective_reading
from perfmodel.prediction import predict, stage_breakdown
from perfmodel.spec.evidence.spread import DEVIATIONS
from perfmodel.spec.run import Run

PRIORS = diagnosis_priors()
NUMBERS = replace(
    PRIORS, settings=PRIORS.settings[:1]
)  # other software alone, of which there is none: numbers are weighed fast
RUN: dict[str, Any] = {
    "model": "llama-3.1-70b",
    "cluster": "dgx-h100",
    "stack": "megatron-core",
    "precision": "bf16",
    "tensor_parallel": 4,
    "pipeline_parallel": 4,
    "virtual_pipeline": 5,
    "sequence_parallel": True,
    "sharding": "zero1",
    "recompute": "none",
    "micro_batch_size": 1,
    "sequence_length": 8192,
    "stages": [{"data_parallel": 8, "global_batch_size": 128}],
}


def run_of(*settings: str) -> Run:
    """The run with settings changed."""
    return read_candidates(RUN, settings)[0].run


def seconds_of(*settings: str) -> float:
    """Its iteration."""
    return float(predict(run_of(*settings)).stages[0][1].iteration_time_s)


def diagnosed(measured_s: float, **options: Any) -> Diagnosis:
    """The plain run beside a measured time."""
    return diagnosis(run_of(), place=0, measured_s=measured_s, **{"priors": PRIORS, **options})


def cause_of(found: Diagnosis, name: str) -> Cause:
    """The cause called so."""
    return next(each for each in found.causes if each.name == name)


@pytest.mark.parametrize(
    ("setting", "name", "value"),
    [
        ("cluster.network_scale=0.1", "network", 0.1),
        ("cluster.network_scale=0.02", "network", 0.02),
        ("cluster.compute_scale=0.7", "clocks", 0.7),
        ("cluster.node_link_scale=0.2", "links inside the node", 0.2),
        ("cluster.host_scale=3", "host", 3.0),
        ("stack.host.iteration_s=1.5", "data loading, logging", 1.5),
    ],
)
def test_the_value_that_a_number_needs_is_the_one_that_it_had(setting: str, name: str, value: float) -> None:
    """To a thousandth; the equations with it give the measured time."""
    best = cause_of(diagnosed(seconds_of(setting), priors=NUMBERS), name).best
    assert best.after == pytest.approx(value, rel=1e-3)
    assert best.time_s == pytest.approx(seconds_of(setting), rel=1e-4)
    assert best.explains


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        ("recompute=full", "recompute"),
        ("precision=fp8", "precision"),
        ("cluster.network_scale=0.02", "network"),
    ],
)
def test_what_made_the_run_otherwise_comes_first(setting: str, name: str) -> None:
    """Slower or faster than predicted."""
    found = diagnosed(seconds_of(setting))
    assert found.causes[0].name == name
    assert found.is_explained


def test_a_setting_is_predicted_as_if_it_were_set() -> None:
    """With its own time and its own memory."""
    best = cause_of(diagnosed(seconds_of("recompute=full")), "recompute").best
    (_, there), *_ = predict(run_of("recompute=full")).stages
    assert best.after == "full"
    assert best.time_s == pytest.approx(float(there.iteration_time_s), rel=1e-12)
    assert best.fit_probability == float(there.fit_probability)


def test_plausibilities_add_up_to_one() -> None:
    """With nothing and elsewhere."""
    for factor in (0.8, 5.0):
        found = diagnosed(factor * seconds_of())
        assert sum(cause.plausibility for cause in found.causes) + found.nothing + found.elsewhere == pytest.approx(1.0)


def test_a_measurement_inside_the_interval_needs_no_explanation() -> None:
    """The run as it is is more plausible than any other cause there, and negligible far away."""
    found = diagnosed(seconds_of() * 1.001)
    assert found.is_expected
    assert found.nothing > max(cause.plausibility for cause in found.causes)
    far = diagnosed(2.0 * seconds_of())
    assert not far.is_expected
    assert far.nothing < 1e-6


def test_the_interval_decides_what_is_expected() -> None:
    """To either side of its ends."""
    low_s, high_s = (float(each) for each in predict(run_of()).stages[0][1].iteration_time_interval_s)
    whole = diagnosed(low_s * 0.999, priors=NUMBERS)
    at_ends = {each: replace(whole, readings=(replace(whole.readings[0], measured=each),)) for each in (low_s, high_s)}
    assert not whole.is_expected
    assert all(found.is_expected for found in at_ends.values())
    assert not replace(whole, readings=(replace(whole.readings[0], measured=high_s * 1.001),)).is_expected


def test_what_nothing_reaches_is_said_with_what_comes_closest() -> None:
    """A thousand times as slow."""
    found = diagnosed(1000.0 * seconds_of())
    assert not found.is_explained
    assert found.explaining == ()
    assert abs(found.closest.gap) == min(abs(each.gap) for cause in found.causes for each in cause.findings)
    assert found.closest.time_s < found.measured_s


def test_deviations_are_those_of_the_numbers_own_prior() -> None:
    """ln of the factor over ln(1 + spread) / 1.64."""
    best = cause_of(diagnosed(seconds_of("cluster.network_scale=0.1"), priors=NUMBERS), "network").best
    spread = run_of().cluster.spread["network_scale"]
    assert best.deviations == pytest.approx(np.log(0.1) / (np.log1p(spread) / DEVIATIONS), rel=1e-3)


@pytest.mark.parametrize(("measured", "rises"), [(1.0, False), (0.1, True)])
def test_nccl_tests_count_for_or_against_the_network(measured: float, *, rises: bool) -> None:
    """At the predicted bandwidth between nodes the network is cleared; at a tenth of it nothing else is left."""
    run, slow_s = run_of(), seconds_of("cluster.network_scale=0.1")
    calls = [op for op in predict(run).stages[0][1].work.operators if isinstance(op, Collective)]
    call = next(each for each in calls if each.name == "optimizer.reduce_gradients")
    plain = collective_reading(call, 1.0, error=0.1)
    predicted = float(plain.predicted(run.setup(run.stages[0])))
    beside = [replace(plain, measured=measured * predicted)]
    before = cause_of(diagnosed(slow_s, priors=NUMBERS), "network").plausibility
    after = cause_of(diagnosed(slow_s, priors=NUMBERS, beside=beside), "network").plausibility
    assert after > 0.99 if rises else after < before / 10


@pytest.mark.parametrize(("scale", "beyond"), [(0.3, 1.0), (0.005, 1.1)])
def test_a_number_weighs_what_its_prior_and_the_measurement_say_together(scale: float, beyond: float) -> None:
    """The integral over its factors, beside a cause elsewhere, whose weight is one normal density; also beyond its least."""
    run, slow = (read_candidates("nemotron-4-15b", settings)[0].run for settings in ((), [f"cluster.network_scale={scale}"]))
    slow_s = beyond * float(predict(slow).stages[0][1].iteration_time_s)
    found = diagnosis(run, place=0, measured_s=slow_s, priors=NUMBERS)
    setup, predicted = run.setup(run.stages[0]), predict(run).stages[0][1]
    prior = next(each for each in PRIORS.numbers if each.path == "cluster.network_scale")
    known = predicted.uncertainty
    sigma = np.log(known.high_s / predicted.iteration_time_s) / DEVIATIONS
    own = known.half_widths_s["cluster.network_scale"] / predicted.iteration_time_s / DEVIATIONS
    logs = np.linspace(np.log(prior.least), np.log(prior.most), 3001)
    times = stage_breakdown(replace(setup, cluster=replace(setup.cluster, network_scale=np.exp(logs)))).total_s
    low = np.log(predicted.iteration_time_s / known.low_s) / DEVIATIONS
    following = prior.follow_error / DEVIATIONS * np.log(times / predicted.iteration_time_s)
    sides = np.sqrt(sigma**2 - own**2), np.hypot(np.sqrt(low**2 - own**2), following)
    rest = np.where(slow_s > times, *sides)
    density = np.exp(-np.abs(logs / np.log(prior.typical)))
    likelihood = np.exp(-0.5 * (np.log(slow_s / times) / rest) ** 2) / rest
    weight = prior.chance * np.sum(density * likelihood) / np.sum(density)
    wide = np.hypot(np.log1p(PRIORS.elsewhere_spread.value) / DEVIATIONS, sigma)
    elsewhere = PRIORS.elsewhere.value * np.exp(-0.5 * (found.gap / wide) ** 2) / wide
    assert cause_of(found, "network").plausibility / found.elsewhere == pytest.approx(weight / elsewhere, rel=0.02)


def test_a_reading_that_tells_nothing_moves_no_cause() -> None:
    """Not even towards a cause elsewhere, however far off it is."""
    run = run_of()
    call = next(op for op in predict(run).stages[0][1].work.operators if isinstance(op, Collective))
    plain = collective_reading(call, 1.0, error=1e6)
    beside = [replace(plain, measured=0.3 * float(plain.predicted(run.setup(run.stages[0]))))]
    before, after = (diagnosed(2 * seconds_of(), priors=NUMBERS, beside=each) for each in ((), beside))
    assert after.elsewhere == pytest.approx(before.elsewhere, rel=0.05)


def test_a_number_held_leaves_a_narrower_interval() -> None:
    """In squares; an error of its own makes it wider, and a side has its own width."""
    spread = Spread(below=0.03, above=0.05, of_number={"a": 0.04})
    assert spread.towards(1.0) == 0.05
    assert spread.towards(-1.0) == 0.03
    assert spread.towards(1.0, without="a") == pytest.approx(0.03)
    assert spread.widened(1.0).above == pytest.approx(np.hypot(0.05, np.log(2) / DEVIATIONS))


def test_a_cause_that_is_hardly_plausible_is_no_explanation() -> None:
    """Though it would reach the measured time."""
    found = diagnosed(seconds_of("recompute=full"))
    likely, unlikely = (
        replace(found, causes=(Cause(name="clocks", findings=(replace(found.causes[0].best, plausibility=share),)),))
        for share in (0.11, 0.09)
    )
    assert likely.is_explained
    assert not unlikely.is_explained
    assert unlikely.explaining


def test_no_value_of_a_setting_is_counted_twice() -> None:
    """Where two entries of the priors share a setting, each has values of its own."""
    setup = run_of().setup(run_of().stages[0])
    every = [(each.key, each.after) for each in other_settings(setup, PRIORS, stacks=(), unstated=())]
    assert ("precision", "fp8") in every
    assert len(every) == len(set(every))


def test_what_could_not_have_run_is_less_plausible() -> None:
    """A layout that does not fit weighs a fifth of one that does, as memory is predicted."""
    doubt = float(PRIORS.memory_doubt.value)
    slow_s = seconds_of("micro_batch_size=4")
    big = cause_of(diagnosed(slow_s), "micro-batch")
    misses = [each for each in big.findings if each.fit_probability < 0.01]
    assert misses
    sure = replace(PRIORS, memory_doubt=replace(PRIORS.memory_doubt, value=1.0))
    found = diagnosis(run_of(), place=0, measured_s=slow_s, priors=sure)
    trusted = next(each for each in cause_of(found, "micro-batch").findings if each.after == misses[0].after)
    odds = (misses[0].plausibility / (1 - big.plausibility)) / (
        trusted.plausibility / (1 - cause_of(found, "micro-batch").plausibility)
    )
    assert doubt * 0.9 < odds < 1.0


def test_settings_that_a_run_does_not_state_are_more_likely_otherwise() -> None:
    """By the factor of the priors."""
    setup = run_of().setup(run_of().stages[0])
    chances = [
        sum(each.chance for each in other_settings(setup, PRIORS, stacks=(), unstated=unstated) if each.key == "recompute")
        for unstated in ((), ("recompute",))
    ]
    assert chances[1] == pytest.approx(chances[0] * float(PRIORS.unstated.value))


def test_no_setting_is_proposed_that_cannot_be() -> None:
    """Interleaving without a pipeline, shardings that the software lacks, kernels that nobody measured."""
    one_stage = run_of("pipeline_parallel=1", "virtual_pipeline=1")
    setup = one_stage.setup(one_stage.stages[0])
    every = list(other_settings(setup, PRIORS, stacks=(), unstated=()))
    assert not [each for each in every if each.key == "virtual_pipeline"]
    assert {each.after for each in every if each.key == "sharding"} <= {"none", *setup.stack.offers.shardings}
    known = setup.cluster.gpu.attention_libraries
    assert {each.after for each in every if each.key == "stack.fusion.attention_library"} <= set(known)


def test_every_number_of_the_priors_is_one_of_the_run() -> None:
    """With the value that it has there."""
    setup = run_of().setup(run_of().stages[0])
    numbers: dict[str, OffNumber] = {each.key: each for each in off_numbers(setup, PRIORS)}
    assert numbers.keys() == {each.path for each in PRIORS.numbers}
    assert numbers["cluster.compute_scale"].value == setup.cluster.compute_scale
    assert numbers["stack.host.iteration_s"].value == setup.stack.host.iteration_s


@pytest.mark.parametrize(("settings", "others"), [((), {2, 4, 8, 16}), (("micro_batch_size=2",), {1, 4, 8, 16})])
def test_every_micro_batch_that_the_batch_admits_is_tried(settings: tuple[str, ...], others: set[int]) -> None:
    """Not half and double alone; without interleaving, which asks for groups of micro-batches."""
    run = run_of("virtual_pipeline=1", *settings)
    every = other_settings(run.setup(run.stages[0]), PRIORS, stacks=(), unstated=())
    assert {each.after for each in every if each.key == "micro_batch_size"} == others


def test_a_run_as_fast_as_with_four_times_the_micro_batch_is_explained_by_it() -> None:
    """0.45 s of Nemotron-4 15B, where 4 gives 0.466 s."""
    run = read_candidates("nemotron-4-15b")[0].run
    found = diagnosis(run, place=-1, measured_s=0.45, priors=PRIORS)
    assert found.is_explained
    assert (found.causes[0].name, found.causes[0].best.after) == ("micro-batch", 4)
