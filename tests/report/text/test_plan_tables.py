"""Do the tables of a plan say each thing once, and only what is known?"""

from __future__ import annotations

from typing import Any

import pytest
from rich.table import Table

from perfmodel.report.text.plan import plan_report
from perfmodel.report.text.plan_verdict import verdict
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
        ({}, ["GPUs", "iter. s", "GiB", ""]),
        ({"tokens": "1B"}, ["GPUs", "iter. s", "days", "GPU-hours", "GiB", ""]),
        (
            {"tokens": "1B", "economics": {"dollars_per_gpu_hour": 2}},
            ["GPUs", "iter. s", "days", "GPU-hours", "cost $", "GiB", ""],
        ),
    ],
)
def test_columns_of_what_is_known(wanted: dict[str, Any], headings: list[str]) -> None:
    """No days without tokens, no dollars without a price, no batch where it is the same."""
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


def test_limits_are_said() -> None:
    """What is left of a deadline and of a budget."""
    both = {"deadline": "2d", "budget": 1e6, "economics": {"dollars_per_gpu_hour": 2}, "tokens": "1B"}
    given = sentences(small_plan(gpus=8, **both))
    assert "It keeps the deadline of 2.0 days, with " in given
    assert "It costs at most $1M, with " in given
    assert "The fewest GPUs that keep the deadline of 2.0 days" in sentences(small_plan(gpus=None, most_gpus=64, **both))
