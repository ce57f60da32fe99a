"""Does the outlook of a run fit a terminal, say what stands behind it, and have its numbers in JSON?"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from perfmodel.economics.outlook import Outlook, outlook
from perfmodel.exchange.presets import economics_preset
from perfmodel.exchange.run_files import read_candidates
from perfmodel.prediction import predict
from perfmodel.report.json.economics import economics_document
from perfmodel.report.text.plans.economics import economics_lines, economics_section
from perfmodel.report.text.terminal import as_text

TYPICAL = economics_preset("typical")
RAMP = ["predict", "nemotron-4-15b"]
PRICE = ["--set", "economics.dollars_per_gpu_hour=2.5"]


def result(*settings: str, **changes: Any) -> Outlook:
    """The outlook of the preset run with its settings, and the typical terms, changed."""
    return outlook(predict(read_candidates("nemotron-4-15b", settings)[0].run), replace(TYPICAL, **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"dollars_per_gpu_hour": 2.5},
        {"dollars_per_gpu_hour": 25.0, "billing": "reserved", "reserved_days": 2000.0},
        {"failures_per_gpu_hour": 0.0},
        {"failures_per_gpu_hour": 1e-3, "dollars_per_gpu_hour": 1e6},
    ],
)
@pytest.mark.parametrize("tokens", ["8T", "800T"])
def test_the_section_fits_80_columns(changes: dict[str, Any], tokens: str) -> None:
    """Whatever the terms; in ASCII, with a row for each stage and the total."""
    text = as_text(economics_section(result(f"stages[-1].tokens={tokens}", **changes)), width=80)
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= 80
    first = [line.split()[0] for line in text.splitlines() if line.split()]
    assert {"768", "1,536", "2,304", "total"} <= set(first)


def test_what_is_not_known_is_said() -> None:
    """Tokens, a price, the power of a node: no table, and a sentence for each."""
    unknown = result("stages[0].tokens=null", "cluster.node_power_w=null")
    lines = " ".join(economics_lines(unknown))
    assert "no price is given" in lines
    assert "the cluster states no node_power_w" in lines
    assert "calendar " not in as_text(economics_section(unknown), width=80).splitlines()[1]
    priced = result("stages[0].tokens=null", dollars_per_gpu_hour=2.5)
    assert "days are not known without tokens" in economics_lines(priced)[0]


def test_reserved_days_have_a_total_of_their_own() -> None:
    """Also where the run has one stage."""
    reserved = {"dollars_per_gpu_hour": 2.5, "billing": "reserved"}
    one_stage = "stages=[{data_parallel: 96, global_batch_size: 384, tokens: 1T}]"
    for changes, shown in ((reserved, False), (reserved | {"reserved_days": 90.0}, True)):
        assert ("total " in as_text(economics_section(result(one_stage, **changes)), width=80)) is shown
    assert "at least 90 days" in economics_lines(result(one_stage, **reserved, reserved_days=90.0))[0]


def test_even_odds_and_nine_in_ten_have_a_line() -> None:
    """Of the calendar, with a price of dollars as well; none without tokens."""
    found = result().percentiles()
    line = f"calendar p50 {found['calendar_p50_days']:.2f} days, p90 {found['calendar_p90_days']:.2f} days"
    assert line in economics_lines(result())
    assert [each for each in economics_lines(result(dollars_per_gpu_hour=2.5)) if each.startswith(f"{line}; cost p50 $")]
    assert not [each for each in economics_lines(result("stages[0].tokens=null")) if " p50 " in each]


def test_the_document_is_json_with_the_numbers_of_the_outlook() -> None:
    """Nothing is infinite, and units are in the names."""
    never = economics_document(result(failures_per_gpu_hour=0.0))
    assert json.loads(json.dumps(never, allow_nan=False)) == never
    priced = result(dollars_per_gpu_hour=2.5)
    document = economics_document(priced)
    assert document["dollars"] == priced.dollars
    assert document["calendar_interval_days"] == list(priced.calendar_interval_days or ())
    assert {name: document[name] for name in priced.percentiles()} == priced.percentiles()
    assert list(priced.percentiles()) == ["calendar_p50_days", "calendar_p90_days", "dollars_p50", "dollars_p90"]
    assert economics_document(result("stages[0].tokens=null"))["calendar_p90_days"] is None
    assert [stage["gpus"] for stage in document["stages"]] == [768, 1536, 2304]
    assert sum(document["stages"][0]["shares"].values()) == pytest.approx(1, rel=1e-12)


def test_predict_shows_economics_where_terms_are_given(run: Any) -> None:
    """And is what it was without them: nothing but the section is added."""
    without, given = run(*RAMP).out, run(*RAMP, *PRICE).out
    assert "Calendar, energy and cost" not in without
    start, end = given.index("\nCalendar, energy and cost"), given.index("\nAssumptions")
    assert given[:start] + given[end:] == without
    document, plain = (json.loads(run(*RAMP, *more, "--json").out) for more in (PRICE, []))
    assert document.pop("economics")["terms"] == TYPICAL.name
    assert document == plain


def test_wrong_terms_are_one_sentence_on_the_command_line(run: Any) -> None:
    """With exit code 2 and nothing else."""
    for setting, sentence in (
        ("dollars_per_gpu_hour=0", "economics.dollars_per_gpu_hour: 0 must be greater than 0"),
        (
            "dollars_per_gpu_hour=two",
            "economics.dollars_per_gpu_hour: 'two' is not a price in dollars; write it like 2.5 or $2.5",
        ),
        ("failures_per_gpu_hour=-1", "economics.failures_per_gpu_hour: -1 must be at least 0"),
        ("failures_per_gpu_hour=1", "economics: such a run never ends: 768 GPUs fail every"),
        (
            "power_usage_effectivenes=1.1",
            "economics.power_usage_effectivenes: unknown key; did you mean power_usage_effectiveness?",
        ),
    ):
        done = run(*RAMP, "--set", f"economics.{setting}")
        assert done.is_refused(2, f"perfmodel: {sentence}"), done


def test_terms_are_listed_and_shown_with_their_sources(run: Any) -> None:
    """Like every other preset."""
    assert "typical" in run("list", "economics").out
    shown = run("show", "economics/typical").out
    assert "failures_per_gpu_hour" in shown
    assert "419 unexpected interruptions" in " ".join(shown.split())
