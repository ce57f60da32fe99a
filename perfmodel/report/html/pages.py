"""Pages of HTML with their figures: of one run, of several, of a run in several scenarios, and beside measured steps.

    from perfmodel.report.html.pages import run_page
    run_page("nemotron-4-15b").save("report.html")

This room lies above perfmodel.api, and `perfmodel.report` is its name: `pm.report` is the room itself, which calls `report`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType

from rich.console import Group

from perfmodel.errors import InputError
from perfmodel.evidence.steps.step_comparison import StepComparison, compare_step
from perfmodel.evidence.steps.step_records import StepRecord
from perfmodel.exchange.measured.own_evidence import with_evidence
from perfmodel.exchange.run_files import RunSource, Settings, listed_sources, setting_pairs
from perfmodel.light_dataclass import replace
from perfmodel.report.figures.figure_set import OF_A_STAGE, OF_MANY, run_drawings
from perfmodel.report.figures.measured.accuracy import steps_figure
from perfmodel.report.figures.measured.comparison import iterations_figure, memories_figure
from perfmodel.report.figures.measured.steps import operators_figure
from perfmodel.report.html.blocks import as_html
from perfmodel.report.html.comparison import (
    ComparisonColumns,
    compared_runs,
    compared_scenarios,
    comparison_opening,
    comparison_sections,
)
from perfmodel.report.html.document import Page, page
from perfmodel.report.html.drawn import Draw, Progress, drawn, quiet
from perfmodel.report.html.plan import plan_page
from perfmodel.report.html.records import record_section, record_sentences
from perfmodel.report.html.run import TITLES, run_opening, run_sections, stage_choice
from perfmodel.report.html.statements import told
from perfmodel.search.plan import Plan


def report(
    runs: RunSource | Sequence[RunSource] | Plan,
    settings: Settings = (),
    *,
    scenarios: Mapping[str, Settings] = MappingProxyType({}),
    stage: int | None = None,
    same_gpus: bool = False,
    evidence: str | None = None,
) -> Page:
    """One self-contained page of HTML about a run, a run in scenarios, several runs beside the first, or a plan (`pm.plan`).

    A notebook shows the page; `.save("report.html")` writes it, `.figures` are its pictures by name. `settings` are those of
    `--set`; `stage` is the ramp stage that is shown first, counted from 1; `same_gpus` and `evidence` are those of `pm.whatif`.

    >>> page = report("nemotron-4-15b", stage=3)  # doctest: +SKIP
    >>> page.fits, "memory" in page.figures  # doctest: +SKIP
    (True, True)
    """
    if isinstance(runs, Plan):
        if setting_pairs(settings) or scenarios or stage is not None or same_gpus or evidence is not None:
            raise InputError("a plan is reported as it is; give settings and evidence to pm.plan")
        return plan_page(runs)
    sources = listed_sources(runs)
    if scenarios and len(sources) > 1:
        raise InputError("scenarios compare one run with itself; name one run, or leave them out")
    if same_gpus and not scenarios:
        raise InputError("same_gpus needs a scenario")
    if scenarios:
        return scenario_page(sources[0], scenarios, base=settings, stage=stage, same_gpus=same_gpus, evidence=evidence)
    own = with_evidence(settings, evidence)
    return run_page(sources[0], own, stage=stage) if len(sources) == 1 else runs_page(sources, own, stage=stage)


def run_page(
    source: RunSource,
    settings: Settings = (),
    *,
    records: Sequence[StepRecord] = (),
    stage: int | None = None,
    command: str = "",
    on_progress: Progress = quiet,
) -> Page:
    """One run, and beside it measured steps where there are some.

    `stage` is which one of a ramp comes first, counted from 1 (the last without); `command` is the one that makes the page.
    Errors: InputError, also for records of other steps.
    """
    subject = told(source, setting_pairs(settings), stage=stage)
    comparisons = [compare_step(subject.prediction, each) for each in records]
    wanted = run_drawings(subject.prediction, subject.explained, subject.outlook, chosen=subject.chosen)
    figures, shown = drawn(_of_records(comparisons) | wanted, TITLES.values(), on_progress)
    gists = {name: figure.description for name, figure in figures.items()}
    opening, sections = run_opening(subject), run_sections(subject, shown, gists)
    if comparisons:
        measured = as_html(Group(*record_sentences(comparisons)))
        words = (measured, opening.verdict) if opening.answer else (opening.verdict, measured)  # what does not fit is first
        opening = replace(opening, verdict="\n".join(words))
        sections.insert(0, record_section(comparisons, shown))
    return page(opening, sections, choice=stage_choice(subject), command=command, figures=figures)


def scenario_page(
    source: RunSource,
    scenarios: Mapping[str, Settings],
    *,
    base: Settings = (),
    stage: int | None = None,
    same_gpus: bool = False,
    evidence: str | None = None,
    command: str = "",
    on_progress: Progress = quiet,
) -> Page:
    """One run beside itself with the settings of each scenario changed, as api.whatif compares them, `evidence` too."""
    columns = compared_scenarios(source, scenarios, base=base, stage=stage, same_gpus=same_gpus, evidence=evidence)
    return _comparison_page(columns, command=command, on_progress=on_progress)


def runs_page(
    sources: Sequence[RunSource],
    settings: Settings = (),
    *,
    stage: int | None = None,
    command: str = "",
    on_progress: Progress = quiet,
) -> Page:
    """Several runs, each beside the first."""
    return _comparison_page(compared_runs(sources, settings=settings, stage=stage), command=command, on_progress=on_progress)


def _comparison_page(columns: ComparisonColumns, *, command: str, on_progress: Progress) -> Page:
    figures, shown = drawn(_of_comparison(columns), TITLES.values(), on_progress)
    sections = comparison_sections(columns, shown)
    return page(comparison_opening(columns), sections, choice=columns.choice, command=command, figures=figures)


def _of_records(comparisons: Sequence[StepComparison]) -> dict[str, Draw]:
    """All steps together where there are several, then the operators of each."""
    several: dict[str, Draw] = {"measured": partial(steps_figure, comparisons)} if len(comparisons) > 1 else {}
    each = {f"measured-{number}": partial(operators_figure, step) for number, step in enumerate(comparisons, start=1)}
    return several | each


def _of_comparison(columns: ComparisonColumns) -> dict[str, Draw]:
    """Bars of all columns together, then the figures of each."""
    result, labels, title = columns.result, columns.labels, columns.title
    every = (result.before, *result.scenarios)
    stages = [each.stage(result.place) for each in every]
    capacities = [float(each.prediction.run.cluster.gpu.memory_bytes) for each in every]
    drawn: dict[str, Draw] = {
        "iteration": partial(iterations_figure, labels, stages, subtitle=title),
        "memory": partial(memories_figure, labels, stages, capacities, subtitle=title),
    }
    for name in OF_MANY:
        for number, each in enumerate(columns.subjects, start=1):
            drawn[f"{name}-{number}"] = partial(OF_A_STAGE[name], each.foremost)
    return drawn
