"""Does the page of a plan say what the plan found, why nothing else is better, and what another number of GPUs would be?"""

from __future__ import annotations

import json
import re
from collections import Counter
from html import unescape
from pathlib import Path
from typing import Any

import pytest

import perfmodel as pm
from perfmodel.errors import InputError
from perfmodel.report.html.deadlines import deadline_label, deadlines_days, fewest_by, odds_by
from perfmodel.report.html.document import Page
from perfmodel.report.html.live import BETWEEN
from perfmodel.report.html.plan import TITLES, option_texts, plan_data, plan_page
from perfmodel.report.text.plans.plan import rejections
from perfmodel.report.text.plans.plan_odds import short_odds
from perfmodel.search.plan import Plan
from perfmodel.units import seconds_text
from tests.report.html.parsed_pages import first_sight, parsed_page

pytestmark = pytest.mark.slow

WEIRD = '<script>alert(1)</script> "$x" & \'</title>'
ASKED: dict[str, Any] = {"cluster": "dgx-h100", "tokens": "1T", "price": "2.37", "choose": {"precision": "bf16"}}


@pytest.fixture(scope="module")
def several() -> Plan:
    """Of three numbers of GPUs."""
    return pm.plan("llama-3.1-8b", gpus="64,128,256", deadline="60d", **ASKED)


@pytest.fixture(scope="module")
def whole(several: Plan) -> Page:
    """Its page."""
    return plan_page(several, command=f"perfmodel plan {WEIRD}")


@pytest.fixture(scope="module")
def nothing() -> Page:
    """A model that fits nowhere."""
    return plan_page(pm.plan("llama-3.1-405b", cluster="dgx-a100", gpus="8", choose={"sharding": "none"}))


@pytest.fixture(scope="module")
def ramp() -> Page:
    """Of two stages, on one number of GPUs."""
    return plan_page(pm.plan("llama-3.1-8b", cluster="dgx-h100", gpus="64", ramp="512:100B,1024:900B"))


@pytest.fixture(params=["whole", "nothing", "ramp"])
def any_page(request: pytest.FixtureRequest) -> Page:
    """Each of them."""
    made: Page = request.getfixturevalue(request.param)
    return made


def test_a_page_is_whole_and_fetches_nothing(any_page: Page) -> None:
    """Every tag closed, every link to a place on it, one script, no name that is markup."""
    parsed = parsed_page(any_page.html)
    assert parsed.faults == []
    assert len(set(parsed.ids)) == len(parsed.ids)
    assert all(target.startswith("#") and target[1:] in parsed.ids for target in parsed.targets)
    assert (parsed.tags["script"], parsed.tags["style"]) == (1, 1)
    assert parsed.handlers == []
    assert WEIRD not in any_page.html
    assert parsed.tags["svg"] == parsed.tags["figure"] == len(any_page.figures)


def test_a_plan_has_its_map_its_rivals_and_its_fronts(whole: Page) -> None:
    """A figure each, in reading order; the map and what other choices cost are open at first."""
    assert list(whole.figures) == ["map", "rejected", "rivals", "front", "options"]
    sections = [each for each in parsed_page(whole.html).ids if each in TITLES]
    assert sections == [name for name in TITLES if name != "ramp"]
    parts = re.findall(r'<details class="part[^"]*"( open)?>\n<summary><h2>(.*?)</h2>', whole.html)
    assert [title for is_open, title in parts if is_open] == [TITLES["map"], TITLES["rejected"]]


def test_the_answer_comes_first(whole: Page, several: Plan) -> None:
    """The layout, the odds, and the numbers of the best option."""
    said = parsed_page(whole.html).said("header").replace("\N{NO-BREAK SPACE}", " ")
    best = several.best
    assert best is not None
    assert whole.fits
    assert f"GPUs {best.gpus:,}" in said
    assert f"Iteration {seconds_text(best.iteration_time_s)}" in said
    assert f"Layouts looked at {several.layouts:,}" in said
    assert "Meets 60.0 days with" in said


def test_a_number_stands_once_at_first_sight(whole: Page) -> None:
    """Of three digits and more, that is no part of a name."""
    found = re.findall(r"(?<![\w.])\d[\d,.]*\d", first_sight(whole.html))
    numbers = Counter(number for number in found if len(re.sub(r"\D", "", number)) >= 3)
    assert len(numbers) > 6
    assert {number: times for number, times in numbers.items() if times > 1} == {}


def test_every_rejected_choice_is_told_with_what_it_costs(whole: Page, several: Plan) -> None:
    """In the table behind the picture, as the plan has them."""
    (head, *rows) = parsed_page(whole.html).tables["rejected"][0]
    assert head == ["change", "time", "because"]
    assert rows == [[each.change, each.time, each.because] for each in rejections(several.stages[-1])]


def test_sliders_say_of_each_number_of_gpus_what_the_plan_does(whole: Page, several: Plan) -> None:
    """What the script looks up is what is planned with that number alone, whatever the deadline."""
    data = json.loads(unescape(re.findall(r'data-grid="([^"]*)"', whole.html)[0]))
    assert data == json.loads(json.dumps(plan_data(several)))
    sizes, (_, deadlines) = [each.gpus for each in several.options], data["shape"]
    for place, gpus in enumerate(sizes):
        alone = pm.plan("llama-3.1-8b", gpus=str(gpus), **ASKED).best
        assert alone is not None
        for name, (text, _) in option_texts(alone):
            own = data["texts"][name].split(BETWEEN)[place * deadlines : (place + 1) * deadlines]
            assert {*own} == {text}
    assert sizes[data["here"][0]] == (several.best and several.best.gpus)


def test_the_slider_of_the_deadline_has_the_odds_of_a_plan_with_that_deadline(several: Plan) -> None:
    """Of each number of GPUs; a later deadline is never less likely to be met."""
    texts: Any = plan_data(several)["texts"]
    deadlines = deadlines_days(several)
    assert 60.0 in deadlines
    for place, option in enumerate(several.options):
        own = texts["odds"].split(BETWEEN)[place * len(deadlines) : (place + 1) * len(deadlines)]
        for days in (deadlines[0], 60.0, deadlines[-1]):
            alone = pm.plan("llama-3.1-8b", gpus=str(option.gpus), deadline=f"{days}d", **ASKED)
            assert own[deadlines.index(days)] == short_odds(alone.options[0].limits_probability)
        odds = [odds_by(option, days) for days in deadlines]
        assert odds == sorted(odds)


def test_the_table_of_deadlines_has_the_fewest_gpus_that_do(several: Plan, whole: Page) -> None:
    """As the plan itself chooses for its own deadline; where none does, more would be needed."""
    best = several.best
    assert fewest_by(several, 60.0) is best
    assert fewest_by(several, 0.5) is None
    chosen = [found.gpus for days in deadlines_days(several) if (found := fewest_by(several, days)) is not None]
    assert chosen == sorted(chosen, reverse=True)
    (head, *rows) = parsed_page(whole.html).tables[""][0]
    assert head == ["deadline", "GPUs", "days", "odds", "cost"]
    assert [row[0] for row in rows] == [deadline_label(days) for days in deadlines_days(several)]
    assert [row[1] for row in rows if row[0] == "60 days"] == [f"{best.gpus:,}" if best else ""]


def test_a_budget_keeps_its_odds_by_every_deadline() -> None:
    """However late it may be, a plan is no likelier to cost less."""
    both = pm.plan("llama-3.1-8b", gpus="64", deadline="60d", budget="200k", **ASKED)
    (option,) = both.options
    assert option.budget_probability is not None
    assert odds_by(option, 60.0) == option.limits_probability
    assert odds_by(option, 1e4) == option.budget_probability < 1


def test_a_plan_in_hours_has_deadlines_in_hours() -> None:
    """None where nobody knows how many tokens there are."""
    short = pm.plan("llama-3.1-8b", cluster="dgx-h100", gpus="64,128", deadline="9h", tokens="5B")
    assert {deadline_label(days).split()[1] for days in deadlines_days(short)} == {"hours"}
    assert 9 / 24 in deadlines_days(short)
    assert deadlines_days(pm.plan("llama-3.1-8b", cluster="dgx-h100", gpus="64,128")) == ()


def test_a_plan_of_one_number_has_a_slider_of_the_price_alone() -> None:
    """And none where there are no tokens to pay for."""
    priced = plan_page(pm.plan("llama-3.1-8b", gpus="64", **ASKED)).html
    assert (priced.count('type="range"'), priced.count("data-price>")) == (1, 1)
    assert 'type="range"' not in plan_page(pm.plan("llama-3.1-8b", cluster="dgx-h100", gpus="64")).html


def test_a_ramp_has_a_table_of_its_stages(ramp: Page) -> None:
    """The layout of each."""
    rows = parsed_page(ramp.html).tables["ramp"][0]
    assert [row[0] for row in rows] == ["stage", "1", "2"]


def test_what_fits_nowhere_says_so_without_pictures(nothing: Page) -> None:
    """The sentence of the terminal, what is in the way, and what would help."""
    assert not nothing.fits
    assert not nothing.figures
    assert "does not fit on 8 GPUs" in first_sight(nothing.html)


def test_the_command_writes_the_page(run: Any, tmp_path: Path) -> None:
    """Beside what it prints, with the command that makes it again."""
    path = tmp_path / "plan.html"
    done = run("plan", "llama-3.1-8b", "--cluster", "dgx-h100", "--gpus", "64", "--report", path)
    assert done.code == 0
    assert "Llama 3.1 8B on 64 GPUs" in " ".join(done.out.split())
    said = parsed_page(path.read_text(encoding="utf-8")).said("footer")
    assert "perfmodel plan llama-3.1-8b --cluster dgx-h100 --gpus 64 --report" in said


def test_a_folder_takes_the_page_and_its_figures(run: Any, tmp_path: Path) -> None:
    """Each as PNG and SVG."""
    assert run("plan", "llama-3.1-8b", "--cluster", "dgx-h100", "--gpus", "64", "--report", f"{tmp_path}/plan/").code == 0
    names = {"map", "rejected", "rivals", "front"}
    wanted = {"plan.html", *(f"{name}.{kind}" for name in names for kind in ("png", "svg"))}
    assert {path.name for path in (tmp_path / "plan").iterdir()} == wanted


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--cluster", "dgx-h100", "--report", "plan.pdf"], "--report 'plan.pdf' is not an .html file"),
        (["--cluster", "dgx-h100,dgx-h200", "--report", "plan.html"], "--report writes one plan"),
        (["--serve", "--report", "plan.html"], "--report is about training"),
    ],
)
def test_what_the_option_cannot_be_is_one_sentence(run: Any, options: list[str], words: str) -> None:
    """With exit code 2, before any search."""
    asked = [] if "--serve" in options else ["--gpus", "64"]
    assert run("plan", "llama-3.1-8b", *asked, *options).is_refused(2, words)


def test_python_reports_a_plan_as_the_command_does(several: Plan, whole: Page) -> None:
    """And refuses what would be another plan."""
    assert list(pm.report(several).figures) == list(whole.figures)
    with pytest.raises(InputError, match="give settings and evidence"):
        pm.report(several, stage=1)
