"""What a page says of measured steps: each beside the prediction of the same layout, operator by operator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.text import Text

from perfmodel.evidence.steps.step_comparison import StepComparison
from perfmodel.report.html.blocks import as_html, beside, escaped, folded
from perfmodel.report.html.document import Section
from perfmodel.report.text.measured.step import comparison_tables, operators_table, step_verdict


def record_sentences(comparisons: Sequence[StepComparison]) -> Iterator[Text]:
    """Predicted and measured time of each step."""
    yield from (step_verdict(each) for each in comparisons)


def record_section(comparisons: Sequence[StepComparison], figures: Mapping[str, str]) -> Section:
    """Every operator of each step, its memory and its communication; `figures` are HTML: measured, measured-1 and on."""
    parts = [figures["measured"]] if "measured" in figures else []
    for place, each in enumerate(comparisons, start=1):
        heading = f"<h3>{escaped(_name(each))}</h3>\n" if len(comparisons) > 1 else ""
        level = 4 if heading else 3
        every = folded("Every operator", as_html(operators_table(each, every=True), level=level + 1))
        content = f"{as_html(comparison_tables(each, every=False), level=level)}\n{every}"
        parts.append(heading + beside(figures.get(f"measured-{place}", ""), content))
    return Section(name="measured", title="Predicted and measured", content="\n".join(parts), is_open=True)


def _name(comparison: StepComparison) -> str:
    gpus = comparison.record.gpus
    where = comparison.record.provenance.get("gpu", "an unnamed device")
    return f"{comparison.record.name}, {gpus} rank{'s' if gpus > 1 else ''} on {where}"
