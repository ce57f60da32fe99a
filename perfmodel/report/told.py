"""All that a page needs of one run: read, predicted, explained stage by stage, with its outlook."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from perfmodel.economics.outlook import Outlook, outlook
from perfmodel.exchange.presets import economics_preset, source_of
from perfmodel.exchange.run_files import TYPICAL, Candidate, RunSource, Setting, read_candidates
from perfmodel.exchange.sources import run_sources
from perfmodel.planning.explanation import Explanation, explanation
from perfmodel.prediction import Prediction, predict
from perfmodel.spec.run import Run

MOST_EXPLAINED: Final = 6  # stages of a ramp that are explained one by one


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A run, the first of its `candidates`; `explained` are stages of it in their order, the last of them that of its end."""

    candidates: tuple[Candidate, ...]
    predictions: tuple[Prediction, ...]  # of each candidate
    explained: tuple[Explanation, ...]
    outlook: Outlook

    @property
    def run(self) -> Run:
        """The run itself."""
        return self.candidates[0].run

    @property
    def prediction(self) -> Prediction:
        """What it will do."""
        return self.predictions[0]


def told(source: RunSource, settings: Sequence[Setting] = (), *, places: Callable[[Run], Sequence[int]] | None = None) -> Told:
    """The run called so with its settings; `places` says which stages to explain, without it all, or of many some."""
    candidates = read_candidates(source, settings)
    first, predictions = candidates[0], tuple(predict(each.run) for each in candidates)
    origin = sources_of(source, settings)
    shown = shown_places(len(first.run.stages)) if places is None else places(first.run)
    return Told(
        candidates=candidates,
        predictions=predictions,
        explained=tuple(explanation(first.run, place=place, source=origin, chosen=first.values) for place in shown),
        outlook=outlook(predictions[0], first.run.economics or economics_preset(TYPICAL)),
    )


def sources_of(source: RunSource, settings: Sequence[Setting]) -> Callable[[str], str]:
    """Where the number at a key path of a run comes from."""
    return partial(source_of, sources=run_sources(source, settings))


def shown_places(number: int) -> list[int]:
    """The places of all stages, or of many the first, the last and some between.

    >>> shown_places(3), shown_places(26)
    ([0, 1, 2], [0, 5, 10, 15, 20, 25])
    """
    shown = min(number, MOST_EXPLAINED)
    return [round(place * (number - 1) / max(shown - 1, 1)) for place in range(shown)]
