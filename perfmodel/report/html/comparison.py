"""What a page says of several runs, or of one run in several scenarios: side by side, each against the first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from rich.console import Group
from rich.text import Text

from perfmodel.count.memory.fit import FITS
from perfmodel.exchange.questions.varied_runs import scenario_comparison
from perfmodel.exchange.run_files import RunCandidate, RunSource, Settings, setting_pairs
from perfmodel.explanation.explanation import Explanation, explanation
from perfmodel.light_dataclass import dataclass
from perfmodel.prediction import Prediction
from perfmodel.report.html.blocks import as_html, as_table, beside
from perfmodel.report.html.document import PageChoice, PageHeader, Section, views
from perfmodel.report.html.parts import (
    all_operators_html,
    assumptions_html,
    certainty_html,
    cost_html,
    moves_html,
    operators_html,
    provenance_html,
)
from perfmodel.report.html.run import GISTS, TITLES
from perfmodel.report.html.statements import RunStatements, sources_of, told
from perfmodel.report.text.before_after import Line, Numbers
from perfmodel.report.text.explanation import headline_table, waterfall_table
from perfmodel.report.text.prediction import description, fit_sentence, most_memory_bytes, need_text
from perfmodel.report.text.scenarios import BYTES, RESULTS, TIMES, misfits, notes, rounded_percent, scenario_letter
from perfmodel.report.text.terminal import plain_table
from perfmodel.variation.scenarios import Scenario, WhatIf

MOST_LETTERS: Final = 24  # of a name at the head of a column
OPEN: Final = ("results", "iteration", "memory")
HALF: Final = ("iteration", "memory", "peak", "levers")  # figures with a folded table
MOST_EXPLAINED: Final = 6  # columns that are explained one by one
LEAST_CHANGE: Final = 5e-4  # of an iteration: less prints as nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonColumns:
    """Columns beside each other: what they are (scenario, run), the name and all that is told of each, and their numbers.

    Of the first columns one stage each is explained; `result` has the numbers of all, the first column being the one before.
    """

    what: str
    title: str
    subtitle: str
    sentences: tuple[Text, ...]
    subjects: tuple[RunStatements, ...]
    result: WhatIf

    @property
    def fits(self) -> bool:
        """Whether every stage of every scenario fits, or of every run."""
        return self.result.may_fit and (self.what == "scenario" or self.result.before.prediction.may_fit)

    @property
    def labels(self) -> tuple[str, ...]:
        """Short names of the columns; letters tell those apart that begin alike."""
        first, *others = (each.name for each in (self.result.before, *self.result.scenarios))
        lettered = [f"{scenario_letter(place)}  {name}" for place, name in enumerate(others)] if len(others) > 1 else others
        return tuple(_short(name) for name in (first, *lettered))

    @property
    def choice(self) -> PageChoice:
        """The columns that are explained."""
        labels = self.labels[: len(self.subjects)]
        return PageChoice(what=self.what, labels=labels, first=0)


def _short(name: str) -> str:
    return name if len(name) <= MOST_LETTERS else f"{name[: MOST_LETTERS - 3].rstrip()}..."


def compared_scenarios(
    source: RunSource,
    scenarios: Mapping[str, Settings],
    *,
    base: Settings,
    stage: int | None,
    same_gpus: bool,
    evidence: str | None = None,
) -> ComparisonColumns:
    """One run as it is and in each scenario, as `perfmodel whatif` compares them."""
    result = scenario_comparison(source, scenarios, base=base, stage=stage, same_gpus=same_gpus, evidence=evidence)
    run = result.before.prediction.run
    columns = (result.before, *result.scenarios)[:MOST_EXPLAINED]
    number = f"{len(result.scenarios)} scenarios" if len(result.scenarios) > 1 else "one scenario"
    return ComparisonColumns(
        what="scenario",
        title=run.name,
        subtitle=f"{number} beside {description(run).plain}",
        sentences=(*misfits(result), *_misfit_before(result), *_directions(result), *notes(result)),
        subjects=tuple(_told(source, base, each, result.place) for each in columns),
        result=result,
    )


def _misfit_before(result: WhatIf) -> Iterator[Text]:
    if not result.before.prediction.may_fit:
        yield Text("As it is, the run does not fit in memory.", style="red")


def _directions(result: WhatIf) -> Iterator[Text]:
    """Whether an iteration takes longer in each scenario, and how sure that is; by how much stands in the table alone."""
    for place, scenario in enumerate(result.scenarios):
        letter = f"{scenario_letter(place)}  " if len(result.scenarios) > 1 else ""
        change, (low, high) = result.time_ratio(scenario) - 1.0, (end - 1.0 for end in result.time_ratio_interval(scenario))
        likely = "" if low * high > 0 or low == high else "probably "
        words = "as long" if abs(change) < LEAST_CHANGE else "longer" if change > 0 else "less time"
        ends = "" if low == high else f" (90 %: {rounded_percent(100 * low)} to {rounded_percent(100 * high)} %)"
        yield Text(f"{letter}{scenario.name}: an iteration {likely}takes {words}{ends}.")


def _told(source: RunSource, base: Settings, scenario: Scenario, place: int) -> RunStatements:
    run = scenario.prediction.run
    origin = sources_of(source, [*setting_pairs(base), *scenario.settings])
    return RunStatements(
        candidates=(RunCandidate(values={}, run=run, assumptions=scenario.assumptions),),
        predictions=(scenario.prediction,),
        explained=(explanation(run, place=place, source=origin),),
        chosen=0,
        outlook=scenario.outlook,
    )


def compared_runs(sources: Sequence[RunSource], *, settings: Settings, stage: int | None) -> ComparisonColumns:
    """Several runs, each beside the first."""
    every = [told(each, setting_pairs(settings), stage=stage, most=1) for each in sources]
    first, *others = (_column(each) for each in every)
    lines = sorted(((each.prediction.may_fit, _fit(each.prediction)) for each in every), key=lambda line: line[0])
    return ComparisonColumns(
        what="run",
        title=" / ".join(dict.fromkeys(each.run.name for each in every)),
        subtitle=f"{len(every)} runs beside each other",
        sentences=tuple(text for _, text in lines),
        subjects=tuple(every[:MOST_EXPLAINED]),
        result=WhatIf(before=first, scenarios=tuple(others), place=-1 if stage is None else stage - 1),
    )


def _fit(prediction: Prediction) -> Text:
    """Whether a run fits in memory, and where that is not clear what it needs; how fast it is stands in the table alone."""
    if prediction.verdict == FITS:
        return Text(f"{prediction.run.name}: fits in memory.", style="green")
    need = need_text(most_memory_bytes(prediction), prediction.run.cluster)
    return fit_sentence(need, prediction.fit_probability, name=prediction.run.name)


def _column(subject: RunStatements) -> Scenario:
    return Scenario(
        name=subject.run.name,
        settings=(),
        prediction=subject.prediction,
        outlook=subject.outlook,
        assumptions=subject.candidates[0].assumptions,
    )


def comparison_opening(columns: ComparisonColumns) -> PageHeader:
    """What each column comes to, those that do not fit first."""
    return PageHeader(
        title=columns.title,
        subtitle=columns.subtitle,
        answer=columns.fits,
        verdict=as_html(Group(*columns.sentences)),
        glance={},
    )


def comparison_sections(columns: ComparisonColumns, figures: Mapping[str, str]) -> list[Section]:
    """Numbers of all columns beside each other, then a view of each; `figures` as those of a run."""
    result = columns.result
    numbers = [result.quantities(each) for each in (result.before, *result.scenarios)]

    def of_each(name: str, content: Callable[[Explanation], str]) -> str:
        contents = [content(each.foremost) for each in columns.subjects]
        drawn = [figures.get(f"{name}-{number}", "") for number in range(1, len(contents) + 1)]
        return views([beside(figure, text) for figure, text in zip(drawn, contents, strict=True)], columns.choice)

    contents = {
        "results": ("What changes" if columns.what == "scenario" else "Beside each other", _beside(RESULTS, columns, numbers)),
        "iteration": (TITLES["iteration"], as_table(_beside(TIMES, columns, numbers))),
        "memory": (TITLES["memory"], as_table(_beside(BYTES, columns, numbers))),
        "peak": (TITLES["peak"], of_each("peak", lambda each: as_table(as_html(waterfall_table(each))))),
        "operators": (
            TITLES["operators"],
            of_each("operators", lambda each: f"{operators_html(each)}\n{all_operators_html(each)}"),
        ),
        "layouts": (TITLES["layouts"], of_each("layouts", moves_html)),
        "levers": (TITLES["levers"], of_each("levers", lambda each: as_table(as_html(headline_table(each))))),
        "cost": (TITLES["cost"], views([cost_html(each) for each in columns.subjects], columns.choice)),
        "provenance": (TITLES["provenance"], _provenance(columns)),
    }
    return [
        Section(
            name=name,
            title=title,
            content=beside(figures.get(name, ""), content),
            gist=GISTS.get(name, ""),
            is_open=name in OPEN,
            is_half=name in HALF,
        )
        for name, (title, content) in contents.items()
    ]


def _provenance(columns: ComparisonColumns) -> str:
    contents = [
        "\n".join(
            [
                assumptions_html(each.candidates[0].assumptions),
                certainty_html(each.foremost),
                provenance_html(each.foremost, anchor=f"source-{place}"),
            ]
        )
        for place, each in enumerate(columns.subjects)
    ]
    return views([content.strip() for content in contents], columns.choice)


def _beside(lines: Sequence[Line], columns: ComparisonColumns, numbers: Sequence[Numbers]) -> str:
    """Rows of numbers: the first column, then each other one with its difference from the first."""
    first, *others = numbers
    table = plain_table("result" if lines is RESULTS else "part")
    for place, label in enumerate(columns.labels):
        table.add_column(label, justify="right")
        if place:
            table.add_column("change", justify="right")
    for line in lines:
        if line.is_shown(numbers):
            cells = [cell for each in others for cell in (line.value(each), _difference(line, first, each))]
            if line.label == "total":
                table.add_section()
            table.add_row(line.label, line.value(first), *cells)
    return as_html(table)


def _difference(line: Line, first: Numbers, other: Numbers) -> str:
    """Relative, in points where the number is a share itself."""
    return line.ratio(first, other) or line.difference(first, other)
