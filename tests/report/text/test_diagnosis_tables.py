"""Does a diagnosis give each alternative its own odds, and agree with itself on whether the measurement is explained?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from perfmodel.count.operators import Collective
from perfmodel.exchange.questions.diagnosed_runs import run_diagnosis
from perfmodel.explanation.measured.diagnosis import Cause, Diagnosis
from perfmodel.explanation.measured.readings import collective_reading
from perfmodel.report.text.measured.diagnosis import notes, verdict

MEASURED_S = 0.9


def headline(found: Diagnosis) -> str:
    """The last sentence of the verdict."""
    *_, last = verdict(found)
    return last.plain


@pytest.fixture(scope="module")
def slow() -> Diagnosis:
    """A run for which several kinds of software are plausible."""
    return run_diagnosis("nemotron-4-15b", MEASURED_S)


def with_shares(found: Diagnosis, *shares: float) -> Diagnosis:
    """The diagnosis with one cause, other software, whose alternatives have these odds."""
    cause = next(each for each in found.causes if each.name == "other software")
    findings = tuple(replace(each, plausibility=share) for each, share in zip(cause.findings, shares, strict=False))
    return replace(found, causes=(Cause(name=cause.name, findings=findings),))


def test_one_of_several_alternatives_does_not_get_the_odds_of_all(slow: Diagnosis) -> None:
    """The group is named with its own, the likeliest of it with what it has alone."""
    first = f"{next(each for each in slow.causes if each.name == 'other software').best.after}"
    group = headline(with_shares(slow, 0.12, 0.11, 0.1))
    assert group.startswith("Most plausible, 33 %: other software, of which the likeliest, 12 %, is ")
    assert headline(with_shares(slow, 0.3)) == f"Most plausible, 30 %: {first} instead of Megatron-Core (2024)."


@pytest.mark.parametrize(("share", "is_explained"), [(0.55, True), (0.45, False)])
def test_what_is_more_plausible_than_all_else_explains(slow: Diagnosis, share: float, *, is_explained: bool) -> None:
    """Though the time with it lies beyond its interval; the sentence says how far it gets."""
    found = with_shares(slow, share)
    best = replace(found.causes[0].best, explains=False)
    found = replace(found, causes=(replace(found.causes[0], findings=(best,)),))
    assert found.is_explained is is_explained
    assert headline(found).startswith("Most plausible, " if is_explained else "Nothing alone explains it plausibly.")
    away = max(float(best.time_s) / MEASURED_S, MEASURED_S / float(best.time_s))
    assert f"which is a factor of {away:.2f} away." in headline(found)


def test_what_was_measured_besides_stands_beside_what_the_first_cause_makes_of_it(slow: Diagnosis) -> None:
    """A network at the rate that the iteration asks for may be another than nccl-tests show."""
    network = next(each for each in slow.causes if each.name == "network")
    calls = (each for each, _ in slow.predicted.work.executions() if isinstance(each, Collective))
    call = next(each for each in calls if each.name == "optimizer.reduce_gradients")
    reading = collective_reading(call, 5e9, error=0.4)
    found = replace(slow, causes=(network,), readings=(slow.readings[0], reading))
    before, after = (float(reading.predicted(setup)) / 1e9 for setup in (slow.predicted.work.setup, network.best.setup))
    assert after < 0.6 * before
    (note,) = notes(found)
    assert f"5 GB/s; predicted {before:.3g} GB/s, with the first cause {after:.3g} GB/s." in str(note)
