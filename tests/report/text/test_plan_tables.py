"""Do the tables of a plan say each thing once, and only what is known?"""

from __future__ import annotations

from typing import Any

import pytest
from rich.table import Table

from perfmodel.report.text.plans.plan import plan_report
from perfmodel.report.text.plans.plan_verdict import verdict
from perfmodel.report.text.terminal import TitledBlock
from perfmodel.search.plan import Plan
from tests.search.small_plans import plain_plan, small_plan


def tables(plan: Plan) -> dict[str, Table]:
    """Those of the report, by the first word of their titles."""
    titled = [part for part in plan_report(plan).renderables if isinstance(part, TitledBlock)]
    return {each.title.split()[0]: each.content for each in titled if isinstance(each.content, Table)}


def column(table: Table, heading: str) -> list[str]:
    """The cells under a heading."""
    (found,) = (each for each in table.columns if each.header == heading)
    return [str(cell) for cell in found.cells]


def sentences(plan: Plan) -> str:
    """The verdict as one text."""
    return " ".join(text.plain for text in verdict(plan))


def test_a_line_for_each_layout_that_is_another() -> None:
    """Settings that lead to one layout share a line; what is the best in other words has none."""
    stage = plain_plan().stages[0]
    best = (stage.best.iteration_time_s, stage.best.memory_bytes)
    others = [each for each in stage.alternatives if each.candidate is not None]
    different = {
        tuple(each.candidate.settings.items())
        for each in others
        if each.candidate is not None and (each.candidate.iteration_time_s, each.candidate.memory_bytes) != best
    }
    changes = column(tables(plain_plan())["Rejected"], "change")
    assert len(changes) == len(different) < len(others)


def test_the_best_leads_its_rivals() -> None:
    """Its line says that it is the best; the others say what differs."""
    differs = column(tables(plain_plan())["The"], "what differs from the best")
    assert differs[0] == "(the best)"
    assert "(the best)" not in differs[1:]


def test_what_failures_take_is_said_where_days_are_known() -> None:
    """As a share of the calendar: nothing without tokens, 0.0 % where nothing fails and no checkpoint is written."""
    said = "Failures, restarts and checkpoints take"
    assert said not in sentences(plain_plan())
    assert f"{said} 0.0 % of the calendar." in sentences(small_plan(tokens="1B", economics={"failures_per_gpu_hour": 0}))


def test_what_does_not_fit_is_a_reason() -> None:
    """With what it would need."""
    reasons = tables(small_plan(leave_free="92%"))["Rejected"]
    needs = [
        because for time, because in zip(column(reasons, "time"), column(reasons, "because"), strict=True) if "not" in time
    ]
    assert needs
    assert all(each.startswith("needs ") and each.endswith(" GiB at least") for each in needs)


@pytest.mark.parametrize(
    ("wanted", "headings"),
    [
        ({}, ["GPUs", "iteration s", "GiB", ""]),
        ({"tokens": "1B"}, ["GPUs", "iteration s", "days", "p90", "GPU-hours", "GiB", ""]),
        ({"tokens": "1B", "deadline": "14d"}, ["GPUs", "iteration s", "days", "p90", "odds", "GPU-hours", "GiB", ""]),
        (
            {"tokens": "1B", "economics": {"dollars_per_gpu_hour": 2}},
            ["GPUs", "iteration s", "days", "p90", "cost $", "GiB", ""],
        ),
    ],
)
def test_columns_of_what_is_known(wanted: dict[str, Any], headings: list[str]) -> None:
    """No days without tokens, no odds without a limit, dollars for GPU-hours with a price, no batch where it is the same."""
    options = tables(small_plan(gpus="2,4,8", **wanted))["Options"]
    assert [each.header for each in options.columns] == headings


def test_batches_that_differ_have_a_column() -> None:
    """Where they are rounded to suit the GPUs."""
    options = tables(small_plan(gpus="8,24", global_batch_size=None))["Options"]
    assert column(options, "batch") == ["2,048", "2,040"]


def test_one_of_each_is_not_many() -> None:
    """One GPU, and one rival or none."""
    alone = small_plan(gpus=1, choose={"micro_batch_size": 1, "recompute": "none", "sharding": "none"})
    assert alone.stages[0].rivals == ()
    assert sentences(alone).startswith("small on 1 GPU of DGX H100: ")
    assert "rival" not in sentences(alone)


def test_how_sure_it_is_in_words() -> None:
    """Robust, or a close call."""
    stage = plain_plan().stages[0]
    sure = stage.robustness.first_share[0] >= 0.9
    assert ("Robust: " in sentences(plain_plan())) == sure
    assert ("A close call" in sentences(plain_plan())) != sure


def test_limits_are_said_with_their_odds() -> None:
    """Of the deadline and of the budget, beside what is asked for; that no fewer GPUs do only where that was looked for."""
    both = {"deadline": "2d", "budget": 1e6, "economics": {"dollars_per_gpu_hour": 2}, "tokens": "1B"}
    given = sentences(small_plan(gpus=8, **both, confidence="80%"))
    assert "Meets 2.0 days with over 99 % odds (80 % asked for). Costs at most $1M with over 99 % odds (80 % asked" in given
    exact = sentences(small_plan(gpus=8, **both, confidence="99.99%"))
    assert "(99.99 % asked for)" in exact
    assert "p99.99 " in exact
    sized = sentences(small_plan(gpus=None, most_gpus=64, **both))
    assert "Meets 2.0 days with over 99 % odds (90 % asked for), on the fewest GPUs that do." in sized


def test_even_odds_and_nine_in_ten_are_said_wherever_days_are_known() -> None:
    """Of the calendar, and of dollars with a price; those that are asked for as well."""
    assert "p90" not in sentences(plain_plan())
    best = small_plan(tokens="100B").best
    assert best is not None
    days = [f"{best.calendar_days_at(share):.1f} days" for share in (0.5, 0.9)]
    assert f"Calendar p50 {days[0]}, p90 {days[1]}." in sentences(small_plan(tokens="100B"))
    priced = small_plan(tokens="100B", deadline="90d", confidence=0.95, economics={"dollars_per_gpu_hour": 2})
    assert priced.best is not None
    asked = f"p95 {priced.best.calendar_days_at(0.95):.1f} days; cost p50 ${priced.best.dollars_at(0.5):,.0f}, p90 $"
    assert asked in sentences(priced)


def test_where_nothing_meets_the_limits_the_best_odds_are_said() -> None:
    """With what it takes, and what would be met: a later end with the same odds, the same end with lower ones."""
    days = small_plan(tokens="100B").options[0].calendar_days
    late = small_plan(tokens="100B", deadline=f"{1.02 * days!r}d")
    (option,) = late.options
    odds = option.deadline_probability
    assert late.best is None
    assert odds is not None
    assert 0.5 < odds < 0.9
    said = sentences(late)
    assert f"days with 90 % odds: the best odds are {int(100 * odds)} %, on 4 GPUs (calendar p50 " in said
    assert f"4 GPUs would meet {option.calendar_days_at(0.9):.1f} days with 90 % odds, or " in said
    assert said.endswith(f"days at --confidence {int(100 * odds)}%. Without --gpus, the deadline decides how many.")
    assert small_plan(tokens="100B", deadline=f"{1.02 * days!r}d", confidence=f"{int(100 * odds)}%").best is not None
