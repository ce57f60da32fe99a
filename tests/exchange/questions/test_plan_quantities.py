"""Do tokens, batches, GPUs, deadlines, budgets and ramps mean what they say, or get one sentence?"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from perfmodel.exchange.questions.plan_quantities import deadline_s
from tests.exchange.questions.plan_requests import ask, refusal

DAY_S = 86400.0


@pytest.mark.parametrize(
    ("tokens", "number"), [("8T", 8e12), ("200e9", 2e11), (200e9, 2e11), ("8 T", 8e12), ("500_000", 5e5), ("1B", 1e9)]
)
def test_tokens(tokens: Any, number: float) -> None:
    """With the usual suffixes."""
    assert ask(tokens=tokens).question.stages[0].tokens == number


@pytest.mark.parametrize("tokens", ["0", 0, "-1", -5, "8TB", "8Tb", "nan", "1e400", "", "many", True, "8,000"])
def test_no_tokens(tokens: Any) -> None:
    """Nothing, less than nothing, bytes and bits are none."""
    assert refusal(tokens=tokens).startswith("tokens: ")


@pytest.mark.parametrize("key", ["global_batch_size", "sequence_length"])
def test_whole_numbers(key: str) -> None:
    """Sizes are whole, above nothing, and no slip of the hand."""
    assert refusal(**{key: "1.5"}) == f"{key}: '1.5' is not a whole number"
    assert refusal(**{key: 0}) == f"{key}: 0 must be greater than 0"
    assert refusal(**{key: "8T"}) == f"{key}: '8T' must be at most 10,000,000"
    assert refusal(**{key: "many"}).startswith(f"{key}: 'many' is not a count")


@pytest.mark.parametrize(("nodes", "batch"), [(21, 1008), (384, 1152), (4096, 1024), (128, 1024), (1, 1024)])
def test_a_batch_of_nobodys_wish_suits_the_nodes(nodes: int, batch: int) -> None:
    """Near 4M tokens, a multiple of the nodes or of a part of them; one that is asked for stays."""
    free = ask(gpus=8 * nodes).question.workloads(8 * nodes)[0]
    assert free.global_batch_size == batch
    assert ask(gpus=8 * nodes, global_batch_size=1000).question.workloads(8 * nodes)[0].global_batch_size == 1000


def test_one_long_sequence() -> None:
    """A batch is at least one."""
    question = ask(sequence_length=10_000_000).question
    assert question.stages[0].global_batch_size == 1
    assert "about 4M tokens (one sequence)" in question.assumptions[-1]


@pytest.mark.parametrize(
    ("gpus", "numbers"),
    [
        (64, (64,)),
        ("64", (64,)),
        ("1024, 256", (256, 1024)),
        ([64, "128", 64], (64, 128)),
        ("512..3000", (512, 1024, 2048, 3000)),
        ("512..4096x4", (512, 1024, 2048, 4096)),
        ("100..1000x3", (100, 320, 1000)),
    ],
)
def test_numbers_of_gpus(gpus: Any, numbers: tuple[int, ...]) -> None:
    """One, several, a range; each once, rising, between the ends in whole nodes."""
    assert ask(gpus=gpus).gpus == numbers


@pytest.mark.parametrize(
    ("gpus", "problem"),
    [
        ("0", "'0' must be greater than 0"),
        (-8, "-8 must be greater than 0"),
        (1.5, "1.5 is not a whole number"),
        ("1e12", "'1e12' must be at most 10,000,000"),
        ("64,", "'64,' has no value between two commas"),
        ("512..64", "512..64 is not a range of numbers above 0; write the smaller number first"),
        ("many", "'many' is not a count; write it like 4096, 200e9 or 8T"),
        ([None], "nothing is not a count; write it like 4096, 200e9 or 8T"),
    ],
)
def test_no_numbers_of_gpus(gpus: Any, problem: str) -> None:
    """One sentence."""
    assert refusal(gpus=gpus) == f"gpus: {problem}"


def test_nothing_says_how_many() -> None:
    """Three ways to say it are offered."""
    ways = "--gpus 1024, --deadline 14d, --budget 5M"
    assert refusal(gpus=None) == f"gpus: give a number of GPUs, or a deadline or a budget that decides it: {ways}"


@pytest.mark.parametrize(("deadline", "seconds"), [("14d", 14 * DAY_S), ("36h", 1.5 * DAY_S), (86400, DAY_S), ("90 min", 5400)])
def test_a_time_from_now_on(deadline: Any, seconds: float) -> None:
    """With its unit; a number from Python is in seconds."""
    found = ask(gpus=None, tokens="1T", deadline=deadline)
    assert (found.question.deadline_s, found.gpus) == (seconds, ())


def test_a_day_is_a_deadline() -> None:
    """As text, as a date and as a date with a time: the days until it begins."""
    day = datetime.now(tz=UTC) + timedelta(days=20)
    for value in (day.date().isoformat(), day.date(), day):
        assert deadline_s(value) == pytest.approx(20 * DAY_S, abs=DAY_S)  # midnight may pass meanwhile


@pytest.mark.parametrize("deadline", ["14d", "14 days", "2w", "2 weeks", "336 hours"])
def test_a_time_is_a_deadline_as_people_write_it(deadline: str) -> None:
    """With its unit as a letter or as a word."""
    assert deadline_s(deadline) == 14 * DAY_S


@pytest.mark.parametrize(
    ("deadline", "problem"),
    [
        ("2020-01-01", "2020-01-01 is not after today"),
        ("2027-02-30", "'2027-02-30' is not a day of the calendar"),
        ("2027-13-01", "'2027-13-01' is not a day of the calendar"),
        ("0d", "'0d' must be greater than 0"),
        ("-3d", "'-3d' must be greater than 0"),
        ("14", "'14' has no unit; write a time from now on such as 14d or 36h, or a day such as 2027-03-01"),
        ("14 moons", "'14 moons' is not a deadline; write a time from now on such as 14d or 36h, or a day"),
        ("tomorrow", "'tomorrow' is not a deadline; "),
        ("", "'' is not a deadline; "),
        (True, "true is not a deadline; "),
    ],
)
def test_no_deadline(deadline: Any, problem: str) -> None:
    """Days that are over or do not exist, and times that could be anything."""
    assert refusal(gpus=None, tokens="1T", deadline=deadline).startswith(f"deadline: {problem}")


@pytest.mark.parametrize("budget", ["5M", "$5M", 5e6, "5000k"])
def test_a_budget(budget: Any) -> None:
    """In dollars, with or without their sign."""
    terms = {"dollars_per_gpu_hour": "$2.5"}
    question = ask(gpus=None, tokens="1T", budget=budget, economics=terms).question
    assert (question.budget_dollars, question.terms.dollars_per_gpu_hour) == (5e6, 2.5)


def test_no_budget() -> None:
    """Nothing, words, and one without a price or without tokens."""
    terms = {"dollars_per_gpu_hour": 2.5}
    assert refusal(budget="0", tokens="1T", economics=terms) == "budget: '0' must be greater than 0"
    assert refusal(budget="1e300", tokens="1T", economics=terms) == "budget: '1e300' must be at most 1e+15 dollars"
    assert ask(gpus=None, budget="1e15", tokens="1T", economics=terms).question.budget_dollars == 1e15
    assert refusal(budget="5 million", tokens="1T", economics=terms).startswith("budget: '5 million' is not a sum of dollars; ")
    assert refusal(budget="5M", tokens="1T") == "price: a budget needs the price of one GPU-hour in dollars, as in --price 2.5"
    for limit in ({"budget": "5M", "economics": terms}, {"deadline": "14d"}):
        assert refusal(**limit) == "tokens: a deadline or a budget needs the number of tokens, as in --tokens 8T"


def test_a_ramp() -> None:
    """Batch, tokens and perhaps GPUs of each stage; as one text or as several."""
    for ramp in ("384:200B:768, 1152:7.6T:2304", ["384:200B:768", "1152:7.6T:2304"]):
        found = ask(gpus=None, ramp=ramp)
        stages = [(stage.global_batch_size, stage.tokens, stage.gpus) for stage in found.question.stages]
        assert stages == [(384, 200e9, 768), (1152, 7.6e12, 2304)]
        assert found.gpus == (2304,)
    some = ask(gpus=512, ramp="384:200B:256,768:1T")
    assert [stage.gpus for stage in some.question.stages] == [256, None]
    assert [work.gpus for work in some.question.workloads(512)] == [256, 512]


@pytest.mark.parametrize(
    ("ramp", "problem"),
    [
        ("384", "ramp: '384' is not a stage; write batch:tokens or batch:tokens:gpus"),
        ("384:1T:8:8", "ramp: '384:1T:8:8' is not a stage; "),
        ("384:1T,", "ramp: '' is not a stage; "),
        (384, "ramp: 384 is not a stage; "),
        ("a:1T", "ramp.batch: 'a' is not a count; "),
        ("384:0", "ramp.tokens: '0' must be greater than 0"),
        ("384:200Gb", "ramp.tokens: '200Gb' is not a count; "),
        ("1.5:1T", "ramp.batch: '1.5' is not a whole number"),
        ("384:1T:0", "ramp.gpus: '0' must be greater than 0"),
    ],
)
def test_no_ramp(ramp: Any, problem: str) -> None:
    """Which piece of which stage is wrong."""
    assert refusal(ramp=ramp).startswith(problem)


def test_a_ramp_contradicts() -> None:
    """Two answers to one question: tokens, batches, or GPUs."""
    ramp = "ramp: a ramp has its own batches and tokens; leave out --tokens and --global-batch-size"
    assert refusal(ramp="384:1T", tokens="1T") == refusal(ramp="384:1T", global_batch_size=8) == ramp
    twice = "gpus: every stage of the ramp states its own GPUs; leave out one of the two"
    assert refusal(ramp="384:1T:8", gpus=16) == twice
    some = "gpus: some stages of the ramp state no number of GPUs; give it with --gpus, as in --gpus 1024"
    assert refusal(ramp="384:1T:8,768:1T", gpus=None, deadline="9d") == some


@pytest.mark.parametrize(("confidence", "probability"), [(None, 0.9), ("90%", 0.9), ("50 %", 0.5), (0.95, 0.95)])
def test_a_confidence_is_a_probability(confidence: Any, probability: float) -> None:
    """Nine in ten where nobody says."""
    assert ask(confidence=confidence).question.confidence == pytest.approx(probability, rel=1e-12)


@pytest.mark.parametrize("confidence", ["90", "0%", "100%", 1, 0, -0.5, "sure", True])
def test_no_confidence(confidence: Any) -> None:
    """Nobody is sure of anything, nor is 90 nine in ten."""
    said = refusal(confidence=confidence)
    assert said.endswith("is not a probability between 0 and 100 %; write it like 90%")
    assert said.startswith("confidence: ")
