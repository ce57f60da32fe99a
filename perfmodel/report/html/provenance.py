"""Where the numbers of a prediction come from: each with its value, how far it may be off, what it does, and its source."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from rich.console import RenderableType
from rich.style import Style
from rich.text import Text

from perfmodel.exchange.presets import settings
from perfmodel.exchange.spec_mappings import mapping_of
from perfmodel.explanation.explanation import Explanation
from perfmodel.explanation.sensitivity import Effect
from perfmodel.light_dataclass import dataclass
from perfmodel.report.text.explanation import change_text, step_text
from perfmodel.report.text.terminal import plain_table, titled, value_text
from perfmodel.spec.evidence.spread import uncertain_numbers
from perfmodel.timing.ledger import ledger, seconds_by_confidence

PARTS: Final = ("model", "cluster", "stack", "economics")
UNSAID: Final = re.compile(r"\.(evidence|spread)\b|\.name$")  # what stands beside numbers, and what parts are called
DEFAULT: Final = "default"  # given by no file: a factor of 1, an addition of 0, an option that is off
CONFIDENCE: Final = {
    "measured": "of a kernel of this very size",
    "interpolated": "between sizes that were measured",
    "extrapolated": "beyond the sizes that were measured, or on a sister part",
    "datasheet": "from printed rates and assumptions",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Two tables, whose last columns point into `sources`, counted from 1."""

    used: RenderableType
    others: RenderableType
    sources: tuple[str, ...]


def provenance(explained: Explanation, *, anchor: str = "source") -> Provenance:
    """Every number that moves the iteration of one stage, then every other setting of its model, hardware, software, terms.

    Marks of sources link to `anchor`-1 and on.
    """
    effects = [each for each in explained.sensitivity.effects() if len(each.lever.coefficients) == 1 and each.matters]
    paths = [each.lever.coefficients[0].path for each in effects]
    others = [(path, value) for path, value in _settings(explained) if path not in paths]
    sources = dict.fromkeys(explained.source(path) for path in (*paths, *(path for path, _ in others)))
    places = {source: place for place, source in enumerate((each for each in sources if each), start=1)}

    def mark(path: str, value: Any) -> Text:
        place = places.get(explained.source(path))
        if place is None:
            return Text(DEFAULT if places and isinstance(value, int | float) else "")
        return Text(f"[{place}]", style=Style(link=f"#{anchor}-{place}"))

    table = plain_table("number")
    for heading in ("value", "90 % interval", "moved", "iteration", "of the interval", "source"):
        table.add_column(heading, justify="right", no_wrap=True)
    for path, cells in zip(paths, _cells(explained, effects), strict=True):
        table.add_row(path, *cells, mark(path, 0.0))
    rest = plain_table("setting")
    rest.add_column("value", justify="right")
    rest.add_column("source", justify="right", no_wrap=True)
    for path, value in others:
        rest.add_row(path, _value(value), mark(path, value))
    return Provenance(
        used=titled("Numbers that move the iteration, in SI units", table),
        others=titled("Every other setting, in SI units", rest),
        sources=tuple(places),
    )


def confidence_table(explained: Explanation) -> RenderableType:
    """How much of the time of all operators, each alone, rests on what."""
    run, layout = explained.run, explained.predicted.layout
    seconds = seconds_by_confidence(ledger(explained.predicted.work, gpus=layout.gpus, cluster=run.cluster, stack=run.stack))
    total_s = sum(seconds.values())
    table = plain_table("confidence")
    table.add_column("what the time of an operator is")
    for heading in ("ms", "share"):
        table.add_column(heading, justify="right", no_wrap=True)
    for word, each_s in seconds.items():
        table.add_row(word, CONFIDENCE[word], f"{1e3 * each_s:.1f}", f"{100 * each_s / total_s:.0f} %")
    return titled("How sure the time of the operators is", table)


def _cells(explained: Explanation, effects: list[Effect]) -> Iterator[tuple[str, ...]]:
    """Value, half of its 90 % interval, a step of it and what that does, its share of the variance of the time."""
    run, shares = explained.run, explained.predicted.uncertainty.shares
    spreads = dict((*uncertain_numbers(run.cluster, "cluster."), *uncertain_numbers(run.stack, "stack.")))
    for effect in effects:
        (only,) = effect.lever.coefficients
        shift = effect.up if effect.up.step else effect.down
        spread, share = float(spreads.get(only.path, 0.0)), float(shares.get(only.path, 0.0))
        yield (
            f"{only.value:.4g}",
            f"+-{100 * spread:.2g} %" if spread else "",
            step_text(shift.step),
            change_text(shift.change),
            f"{100 * share:.1f} %" if share else "",
        )


def _settings(explained: Explanation) -> Iterator[tuple[str, Any]]:
    for part in PARTS:
        for path, value in settings(mapping_of(getattr(explained.run, part)), part):
            if value is not None and not UNSAID.search(path):
                yield path, value


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else value_text(value)
