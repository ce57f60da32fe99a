"""Parts that pages share: a run at a glance, its operators, its moves, its terms, and where its numbers come from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import Group
from rich.text import Text

from perfmodel.count.parameters import active_parameter_count, parameter_count
from perfmodel.economics.energy import J_PER_MWH
from perfmodel.explanation.explanation import Explanation
from perfmodel.explanation.terms import TERMS
from perfmodel.light_dataclass import replace
from perfmodel.prediction import Prediction
from perfmodel.report.html.blocks import as_html, escaped, folded
from perfmodel.report.html.live import COST, LiveTerms, days_text, live_html, mfu_text
from perfmodel.report.html.provenance import confidence_table, provenance
from perfmodel.report.html.statements import RunStatements
from perfmodel.report.text.explanation import TERM_LABELS, moves_table, notes, refusals
from perfmodel.report.text.interval import interval_table
from perfmodel.report.text.plans.economics import economics_section
from perfmodel.report.text.prediction import CONVENTION_WORDS, most_memory_bytes
from perfmodel.report.text.term import operator_table, term_report
from perfmodel.report.text.terminal import percent_text, section
from perfmodel.report.words import LABELS
from perfmodel.timing.ledger import Entry, ledger
from perfmodel.timing.uncertainty import Estimate
from perfmodel.units import gibibytes_text, large_text, seconds_interval_text, seconds_text
from perfmodel.variation.setting_grid import setting_grid

TERA: Final = 1e12
MOST_OPERATORS: Final = 10  # beside the roofs


def most_of_memory(prediction: Prediction) -> Text:
    """The two largest parts of the memory of the stage that needs most."""
    worst = max((predicted for _, predicted in prediction.stages), key=lambda each: float(each.memory.total_bytes))
    parts = {part: float(used) for part, used in worst.memory.items()}
    largest = sorted(parts, key=lambda name: -parts[name])[:2]
    return Text(f"Most of it: {', '.join(f'{LABELS[name]} {gibibytes_text(parts[name])}' for name in largest)}.")


def glance(subject: RunStatements) -> dict[str, tuple[str, str]]:
    """The numbers that people ask for first, each with what is said of it."""
    return dict([*_of_the_run(subject), *_of_a_stage(subject), *_of_the_site(subject)])


def _of_the_run(subject: RunStatements) -> Iterator[tuple[str, tuple[str, str]]]:
    days = subject.prediction.total_training_days
    if days is not None:
        words = [f"90 %: {days_text(float(days.low))} to {days_text(float(days.high))}", *_published_days(subject, days)]
        yield "Days", (days_text(float(days.median)), "; ".join(words))


def _published_days(subject: RunStatements, days: Estimate) -> Iterator[str]:
    published = [stage.published.days for stage, _ in subject.prediction.stages]
    known = [each for each in published if each is not None]
    if known and len(known) == len(published):
        yield f"{sum(known):.1f} published ({percent_text(float(days.median) / sum(known) - 1.0)})"


def _of_a_stage(subject: RunStatements) -> Iterator[tuple[str, tuple[str, str]]]:
    stages, gpu = [predicted for _, predicted in subject.prediction.stages], subject.run.cluster.gpu
    last = stages[-1]
    low, high, median = map(float, (*last.iteration_time_interval_s, last.iteration_time_s))
    whose = "" if len(stages) == 1 else f"last of {len(stages)} stages, "
    yield "Iteration", (seconds_text(median), f"{whose}90 %: {seconds_interval_text(low, high, around_s=median)}")
    rates = f"{float(last.flop_per_s_per_gpu()) / TERA:,.0f} TFLOP/s/GPU, {float(last.tokens_per_s_per_gpu):,.0f} tokens/s/GPU"
    yield "MFU", (mfu_text(float(last.mfu)), f"{CONVENTION_WORDS['full']}; {rates}")
    yield "GPUs", (f"{max(int(each.layout.gpus) for each in stages):,}", gpu.name)
    if subject.prediction.may_fit:  # of another run the first sentence says it
        need, have = most_memory_bytes(subject.prediction), float(gpu.memory_bytes)
        yield "Memory of one GPU", (gibibytes_text(need), f"of {gibibytes_text(have)}")
    model = subject.run.model
    size, active = float(parameter_count(model).total), float(active_parameter_count(model))
    yield "Parameters", (large_text(size), "" if model.mixture is None else f"{large_text(active)} of them for each token")


def _of_the_site(subject: RunStatements) -> Iterator[tuple[str, tuple[str, str]]]:
    future = subject.outlook
    terms = "under typical terms" if subject.run.economics is None else "under the terms of the run"
    if future.gpu_hours is not None:
        lost = "" if future.effective_share is None else f"{100.0 * (1.0 - future.effective_share):.1f} % of them do not train"
        yield "GPU-hours", (f"{future.gpu_hours:,.0f}", lost)
        cost = "-" if future.dollars is None else f"${large_text(float(f'{future.dollars:.4g}'))}"
        yield COST, (cost, "no price is given" if future.dollars is None else terms)
    if future.energy_j is not None:
        yield "Energy", (f"{future.energy_j / J_PER_MWH:,.0f} MWh", terms)


def operators_html(explained: Explanation) -> str:
    """The operators that take longest, each alone."""
    entries = sorted(_entries(explained), key=lambda each: -float(each.repeats * each.seconds))[:MOST_OPERATORS]
    return as_html(operator_table(explained, entries))


def all_operators_html(explained: Explanation) -> str:
    """Every operator with its shape, alone."""
    entries = _entries(explained)
    return folded(f"All {len(entries)} operators", as_html(operator_table(explained, entries), level=4))


def _entries(explained: Explanation) -> list[Entry]:
    run, predicted = explained.run, explained.predicted
    return [*ledger(predicted.work, gpus=predicted.layout.gpus, cluster=run.cluster, stack=run.stack)]


def moves_html(explained: Explanation) -> str:
    """What one move of the layout does, and why some cannot be made."""
    refused = as_html(Group(*refusals(explained, every=True)), level=4)
    made = as_html(Group(moves_table(explained), *notes(explained)), level=4)
    return "\n".join([made, *([folded("Moves that cannot be made", refused)] if refused else [])])


def sliders(subject: RunStatements, place: int) -> str:
    """What if: sliders around the run as it is, with its terms or typical ones."""
    run, future = subject.run, subject.outlook
    grid = setting_grid(replace(run, economics=future.terms), place)
    here = grid.point(grid.here)
    known = None if here is None else here.calendar_gpu_hours
    hours = 0.0 if future.gpu_hours is None or known is None else future.gpu_hours - known
    terms = LiveTerms(
        switch_gpu_hours=hours,
        dollars_per_gpu_hour=None if future.terms.dollars_per_gpu_hour is None else float(future.terms.dollars_per_gpu_hour),
        is_priced=known is not None and future.terms.billing == "on_demand",
    )
    return live_html(grid, terms, float(run.cluster.gpu.memory_bytes))


def cost_html(subject: RunStatements) -> str:
    """Calendar, energy and money."""
    typical = [Text("The run gives no terms of its own; these are typical ones.")] if subject.run.economics is None else []
    return as_html(Group(*typical, economics_section(subject.outlook)))


def assumptions_html(assumptions: Sequence[str]) -> str:
    """What was assumed, a sentence each."""
    return as_html(section("Assumptions", [("-", sentence) for sentence in assumptions])) if assumptions else ""


def certainty_html(explained: Explanation) -> str:
    """What the interval is made of, and how much of the time was measured."""
    return f"{as_html(interval_table(explained.predicted))}\n{as_html(confidence_table(explained))}"


def provenance_html(explained: Explanation, *, anchor: str = "source") -> str:
    """Every number with its source, every term with its equations.

    `anchor` begins the names of the sources, which are their own on each page.
    """
    known = provenance(explained, anchor=anchor)
    sources = "\n".join(f'<li id="{anchor}-{place}">{escaped(each)}</li>' for place, each in enumerate(known.sources, start=1))
    terms = [explained.term(name) for name in TERMS]
    return "\n".join(
        [
            folded("Numbers that move the iteration, each with its source", as_html(known.used, level=4)),
            folded("Every other setting", as_html(known.others, level=4)),
            *([folded(f"{len(known.sources)} sources", f'<ol class="sources">\n{sources}\n</ol>')] if sources else []),
            *(
                folded(f"Term: {TERM_LABELS[each.name]}", as_html(term_report(explained, each), level=4))
                for each in terms
                if each.seconds
            ),
        ]
    )
