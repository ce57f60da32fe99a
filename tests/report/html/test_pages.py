"""Does a page hold all that was predicted, number for number, and nothing that a name could break?"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from perfmodel.exchange.presets import settings
from perfmodel.exchange.sources import run_sources
from perfmodel.exchange.spec_mappings import mapping_of
from perfmodel.explanation.waterfall import STEPS
from perfmodel.prediction import Prediction
from perfmodel.report.html.document import Page
from perfmodel.report.html.pages import run_page, runs_page, scenario_page
from perfmodel.report.html.provenance import UNSAID
from perfmodel.report.html.run import TITLES
from perfmodel.report.html.statements import told
from perfmodel.report.text.explanation import STEP_LABELS
from perfmodel.report.words import LABELS
from perfmodel.timing.breakdown import PARTS
from tests.evidence.step_examples import SETTINGS, as_predicted, small_prediction
from tests.report.html.parsed_pages import ParsedPage, first_sight, parsed_page

pytestmark = pytest.mark.slow

RUN = "nemotron-4-15b"
MOST_BYTES = 3_000_000
MOST_LETTERS = 2_500
DENSE_TITLES = [title for title in TITLES if title != "experts"]
WEIRD = "<script>alert(\"1\")</script> $x_1^{2}$ 模型 é '&amp;' </title></style></svg>--> " + "x" * 200
SMALL = {
    "name": "Small",
    "model": "llama-3.1-8b",
    "cluster": "dgx-h100",
    "stack": "megatron-core",
    "tensor_parallel": 4,
    "micro_batch_size": 1,
    "sequence_length": 8192,
    "stages": [{"data_parallel": 4, "global_batch_size": 16}],
}


@pytest.fixture(scope="module")
def whole() -> Page:
    """The page of a published run with a ramp."""
    return run_page(RUN, command=f"perfmodel report {RUN}")


@pytest.fixture(scope="module")
def parsed(whole: Page) -> ParsedPage:
    """The same, taken apart."""
    return parsed_page(whole.html)


@pytest.fixture(scope="module")
def prediction() -> Prediction:
    """What is on it."""
    return told(RUN).prediction


@pytest.fixture(scope="module")
def weird() -> Page:
    """A run whose names are full of markup, whose stages do not state their tokens."""
    names = {part: {"extends": SMALL[part], "name": WEIRD} for part in ("model", "cluster", "stack")}
    return run_page({**SMALL, **names, "name": WEIRD, "assumptions": [WEIRD]}, command=WEIRD)


@pytest.fixture(scope="module")
def single() -> Page:
    """One stage, with tokens and a price."""
    stages = [{"data_parallel": 4, "global_batch_size": 16, "tokens": 2e11}]
    return run_page({**SMALL, "stages": stages, "economics": {"extends": "typical", "dollars_per_gpu_hour": 2.37}})


@pytest.fixture(scope="module")
def misfit() -> Page:
    """A run that needs more memory than there is."""
    return run_page(RUN, {"tensor_parallel": 1, "stages": [{"data_parallel": 96, "global_batch_size": 384, "tokens": 200e9}]})


@pytest.fixture(scope="module")
def scenarios() -> Page:
    """Two scenarios, one of which does not fit."""
    wanted = {WEIRD: ["cluster=dgx-h200"], "TP 1": ["tensor_parallel=1", "micro_batch_size=4"]}
    return scenario_page(SMALL, wanted, base=["economics.dollars_per_gpu_hour=2"])


@pytest.fixture(scope="module")
def several() -> Page:
    """Three runs, two of one name."""
    return runs_page([SMALL, {**SMALL, "tensor_parallel": 2}, "laptop"])


@pytest.fixture(scope="module")
def measured() -> Page:
    """A run beside two records of it."""
    run = small_prediction()
    return run_page(RUN, SETTINGS, records=[as_predicted(run, slower=1.1), as_predicted(run)])


@pytest.fixture(params=["whole", "weird", "misfit", "scenarios", "several", "measured"])
def any_page(request: pytest.FixtureRequest) -> Page:
    """Each of them."""
    made: Page = request.getfixturevalue(request.param)
    return made


def test_a_page_is_whole(any_page: Page) -> None:
    """Every tag closed, every id its own, every link to a place on it, of less than 3 MB."""
    parsed = parsed_page(any_page.html)
    assert parsed.faults == []
    assert len(set(parsed.ids)) == len(parsed.ids)
    assert all(target.startswith("#") and target[1:] in parsed.ids for target in parsed.targets)
    assert len(any_page.html.encode()) < MOST_BYTES


def test_a_page_fetches_nothing(any_page: Page) -> None:
    """Nor does any name become a script, a style or a title."""
    parsed = parsed_page(any_page.html)
    assert (parsed.tags["script"], parsed.tags["style"]) == (1, 1)
    assert sum("title" in around and "svg" not in around for around, _ in parsed.words) == 1
    assert not {"link", "iframe", "object", "embed", "img", "base", "form"} & set(parsed.tags)
    assert parsed.handlers == []
    assert all("url(#" in style for style in parsed.styles if "url(" in style)


def test_every_figure_is_in_its_section(any_page: Page) -> None:
    """Named for readers who do not see it, with values under the pointer."""
    parsed = parsed_page(any_page.html)
    assert parsed.tags["svg"] == parsed.tags["figure"] == len(any_page.figures)
    assert any_page.html.count('role="img"') == len(any_page.figures)
    assert {f"figure-{name}" for name in any_page.figures} <= set(parsed.ids)


def test_every_question_has_its_section(parsed: ParsedPage) -> None:
    """In the order in which they are asked; that of the experts only on pages of mixtures."""
    assert [each for each in parsed.ids if each in TITLES] == DENSE_TITLES


def test_the_verdict_comes_first(parsed: ParsedPage) -> None:
    """Whether it fits and what would help, then days, what was published, and the other numbers at a glance."""
    first = parsed.said("header").replace("\N{NO-BREAK SPACE}", " ")
    for words in (
        "Fits in memory.",
        "The fastest move that fits: micro-batch 1 -> 2",
        "Days 12.8 90 %: 11.5 to 14.9; 13.1 published (-2.2 %)",
        "Iteration 0.618 s last of 3 stages, 90 %: 0.554 to 0.719 s",
        "MFU 31.5 % attention counted in full; 312 TFLOP/s/GPU, 3,316 tokens/s/GPU",
        "GPUs 2,304 ",
        "Memory of one GPU 14.4 GiB of 79.1 GiB",
        "Parameters 15.63B",
    ):
        assert words in first


def test_the_ramp_has_what_was_predicted_and_published(parsed: ParsedPage, prediction: Prediction) -> None:
    """A row a stage, published figures below with the difference."""
    head, *rows = parsed.tables["ramp"][0]
    columns = ["stage", "DP", "GPUs", "batch", "iteration s", "90 % interval", "MFU %", "tokens/s/GPU", "days"]
    assert head == [*columns, "90 % interval of days"]
    for row, (stage, predicted) in zip(rows, prediction.stages, strict=True):
        low, high = predicted.iteration_time_interval_s
        time, share = float(predicted.iteration_time_s), stage.published.iteration_time_s
        assert share is not None
        sizes = (stage.data_parallel, predicted.layout.gpus, stage.global_batch_size)
        assert row[1:4] == [f"{size:,}" for size in sizes]
        assert row[4].split("\n") == [f"{time:.3f}", f"{share:g} ({100 * (time / share - 1):+.1f} %)"]
        assert row[5] == f"{float(low):.2f}-{float(high):.2f}"
        assert row[6].partition("\n")[0] == f"{100 * float(predicted.mfu):.1f}"
        days = predicted.training_days(stage.tokens or 0)
        assert row[9] == f"{float(days.low):.1f}-{float(days.high):.1f}"


@pytest.mark.parametrize(
    ("section", "part", "scale", "decimals"), [("iteration", "breakdown", 1e3, 1), ("memory", "memory", 2**-30, 2)]
)
def test_parts_are_those_of_the_prediction(
    parsed: ParsedPage, prediction: Prediction, section: str, part: str, scale: float, decimals: int
) -> None:
    """A column a stage, each part under its label, and the total."""
    labels = {label: name for name, label in LABELS.items()}
    (head, *rows) = parsed.tables[section][0]
    assert head[1:4] == [f"DP {stage.data_parallel}" for stage, _ in prediction.stages]
    for label, *cells in rows:
        wanted = [getattr(predicted, part) for _, predicted in prediction.stages]
        total = "total_s" if part == "breakdown" else "total_bytes"
        values = [float(getattr(each, labels.get(label, total))) * scale for each in wanted]
        assert cells[:3] == [f"{value:.{decimals}f}" for value in values]


def test_each_stage_has_its_own_view(parsed: ParsedPage, prediction: Prediction) -> None:
    """All are on the page; without a script too."""
    for section in ("peak", "operators", "layouts", "levers"):
        said = parsed.said(section)
        for place, (stage, _) in enumerate(prediction.stages):
            assert f"stage {place + 1}: DP {stage.data_parallel}" in said
    for place, each in enumerate(told(RUN).explained):
        rows = {row[0]: row for row in parsed.tables["peak"][place]}
        for step in each.waterfall.steps:
            if abs(step.mfu_change) > 1e-3:
                assert rows[STEP_LABELS[step.name]][1:3] == [f"{1e3 * step.seconds:.1f}", f"{100 * step.mfu_change:+.1f}"]


def test_every_coefficient_has_a_value_and_a_source(parsed: ParsedPage) -> None:
    """Each number of model, hardware and software once, each source a line that is linked."""
    run, sources = told(RUN).run, run_sources(RUN)
    listed = [row[0] for table in _tables(parsed, "number", "setting") for row in table[1:]]
    assert len(set(listed)) == len(listed)
    known = dict(settings(mapping_of(run)))
    numbers = {path for path in known if path.startswith(("model.", "cluster.", "stack.")) and known[path] is not None}
    missing = {path for path in numbers - set(listed) if not UNSAID.search(path)}
    assert missing == set()
    assert sources["cluster.gpu.memory_bandwidth_bytes_per_s"] in parsed.said("provenance")
    for table in _tables(parsed, "number"):
        assert all(row[-1].startswith("[") or row[-1] == "default" for row in table[1:])


def _tables(parsed: ParsedPage, *first: str) -> Iterator[list[list[str]]]:
    """Tables of the provenance whose first heading is one of these, and whose last is the source."""
    yield from (table for table in parsed.tables["provenance"] if table[0][0] in first and table[0][-1] == "source")


def test_assumptions_and_terms_are_said(parsed: ParsedPage) -> None:
    """What the run leaves open, and under which terms its cost is."""
    assert "micro_batch_size is not stated in the paper" in parsed.said("provenance")
    assert "The run gives no terms of its own; these are typical ones." in parsed.said("cost")
    assert "no price is given" in parsed.said("cost")


def test_a_run_that_does_not_fit_says_so_before_all_else(misfit: Page) -> None:
    """With what needs most and what would help; memory is the first section; the rest is there all the same."""
    parsed = parsed_page(misfit.html)
    header = parsed.said("header")
    assert misfit.fits is False
    assert next(text for around, text in parsed.words if "div" in around).startswith("Does not fit in memory: needs")
    assert "Most of it: " in header
    assert "The fastest move that fits: " in header
    assert next(each for each in parsed.ids if each in TITLES) == "memory"
    assert set(DENSE_TITLES) <= set(parsed.ids)
    assert next(iter(misfit.figures)) == "memory"


@pytest.mark.parametrize("name", ["single", "whole"])
def test_a_number_stands_once_at_first_sight(name: str, request: pytest.FixtureRequest) -> None:
    """In what is open and not a picture: each of three digits and more that is no part of a name."""
    seen = first_sight(request.getfixturevalue(name).html)
    found = re.findall(r"(?<![\w.])(?<!DP )\d[\d,.]*\d", seen)
    numbers = Counter(number for number in found if len(re.sub(r"\D", "", number)) >= 3)
    assert len(numbers) > 8
    assert {number: times for number, times in numbers.items() if times > 1} == {}


def test_a_page_is_short_at_first(whole: Page) -> None:
    """Two pictures and the answer; every other part is folded under its title."""
    parts = re.findall(r'<details class="part[^"]*"( open)?>\n<summary><h2>(.*?)</h2>', whole.html)
    assert [title for is_open, title in parts if is_open] == [TITLES["peak"], TITLES["memory"]]
    assert [title for _, title in parts] == [TITLES[name] for name in DENSE_TITLES]
    assert len(first_sight(whole.html)) < MOST_LETTERS


def test_weird_names_stay_names(weird: Page) -> None:
    """Wherever they stand: title, heading, sentences, settings, assumptions, command."""
    parsed, words = parsed_page(weird.html), " ".join(WEIRD.split())
    assert WEIRD not in weird.html
    for place in ("title", "h1", "header", "footer", "provenance"):
        assert words in " ".join(" ".join(text.split()) for around, text in parsed.words if place in around)


def test_a_run_of_many_stages_explains_some(tmp_path: Any) -> None:
    """The tables have all of them; the stage that is asked for is among those."""
    stages = [{"data_parallel": 4, "global_batch_size": 16 * number, "tokens": 1e9} for number in range(1, 21)]
    subject = told({**SMALL, "stages": stages}, stage=7)
    assert [each.place for each in subject.explained] == [0, 4, 6, 8, 11, 15, 19]
    assert subject.foremost.place == 6


def test_scenarios_stand_beside_the_run(scenarios: Page) -> None:
    """What does not fit is said first; every number has its difference, every column its view."""
    parsed = parsed_page(scenarios.html)
    assert scenarios.fits is False
    assert parsed.said("header").partition("B does not fit in memory: needs")[1]
    head, *rows = parsed.tables["results"][0]
    assert head[0:2] == ["result", "before"]
    assert head[3] == head[5] == "change"
    assert [row[0] for row in rows][:2] == ["GPUs", "iteration time, ms"]
    assert parsed.tags["input"] == 4
    assert {"iteration", "memory", "peak-1", "peak-2", "peak-3"} <= set(scenarios.figures)


def test_runs_stand_beside_each_other(several: Page) -> None:
    """Two of one name are told apart."""
    parsed = parsed_page(several.html)
    head, *rows = parsed.tables["results"][0]
    assert head == ["result", "Small", "A  Small", "change", "B  A 21M-parameter Ne...", "change"]
    assert "3 runs beside each other" in parsed.said("header")
    assert rows


@pytest.mark.parametrize("name", ["scenarios", "several"])
def test_what_the_table_of_a_comparison_says_no_sentence_says_again(name: str, request: pytest.FixtureRequest) -> None:
    """Times, days and costs stand in the table alone, with how they change; sentences say which way, and how sure that is."""
    parsed = parsed_page(request.getfixturevalue(name).html)
    told = {cell for row in parsed.tables["results"][0][1:] for cell in row[1:]}
    said = parsed.said("header").replace("\N{NO-BREAK SPACE}", " ")
    numbers = {number for number in re.findall(r"[-+]?\d[\d,.]*\d(?: %)?", said) if len(re.sub(r"\D", "", number)) >= 3}
    assert numbers & told == set()


def test_the_direction_of_a_change_is_that_of_its_time() -> None:
    """Slower links can take no less time, and as fast ones take as long."""
    wanted = {"half": {"cluster.network_scale": 0.5}, "same": {"cluster.network_scale": 1.0}}
    said = parsed_page(scenario_page(SMALL, wanted).html).said("header")
    assert "half: an iteration takes longer" in said or "half: an iteration probably takes longer" in said
    assert "same: an iteration takes as long." in said


def test_measured_steps_stand_beside_their_prediction(measured: Page) -> None:
    """In the first sentence and in the first section, operator by operator."""
    parsed = parsed_page(measured.html)
    assert "predicted" in parsed.said("header")
    assert "measured (-9.1 %)" in parsed.said("header")
    assert next(each for each in parsed.ids if each in (*TITLES, "measured")) == "measured"
    assert {"measured", "measured-1", "measured-2"} <= set(measured.figures)
    assert parsed.tables["measured"][0][0][:4] == ["operator", "phase", "predicted ms", "measured ms"]


def test_every_step_and_part_has_a_label() -> None:
    """So that none is left out of a page."""
    assert set(STEPS) == set(STEP_LABELS)
    assert set(PARTS) <= set(LABELS)
