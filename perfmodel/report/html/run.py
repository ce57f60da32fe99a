"""What a page says of one run: the answer, then a section for each question, with its figure and its tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from perfmodel.count.memory.fit import DOES_NOT_FIT, TIGHT
from perfmodel.explanation.explanation import Explanation
from perfmodel.report.html.blocks import as_html, as_table, beside
from perfmodel.report.html.document import PageChoice, PageHeader, Section, views
from perfmodel.report.html.live import COST, QUANTITIES
from perfmodel.report.html.parts import (
    all_operators_html,
    assumptions_html,
    certainty_html,
    cost_html,
    glance,
    most_of_memory,
    moves_html,
    operators_html,
    provenance_html,
    sliders,
)
from perfmodel.report.html.statements import RunStatements
from perfmodel.report.text.experts import experts_section
from perfmodel.report.text.explanation import advice, headline_table, losses, waterfall_table
from perfmodel.report.text.measured.own_runs import own_runs_line
from perfmodel.report.text.prediction import (
    PUBLISHED_HEADINGS,
    STAGE_HEADINGS,
    breakdown_table,
    candidate_table,
    days_cell,
    description,
    fit_sentence,
    memory_table,
    most_memory_bytes,
    need_text,
    odds_text,
    published_cells,
    stage_cells,
    stage_labels,
    verdict,
)
from perfmodel.report.text.sweep import scaling_table, scaling_title
from perfmodel.report.text.terminal import plain_table, titled
from perfmodel.variation.strong_scaling import strong_scaling

TITLES: Final = {
    "peak": "Where the peak goes",
    "memory": "Memory of one GPU",
    "ramp": "Stages of the run",
    "iteration": "Where an iteration goes",
    "scaling": "Scaling",
    "levers": "What matters",
    "operators": "Operators",
    "layouts": "Other layouts",
    "experts": "Mixture of experts",
    "cost": "Calendar, energy and cost",
    "provenance": "Where the numbers come from",
}
BROAD: Final = ("operators", "layouts", "experts", "cost", "provenance")  # what has tables of its own beside its figure
OPEN: Final = ("peak", "memory")  # what people look at first
GISTS: Final = {
    "ramp": "time and MFU of each, with 90 % intervals",
    "iteration": "every part of it, stage by stage",
    "memory": "every part of it, and what the GPU has",
    "experts": "how tokens are spread, and what travels",
    "cost": "failures, checkpoints, power and price",
    "provenance": "every number with its source, every term with its equation",
}
MOVED: Final = QUANTITIES | {COST: "cost", "Energy": "energy"}  # all that sliders change; of energy the grid knows nothing


def stage_choice(subject: RunStatements) -> PageChoice | None:
    """The stages that are explained, where there are several; the last is the one that most of a ramp is spent in."""
    if len(subject.explained) == 1:
        return None
    told_apart = stage_labels(subject.prediction)
    named = [(f"stage {each.place + 1}", told_apart[each.place]) for each in subject.explained]
    labels = [name if name == label else f"{name}: {label}" for name, label in named]
    return PageChoice(what="stage", labels=tuple(labels), first=subject.chosen)


def run_opening(subject: RunStatements) -> PageHeader:
    """The answer in a sentence, and the numbers that people ask for first; where it is no, that and why come before all.

    A number stands once: what is at a glance is in no sentence.
    """
    return PageHeader(
        title=subject.run.name,
        subtitle=description(subject.run).plain,
        answer=subject.prediction.may_fit,
        verdict=as_html(Group(*_sentences(subject))),
        glance=glance(subject),
        live=sliders(subject, subject.foremost.place),
        moved=MOVED,
    )


def _sentences(subject: RunStatements) -> Iterator[Text]:
    prediction = subject.prediction
    if subject.run.fine_tuning is not None:
        yield from verdict(prediction).split()
    elif prediction.verdict == DOES_NOT_FIT:
        need = need_text(most_memory_bytes(prediction), subject.run.cluster)
        yield from (fit_sentence(need, prediction.fit_probability), most_of_memory(prediction))
    elif prediction.verdict == TIGHT:
        yield Text(f"Tight in memory, {odds_text(prediction.fit_probability)}.", style="yellow")
    else:
        yield Text("Fits in memory.", style="green")
    own = own_runs_line(subject.prediction.stages[-1][1])
    if own is not None:
        yield own
    yield from advice(subject.foremost)


def run_sections(subject: RunStatements, figures: Mapping[str, str], gists: Mapping[str, str]) -> list[Section]:
    """Every section; `figures` are HTML by the name of their section, those of one stage with its number behind: peak-2.

    `gists` are what each figure says in a few words. Memory comes first where it is what is missing.
    """
    stages, choice = len(subject.run.stages), stage_choice(subject)

    def of_stages(name: str, content: Callable[[Explanation], str]) -> str:
        return views([_with_figure(name, each, content(each)) for each in subject.explained], choice)

    def _with_figure(name: str, each: Explanation, content: str) -> str:
        below = all_operators_html(each) if name == "operators" else ""
        return _joined(beside(figures.get(f"{name}-{each.place + 1}", ""), content), below)

    contents = {
        "ramp": as_table(_ramp(subject)),
        "peak": of_stages("peak", lambda each: as_table(as_html(waterfall_table(each)))),
        "iteration": as_table(as_html(breakdown_table(subject.prediction, most=stages))),
        "memory": as_table(as_html(memory_table(subject.prediction, most=stages))),
        "experts": as_html(Group(*experts_section(subject.prediction))),
        "operators": of_stages("operators", operators_html),
        "scaling": _scaling(subject),
        "layouts": of_stages("layouts", moves_html),
        "levers": of_stages("levers", lambda each: as_table(as_html(headline_table(each)))),
        "cost": as_table(cost_html(subject)),
        "provenance": _joined(assumptions_html(subject.candidates[0].assumptions), certainty_html(subject.foremost)),
    }
    order = [*TITLES] if subject.prediction.may_fit else ["memory", *(name for name in TITLES if name != "memory")]
    whole = {name: beside(figures.get(name, ""), contents[name]) for name in order}
    whole["provenance"] += f"\n{provenance_html(subject.foremost)}"
    return [_section(name, content, subject, gists) for name, content in whole.items() if content]


def _section(name: str, content: str, subject: RunStatements, gists: Mapping[str, str]) -> Section:
    place = subject.foremost.place + 1
    if name == "peak":
        gist = " ".join(each.plain for each in losses(subject.foremost))
    else:
        drawn = gists.get(f"{name}-{place}") or gists.get(name, "")
        gist = GISTS.get(name) or drawn.partition(";")[0]
    return Section(name=name, title=TITLES[name], content=content, gist=gist, is_open=name in OPEN, is_half=name not in BROAD)


def _scaling(subject: RunStatements) -> str:
    """The table behind the curve of strong scaling; empty where there is no curve."""
    swept = strong_scaling(subject.run, subject.foremost.place)
    curve = swept.scaling
    return "" if curve is None else as_table(as_html(titled(scaling_title(swept, curve), scaling_table(swept, curve))))


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
