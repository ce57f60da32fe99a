"""What a page says of one run: the answer, then a section for each question, with its figure and its tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from perfmodel.explanation.explanation import Explanation
from perfmodel.report.html.blocks import as_html
from perfmodel.report.html.document import PageChoice, PageHeader, Section, views
from perfmodel.report.html.parts import (
    assumptions_html,
    cost_html,
    glance,
    most_of_memory,
    moves_html,
    operators_html,
    provenance_html,
)
from perfmodel.report.html.statements import RunStatements
from perfmodel.report.text.experts import experts_section
from perfmodel.report.text.explanation import findings, headline_table, waterfall_table
from perfmodel.report.text.measured.own_runs import own_runs_line
from perfmodel.report.text.prediction import (
    PUBLISHED_HEADINGS,
    STAGE_HEADINGS,
    breakdown_table,
    candidate_table,
    days_cell,
    description,
    memory_table,
    published_cells,
    stage_cells,
    stage_labels,
    verdict,
)
from perfmodel.report.text.sweep import scaling_table, scaling_title
from perfmodel.report.text.terminal import plain_table, titled
from perfmodel.variation.strong_scaling import strong_scaling

TITLES: Final = {
    "ramp": "Stages of the run",
    "peak": "Where the peak goes",
    "iteration": "Where an iteration goes",
    "memory": "Memory of one GPU",
    "experts": "Mixture of experts",
    "operators": "Operators",
    "scaling": "Scaling",
    "layouts": "Other layouts",
    "levers": "What matters",
    "cost": "Calendar, energy and cost",
    "provenance": "Where the numbers come from",
}


def stage_choice(subject: RunStatements) -> PageChoice | None:
    """The stages that are explained, where there are several; the last is the one that most of a ramp is spent in."""
    if len(subject.explained) == 1:
        return None
    told_apart = stage_labels(subject.prediction)
    named = [(f"stage {each.place + 1}", told_apart[each.place]) for each in subject.explained]
    labels = [name if name == label else f"{name}: {label}" for name, label in named]
    return PageChoice(what="stage", labels=tuple(labels), first=subject.chosen)


def run_opening(subject: RunStatements) -> PageHeader:
    """The answer in a sentence, and the numbers that people ask for first; where it is no, that and why come before all."""
    return PageHeader(
        title=subject.run.name,
        subtitle=description(subject.run).plain,
        answer=subject.prediction.may_fit,
        verdict=as_html(Group(*_sentences(subject))),
        glance=glance(subject),
    )


def _sentences(subject: RunStatements) -> Iterator[Text]:
    lines = [*verdict(subject.prediction).split()]
    if subject.prediction.may_fit:
        yield from lines
    else:
        missing, *others = lines
        yield from (missing, most_of_memory(subject.prediction), *others)
    own = own_runs_line(subject.prediction.stages[-1][1])
    if own is not None:
        yield own
    yield from findings(subject.foremost)


def run_sections(subject: RunStatements, figures: Mapping[str, str]) -> list[Section]:
    """Every section; `figures` are HTML by the name of their section, those of one stage with its number behind: peak-2.

    Memory comes first where it is what is missing.
    """
    stages, choice = len(subject.run.stages), stage_choice(subject)

    def of_stages(name: str, content: Callable[[Explanation], str]) -> str:
        return views([_joined(figures.get(f"{name}-{each.place + 1}"), content(each)) for each in subject.explained], choice)

    contents = {
        "ramp": _ramp(subject),
        "peak": of_stages("peak", lambda each: as_html(waterfall_table(each))),
        "iteration": as_html(breakdown_table(subject.prediction, most=stages)),
        "memory": as_html(memory_table(subject.prediction, most=stages)),
        "experts": as_html(Group(*experts_section(subject.prediction))),
        "operators": of_stages("operators", operators_html),
        "scaling": _scaling(subject),
        "layouts": of_stages("layouts", moves_html),
        "levers": of_stages("levers", lambda each: as_html(headline_table(each))),
        "cost": cost_html(subject),
        "provenance": _joined(assumptions_html(subject.candidates[0].assumptions), provenance_html(subject.foremost)),
    }
    order = [*contents] if subject.prediction.may_fit else ["memory", *(name for name in contents if name != "memory")]
    whole = {name: _joined(figures.get(name), contents[name]) for name in order}
    return [Section(name=name, title=TITLES[name], content=content) for name, content in whole.items() if content]


def _scaling(subject: RunStatements) -> str:
    """The table behind the curve of strong scaling; empty where there is no curve."""
    swept = strong_scaling(subject.run, subject.foremost.place)
    curve = swept.scaling
    return "" if curve is None else as_html(titled(scaling_title(swept, curve), scaling_table(swept, curve)))


def _joined(*parts: str | None) -> str:
    return "\n".join(part for part in parts if part)


def _ramp(subject: RunStatements) -> str:
    """Each stage with its interval, what was published beside it, and the candidates where there are several."""
    stages = subject.prediction.stages
    table = plain_table()
    for heading in ("stage", *STAGE_HEADINGS, "90 % interval of days"):
        table.add_column(heading, justify="right", no_wrap=True)
    for place, (stage, predicted) in enumerate(stages, start=1):
        beside = dict(zip(PUBLISHED_HEADINGS, published_cells(stage, predicted), strict=True))
        cells = zip(STAGE_HEADINGS, stage_cells(stage, predicted), strict=True)
        figures = (f"{cell}{_published(*beside.get(heading, ('', '', '')))}" for heading, cell in cells)
        table.add_row(f"{place}", *figures, days_cell(stage, predicted))
    parts: list[RenderableType] = [table]
    if any(stage.published for stage, _ in stages):
        words = "In small letters: what was published, and how far the prediction is from it (the MFU in points)."
        parts.append(Text(words, style="dim"))
    if len(subject.predictions) > 1:
        values = [each.values for each in subject.candidates]
        parts.append(candidate_table([*zip(values, subject.predictions, strict=True)]))
    if len(stages) > len(subject.explained):
        shown = ", ".join(str(each.place + 1) for each in subject.explained)
        parts.append(Text(f"Of {len(stages)} stages, {shown} are explained one by one below.", style="dim"))
    return as_html(Group(*parts))


def _published(_: str, published: str, difference: str) -> str:
    """A second, smaller line, where there is something to say."""
    return f"\n{published} ({difference})" if published else ""
