"""Parts that pages share: a run at a glance, its operators, its moves, its terms, and where its numbers come from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group
from rich.text import Text

from perfmodel.economics.energy import J_PER_MWH
from perfmodel.explanation.explanation import Explanation
from perfmodel.explanation.terms import TERMS
from perfmodel.prediction import Prediction
from perfmodel.report.html.blocks import as_html, escaped, folded
from perfmodel.report.html.provenance import confidence_table, provenance
from perfmodel.report.html.statements import RunStatements
from perfmodel.report.text.explanation import TERM_LABELS, moves_table, notes, refusals
from perfmodel.report.text.interval import interval_table
from perfmodel.report.text.plans.economics import economics_section
from perfmodel.report.text.prediction import most_memory_bytes
from perfmodel.report.text.term import operator_table, term_report
from perfmodel.report.text.terminal import section
from perfmodel.report.words import LABELS
from perfmodel.timing.ledger import ledger
from perfmodel.units import gibibytes_text, large_text, seconds_text


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
    days, future = subject.prediction.total_training_days, subject.outlook
    if days is not None and future.calendar_days is not None:
        of_training = f"training, 90 %: {float(days.low):.1f} to {float(days.high):.1f}"
        yield "Days", (f"{float(days.median):.1f}", f"{of_training}; {future.calendar_days:.1f} calendar")


def _of_a_stage(subject: RunStatements) -> Iterator[tuple[str, tuple[str, str]]]:
    stages, gpu = [predicted for _, predicted in subject.prediction.stages], subject.run.cluster.gpu
    last = stages[-1]
    low, high = (float(end) for end in last.iteration_time_interval_s)
    whose = "" if len(stages) == 1 else f"last of {len(stages)} stages, "
    yield "Iteration", (seconds_text(float(last.iteration_time_s)), f"{whose}90 %: {low:.2f} to {high:.2f} s")
    yield "MFU", (f"{100 * float(last.mfu):.1f} %", f"{float(last.tokens_per_s_per_gpu):,.0f} tokens/s/GPU")
    yield "GPUs", (f"{max(int(each.layout.gpus) for each in stages):,}", gpu.name)
    need, have = most_memory_bytes(subject.prediction), float(gpu.memory_bytes)
    yield "Memory of one GPU", (gibibytes_text(need), f"of {gibibytes_text(have)}")


def _of_the_site(subject: RunStatements) -> Iterator[tuple[str, tuple[str, str]]]:
    future = subject.outlook
    terms = "under typical terms" if subject.run.economics is None else "under the terms of the run"
    if future.gpu_hours is not None:
        yield "GPU-hours", (f"{future.gpu_hours:,.0f}", "of the calendar")
    if future.dollars is not None:
        yield "Cost", (f"${large_text(float(f'{future.dollars:.4g}'))}", terms)
    if future.energy_j is not None:
        yield "Energy", (f"{future.energy_j / J_PER_MWH:,.0f} MWh", terms)


def operators_html(explained: Explanation) -> str:
    """Every operator with its shape, alone."""
    run, predicted = explained.run, explained.predicted
    entries = [*ledger(predicted.work, gpus=predicted.layout.gpus, cluster=run.cluster, stack=run.stack)]
    return folded(f"All {len(entries)} operators", as_html(operator_table(explained, entries), level=4))


def moves_html(explained: Explanation) -> str:
    """What one move of the layout does, and why some cannot be made."""
    refused = as_html(Group(*refusals(explained, every=True)), level=4)
    made = as_html(Group(moves_table(explained), *notes(explained)), level=4)
    return "\n".join([made, *([folded("Moves that cannot be made", refused)] if refused else [])])


def cost_html(subject: RunStatements) -> str:
    """Calendar, energy and money."""
    typical = [Text("The run gives no terms of its own; these are typical ones.")] if subject.run.economics is None else []
    return as_html(Group(*typical, economics_section(subject.outlook)))


def assumptions_html(assumptions: Sequence[str]) -> str:
    """What was assumed, a sentence each."""
    return as_html(section("Assumptions", [("-", sentence) for sentence in assumptions])) if assumptions else ""


def provenance_html(explained: Explanation, *, anchor: str = "source") -> str:
    """How much of the time was measured, every number with its source, every term with its equations.

    `anchor` begins the names of the sources, which are their own on each page.
    """
    known = provenance(explained, anchor=anchor)
    sources = "\n".join(f'<li id="{anchor}-{place}">{escaped(each)}</li>' for place, each in enumerate(known.sources, start=1))
    terms = [explained.term(name) for name in TERMS]
    return "\n".join(
        [
            as_html(interval_table(explained.predicted)),
            as_html(confidence_table(explained)),
            folded("Numbers that move the iteration, each with its source", as_html(known.used, level=4)),
            folded("Every other setting", as_html(known.others, level=4)),
            *([folded(f"{len(known.sources)} sources", f'<ol class="sources">\n{sources}\n</ol>')] if sources else []),
            *(
                folded(f"TermNumber {TERM_LABELS[each.name]}", as_html(term_report(explained, each), level=4))
                for each in terms
                if each.seconds
            ),
        ]
    )
